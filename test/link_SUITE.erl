%% The protocol (docs/protocol.md) as a far end sees it that shares no code with us.
-module(link_SUITE).
-compile([export_all, nowarn_export_all]).
-include_lib("stdlib/include/assert.hrl").

-import(link_case, [peer/1, open/1, open/3, works/3]).
-import(socket_pair, [in_process/1, result/1, nothing/1]).

-define(TIMEOUT, 10000).
-define(GOLDEN, "0000000053|00000000000000000024|<body>whatever</body>").

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [golden_frame, v1_open_echo_close, v1_closed_by_peer, v1_byte_by_byte, v1_every_cut,
     v1_many_at_once, v1_ids, v1_address, v1_refused, v1_id_closed_here, v1_slow_reader,
     v1_reader_that_gives_up, v1_idle,
     hello, hello_of_a_later_version, hello_in_pieces, lines_in_one_frame, line_over_frames,
     unknown_key, unknown_verb,
     open_echo_both_ends, open_addresses, close_from_peer, close_drops_what_comes_later,
     reset_from_peer, close_from_here, large_frames, ping_pong, goaway, ack,
     credit_is_kept, credit_is_given_back, slow_reader_delays_nobody, slow_client_delays_nobody,
     reading_goes_on_while_writing_is_blocked, accepted_after_its_end,
     every_byte_its_own, link_end_ends_connections, link_reset_ends_connections,
     receiver_death_takes_down_no_other, unix_socket, handed_over_to_one_that_begins, lookups].

init_per_suite(Config) ->
    {ok, _} = application:ensure_all_started(megaphone),
    Config.

end_per_suite(_Config) -> ok.

init_per_testcase(_, Config) -> link_case:start(Config).
end_per_testcase(_, Config) -> link_case:stop(Config).

%% ---- version 1 ----

%% Byte for byte what the protocol page shows, both ways.
golden_frame(Config) ->
    {ok, Link} = gen_tcp:connect({127, 0, 0, 1}, link_case:port(Config), [binary, {active, false}]),
    ok = gen_tcp:send(Link, ?GOLDEN),
    {ok, S} = accept(Config),
    ?assertEqual(24, megaphone:connection_id(S)),
    ?assertEqual({ok, <<"<body>whatever</body>">>}, gen_tcp:recv(S, 21, ?TIMEOUT)),
    ok = gen_tcp:send(S, <<"<body>whatever</body>">>),
    ?assertEqual({ok, <<?GOLDEN>>}, gen_tcp:recv(Link, 53, ?TIMEOUT)),
    ok = gen_tcp:close(S),
    ?assertEqual({ok, <<"0000000032|00000000000000000024|">>}, gen_tcp:recv(Link, 32, ?TIMEOUT)),
    ok = gen_tcp:close(Link).

v1_open_echo_close(Config) ->
    {Peer, 7, S} = v1(Config, 7, "hello"),
    ?assertEqual({ok, <<"hello">>}, gen_tcp:recv(S, 5, ?TIMEOUT)),
    works(Peer, 7, S),
    ok = gen_tcp:close(S),
    ?assertEqual(ended, link_peer:outcome(Peer, 7)).

v1_closed_by_peer(Config) ->
    {Peer, 7, S} = v1(Config, 7, "hello"),
    ok = link_peer:finish(Peer, 7),
    ?assertEqual({ok, <<"hello">>}, gen_tcp:recv(S, 5, ?TIMEOUT)),
    ok = gen_tcp:send(S, "answer"),
    ?assertEqual(<<"answer">>, link_peer:recv(Peer, 7, 6)),
    ?assertEqual({error, closed}, gen_tcp:recv(S, 0, ?TIMEOUT)),
    ?assertEqual(ended, link_peer:outcome(Peer, 7)),
    %% Its number may be used again: version 1 cannot forbid it.
    ok = link_peer:send(Peer, 7, "again"),
    {ok, S2} = accept(Config),
    ?assertEqual({ok, <<"again">>}, gen_tcp:recv(S2, 5, ?TIMEOUT)).

