%% {packet, raw | 0 | 1 | 2 | 4 | line}, both ways, and packet_size.
-module(socket_packet_SUITE).
-include("support/socket_cases.hrl").

cases() ->
    [send_puts_a_length, send_other_modes, send_too_long, send_one_packet_from_many,
     receive_length_prefixed, receive_byte_by_byte, receive_every_cut, receive_empty,
     receive_beyond_the_window, receive_active, recv_of_a_length,
     part_of_a_packet_then_end, part_of_a_packet_then_end_active,
     size_limit, size_limit_active, size_limit_once, size_limit_kept_open, size_limit_not_raw,
     size_limit_not_sent, length_beyond_all_limits,
     line, line_active, line_longer_than_buffer, line_of_default_buffer,
     line_with_large_recbuf, line_size_limit, line_size_limit_exact, line_delimiter,
     line_without_end_then_closed, lines_by_the_thousand,
     switch_with_bytes_queued, switch_while_active, switch_while_recv_waits,
     unrecv_and_packets].

%% ---- sending ----

send_puts_a_length(Config) ->
    {C, S} = open(Config),
    [begin
         ok = inet:setopts(S, [{packet, Mode}]),
         ok = gen_tcp:send(S, ["ab", <<"c">>]),
         ?assertEqual(Bytes, socket_pair:recv(C, byte_size(Bytes))),
         ok = gen_tcp:send(S, []),
         ?assertEqual(Empty, socket_pair:recv(C, byte_size(Empty)))
     end || {Mode, Bytes, Empty} <- [{1, <<3, "abc">>, <<0>>}, {2, <<0, 3, "abc">>, <<0, 0>>},
                                     {4, <<0, 0, 0, 3, "abc">>, <<0, 0, 0, 0>>}]],
    ok = inet:setopts(S, [{packet, 1}]),
    Longest = binary:copy(<<"x">>, 255),
    ok = gen_tcp:send(S, Longest),
    ?assertEqual(<<255, Longest/binary>>, socket_pair:recv(C, 256)),
    ok = inet:setopts(S, [{packet, 2}]),
    Long = binary:copy(<<"y">>, 65535),
    Writer = in_process(fun() -> gen_tcp:send(S, Long) end),
    ?assert(<<65535:16, Long/binary>> =:= socket_pair:recv(C, 65537)),
    ok = result(Writer).

send_other_modes(Config) ->
    {C, S} = open(Config),
    [begin
         ok = inet:setopts(S, [{packet, Mode}]),
         ok = gen_tcp:send(S, "abc\nd"),
         ?assertEqual(<<"abc\nd">>, socket_pair:recv(C, 5))
     end || Mode <- [raw, 0, line, http, http_bin, httph, httph_bin]].

%% gen_tcp's inet backend sends a length that is wrong, which nobody could want. Its
%% socket backend and megaphone refuse, and send nothing.
send_too_long(Config) ->
    case virtual(Config) of
        false -> ok;
        true ->
            {C, S} = open(Config),
            [begin
                 ok = inet:setopts(S, [{packet, Mode}]),
                 ?assertEqual({error, emsgsize}, gen_tcp:send(S, binary:copy(<<"x">>, Size)))
             end || {Mode, Size} <- [{1, 256}, {2, 65536}]],
            ok = inet:setopts(S, [{packet, 0}]),
            ok = gen_tcp:send(S, "z"),
            ?assertEqual(<<"z">>, socket_pair:recv(C, 1))
    end.

send_one_packet_from_many(Config) ->
    {C, S} = open(Config, [{packet, 2}]),
    Writers = [in_process(fun() ->
                                  [ok = gen_tcp:send(S, [N, binary:copy(<<N>>, N * 100)])
                                   || _ <- lists:seq(1, 30)], ok
                          end) || N <- lists:seq(1, 8)],
    [begin
         <<Size:16>> = socket_pair:recv(C, 2),
         <<N, _/binary>> = Packet = socket_pair:recv(C, Size),
         ?assertEqual(binary:copy(<<N>>, N * 100 + 1), Packet)
     end || _ <- lists:seq(1, 8 * 30)],
    [ok = result(W) || W <- Writers].

