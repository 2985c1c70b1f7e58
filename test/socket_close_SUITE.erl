%% The end of a connection: half closes, exit_on_close, and the socket afterwards.
-module(socket_close_SUITE).
-include("support/socket_cases.hrl").

cases() ->
    [peer_end_gives_what_came_first, peer_end_in_the_middle_of_a_length,
     peer_end_wakes_recv, peer_end_closes_both_ways, peer_end_before_it_is_read,
     peer_end_kept_open, peer_end_kept_open_active, peer_end_closes_both_ways_active,
     short_read_kept_open,
     shutdown_write, send_after_shutdown, shutdown_write_after_much, shutdown_write_then_peer_end_active,
     shutdown_read, shutdown_read_keeps_what_came, shutdown_read_wakes_recv,
     shutdown_read_kept_open, shutdown_read_active, shutdown_both, shutdown_nonsense,
     both_ends_half_close,
     close_wakes_recv, close_delivers_what_was_sent, close_ends_blocked_send,
     close_by_another_process, close_twice, close_with_unread_bytes,
     after_close, listener_close_keeps_connections,
     peer_reset_passive, peer_reset_wakes_blocked_send, peer_close_ends_sending,
     peer_close_kept_open].

%% ---- the peer ends ----

peer_end_gives_what_came_first(Config) ->
    {C, S} = open(Config),
    socket_pair:send(C, "abcdef"),
    socket_pair:close(C),
    ?assertEqual({ok, <<"abc">>}, gen_tcp:recv(S, 3, ?TIMEOUT)),
    ?assertEqual({ok, <<"def">>}, gen_tcp:recv(S, 3, ?TIMEOUT)),
    ?assertEqual({error, closed}, gen_tcp:recv(S, 0, ?TIMEOUT)),
    assert_closed(gen_tcp:recv(S, 0, ?TIMEOUT)),
    assert_closed(gen_tcp:recv(S, 1, ?TIMEOUT)).

%% gen_tcp keeps no short last piece for a reader that asked for more.
peer_end_in_the_middle_of_a_length(Config) ->
    {C, S} = open(Config),
    socket_pair:send(C, "abc"),
    socket_pair:close(C),
    ?assertEqual({error, closed}, gen_tcp:recv(S, 5, ?TIMEOUT)),
    assert_closed(gen_tcp:recv(S, 0, ?TIMEOUT)).

peer_end_wakes_recv(Config) ->
    {C, S} = open(Config),
    Reader = in_process(fun() -> gen_tcp:recv(S, 0) end),
    socket_pair:finish(C),
    ?assertEqual({error, closed}, result(Reader)).

%% exit_on_close is true by default.
peer_end_closes_both_ways(Config) ->
    {C, S} = open(Config),
    socket_pair:finish(C),
    ?assertEqual({error, closed}, gen_tcp:recv(S, 0, ?TIMEOUT)),
    assert_closed(gen_tcp:send(S, "x")),
    ?assertEqual({error, closed}, socket_pair:recv(C, 1)),
    ?assertEqual(ok, gen_tcp:close(S)).

%% Until the reader comes to the end there is none: an answer can still be sent.
peer_end_before_it_is_read(Config) ->
    {C, S} = open(Config),
    socket_pair:send(C, "question"),
    socket_pair:finish(C),
    ?assertEqual({ok, <<"question">>}, gen_tcp:recv(S, 8, ?TIMEOUT)),
    ?assertEqual(ok, gen_tcp:send(S, "answer")),
    ?assertEqual(<<"answer">>, socket_pair:recv(C, 6)),
    ?assertEqual({error, closed}, gen_tcp:recv(S, 0, ?TIMEOUT)).

peer_end_kept_open(Config) ->
    {C, S} = open(Config, [{exit_on_close, false}]),
    socket_pair:send(C, "question"),
    socket_pair:finish(C),
    ?assertEqual({ok, <<"question">>}, gen_tcp:recv(S, 8, ?TIMEOUT)),
    ?assertEqual({error, closed}, gen_tcp:recv(S, 0, ?TIMEOUT)),
    ?assertEqual({error, closed}, gen_tcp:recv(S, 0, ?TIMEOUT)),
    ?assertEqual({ok, [{active, false}]}, inet:getopts(S, [active])),
    ?assertEqual({ok, socket_pair:address(C)}, inet:peername(S)),
    Answer = binary:copy(<<"answer">>, 50000),
    Writer = in_process(fun() -> gen_tcp:send(S, Answer) end),
    ?assert(Answer =:= socket_pair:recv(C, byte_size(Answer))),
    ok = result(Writer),
    ok = gen_tcp:close(S),
    ?assertEqual(<<>>, socket_pair:rest(C)).

