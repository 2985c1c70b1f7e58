%% ejabberd and the ECM together: the ECM as ejabberd's port program and by itself, what
%% becomes of each when the other is killed, and what a wrong configuration is told.
-module(edge_SUITE).

-include_lib("common_test/include/ct.hrl").
-include_lib("kernel/include/file.hrl").
-include_lib("stdlib/include/assert.hrl").

-export([suite/0, all/0, groups/0, init_per_group/2, end_per_group/2,
         init_per_testcase/2, end_per_testcase/2]).
-export([killed_ecm_comes_back/1, killed_node_leaves_nothing/1, stopped_node_leaves_nothing/1,
         only_our_ecm_may_link/1, reloaded_listeners/1, refuses_without_link/1, speaks_version_1/1, wrong_options_are_named/1]).

-define(TIMEOUT, 20_000).

suite() -> [{timetrap, {minutes, 2}}].

all() -> [{group, ejabberd_23_01}, {group, ejabberd_24_12}].

groups() -> [{ejabberd_23_01, [], cases()}, {ejabberd_24_12, [], cases()}].

cases() ->
    [killed_ecm_comes_back, killed_node_leaves_nothing, stopped_node_leaves_nothing,
     only_our_ecm_may_link, reloaded_listeners, refuses_without_link, speaks_version_1,
     wrong_options_are_named].

init_per_group(ejabberd_23_01, Config) -> [{version, "23.01"} | Config];
init_per_group(ejabberd_24_12, Config) -> [{version, "24.12"} | Config].

end_per_group(_Group, _Config) -> ok.

init_per_testcase(_Case, Config) ->
    Dir = e2e_ejabberd:temporary(),
    #{server := Certificate} = e2e_certs:make(Dir),
    [{dir, Dir}, {certificate, Certificate} | Config].

end_per_testcase(_Case, Config) -> e2e_ejabberd:keep_log(?config(dir, Config), ?config(priv_dir, Config)).

%% ---- The ECM as ejabberd's port program ----

