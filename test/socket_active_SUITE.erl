%% The messages a socket's owner gets: {active, true | once | N | false}, and who the
%% owner is.
-module(socket_active_SUITE).
-include("support/socket_cases.hrl").

cases() ->
    [active_true, active_once, active_once_twice, active_n, active_n_adds, active_n_limits,
     active_n_after_other_modes, active_zero, each_packet_counts,
     activating_gives_what_is_queued, no_message_after_false, active_to_passive_keeps_order,
     much_to_an_active_reader, active_once_paces_the_sender,
     set_by_another_process,
     closed_in_active_true, closed_in_active_once, closed_in_active_n, closed_after_passive,
     closed_in_passive_sends_nothing, closed_message_only_once,
     reset_in_active, reset_shown_in_active, reset_shown_in_passive,
     close_sends_nothing, close_leaves_queued_messages,
     controlling_process_moves_messages, controlling_process_keeps_order,
     controlling_process_moves_once, controlling_process_while_data_comes,
     controlling_process_errors, controlling_process_after_close,
     owner_death_closes, new_owner_death_closes, old_owner_death_does_not,
     owner_death_ends_recv_elsewhere, owner_exits_normally].

%% ---- the modes ----

active_true(Config) ->
    {C, S} = open(Config, [{active, true}]),
    socket_pair:send(C, "abc"),
    ?assertEqual(<<"abc">>, collect(S, 3)),
    socket_pair:send(C, "def"),
    ?assertEqual(<<"def">>, collect(S, 3)),
    ?assertEqual({ok, [{active, true}]}, inet:getopts(S, [active])).

active_once(Config) ->
    {C, S} = open(Config, [{packet, 1}, {active, once}]),
    ?assertEqual({ok, [{active, once}]}, inet:getopts(S, [active])),
    socket_pair:send(C, [1, "a", 1, "b", 1, "c"]),
    ?assertEqual(<<"a">>, data(S)),
    ?assertEqual({ok, [{active, false}]}, inet:getopts(S, [active])),
    nothing(S),
    ok = inet:setopts(S, [{active, once}]),
    ?assertEqual(<<"b">>, data(S)),
    nothing(S),
    ?assertEqual({ok, <<"c">>}, gen_tcp:recv(S, 0, ?TIMEOUT)).

active_once_twice(Config) ->
    {C, S} = open(Config, [{packet, 1}, {active, once}]),
    ok = inet:setopts(S, [{active, once}]),
    socket_pair:send(C, [1, "a", 1, "b"]),
    ?assertEqual(<<"a">>, data(S)),
    nothing(S),
    ?assertEqual({ok, <<"b">>}, gen_tcp:recv(S, 0, ?TIMEOUT)).

active_n(Config) ->
    {C, S} = open(Config, [{packet, 1}, {active, 3}]),
    socket_pair:send(C, [1, "a", 1, "b"]),
    [<<"a">>, <<"b">>] = [data(S), data(S)],
    ?assertEqual({ok, [{active, 1}]}, inet:getopts(S, [active])),
    socket_pair:send(C, [1, "c", 1, "d"]),
    ?assertEqual(<<"c">>, data(S)),
    passive(S),
    nothing(S),
    ?assertEqual({ok, [{active, false}]}, inet:getopts(S, [active])),
    ?assertEqual({ok, <<"d">>}, gen_tcp:recv(S, 0, ?TIMEOUT)).

active_n_adds(Config) ->
    {C, S} = open(Config, [{packet, 1}, {active, 5}]),
    Active = fun() -> {ok, [{active, A}]} = inet:getopts(S, [active]), A end,
    ok = inet:setopts(S, [{active, -2}]),
    ?assertEqual(3, Active()),
    ok = inet:setopts(S, [{active, 4}]),
    ?assertEqual(7, Active()),
    socket_pair:send(C, [1, "a"]),
    <<"a">> = data(S),
    ?assertEqual(6, Active()),
    ok = inet:setopts(S, [{active, 0}]),
    ?assertEqual(6, Active()),
    ok = inet:setopts(S, [{active, -5}]),
    ?assertEqual(1, Active()),
    nothing(S),
    %% Down to nothing: passive, and told so.
    ok = inet:setopts(S, [{active, -1}]),
    passive(S),
    ?assertEqual(false, Active()),
    ok = inet:setopts(S, [{active, 2}]),
    ok = inet:setopts(S, [{active, -100}]),
    passive(S),
    ?assertEqual(false, Active()),
    nothing(S).

