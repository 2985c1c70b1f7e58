%% WebSocket in the NIF (RFC 6455): what the owner of such a connection and its client see, without
%% any ejabberd. Its times and bounds are websocket_limits_SUITE's, bytes of all kinds megaphone-proto's own
%% tests'.
-module(websocket_SUITE).
-include("support/ws_cases.hrl").

all() ->
    [messages, sizes, byte_by_byte, one_at_a_time, before_the_start, answers, in_kind,
     fragments, fragments_and_controls, pings, controls_wait_with_the_message,
     close_by_client, close_codes, faults, fault_shows_at_once, fault_behind_a_message,
     too_big, too_big_in_fragments, too_many_fragments,
     close_by_owner, close_twice, messages_after_close,
     owner_dies, owner_dies_after_close, closed_for_the_owner, plain_close, no_owner,
     client_goes, client_resets, link_lost, what_came_before_the_end, version_1, not_a_websocket].

init_per_testcase(_, Config) -> link_case:start(Config).

%% ---- messages ----

messages(Config) ->
    Ws = start(Config, #{}),
    send(Ws, [frame(?TEXT, "one"), frame(?BINARY, <<0, 255>>), frame(?TEXT, "")]),
    ?assertEqual(<<"one">>, next(Ws)),
    ?assertEqual(<<0, 255>>, next(Ws)),
    ?assertEqual(<<>>, next(Ws)),
    wait = ask(Ws),
    send(Ws, frame(?TEXT, <<"κόσμε"/utf8>>)),
    ?assertEqual(<<"κόσμε"/utf8>>, message()).

sizes(Config) ->
    Ws = start(Config, #{}),
    [begin
         Message = crypto:strong_rand_bytes(Size),
         send(Ws, frame(?BINARY, Message)),
         ?assertEqual(Message, next(Ws)),
         _ = reply(Ws, Message),                % `wait' where it is more than the window
         ?assertEqual({?FIN + ?TEXT, Message}, read(Ws))
     end || Size <- [1, 125, 126, 127, 1000, 65535, 65536, 300000]].

byte_by_byte(Config) ->
    Ws = start(Config, #{}),
    Sent = [frame(?TEXT, "one"), raw_frame(?TEXT, "tw"), frame(?PING, "p"), frame(?MORE, "o"),
            frame(?BINARY, binary:copy(<<"x">>, 200))],
    wait = ask(Ws),
    [send(Ws, <<Byte>>) || <<Byte>> <= iolist_to_binary(Sent)],
    ?assertEqual(<<"one">>, message()),
    ?assertEqual(<<"two">>, next(Ws)),
    ?assertEqual({?FIN + ?PONG, <<"p">>}, read(Ws)),
    ?assertEqual(200, byte_size(next(Ws))).

%% Who has not asked gets nothing, and who has gets one.
one_at_a_time(Config) ->
    Ws = start(Config, #{}),
    send(Ws, [frame(?TEXT, integer_to_list(N)) || N <- lists:seq(1, 3)]),
    synced(Ws),
    ?assertEqual(nothing, got()),
    ?assertEqual({ok, <<"1">>}, ask(Ws)),
    ?assertEqual({ok, <<"2">>}, ask(Ws)),
    ?assertEqual({ok, <<"3">>}, ask(Ws)),
    wait = ask(Ws),
    wait = ask(Ws),
    send(Ws, [frame(?TEXT, "4"), frame(?TEXT, "5")]),
    ?assertEqual(<<"4">>, message()),
    ?assertEqual(nothing, got()),
    ?assertEqual({ok, <<"5">>}, ask(Ws)).

%% A client need not wait for the 101.
before_the_start(Config) ->
    {Id, {_, _, Conn}} = open(Config),
    Ws = #{peer => peer(Config), id => Id, conn => Conn},
    send(Ws, frame(?TEXT, "early")),
    synced(Ws),
    ok = megaphone_nif:ws_start(Conn, self(), options(#{})),
    ?assertEqual(<<"early">>, next(Ws)).

answers(Config) ->
    Ws = start(Config, #{}),
    ok = reply(Ws, [<<"on">>, "e"]),
    ok = reply(Ws, <<>>),
    ?assertEqual({?FIN + ?TEXT, <<"one">>}, read(Ws)),
    ?assertEqual({?FIN + ?TEXT, <<>>}, read(Ws)),
    ?assertEqual({error, einval}, megaphone_nif:ws_send(maps:get(conn, Ws), not_iodata)).

in_kind(Config) ->
    Ws = start(Config, #{reply_in_kind => true}),
    [begin
         send(Ws, frame(Opcode, "x")),
         ok = reply(Ws, next(Ws)),
         ?assertEqual({?FIN + Opcode, <<"x">>}, read(Ws))
     end || Opcode <- [?TEXT, ?BINARY, ?TEXT]].

fragments(Config) ->
    Ws = start(Config, #{}),
    %% Within a character, too.
    <<A:4/binary, B/binary>> = <<"on€"/utf8>>,
    send(Ws, [raw_frame(?TEXT, A), raw_frame(?MORE, ""), frame(?MORE, B)]),
    ?assertEqual(<<"on€"/utf8>>, next(Ws)),
    send(Ws, [raw_frame(?BINARY, "a"), frame(?MORE, <<255>>)]),
    ?assertEqual(<<"a", 255>>, next(Ws)).

fragments_and_controls(Config) ->
    Ws = start(Config, #{}),
    wait = ask(Ws),
    send(Ws, [raw_frame(?TEXT, "a"), frame(?PING, "1"), raw_frame(?MORE, "b")]),
    ?assertEqual({?FIN + ?PONG, <<"1">>}, read(Ws)),
    send(Ws, [frame(?PONG, "never asked for"), frame(?PING, ""), frame(?MORE, "c")]),
    ?assertEqual({?FIN + ?PONG, <<>>}, read(Ws)),
    ?assertEqual(<<"abc">>, message()).

pings(Config) ->
    Ws = start(Config, #{}),
    wait = ask(Ws),
    Longest = binary:copy(<<"p">>, 125),
    [begin
         send(Ws, frame(?PING, Payload)),
         ?assertEqual({?FIN + ?PONG, Payload}, read(Ws))
     end || Payload <- [<<>>, <<"p">>, <<0, 255>>, Longest]].

%% All comes in its order: what is behind a message that nobody has asked for is not seen.
controls_wait_with_the_message(Config) ->
    Ws = start(Config, #{}),
    send(Ws, [frame(?TEXT, "a"), frame(?PING, "1")]),
    synced(Ws),
    ?assertEqual(0, link_peer:held(maps:get(peer, Ws), maps:get(id, Ws))),
    ?assertEqual(<<"a">>, next(Ws)),
    wait = ask(Ws),
    ?assertEqual({?FIN + ?PONG, <<"1">>}, read(Ws)).

%% ---- the client's end of it ----

close_by_client(Config) ->
    Ws = start(Config, #{}),
    send(Ws, [frame(?TEXT, "last"), close_frame(1000, "bye"), frame(?TEXT, "too late")]),
    ?assertEqual(<<"last">>, next(Ws)),
    closed = ask(Ws),
    ?assertEqual({?FIN + ?CLOSE, <<1000:16>>}, read(Ws)),
    ?assertEqual({close, <<"normal">>}, outcome(Ws)),
    over(Ws),
    ?assertEqual({error, closed}, reply(Ws, "x")),
    closed = ask(Ws),
    ok = close(Ws, 1000, "").

close_codes(Config) ->
    [begin
         Ws = start(Config, #{}),
         wait = ask(Ws),
         send(Ws, frame(?CLOSE, Sent)),
         ?assertMatch({Sent, {?FIN + ?CLOSE, <<Answer:2/binary, _/binary>>}}
                        when Answer =:= Expected; Expected =:= <<>>, {Sent, read(Ws)}),
         {close, _} = outcome(Ws),
         over(Ws)
     end || {Sent, Expected} <- [{<<1001:16, "ü"/utf8>>, <<1001:16>>}, {<<3000:16>>, <<3000:16>>},
                                 {<<4999:16>>, <<4999:16>>}, {<<1005:16>>, <<1002:16>>},
                                 {<<999:16>>, <<1002:16>>}, {<<2000:16>>, <<1002:16>>},
                                 {<<3>>, <<1002:16>>}, {<<1000:16, 255>>, <<1007:16>>}]],
    Ws = start(Config, #{}),
    wait = ask(Ws),
    send(Ws, frame(?CLOSE, <<>>)),
    ?assertEqual({?FIN + ?CLOSE, <<>>}, read(Ws)),
    over(Ws).

%% ---- what is wrong ----

faults(Config) ->
    [begin
         Ws = start(Config, #{}),
         wait = ask(Ws),
         send(Ws, Sent),
         {Code, Text} = failed(Ws),
         ?assertMatch({Sent, Expected} when Expected =:= Code, {Sent, Code}),
         ?assert(byte_size(Text) > 10),
         over(Ws),
         ?assertEqual(nothing, got())
     end || {Expected, Sent} <-
                [{1002, <<(?FIN + 16#40 + ?TEXT), 16#80, ?KEY>>},       % reserved bits
                 {1002, <<(?FIN + 3), 16#80, ?KEY>>},                   % reserved opcodes
                 {1002, <<(?FIN + 11), 16#80, ?KEY>>},
                 {1002, <<(?FIN + ?TEXT), 1, "x">>},                    % no mask
                 {1002, raw_frame(?PING, "x")},                         % a fragment of a control
                 {1002, <<(?FIN + ?PING), (16#80 + 126), 126:16, ?KEY>>},
                 {1002, <<(?FIN + ?BINARY), 16#ff, 1:1, 0:63, ?KEY>>},
                 {1002, frame(?MORE, "x")},                             % of what?
                 {1002, [raw_frame(?TEXT, "x"), frame(?TEXT, "y")]},
                 {1007, frame(?TEXT, <<"x", 255>>)},
                 {1007, frame(?TEXT, <<16#ed, 16#a0, 16#80>>)},
                 {1007, frame(?TEXT, <<16#e2, 16#82>>)}]],
    undisturbed(Config).

%% Not when the frame is over that it is in.
fault_shows_at_once(Config) ->
    Ws = start(Config, #{}),
    wait = ask(Ws),
    <<Begin:11/binary, _/binary>> = frame(?TEXT, <<"ab", 255, 0:8000>>),
    send(Ws, Begin),
    ?assertMatch({1007, _}, failed(Ws)).

fault_behind_a_message(Config) ->
    Ws = start(Config, #{}),
    send(Ws, [frame(?TEXT, "good"), <<255, 255>>]),
    ?assertEqual(<<"good">>, next(Ws)),
    closed = ask(Ws),
    ?assertMatch({1002, _}, failed(Ws)),
    over(Ws).

too_big(Config) ->
    Ws = start(Config, #{max_message => 1000}),
    Just = binary:copy(<<"x">>, 1000),
    send(Ws, frame(?TEXT, Just)),
    ?assertEqual(Just, next(Ws)),
    wait = ask(Ws),
    %% Its head is enough.
    send(Ws, <<(?FIN + ?TEXT), (16#80 + 127), 1001:64, ?KEY>>),
    {1009, Text} = failed(Ws),
    ?assertMatch({match, _}, re:run(Text, "max_message")),
    Id = integer_to_list(maps:get(id, Ws)),
    _ = log_capture:wait(link_case:log(Config), [Id ++ ": WebSocket closed with 1009", "max_message"]),
    over(Ws),
    undisturbed(Config).

too_big_in_fragments(Config) ->
    Ws = start(Config, #{max_message => 1000}),
    wait = ask(Ws),
    send(Ws, [raw_frame(?TEXT, binary:copy(<<"x">>, 900)), raw_frame(?MORE, binary:copy(<<"x">>, 101))]),
    ?assertMatch({1009, _}, failed(Ws)).

too_many_fragments(Config) ->
    Ws = start(Config, #{}),
    wait = ask(Ws),
    send(Ws, [raw_frame(?TEXT, "") | [raw_frame(?MORE, "") || _ <- lists:seq(1, 1024)]]),
    ?assertMatch({1008, _}, failed(Ws)).

%% ---- the owner's end of it ----

close_by_owner(Config) ->
    Ws = start(Config, #{}),
    ok = reply(Ws, "last"),
    ok = close(Ws, 1001, <<"gone fishing">>),
    ?assertEqual({?FIN + ?TEXT, <<"last">>}, read(Ws)),
    ?assertEqual({?FIN + ?CLOSE, <<1001:16, "gone fishing">>}, read(Ws)),
    ?assertEqual({error, closed}, reply(Ws, "x")),
    ?assertEqual(nothing, got()),
    send(Ws, close_frame(1001, "")),
    ?assertEqual({close, <<"normal">>}, outcome(Ws)),
    over(Ws).

close_twice(Config) ->
    Ws = start(Config, #{}),
    ok = close(Ws, 1000, <<>>),
    ok = close(Ws, 1001, <<>>),
    ?assertEqual({?FIN + ?CLOSE, <<1000:16>>}, read(Ws)),
    send(Ws, close_frame(1000, "")),
    {close, _} = outcome(Ws),
    ?assertEqual(<<>>, rest(Ws)),
    ?assertError(badarg, close(Ws, 999, <<>>)).

%% They are read, for the Close behind them, and are nobody's.
messages_after_close(Config) ->
    Ws = start(Config, #{}),
    wait = ask(Ws),
    ok = close(Ws, 1000, <<>>),
    send(Ws, [frame(?TEXT, binary:copy(<<"x">>, 100000)), frame(?PING, "x"), close_frame(1000, "")]),
    ?assertEqual({?FIN + ?CLOSE, <<1000:16>>}, read(Ws)),
    ?assertEqual({close, <<"normal">>}, outcome(Ws)),
    ?assertEqual(<<>>, rest(Ws)),
    over(Ws).

owner_dies(Config) ->
    {Owner, Ws} = start_with_owner(Config),
    exit(Owner, kill),
    ?assertEqual({?FIN + ?CLOSE, <<1011:16>>}, read(Ws)),
    ?assertEqual({close, <<"internal">>}, outcome(Ws)),
    undisturbed(Config).

owner_dies_after_close(Config) ->
    {Owner, Ws} = start_with_owner(Config),
    ok = close(Ws, 1000, <<>>),
    exit(Owner, kill),
    ?assertEqual({?FIN + ?CLOSE, <<1000:16>>}, read(Ws)),
    send(Ws, close_frame(1000, "")),
    ?assertEqual({close, <<"normal">>}, outcome(Ws)).

closed_for_the_owner(Config) ->
    Ws = start(Config, #{}),
    ok = megaphone_nif:close(maps:get(conn, Ws), shutdown),
    over(Ws),
    Self = self(),
    {Owner, Other} = start_with_owner(Config),
    ok = megaphone_nif:close(maps:get(conn, Other), shutdown),
    ?assertEqual({?FIN + ?CLOSE, <<1001:16>>}, read(Other)),
    ?assertEqual({close, <<"shutdown">>}, outcome(Other)),
    Owner ! {what, Self},
    receive {Owner, {tcp_closed, _}} -> ok after ?TIMEOUT -> error(not_told) end.

plain_close(Config) ->
    Ws = start(Config, #{}),
    ok = megaphone_nif:close(maps:get(conn, Ws)),
    ?assertEqual({?FIN + ?CLOSE, <<1000:16>>}, read(Ws)),
    ?assertEqual({close, <<"server_closed">>}, outcome(Ws)),
    over(Ws).

no_owner(Config) ->
    {Dead, Monitor} = spawn_monitor(fun() -> ok end),
    receive {'DOWN', Monitor, process, Dead, _} -> ok end,
    {_, {_, _, Conn}} = open(Config),
    ?assertEqual({error, closed}, megaphone_nif:ws_start(Conn, Dead, options(#{}))).

%% ---- the client is gone ----

client_goes(Config) ->
    Ws = #{peer := Peer, id := Id} = start(Config, #{}),
    wait = ask(Ws),
    ok = link_peer:finish(Peer, Id),
    over(Ws),
    {close, _} = outcome(Ws).

client_resets(Config) ->
    Ws = #{peer := Peer, id := Id} = start(Config, #{}),
    send(Ws, frame(?TEXT, "lost")),
    ok = link_peer:reset(Peer, Id, "client_closed"),
    over(Ws),
    closed = ask(Ws).

link_lost(Config) ->
    Peer = link_case:connect(Config),
    {Id, {_, _, Conn}} = open(Config, Peer),
    Ws = #{peer => Peer, id => Id, conn => Conn},
    ok = megaphone_nif:ws_start(Conn, self(), options(#{})),
    wait = ask(Ws),
    link_peer:stop(Peer),
    over(Ws).

what_came_before_the_end(Config) ->
    Ws = #{peer := Peer, id := Id} = start(Config, #{}),
    send(Ws, [frame(?TEXT, "one"), frame(?TEXT, "two"), raw_frame(?TEXT, "half")]),
    ok = link_peer:close(Peer, Id, "client_closed"),
    ok = link_peer:flush(Peer),
    ?assertEqual(nothing, got()),
    ?assertEqual(<<"one">>, next(Ws)),
    ?assertEqual({error, closed}, reply(Ws, "x")),
    ?assertEqual(<<"two">>, next(Ws)),
    closed = ask(Ws),
    over(Ws).

%% ---- other connections ----

version_1(Config) ->
    Peer = link_case:connect(Config, #{version => 1}),
    ok = link_peer:raw(Peer, link_peer:frame(7, frame(?TEXT, "one"))),
    {ok, {_, _, Conn}} = gen_tcp:accept(link_case:listen(Config), ?TIMEOUT),
    ok = megaphone_nif:ws_start(Conn, self(), options(#{})),
    Ws = #{peer => Peer, id => 7, conn => Conn},
    ?assertEqual(<<"one">>, next(Ws)),
    ok = reply(Ws, "two"),
    ?assertEqual({?FIN + ?TEXT, <<"two">>}, read(Ws)),
    wait = ask(Ws),
    ok = link_peer:raw(Peer, link_peer:frame(7, close_frame(1000, ""))),
    ?assertEqual({?FIN + ?CLOSE, <<1000:16>>}, read(Ws)),
    over(Ws).

not_a_websocket(Config) ->
    {_, {_, _, Conn}} = open(Config),
    ?assertEqual({error, closed}, megaphone_nif:ws_send(Conn, "x")),
    ok = megaphone_nif:ws_close(Conn, 1000, <<>>),
    ok = megaphone_nif:close(Conn),
    ?assertEqual({error, closed}, megaphone_nif:ws_start(Conn, self(), options(#{}))).