%% ---- receiving ----

receive_length_prefixed(Config) ->
    {C, S} = open(Config),
    [begin
         ok = inet:setopts(S, [{packet, Mode}]),
         socket_pair:send(C, [<<1:Bits>>, "a", <<3:Bits>>, "bcd", <<200:Bits>>,
                              binary:copy(<<"e">>, 200)]),
         ?assertEqual({ok, <<"a">>}, gen_tcp:recv(S, 0, ?TIMEOUT)),
         ?assertEqual({ok, <<"bcd">>}, gen_tcp:recv(S, 0, ?TIMEOUT)),
         ?assertEqual({ok, binary:copy(<<"e">>, 200)}, gen_tcp:recv(S, 0, ?TIMEOUT))
     end || {Mode, Bits} <- [{1, 8}, {2, 16}, {4, 32}]].

receive_byte_by_byte(Config) ->
    {C, S} = open(Config),
    [begin
         ok = inet:setopts(S, [{packet, Mode}]),
         Reader = in_process(fun() -> [gen_tcp:recv(S, 0, ?TIMEOUT) || _ <- [1, 2]] end),
         [socket_pair:send(C, <<Byte>>) || <<Byte>> <= Bytes],
         ?assertEqual({Mode, [{ok, First}, {ok, Second}]}, {Mode, result(Reader)})
     end || {Mode, Bytes, First, Second} <-
                [{1, <<3, "abc", 1, "d">>, <<"abc">>, <<"d">>},
                 {2, <<0, 3, "abc", 0, 1, "d">>, <<"abc">>, <<"d">>},
                 {4, <<0, 0, 0, 3, "abc", 0, 0, 0, 1, "d">>, <<"abc">>, <<"d">>},
                 {line, <<"abc\r\nd\n">>, <<"abc\r\n">>, <<"d\n">>}]].

%% The first part arrives, is not enough, and the rest completes it.
receive_every_cut(Config) ->
    {C, S} = open(Config),
    [[begin
          ok = inet:setopts(S, [{packet, Mode}]),
          <<Before:Cut/binary, After/binary>> = Bytes,
          socket_pair:send(C, Before),
          ?assertEqual({error, timeout}, gen_tcp:recv(S, 0, 5)),
          socket_pair:send(C, After),
          ?assertEqual({Mode, Cut, {ok, Packet}}, {Mode, Cut, gen_tcp:recv(S, 0, ?TIMEOUT)})
      end || Cut <- lists:seq(1, byte_size(Bytes) - 1)]
     || {Mode, Bytes, Packet} <- [{1, <<4, "abcd">>, <<"abcd">>},
                                  {2, <<0, 4, "abcd">>, <<"abcd">>},
                                  {4, <<0, 0, 0, 4, "abcd">>, <<"abcd">>},
                                  {line, <<"abcd\n">>, <<"abcd\n">>}]].

receive_empty(Config) ->
    {C, S} = open(Config, [{packet, 2}]),
    socket_pair:send(C, [0, 0, 0, 1, "x", 0, 0]),
    ?assertEqual([{ok, <<>>}, {ok, <<"x">>}, {ok, <<>>}],
                 [gen_tcp:recv(S, 0, ?TIMEOUT) || _ <- [1, 2, 3]]),
    ok = inet:setopts(S, [{active, true}]),
    socket_pair:send(C, [0, 0]),
    receive {tcp, S, <<>>} -> ok after ?TIMEOUT -> error(timeout) end.

%% A packet larger than all credit there is at first.
receive_beyond_the_window(Config) ->
    {C, S} = open(Config, [{packet, 4}]),
    Bytes = binary:copy(<<"0123456789">>, 100000),
    Writer = in_process(fun() -> socket_pair:send(C, [<<1000000:32>>, Bytes, <<1:32>>, "z"]) end),
    {ok, Got} = gen_tcp:recv(S, 0, ?TIMEOUT),
    ?assert(Got =:= Bytes),
    ?assertEqual({ok, <<"z">>}, gen_tcp:recv(S, 0, ?TIMEOUT)),
    ok = result(Writer).

