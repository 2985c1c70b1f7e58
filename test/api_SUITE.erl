%% The calls of module megaphone, by connection id and by socket, and the functions that
%% this project began with (the seeds), each shown to work where it is now:
%%
%%   start, main loop    megaphone:listen/2 and a link: listening_and_main_loop
%%   get_data, put_data  a frame's content into the connection's buffer: put_data_get_data
%%   send_data           send_by_id, send_by_socket
%%   shutdown            shutdown_link
%%   recv, send          recv_items, recv_length, send_by_id
%%   receive_packet      receive_packet, receive_packet_body
%%   table of results    results_wait_in_the_table
%%   remove_waiter       remove_waiter
%%   notify_waiter       notify_waiter, first_come_first_served
%%   parse_packet        parse_packet
%%   parse_headers       parse_headers
%%   receiver            receive_header, leftovers, receive_packet_body
%%   sender              sender_gathers
-module(api_SUITE).
-compile([export_all, nowarn_export_all]).
-include_lib("stdlib/include/assert.hrl").

-import(link_case, [peer/1, open/1]).
-import(socket_pair, [in_process/1, result/1]).

-define(TIMEOUT, 10000).

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [listening_and_main_loop, put_data_get_data, shutdown_link,
     recv_items, recv_items_of_a_binary_socket, recv_body, recv_chunked_body, recv_next_request,
     recv_length, recv_timeout, recv_closed, recv_unknown,
     receive_packet, receive_packet_without_body, receive_packet_body, receive_packet_timeout,
     receive_packet_closed, receive_packet_pipelined,
     results_wait_in_the_table, first_come_first_served, remove_waiter, notify_waiter,
     dead_waiter_gets_nothing,
     parse_packet, parse_headers, receive_header, leftovers,
     send_by_id, send_by_socket, send_unknown, send_blocked_then_timeout, sender_gathers,
     options_and_names, shutdown_and_close, ownership, lookups, links_and_listeners, memory,
     listen_errors, listener_ends_with_its_owner, format_error, wrong_arguments].

init_per_suite(Config) ->
    {ok, _} = application:ensure_all_started(megaphone),
    Config.

end_per_suite(_Config) -> ok.

init_per_testcase(_, Config) -> link_case:start(Config).
end_per_testcase(_, Config) -> link_case:stop(Config).

%% ---- start, main loop ----

%% A listener takes links, a link opens connections, a connection carries bytes.
listening_and_main_loop(_Config) ->
    {ok, L} = megaphone:listen(0),
    {ok, Port} = inet:port(L),
    Peer = link_peer:connect(Port),
    ok = link_peer:open(Peer, 24, <<"default">>),
    {ok, S} = gen_tcp:accept(L, ?TIMEOUT),
    ok = link_peer:send(Peer, 24, <<"<body>whatever</body>">>),
    ?assertEqual({ok, <<"<body>whatever</body>">>}, megaphone:recv(24, 21, ?TIMEOUT)),
    ok = megaphone:send(24, <<"<body/>">>),
    ?assertEqual(<<"<body/>">>, link_peer:recv(Peer, 24, 7)),
    ok = megaphone:close(S),
    {close, _} = link_peer:outcome(Peer, 24),
    ok = megaphone:close(L),
    ?assertEqual(closed, link_peer:link_outcome(Peer)),
    ?assertMatch({error, econnrefused}, gen_tcp:connect({127, 0, 0, 1}, Port, [])).

