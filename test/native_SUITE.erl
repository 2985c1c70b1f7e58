%% Real clients, and users on WebSocket, through megaphone's own front: `megaphone_http' and
%% `megaphone_c2s', on each ejabberd.
-module(native_SUITE).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-export([suite/0, all/0, groups/0, init_per_group/2, end_per_group/2]).
-export([strophe_bosh/1, strophe_bosh_anonymous/1, strophe_websocket/1, strophe_websocket_anonymous/1,
         stanza_bosh/1, stanza_websocket/1, xmppjs_websocket/1, xmppjs_tcp/1, paho_mqtt_websocket/1,
         converse_websocket/1, converse_bosh/1]).
-export([one_process_each/1, origin/1, no_upgrade/1, not_well_formed/1, two_elements_in_a_message/1, too_big/1,
         client_goes/1, client_closes/1, session_ends/1, session_crashes/1, drain/1, slow_reader/1,
         stalled_reader/1]).

-define(TIMEOUT, 10_000).
-define(MAX_STANZA, 300_000).

suite() -> [{timetrap, {minutes, 2}}].

all() -> [{group, ejabberd_23_01}, {group, ejabberd_24_12}].

groups() -> [{Group, [], clients() ++ websocket()} || Group <- [ejabberd_23_01, ejabberd_24_12]].

clients() ->
    [strophe_bosh, strophe_bosh_anonymous, strophe_websocket, strophe_websocket_anonymous, stanza_bosh,
     stanza_websocket, xmppjs_websocket, xmppjs_tcp, paho_mqtt_websocket, converse_websocket, converse_bosh].

websocket() ->
    [one_process_each, origin, no_upgrade, not_well_formed, two_elements_in_a_message, too_big, client_goes,
     client_closes, session_ends, session_crashes, slow_reader, stalled_reader, drain].

init_per_group(Ejabberd, Config) ->
    {ok, _} = application:ensure_all_started(ssl),
    Dir = e2e_ejabberd:temporary(),
    #{ca := Ca, server := Certificate} = e2e_certs:make(Dir),
    Edge = e2e_config:ports(),
    Yaml = e2e_config:yaml(#{dir => Dir, certificate => Certificate, edge => Edge, services => services(),
                             top => ["websocket_origin: [", lists:join(", ", origins(Edge)), "]\n"],
                             modules => "  mod_megaphone: {trim_idle: 1}\n"}),
    {ok, Node} = e2e_ejabberd:start(#{version => version(Ejabberd), dir => Dir, config => Yaml}),
    {ok, _} = e2e_ejabberd:wait_log(Node, ["listening on 127\\.0\\.0\\.1:", integer_to_list(maps:get(mqtt, Edge))],
                                    ?TIMEOUT),
    [{node, Node}, {dir, Dir}, {ports, Edge#{ca => Ca}} | Config].

end_per_group(_Ejabberd, Config) ->
    ok = e2e_ejabberd:stop(?config(node, Config)),
    e2e_ejabberd:keep_log(?config(dir, Config), ?config(priv_dir, Config)).

%% Of the page that a browser loads, and what paho says.
origins(#{http := Port}) ->
    [["\"http://", Host, ":", integer_to_list(Port), "\""] || Host <- ["localhost", "127.0.0.1"]].

version(ejabberd_23_01) -> "23.01";
version(ejabberd_24_12) -> "24.12".

services() ->
    ["      http: {module: megaphone_http, send_timeout: 5, request_handlers: {/bosh: mod_bosh, /ws: ejabberd_http_ws, "
     "/conversejs: mod_conversejs, /files: mod_http_fileserver, /mqtt: mod_mqtt}}\n"
     "      c2s: {module: megaphone_c2s, max_stanza_size: ", integer_to_list(?MAX_STANZA), "}\n"
     "      mqtt: {module: mod_mqtt}\n"].

%% ---- Clients: log in, exchange messages both ways, log out ----

strophe_bosh(Config) -> ?assertEqual(ok, e2e_client:strophe(url("http", "/bosh", Config), password)).

strophe_bosh_anonymous(Config) ->
    ?assertEqual(ok, e2e_client:strophe(url("http", "/bosh", Config), anonymous)).

strophe_websocket(Config) -> ?assertEqual(ok, e2e_client:strophe(url("ws", "/ws", Config), password)).

strophe_websocket_anonymous(Config) ->
    ?assertEqual(ok, e2e_client:strophe(url("ws", "/ws", Config), anonymous)).

stanza_bosh(Config) -> ?assertEqual(ok, e2e_client:stanza(url("http", "/bosh", Config))).

stanza_websocket(Config) -> ?assertEqual(ok, e2e_client:stanza(url("ws", "/ws", Config))).

xmppjs_websocket(Config) -> ?assertEqual(ok, e2e_client:xmppjs(url("ws", "/ws", Config))).

xmppjs_tcp(Config) ->
    ?assertEqual(ok, e2e_client:xmppjs(["xmpp://127.0.0.1:", integer_to_list(port(c2s, Config))])).

%% Another handler of WebSockets, on a socket of its own.
paho_mqtt_websocket(Config) -> ?assertEqual(ok, e2e_client:mqtt(port(http, Config), "/mqtt")).

%% The page's origin is one that is allowed.
converse_websocket(Config) -> converse("/conversejs", websocket, Config).

converse_bosh(Config) -> converse("/files/scripts/bosh.html", bosh, Config).

converse(Path, Transport, Config) ->
    Page = ["http://localhost:", integer_to_list(port(http, Config)), Path],
    ?assertEqual(ok, e2e_client:converse(Page, Transport, ?config(priv_dir, Config),
                                         "native-" ++ atom_to_list(Transport))).

%% ---- WebSocket ----

one_process_each(Config) ->
    Count = fun() -> e2e_ejabberd:call(?config(node, Config), erlang, system_info, [process_count]) end,
    First = login(<<"alice">>, Config),
    Before = wait_level(Count),
    Users = [login(<<"bob">>, Config) || _ <- lists:seq(1, 50)],
    ?assertEqual(50, wait_level(Count) - Before),
    lists:foreach(fun e2e_user:close/1, [First | Users]).

origin(Config) ->
    Good = ["Origin: http://LOCALHOST:", integer_to_list(port(http, Config)), "\r\n"],
    ?assertMatch(<<"HTTP/1.1 101 ", _/binary>>, upgrade(Good, Config)),
    ?assertMatch(<<"HTTP/1.1 101 ", _/binary>>, upgrade("", Config)),
    ?assertMatch(<<"HTTP/1.1 403 ", _/binary>>, upgrade("Origin: http://elsewhere\r\n", Config)).

%% ejabberd_http_ws itself answers.
no_upgrade(Config) ->
    {#{status := 200, body := Body}, Connection} =
        e2e_http:get(e2e_http:connect(port(http, Config)), "/ws"),
    ?assertMatch({match, _}, re:run(Body, "WebSocket")),
    e2e_http:close(Connection).

not_well_formed(Config) ->
    User = login(<<"alice">>, Config),
    ok = e2e_websocket:send(socket(User), "<message><body></message>"),
    {{close_frame, 1000, <<>>}, Said} = e2e_user:ending(User, ?TIMEOUT),
    ?assertMatch({match, _}, re:run(Said, "not-well-formed.*<close ")).

%% RFC 7395, 3.3.3.
two_elements_in_a_message(Config) ->
    User = login(<<"alice">>, Config),
    ok = e2e_websocket:send(socket(User), "<presence/><presence/>"),
    {{close_frame, 1000, <<>>}, Said} = e2e_user:ending(User, ?TIMEOUT),
    ?assertMatch({match, _}, re:run(Said, "not-well-formed")).

%% The bound is that of ejabberd's first c2s listener, and there is none: the front's own. The head of such
%% a message is enough.
too_big(Config) ->
    User = login(<<"alice">>, Config),
    #{socket := Socket} = socket(User),
    ok = gen_tcp:send(Socket, <<1:1, 0:3, 1:4, 1:1, 127:7, (1 bsl 30):64, 0:32, "<message">>),
    ?assertMatch({{close_frame, 1009, _}, _}, e2e_user:ending(User, ?TIMEOUT)).

client_goes(Config) ->
    User = login(<<"alice">>, Config),
    ok = e2e_user:close(User),
    wait_gone(User, Config).

%% `<close/>' is answered, and then the WebSocket ends.
client_closes(Config) ->
    User = login(<<"alice">>, Config),
    ok = e2e_websocket:send(socket(User), "<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>"),
    {{close_frame, 1000, <<>>}, Said} = e2e_user:ending(User, ?TIMEOUT),
    ?assertMatch({match, _}, re:run(Said, "<close xmlns=.urn:ietf:params:xml:ns:xmpp-framing.\\s*/>$")),
    wait_gone(User, Config).