killed_ecm_comes_back(Config) ->
    {Node, #{http := Http}} = start_with_ecm(Config),
    Client = e2e_http:connect(Http),
    {#{status := 200}, _} = e2e_http:get(Client, "/peer"),
    Ecm = ecm_pid(Node),
    [{Link, #{resumable := true}}] = e2e_ejabberd:call(Node, megaphone, links, []),
    Mark = e2e_ejabberd:mark_log(Node),
    ok = e2e_process:kill_os_pid(Ecm),
    {ok, _} = e2e_ejabberd:wait_log(Node, Mark, "ECM .* killed by signal 9", ?TIMEOUT),
    %% Nobody is left who could resume its link, so that does not wait for it.
    ended(Node, Link, 1000),
    {ok, _} = e2e_ejabberd:wait_log(Node, Mark, "link \\d+ up to", ?TIMEOUT),
    ?assertNotEqual(Ecm, ecm_pid(Node)),
    ?assertMatch({#{status := 200}, _}, e2e_http:get(e2e_http:connect(Http), "/peer")),
    ok = e2e_ejabberd:stop(Node).

ended(Node, Link, Tries) when Tries > 0 ->
    case e2e_ejabberd:call(Node, erlang, is_process_alive, [Link]) of
        false -> ok;
        true -> receive after 5 -> ended(Node, Link, Tries - 1) end
    end.

killed_node_leaves_nothing(Config) ->
    {Node, #{http := Http}} = start_with_ecm(Config),
    {#{status := 200}, _} = e2e_http:get(e2e_http:connect(Http), "/peer"),
    Children = descendants(Node),
    ?assert(lists:member(ecm_pid(Node), Children)),
    ok = e2e_ejabberd:kill(Node),
    [?assertEqual(ok, e2e_process:wait_gone(Child, ?TIMEOUT)) || Child <- Children],
    ?assertNot(e2e_port:listening(Http)),
    %% The dead node's socket file is in nobody's way.
    {Again, #{http := HttpAgain}} = start_with_ecm(Config),
    ?assertMatch({#{status := 200}, _}, e2e_http:get(e2e_http:connect(HttpAgain), "/peer")),
    ok = e2e_ejabberd:stop(Again),
    ok = e2e_ejabberd:stop(Node).

stopped_node_leaves_nothing(Config) ->
    {Node, #{http := Http}} = start_with_ecm(Config),
    {#{status := 200}, _} = e2e_http:get(e2e_http:connect(Http), "/peer"),
    Children = descendants(Node),
    ok = e2e_ejabberd:stop(Node),
    [?assertEqual(ok, e2e_process:wait_gone(Child, ?TIMEOUT)) || Child <- Children],
    ?assertNot(e2e_port:listening(Http)),
    ?assertEqual({error, enoent}, file:read_file_info(link_socket(Config))).

only_our_ecm_may_link(Config) ->
    {Node, #{http := Http}} = start_with_ecm(Config),
    {ok, #file_info{mode = Mode}} = file:read_file_info(link_socket(Config)),
    ?assertEqual(8#600, Mode band 8#777),
    {ok, Intruder} = gen_tcp:connect({local, link_socket(Config)}, 0, [binary, {active, false}]),
    ?assertMatch({error, _}, gen_tcp:recv(Intruder, 0, ?TIMEOUT)),
    {ok, _} = e2e_ejabberd:wait_log(Node, ["refused a link from process ", os:getpid()], ?TIMEOUT),
    ?assertMatch({#{status := 200}, _}, e2e_http:get(e2e_http:connect(Http), "/peer")),
    ok = e2e_ejabberd:stop(Node).

%% reload_config with other addresses for the ECM, and then with a mistake in them.
reloaded_listeners(Config) ->
    {Node, #{http := Old} = Ports} = start_with_ecm(Config),
    Ecm = ecm_pid(Node),
    New = e2e_port:free(),
    Mark = e2e_ejabberd:mark_log(Node),
    ok = reload(Node, yaml(#{edge => Ports#{http := New}}, Config), Config),
    {ok, _} = e2e_ejabberd:wait_log(Node, Mark, "link \\d+ up to", ?TIMEOUT),
    ?assertEqual(ok, e2e_process:wait_gone(Ecm, ?TIMEOUT)),
    ?assertMatch({#{status := 200}, _}, e2e_http:get(e2e_http:connect(New), "/peer")),
    ?assertNot(e2e_port:listening(Old)),
    Wrong = yaml(#{edge => Ports, services => "      http: {module: ejabberd_http, tls_compression: 7}\n"}, Config),
    ?assertMatch({error, {bad_atom, 7}, _Where}, reload(Node, Wrong, Config)),
    ?assertMatch({#{status := 200}, _}, e2e_http:get(e2e_http:connect(New), "/peer")),
    ok = e2e_ejabberd:stop(Node).

reload(Node, Yaml, Config) ->
    ok = file:write_file(filename:join(?config(dir, Config), "ejabberd.yml"), Yaml),
    e2e_ejabberd:call(Node, ejabberd_config, reload, []).

%% ---- The ECM by itself ----

%% Without a link, clients are refused after a short wait; with one they are served, and
%% when ejabberd is killed they are told so and served again by the next one.
refuses_without_link(Config) ->
    Link = e2e_port:free(),
    [Http, C2s] = [e2e_port:free(), e2e_port:free()],
    Ecm = start_ecm("", Link, Http, C2s, Config),
    refused(Http, C2s),
    Yaml = yaml(#{link => Link}, Config),
    Node = start(Yaml, Config),
    {ok, _, _} = e2e_process:wait_line(Ecm, "link \\d+ up to", ?TIMEOUT),
    Connection = e2e_http:connect(Http),
    {#{status := 200}, _} = e2e_http:get(Connection, "/peer"),
    ok = e2e_ejabberd:kill(Node),
    {ok, _, _} = e2e_process:wait_line(Ecm, "link \\d+ ", ?TIMEOUT),
    refused(Http, C2s),
    ok = e2e_ejabberd:stop(Node),
    Next = start(Yaml, Config),
    {ok, _, _} = e2e_process:wait_line(Ecm, "link \\d+ up to", ?TIMEOUT),
    ?assertMatch({#{status := 200}, _}, e2e_http:get(e2e_http:connect(Http), "/peer")),
    ok = e2e_ejabberd:stop(Next),
    ok = e2e_process:stop(Ecm).

refused(Http, C2s) ->
    {#{status := Status, headers := Headers}, _} = e2e_http:get(e2e_http:connect(Http), "/peer"),
    ?assertEqual(503, Status),
    ?assert(binary_to_integer(maps:get(<<"retry-after">>, Headers)) > 0),
    {ok, Socket} = gen_tcp:connect({127, 0, 0, 1}, C2s, [binary, {active, false}]),
    ?assertEqual({error, closed}, gen_tcp:recv(Socket, 0, ?TIMEOUT)).

%% In the plain protocol all clients come to the default service, from the link's address.
speaks_version_1(Config) ->
    Link = e2e_port:free(),
    [Http, C2s] = [e2e_port:free(), e2e_port:free()],
    Node = start(yaml(#{link => Link}, Config), Config),
    Ecm = start_ecm("protocol = 1\n", Link, Http, C2s, Config),
    {ok, _, _} = e2e_process:wait_line(Ecm, "link \\d+ up to", ?TIMEOUT),
    {#{status := 200, body := Peer}, Connection} = e2e_http:get(e2e_http:connect(Http), "/peer"),
    ?assertMatch({#{body := Peer}, _}, e2e_http:get(Connection, "/peer")),
    ?assertEqual(ok, e2e_client:strophe(["http://127.0.0.1:", integer_to_list(Http), "/bosh"], password)),
    ?assertEqual(ok, e2e_client:strophe(["ws://127.0.0.1:", integer_to_list(Http), "/ws"], password)),
    ok = e2e_ejabberd:stop(Node),
    ok = e2e_process:stop(Ecm).

start_ecm(More, Link, Http, C2s, Config) ->
    File = filename:join(?config(dir, Config), "ecm.toml"),
    ok = file:write_file(
           File,
           [More, "name = \"edge-1\"\nconnect_wait = \"200ms\"\n"
            "[backend]\naddress = \"127.0.0.1:", integer_to_list(Link), "\"\n"
            "reconnect_min = \"50ms\"\nreconnect_max = \"200ms\"\n",
            [["[[listeners]]\nlisten = \"127.0.0.1:", integer_to_list(Port), "\"\nservice = \"", Service,
              "\"\nkind = \"", Kind, "\"\n"] || {Port, Service, Kind} <- [{Http, "http", "http"}, {C2s, "c2s", "tcp"}]]]),
    Ecm = e2e_process:start(e2e_paths:ecm(), ["--config", File], []),
    [{ok, _, _} = e2e_process:wait_line(Ecm, "listening on ", ?TIMEOUT) || _ <- [Http, C2s]],
    Ecm.

%% ---- Wrong configuration: ejabberd does not start, and says which option it is ----

wrong_options_are_named(Config) ->
    [?assertEqual({Services, match}, {Services, named(Services, Pattern, Config)})
     || {Services, Pattern} <-
            [{"      http: {module: ejabberd_http, request_handlers: 7}\n",
              "listen->.*services->http->request_handlers"},
             {"      c2s: {module: ejabberd_c2s, starttls: perhaps}\n",
              "listen->.*services->c2s->starttls"},
             {"      mqtt: {module: mod_mqtt, max_fsm_queue: -1}\n",
              "listen->.*services->mqtt->max_fsm_queue"},
             {"      http: {module: ejabberd_http, request_handler: {}}\n",
              "[Uu]nknown option.*request_handler"},
             {"      http: {module: ejabberd_http, port: 5280}\n", "port"},
             {"      http: {module: no_such_module}\n", "no_such_module"},
             {"      http: {request_handlers: {}}\n", "module"},
             %% The ECM of the same listener has ports for the other two.
             {"      http: {module: ejabberd_http}\n", "'c2s'"}]].

named(Services, Pattern, Config) ->
    Yaml = yaml(#{edge => e2e_config:ports(), services => Services}, Config),
    _ = file:delete(filename:join(?config(dir, Config), "ejabberd.log")),
    case e2e_ejabberd:start(#{version => ?config(version, Config), dir => ?config(dir, Config), config => Yaml}) of
        {error, {_Reason, Log}} ->
            case re:run(Log, Pattern, [{capture, none}]) of
                match -> match;
                nomatch -> Log
            end;
        {ok, Node} ->
            ok = e2e_ejabberd:stop(Node),
            started
    end.

%% ---- Starting things ----

%% An ejabberd whose ECM has its link up.
start_with_ecm(Config) ->
    Ports = e2e_config:ports(),
    Mark = e2e_log:mark(filename:join(?config(dir, Config), "ejabberd.log")),
    Node = start(yaml(#{edge => Ports}, Config), Config),
    {ok, _} = e2e_ejabberd:wait_log(Node, Mark, "link \\d+ up to", ?TIMEOUT),
    {Node, Ports}.

start(Yaml, Config) ->
    {ok, Node} = e2e_ejabberd:start(#{version => ?config(version, Config), dir => ?config(dir, Config),
                                      config => Yaml}),
    Node.

yaml(Options, Config) ->
    e2e_config:yaml(Options#{dir => ?config(dir, Config), certificate => ?config(certificate, Config)}).

link_socket(Config) -> filename:join(?config(dir, Config), "link.sock").

descendants(#{os_pid := OsPid}) -> e2e_process:children(OsPid).

ecm_pid(Node) ->
    [Pid] = [Child || Child <- descendants(Node), e2e_process:name(Child) =:= <<"megaphone-ecm">>],
    Pid.