%% Content is kept until it is asked for, in order, whatever the frames were.
put_data_get_data(Config) ->
    {Peer, Id, _} = connection(Config),
    ok = link_peer:raw(Peer, [link_peer:frame(Id, Part) || Part <- ["ab", "c", "defg"]]),
    ok = link_peer:flush(Peer),
    ?assertMatch({ok, #{queued := 7}}, megaphone:info(Id)),
    ?assertEqual({ok, <<"abcde">>}, megaphone:recv(Id, 5, ?TIMEOUT)),
    ?assertEqual({ok, <<"fg">>}, megaphone:recv(Id, 0, ?TIMEOUT)),
    ?assertMatch({ok, #{queued := 0}}, megaphone:info(Id)).

%% A listener that is closed says so to its links and ends their connections.
shutdown_link(Config) ->
    {Peer, _, S} = connection(Config),
    Reader = in_process(fun() -> megaphone:recv(S, 0) end),
    ok = megaphone:close(link_case:listen(Config)),
    ?assertEqual({error, closed}, result(Reader)),
    ?assertMatch(<<"goaway reason=shutdown", _/binary>>, link_peer:wait_line(Peer, "^goaway ")),
    ?assertEqual(closed, link_peer:link_outcome(Peer)).

%% ---- recv ----

recv_items(Config) ->
    {Peer, Id, _} = connection(Config),
    Head = <<"GET /a HTTP/1.1\r\nHost: x\r\nfoo: bar\r\n\r\n">>,
    ok = link_peer:send(Peer, Id, Head),
    ?assertEqual([{ok, Item} || Item <- decoded(Head)],
                 [megaphone:recv(Id) || _ <- lists:seq(1, 4)]).

%% Whatever the socket's mode and packet options are.
recv_items_of_a_binary_socket(Config) ->
    {Peer, Id, S} = connection(Config),
    ok = inet:setopts(S, [binary, {packet, raw}]),
    Head = <<"GET /a HTTP/1.1\r\nHost: x\r\n\r\n">>,
    ok = link_peer:send(Peer, Id, Head),
    ?assertEqual([{ok, Item} || Item <- decoded(Head)],
                 [megaphone:recv(S) || _ <- lists:seq(1, 3)]),
    ?assertEqual({ok, [{packet, 0}]}, inet:getopts(S, [packet])).

recv_body(Config) ->
    {Peer, Id, _} = connection(Config),
    Head = <<"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n">>,
    ok = link_peer:send(Peer, Id, [Head, "hel"]),
    ?assertEqual([{ok, Item} || Item <- decoded(Head)],
                 [megaphone:recv(Id) || _ <- lists:seq(1, 3)]),
    Reader = in_process(fun() -> megaphone:recv(Id) end),
    ok = link_peer:send(Peer, Id, "lo"),
    ?assertEqual({ok, <<"hello">>}, result(Reader)).

recv_chunked_body(Config) ->
    {Peer, Id, _} = connection(Config),
    ok = link_peer:send(Peer, Id, ["POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
                                   "5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nTrailer: z\r\n\r\n"]),
    [{ok, {http_request, 'POST', _, _}}, {ok, {http_header, _, 'Transfer-Encoding', _, _}},
     {ok, http_eoh}] = [megaphone:recv(Id) || _ <- lists:seq(1, 3)],
    ?assertEqual({ok, <<"hello world">>}, megaphone:recv(Id)).

recv_next_request(Config) ->
    {Peer, Id, _} = connection(Config),
    ok = link_peer:send(Peer, Id, [["POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\n", Body]
                                   || Body <- "abc"]),
    [?assertMatch([{ok, {http_request, 'POST', {abs_path, "/"}, {1, 1}}}, {ok, {http_header, _, _, _, _}},
                   {ok, http_eoh}, {ok, <<Body>>}], [megaphone:recv(Id) || _ <- lists:seq(1, 4)])
     || Body <- "abc"].

recv_length(Config) ->
    {Peer, Id, S} = connection(Config),
    ok = link_peer:send(Peer, Id, "abcdef"),
    ?assertEqual({ok, <<"abc">>}, megaphone:recv(Id, 3)),
    ?assertEqual({ok, <<"de">>}, megaphone:recv(S, 2, ?TIMEOUT)),
    ?assertEqual({ok, <<"f">>}, gen_tcp:recv(S, 0, ?TIMEOUT)).

recv_timeout(Config) ->
    {Peer, Id, _} = connection(Config),
    ?assertEqual({error, timeout}, megaphone:recv(Id, 3, 10)),
    ok = link_peer:send(Peer, Id, "abc"),
    ?assertEqual({ok, <<"abc">>}, megaphone:recv(Id, 3, ?TIMEOUT)).

recv_closed(Config) ->
    {Peer, Id, S} = connection(Config),
    Reader = in_process(fun() -> megaphone:recv(Id) end),
    ok = link_peer:close(Peer, Id, "client_closed"),
    ?assertEqual({error, closed}, result(Reader)),
    ?assertEqual({error, closed}, megaphone:recv(S)).

recv_unknown(_Config) ->
    [?assertEqual({error, closed}, Result)
     || Result <- [megaphone:recv(4711), megaphone:recv(4711, 0), megaphone:recv(4711, 0, 10),
                   megaphone:receive_packet(4711, 10), megaphone:socket(4711),
                   megaphone:info(4711), megaphone:peername(4711)]].

%% ---- receive_packet ----

receive_packet(Config) ->
    {Peer, Id, _} = connection(Config),
    Head = <<"POST /bosh HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n">>,
    [Request, Host, Length, http_eoh] = decoded(Head),
    ok = link_peer:send(Peer, Id, [Head, "hello"]),
    ?assertEqual({ok, {Request, [Host, Length], <<"hello">>}},
                 megaphone:receive_packet(Id, ?TIMEOUT)).

receive_packet_without_body(Config) ->
    {Peer, Id, S} = connection(Config),
    [begin
         ok = link_peer:send(Peer, Id, ["GET / HTTP/1.1\r\n", Header, "\r\n"]),
         ?assertMatch({ok, {{http_request, 'GET', _, _}, _, <<>>}},
                      megaphone:receive_packet(S, ?TIMEOUT))
     end || Header <- ["", "Host: x\r\n", "Content-Length: 0\r\n", "Content-Length: 000\r\n"]].

%% As the seed did: the head first, then the body as it comes, however it is cut.
receive_packet_body(Config) ->
    {Peer, Id, _} = connection(Config),
    Body = binary:copy(<<"0123456789">>, 5000),
    Reader = in_process(fun() -> megaphone:receive_packet(Id, ?TIMEOUT) end),
    ok = link_peer:send(Peer, Id, "POST / HTTP/1.1\r\nContent-Len"),
    ok = link_peer:send(Peer, Id, "gth: 50000\r\n\r"),
    ok = link_peer:send(Peer, Id, ["\n", binary:part(Body, 0, 30000)]),
    ok = link_peer:send(Peer, Id, binary:part(Body, 30000, 20000)),
    {ok, {_, _, Got}} = result(Reader),
    ?assert(Got =:= Body).

%% For all of it, not for each piece; and what came is not lost to the next call.
receive_packet_timeout(Config) ->
    {Peer, Id, _} = connection(Config),
    ?assertEqual({error, timeout}, megaphone:receive_packet(Id, 10)),
    ok = link_peer:send(Peer, Id, "GET / HT"),
    ?assertEqual({error, timeout}, megaphone:receive_packet(Id, 10)),
    ok = link_peer:send(Peer, Id, "TP/1.1\r\n\r\n"),
    ?assertMatch({ok, {{http_request, 'GET', _, _}, [], <<>>}},
                 megaphone:receive_packet(Id, ?TIMEOUT)).

receive_packet_closed(Config) ->
    {Peer, Id, S} = connection(Config),
    ok = link_peer:send(Peer, Id, "GET / HTTP/1.1\r\nHos"),
    ok = link_peer:finish(Peer, Id),
    ?assertEqual({error, closed}, megaphone:receive_packet(S, ?TIMEOUT)).

receive_packet_pipelined(Config) ->
    {Peer, Id, _} = connection(Config),
    ok = link_peer:send(Peer, Id, [["POST / HTTP/1.1\r\nContent-Length: ", integer_to_list(N), "\r\n\r\n",
                                    binary:copy(<<"x">>, N)] || N <- lists:seq(1, 100)]),
    [?assertMatch({ok, {_, [_], Body}} when byte_size(Body) =:= N,
                  megaphone:receive_packet(Id, ?TIMEOUT)) || N <- lists:seq(1, 100)].

%% ---- results and waiters ----

%% What comes before anybody asks waits, for each connection by itself.
results_wait_in_the_table(Config) ->
    Connections = [connection(Config) || _ <- lists:seq(1, 20)],
    [ok = link_peer:send(Peer, Id, integer_to_binary(Id)) || {Peer, Id, _} <- Connections],
    ok = link_peer:flush(peer(Config)),
    [?assertEqual({ok, integer_to_binary(Id)}, megaphone:recv(Id, 0, ?TIMEOUT))
     || {_, Id, _} <- lists:reverse(Connections)].

first_come_first_served(Config) ->
    {Peer, Id, _} = connection(Config),
    Waiters = [waiting(Id, fun() -> megaphone:recv(Id, 1) end, N) || N <- lists:seq(1, 10)],
    ok = link_peer:send(Peer, Id, "abcdefghij"),
    ?assertEqual([{ok, <<C>>} || C <- "abcdefghij"], [result(W) || W <- Waiters]).

%% One that timed out is gone: the next in line is served.
remove_waiter(Config) ->
    {Peer, Id, _} = connection(Config),
    ?assertEqual({error, timeout}, megaphone:recv(Id, 3, 1)),
    ?assertMatch({ok, #{waiting := 0}}, megaphone:info(Id)),
    First = in_process(fun() -> megaphone:recv(Id, 3, 1000) end),
    Second = waiting(Id, fun() -> megaphone:recv(Id, 3) end, 2),
    ?assertEqual({error, timeout}, result(First)),
    ?assertMatch({ok, #{waiting := 1}}, megaphone:info(Id)),
    ok = link_peer:send(Peer, Id, "abc"),
    ?assertEqual({ok, <<"abc">>}, result(Second)).

%% Each is told as soon as there is something for it, and of the end.
notify_waiter(Config) ->
    {Peer, Id, _} = connection(Config),
    First = waiting(Id, fun() -> megaphone:recv(Id, 2) end, 1),
    Second = waiting(Id, fun() -> megaphone:recv(Id, 2) end, 2),
    ok = link_peer:send(Peer, Id, "a"),
    ok = link_peer:flush(Peer),
    ?assertMatch({ok, #{waiting := 2}}, megaphone:info(Id)),
    ok = link_peer:send(Peer, Id, "b"),
    ?assertEqual({ok, <<"ab">>}, result(First)),
    ok = link_peer:close(Peer, Id, "client_closed"),
    ?assertEqual({error, closed}, result(Second)).

%% Bytes are not lost to a waiter that died.
dead_waiter_gets_nothing(Config) ->
    {Peer, Id, _} = connection(Config),
    {Pid, _, Ref} = waiting(Id, fun() -> megaphone:recv(Id, 3) end, 1),
    exit(Pid, kill),
    receive {'DOWN', Ref, _, _, _} -> ok end,
    ok = link_peer:send(Peer, Id, "abc"),
    ?assertEqual({ok, <<"abc">>}, megaphone:recv(Id, 3, ?TIMEOUT)).

%% ---- parsing ----

parse_packet(_Config) ->
    ?assertEqual({ok, {http_request, 'POST', {abs_path, "/bosh"}, {1, 1}}, <<"Host: x\r\n">>},
                 megaphone_nif:decode_packet(http, <<"POST /bosh HTTP/1.1\r\nHost: x\r\n">>)),
    ?assertEqual({more, undefined}, megaphone_nif:decode_packet(http, <<"POST /bo">>)).

parse_headers(_Config) ->
    ?assertEqual({ok, [{http_request, 'GET', {abs_path, "/"}, {1, 1}},
                       {http_header, 14, 'Host', "Host", "x"},
                       {http_header, 0, "Foo", "foo", "bar"}], <<"body">>},
                 megaphone_nif:decode_head(http, <<"GET / HTTP/1.1\r\nHost: x\r\nfoo: bar\r\n\r\nbody">>)).

%% A frame's head that comes in pieces.
receive_header(Config) ->
    {Peer, Id, _} = connection(Config),
    Frame = iolist_to_binary(link_peer:frame(Id, "hello")),
    Reader = in_process(fun() -> megaphone:recv(Id, 5) end),
    [ok = link_peer:raw(Peer, <<Byte>>) || <<Byte>> <= Frame],
    ?assertEqual({ok, <<"hello">>}, result(Reader)).

%% What is left over of one read begins the next frame.
leftovers(Config) ->
    {Peer, Id, _} = connection(Config),
    Bytes = iolist_to_binary([link_peer:frame(Id, "one"), link_peer:frame(Id, "two"),
                              link_peer:frame(Id, "three")]),
    <<First:50/binary, Second:40/binary, Third/binary>> = Bytes,
    [ok = link_peer:raw(Peer, Part) || Part <- [First, Second, Third]],
    ?assertEqual({ok, <<"onetwothree">>}, megaphone:recv(Id, 11, ?TIMEOUT)).

%% ---- send ----

send_by_id(Config) ->
    {Peer, Id, _} = connection(Config),
    ok = megaphone:send(Id, ["a", [<<"b">> | <<"c">>]]),
    ?assertEqual(<<"abc">>, link_peer:recv(Peer, Id, 3)).

send_by_socket(Config) ->
    {Peer, Id, S} = connection(Config),
    ok = megaphone:send(S, "abc"),
    ?assertEqual(<<"abc">>, link_peer:recv(Peer, Id, 3)).

send_unknown(Config) ->
    ?assertEqual({error, closed}, megaphone:send(4711, "abc")),
    {Peer, Id, S} = connection(Config),
    ok = link_peer:reset(Peer, Id, "client_closed"),
    ok = link_peer:flush(Peer),
    ?assertEqual({error, closed}, megaphone:send(Id, "abc")),
    ?assertEqual({error, closed}, megaphone:send(S, "abc")).

send_blocked_then_timeout(Config) ->
    {_, Id, S} = connection(Config),
    ok = megaphone:setopts(S, [{send_timeout, 30}]),
    ?assertEqual({error, timeout}, megaphone:send(Id, binary:copy(<<"x">>, 1000000))).

%% Many small sends, from many processes: all arrive, each in one piece.
sender_gathers(Config) ->
    Connections = [connection(Config) || _ <- lists:seq(1, 20)],
    Senders = [in_process(fun() ->
                                  [ok = megaphone:send(S, <<N:32>>) || N <- lists:seq(1, 200)], ok
                          end) || {_, _, S} <- Connections],
    [begin
         Expected = << <<N:32>> || N <- lists:seq(1, 200) >>,
         ?assertEqual(Expected, link_peer:recv(Peer, Id, 800))
     end || {Peer, Id, _} <- Connections],
    [ok = result(P) || P <- Senders].

%% ---- the rest, by id and by socket ----

options_and_names(Config) ->
    {_, Id, S} = connection(Config),
    ok = megaphone:setopts(Id, [{packet, 2}]),
    ?assertEqual({ok, [{packet, 2}]}, megaphone:getopts(S, [packet])),
    ?assertEqual({ok, [{packet, 2}]}, megaphone:getopts(Id, [packet])),
    ?assertEqual({ok, {{192, 0, 2, 7}, 40000}}, megaphone:peername(Id)),
    ?assertEqual({ok, {{198, 51, 100, 1}, 5280}}, megaphone:sockname(S)),
    ?assertEqual({ok, {{127, 0, 0, 1}, link_case:port(Config)}},
                 megaphone:sockname(link_case:listen(Config))).

shutdown_and_close(Config) ->
    {Peer, Id, S} = connection(Config),
    ok = megaphone:send(Id, "abc"),
    ok = megaphone:shutdown(Id, write),
    ?assertEqual({<<"abc">>, ended}, link_peer:recv_rest(Peer, Id)),
    ?assertEqual({error, closed}, megaphone:send(S, "x")),
    ok = megaphone:close(Id),
    ok = megaphone:close(Id),
    ok = megaphone:close(S),
    ?assertEqual({error, closed}, megaphone:recv(S, 0, 10)).

ownership(Config) ->
    {_, Id, S} = connection(Config),
    Self = self(),
    Owner = spawn(fun() -> receive stop -> ok end end),
    ?assertEqual({error, not_owner},
                 result(in_process(fun() -> megaphone:controlling_process(Id, self()) end))),
    ok = megaphone:controlling_process(Id, Owner),
    ?assertEqual({error, not_owner}, megaphone:controlling_process(S, Self)),
    Ref = inet:monitor(S),
    Owner ! stop,
    receive {'DOWN', Ref, _, S, _} -> ok after ?TIMEOUT -> error(timeout) end,
    ?assertEqual({error, closed}, megaphone:socket(Id)).

lookups(Config) ->
    {_, Id, S} = connection(Config),
    ?assertEqual({ok, S}, megaphone:socket(Id)),
    ?assertEqual({ok, S}, megaphone:socket(S)),
    ?assertEqual(Id, megaphone:connection_id(S)),
    Self = self(),
    ?assertMatch({ok, #{id := Id, owner := Self, state := open, peer := {{192, 0, 2, 7}, 40000}}},
                 megaphone:info(Id)),
    ok = megaphone:close(S),
    ?assertEqual(Id, megaphone:connection_id(S)),
    ?assertMatch({ok, #{id := Id, state := closed}}, megaphone:info(S)).

links_and_listeners(Config) ->
    {Peer, Id, _} = connection(Config),
    Link = link_case:link_pid(Peer),
    {Link, Info} = lists:keyfind(Link, 1, megaphone:links()),
    ?assertMatch(#{version := 2, connections := 1, peer_name := <<"peer">>}, Info),
    ?assertEqual([Id], megaphone:connections(Link)),
    ?assertEqual({ok, Info#{received => 0, sent => 0}},
                 case megaphone:info(Link) of
                     {ok, Now} -> {ok, Now#{received => 0, sent => 0}}
                 end),
    Port = link_case:port(Config),
    ?assertMatch([_], [L || #{address := {_, P}} = L <- megaphone:listeners(), P =:= Port]),
    ?assertEqual([], megaphone:connections(self())),
    ?assertEqual({error, closed}, megaphone:info(self())).

%% What connections hold is counted, and gone from the count when they are.
memory(Config) ->
    Line = megaphone:memory(),
    Held = held_by_connections(200, 10_000, Config) - Line,
    %% Buffers grow in steps, and a connection is a kilobyte or so besides.
    ?assert(Held >= 200 * 10_000, Held),
    ?assert(Held < 200 * (10_000 + 16_384), Held),
    %% The room for them in the link's table stays: 256 parts, some entries each.
    poll:until(fun() -> abs(megaphone:memory() - Line) < 256 * 256 end).

%% Bytes that the NIF holds while so many connections have so many bytes each that nobody has
%% read. They end before this returns, and nobody has their sockets any more.
held_by_connections(Connections, Bytes, Config) ->
    Peer = peer(Config),
    Self = self(),
    {Pid, Ref} =
        spawn_monitor(
          fun() ->
                  Ids = [begin
                             {Id, _} = open(Config),
                             ok = link_peer:send(Peer, Id, binary:copy(<<"x">>, Bytes)),
                             Id
                         end || _ <- lists:seq(1, Connections)],
                  _ = [poll:until(fun() -> {ok, #{queued := Queued}} = megaphone:info(Id), Queued end, Bytes)
                       || Id <- Ids],
                  Self ! {held, self(), megaphone:memory()},
                  _ = [ok = megaphone:close(Id) || Id <- Ids],
                  _ = [link_peer:outcome(Peer, Id) || Id <- Ids]
          end),
    receive {'DOWN', Ref, process, Pid, Reason} -> ?assertEqual(normal, Reason) end,
    %% The last of a connection goes with the last reference to its socket, garbage though it be.
    _ = [garbage_collect(Process) || Process <- processes()],
    receive {held, Pid, Held} -> Held end.

listen_errors(Config) ->
    ?assertEqual({error, eaddrinuse}, megaphone:listen(link_case:port(Config), [{ip, {127, 0, 0, 1}}])),
    ?assertEqual({error, eaddrnotavail}, megaphone:listen(0, [{ip, {192, 0, 2, 1}}])),
    ?assertMatch({error, _}, megaphone:listen({local, "/nowhere/at/all.sock"}, [])),
    [?assertExit(badarg, megaphone:listen(0, [Option]))
     || Option <- [{window, 0}, {window, x}, {max_frame, -1}, {backlog, 0}, {services, []},
                   {services, [default]}, {idle_timeout, 0}, {version_1, yes}]].

%% As a port: nobody else would close it.
listener_ends_with_its_owner(_Config) ->
    Self = self(),
    {Pid, Ref} = spawn_monitor(fun() ->
                                       {ok, L} = megaphone:listen(0, [{ip, {127, 0, 0, 1}}]),
                                       Self ! {listening, L, inet:port(L)},
                                       receive stop -> ok end
                               end),
    {L, Port} = receive {listening, Listen, {ok, P}} -> {Listen, P} end,
    Peer = link_peer:connect(Port),
    Pid ! stop,
    receive {'DOWN', Ref, _, _, _} -> ok end,
    ?assertEqual(closed, link_peer:link_outcome(Peer)),
    ?assertEqual({error, closed}, gen_tcp:accept(L, ?TIMEOUT)).

format_error(_Config) ->
    [begin
         Text = megaphone:format_error(Reason),
         ?assert(io_lib:printable_unicode_list(Text) andalso length(Text) > 5, {Reason, Text})
     end || Reason <- [closed, timeout, einval, emsgsize, not_owner, nif_not_loaded, system_limit,
                       {http_error, "GET\r\n"}, {something, else}, eaddrinuse]].

wrong_arguments(Config) ->
    {_, _, S} = connection(Config),
    [?assertError(_, Call())
     || Call <- [fun() -> megaphone:recv(foo) end, fun() -> megaphone:recv(S, -1) end,
                 fun() -> megaphone:send(foo, "x") end, fun() -> megaphone:shutdown(S, up) end,
                 fun() -> megaphone:connection_id(foo) end]],
    ?assertEqual({error, einval}, megaphone:send(S, [foo])),
    [?assertEqual({error, closed}, megaphone:socket(Id)) || Id <- [1, (1 bsl 64) - 1]].

%% ---- helpers ----

connection(Config) ->
    {Id, S} = open(Config),
    {peer(Config), Id, S}.

%% A process that waits on the connection as the Nth.
waiting(Id, F, N) ->
    Process = in_process(F),
    until_waiting(Id, N),
    Process.

until_waiting(Id, N) ->
    poll:until(fun() -> {ok, #{waiting := Waiting}} = megaphone:info(Id), Waiting end, N).

%% What erlang:decode_packet(http, ...) makes of a head.
decoded(Head) -> decoded(http, Head).

decoded(Type, Bytes) ->
    case erlang:decode_packet(Type, Bytes, []) of
        {ok, http_eoh, _} -> [http_eoh];
        {ok, Item, Rest} -> [Item | decoded(httph, Rest)]
    end.