session_ends(Config) ->
    User = login(<<"alice">>, Config),
    Pid = pid(User, Config),
    _ = e2e_ejabberd:call(?config(node, Config), ejabberd_c2s, stop_async, [Pid]),
    ?assertMatch({{close_frame, 1000, <<>>}, _}, e2e_user:ending(User, ?TIMEOUT)).

session_crashes(Config) ->
    User = login(<<"alice">>, Config),
    true = e2e_ejabberd:call(?config(node, Config), erlang, exit, [pid(User, Config), kill]),
    ?assertMatch({{close_frame, 1011, _}, _}, e2e_user:ending(User, ?TIMEOUT)).

%% The user's process waits with what it sends, and goes on where it was.
slow_reader(Config) ->
    Slow = login(<<"alice">>, Config, [{recbuf, 4096}]),
    Other = login(<<"bob">>, Config),
    Texts = [<<(integer_to_binary(N))/binary, " ", (binary:copy(<<"x">>, 20_000))/binary>>
             || N <- lists:seq(1, 150)],
    _ = lists:foldl(fun(Text, User) -> e2e_user:say(User, e2e_user:jid(Slow), Text) end, Other, Texts),
    timer:sleep(1_000),
    Read = lists:foldl(fun(Text, User) -> {Text, Next} = e2e_user:hear(User), Next end, Slow, Texts),
    lists:foreach(fun e2e_user:close/1, [Read, Other]).