v1_byte_by_byte(Config) ->
    Peer = link_case:connect(Config, #{version => 1}),
    [ok = link_peer:raw(Peer, <<Byte>>) || Byte <- ?GOLDEN],
    {ok, S} = accept(Config),
    ?assertEqual({ok, <<"<body>whatever</body>">>}, gen_tcp:recv(S, 21, ?TIMEOUT)).

%% The first part alone opens or carries nothing it should not, and the second completes it.
v1_every_cut(Config) ->
    {Peer, 7, S} = v1(Config, 7, "x"),
    {ok, <<"x">>} = gen_tcp:recv(S, 1, ?TIMEOUT),
    Bytes = iolist_to_binary([link_peer:frame(7, "abc"), link_peer:frame(7, "defgh")]),
    [begin
         <<Before:Cut/binary, After/binary>> = Bytes,
         ok = link_peer:raw(Peer, Before),
         Whole = content_within(Cut),
         ?assertEqual({Cut, {ok, Whole}}, {Cut, recv(S, byte_size(Whole))}),
         ok = link_peer:raw(Peer, After),
         Left = 8 - byte_size(Whole),
         Rest = binary:part(<<"abcdefgh">>, byte_size(Whole), Left),
         ?assertEqual({Cut, {ok, Rest}}, {Cut, recv(S, Left)})
     end || Cut <- lists:seq(0, byte_size(Bytes))].

%% Content is handed on as it comes, before its frame is complete.
content_within(Cut) ->
    First = min(3, max(0, Cut - 32)),
    Second = min(5, max(0, Cut - 35 - 32)),
    binary:part(<<"abcdefgh">>, 0, First + Second).

recv(_, 0) -> {ok, <<>>};
recv(S, N) -> gen_tcp:recv(S, N, ?TIMEOUT).

v1_many_at_once(Config) ->
    Peer = link_case:connect(Config, #{version => 1}),
    Ids = lists:seq(1, 300),
    ok = link_peer:raw(Peer, [link_peer:frame(Id, <<Id:64>>) || Id <- Ids]),
    Sockets = [element(2, {ok, _} = accept(Config)) || _ <- Ids],
    ?assertEqual(Ids, [megaphone:connection_id(S) || S <- Sockets]),
    ?assertEqual([{ok, <<Id:64>>} || Id <- Ids], [gen_tcp:recv(S, 8, ?TIMEOUT) || S <- Sockets]),
    [ok = gen_tcp:close(S) || S <- Sockets],
    [ended = link_peer:outcome(Peer, Id) || Id <- Ids].

v1_ids(Config) ->
    [begin
         {Peer, Id, S} = v1(Config, Id, "a"),
         ?assertEqual(Id, megaphone:connection_id(S)),
         works_after(Peer, Id, S, <<"a">>)
     end || Id <- [1, 16#ffffffff, 16#100000000, 16#7fffffffffffffff, 16#8000000000000000,
                   18446744073709551615]].

works_after(Peer, Id, S, First) ->
    {ok, First} = gen_tcp:recv(S, byte_size(First), ?TIMEOUT),
    works(Peer, Id, S).

%% There is nobody to say otherwise: the address is the link's.
v1_address(Config) ->
    {Peer, _, S} = v1(Config, 7, "a"),
    ?assertEqual({ok, link_peer:address(Peer)}, inet:peername(S)),
    ?assertEqual({ok, {{127, 0, 0, 1}, link_case:port(Config)}}, inet:sockname(S)).

v1_refused(Config) ->
    {ok, L} = megaphone:listen(0, [{version_1, false}]),
    {ok, Port} = inet:port(L),
    Peer = link_peer:connect(Port, #{version => 1}),
    ok = link_peer:send(Peer, 7, "hello"),
    ?assertEqual(closed, link_peer:link_outcome(Peer)),
    _ = log_capture:wait(link_case:log(Config), ["version 1", "closed"]),
    ok = gen_tcp:close(L).

%% What still comes for an id that was closed here is dropped until its end, and opens
%% no connection.
v1_id_closed_here(Config) ->
    {Peer, 7, S} = v1(Config, 7, "a"),
    ok = gen_tcp:close(S),
    ended = link_peer:outcome(Peer, 7),
    ok = link_peer:send(Peer, 7, "late"),
    ok = link_peer:finish(Peer, 7),
    ok = link_peer:send(Peer, 7, "new"),
    {ok, S2} = accept(Config),
    ?assertEqual({ok, <<"new">>}, gen_tcp:recv(S2, 3, ?TIMEOUT)),
    ?assertEqual({error, timeout}, gen_tcp:accept(link_case:listen(Config), 0)).

%% Version 1 has no credit: the link stands still for a reader that does not read, and no
%% byte is dropped.
v1_slow_reader(Config) ->
    {Peer, 7, S} = v1(Config, 7, ""),
    Bytes = << <<N:32>> || N <- lists:seq(1, 1000000) >>,
    Writer = in_process(fun() -> link_peer:send(Peer, 7, Bytes) end),
    {ok, Got} = gen_tcp:recv(S, byte_size(Bytes), 30000),
    ?assert(Got =:= Bytes),
    ok = result(Writer).

%% The link goes on when the reader that held it up is gone.
v1_reader_that_gives_up(Config) ->
    [begin
         {Peer, 7, S} = v1(Config, 7, "x"),
         {ok, <<"x">>} = gen_tcp:recv(S, 1, ?TIMEOUT),
         Writer = in_process(fun() ->
                                     Much = lists:duplicate(200, link_peer:frame(7, binary:copy(<<"y">>, 60000))),
                                     ok = link_peer:raw(Peer, Much),
                                     link_peer:send(Peer, 8, "next")
                             end),
         _ = GiveUp(S),
         {ok, S8} = accept(Config),
         ?assertEqual({ok, <<"next">>}, gen_tcp:recv(S8, 4, ?TIMEOUT)),
         ok = result(Writer),
         link_peer:stop(Peer)
     end || GiveUp <- [fun gen_tcp:close/1,
                       fun(S) -> gen_tcp:shutdown(S, read) end,
                       fun(S) -> inet:setopts(S, [{active, true}]) end,
                       fun(S) ->
                               Owner = spawn(fun() -> receive stop -> ok end end),
                               ok = gen_tcp:controlling_process(S, Owner),
                               exit(Owner, kill)
                       end]].

%% There is no other way to learn that a client is gone.
v1_idle(_Config) ->
    {ok, L} = megaphone:listen(0, [{idle_timeout, 1000}]),
    {ok, Port} = inet:port(L),
    Peer = link_peer:connect(Port, #{version => 1}),
    ok = link_peer:send(Peer, 7, "a"),
    {ok, S} = gen_tcp:accept(L, ?TIMEOUT),
    ?assertEqual({ok, <<"a">>}, gen_tcp:recv(S, 1, ?TIMEOUT)),
    ?assertEqual({error, closed}, gen_tcp:recv(S, 1, ?TIMEOUT)),
    ?assertEqual(ended, link_peer:outcome(Peer, 7)),
    %% Version 2 says `close`, so there silence is no end.
    Peer2 = link_peer:connect(Port),
    ok = link_peer:open(Peer2, 7, <<"default">>),
    {ok, S2} = gen_tcp:accept(L, ?TIMEOUT),
    ?assertEqual({error, timeout}, gen_tcp:recv(S2, 1, 2500)),
    ok = gen_tcp:close(L).

%% ---- version 2: the control channel ----

hello(Config) ->
    Peer = link_case:connect(Config, #{name => "edge-7", window => 1234, max_frame => 9999}),
    #{<<"version">> := <<"2">>, <<"nonce">> := Nonce, <<"window">> := Window,
      <<"max_frame">> := MaxFrame, <<"link">> := Link, <<"name">> := Name} = link_peer:hello(Peer),
    ?assertEqual({<<"16384">>, <<"65536">>}, {Window, MaxFrame}),
    ?assert(byte_size(binary:decode_hex(Nonce)) >= 16),
    ?assert(byte_size(Link) > 0 andalso byte_size(Name) > 0),
    Other = link_case:connect(Config),
    #{<<"nonce">> := OtherNonce, <<"link">> := OtherLink} = link_peer:hello(Other),
    ?assert(Nonce =/= OtherNonce andalso Link =/= OtherLink),
    ?assertMatch(#{version := 2, peer_name := <<"edge-7">>, connections := 0},
                 link_case:counters(Peer)),
    _ = log_capture:wait(link_case:log(Config), ["up, version 2", "edge-7"]).

hello_of_a_later_version(Config) ->
    Peer = link_case:connect(Config, #{version => 3}),
    ?assertMatch(#{<<"version">> := <<"2">>}, link_peer:hello(Peer)).

hello_in_pieces(Config) ->
    Peer = link_case:connect(Config, #{handshake => false}),
    [ok = link_peer:raw(Peer, <<Byte>>)
     || <<Byte>> <= iolist_to_binary(link_peer:frame(0, link_peer:hello_line(#{})))],
    <<"hello ", _/binary>> = link_peer:wait_line(Peer, "^hello "),
    {Id, S} = link_case:open(Config, Peer),
    works(Peer, Id, S).

lines_in_one_frame(Config) ->
    Peer = peer(Config),
    ok = link_peer:raw(Peer, link_peer:frame(0, [line(["open 1 service=default ", addresses()]),
                                                 line("ping a"),
                                                 line(["open 2 service=default ", addresses()])])),
    ?assertEqual([1, 2], [begin
                              {ok, S} = accept(Config),
                              megaphone:connection_id(S)
                          end || _ <- [1, 2]]),
    _ = link_peer:wait_line(Peer, "^pong a$").

line_over_frames(Config) ->
    Peer = peer(Config),
    Line = iolist_to_binary(line(["open 1 service=default ", addresses()])),
    ok = link_peer:raw(Peer, [link_peer:frame(0, <<Byte>>) || <<Byte>> <= Line]),
    {ok, S} = accept(Config),
    works(Peer, 1, S).

unknown_key(Config) ->
    Peer = peer(Config),
    ok = link_peer:open(Peer, 1, <<"default">>, [addresses(), " colour=blue tls=TLSv1.3"
                                                 " cipher=TLS_AES_128_GCM_SHA256 sni=example.org"]),
    {ok, S} = accept(Config),
    works(Peer, 1, S).

unknown_verb(Config) ->
    Peer = peer(Config),
    [ok = link_peer:control(Peer, Line) || Line <- ["sing loud", "dance", "open2 1 x=y"]],
    ok = link_peer:flush(Peer),
    ?assertMatch(#{unknown_verbs := 3}, link_case:counters(Peer)),
    link_case:works(Config).

ping_pong(Config) ->
    Peer = peer(Config),
    [begin
         ok = link_peer:control(Peer, ["ping ", Word]),
         ?assertEqual(iolist_to_binary(["pong ", Word]),
                      link_peer:wait_line(Peer, ["^pong ", Word, "$"]))
     end || Word <- ["x", "1234567890", "a-b.c", lists:duplicate(100, $z)]].

goaway(Config) ->
    ok = link_peer:control(peer(Config), "goaway reason=shutdown retry_after=5"),
    ok = link_peer:flush(peer(Config)),
    _ = log_capture:wait(link_case:log(Config), ["goes away", "shutdown"]),
    link_case:undisturbed(Config).

%% It may be said at any time.
ack(Config) ->
    ok = link_peer:control(peer(Config), "ack 0"),
    ok = link_peer:flush(peer(Config)),
    link_case:works(Config).

%% ---- version 2: connections ----

open_echo_both_ends(Config) ->
    Peer = peer(Config),
    {Id, S} = open(Config, Peer, [{exit_on_close, false}]),
    works(Peer, Id, S),
    ok = link_peer:finish(Peer, Id),
    ?assertEqual({error, closed}, gen_tcp:recv(S, 0, ?TIMEOUT)),
    ok = gen_tcp:send(S, "last"),
    ok = gen_tcp:shutdown(S, write),
    ?assertEqual({<<"last">>, ended}, link_peer:recv_rest(Peer, Id)),
    %% Both directions have ended, and with them the connection: no more is said of it.
    ok = gen_tcp:close(S),
    ok = link_peer:flush(Peer),
    ?assertEqual(ended, link_peer:outcome(Peer, Id)),
    ?assertMatch(#{connections := 0}, link_case:counters(Peer)).

open_addresses(Config) ->
    [begin
         ok = link_peer:open(peer(Config), Id, <<"default">>,
                             ["peer=", PeerText, " local=", LocalText]),
         {ok, S} = accept(Config),
         ?assertEqual({{ok, Peer}, {ok, Local}}, {inet:peername(S), inet:sockname(S)})
     end || {Id, PeerText, Peer, LocalText, Local} <-
                [{1, "192.0.2.1:1", {{192, 0, 2, 1}, 1},
                  "198.51.100.2:65535", {{198, 51, 100, 2}, 65535}},
                 {2, "[2001:db8::7]:40000", {{16#2001, 16#db8, 0, 0, 0, 0, 0, 7}, 40000},
                  "[::1]:443", {{0, 0, 0, 0, 0, 0, 0, 1}, 443}}]].

%% What was sent before `close` is still received, then comes the end.
close_from_peer(Config) ->
    Peer = peer(Config),
    {Id, S} = open(Config),
    ok = link_peer:send(Peer, Id, "before"),
    ok = link_peer:close(Peer, Id, "client_closed"),
    ok = link_peer:flush(Peer),
    ?assertEqual({ok, <<"before">>}, gen_tcp:recv(S, 6, ?TIMEOUT)),
    ?assertEqual({error, closed}, gen_tcp:recv(S, 0, ?TIMEOUT)),
    ?assertEqual({error, closed}, gen_tcp:send(S, "x")).

close_drops_what_comes_later(Config) ->
    Peer = peer(Config),
    {Id, S} = open(Config, Peer, [{active, true}]),
    ok = link_peer:close(Peer, Id, "client_closed"),
    ok = link_peer:raw(Peer, link_peer:frame(Id, "late")),
    ok = link_peer:control(Peer, io_lib:format("window ~b 5", [Id])),
    ok = link_peer:flush(Peer),
    receive {tcp_closed, S} -> ok after ?TIMEOUT -> error(timeout) end,
    nothing(S),
    %% Grants cross closes all the time: they do no harm, and are no news.
    ?assertMatch(#{dropped := 1, connections := 0}, link_case:counters(Peer)).

%% Nothing undelivered is delivered any more.
reset_from_peer(Config) ->
    Peer = peer(Config),
    {Id, S} = open(Config),
    ok = link_peer:send(Peer, Id, "before"),
    ok = link_peer:reset(Peer, Id, "client_closed"),
    ok = link_peer:flush(Peer),
    ?assertEqual({error, closed}, gen_tcp:recv(S, 0, ?TIMEOUT)),
    ?assertEqual({error, closed}, gen_tcp:send(S, "x")).

%% The client gets all that was sent, and then is told that it is over.
close_from_here(Config) ->
    Peer = peer(Config),
    {Id, S} = open(Config),
    Bytes = binary:copy(<<"0123456789">>, 30000),
    Writer = in_process(fun() -> ok = gen_tcp:send(S, Bytes), gen_tcp:close(S) end),
    {Got, Outcome} = link_peer:recv_rest(Peer, Id),
    ?assert(Got =:= Bytes),
    ?assertMatch({close, _}, Outcome),
    ok = result(Writer),
    ok = link_peer:flush(Peer),
    ?assertMatch(#{connections := 0}, link_case:counters(Peer)).

%% A peer that takes 4,096 bytes a frame is sent no more; we take the limit we named.
large_frames(Config) ->
    Small = link_case:connect(Config, #{max_frame => 4096, window => 1000000}),
    {Id, S} = link_case:open(Config, Small),
    ok = gen_tcp:send(S, binary:copy(<<"x">>, 500000)),
    _ = link_peer:recv(Small, Id, 500000),
    ?assertEqual(4096, link_peer:longest(Small)),
    {ok, L} = megaphone:listen(0, [{window, 100000}, {max_frame, 100000}]),
    {ok, Port} = inet:port(L),
    Large = link_peer:connect(Port),
    ok = link_peer:open(Large, 5, <<"default">>),
    {ok, S5} = gen_tcp:accept(L, ?TIMEOUT),
    ok = link_peer:raw(Large, link_peer:frame(5, binary:copy(<<"y">>, 100000))),
    ?assertMatch({ok, _}, gen_tcp:recv(S5, 100000, ?TIMEOUT)),
    ok = gen_tcp:close(L).

%% ---- credit ----

%% Not one byte more than the window goes out before the peer has given some back.
credit_is_kept(Config) ->
    Peer = link_case:connect(Config, #{window => 1000}),
    {Id, S} = link_case:open(Config, Peer),
    Writer = in_process(fun() -> gen_tcp:send(S, binary:copy(<<"x">>, 3000)) end),
    ok = link_peer:arrived(Peer, Id, 1000),
    ok = link_peer:flush(Peer),
    ?assertEqual(1000, link_peer:held(Peer, Id)),
    ok = link_peer:control(Peer, io_lib:format("window ~b 500", [Id])),
    ok = link_peer:arrived(Peer, Id, 1500),
    ok = link_peer:flush(Peer),
    ?assertEqual(1500, link_peer:held(Peer, Id)),
    %% Other connections have a window of their own.
    {Id2, S2} = link_case:open(Config, Peer),
    works(Peer, Id2, S2),
    ok = link_peer:control(Peer, io_lib:format("window ~b 1500", [Id])),
    ok = link_peer:arrived(Peer, Id, 3000),
    ok = result(Writer).

%% Credit comes back when the reader has taken bytes, not when they arrive, and not for
%% every frame.
credit_is_given_back(Config) ->
    Peer = peer(Config),
    {Id, S} = open(Config),
    Window = fun() -> [L || <<"window ", _/binary>> = L <- link_peer:lines(Peer)] end,
    ok = link_peer:send(Peer, Id, binary:copy(<<"x">>, 16384)),
    ok = link_peer:flush(Peer),
    ?assertEqual([], Window()),
    {ok, _} = gen_tcp:recv(S, 100, ?TIMEOUT),
    ok = link_peer:flush(Peer),
    ?assertEqual([], Window()),
    {ok, _} = gen_tcp:recv(S, 16284, ?TIMEOUT),
    _ = link_peer:wait_line(Peer, io_lib:format("^window 0*~b ", [Id])),
    ok = link_peer:flush(Peer),
    ?assert(length(Window()) =< 2),
    %% All of it, in the end: as much as was taken can be sent again.
    ?assert(link_peer:credit(Peer, Id) >= 8192),
    ok = link_peer:send(Peer, Id, binary:copy(<<"y">>, 16384)),
    ?assertMatch({ok, _}, gen_tcp:recv(S, 16384, ?TIMEOUT)).

%% One reader that stalls costs its window, and delays no other on the same link.
slow_reader_delays_nobody(Config) ->
    Peer = peer(Config),
    {Slow, S} = open(Config),
    ok = link_peer:send(Peer, Slow, binary:copy(<<"x">>, 1000000)),
    {Fast, S2} = open(Config),
    [works(Peer, Fast, S2) || _ <- lists:seq(1, 100)],
    {ok, #{buffer := Buffer}} = {ok, maps:get(megaphone, inet:info(S))},
    ?assert(Buffer =< 2 * 16384 + 1024),
    ?assertMatch({ok, _}, gen_tcp:recv(S, 1000000, ?TIMEOUT)).

%% A client that takes nothing blocks whoever sends to it, and nobody else.
slow_client_delays_nobody(Config) ->
    Peer = peer(Config),
    {Slow, S} = open(Config),
    Bytes = binary:copy(<<"x">>, 1000000),
    Writer = in_process(fun() -> gen_tcp:send(S, Bytes) end),
    ok = link_peer:arrived(Peer, Slow, 16384),
    {Fast, S2} = open(Config),
    [works(Peer, Fast, S2) || _ <- lists:seq(1, 100)],
    ?assertEqual(16384, link_peer:held(Peer, Slow)),
    ?assert(Bytes =:= link_peer:recv(Peer, Slow, 1000000)),
    ok = result(Writer).

%% A peer that does not read for a while still gets its bytes taken in: else two sides
%% that wait for each other would wait for ever.
reading_goes_on_while_writing_is_blocked(Config) ->
    Peer = link_case:connect(Config, #{window => 100000000}),
    {Id, S} = link_case:open(Config, Peer),
    {Other, OtherSocket} = link_case:open(Config, Peer),
    ok = link_peer:pause(Peer),
    Bytes = binary:copy(<<"0123456789">>, 3000000),
    Writer = in_process(fun() -> gen_tcp:send(S, Bytes) end),
    until_queued(Peer),
    [begin
         ok = link_peer:send(Peer, Other, binary:copy(<<"y">>, 1000)),
         ?assertMatch({ok, _}, gen_tcp:recv(OtherSocket, 1000, ?TIMEOUT))
     end || _ <- lists:seq(1, 16)],
    ok = link_peer:resume(Peer),
    ?assert(Bytes =:= link_peer:recv(Peer, Id, byte_size(Bytes), 30000)),
    ok = result(Writer).

%% Until more waits for the link than the kernel takes.
until_queued(Peer) -> poll:until(fun() -> maps:get(queued, link_case:counters(Peer)) > 1000000 end).

%% As with TCP: what a client sent before it left can still be read.
accepted_after_its_end(Config) ->
    Peer = peer(Config),
    ok = link_peer:open(Peer, 5, <<"default">>),
    ok = link_peer:send(Peer, 5, "hello"),
    ok = link_peer:close(Peer, 5, "client_closed"),
    ok = link_peer:flush(Peer),
    {ok, S} = accept(Config),
    ?assertEqual({ok, <<"hello">>}, gen_tcp:recv(S, 5, ?TIMEOUT)),
    ?assertEqual({error, closed}, gen_tcp:recv(S, 0, ?TIMEOUT)).

%% ---- nobody gets what is another's ----

%% Every byte is stamped with its connection, frames are of any size and in any order,
%% and cut by the kernel as it likes; both directions at once.
every_byte_its_own(Config) ->
    Peer = link_case:connect(Config, #{window => 1000000}),
    Pairs = [link_case:open(Config, Peer) || _ <- lists:seq(1, 50)],
    Size = 20000,
    Readers = [in_process(fun() -> echo(S, Size, stamp(N)) end)
               || {N, {_, S}} <- lists:zip(lists:seq(1, 50), Pairs)],
    [ok = gen_tcp:controlling_process(S, Pid) || {{_, S}, {Pid, _, _}} <- lists:zip(Pairs, Readers)],
    Pieces = lists:sort([{rand:uniform(), N, Id, 1 + rand:uniform(999)}
                         || {N, {Id, _}} <- lists:zip(lists:seq(1, 50), Pairs),
                            _ <- lists:seq(1, 40)]),
    Sent = lists:foldl(
             fun({_, N, Id, Want}, Left) ->
                     Now = min(Want, maps:get(Id, Left)),
                     ok = link_peer:send(Peer, Id, binary:copy(stamp(N), Now)),
                     Left#{Id => maps:get(Id, Left) - Now}
             end, maps:from_list([{Id, Size} || {Id, _} <- Pairs]), Pieces),
    [ok = link_peer:send(Peer, Id, binary:copy(stamp(N), maps:get(Id, Sent)))
     || {N, {Id, _}} <- lists:zip(lists:seq(1, 50), Pairs)],
    [begin
         Expected = binary:copy(stamp(N), Size),
         ?assert(Expected =:= link_peer:recv(Peer, Id, Size))
     end || {N, {Id, _}} <- lists:zip(lists:seq(1, 50), Pairs)],
    [?assertEqual(ok, result(R)) || R <- Readers].

stamp(N) -> <<N>>.

echo(_, 0, _) -> ok;
echo(S, Left, Stamp) ->
    {ok, Bytes} = gen_tcp:recv(S, 0, ?TIMEOUT),
    ?assertEqual(binary:copy(Stamp, byte_size(Bytes)), Bytes),
    ok = gen_tcp:send(S, Bytes),
    echo(S, Left - byte_size(Bytes), Stamp).

%% ---- the end of a link ----

link_end_ends_connections(Config) ->
    Peer = link_case:connect(Config),
    {Id, Passive} = link_case:open(Config, Peer),
    {_, Active} = open(Config, Peer, [{active, true}]),
    {_, Blocked} = link_case:open(Config, Peer),
    Reader = in_process(fun() -> gen_tcp:recv(Blocked, 0) end),
    Writer = in_process(fun() -> gen_tcp:send(Blocked, binary:copy(<<"x">>, 1000000)) end),
    ok = link_peer:send(Peer, Id, "before"),
    ok = link_peer:flush(Peer),
    Pid = link_case:link_pid(Peer),
    Ref = monitor(process, Pid),
    link_peer:stop(Peer),
    ?assertEqual([{error, closed}, {error, closed}], [result(P) || P <- [Reader, Writer]]),
    receive {tcp_closed, Active} -> ok after ?TIMEOUT -> error(timeout) end,
    %% A TCP reset would lose these as well; whoever reads gets the end, and no wait.
    case gen_tcp:recv(Passive, 6, ?TIMEOUT) of
        {ok, <<"before">>} -> {error, closed} = gen_tcp:recv(Passive, 0, ?TIMEOUT);
        {error, closed} -> ok
    end,
    ?assertEqual({error, closed}, gen_tcp:send(Passive, "x")),
    receive {'DOWN', Ref, _, _, _} -> ok after ?TIMEOUT -> error(timeout) end,
    ?assertEqual({error, closed}, megaphone:info(Pid)),
    link_case:undisturbed(Config).

link_reset_ends_connections(Config) ->
    Peer = link_case:connect(Config),
    {_, S} = open(Config, Peer, [{active, true}]),
    ok = link_peer:abort(Peer),
    receive {tcp_closed, S} -> ok after ?TIMEOUT -> error(timeout) end,
    link_case:undisturbed(Config).

receiver_death_takes_down_no_other(Config) ->
    Peer = link_case:connect(Config),
    {_, S} = open(Config, Peer, [{active, true}]),
    exit(link_case:link_pid(Peer), kill),
    receive {tcp_closed, S} -> ok after ?TIMEOUT -> error(timeout) end,
    ?assertEqual(closed, link_peer:link_outcome(Peer)),
    link_case:undisturbed(Config).

unix_socket(_Config) ->
    Path = filename:join("/tmp", "megaphone-" ++ os:getpid() ++ ".sock"),
    {ok, L} = megaphone:listen({local, Path}, []),
    Peer = link_peer:connect({local, Path}),
    ok = link_peer:open(Peer, 9, <<"default">>),
    {ok, S} = gen_tcp:accept(L, ?TIMEOUT),
    works(Peer, 9, S),
    ok = gen_tcp:close(L),
    ?assertEqual({error, closed}, gen_tcp:recv(S, 0, ?TIMEOUT)),
    ?assertMatch({error, _}, file:read_file_info(Path)).

%% A new owner that begins before it was told: what it set stands, and what comes is for it.
handed_over_to_one_that_begins(Config) ->
    {Id, {'$inet', _, Conn} = S} = open(Config),
    Test = self(),
    {ok, false} = megaphone_nif:hand_over(Conn),
    Owner = spawn_link(fun() ->
                               Test ! {set, inet:setopts(S, [{active, true}])},
                               receive {tcp, S, Data} -> Test ! {got, Data} end
                       end),
    receive {set, Result} -> ?assertEqual(ok, Result) end,
    ok = link_peer:send(peer(Config), Id, "early"),
    ok = link_peer:flush(peer(Config)),
    ok = megaphone_nif:set_owner(Conn, Owner, false),
    receive
        {got, <<"early">>} -> ok;
        {tcp, S, _} -> error(for_the_old_owner)
    after ?TIMEOUT -> error(nobody_got_it)
    end.

lookups(Config) ->
    Peer = peer(Config),
    {Id, S} = open(Config),
    ?assertEqual({ok, S}, megaphone:socket(Id)),
    ?assertEqual(Id, megaphone:connection_id(S)),
    Link = link_case:link_pid(Peer),
    ?assertEqual([Id], megaphone:connections(Link)),
    ?assertMatch({ok, #{id := Id}}, megaphone:info(Id)),
    ?assert(lists:keymember(Link, 1, megaphone:links())),
    ok = gen_tcp:close(S),
    {close, _} = link_peer:outcome(Peer, Id),
    ?assertEqual({error, closed}, megaphone:socket(Id)),
    ?assertEqual([], megaphone:connections(Link)).

%% ---- helpers ----

v1(Config, Id, First) ->
    Peer = link_case:connect(Config, #{version => 1}),
    ok = case First of
             "" -> link_peer:raw(Peer, link_peer:head(33, Id)), link_peer:raw(Peer, "x");
             _ -> link_peer:send(Peer, Id, First)
         end,
    {ok, S} = accept(Config),
    _ = First =:= "" andalso ({ok, <<"x">>} = gen_tcp:recv(S, 1, ?TIMEOUT)),
    {Peer, Id, S}.

accept(Config) -> gen_tcp:accept(link_case:listen(Config), ?TIMEOUT).
line(Text) -> link_peer:line(Text).
addresses() -> "peer=192.0.2.7:40000 local=198.51.100.1:5280".