peer_end_kept_open_active(Config) ->
    {C, S} = open(Config, [{exit_on_close, false}, {active, true}]),
    socket_pair:send(C, "question"),
    socket_pair:finish(C),
    ?assertEqual(<<"question">>, collect(S, 8)),
    receive {tcp_closed, S} -> ok after ?TIMEOUT -> error(timeout) end,
    ok = inet:setopts(S, [{active, false}]),
    ?assertEqual({error, closed}, gen_tcp:recv(S, 0, ?TIMEOUT)),
    ok = gen_tcp:send(S, "answer"),
    ?assertEqual(<<"answer">>, socket_pair:recv(C, 6)),
    ok = gen_tcp:shutdown(S, write),
    ?assertEqual(<<>>, socket_pair:rest(C)),
    ?assertEqual(ok, gen_tcp:close(S)),
    nothing(S).

peer_end_closes_both_ways_active(Config) ->
    {C, S} = open(Config, [{active, true}]),
    socket_pair:finish(C),
    receive {tcp_closed, S} -> ok after ?TIMEOUT -> error(timeout) end,
    ?assertEqual({error, closed}, gen_tcp:send(S, "x")),
    ?assertEqual(<<>>, socket_pair:rest(C)).

short_read_kept_open(Config) ->
    {C, S} = open(Config, [{exit_on_close, false}]),
    socket_pair:send(C, "abc"),
    socket_pair:finish(C),
    ?assertEqual({error, closed}, gen_tcp:recv(S, 5, ?TIMEOUT)),
    ?assertEqual({error, closed}, gen_tcp:recv(S, 0, ?TIMEOUT)),
    ok = gen_tcp:send(S, "x"),
    ?assertEqual(<<"x">>, socket_pair:recv(C, 1)).

%% ---- we shut down ----

shutdown_write(Config) ->
    {C, S} = open(Config),
    ok = gen_tcp:send(S, "abc"),
    ?assertEqual(ok, gen_tcp:shutdown(S, write)),
    ?assertEqual(<<"abc">>, socket_pair:rest(C)),
    Bytes = binary:copy(<<"0123456789">>, 10000),
    Writer = in_process(fun() -> socket_pair:send(C, Bytes), socket_pair:finish(C) end),
    {ok, Got} = gen_tcp:recv(S, 100000, ?TIMEOUT),
    ?assert(Got =:= Bytes),
    ok = result(Writer),
    ?assertEqual({error, closed}, gen_tcp:recv(S, 0, ?TIMEOUT)).

send_after_shutdown(Config) ->
    {C, S} = open(Config),
    ok = gen_tcp:shutdown(S, write),
    ?assertEqual({error, closed}, gen_tcp:send(S, "x")),
    ?assertEqual(<<>>, socket_pair:rest(C)).

%% The end does not overtake what was sent before it.
shutdown_write_after_much(Config) ->
    {C, S} = open(Config),
    Bytes = binary:copy(<<"0123456789">>, 200000),
    Writer = in_process(fun() ->
                                ok = gen_tcp:send(S, Bytes),
                                gen_tcp:shutdown(S, write)
                        end),
    ?assert(Bytes =:= socket_pair:rest(C)),
    ok = result(Writer).

shutdown_write_then_peer_end_active(Config) ->
    {C, S} = open(Config, [{active, true}]),
    ok = gen_tcp:shutdown(S, write),
    socket_pair:send(C, "abc"),
    socket_pair:finish(C),
    ?assertEqual(<<"abc">>, collect(S, 3)),
    receive {tcp_closed, S} -> ok after ?TIMEOUT -> error(timeout) end,
    nothing(S).

shutdown_read(Config) ->
    {C, S} = open(Config),
    ?assertEqual(ok, gen_tcp:shutdown(S, read)),
    ?assertEqual({error, closed}, gen_tcp:recv(S, 0, ?TIMEOUT)),
    %% exit_on_close: the end of reading, once read, ends all.
    assert_closed(gen_tcp:send(S, "x")),
    ?assertEqual(<<>>, socket_pair:rest(C)).