%% One that never goes on is given up after the service's send_timeout, and its user's process goes too.
stalled_reader(Config) ->
    Stalled = login(<<"alice">>, Config, [{recbuf, 4096}]),
    Other = login(<<"bob">>, Config),
    Text = binary:copy(<<"x">>, 50_000),
    _ = lists:foldl(fun(_, User) -> e2e_user:say(User, e2e_user:jid(Stalled), Text) end, Other, lists:seq(1, 200)),
    ok = poll:until(fun() -> pid(Stalled, Config) end, none),
    lists:foreach(fun e2e_user:close/1, [Stalled, Other]).

%% Who is quiet and small is told as well.
drain(Config) ->
    User = login(<<"alice">>, Config),
    ok = poll:until(fun() -> maps:get(awake, e2e_ejabberd:call(?config(node, Config), megaphone_trim, info, [])) end, 0),
    ok = e2e_ejabberd:call(?config(node, Config), megaphone, drain, [1]),
    {{close_frame, 1001, <<>>}, Said} = e2e_user:ending(User, ?TIMEOUT),
    ok = e2e_ejabberd:call(?config(node, Config), megaphone, undrain, []),
    ?assertMatch({match, _}, re:run(Said, "<system-shutdown .*<close ")).

%% ---- Parts ----

login(Name, Config) -> login(Name, Config, []).

login(Name, Config, Options) -> e2e_user:login(websocket, Name, ?config(ports, Config), Options).

socket(#{socket := WebSocket}) -> WebSocket.

pid(User, Config) ->
    [Name, Host, Resource] = string:lexemes(e2e_user:jid(User), "@/"),
    e2e_ejabberd:call(?config(node, Config), ejabberd_sm, get_session_pid, [Name, Host, Resource]).

wait_gone(User, Config) -> poll:until(fun() -> pid(User, Config) end, none).

%% What comes out when nothing changes any more.
wait_level(Count) -> wait_level(Count, Count(), 5).

wait_level(_Count, Value, 0) -> Value;
wait_level(Count, Value, Left) ->
    timer:sleep(200),
    case Count() of
        Value -> wait_level(Count, Value, Left - 1);
        Other -> wait_level(Count, Other, 5)
    end.

%% The first line of the answer, and more.
upgrade(Headers, Config) ->
    {ok, Socket} = gen_tcp:connect({127, 0, 0, 1}, port(http, Config), [binary, {active, false}]),
    ok = gen_tcp:send(Socket, ["GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n"
                               "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                               "Sec-WebSocket-Protocol: xmpp\r\n", Headers, "\r\n"]),
    {ok, Answer} = gen_tcp:recv(Socket, 0, ?TIMEOUT),
    ok = gen_tcp:close(Socket),
    Answer.

url(Scheme, Path, Config) -> [Scheme, "://127.0.0.1:", integer_to_list(port(http, Config)), Path].

port(Service, Config) -> maps:get(Service, ?config(ports, Config)).