active_n_limits(Config) ->
    {_, S} = open(Config),
    Set = fun(A) -> inet:setopts(S, [{active, A}]) end,
    ?assertEqual({error, einval}, Set(32768)),
    ?assertEqual({error, einval}, Set(-32769)),
    ?assertEqual({error, einval}, Set(1 bsl 70)),
    ?assertEqual({ok, [{active, false}]}, inet:getopts(S, [active])),
    ok = Set(32767),
    ?assertEqual({error, einval}, Set(1)),
    ?assertEqual({ok, [{active, 32767}]}, inet:getopts(S, [active])),
    ok = Set(-32768),
    passive(S),
    ok = Set(-32768),
    passive(S),
    nothing(S).

%% N starts from zero again after any other mode, and no other mode says tcp_passive.
active_n_after_other_modes(Config) ->
    {_, S} = open(Config, [{active, 5}]),
    [begin
         ok = inet:setopts(S, [{active, Mode}]),
         ?assertEqual({ok, [{active, Mode}]}, inet:getopts(S, [active])),
         ok = inet:setopts(S, [{active, 3}]),
         ?assertEqual({ok, [{active, 3}]}, inet:getopts(S, [active]))
     end || Mode <- [true, once, false]],
    nothing(S).

active_zero(Config) ->
    {_, S} = open(Config),
    ok = inet:setopts(S, [{active, 0}]),
    passive(S),
    ?assertEqual({ok, [{active, false}]}, inet:getopts(S, [active])),
    ok = inet:setopts(S, [{active, -7}]),
    passive(S),
    nothing(S).

each_packet_counts(Config) ->
    {C, S} = open(Config, [{packet, line}, {active, 100}]),
    socket_pair:send(C, [[integer_to_list(N), $\n] || N <- lists:seq(1, 100)]),
    [begin
         Line = <<(integer_to_binary(N))/binary, $\n>>,
         ?assertEqual(Line, data(S))
     end || N <- lists:seq(1, 100)],
    passive(S).

activating_gives_what_is_queued(Config) ->
    {C, S} = open(Config, [{packet, 1}]),
    socket_pair:send(C, [1, "a", 1, "b", 1, "c", 1, "d", 1, "e"]),
    {ok, <<"a">>} = gen_tcp:recv(S, 0, ?TIMEOUT),
    ok = inet:setopts(S, [{active, once}]),
    ?assertEqual(<<"b">>, data(S)),
    nothing(S),
    ok = inet:setopts(S, [{active, 1}]),
    ?assertEqual(<<"c">>, data(S)),
    passive(S),
    ok = inet:setopts(S, [{active, true}]),
    ?assertEqual([<<"d">>, <<"e">>], [data(S), data(S)]).

no_message_after_false(Config) ->
    {C, S} = open(Config, [{active, true}]),
    ok = inet:setopts(S, [{active, false}]),
    socket_pair:send(C, "abc"),
    nothing(S),
    ?assertEqual({ok, <<"abc">>}, gen_tcp:recv(S, 3, ?TIMEOUT)),
    nothing(S).

