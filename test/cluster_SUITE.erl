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
-export([users_on_two_nodes_chat/1, both_nodes_get_connections/1,
         users_of_a_drained_node_are_back_on_the_other/1, a_node_that_comes_back_is_used/1]).

-define(TIMEOUT, 30_000).
%% Seconds.
-define(DRAIN, 2).

suite() -> [{timetrap, {minutes, 3}}].

all() -> [{group, ejabberd_24_12}].

groups() ->
    [{Group, [sequence], [users_on_two_nodes_chat, both_nodes_get_connections,
                          users_of_a_drained_node_are_back_on_the_other, a_node_that_comes_back_is_used]}
     || Group <- [ejabberd_23_01, ejabberd_24_12]].

init_per_group(Group, Config) ->
    {ok, _} = application:ensure_all_started(ssl),
    Dir = e2e_ejabberd:temporary(),
    #{ca := Ca, server := Certificate} = e2e_certs:make(Dir),
    Distribution = e2e_port:free(),
    [One, Two] = [start_node(Number, version(Group), Distribution, Certificate, Dir) || Number <- [1, 2]],
    ok = join(Two, One),
    #{ejabberd := Ejabberd} = One,
    [ok = e2e_ejabberd:call(Ejabberd, ejabberd_auth, try_register, [User, <<"localhost">>, <<User/binary, "-pw">>])
     || User <- [<<"carol">>, <<"dave">>]],
    Edges = [start_ecm(Name, [One, Two], Dir, Ca) || Name <- ["edge-1", "edge-2"]],
    [{nodes, [One, Two]}, {edges, Edges}, {dir, Dir} | Config].