shutdown_read_keeps_what_came(Config) ->
    {C, S} = open(Config),
    socket_pair:send(C, "abcd"),
    {ok, <<"a">>} = gen_tcp:recv(S, 1, ?TIMEOUT),
    ok = gen_tcp:unrecv(S, <<"a">>),
    ok = gen_tcp:shutdown(S, read),
    ?assertEqual({ok, <<"a">>}, gen_tcp:recv(S, 1, ?TIMEOUT)),
    {ok, <<"bcd">>} = gen_tcp:recv(S, 3, ?TIMEOUT),
    ?assertEqual({error, closed}, gen_tcp:recv(S, 0, ?TIMEOUT)).

shutdown_read_wakes_recv(Config) ->
    {_, S} = open(Config),
    Reader = in_process(fun() -> gen_tcp:recv(S, 0, ?TIMEOUT) end),
    ok = gen_tcp:shutdown(S, read),
    ?assertEqual({error, closed}, result(Reader)).

shutdown_read_kept_open(Config) ->
    {C, S} = open(Config, [{exit_on_close, false}]),
    ok = gen_tcp:shutdown(S, read),
    ?assertEqual({error, closed}, gen_tcp:recv(S, 0, ?TIMEOUT)),
    ok = gen_tcp:send(S, "abc"),
    ?assertEqual(<<"abc">>, socket_pair:recv(C, 3)),
    ?assertEqual({error, closed}, gen_tcp:recv(S, 0, ?TIMEOUT)).

shutdown_read_active(Config) ->
    {_, S} = open(Config, [{active, true}]),
    ok = gen_tcp:shutdown(S, read),
    receive {tcp_closed, S} -> ok after ?TIMEOUT -> error(timeout) end,
    nothing(S).

shutdown_both(Config) ->
    {C, S} = open(Config),
    ok = gen_tcp:send(S, "abc"),
    ?assertEqual(ok, gen_tcp:shutdown(S, read_write)),
    ?assertEqual(<<"abc">>, socket_pair:rest(C)),
    ?assertEqual({error, closed}, gen_tcp:send(S, "x")),
    ?assertEqual({error, closed}, gen_tcp:recv(S, 0, ?TIMEOUT)),
    ?assertEqual(ok, gen_tcp:close(S)).

shutdown_nonsense(Config) ->
    {_, S} = open(Config),
    [?assertError(_, gen_tcp:shutdown(S, How)) || How <- [both, 1, "read", {read}]],
    ?assertEqual({error, timeout}, gen_tcp:recv(S, 0, 1)).

both_ends_half_close(Config) ->
    {C, S} = open(Config, [{exit_on_close, false}]),
    socket_pair:finish(C),
    ?assertEqual({error, closed}, gen_tcp:recv(S, 0, ?TIMEOUT)),
    ?assertEqual(ok, gen_tcp:shutdown(S, write)),
    ?assertEqual(<<>>, socket_pair:rest(C)),
    ?assertEqual({error, closed}, gen_tcp:recv(S, 0, ?TIMEOUT)),
    ?assertEqual({error, closed}, gen_tcp:send(S, "x")),
    ?assertEqual(ok, gen_tcp:close(S)).

%% ---- we close ----

close_wakes_recv(Config) ->
    {_, S} = open(Config),
    Reader = in_process(fun() -> gen_tcp:recv(S, 10) end),
    ok = until_waiting(Reader),
    ok = gen_tcp:close(S),
    ?assertEqual({error, closed}, result(Reader)).

close_delivers_what_was_sent(Config) ->
    {C, S} = open(Config),
    Bytes = binary:copy(<<"0123456789">>, 200000),
    Writer = in_process(fun() -> ok = gen_tcp:send(S, Bytes), gen_tcp:close(S) end),
    ?assert(Bytes =:= socket_pair:rest(C)),
    ok = result(Writer).

%% gen_tcp:close of a real socket waits for a blocked send of another process, for
%% ever if the peer never reads: here the peer reads.
close_ends_blocked_send(Config) ->
    {C, S} = open(Config),
    Bytes = binary:copy(<<"0123456789">>, 20000),
    Writer = in_process(fun() -> send_until_error(S, Bytes) end),
    <<"0123456789">> = socket_pair:recv(C, 10),
    Closer = in_process(fun() -> gen_tcp:close(S) end),
    _ = socket_pair:rest(C),
    ok = result(Closer),
    %% A port that closes under a call can also be no port any more.
    Ends = [{error, closed} | [{error, einval} || not socket_pair:virtual(Config)]],
    Ended = result(Writer),
    ?assert(lists:member(Ended, Ends), Ended).