%% What was sent as messages before, and what is received after, is all there is.
active_to_passive_keeps_order(Config) ->
    {C, S} = open(Config, [{packet, 4}, {active, true}]),
    Count = 2000,
    Writer = in_process(
               fun() -> [socket_pair:send(C, <<4:32, N:32>>) || N <- lists:seq(1, Count)], ok end),
    First = data(S),
    ok = inet:setopts(S, [{active, false}]),
    Messages = [First | [Data || {tcp, Data} <- socket_pair:flush(S)]],
    Rest = [element(2, {ok, _} = gen_tcp:recv(S, 0, ?TIMEOUT))
            || _ <- lists:seq(length(Messages) + 1, Count)],
    ?assertEqual([<<N:32>> || N <- lists:seq(1, Count)], Messages ++ Rest),
    ok = result(Writer).

much_to_an_active_reader(Config) ->
    {C, S} = open(Config, [{active, true}]),
    Bytes = << <<N:32>> || N <- lists:seq(1, 500000) >>,
    Writer = in_process(fun() -> socket_pair:send(C, Bytes) end),
    ?assert(Bytes =:= collect(S, byte_size(Bytes))),
    ok = result(Writer).

%% While the owner does not ask for more, at most a window of the stream is taken in.
active_once_paces_the_sender(Config) ->
    {C, S} = open(Config),
    Total = 3000000,
    Bytes = binary:copy(<<"x">>, Total),
    Writer = in_process(fun() -> socket_pair:send(C, Bytes) end),
    ?assertEqual(Total, once_until(S, Total, 0)),
    ok = result(Writer).

once_until(_, Total, Got) when Got >= Total -> Got;
once_until(S, Total, Got) ->
    ok = inet:setopts(S, [{active, once}]),
    Data = data(S),
    once_until(S, Total, Got + byte_size(Data)).

%% Any process may set options and send; the messages go to the owner.
set_by_another_process(Config) ->
    {C, S} = open(Config),
    socket_pair:send(C, "abc"),
    ok = result(in_process(fun() -> inet:setopts(S, [{active, once}]) end)),
    ?assertEqual(<<"abc">>, collect(S, 3)),
    ok = result(in_process(fun() -> gen_tcp:send(S, "def") end)),
    ?assertEqual(<<"def">>, socket_pair:recv(C, 3)).

%% ---- the end ----

closed_in_active_true(Config) ->
    {C, S} = open(Config, [{active, true}]),
    socket_pair:send(C, "abc"),
    socket_pair:close(C),
    ?assertEqual(<<"abc">>, collect(S, 3)),
    closed(S),
    nothing(S),
    ?assertEqual({error, closed}, gen_tcp:recv(S, 0, 100)),
    ?assertEqual({error, closed}, gen_tcp:send(S, "x")),
    ?assertEqual({error, einval}, inet:setopts(S, [{active, true}])),
    ?assertEqual(ok, gen_tcp:close(S)).

%% Not before the data was asked for.
closed_in_active_once(Config) ->
    {C, S} = open(Config, [{packet, 1}, {active, once}]),
    socket_pair:send(C, [1, "a", 1, "b"]),
    socket_pair:close(C),
    ?assertEqual(<<"a">>, data(S)),
    nothing(S),
    ok = inet:setopts(S, [{active, once}]),
    ?assertEqual(<<"b">>, data(S)),
    nothing(S),
    ok = inet:setopts(S, [{active, once}]),
    closed(S),
    nothing(S).

closed_in_active_n(Config) ->
    {C, S} = open(Config, [{packet, 1}, {active, 1}]),
    socket_pair:send(C, [1, "a"]),
    socket_pair:close(C),
    ?assertEqual(<<"a">>, data(S)),
    passive(S),
    nothing(S),
    ok = inet:setopts(S, [{active, 5}]),
    closed(S),
    %% tcp_closed says it all: no tcp_passive comes with it.
    nothing(S).

%% A passive reader saw the end; the message still comes when it turns active.
closed_after_passive(Config) ->
    {C, S} = open(Config),
    socket_pair:send(C, "abc"),
    socket_pair:close(C),
    {ok, <<"abc">>} = gen_tcp:recv(S, 3, ?TIMEOUT),
    {error, closed} = gen_tcp:recv(S, 0, ?TIMEOUT),
    ?assertEqual(ok, inet:setopts(S, [{active, once}])),
    closed(S),
    nothing(S).