receive_active(Config) ->
    {C, S} = open(Config, [{packet, 4}, {active, true}]),
    Packets = [binary:copy(<<N>>, N * 7) || N <- lists:seq(1, 200)],
    Writer = in_process(
               fun() -> socket_pair:send(C, [[<<(byte_size(P)):32>>, P] || P <- Packets]) end),
    [receive {tcp, S, Got} -> ?assertEqual(P, Got) after ?TIMEOUT -> error(timeout) end
     || P <- Packets],
    ok = result(Writer).

%% A length is for raw mode only.
recv_of_a_length(Config) ->
    {C, S} = open(Config),
    socket_pair:send(C, [1, "a"]),
    [begin
         ok = inet:setopts(S, [{packet, Mode}]),
         ?assertEqual({Mode, {error, einval}}, {Mode, gen_tcp:recv(S, 2, 100)})
     end || Mode <- [2, 4, line, http, httph_bin, 1]],
    ?assertEqual({ok, <<"a">>}, gen_tcp:recv(S, 0, ?TIMEOUT)).

part_of_a_packet_then_end(Config) ->
    {C, S} = open(Config, [{packet, 2}]),
    socket_pair:send(C, [0, 1, "a", 0, 5, "bc"]),
    socket_pair:close(C),
    ?assertEqual({ok, <<"a">>}, gen_tcp:recv(S, 0, ?TIMEOUT)),
    ?assertEqual({error, closed}, gen_tcp:recv(S, 0, ?TIMEOUT)).

part_of_a_packet_then_end_active(Config) ->
    {C, S} = open(Config, [{packet, 4}, {active, true}]),
    socket_pair:send(C, [0, 0, 0, 3, "ab"]),
    socket_pair:close(C),
    receive {tcp_closed, S} -> ok after ?TIMEOUT -> error(timeout) end,
    nothing(S).

%% ---- packet_size ----

size_limit(Config) ->
    [begin
         {C, S} = open(Config, [{packet, Mode}, {packet_size, 5}]),
         socket_pair:send(C, [<<5:Bits>>, "abcde", <<6:Bits>>, "abcdef"]),
         ?assertEqual({ok, <<"abcde">>}, gen_tcp:recv(S, 0, ?TIMEOUT)),
         ?assertEqual({error, emsgsize}, gen_tcp:recv(S, 0, ?TIMEOUT)),
         assert_closed(gen_tcp:recv(S, 0, ?TIMEOUT)),
         assert_closed(gen_tcp:send(S, "x"))
     end || {Mode, Bits} <- [{1, 8}, {2, 16}, {4, 32}]].

size_limit_active(Config) ->
    {C, S} = open(Config, [{packet, 2}, {packet_size, 5}, {active, true}]),
    socket_pair:send(C, [0, 6, "abcdef"]),
    too_big(S),
    ?assertEqual({error, closed}, gen_tcp:send(S, "x")),
    ?assertEqual(<<>>, socket_pair:rest(C)).

size_limit_once(Config) ->
    {C, S} = open(Config, [{packet, 2}, {packet_size, 5}]),
    socket_pair:send(C, [0, 6, "abcdef"]),
    ok = inet:setopts(S, [{active, once}]),
    too_big(S).

size_limit_kept_open(Config) ->
    {C, S} = open(Config, [{packet, 2}, {packet_size, 5}, {active, true},
                           {exit_on_close, false}]),
    socket_pair:send(C, [0, 6, "abcdef"]),
    too_big(S),
    ?assertEqual(ok, gen_tcp:send(S, "x")),
    ?assertEqual(<<0, 1, "x">>, socket_pair:recv(C, 3)).

size_limit_not_raw(Config) ->
    {C, S} = open(Config, [{packet_size, 5}]),
    socket_pair:send(C, "abcdefghij"),
    ?assertEqual({ok, <<"abcdefghij">>}, gen_tcp:recv(S, 10, ?TIMEOUT)).

size_limit_not_sent(Config) ->
    {C, S} = open(Config, [{packet, 4}, {packet_size, 5}]),
    ok = gen_tcp:send(S, "abcdefgh"),
    ?assertEqual(<<8:32, "abcdefgh">>, socket_pair:recv(C, 12)).

