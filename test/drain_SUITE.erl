%% Draining: a node's connections, or a link's, end evenly over a time, each with the words that
%% its protocol has for it. Group `link` is megaphone alone, the others are real ejabberds with
%% a real ECM in front.
-module(drain_SUITE).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-export([suite/0, all/0, groups/0, init_per_group/2, end_per_group/2, init_per_testcase/2, end_per_testcase/2]).
-export([evenly/1, sent_before_is_delivered/1, goaway_says_when/1, late_link/1, late_connection/1, version_1/1,
         second_call_changes_time/1, undrain/1, undrain_before/1, owners_that_die/1, link_that_dies/1,
         edge_goes/1, many/1, wrong_time/1, not_running/1]).
-export([c2s/1, c2s_before_login/1, websocket/1, bosh/1, idle_http/1, request_under_way/1, mqtt/1, all_kinds_evenly/1,
         stream_management/1, edge_hears/1, edge_terminated/1, strangers_stay/1,
         strophe_bosh/1, strophe_websocket/1, slixmpp/1]).
%% Inside the ejabberd under test.
-export([held/1, present/1, said/1]).

-define(TIMEOUT, 20_000).

suite() -> [{timetrap, {minutes, 2}}].

all() -> [{group, link}, {group, ejabberd_23_01}, {group, ejabberd_24_12}].

groups() ->
    [{link, [], [evenly, sent_before_is_delivered, goaway_says_when, late_link, late_connection, version_1,
                 second_call_changes_time, undrain, undrain_before, owners_that_die, link_that_dies,
                 edge_goes, many, wrong_time, not_running]},
     {ejabberd_23_01, [], with_ejabberd()},
     {ejabberd_24_12, [], with_ejabberd()}].

with_ejabberd() ->
    [c2s, c2s_before_login, websocket, bosh, idle_http, request_under_way, mqtt, all_kinds_evenly, stream_management,
     edge_hears, edge_terminated, strangers_stay, strophe_bosh, strophe_websocket, slixmpp].

init_per_group(link, Config) ->
    {ok, _} = application:ensure_all_started(megaphone),
    Config;