closed_in_passive_sends_nothing(Config) ->
    {C, S} = open(Config),
    socket_pair:close(C),
    nothing(S),
    ?assertEqual({error, closed}, gen_tcp:recv(S, 0, ?TIMEOUT)),
    nothing(S).

%% With {exit_on_close, false} the socket lives on after tcp_closed, and is not told
%% a second time.
closed_message_only_once(Config) ->
    [begin
         {C, S} = open(Config, [{exit_on_close, false}, {active, Mode}]),
         socket_pair:finish(C),
         closed(S),
         ok = inet:setopts(S, [{active, once}]),
         ok = inet:setopts(S, [{active, true}]),
         nothing(S),
         ok = gen_tcp:send(S, "bye"),
         ?assertEqual(<<"bye">>, socket_pair:recv(C, 3)),
         ok = gen_tcp:close(S),
         nothing(S)
     end || Mode <- [true, once, 5]].

reset_in_active(Config) ->
    {C, S} = open(Config, [{active, true}]),
    socket_pair:reset(C),
    closed(S),
    nothing(S),
    ?assertEqual({error, closed}, gen_tcp:send(S, "x")).

reset_shown_in_active(Config) ->
    {C, S} = open(Config, [{active, true}, {show_econnreset, true}]),
    socket_pair:reset(C),
    receive {tcp_error, S, Why} -> ?assertEqual(econnreset, Why)
    after ?TIMEOUT -> error({timeout, process_info(self(), messages)}) end,
    closed(S),
    nothing(S).

reset_shown_in_passive(Config) ->
    {C, S} = open(Config, [{show_econnreset, true}]),
    socket_pair:reset(C),
    ?assertEqual({error, econnreset}, gen_tcp:recv(S, 0, ?TIMEOUT)),
    assert_closed(gen_tcp:recv(S, 0, ?TIMEOUT)),
    assert_closed(gen_tcp:send(S, "x")).

%% Closing it oneself is no news.
close_sends_nothing(Config) ->
    {_, S} = open(Config, [{active, true}]),
    ok = gen_tcp:close(S),
    nothing(S),
    {_, S2} = open(Config, [{active, 5}]),
    ok = result(in_process(fun() -> gen_tcp:close(S2) end)),
    nothing(S2).

close_leaves_queued_messages(Config) ->
    {C, S} = open(Config, [{packet, 1}, {active, true}]),
    socket_pair:send(C, [1, "a", 1, "b"]),
    <<"a">> = data(S),
    ok = gen_tcp:close(S),
    ?assertEqual(<<"b">>, data(S)).

%% ---- the owner ----

controlling_process_moves_messages(Config) ->
    {C, S} = open(Config, [{packet, 1}, {active, true}]),
    socket_pair:send(C, [1, "a", 1, "b", 1, "c"]),
    wait_queued(S, 3),
    Owner = owner(),
    ok = gen_tcp:controlling_process(S, Owner),
    nothing(S),
    ?assertEqual({ok, [{active, true}]}, inet:getopts(S, [active])),
    socket_pair:send(C, [1, "d"]),
    ?assertEqual([{tcp, <<"a">>}, {tcp, <<"b">>}, {tcp, <<"c">>}, {tcp, <<"d">>}],
                 got(Owner, S, 4)),
    nothing(S).

controlling_process_keeps_order(Config) ->
    {C, S} = open(Config, [{packet, 1}, {active, 3}]),
    socket_pair:send(C, [1, "a", 1, "b"]),
    wait_queued(S, 2),
    Owner = owner(),
    ok = gen_tcp:controlling_process(S, Owner),
    ?assertEqual([{tcp, <<"a">>}, {tcp, <<"b">>}], got(Owner, S, 2)),
    socket_pair:send(C, [1, "c", 1, "d"]),
    ?assertEqual([{tcp, <<"c">>}, tcp_passive], got(Owner, S, 2)),
    %% and back again
    Self = self(),
    ok = run(Owner, fun() -> gen_tcp:controlling_process(S, Self) end),
    ok = inet:setopts(S, [{active, once}]),
    ?assertEqual(<<"d">>, data(S)).