end_per_group(_Group, Config) ->
    [ok = e2e_ecm:stop(Ecm) || #{ecm := Ecm} <- ?config(edges, Config)],
    [begin
         ok = e2e_ejabberd:stop(Ejabberd),
         e2e_ejabberd:keep_log(Dir, ?config(priv_dir, Config))
     end || #{ejabberd := Ejabberd, dir := Dir} <- ?config(nodes, Config)],
    file:del_dir_r(?config(dir, Config)).

version(ejabberd_23_01) -> "23.01";
version(ejabberd_24_12) -> "24.12".

%% Whatever each of the two connects with.
users_on_two_nodes_chat(Config) ->
    [Edge1, Edge2] = ?config(edges, Config),
    [#{name := One}, #{name := Two}] = ?config(nodes, Config),
    [begin
         Alice = login_on(One, A, <<"alice">>, Edge1, Config),
         Bob = login_on(Two, B, <<"bob">>, Edge2, Config),
         {Alice1, Bob1} = e2e_user:chat(Alice, Bob, <<"how is it over there?">>),
         ok = e2e_user:close(Alice1),
         ok = e2e_user:close(Bob1)
     end || A <- [bosh, websocket, c2s], B <- [bosh, websocket, c2s]].

%% Each edge gives a new connection to the node that has the fewest of its.
both_nodes_get_connections(Config) ->
    [begin
         Users = [e2e_user:login(websocket, anonymous, Edge) || _ <- lists:seq(1, 6)],
         ?assertMatch([3, 3], [length([at || User <- Users, where(User, Config) =:= Name])
                               || #{name := Name} <- ?config(nodes, Config)]),
         [ok = e2e_user:close(User) || User <- Users]
     end || Edge <- ?config(edges, Config)].

users_of_a_drained_node_are_back_on_the_other(Config) ->
    [Edge1, Edge2] = ?config(edges, Config),
    [#{name := One}, #{name := Two, ejabberd := Ejabberd}] = ?config(nodes, Config),
    Alice = login_on(Two, websocket, <<"alice">>, Edge1, Config),
    Bob = e2e_user:listen(login_on(Two, bosh, <<"bob">>, Edge2, Config)),
    Carol = login_on(Two, c2s, <<"carol">>, Edge1, Config),
    Dave = login_on(One, websocket, <<"dave">>, Edge2, Config),
    {Dave1, Alice1} = e2e_user:chat(Dave, Alice, <<"are you there?">>),
    ok = e2e_ejabberd:call(Ejabberd, megaphone, drain, [?DRAIN]),
    %% What each is told: docs/operating.md, "Draining a node".
    {AliceSaw, AliceHeard} = e2e_user:ending(Alice1, ?TIMEOUT),
    ?assertMatch({close_frame, Code, _} when Code =:= 1001; Code =:= 1012, AliceSaw, AliceHeard),
    {BobSaw, _} = e2e_user:ending(Bob, ?TIMEOUT),
    ?assert(lists:member(BobSaw, [closed, {status, 503}]) orelse element(1, BobSaw) =:= terminate, BobSaw),
    {closed, CarolHeard} = e2e_user:ending(Carol, ?TIMEOUT),
    [?assertMatch({match, _}, re:run(Heard, "system-shutdown")) || Heard <- [AliceHeard, CarolHeard]],
    %% The node still runs, and gets nobody any more.
    Back = [e2e_user:login(Transport, User, Edge)
            || {Transport, User, Edge} <- [{websocket, <<"alice">>, Edge1}, {bosh, <<"bob">>, Edge2}, {c2s, <<"carol">>, Edge1}]],
    [?assertEqual(One, where(User, Config)) || User <- Back],
    ok = e2e_ejabberd:stop(Ejabberd),
    Last = lists:foldl(fun(User, DaveNow) ->
                               {DaveNext, User1} = e2e_user:chat(DaveNow, User, <<"back again?">>),
                               ok = e2e_user:close(User1),
                               DaveNext
                       end, Dave1, Back),
    ok = e2e_user:close(Last).

a_node_that_comes_back_is_used(Config) ->
    [Edge1, Edge2] = ?config(edges, Config),
    [#{name := One} = Node1, #{name := Two, again := Again} = Node2] = ?config(nodes, Config),
    Marks = [{Edge, e2e_ecm:mark(Ecm)} || #{ecm := Ecm} = Edge <- [Edge1, Edge2]],
    {ok, Ejabberd} = e2e_ejabberd:start(Again),
    Config1 = [{nodes, [Node1, Node2#{ejabberd := Ejabberd}]} | Config],
    [{ok, _} = e2e_ecm:wait(Ecm, Mark, "link 2 up to") || {#{ecm := Ecm}, Mark} <- Marks],
    Alice = login_on(Two, websocket, <<"alice">>, Edge1, Config1),
    Bob = login_on(One, bosh, <<"bob">>, Edge2, Config1),
    {Alice1, Bob1} = e2e_user:chat(Alice, Bob, <<"all as before">>),
    ok = e2e_user:close(Alice1),
    ok = e2e_user:close(Bob1),
    ok = e2e_ejabberd:stop(Ejabberd).

%% The node that a user's session is on, as soon as all nodes know: until then what is said to the user
%% at one that does not comes back.
where(User, Config) ->
    [Name, Resource] = binary:split(e2e_user:jid(User), <<"/">>),
    [Local, Host] = binary:split(Name, <<"@">>),
    Living = [Ejabberd || #{ejabberd := Ejabberd} <- ?config(nodes, Config), e2e_ejabberd:alive(Ejabberd)],
    Session = fun(Ejabberd) -> e2e_ejabberd:call(Ejabberd, ejabberd_sm, get_session_pid, [Local, Host, Resource]) end,
    ok = poll:until(fun() -> [Pid | Others] = lists:usort(lists:map(Session, Living)), is_pid(Pid) andalso Others =:= [] end),
    node(Session(hd(Living))).

%% A new connection goes where there are fewer: a user who landed on the other node stays there
%% until the next one, who does not, has come.
login_on(Name, Transport, User, Edge, Config) -> login_on(Name, Transport, User, Edge, Config, 6).

login_on(Name, Transport, User, Edge, Config, Times) when Times > 0 ->
    Session = e2e_user:login(Transport, User, Edge),
    case where(Session, Config) of
        Name ->
            Session;
        _Other ->
            Next = login_on(Name, Transport, User, Edge, Config, Times - 1),
            ok = e2e_user:close(Session),
            Next
    end.

%% ---- Starting things ----

start_node(Number, Version, Distribution, Certificate, Top) ->
    Dir = filename:join(Top, "node" ++ integer_to_list(Number)),
    ok = filelib:ensure_dir(filename:join(Dir, "file")),
    Link = e2e_port:free(),
    Ip = {127, 0, 0, 1 + Number},
    Options = #{version => Version, dir => Dir, node => {"ejabberd", Ip, Distribution},
                config => e2e_config:yaml(#{dir => Dir, certificate => Certificate, link => Link})},
    {ok, Ejabberd} = e2e_ejabberd:start(Options),
    #{ejabberd => Ejabberd, dir => Dir, link => Link, again => Options, name => e2e_ejabberd:call(Ejabberd, erlang, node, [])}.

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
