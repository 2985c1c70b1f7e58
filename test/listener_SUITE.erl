%% Link listeners and the accept queues of their services: those of Erlang programs
%% (`megaphone:listen/2'), and ejabberd's when its listener process dies, when the NIF is
%% missing, and when there is nothing in its options.
-module(listener_SUITE).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-export([suite/0, all/0, groups/0, init_per_group/2, end_per_group/2,
         init_per_testcase/2, end_per_testcase/2]).
-export([accepts_in_order/1, waiters_in_order/1, waiting_has_an_end/1,
         late_connection_is_not_lost/1, dead_waiter_is_passed_over/1,
         full_queue_refuses/1, ended_connection_is_handed_out/1, unknown_service/1,
         closed_listener/1, listener_ends_with_its_owner/1, address_in_use/1,
         unix_socket/1, options_are_inherited/1, bad_options_exit/1, missing_nif/1]).
-export([items_by_connection_id/1, requests_by_connection_id/1, waiters_on_one_connection/1,
         the_other_calls/1, looking_things_up/1, ended_connection/1, errors_have_sentences/1]).
-export([killed_listener/1, options_of_http_alone/1, unix_without_ecm/1]).

%% Called in a node of its own.
-export([refused_link/0]).

-define(TIMEOUT, 10_000).
-define(LOOPBACK, {127, 0, 0, 1}).

suite() -> [{timetrap, {minutes, 2}}].

all() -> [{group, listen}, {group, api}, {group, ejabberd_23_01}, {group, ejabberd_24_12}].

groups() ->
    Ejabberd = [killed_listener, options_of_http_alone, unix_without_ecm],
    [{listen, [], [accepts_in_order, waiters_in_order, waiting_has_an_end,
                   late_connection_is_not_lost, dead_waiter_is_passed_over,
                   full_queue_refuses, ended_connection_is_handed_out, unknown_service,
                   closed_listener, listener_ends_with_its_owner, address_in_use,
                   unix_socket, options_are_inherited, bad_options_exit, missing_nif]},
     {api, [], [items_by_connection_id, requests_by_connection_id, waiters_on_one_connection,
                the_other_calls, looking_things_up, ended_connection, errors_have_sentences]},
     {ejabberd_23_01, [], Ejabberd},
     {ejabberd_24_12, [], Ejabberd}].

init_per_group(ejabberd_23_01, Config) -> [{version, "23.01"} | Config];
init_per_group(ejabberd_24_12, Config) -> [{version, "24.12"} | Config];
init_per_group(_Group, Config) -> Config.

end_per_group(_Group, _Config) -> ok.

init_per_testcase(_Case, Config) ->
    [{dir, e2e_ejabberd:temporary()} | Config].

end_per_testcase(_Case, Config) ->
    e2e_ejabberd:keep_log(?config(dir, Config), ?config(priv_dir, Config)).

%% ---- the accept queue ----

accepts_in_order(_Config) ->
    {L, Peer} = listen([]),
    Ids = lists:seq(1, 100),
    [ok = open(Peer, Id) || Id <- Ids],
    ?assertEqual(Ids, [accept_id(L) || _ <- Ids]).

waiters_in_order(_Config) ->
    {L, Peer} = listen([]),
    Waiters = [waiting_accept(L, Number) || Number <- [1, 2, 3]],
    [ok = open(Peer, Id) || Id <- [11, 12, 13]],
    ?assertEqual([11, 12, 13], [id(socket_pair:result(Waiter)) || Waiter <- Waiters]).

waiting_has_an_end(_Config) ->
    {L, _Peer} = listen([]),
    ?assertEqual({error, timeout}, gen_tcp:accept(L, 0)),
    ?assertEqual({error, timeout}, gen_tcp:accept(L, 20)),
    ?assertMatch([#{services := #{<<"default">> := #{waiting := 0, queued := 0}}}], mine(L)).

%% Whoever gave up has not taken the next connection with it.
late_connection_is_not_lost(_Config) ->
    {L, Peer} = listen([]),
    [begin
         {error, timeout} = gen_tcp:accept(L, 0),
         ok = open(Peer, Id),
         ?assertEqual(Id, accept_id(L))
     end || Id <- lists:seq(1, 50)].

dead_waiter_is_passed_over(_Config) ->
    {L, Peer} = listen([]),
    {Pid, _, Monitor} = waiting_accept(L, 1),
    Second = waiting_accept(L, 2),
    exit(Pid, kill),
    receive {'DOWN', Monitor, process, Pid, _} -> ok end,
    ok = open(Peer, 7),
    ?assertEqual(7, id(socket_pair:result(Second))).

full_queue_refuses(_Config) ->
    Log = log_capture:start(),
    {L, Peer} = listen([{backlog, 2}]),
    [ok = open(Peer, Id) || Id <- [1, 2, 3]],
    ?assertEqual({reset, <<"overload">>}, link_peer:outcome(Peer, 3)),
    {warning, _} = log_capture:wait(Log, ["connection 00000000000000000003: the accept queue of "
                                          "service default is full"]),
    ?assertEqual(1, accept_id(L)),
    ok = open(Peer, 4),
    ?assertEqual([2, 4], [accept_id(L), accept_id(L)]),
    log_capture:stop(Log).

%% As a TCP stack does: what the client sent before it went can be read.
ended_connection_is_handed_out(_Config) ->
    {L, Peer} = listen([]),
    ok = open(Peer, 1),
    ok = link_peer:send(Peer, 1, <<"hello">>),
    ok = link_peer:finish(Peer, 1),
    ok = open(Peer, 2),
    ok = link_peer:reset(Peer, 2, "client_closed"),
    ok = open(Peer, 3),
    ok = link_peer:flush(Peer),
    {ok, First} = gen_tcp:accept(L, ?TIMEOUT),
    ?assertEqual({ok, <<"hello">>}, gen_tcp:recv(First, 0, ?TIMEOUT)),
    ?assertEqual({error, closed}, gen_tcp:recv(First, 0, ?TIMEOUT)),
    {ok, Second} = gen_tcp:accept(L, ?TIMEOUT),
    ?assertMatch({error, _}, gen_tcp:recv(Second, 0, ?TIMEOUT)),
    ?assertEqual(3, accept_id(L)).

unknown_service(_Config) ->
    {L, Peer} = listen([{services, [<<"a">>, <<"b">>]}]),
    [ok = link_peer:open(Peer, Id, Name) || {Id, Name} <- [{1, "a"}, {2, "c"}, {3, "b"}]],
    ?assertMatch({_, <<"refused">>}, link_peer:outcome(Peer, 2)),
    ?assertEqual([1, 3], [accept_id(L), accept_id(L)]).

%% ---- the listener's life ----

closed_listener(_Config) ->
    {L, Peer} = listen([]),
    {ok, Port} = inet:port(L),
    ok = open(Peer, 1),
    {ok, S} = gen_tcp:accept(L, ?TIMEOUT),
    Waiter = waiting_accept(L, 1),
    ok = open(Peer, 2),
    _ = socket_pair:result(Waiter),
    Waiting = waiting_accept(L, 1),
    ok = gen_tcp:close(L),
    ?assertEqual({error, closed}, socket_pair:result(Waiting)),
    ?assertEqual({error, closed}, gen_tcp:accept(L)),
    ?assertEqual({error, closed}, gen_tcp:recv(S, 0, ?TIMEOUT)),
    closed = link_peer:link_outcome(Peer),
    ?assertEqual({error, econnrefused}, gen_tcp:connect(?LOOPBACK, Port, [])),
    ?assertEqual({error, closed}, megaphone:sockname(L)),
    ?assertEqual(ok, gen_tcp:close(L)),
    %% The address is free again.
    {ok, Again} = megaphone:listen(Port, [{ip, ?LOOPBACK}]),
    ok = gen_tcp:close(Again).

listener_ends_with_its_owner(_Config) ->
    Self = self(),
    {Owner, Monitor} = spawn_monitor(fun() -> Self ! listen([]), receive stop -> ok end end),
    {L, Peer} = receive {_, _} = Both -> Both end,
    link_peer:flush(Peer),
    Waiting = waiting_accept(L, 1),
    exit(Owner, kill),
    receive {'DOWN', Monitor, process, Owner, _} -> ok end,
    ?assertEqual({error, closed}, socket_pair:result(Waiting)),
    ?assertEqual({error, closed}, gen_tcp:accept(L, ?TIMEOUT)).

address_in_use(_Config) ->
    {L, _Peer} = listen([]),
    {ok, Port} = inet:port(L),
    ?assertEqual({error, eaddrinuse}, megaphone:listen(Port, [{ip, ?LOOPBACK}])),
    ?assertEqual({ok, {?LOOPBACK, Port}}, inet:sockname(L)),
    ?assertEqual({error, eaddrnotavail}, megaphone:listen(0, [{ip, {192, 0, 2, 1}}])).

unix_socket(Config) ->
    Path = filename:join(?config(dir, Config), "link.sock"),
    {ok, Stale} = gen_tcp:listen(0, [{ifaddr, {local, Path}}]),
    ok = gen_tcp:close(Stale),
    {ok, L} = megaphone:listen({local, Path}, []),
    ?assertEqual({ok, {local, list_to_binary(Path)}}, inet:sockname(L)),
    ?assertEqual({error, eaddrinuse}, megaphone:listen({local, Path}, [])),
    Peer = link_peer:connect({local, Path}),
    ok = open(Peer, 1),
    ?assertEqual(1, accept_id(L)),
    ok = gen_tcp:close(L),
    ?assertEqual({error, enoent}, file:read_link_info(Path)),
    ?assertEqual({error, enoent}, megaphone:listen({local, Path ++ "/none"}, [])).

options_are_inherited(_Config) ->
    {L, Peer} = listen([list, {packet, line}, {active, once}]),
    ok = open(Peer, 1),
    {ok, S} = gen_tcp:accept(L, ?TIMEOUT),
    ok = link_peer:send(Peer, 1, <<"one\ntwo\n">>),
    receive {tcp, S, Line} -> ?assertEqual("one\n", Line) after ?TIMEOUT -> error(nothing) end,
    ?assertEqual({ok, "two\n"}, gen_tcp:recv(S, 0, ?TIMEOUT)),
    {Plain, PlainPeer} = listen([]),
    ok = open(PlainPeer, 1),
    {ok, P} = gen_tcp:accept(Plain, ?TIMEOUT),
    ?assertEqual({ok, [{mode, binary}, {active, false}, {packet, 0}]},
                 inet:getopts(P, [mode, active, packet])).

bad_options_exit(_Config) ->
    [?assertExit(badarg, megaphone:listen(0, [Option]))
     || Option <- [{backlog, 0}, {window, many}, {services, []}, {services, ["text"]},
                   {version_1, perhaps}, {idle_timeout, -1}, {max_frame, 0.5}]].

%% Says what is missing and where it should be, and takes no links: nothing crashes.
missing_nif(Config) ->
    Top = filename:join(?config(dir, Config), "megaphone"),
    Ebin = filename:join(Top, "ebin"),
    ok = filelib:ensure_path(Ebin),
    [{ok, _} = file:copy(File, filename:join(Ebin, filename:basename(File)))
     || File <- filelib:wildcard(filename:join(e2e_paths:app_ebin(), "*"))],
    {ok, Node, _} = peer:start(#{connection => standard_io,
                                 args => ["-pa", Ebin, filename:dirname(code:which(?MODULE))]}),
    {error, Sentence} = peer:call(Node, megaphone_listener, prepare, []),
    ?assertEqual("the NIF is missing: there is no " ++ Top ++ "/priv/megaphone_nif.so "
                 "(`make build` makes it)", lists:flatten(Sentence)),
    ?assertEqual({error, nif_not_loaded}, peer:call(Node, megaphone, listen, [0])),
    ?assertEqual({[{megaphone, refused}], {error, refused}, {error, refused}},
                 peer:call(Node, ?MODULE, refused_link, [])),
    peer:stop(Node).

%% What ejabberd's listener process calls, and gets.
refused_link() ->
    {ok, Listen} = gen_tcp:listen(0, [{ip, ?LOOPBACK}]),
    State = megaphone:tcp_init(Listen, []),
    {State, megaphone:start(gen_tcp, Listen, State), megaphone:start_link(gen_tcp, Listen, State)}.

%% ---- the Erlang API ----

%% Exactly decode_packet's terms, and then the body.
items_by_connection_id(_Config) ->
    {Id, Peer, _S} = connection(),
    Head = <<"POST /bosh HTTP/1.1\r\nHost: example.net\r\nContent-Length: 5\r\n\r\n">>,
    ok = link_peer:send(Peer, Id, [Head, <<"<a/>">>]),
    Reader = socket_pair:in_process(fun() -> items(Id, http_eoh) ++ [megaphone:recv(Id)] end),
    ok = link_peer:send(Peer, Id, <<"\n">>),
    ?assertEqual([{ok, Item} || Item <- decode(http, Head)] ++ [{ok, <<"<a/>\n">>}],
                 socket_pair:result(Reader)).

items(Id, Last) ->
    case megaphone:recv(Id) of
        {ok, Last} = Item -> [Item];
        Item -> [Item | items(Id, Last)]
    end.

decode(Type, Bytes) ->
    case erlang:decode_packet(Type, Bytes, []) of
        {ok, http_eoh, <<>>} -> [http_eoh];
        {ok, Item, Rest} -> [Item | decode(httph, Rest)]
    end.

requests_by_connection_id(_Config) ->
    {Id, Peer, S} = connection(),
    ok = link_peer:send(Peer, Id, <<"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"
                                    "PUT /b HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nok">>),
    ?assertMatch({ok, {{http_request, 'GET', {abs_path, "/a"}, {1, 1}},
                       [{http_header, _, 'Host', _, "h"}], <<>>}},
                 megaphone:receive_packet(Id)),
    ?assertMatch({ok, {{http_request, 'PUT', {abs_path, "/b"}, {1, 1}}, [_, _], <<"ok">>}},
                 megaphone:receive_packet(S, ?TIMEOUT)),
    ?assertEqual({error, timeout}, megaphone:receive_packet(Id, 0)).

%% First come, first served.
waiters_on_one_connection(_Config) ->
    {Id, Peer, S} = connection(),
    Readers = [begin
                   Reader = socket_pair:in_process(fun() -> megaphone:recv(Id, 1) end),
                   ok = poll:until(fun() -> {ok, #{waiting := N}} = megaphone:info(S), N end, Number),
                   Reader
               end || Number <- [1, 2, 3]],
    ok = link_peer:send(Peer, Id, <<"abc">>),
    ?assertEqual([{ok, <<"a">>}, {ok, <<"b">>}, {ok, <<"c">>}],
                 [socket_pair:result(Reader) || Reader <- Readers]).

the_other_calls(_Config) ->
    {Id, Peer, S} = connection(),
    ?assertEqual({ok, {{192, 0, 2, 7}, 40000}}, megaphone:peername(Id)),
    ?assertEqual({ok, {{198, 51, 100, 1}, 5280}}, megaphone:sockname(S)),
    ?assertEqual(ok, megaphone:setopts(Id, [{packet, line}])),
    ?assertEqual({ok, [{packet, line}]}, megaphone:getopts(S, [packet])),
    ok = link_peer:send(Peer, Id, <<"line\nrest">>),
    ?assertEqual({ok, <<"line\n">>}, megaphone:recv(Id, 0, ?TIMEOUT)),
    ?assertEqual(ok, megaphone:send(Id, ["to ", <<"client">>])),
    ?assertEqual(<<"to client">>, link_peer:recv(Peer, Id, 9)),
    ?assertEqual(ok, megaphone:controlling_process(Id, self())),
    ?assertEqual({error, not_owner},
                 socket_pair:result(socket_pair:in_process(
                                      fun() -> megaphone:controlling_process(Id, self()) end))),
    ?assertEqual(ok, megaphone:shutdown(Id, write)),
    ?assertEqual(ended, link_peer:outcome(Peer, Id)),
    ?assertEqual(ok, megaphone:close(Id)),
    ?assertEqual({error, closed}, megaphone:recv(S, 0)).

looking_things_up(_Config) ->
    {Id, Peer, S} = connection(),
    ?assertEqual({ok, S}, megaphone:socket(Id)),
    ?assertEqual(Id, megaphone:connection_id(S)),
    {ok, #{id := Id, link := Name}} = megaphone:info(S),
    [{Link, Info}] = [Both || {_, #{link := LinkName}} = Both <- megaphone:links(),
                              LinkName =:= Name],
    ?assertEqual({ok, maps:get(link, Info)}, {ok, maps:get(link, element(2, megaphone:info(Link)))}),
    ?assertEqual([Id], megaphone:connections(Link)),
    ok = link_peer:stop(Peer),
    ?assertEqual({error, closed}, megaphone:recv(S, 0)),
    ok = poll:until(fun() -> not is_process_alive(Link) end),
    ?assertEqual({error, closed}, megaphone:info(Link)),
    ?assertEqual([], megaphone:connections(Link)).

ended_connection(_Config) ->
    {Id, Peer, S} = connection(),
    ok = link_peer:reset(Peer, Id, "client_closed"),
    ok = link_peer:flush(Peer),
    ?assertMatch({error, _}, megaphone:recv(S, 0)),
    ok = megaphone:close(S),
    [?assertEqual({Call, {error, closed}}, {Call, apply(megaphone, Call, [Id | More])})
     || {Call, More} <- [{recv, []}, {recv, [0]}, {recv, [0, 1]}, {send, [<<"x">>]},
                         {receive_packet, []}, {receive_packet, [1]}, {shutdown, [write]},
                         {setopts, [[{packet, raw}]]}, {getopts, [[packet]]}, {peername, []},
                         {sockname, []}, {controlling_process, [self()]}, {socket, []},
                         {info, []}]],
    ?assertEqual(ok, megaphone:close(Id)),
    ?assertEqual(Id, megaphone:connection_id(S)).

errors_have_sentences(_Config) ->
    [?assertMatch({Reason, [_, _ | _]}, {Reason, megaphone:format_error(Reason)})
     || Reason <- [closed, timeout, not_owner, nif_not_loaded, system_limit, econnreset, enomem,
                   eaddrinuse, {http_error, "x\r\n"}, emsgsize, unheard_of, {any, "thing"}]].

%% ---- ejabberd's listener process ----

%% As `reload_config' does with a listener that changed: all that it had goes and comes again.
killed_listener(Config) ->
    Port = e2e_port:free(),
    {ok, Node} = start(Config, "services: {http: {module: ejabberd_http, request_handlers: "
                       "{/peer: e2e_peer_handler}}}", Port),
    Peer = link_peer:connect(Port),
    ok = link_peer:open(Peer, 1, <<"http">>),
    answered(Peer, 1),
    Mark = e2e_ejabberd:mark_log(Node),
    [Listener] = [Pid || {{P, _, tcp}, Pid, _, _} <- call(Node, supervisor, which_children,
                                                          [ejabberd_listener]), P =:= Port],
    true = call(Node, erlang, exit, [Listener, kill]),
    closed = link_peer:link_outcome(Peer),
    {ok, _} = e2e_ejabberd:wait_log(Node, Mark, "ended, with its 1 links", ?TIMEOUT),
    {ok, _} = e2e_ejabberd:wait_log(Node, Mark, "Start accepting .* for megaphone", ?TIMEOUT),
    Next = link_peer:connect(Port),
    ok = link_peer:open(Next, 1, <<"http">>),
    answered(Next, 1),
    %% One listener, one link: nothing of the first is left.
    ?assertMatch([#{links := [_]}], call(Node, megaphone, listeners, [])),
    ?assertMatch([_], call(Node, megaphone, links, [])),
    %% An accept queue that crashed, which links know by its pid: the same.
    [Tree] = call(Node, megaphone_root, listeners, []),
    #{<<"http">> := Service} = call(Node, megaphone_listener_sup, services, [Tree]),
    Then = e2e_ejabberd:mark_log(Node),
    true = call(Node, erlang, exit, [Service, kill]),
    closed = link_peer:link_outcome(Next),
    {ok, _} = e2e_ejabberd:wait_log(Node, Then, "Start accepting .* for megaphone", ?TIMEOUT),
    Third = link_peer:connect(Port),
    ok = link_peer:open(Third, 1, <<"http">>),
    answered(Third, 1),
    %% The application can be stopped under it.
    ok = call(Node, application, stop, [megaphone]),
    _ = link_peer:link_outcome(Third),
    ok = e2e_ejabberd:stop(Node).

options_of_http_alone(Config) ->
    Port = e2e_port:free(),
    {ok, Node} = start(Config, "request_handlers: {/peer: e2e_peer_handler}", Port),
    Peer = link_peer:connect(Port),
    ok = link_peer:open(Peer, 1, <<"http">>),
    answered(Peer, 1),
    ok = e2e_ejabberd:stop(Node).

%% ejabberd 24.12's own loop would crash at the first link, see megaphone_ejabberd.
unix_without_ecm(Config) ->
    Path = filename:join(?config(dir, Config), "link.sock"),
    {ok, Node} = start(Config, "request_handlers: {/peer: e2e_peer_handler}",
                       ["\"unix:", Path, "\""], ""),
    [begin
         Peer = link_peer:connect({local, Path}),
         ok = link_peer:open(Peer, Id, <<"http">>),
         answered(Peer, Id),
         ok = link_peer:stop(Peer)
     end || Id <- [1, 2]],
    ?assertMatch([#{listener := "unix:" ++ Path}], call(Node, megaphone, listeners, [])),
    ok = e2e_ejabberd:stop(Node).

answered(Peer, Id) ->
    ok = link_peer:send(Peer, Id, <<"GET /peer HTTP/1.1\r\nHost: localhost\r\n\r\n">>),
    ?assertMatch(<<"HTTP/1.1 200", _/binary>>, link_peer:recv_some(Peer, Id)).

start(Config, Options, Port) -> start(Config, Options, integer_to_list(Port), "").

start(Config, Options, Port, More) when is_integer(Port) ->
    start(Config, Options, integer_to_list(Port), More);
start(Config, Options, Port, More) ->
    e2e_ejabberd:start(#{version => ?config(version, Config), dir => ?config(dir, Config),
                         config => ["hosts: [localhost]\nloglevel: info\nlisten:\n"
                                    "  - {port: ", Port, ", ip: \"127.0.0.1\", "
                                    "module: megaphone, ", Options, "}\n", More]}).

call(Node, M, F, A) -> e2e_ejabberd:call(Node, M, F, A).

%% ---- starting and asking ----

listen(Options) ->
    {ok, L} = megaphone:listen(0, [{ip, ?LOOPBACK} | Options]),
    {ok, Port} = inet:port(L),
    {L, link_peer:connect(Port)}.

open(Peer, Id) -> link_peer:open(Peer, Id, <<"default">>).

%% {ConnectionId, Peer, Socket}
connection() ->
    {L, Peer} = listen([]),
    Id = 16#8000000000000000 + erlang:unique_integer([positive]),
    ok = open(Peer, Id),
    {ok, S} = gen_tcp:accept(L, ?TIMEOUT),
    {Id, Peer, S}.

accept_id(L) -> id(gen_tcp:accept(L, ?TIMEOUT)).

id({ok, S}) -> megaphone:connection_id(S).

%% In accept, as the Number-th that waits there. It lives until the case ends, for its
%% socket's sake.
waiting_accept(L, Number) ->
    Waiter = socket_pair:in_process(fun() -> gen_tcp:accept(L) end),
    ok = poll:until(fun() ->
                            [#{services := #{<<"default">> := #{waiting := Waiting}}}] = mine(L),
                            Waiting
                    end, Number),
    Waiter.

mine(L) ->
    {ok, Address} = megaphone:sockname(L),
    [Info || #{address := A} = Info <- megaphone:listeners(), A =:= Address].
