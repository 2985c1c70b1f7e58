%% Reading and writing a socket in passive mode, and what can be asked of it.
%% docs/messages.md names what is looked at here.
-module(socket_SUITE).
-include("support/socket_cases.hrl").

cases() ->
    [recv_all_there_is, recv_length, recv_length_across_sends, recv_beyond_the_window,
     recv_too_much, recv_nonsense, recv_timeout_loses_nothing, recv_timeout_keeps_a_part,
     recv_timeout_zero, recv_by_another_process, recv_while_active, several_in_recv,
     timed_out_recv_gives_up_its_place, close_ends_every_recv, unrecv_comes_first,
     unrecv_wakes_recv, unrecv_when_active, mode_list, header,
     send_iodata, send_nothing, send_nonsense, send_much_to_a_slow_reader,
     send_from_many, send_both_ways_at_once, send_timeout, send_timeout_close,
     sendfile_whole, sendfile_part, sendfile_missing,
     names, statistics, info, monitor, monitor_cancelled,
     as_a_term, printed, ports_listing,
     accept_timeout, accept_on_closed_listener, close_ends_accept, several_accept,
     accepted_inherits_options].

%% ---- recv ----

recv_all_there_is(Config) ->
    {C, S} = open(Config),
    socket_pair:send(C, "hello"),
    ?assertEqual(<<"hello">>, recv_some(S, 5)).

recv_length(Config) ->
    {C, S} = open(Config),
    socket_pair:send(C, "abcdefghij"),
    ?assertEqual({ok, <<"abc">>}, gen_tcp:recv(S, 3)),
    ?assertEqual({ok, <<"defg">>}, gen_tcp:recv(S, 4)),
    ?assertEqual({ok, <<"hij">>}, gen_tcp:recv(S, 3, ?TIMEOUT)).

recv_length_across_sends(Config) ->
    {C, S} = open(Config),
    Reader = in_process(fun() -> gen_tcp:recv(S, 6, ?TIMEOUT) end),
    [socket_pair:send(C, Part) || Part <- ["ab", "c", "de", "fgh"]],
    ?assertEqual({ok, <<"abcdef">>}, result(Reader)),
    ?assertEqual(<<"gh">>, recv_some(S, 2)).

recv_beyond_the_window(Config) ->
    {C, S} = open(Config),
    Bytes = pattern(1000000),
    Writer = in_process(fun() -> socket_pair:send(C, Bytes) end),
    {ok, Got} = gen_tcp:recv(S, 1000000, ?TIMEOUT),
    ?assert(Got =:= Bytes),
    ok = result(Writer).