%% A length that no memory could hold is refused before anything is kept for it.
length_beyond_all_limits(Config) ->
    [begin
         {C, S} = open(Config, [{packet, 4}]),
         socket_pair:send(C, <<Length:32>>),
         ?assertEqual({error, emsgsize}, gen_tcp:recv(S, 0, ?TIMEOUT))
     end || Length <- [16#7fffffff, 16#ffffffff]].

%% ---- line ----

line(Config) ->
    {C, S} = open(Config, [{packet, line}]),
    socket_pair:send(C, "abc\r\n\n\r\nd\re\n"),
    ?assertEqual([{ok, <<"abc\r\n">>}, {ok, <<"\n">>}, {ok, <<"\r\n">>}, {ok, <<"d\re\n">>}],
                 [gen_tcp:recv(S, 0, ?TIMEOUT) || _ <- lists:seq(1, 4)]).

line_active(Config) ->
    {C, S} = open(Config, [{packet, line}, {active, true}]),
    socket_pair:send(C, "abc\ndef\ngh"),
    [receive {tcp, S, Line} -> ok after ?TIMEOUT -> error(timeout) end
     || Line <- [<<"abc\n">>, <<"def\n">>]],
    nothing(S),
    socket_pair:send(C, "i\n"),
    receive {tcp, S, <<"ghi\n">>} -> ok after ?TIMEOUT -> error(timeout) end.

%% A line that does not fit into `buffer` comes in pieces of that size.
line_longer_than_buffer(Config) ->
    {C, S} = open(Config, [{packet, line}, {buffer, 8}]),
    socket_pair:send(C, "0123456789abcdefghi\nxy\n"),
    ?assertEqual([{ok, <<"01234567">>}, {ok, <<"89abcdef">>}, {ok, <<"ghi\n">>},
                  {ok, <<"xy\n">>}],
                 [gen_tcp:recv(S, 0, ?TIMEOUT) || _ <- lists:seq(1, 4)]).

line_of_default_buffer(Config) ->
    {C, S} = open(Config, [{packet, line}]),
    {ok, [{buffer, Buffer}]} = inet:getopts(S, [buffer]),
    Line = [binary:copy(<<"x">>, Buffer * 3), "\n"],
    Writer = in_process(fun() -> socket_pair:send(C, Line) end),
    ?assertEqual([Buffer, Buffer, Buffer, 1],
                 [byte_size(element(2, {ok, _} = gen_tcp:recv(S, 0, ?TIMEOUT)))
                  || _ <- lists:seq(1, 4)]),
    ok = result(Writer).

line_with_large_recbuf(Config) ->
    {C, S} = open(Config, [{packet, line}, {recbuf, 65536}]),
    Line = <<(binary:copy(<<"x">>, 30000))/binary, "\n">>,
    Writer = in_process(fun() -> socket_pair:send(C, Line) end),
    ?assertEqual({ok, Line}, gen_tcp:recv(S, 0, ?TIMEOUT)),
    ok = result(Writer).

line_size_limit(Config) ->
    {C, S} = open(Config, [{packet, line}, {packet_size, 8}]),
    socket_pair:send(C, "0123456789abcdefghi\nxy\n"),
    ?assertEqual({error, emsgsize}, gen_tcp:recv(S, 0, ?TIMEOUT)),
    assert_closed(gen_tcp:recv(S, 0, ?TIMEOUT)).

%% The line's end counts.
line_size_limit_exact(Config) ->
    {C, S} = open(Config, [{packet, line}, {packet_size, 8}]),
    socket_pair:send(C, "0123456\n01234567\n"),
    ?assertEqual({ok, <<"0123456\n">>}, gen_tcp:recv(S, 0, ?TIMEOUT)),
    ?assertEqual({error, emsgsize}, gen_tcp:recv(S, 0, ?TIMEOUT)).

line_delimiter(Config) ->
    {C, S} = open(Config, [{packet, line}, {line_delimiter, $;}]),
    socket_pair:send(C, "a;b\n;"),
    ?assertEqual([{ok, <<"a;">>}, {ok, <<"b\n;">>}],
                 [gen_tcp:recv(S, 0, ?TIMEOUT) || _ <- [1, 2]]).

line_without_end_then_closed(Config) ->
    {C, S} = open(Config, [{packet, line}, {active, true}]),
    socket_pair:send(C, "abc\ndef"),
    socket_pair:close(C),
    receive {tcp, S, <<"abc\n">>} -> ok after ?TIMEOUT -> error(timeout) end,
    receive {tcp_closed, S} -> ok after ?TIMEOUT -> error(timeout) end,
    nothing(S).

lines_by_the_thousand(Config) ->
    {C, S} = open(Config, [{packet, line}, {active, once}]),
    Lines = [<<(integer_to_binary(N * N))/binary, "\n">> || N <- lists:seq(1, 5000)],
    Writer = in_process(fun() -> socket_pair:send(C, Lines) end),
    [receive
         {tcp, S, Got} ->
             ?assertEqual(Line, Got),
             ok = inet:setopts(S, [{active, once}])
     after ?TIMEOUT -> error(timeout)
     end || Line <- Lines],
    ok = result(Writer).

%% ---- changes of mode ----

switch_with_bytes_queued(Config) ->
    {C, S} = open(Config, [{packet, 2}]),
    socket_pair:send(C, [0, 3, "abcraw\nzz", 2, "yy"]),
    ?assertEqual({ok, <<"abc">>}, gen_tcp:recv(S, 0, ?TIMEOUT)),
    ok = inet:setopts(S, [{packet, raw}]),
    ?assertEqual({ok, <<"ra">>}, gen_tcp:recv(S, 2, ?TIMEOUT)),
    ok = inet:setopts(S, [{packet, line}]),
    ?assertEqual({ok, <<"w\n">>}, gen_tcp:recv(S, 0, ?TIMEOUT)),
    ok = inet:setopts(S, [{packet, 0}]),
    ?assertEqual({ok, <<"zz">>}, gen_tcp:recv(S, 2, ?TIMEOUT)),
    ok = inet:setopts(S, [{packet, 1}]),
    ?assertEqual({ok, <<"yy">>}, gen_tcp:recv(S, 0, ?TIMEOUT)).

switch_while_active(Config) ->
    {C, S} = open(Config, [{packet, line}, {active, once}]),
    socket_pair:send(C, "head\nbody"),
    receive {tcp, S, <<"head\n">>} -> ok after ?TIMEOUT -> error(timeout) end,
    ok = inet:setopts(S, [{packet, raw}, {active, true}]),
    ?assertEqual(<<"body">>, collect(S, 4)).

%% A reader that waits for a packet sees the mode it began with, or the new one; the
%% bytes are not lost either way.
switch_while_recv_waits(Config) ->
    {C, S} = open(Config, [{packet, 1}]),
    ?assertEqual({error, timeout}, gen_tcp:recv(S, 0, 5)),
    socket_pair:send(C, [3, "ab"]),
    ?assertEqual({error, timeout}, gen_tcp:recv(S, 0, 5)),
    ok = inet:setopts(S, [{packet, raw}]),
    ?assertEqual({ok, <<3, "ab">>}, gen_tcp:recv(S, 3, ?TIMEOUT)).

unrecv_and_packets(Config) ->
    {C, S} = open(Config, [{packet, 1}]),
    socket_pair:send(C, ["bc", 1, "z"]),
    ok = gen_tcp:unrecv(S, [3, "a"]),
    ?assertEqual({ok, <<"abc">>}, gen_tcp:recv(S, 0, ?TIMEOUT)),
    ?assertEqual({ok, <<"z">>}, gen_tcp:recv(S, 0, ?TIMEOUT)).

%% ---- helpers ----

too_big(S) ->
    receive {tcp_error, S, emsgsize} -> ok
    after ?TIMEOUT -> error({timeout, process_info(self(), messages)}) end,
    receive {tcp_closed, S} -> ok
    after ?TIMEOUT -> error({timeout, process_info(self(), messages)}) end,
    nothing(S).