controlling_process_moves_once(Config) ->
    {C, S} = open(Config, [{active, once}]),
    Owner = owner(),
    ok = gen_tcp:controlling_process(S, Owner),
    ?assertEqual({ok, [{active, once}]}, inet:getopts(S, [active])),
    socket_pair:send(C, "abc"),
    ?assertMatch([{tcp, <<"a", _/binary>>}], got(Owner, S, 1)),
    ?assertEqual({ok, [{active, false}]}, inet:getopts(S, [active])).

%% Not a byte is lost, doubled or out of order while the owner changes.
controlling_process_while_data_comes(Config) ->
    {C, S} = open(Config, [{packet, 4}, {active, true}]),
    Count = 3000,
    Writer = in_process(
               fun() -> [socket_pair:send(C, <<4:32, N:32>>) || N <- lists:seq(1, Count)], ok end),
    First = data(S),
    Owners = [owner() || _ <- lists:seq(1, 20)],
    lists:foldl(fun(Next, Give) ->
                        ok = Give(Next),
                        fun(To) -> run(Next, fun() -> gen_tcp:controlling_process(S, To) end) end
                end, fun(To) -> gen_tcp:controlling_process(S, To) end, Owners),
    Got = got(lists:last(Owners), S, Count - 1),
    ?assertEqual([<<N:32>> || N <- lists:seq(1, Count)], [First | [Data || {tcp, Data} <- Got]]),
    ok = result(Writer).

controlling_process_errors(Config) ->
    {C, S} = open(Config),
    Owner = owner(),
    ?assertEqual(ok, gen_tcp:controlling_process(S, self())),
    ?assertEqual({error, not_owner},
                 run(Owner, fun() -> gen_tcp:controlling_process(S, Owner) end)),
    ?assertError(function_clause, gen_tcp:controlling_process(S, not_a_pid)),
    {Dead, Ref} = spawn_monitor(fun() -> ok end),
    receive {'DOWN', Ref, _, _, _} -> ok end,
    ?assertEqual({error, badarg}, gen_tcp:controlling_process(S, Dead)),
    %% It is ours still, and works.
    ok = gen_tcp:send(S, "x"),
    <<"x">> = socket_pair:recv(C, 1),
    ?assertEqual(ok, gen_tcp:controlling_process(S, Owner)),
    ?assertEqual({error, not_owner}, gen_tcp:controlling_process(S, self())).

controlling_process_after_close(Config) ->
    {_, S} = open(Config),
    ok = gen_tcp:close(S),
    ?assertEqual({error, closed}, gen_tcp:controlling_process(S, owner())),
    {C2, S2} = open(Config, [{active, true}]),
    socket_pair:send(C2, "abc"),
    socket_pair:close(C2),
    wait_closed_queued(S2),
    ?assertEqual({error, closed}, gen_tcp:controlling_process(S2, owner())),
    %% The messages stay where they are.
    ?assertEqual(<<"abc">>, collect(S2, 3)),
    closed(S2).

owner_death_closes(Config) ->
    L = listener(Config),
    Owner = owner(),
    C = connect(Config),
    {ok, S} = run(Owner, fun() -> gen_tcp:accept(L, ?TIMEOUT) end),
    ok = run(Owner, fun() -> gen_tcp:send(S, "last words") end),
    exit(Owner, kill),
    ?assertEqual(<<"last words">>, socket_pair:rest(C)),
    gone(S).

new_owner_death_closes(Config) ->
    {C, S} = open(Config, [{active, true}]),
    Owner = owner(),
    ok = gen_tcp:controlling_process(S, Owner),
    exit(Owner, kill),
    ?assertEqual(<<>>, socket_pair:rest(C)),
    gone(S),
    nothing(S).