close_by_another_process(Config) ->
    {C, S} = open(Config),
    ok = result(in_process(fun() -> gen_tcp:close(S) end)),
    ?assertEqual(<<>>, socket_pair:rest(C)),
    ?assertEqual({error, closed}, gen_tcp:send(S, "x")).

close_twice(Config) ->
    {_, S} = open(Config),
    ?assertEqual(ok, gen_tcp:close(S)),
    ?assertEqual(ok, gen_tcp:close(S)),
    ?assertEqual(ok, result(in_process(fun() -> gen_tcp:close(S) end))).

%% They are gone, and nobody else is given them.
close_with_unread_bytes(Config) ->
    {C, S} = open(Config, [{packet, 1}]),
    socket_pair:send(C, [1, "a", 1, "b"]),
    {ok, <<"a">>} = gen_tcp:recv(S, 0, ?TIMEOUT),
    ok = gen_tcp:close(S),
    ?assertEqual({error, closed}, gen_tcp:recv(S, 0, ?TIMEOUT)),
    {C2, S2} = open(Config),
    socket_pair:send(C2, "z"),
    ?assertEqual({ok, <<"z">>}, gen_tcp:recv(S2, 0, ?TIMEOUT)).

after_close(Config) ->
    {_, S} = open(Config),
    ok = gen_tcp:close(S),
    [?assertEqual({error, closed}, Result)
     || Result <- [gen_tcp:send(S, "x"), gen_tcp:recv(S, 0), gen_tcp:recv(S, 3, 10),
                   gen_tcp:unrecv(S, "x"), gen_tcp:shutdown(S, write),
                   gen_tcp:shutdown(S, read_write),
                   gen_tcp:controlling_process(S, self())]],
    [?assertEqual({error, einval}, Result)
     || Result <- [inet:getopts(S, [active]), inet:setopts(S, [{active, true}]),
                   inet:peername(S), inet:sockname(S), inet:socknames(S), inet:port(S),
                   inet:getstat(S)]].

listener_close_keeps_connections(Config) ->
    {C, S} = open(Config),
    case virtual(Config) of
        false -> ok = gen_tcp:close(listener(Config));
        true -> ok  % a link listener takes its links along
    end,
    ok = gen_tcp:send(S, "x"),
    ?assertEqual(<<"x">>, socket_pair:recv(C, 1)).

%% ---- the peer is gone ----

peer_reset_passive(Config) ->
    {C, S} = open(Config),
    socket_pair:reset(C),
    ?assertEqual({error, closed}, gen_tcp:recv(S, 0, ?TIMEOUT)),
    assert_closed(gen_tcp:send(S, "x")),
    assert_closed(gen_tcp:recv(S, 0, ?TIMEOUT)).

peer_reset_wakes_blocked_send(Config) ->
    {C, S} = open(Config),
    Bytes = binary:copy(<<"0123456789">>, 20000),
    Writer = in_process(fun() -> send_until_error(S, Bytes) end),
    <<"0123456789">> = socket_pair:recv(C, 10),
    socket_pair:reset(C),
    ?assertEqual({error, closed}, result(Writer)).

%% A client that closed refuses what it is sent; the sender hears of it.
peer_close_ends_sending(Config) ->
    {C, S} = open(Config, [{exit_on_close, false}]),
    socket_pair:close(C),
    ?assertEqual({error, closed}, send_until_error(S)).

peer_close_kept_open(Config) ->
    {C, S} = open(Config, [{exit_on_close, false}, {active, true}]),
    socket_pair:close(C),
    receive {tcp_closed, S} -> ok after ?TIMEOUT -> error(timeout) end,
    ?assertEqual({error, closed}, send_until_error(S)),
    nothing(S),
    ?assertEqual({ok, [{active, true}]}, inet:getopts(S, [active])),
    ?assertEqual(ok, gen_tcp:close(S)).

send_until_error(S) -> send_until_error(S, <<"x">>).

send_until_error(S, Bytes) ->
    case gen_tcp:send(S, Bytes) of
        ok -> erlang:yield(), send_until_error(S, Bytes);
        Error -> Error
    end.