%% 64 MB is the most that inet gives in one piece.
recv_too_much(Config) ->
    {_, S} = open(Config),
    ?assertEqual({error, enomem}, gen_tcp:recv(S, 16#4000001, 0)).

recv_nonsense(Config) ->
    {_, S} = open(Config),
    [?assertError(_, gen_tcp:recv(S, Length, Timeout))
     || {Length, Timeout} <- [{-1, 100}, {a, 100}, {1.0, 100}, {0, never}]],
    ?assertEqual({error, timeout}, gen_tcp:recv(S, 0, 1)).

recv_timeout_loses_nothing(Config) ->
    {C, S} = open(Config),
    ?assertEqual({error, timeout}, gen_tcp:recv(S, 0, 10)),
    ?assertEqual({error, timeout}, gen_tcp:recv(S, 3, 10)),
    socket_pair:send(C, "late"),
    ?assertEqual({ok, <<"late">>}, gen_tcp:recv(S, 4, ?TIMEOUT)).

recv_timeout_keeps_a_part(Config) ->
    {C, S} = open(Config),
    socket_pair:send(C, "abc"),
    {ok, <<"a">>} = gen_tcp:recv(S, 1, ?TIMEOUT),
    ok = gen_tcp:unrecv(S, <<"a">>),
    ?assertEqual({error, timeout}, gen_tcp:recv(S, 5, 20)),
    socket_pair:send(C, "de"),
    ?assertEqual({ok, <<"abcde">>}, gen_tcp:recv(S, 5, ?TIMEOUT)).

recv_timeout_zero(Config) ->
    {C, S} = open(Config),
    ?assertEqual({error, timeout}, gen_tcp:recv(S, 0, 0)),
    socket_pair:send(C, "abc"),
    {ok, <<"a">>} = gen_tcp:recv(S, 1, ?TIMEOUT),
    ?assertEqual({ok, <<"bc">>}, gen_tcp:recv(S, 0, 0)).

%% gen_tcp lets any process receive.
recv_by_another_process(Config) ->
    {C, S} = open(Config),
    Reader = in_process(fun() -> gen_tcp:recv(S, 3, ?TIMEOUT) end),
    socket_pair:send(C, "abc"),
    ?assertEqual({ok, <<"abc">>}, result(Reader)).

recv_while_active(Config) ->
    {_, S} = open(Config),
    [begin
         ok = inet:setopts(S, [{active, Active}]),
         ?assertEqual({error, einval}, gen_tcp:recv(S, 0, 100)),
         ?assertEqual({error, einval}, gen_tcp:recv(S, 10)),
         ok = inet:setopts(S, [{active, false}])
     end || Active <- [true, once, 5]].

%% gen_tcp's inet backend refuses a second reader with ealready. Here they are served
%% first come, first served, as its socket backend does.
several_in_recv(Config) ->
    {C, S} = open(Config),
    case virtual(Config) of
        false ->
            First = in_process(fun() -> gen_tcp:recv(S, 1, ?TIMEOUT) end),
            until_waiting(First),
            ?assertEqual({error, ealready}, gen_tcp:recv(S, 1, 100)),
            socket_pair:send(C, "a"),
            ?assertEqual({ok, <<"a">>}, result(First));
        true ->
            Readers = [begin
                           R = in_process(fun() -> gen_tcp:recv(S, N, ?TIMEOUT) end),
                           until_waiting(R),
                           R
                       end || N <- [2, 1, 0, 4, 3]],
            %% The third takes what there is when its turn comes, so that the bytes
            %% for the last two come after it has.
            socket_pair:send(C, "aabc"),
            {Before, After} = lists:split(3, Readers),
            [{ok, <<"aa">>}, {ok, <<"b">>}, {ok, <<"c">>}] = [result(R) || R <- Before],
            socket_pair:send(C, "dddde"),
            socket_pair:send(C, "ee"),
            ?assertEqual([{ok, <<"dddd">>}, {ok, <<"eee">>}], [result(R) || R <- After])
    end.

timed_out_recv_gives_up_its_place(Config) ->
    {C, S} = open(Config),
    [{error, timeout} = gen_tcp:recv(S, N, 1) || N <- lists:seq(1, 50)],
    Second = in_process(fun() -> gen_tcp:recv(S, 3, ?TIMEOUT) end),
    socket_pair:send(C, "abc"),
    ?assertEqual({ok, <<"abc">>}, result(Second)).

close_ends_every_recv(Config) ->
    {_, S} = open(Config),
    Count = case virtual(Config) of true -> 10; false -> 1 end,
    Readers = [in_process(fun() -> gen_tcp:recv(S, 0) end) || _ <- lists:seq(1, Count)],
    [until_waiting(R) || R <- Readers],
    ok = gen_tcp:close(S),
    [?assertEqual({error, closed}, result(R)) || R <- Readers].

unrecv_comes_first(Config) ->
    {C, S} = open(Config),
    socket_pair:send(C, "cdef"),
    {ok, <<"cd">>} = gen_tcp:recv(S, 2, ?TIMEOUT),
    ok = gen_tcp:unrecv(S, <<"cd">>),
    ok = gen_tcp:unrecv(S, ["a", [<<"b">>]]),
    ok = gen_tcp:unrecv(S, <<>>),
    ?assertEqual({ok, <<"abcdef">>}, gen_tcp:recv(S, 6, ?TIMEOUT)),
    ok = gen_tcp:unrecv(S, <<"x">>),
    ?assertEqual({error, timeout}, gen_tcp:recv(S, 2, 10)),
    ?assertEqual({ok, <<"x">>}, gen_tcp:recv(S, 0, ?TIMEOUT)).

%% More than a connection's window may be given back, too.
unrecv_wakes_recv(Config) ->
    {_, S} = open(Config),
    Much = pattern(100000),
    ok = gen_tcp:unrecv(S, Much),
    {ok, Got} = gen_tcp:recv(S, 100000, ?TIMEOUT),
    ?assert(Got =:= Much).

unrecv_when_active(Config) ->
    {_, S} = open(Config, [{active, once}]),
    ok = gen_tcp:unrecv(S, "abc"),
    ?assertEqual(<<"abc">>, collect(S, 3)),
    ?assertEqual({ok, [{active, false}]}, inet:getopts(S, [active])).

mode_list(Config) ->
    {C, S} = open(Config, [{mode, list}]),
    socket_pair:send(C, "abcdefgh"),
    ?assertEqual({ok, "abc"}, gen_tcp:recv(S, 3, ?TIMEOUT)),
    ok = inet:setopts(S, [binary]),
    ?assertEqual({ok, <<"de">>}, gen_tcp:recv(S, 2, ?TIMEOUT)),
    ok = inet:setopts(S, [list]),
    ?assertEqual({ok, "fgh"}, gen_tcp:recv(S, 3, ?TIMEOUT)),
    ok = inet:setopts(S, [{active, once}]),
    socket_pair:send(C, "x"),
    receive {tcp, S, Data} -> ?assertEqual("x", Data) after ?TIMEOUT -> error(timeout) end.

header(Config) ->
    {C, S} = open(Config, [{header, 2}]),
    socket_pair:send(C, "abcdefgh"),
    ?assertEqual({ok, [$a, $b | <<"cd">>]}, gen_tcp:recv(S, 4, ?TIMEOUT)),
    ?assertEqual({ok, [$e, $f | <<>>]}, gen_tcp:recv(S, 2, ?TIMEOUT)),
    ?assertEqual({ok, "g"}, gen_tcp:recv(S, 1, ?TIMEOUT)),
    {ok, "h"} = gen_tcp:recv(S, 1, ?TIMEOUT),
    ok = inet:setopts(S, [{packet, 1}, {active, once}]),
    socket_pair:send(C, [3, "xyz"]),
    receive {tcp, S, Data} -> ?assertEqual([$x, $y | <<"z">>], Data)
    after ?TIMEOUT -> error(timeout) end.

%% ---- send ----

send_iodata(Config) ->
    {C, S} = open(Config),
    ok = gen_tcp:send(S, [$a, [<<"bc">>, ["d" | <<"e">>]], [], <<>> | <<"f">>]),
    ok = gen_tcp:send(S, <<"ghi">>),
    ok = gen_tcp:send(S, "jk"),
    ?assertEqual(<<"abcdefghijk">>, socket_pair:recv(C, 11)).

%% Sending nothing is no end of the stream.
send_nothing(Config) ->
    {C, S} = open(Config),
    [ok = gen_tcp:send(S, Nothing) || Nothing <- [<<>>, "", [[], <<>>]]],
    ok = gen_tcp:send(S, "x"),
    ?assertEqual(<<"x">>, socket_pair:recv(C, 1)).

send_nonsense(Config) ->
    {C, S} = open(Config),
    [?assertEqual({error, einval}, gen_tcp:send(S, Bad))
     || Bad <- [foo, [foo], [256], [-1], [$a | $b], {<<"x">>}]],
    ok = gen_tcp:send(S, "x"),
    ?assertEqual(<<"x">>, socket_pair:recv(C, 1)).

send_much_to_a_slow_reader(Config) ->
    {C, S} = open(Config),
    Bytes = pattern(5000000),
    Writer = in_process(fun() -> gen_tcp:send(S, Bytes) end),
    Parts = [socket_pair:recv(C, 50000) || _ <- lists:seq(1, 100)],
    ok = result(Writer),
    ?assert(iolist_to_binary(Parts) =:= Bytes).

%% What one call sends stays in one piece, whoever else sends.
send_from_many(Config) ->
    {C, S} = open(Config),
    Writers = [in_process(fun() ->
                                  [ok = gen_tcp:send(S, binary:copy(<<N>>, 3000))
                                   || _ <- lists:seq(1, 50)], ok
                          end) || N <- lists:seq(1, 8)],
    [begin
         <<N, _/binary>> = Part = socket_pair:recv(C, 3000),
         ?assertEqual(binary:copy(<<N>>, 3000), Part)
     end || _ <- lists:seq(1, 8 * 50)],
    [ok = result(W) || W <- Writers].

send_both_ways_at_once(Config) ->
    {C, S} = open(Config),
    Size = 2000000,
    Bytes = pattern(Size),
    Writers = [in_process(fun() -> gen_tcp:send(S, Bytes) end),
               in_process(fun() -> socket_pair:send(C, Bytes) end)],
    Reader = in_process(fun() -> gen_tcp:recv(S, Size, 30000) end),
    Got = iolist_to_binary([socket_pair:recv(C, 10000) || _ <- lists:seq(1, Size div 10000)]),
    ?assert(Got =:= Bytes),
    ?assert({ok, Bytes} =:= result(Reader)),
    [ok = result(W) || W <- Writers].

send_timeout(Config) ->
    {C, S} = open(Config, [{send_timeout, 50}]),
    ?assertEqual({error, timeout}, send_until_error(S)),
    ?assertEqual({error, timeout}, send_until_error(S)),
    %% It is not closed by that.
    ?assertEqual({error, timeout}, gen_tcp:recv(S, 0, 1)),
    socket_pair:send(C, "abc"),
    ?assertEqual({ok, <<"abc">>}, gen_tcp:recv(S, 3, ?TIMEOUT)).

send_timeout_close(Config) ->
    {_, S} = open(Config, [{send_timeout, 50}, {send_timeout_close, true}]),
    ?assertEqual({error, timeout}, send_until_error(S)),
    assert_closed(gen_tcp:send(S, "x")),
    assert_closed(gen_tcp:recv(S, 0, 100)),
    ?assertEqual(ok, gen_tcp:close(S)).

sendfile_whole(Config) ->
    {C, S} = open(Config),
    {Name, Bytes} = file_of(Config, 300000),
    Reader = in_process(fun() -> socket_pair:recv(C, 300000) end),
    ?assertEqual({ok, 300000}, file:sendfile(Name, S)),
    ?assert(Bytes =:= result(Reader)).

sendfile_part(Config) ->
    {C, S} = open(Config, [{packet, 4}]),
    {Name, Bytes} = file_of(Config, 5000),
    {ok, Fd} = file:open(Name, [read, raw, binary]),
    ?assertEqual({ok, 1000}, file:sendfile(Fd, S, 100, 1000, [])),
    ?assertEqual({ok, 4000}, file:sendfile(Fd, S, 1000, 0, [])),
    %% Past the end there is nothing to send.
    ?assertEqual({ok, 0}, file:sendfile(Fd, S, 5000, 0, [])),
    ?assertEqual({ok, 10}, file:sendfile(Fd, S, 4990, 100, [])),
    %% Nothing is put before the bytes, whatever the packet mode.
    ?assert(binary:part(Bytes, 100, 1000) =:= socket_pair:recv(C, 1000)),
    ?assert(binary:part(Bytes, 1000, 4000) =:= socket_pair:recv(C, 4000)),
    ?assert(binary:part(Bytes, 4990, 10) =:= socket_pair:recv(C, 10)),
    ok = gen_tcp:close(S),
    ?assertMatch({error, _}, file:sendfile(Fd, S, 0, 0, [])),
    ok = file:close(Fd).

sendfile_missing(Config) ->
    {_, S} = open(Config),
    ?assertEqual({error, enoent}, file:sendfile(filename:join(dir(Config), "missing"), S)).

%% ---- questions ----

names(Config) ->
    {C, S} = open(Config),
    {ok, Address} = inet:peername(S),
    ?assertEqual(socket_pair:address(C), Address),
    {ok, {Ip, Port} = Local} = inet:sockname(S),
    ?assertMatch({_, _, _, _}, Ip),
    ?assertEqual({ok, Port}, inet:port(S)),
    ?assertEqual({ok, [Local]}, inet:socknames(S)),
    case C of
        {tcp, Client} -> ?assertEqual({ok, Local}, inet:peername(Client));
        _ -> ?assertEqual({{198, 51, 100, 1}, 5280}, Local)
    end.

statistics(Config) ->
    {C, S} = open(Config),
    socket_pair:send(C, "abc"),
    {ok, _} = gen_tcp:recv(S, 3, ?TIMEOUT),
    ok = gen_tcp:send(S, "hello"),
    ok = gen_tcp:send(S, "hi"),
    _ = socket_pair:recv(C, 7),
    {ok, Stats} = inet:getstat(S),
    ?assertEqual(lists:sort([recv_oct, recv_cnt, recv_max, recv_avg, recv_dvi, send_oct,
                             send_cnt, send_max, send_avg, send_pend]),
                 lists:sort([K || {K, _} <- Stats])),
    ?assertEqual([{recv_oct, 3}, {recv_cnt, 1}, {recv_max, 3}, {send_oct, 7}, {send_cnt, 2},
                  {send_max, 5}, {send_avg, 3}, {send_pend, 0}],
                 [lists:keyfind(K, 1, Stats)
                  || K <- [recv_oct, recv_cnt, recv_max, send_oct, send_cnt, send_max,
                           send_avg, send_pend]]),
    ?assertEqual({ok, [{send_oct, 7}, {recv_oct, 3}]}, inet:getstat(S, [send_oct, recv_oct])),
    ?assertEqual({ok, []}, inet:getstat(S, [])),
    ?assertMatch({error, einval}, inet:getstat(S, [recv_oct, nonsense])).

info(Config) ->
    {C, S} = open(Config),
    socket_pair:send(C, "abc"),
    {ok, _} = gen_tcp:recv(S, 3, ?TIMEOUT),
    Self = self(),
    #{counters := Counters, owner := Self, states := States} = inet:info(S),
    ?assertMatch(#{recv_oct := 3, send_oct := 0}, Counters),
    ?assertEqual([connected, open], lists:sort(States)),
    ok = gen_tcp:close(S),
    ?assertMatch(#{states := [closed]}, inet:info(S)).

monitor(Config) ->
    {C, S} = open(Config, [{active, true}]),
    ByPeer = inet:monitor(S),
    socket_pair:close(C),
    receive {'DOWN', ByPeer, _Type, S, _} -> ok after ?TIMEOUT -> error(timeout) end,
    {_, S2} = open(Config),
    ByUs = inet:monitor(S2),
    ok = gen_tcp:close(S2),
    receive {'DOWN', ByUs, _, S2, _} -> ok after ?TIMEOUT -> error(timeout) end,
    Late = inet:monitor(S2),
    receive {'DOWN', Late, _, S2, _} -> ok after ?TIMEOUT -> error(timeout) end.

monitor_cancelled(Config) ->
    {_, S} = open(Config),
    Ref = inet:monitor(S),
    ?assertEqual(true, inet:cancel_monitor(Ref)),
    ok = gen_tcp:close(S),
    receive {'DOWN', Ref, _, _, _} -> error(still_monitored) after ?SOON -> ok end.

%% The socket in a message equals the socket that accept gave, and is a map's key.
as_a_term(Config) ->
    {C1, S1} = open(Config, [{active, true}]),
    {C2, S2} = open(Config, [{active, true}]),
    ?assertNot(S1 =:= S2),
    ?assertNot(S1 == S2),
    Names = #{S1 => first, S2 => second},
    socket_pair:send(C1, "a"),
    socket_pair:send(C2, "b"),
    Got = [receive {tcp, S, Data} -> {maps:get(S, Names), Data} after ?TIMEOUT -> error(timeout) end
           || _ <- [1, 2]],
    ?assertEqual([{first, <<"a">>}, {second, <<"b">>}], lists:sort(Got)),
    ?assertEqual(1, length(lists:usort([S1, in_ets(S1)]))),
    ok = gen_tcp:close(S1),
    ?assertEqual(first, maps:get(S1, Names)).

printed(Config) ->
    {_, S} = open(Config),
    [?assert(is_list(lists:flatten(io_lib:format(Format, [S])))) || Format <- ["~p", "~w", "~0p"]],
    [?assert(is_list(lists:flatten(io_lib:format("~p", [inet:Call(S)]))))
     || Call <- [info, peername, getstat]].

ports_listing(Config) ->
    {_, S} = open(Config),
    ok = inet:i(tcp, [port, module, recv, sent, owner, local_address, foreign_address, state]),
    ok = inet:i(),
    ?assertMatch({ok, _}, inet:peername(S)).

%% ---- accept ----

accept_timeout(Config) ->
    L = listener(Config),
    ?assertEqual({error, timeout}, gen_tcp:accept(L, 20)),
    ?assertEqual({error, timeout}, gen_tcp:accept(L, 0)),
    {_, _} = open(Config),
    ?assertEqual({error, timeout}, gen_tcp:accept(L, 0)).

accept_on_closed_listener(Config) ->
    L = listener(Config),
    ok = gen_tcp:close(L),
    ?assertEqual({error, closed}, gen_tcp:accept(L, 100)),
    ?assertEqual({error, closed}, gen_tcp:accept(L)),
    ?assertEqual(ok, gen_tcp:close(L)),
    ?assertEqual({error, einval}, inet:port(L)).

close_ends_accept(Config) ->
    L = listener(Config),
    Waiting = [in_process(fun() -> gen_tcp:accept(L) end) || _ <- [1, 2]],
    [until_waiting(W) || W <- Waiting],
    ok = gen_tcp:close(L),
    ?assertEqual([{error, closed}, {error, closed}], [result(W) || W <- Waiting]).

%% Each connection goes to one of the waiting processes, in the order they came, and
%% that process owns it.
several_accept(Config) ->
    L = listener(Config),
    Accept = fun() ->
                     {ok, S} = gen_tcp:accept(L, ?TIMEOUT),
                     {ok, Address} = inet:peername(S),
                     ok = gen_tcp:send(S, "hi"),
                     #{owner := Owner} = inet:info(S),
                     {Owner =:= self(), Address}
             end,
    Waiting = [begin A = in_process(Accept), until_waiting(A), A end || _ <- [1, 2, 3]],
    Clients = [begin
                   C = connect(Config),
                   Got = result(A),
                   ?assertEqual(<<"hi">>, socket_pair:recv(C, 2)),
                   {socket_pair:address(C), Got}
               end || A <- Waiting],
    [?assertEqual({true, Address}, Got) || {Address, Got} <- Clients].

accepted_inherits_options(Config0) ->
    Options = [{mode, list}, {packet, 2}, {active, once}, {send_timeout, 777},
               {exit_on_close, false}, {nodelay, true}, {buffer, 4321}, {packet_size, 99},
               {header, 1}, {keepalive, true}, {high_watermark, 999}, {delay_send, true},
               {send_timeout_close, true}, {show_econnreset, true}],
    Config = socket_pair:listen(Config0, Options),
    C = connect(Config),
    {ok, S} = gen_tcp:accept(listener(Config), ?TIMEOUT),
    ?assertEqual({ok, Options}, inet:getopts(S, [K || {K, _} <- Options])),
    socket_pair:send(C, [0, 3, "abc"]),
    receive {tcp, S, Data} -> ?assertEqual("abc", Data) after ?TIMEOUT -> error(timeout) end.

%% ---- helpers ----

%% recv/2 with 0 gives what there is, in as many pieces as it came.
recv_some(S, N) -> recv_some(S, N, <<>>).

recv_some(_, N, Acc) when byte_size(Acc) >= N -> Acc;
recv_some(S, N, Acc) ->
    {ok, Bytes} = gen_tcp:recv(S, 0, ?TIMEOUT),
    recv_some(S, N, <<Acc/binary, Bytes/binary>>).

send_until_error(S) -> send_until_error(S, pattern(200000), 500).

send_until_error(_, _, 0) -> error(never_blocked);
send_until_error(S, Bytes, Left) ->
    case gen_tcp:send(S, Bytes) of
        ok -> send_until_error(S, Bytes, Left - 1);
        Error -> Error
    end.

pattern(Size) -> binary:part(binary:copy(<<"0123456789abcdef-">>, Size div 17 + 1), 0, Size).

file_of(Config, Size) ->
    Name = filename:join(dir(Config), "sendfile"),
    Bytes = pattern(Size),
    ok = file:write_file(Name, Bytes),
    {Name, Bytes}.

dir(Config) -> proplists:get_value(priv_dir, Config).

in_ets(Term) ->
    Table = ets:new(?MODULE, []),
    true = ets:insert(Table, {Term, there}),
    [{Same, there}] = ets:lookup(Table, Term),
    Same.