old_owner_death_does_not(Config) ->
    L = listener(Config),
    Self = self(),
    Old = owner(),
    C = connect(Config),
    {ok, S} = run(Old, fun() -> gen_tcp:accept(L, ?TIMEOUT) end),
    ok = run(Old, fun() -> gen_tcp:controlling_process(S, Self) end),
    Ref = erlang:monitor(process, Old),
    exit(Old, kill),
    receive {'DOWN', Ref, _, _, _} -> ok end,
    socket_pair:send(C, "abc"),
    ?assertEqual({ok, <<"abc">>}, gen_tcp:recv(S, 3, ?TIMEOUT)),
    ok = gen_tcp:send(S, "def"),
    ?assertEqual(<<"def">>, socket_pair:recv(C, 3)).

owner_death_ends_recv_elsewhere(Config) ->
    {_, S} = open(Config),
    Owner = owner(),
    ok = gen_tcp:controlling_process(S, Owner),
    Reader = in_process(fun() -> gen_tcp:recv(S, 0, ?TIMEOUT) end),
    ok = until_waiting(Reader),
    exit(Owner, kill),
    ?assertEqual({error, closed}, result(Reader)).

owner_exits_normally(Config) ->
    {C, S} = open(Config),
    Owner = owner(),
    ok = gen_tcp:controlling_process(S, Owner),
    socket_pair:send(C, "unread"),
    Owner ! stop,
    %% Real TCP may say so with a reset, the unread bytes being lost.
    ?assertEqual({error, closed}, socket_pair:recv(C, 1)),
    gone(S).

%% ---- helpers ----

data(S) ->
    receive
        {tcp, S, Data} -> Data;
        {Other, S} -> error({not_data, Other});
        {Other, S, What} -> error({not_data, Other, What})
    after ?TIMEOUT -> error({timeout, process_info(self(), messages)})
    end.

passive(S) -> tagged(tcp_passive, S).
closed(S) -> tagged(tcp_closed, S).

tagged(Tag, S) ->
    receive {Tag, S} -> ok
    after ?TIMEOUT -> error({timeout, Tag, process_info(self(), messages)})
    end.

%% The socket is closed, as soon as the death of its owner is known.
gone(S) ->
    Ref = inet:monitor(S),
    receive {'DOWN', Ref, _, S, _} -> ok after ?TIMEOUT -> error(timeout) end,
    ?assertEqual({error, closed}, gen_tcp:send(S, "x")),
    ?assertEqual({error, closed}, gen_tcp:recv(S, 0, 100)).

wait_queued(S, N) ->
    wait_for(fun(Messages) -> length([M || M <- Messages, element(2, M) =:= S]) >= N end).

wait_closed_queued(S) ->
    wait_for(fun(Messages) -> lists:member({tcp_closed, S}, Messages) end).

%% Until the mailbox, left as it is, satisfies the condition.
wait_for(Condition) ->
    {messages, Messages} = process_info(self(), messages),
    case Condition(Messages) of
        true -> ok;
        false -> erlang:yield(), wait_for(Condition)
    end.

%% A process that can own a socket: it runs what it is told, and hands over what it got.
owner() -> spawn(fun owner_loop/0).

owner_loop() ->
    receive
        {run, F, {Pid, Ref}} -> Pid ! {Ref, F()}, owner_loop();
        stop -> ok
    end.

run(Owner, F) ->
    Ref = monitor(process, Owner),
    Owner ! {run, F, {self(), Ref}},
    receive
        {Ref, Result} -> demonitor(Ref, [flush]), Result;
        {'DOWN', Ref, _, _, Why} -> error({owner_died, Why})
    after ?TIMEOUT -> error(timeout)
    end.

%% The next N messages of this socket that the process has or gets.
got(Owner, S, N) ->
    run(Owner, fun() ->
                       [receive
                            {Tag, S} -> Tag;
                            {Tag, S, What} -> {Tag, What}
                        after ?TIMEOUT div 2 -> missing
                        end || _ <- lists:seq(1, N)]
               end).