init_per_group(Ejabberd, Config) ->
    Dir = e2e_ejabberd:temporary(),
    #{ca := Ca, server := Certificate} = e2e_certs:make(Dir),
    Stock = e2e_config:ports(),
    Link = e2e_port:free(),
    {ok, _} = application:ensure_all_started(ssl),
    %% The list of modules comes last.
    Yaml = [e2e_config:yaml(#{dir => Dir, certificate => Certificate, stock => Stock, link => Link}),
            "  mod_stream_mgmt: {}\n"],
    {ok, Node} = e2e_ejabberd:start(#{version => version(Ejabberd), dir => Dir, config => Yaml}),
    [{node, Node}, {dir, Dir}, {ca, Ca}, {stock, Stock}, {link, Link} | Config].

end_per_group(link, _Config) -> ok;
end_per_group(_Ejabberd, Config) ->
    ok = e2e_ejabberd:stop(?config(node, Config)),
    e2e_ejabberd:keep_log(?config(dir, Config), ?config(priv_dir, Config)).

version(ejabberd_23_01) -> "23.01";
version(ejabberd_24_12) -> "24.12".

init_per_testcase(Case, Config) ->
    case ?config(node, Config) of
        undefined -> link_case:start(Config);
        Node ->
            Ports = #{http => e2e_port:free(), c2s => e2e_port:free(), ca => ?config(ca, Config)},
            Ecm = e2e_ecm:start(#{dir => ?config(dir, Config), name => atom_to_list(Case),
                                  backends => [?config(link, Config)], http => maps:get(http, Ports),
                                  c2s => maps:get(c2s, Ports), top => "drain_time = \"2s\"\n"}),
            ok = e2e_ecm:up(Ecm),
            [{ports, Ports}, {ecm, Ecm}, {mark, e2e_ejabberd:mark_log(Node)} | Config]
    end.

end_per_testcase(_Case, Config) ->
    case ?config(node, Config) of
        undefined ->
            ok = megaphone:undrain(),
            link_case:stop(Config);
        Node ->
            ok = e2e_ejabberd:call(Node, megaphone, undrain, []),
            e2e_ecm:stop(?config(ecm, Config))
    end.

%% ---- megaphone alone ----

%% What comes too late does not tell an even pace from a burst; what comes too soon does, and
%% no slow machine makes anything come too soon.
evenly(Config) ->
    Peer = link_case:peer(Config),
    Conns = [link_case:open(Config) || _ <- lists:seq(1, 40)],
    Collect = collector(Peer, [Id || {Id, _} <- Conns]),
    Began = now_ms(),
    ok = megaphone:drain(4),
    Ends = [At - Began || {_, {close, <<"shutdown">>}, At} <- collected(Collect)],
    ?assertEqual(40, length(Ends)),
    [?assert(At >= 100 * N - 250, {N, Ends}) || {N, At} <- lists:zip(lists:seq(0, 39), lists:sort(Ends))],
    [?assertEqual({error, closed}, gen_tcp:recv(S, 0, ?TIMEOUT)) || {_, S} <- Conns],
    _ = log_capture:wait(link_case:log(Config), ["^drain: 40 of 40 connections ended on link", " 0 of them cut short"]),
    %% The neighbour's connection, on a link of its own, is the one more.
    _ = log_capture:wait(link_case:log(Config), ["^drain: done, 41 of 41 connections ended$"], ?TIMEOUT).

sent_before_is_delivered(Config) ->
    Peer = link_case:peer(Config),
    {Id, S} = link_case:open(Config),
    Bytes = binary:copy(<<"0123456789">>, 2000),     % more than its window
    ok = gen_tcp:send(S, Bytes),
    ok = megaphone:drain(0),
    ?assertEqual({error, closed}, gen_tcp:recv(S, 0, ?TIMEOUT)),
    ?assertEqual({Bytes, {close, <<"shutdown">>}}, link_peer:recv_rest(Peer, Id)).

goaway_says_when(Config) ->
    {_, _} = link_case:open(Config),
    Began = now_ms(),
    ok = megaphone:drain(1000),
    <<"goaway ", Rest/binary>> = link_peer:wait_line(link_case:peer(Config), "^goaway "),
    #{<<"reason">> := <<"shutdown">>, <<"retry_after">> := RetryAfter, <<"within">> := Within} = fields(Rest),
    Passed = (now_ms() - Began) div 1000 + 1,
    ?assert(binary_to_integer(Within) =< 1000 andalso binary_to_integer(Within) >= 1000 - Passed),
    ?assert(binary_to_integer(RetryAfter) >= 5).

%% A link that dials while the node is drained.
late_link(Config) ->
    ok = megaphone:drain(0),
    Late = link_case:connect(Config),
    <<"goaway reason=shutdown", _/binary>> = link_peer:wait_line(Late, "^goaway "),
    {Id, S} = link_case:open(Config, Late),
    ?assertEqual({close, <<"shutdown">>}, link_peer:outcome(Late, Id)),
    ?assertEqual({error, closed}, gen_tcp:recv(S, 0, ?TIMEOUT)),
    link_peer:stop(Late).

%% A connection that was on its way when its link was told, or comes over one that does not listen.
late_connection(Config) ->
    ok = megaphone:drain(0),
    _ = log_capture:wait(link_case:log(Config), ["^drain: done, "]),
    {Id, _} = link_case:open(Config),
    ?assertEqual({close, <<"shutdown">>}, link_peer:outcome(link_case:peer(Config), Id)).

version_1(Config) ->
    Old = link_case:connect(Config, #{version => 1}),
    ok = link_peer:send(Old, 77, "abc"),
    {ok, S} = gen_tcp:accept(link_case:listen(Config), ?TIMEOUT),
    {ok, <<"abc">>} = gen_tcp:recv(S, 3, ?TIMEOUT),
    ok = gen_tcp:send(S, "def"),
    ok = megaphone:drain(0),
    ?assertEqual({<<"def">>, ended}, link_peer:recv_rest(Old, 77)),
    link_peer:stop(Old).

second_call_changes_time(Config) ->
    Peer = link_case:peer(Config),
    Conns = [link_case:open(Config) || _ <- lists:seq(1, 30)],
    ok = megaphone:drain(100_000),
    _ = link_peer:wait_line(Peer, "^goaway "),
    ok = megaphone:drain(0),
    [?assertEqual({close, <<"shutdown">>}, link_peer:outcome(Peer, Id)) || {Id, _} <- Conns],
    _ = log_capture:wait(link_case:log(Config), ["^drain: done, 31 of 31 connections ended$"]).

%% Who was not told goes on, and so do links that dial after it.
undrain(Config) ->
    Peer = link_case:peer(Config),
    Conns = [link_case:open(Config) || _ <- lists:seq(1, 10)],
    Collect = collector(Peer, [Id || {Id, _} <- Conns]),
    ok = megaphone:drain(100_000),               % one at once, the next after hours
    First = receive {Collect, Id0, {close, <<"shutdown">>}, _} -> Id0 after ?TIMEOUT -> error(timeout) end,
    ok = megaphone:undrain(),
    ok = megaphone:undrain(),
    ?assertMatch({notice, <<"drain: cancelled, 2 of 11 connections ended">>},
                 log_capture:wait(link_case:log(Config), ["^drain: cancelled, "])),
    [ok = link_case:works(Peer, Id, S) || {Id, S} <- Conns, Id =/= First],
    Next = link_case:connect(Config),
    {Id, S} = link_case:open(Config, Next),
    ok = link_case:works(Next, Id, S),
    ok = link_peer:flush(Next),
    ?assertEqual([], [L || <<"goaway", _/binary>> = L <- link_peer:lines(Next)]),
    link_peer:stop(Next).

undrain_before(_Config) ->
    ?assertEqual(ok, megaphone:undrain()).

owners_that_die(Config) ->
    Peer = link_case:peer(Config),
    Conns = [begin
                 {Id, S} = link_case:open(Config),
                 Owner = spawn(fun() -> receive stop -> ok end end),
                 ok = gen_tcp:controlling_process(S, Owner),
                 {Id, Owner}
             end || _ <- lists:seq(1, 50)],
    ok = megaphone:drain(1),
    _ = link_peer:wait_line(Peer, "^goaway "),
    [exit(Owner, kill) || {_, Owner} <- Conns],
    [?assertMatch({close, _}, link_peer:outcome(Peer, Id)) || {Id, _} <- Conns],
    _ = log_capture:wait(link_case:log(Config), ["^drain: done, 51 of 51 connections ended$"], ?TIMEOUT).

link_that_dies(Config) ->
    Peer = link_case:peer(Config),
    _ = [link_case:open(Config) || _ <- lists:seq(1, 20)],
    ok = megaphone:drain(100_000),
    _ = link_peer:wait_line(Peer, "^goaway "),
    ok = link_peer:abort(Peer),
    _ = log_capture:wait(link_case:log(Config), ["^drain: .*; the link is gone$"]),
    ok = megaphone:drain(0),
    _ = log_capture:wait(link_case:log(Config), ["^drain: done, "]).

%% An ECM that ends says so; its neighbours notice nothing.
edge_goes(Config) ->
    Peer = link_case:peer(Config),
    Conns = [link_case:open(Config) || _ <- lists:seq(1, 20)],
    Collect = collector(Peer, [Id || {Id, _} <- Conns]),
    Began = now_ms(),
    ok = link_peer:control(Peer, "goaway reason=shutdown within=2"),
    Ends = [At - Began || {_, {close, <<"shutdown">>}, At} <- collected(Collect)],
    ?assertEqual(20, length(Ends)),
    ?assert(lists:max(Ends) >= 1500, Ends),
    link_case:undisturbed(Config),
    _ = log_capture:wait(link_case:log(Config), ["^drain: 20 of 20 connections ended on link"]).

%% More than one step's worth.
many(Config) ->
    Peer = link_case:connect(Config, #{keep => false}),
    Number = 3000,
    _ = [begin
             ok = link_peer:open(Peer, Id, <<"default">>),
             {ok, _} = gen_tcp:accept(link_case:listen(Config), ?TIMEOUT)
         end || Id <- lists:seq(1, Number)],
    ok = megaphone:drain(1),
    _ = log_capture:wait(link_case:log(Config), ["^drain: 3000 of 3000 connections ended on link"], ?TIMEOUT),
    link_peer:stop(Peer).

wrong_time(_Config) ->
    [?assertError(function_clause, megaphone:drain(Time)) || Time <- [-1, 1.0, infinity, "1"]].

not_running(_Config) ->
    ok = application:stop(megaphone),
    ?assertEqual({error, not_running}, megaphone:drain(1)),
    ?assertEqual({error, not_running}, megaphone:undrain()),
    ?assertEqual("megaphone is not running on this node", megaphone:format_error(not_running)),
    {ok, _} = application:ensure_all_started(megaphone).

%% ---- words ----

c2s(Config) ->
    User = login(c2s, Config),
    drain(0, Config),
    {closed, Said} = e2e_user:ending(User, ?TIMEOUT),
    system_shutdown(Said),
    ?assertMatch({match, _}, re:run(Said, "</stream:stream>$")),
    nobody_is_left(Config).

c2s_before_login(Config) ->
    {ok, S} = gen_tcp:connect({127, 0, 0, 1}, port(c2s, Config), [binary, {active, false}]),
    ok = gen_tcp:send(S, "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' "
                      "to='localhost' version='1.0'>"),
    ok = until_features(S, <<>>),
    drain(0, Config),
    system_shutdown(until_closed(S, <<>>)),
    done(1, Config).

websocket(Config) ->
    User = login(websocket, Config),
    drain(0, Config),
    {{close_frame, 1001, _}, Said} = e2e_user:ending(User, ?TIMEOUT),
    system_shutdown(Said),
    ?assertMatch({match, _}, re:run(Said, "<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>$")),
    nobody_is_left(Config).

bosh(Config) ->
    #{session := Session, free := [Http]} = login(bosh, Config),
    #{http := Asked} = e2e_bosh:listen(Session#{http := Http, asked := false}),
    ok = e2e_ejabberd:call(?config(node, Config), ?MODULE, held, [1]),
    drain(0, Config),
    {#{status := 200, headers := Headers, body := Body}, _} = e2e_http:answer(Asked),
    ?assertEqual(<<"close">>, maps:get(<<"connection">>, Headers, none)),
    ?assertMatch({match, _}, re:run(Body, "^<body[^>]*type='terminate'")),
    system_shutdown(Body),
    ?assertEqual({error, closed}, gen_tcp:recv(maps:get(socket, Http), 0, ?TIMEOUT)),
    nobody_is_left(Config).

idle_http(Config) ->
    {ok, S} = gen_tcp:connect({127, 0, 0, 1}, port(http, Config), [binary, {active, false}]),
    {#{status := 200}, _} = e2e_http:get(e2e_http:on(S), "/peer"),
    drain(0, Config),
    ?assertEqual({error, closed}, gen_tcp:recv(S, 0, ?TIMEOUT)),
    done(1, Config).

%% It takes its time to read a long answer, and gets all of it.
request_under_way(Config) ->
    {ok, S} = gen_tcp:connect({127, 0, 0, 1}, port(http, Config), [binary, {active, false}, {recbuf, 4096}]),
    Path = "/conversejs/converse.min.js",
    ok = e2e_http:ask(e2e_http:on(S), Path),
    {ok, First} = gen_tcp:recv(S, 1000, ?TIMEOUT),
    drain(60, Config),
    {#{status := 200, body := Body}, _} = e2e_http:answer((e2e_http:on(S))#{rest := First}),
    {ok, File} = file:read_file(filename:join(e2e_paths:node_modules(), "converse.js/dist/converse.min.js")),
    ?assert(Body =:= File),
    ?assertEqual({error, closed}, gen_tcp:recv(S, 0, ?TIMEOUT)),
    done(1, Config).

mqtt(Config) ->
    Peer = link_peer:connect(?config(link, Config), #{name => "mqtt"}),
    ok = link_peer:open(Peer, 1, <<"mqtt">>),
    %% CONNECT of MQTT 3.1.1 with a clean session; the answer is CONNACK.
    Connect = <<0, 4, "MQTT", 4, 16#c2, 0, 60, 0, 0, 0, 15, "alice@localhost", 0, 8, "alice-pw">>,
    ok = link_peer:send(Peer, 1, <<16#10, (byte_size(Connect)), Connect/binary>>),
    <<16#20, 2, _, 0>> = link_peer:recv(Peer, 1, 4),
    drain(0, Config),
    ?assertEqual({<<>>, {close, <<"shutdown">>}}, link_peer:recv_rest(Peer, 1)),
    link_peer:stop(Peer).

%% Everybody with the right words, one after the other.
all_kinds_evenly(Config) ->
    Users = [login(Transport, Config) || Transport <- [c2s, websocket, bosh], _ <- [1, 2]],
    Self = self(),
    _ = [begin
             %% Another process may receive, even where it owns no socket.
             spawn_link(fun() -> Self ! {ended, e2e_user:ending(User, ?TIMEOUT), now_ms()} end)
         end || User <- Users],
    %% Each hears of the others' presence: see said/1. A request that one of them was answered is
    %% followed by the one that waits.
    _ = [begin
             ok = e2e_ejabberd:call(?config(node, Config), ?MODULE, held, [2]),
             ok = e2e_ejabberd:call(?config(node, Config), ?MODULE, said, [<<"alice">>])
         end || _ <- [1, 2]],
    ok = e2e_ejabberd:call(?config(node, Config), ?MODULE, held, [2]),
    Began = now_ms(),
    drain(3, Config),
    Ends = [receive {ended, Ending, At} -> {At - Began, Ending} after ?TIMEOUT -> error(timeout) end || _ <- Users],
    [system_shutdown(Said) || {_, {Why, Said}} <- Ends, not is_terminate(Why)],
    ?assertEqual(2, length([Why || {_, {Why, _}} <- Ends, is_terminate(Why)])),
    ?assertEqual(2, length([1001 || {_, {{close_frame, 1001, _}, _}} <- Ends])),
    {Last, _} = lists:max(Ends),
    ?assert(Last >= 2000, Ends),
    nobody_is_left(Config).

is_terminate({terminate, _}) -> true;
is_terminate(_) -> false.

%% A session that waits for its client to come back would wait in vain.
stream_management(Config) ->
    #{socket := WebSocket} = User = login(websocket, Config),
    ok = e2e_websocket:send(WebSocket, "<enable xmlns='urn:xmpp:sm:3' resume='true'/>"),
    Enabled = until_said("^<enabled ", WebSocket),
    drain(0, Config),
    {{close_frame, 1001, _}, _} = e2e_user:ending(User#{socket := Enabled}, ?TIMEOUT),
    nobody_is_left(Config).

%% The ECM opens no more connections here, and a new ECM does not either.
edge_hears(Config) ->
    Ecm = ?config(ecm, Config),
    Mark = e2e_ecm:mark(Ecm),
    User = login(c2s, Config),
    drain(1, Config),
    {ok, _} = e2e_ecm:wait(Ecm, Mark, "takes no new connections: ejabberd says goaway reason=shutdown within=[01]"),
    {closed, _} = e2e_user:ending(User, ?TIMEOUT),
    Late = link_peer:connect(?config(link, Config), #{name => "late"}),
    <<"goaway reason=shutdown", _/binary>> = link_peer:wait_line(Late, "^goaway "),
    link_peer:stop(Late).

%% SIGTERM: the same words, from this node, for the users of that ECM alone.
edge_terminated(Config) ->
    Users = [C2s, Ws] = [login(c2s, Config), login(websocket, Config)],
    2 = length(Users),
    Other = link_peer:connect(?config(link, Config), #{name => "other"}),
    ok = link_peer:open(Other, 1, <<"http">>),
    ok = e2e_ecm:terminate(?config(ecm, Config)),
    {closed, Said} = e2e_user:ending(C2s, ?TIMEOUT),
    system_shutdown(Said),
    {{close_frame, 1001, _}, WsSaid} = e2e_user:ending(Ws, ?TIMEOUT),
    system_shutdown(WsSaid),
    ok = link_peer:send(Other, 1, "GET /peer HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    <<"HTTP/1.1 200">> = link_peer:recv(Other, 1, 12),
    link_peer:stop(Other).

%% Users of ejabberd's own listeners are none of ours.
strangers_stay(Config) ->
    Ports = (?config(stock, Config))#{ca => ?config(ca, Config)},
    A = e2e_user:login(c2s, <<"bob">>, Ports),
    B = e2e_user:login(bosh, <<"bob">>, Ports),
    Mine = login(websocket, Config),
    drain(0, Config),
    {{close_frame, 1001, _}, _} = e2e_user:ending(Mine, ?TIMEOUT),
    nobody_is_left(Config),
    {A1, B1} = e2e_user:chat(A, B, <<"still here">>),
    e2e_user:close(A1),
    e2e_user:close(B1).

%% ---- real clients understand it ----

strophe_bosh(Config) -> sent_away(strophe, url("http", "/bosh", Config), Config).

strophe_websocket(Config) -> sent_away(strophe, url("ws", "/ws", Config), Config).

slixmpp(Config) -> sent_away(slixmpp, {port(c2s, Config), ?config(ca, Config)}, Config).

sent_away(Client, Where, Config) ->
    Self = self(),
    {Pid, Ref} = spawn_monitor(fun() -> Self ! {self(), e2e_client:sent_away(Client, Where)} end),
    ok = e2e_ejabberd:call(?config(node, Config), ?MODULE, present, [<<"alice">>]),
    ok = e2e_ejabberd:call(?config(node, Config), ?MODULE, said, [<<"alice">>]),
    case Where of
        ["http" | _] -> ok = e2e_ejabberd:call(?config(node, Config), ?MODULE, held, [1]);
        _ -> ok
    end,
    drain(0, Config),
    receive
        {Pid, Result} -> ?assertEqual(ok, Result);
        {'DOWN', Ref, process, Pid, Why} -> error(Why)
    end,
    nobody_is_left(Config).

url(Scheme, Path, Config) -> [Scheme, "://127.0.0.1:", integer_to_list(port(http, Config)), Path].

%% ---- helpers ----

login(Transport, Config) ->
    e2e_user:login(Transport, <<"alice">>, ?config(ports, Config)).

port(Service, Config) -> maps:get(Service, ?config(ports, Config)).

drain(Seconds, Config) ->
    ok = e2e_ejabberd:call(?config(node, Config), megaphone, drain, [Seconds]).

system_shutdown(Said) ->
    ?assertMatch({match, _}, re:run(Said, "<stream:error[^>]*><system-shutdown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>"
                                    "</stream:error>"), Said).

done(Number, Config) ->
    N = integer_to_list(Number),
    {ok, _} = e2e_ejabberd:wait_log(?config(node, Config), ?config(mark, Config),
                                    ["drain: done, ", N, " of ", N, " connections ended"], ?TIMEOUT).

%% No connection, nothing cut short, and no session of alice's, who uses megaphone.
nobody_is_left(Config) ->
    Node = ?config(node, Config),
    {ok, _} = e2e_ejabberd:wait_log(Node, ?config(mark, Config), "drain: done, ", ?TIMEOUT),
    {ok, _} = e2e_ejabberd:wait_log(Node, ?config(mark, Config),
                                    ["drain: ([1-9][0-9]*) of \\1 connections ended on link .* 0 of them cut short"],
                                    ?TIMEOUT),
    poll:until(fun() -> e2e_ejabberd:call(Node, ejabberd_sm, get_user_resources, [<<"alice">>, <<"localhost">>]) end, []).

%% So many BOSH requests are held.
held(Number) ->
    poll:until(fun() -> ets:info(megaphone_bosh_responder, size) + length([P || P <- processes(), is_held(P)]) end, Number).

%% The user has said that she is there.
present(User) ->
    poll:until(fun() -> length(ejabberd_sm:get_user_present_resources(User, <<"localhost">>)) end, 1).

%% What her presence led to has been answered: a request that is held from now on is one that
%% waits, and not one about to be answered, behind which she would have none for a moment. It takes
%% a turn of her process for the presence and one for its copy to herself.
said(User) ->
    Sessions = [ejabberd_sm:get_session_pid(User, <<"localhost">>, Resource)
                || Resource <- ejabberd_sm:get_user_resources(User, <<"localhost">>)],
    Carriers = [Pid || Pid <- processes(), {ejabberd_bosh, _, _} <- [proc_lib:initial_call(Pid)]],
    Responders = [Pid || Pid <- processes(), {megaphone_bosh_responder, _, _} <- [proc_lib:initial_call(Pid)]],
    _ = [sys:get_state(Pid) || Pid <- Sessions ++ Sessions ++ Carriers ++ Responders],
    ok.

is_held(Pid) ->
    case {proc_lib:initial_call(Pid), process_info(Pid, current_stacktrace)} of
        {{ejabberd_http, _, _}, {current_stacktrace, Stack}} -> lists:keymember(ejabberd_bosh, 1, Stack);
        _ -> false
    end.

until_said(Pattern, WebSocket) ->
    {ok, Text, Next} = e2e_websocket:recv(WebSocket, ?TIMEOUT),
    case re:run(Text, Pattern) of
        {match, _} -> Next;
        nomatch -> until_said(Pattern, Next)
    end.

until_features(S, Said) ->
    case re:run(Said, "</stream:features>$") of
        {match, _} ->
            ok;
        nomatch ->
            {ok, Bytes} = gen_tcp:recv(S, 0, ?TIMEOUT),
            until_features(S, <<Said/binary, Bytes/binary>>)
    end.

until_closed(S, Said) ->
    case gen_tcp:recv(S, 0, ?TIMEOUT) of
        {ok, Bytes} -> until_closed(S, <<Said/binary, Bytes/binary>>);
        {error, closed} -> Said
    end.

fields(Words) ->
    maps:from_list([list_to_tuple(binary:split(Word, <<"=">>)) || Word <- binary:split(Words, <<" ">>, [global])]).

%% Sends {Ref, Id, Outcome, When} for each connection when the peer sees its end.
collector(Peer, Ids) ->
    Self = self(),
    Ref = make_ref(),
    %% Not linked: those whose connection goes on end with the peer.
    _ = [spawn(fun() ->
                       Outcome = link_peer:outcome(Peer, Id, 60_000),
                       Self ! {Ref, Id, Outcome, now_ms()}
               end) || Id <- Ids],
    put(Ref, length(Ids)),
    Ref.

collected(Ref) ->
    [receive {Ref, Id, Outcome, At} -> {Id, Outcome, At} after ?TIMEOUT -> error({timeout, N}) end
     || N <- lists:seq(1, get(Ref))].

now_ms() -> erlang:monotonic_time(millisecond).
