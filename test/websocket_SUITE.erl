%% WebSocket in the NIF (RFC 6455): what the owner of such a connection and its client see, without
%% any ejabberd. Bytes of all kinds are the business of megaphone-proto's own tests.
-module(websocket_SUITE).
-compile([export_all, nowarn_export_all]).
-include_lib("stdlib/include/assert.hrl").

-import(link_case, [peer/1, open/1, open/2, undisturbed/1]).

-define(TIMEOUT, 10000).
-define(QUIET, 200).
-define(KEY, 16#a1, 16#b2, 16#c3, 16#d4).
%% Opcodes, and the bit of the last frame of a message.
-define(MORE, 0).
-define(TEXT, 1).
-define(BINARY, 2).
-define(CLOSE, 8).
-define(PING, 9).
-define(PONG, 10).
-define(FIN, 16#80).

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [messages, sizes, byte_by_byte, one_at_a_time, before_the_start, answers, in_kind,
     fragments, fragments_and_controls, pings, controls_wait_with_the_message,
     close_by_client, close_codes, faults, fault_shows_at_once, fault_behind_a_message,
     too_big, too_big_in_fragments, too_many_fragments,
     close_by_owner, close_not_answered, close_twice, messages_after_close,
     owner_dies, owner_dies_after_close, closed_for_the_owner, plain_close, no_owner,
     client_goes, client_resets, link_lost, what_came_before_the_end,
     pinged, pongs_keep_it, timed_out, messages_keep_it, no_time_while_parked,
     credit, longer_than_the_window, pongs_do_not_pile_up, send_waits, send_timeout,
     flood_over_the_budget, version_1, not_a_websocket, anything, nothing_is_left].

init_per_suite(Config) ->
    {ok, _} = application:ensure_all_started(megaphone),
    Config.

end_per_suite(_Config) -> ok.

init_per_testcase(flood_over_the_budget, Config) ->
    link_case:start(Config, [{max_buffered, 100000}]);
init_per_testcase(_, Config) -> link_case:start(Config).

end_per_testcase(_, Config) -> link_case:stop(Config).

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

close_not_answered(Config) ->
    Ws = start(Config, #{}),
    Started = erlang:monotonic_time(millisecond),
    ok = close(Ws, 1000, <<>>),
    ?assertEqual({close, <<"timeout">>}, outcome(Ws)),
    ok = waited(5000, 20000, Started),
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

%% ---- time ----

pinged(Config) ->
    Started = erlang:monotonic_time(millisecond),
    Ws = start(Config, #{ping_interval => 1000}),
    wait = ask(Ws),
    ?assertEqual({?FIN + ?PING, <<>>}, read(Ws)),
    ok = waited(1000, 15000, Started),
    ?assertEqual({?FIN + ?CLOSE, <<1000:16>>}, read(Ws)),
    ?assertEqual({close, <<"timeout">>}, outcome(Ws)),
    ok = waited(2000, 15000, Started),
    over(Ws).

%% Never too early, and not for ever.
waited(Least, Most, Started) ->
    Waited = erlang:monotonic_time(millisecond) - Started,
    ?assert(Waited >= Least andalso Waited < Most, Waited).

pongs_keep_it(Config) ->
    Ws = start(Config, #{ping_interval => 1000}),
    wait = ask(Ws),
    [begin
         ?assertEqual({?FIN + ?PING, <<>>}, read(Ws)),
         send(Ws, frame(?PONG, <<>>))
     end || _ <- [1, 2, 3]],
    ?assertEqual(nothing, got()).

timed_out(Config) ->
    Started = erlang:monotonic_time(millisecond),
    Ws = start(Config, #{timeout => 1500}),
    wait = ask(Ws),
    ?assertEqual({?FIN + ?CLOSE, <<1000:16>>}, read(Ws)),
    ?assertEqual({close, <<"idle">>}, outcome(Ws)),
    ok = waited(2000, 15000, Started),
    over(Ws).

%% Nothing is sent but what the client sends; half a message is no sign of life.
messages_keep_it(Config) ->
    Ws = start(Config, #{timeout => 3000}),
    [begin
         timer:sleep(1000),
         send(Ws, frame(?TEXT, "still here")),
         <<"still here">> = next(Ws)
     end || _ <- lists:seq(1, 5)],
    wait = ask(Ws),
    [begin
         timer:sleep(1000),
         send(Ws, raw_frame(case N of 1 -> ?TEXT; _ -> ?MORE end, "x"))
     end || N <- lists:seq(1, 6)],
    ?assertEqual({?FIN + ?CLOSE, <<1000:16>>}, read(Ws)),
    over(Ws).

%% Nobody is given up for a silence in which nobody could be heard.
no_time_while_parked(Config) ->
    Log = link_case:log(Config),
    Peer = link_peer:connect(link_case:port(Config), #{name => "parks", resume_timeout => 30}),
    ok = link_peer:flush(Peer),
    {_, {_, _, Conn}} = open(Config, Peer),
    ok = megaphone_nif:ws_start(Conn, self(), options(#{timeout => 1000})),
    link_peer:abort(Peer),
    _ = log_capture:wait(Log, ["parks"]),
    wait = megaphone_nif:ws_next(Conn),
    ?assertEqual(nothing, got(4000)),
    link_peer:stop(Peer).

%% ---- how much is under way ----

%% A client may send a window ahead of its messages' owner and no more.
credit(Config) ->
    Ws = #{peer := Peer, id := Id} = start(Config, #{}),
    Window = link_peer:credit(Peer, Id),
    Message = binary:copy(<<"x">>, 1000),
    Count = 3 * Window div 1000,
    send(Ws, [frame(?TEXT, Message) || _ <- lists:seq(1, Count)]),
    synced(Ws),
    ?assertEqual(0, link_peer:credit(Peer, Id)),
    timer:sleep(?QUIET),
    ?assertEqual(0, link_peer:credit(Peer, Id)),
    [?assertEqual(Message, next(Ws)) || _ <- lists:seq(1, Count)],
    wait = ask(Ws),
    synced(Ws),
    ?assert(link_peer:credit(Peer, Id) >= Window div 2).

longer_than_the_window(Config) ->
    Ws = #{peer := Peer, id := Id} = start(Config, #{}),
    Message = crypto:strong_rand_bytes(20 * link_peer:credit(Peer, Id)),
    wait = ask(Ws),
    send(Ws, frame(?BINARY, Message)),
    ?assertEqual(Message, message()).

%% A client that pings and does not read is not read from either.
pongs_do_not_pile_up(Config) ->
    Peer = link_case:connect(Config, #{window => 1000}),
    {Id, {_, _, Conn}} = open(Config, Peer),
    Ws = #{peer => Peer, id => Id, conn => Conn},
    ok = megaphone_nif:ws_start(Conn, self(), options(#{})),
    wait = ask(Ws),
    Payload = binary:copy(<<"p">>, 125),
    Count = 2000,
    send(Ws, [frame(?PING, Payload) || _ <- lists:seq(1, Count)]),
    synced(Ws),
    timer:sleep(?QUIET),
    {ok, [{send_pend, Pending}]} = megaphone_nif:getstat(Conn, [send_pend]),
    ?assertMatch(_ when Pending < 8192, Pending),
    %% It reads, and gets them all.
    [?assertEqual({?FIN + ?PONG, Payload}, read(Ws)) || _ <- lists:seq(1, Count)],
    send(Ws, frame(?TEXT, "done")),
    ?assertEqual(<<"done">>, message()).

send_waits(Config) ->
    Peer = link_case:connect(Config, #{window => 1000}),
    {Id, {_, _, Conn}} = open(Config, Peer),
    Ws = #{peer => Peer, id => Id, conn => Conn},
    ok = megaphone_nif:ws_start(Conn, self(), options(#{})),
    Message = binary:copy(<<"x">>, 100000),
    {wait, Token, infinity} = reply(Ws, Message),
    ?assertEqual({?FIN + ?TEXT, Message}, read(Ws)),
    receive {'$megaphone_reply', Token, Answer} -> ?assertEqual(ok, Answer)
    after ?TIMEOUT -> error(not_answered)
    end.

send_timeout(Config) ->
    Peer = link_case:connect(Config, #{window => 1000}),
    {Id, {_, _, Conn}} = open(Config, Peer),
    Ws = #{peer => Peer, id => Id, conn => Conn},
    ok = megaphone_nif:ws_start(Conn, self(), options(#{send_timeout => 100})),
    {wait, Token, 100} = reply(Ws, binary:copy(<<"x">>, 100000)),
    true = megaphone_nif:send_timed_out(Conn, Token),
    ?assertEqual({reset, <<"timeout">>}, outcome(Ws)),
    over(Ws).

%% Half messages count as what else is held for clients (max_buffered).
flood_over_the_budget(Config) ->
    Flood = [start(Config, #{}) || _ <- lists:seq(1, 5)],
    [begin
         wait = ask(Ws),
         send(Ws, <<?BINARY, (16#80 + 127), 1000000:64, ?KEY, 0:(30000 * 8)>>)
     end || Ws <- Flood],
    _ = link_peer:wait_line(peer(Config), "^reset .* reason=overload"),
    undisturbed(Config).

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

%% Any messages, fragments and pings, cut anywhere, while the owner asks when it likes: it gets each
%% message, in order, and the client each pong and answer.
anything(Config) ->
    [begin
         _ = rand:seed(exsss, Seed),
         ct:pal("seed ~b", [Seed]),
         conversation(Config)
     end || Seed <- [1, 2, 3, erlang:system_time()]].

conversation(Config) ->
    Peer = link_case:connect(Config, #{window => 300 + rand:uniform(20000)}),
    {Id, {_, _, Conn}} = open(Config, Peer),
    Ws = #{peer => Peer, id => Id, conn => Conn},
    ok = megaphone_nif:ws_start(Conn, self(), options(#{reply_in_kind => true})),
    Said = [said() || _ <- lists:seq(1, 100)],
    _ = spawn_link(fun() -> [begin send(Ws, Piece), pause() end || {_, Pieces} <- Said, Piece <- Pieces] end),
    Messages = [Message || {{_, Message}, _} <- Said],
    Expected = lists:flatmap(fun({{Opcode, Message}, Pieces}) ->
                                     [{?FIN + ?PONG, <<"p">>} || has_ping(Pieces)]
                                         ++ [{?FIN + Opcode, Message}]
                             end, Said),
    Self = self(),
    Client = spawn_link(fun() -> Self ! {self(), [read(Ws) || _ <- Expected]} end),
    ?assertEqual(Messages, [begin pause(), echo(Ws) end || _ <- Messages]),
    receive {Client, Got} -> ?assertEqual(Expected, Got)
    after ?TIMEOUT -> error(no_answers)
    end,
    send(Ws, close_frame(1000, "")),
    true = lists:member(ask(Ws), [wait, closed]),
    over(Ws),
    link_peer:stop(Peer).

%% One message in pieces that are sent one by one, maybe with a ping among its fragments.
said() ->
    {Opcode, Message} = case rand:uniform(2) of
                            1 -> {?TEXT, unicode:characters_to_binary([rand_char() || _ <- lists:seq(0, rand:uniform(300))])};
                            2 -> {?BINARY, crypto:strong_rand_bytes(rand_size())}
                        end,
    {{Opcode, Message}, cut(iolist_to_binary(frames(Opcode, Message)))}.

frames(Opcode, Message) ->
    case rand:uniform(3) of
        1 ->
            At = rand:uniform(byte_size(Message) + 1) - 1,
            <<Begin:At/binary, End/binary>> = Message,
            [raw_frame(Opcode, Begin), frame(?PING, "p"), raw_frame(?MORE, ""), frame(?MORE, End)];
        _ ->
            [frame(Opcode, Message)]
    end.

%% Only fragments have one, and those begin without the bit that says last.
has_ping([<<Last:1, _/bitstring>> | _]) -> Last =:= 0.

cut(<<>>) -> [];
cut(Bytes) ->
    Size = min(byte_size(Bytes), lists:nth(rand:uniform(3), [1, rand:uniform(20), rand:uniform(20000)])),
    <<Piece:Size/binary, Rest/binary>> = Bytes,
    [Piece | cut(Rest)].

rand_size() -> lists:nth(rand:uniform(4), [0, rand:uniform(200), rand:uniform(3000), rand:uniform(40000)]).

rand_char() -> lists:nth(rand:uniform(4), [$a, 16#e9, 16#20ac, 16#1f600]).

pause() -> rand:uniform(20) > 1 orelse timer:sleep(rand:uniform(3) - 1).

echo(Ws) ->
    Message = next(Ws),
    case reply(Ws, Message) of
        ok -> ok;
        {wait, Token, _} -> receive {'$megaphone_reply', Token, ok} -> ok end
    end,
    Message.

%% Of those that have come and gone, in all their ways.
nothing_is_left(Config) ->
    Round = fun() ->
                    [begin
                         Ws = start(Config, #{ping_interval => 60000, timeout => 300000}),
                         wait = ask(Ws),
                         send(Ws, [frame(?TEXT, "x"), raw_frame(?TEXT, binary:copy(<<"x">>, 1000))]),
                         <<"x">> = message(),
                         end_it(N rem 4, Ws),
                         over(Ws)
                     end || N <- lists:seq(1, 100)],
                    erlang:garbage_collect(),
                    timer:sleep(?QUIET),
                    megaphone_nif:memory()
            end,
    _ = Round(),
    Before = Round(),
    After = lists:last([Round() || _ <- [1, 2, 3]]),
    ct:pal("~b bytes, then ~b", [Before, After]),
    ?assertMatch(_ when After - Before < 50000, {Before, After}).

end_it(0, #{peer := Peer, id := Id} = Ws) -> wait = ask(Ws), ok = link_peer:close(Peer, Id, "client_closed");
end_it(1, #{peer := Peer, id := Id}) -> ok = link_peer:reset(Peer, Id, "client_closed");
end_it(2, Ws) -> send(Ws, frame(?MORE, "")), <<_/binary>> = next(Ws), ok = close(Ws, 1000, ""), send(Ws, close_frame(1000, ""));
end_it(3, #{conn := Conn}) -> ok = megaphone_nif:close(Conn).

%% ---- the two sides ----

start(Config, Options) ->
    {Id, {_, _, Conn}} = open(Config),
    ok = megaphone_nif:ws_start(Conn, self(), options(Options)),
    #{peer => peer(Config), id => Id, conn => Conn}.

%% The owner does nothing but remember.
start_with_owner(Config) ->
    {Id, {_, _, Conn}} = open(Config),
    Owner = spawn(fun() -> receive {what, To} -> receive Message -> To ! {self(), Message} end end end),
    ok = megaphone_nif:ws_start(Conn, Owner, options(#{})),
    {Owner, #{peer => peer(Config), id => Id, conn => Conn}}.

options(Options) ->
    maps:merge(#{max_message => 1000000, ping_interval => 0, timeout => 0}, Options).

ask(#{conn := Conn}) -> megaphone_nif:ws_next(Conn).

next(Ws) ->
    case ask(Ws) of
        {ok, Message} -> Message;
        wait -> message()
    end.

message() ->
    receive {'$megaphone_ws', Message} -> Message
    after ?TIMEOUT -> error(no_message)
    end.

%% What the owner got, if anything.
got() -> got(?QUIET).

got(Timeout) ->
    receive Message -> Message
    after Timeout -> nothing
    end.

%% It has been told, once, that it is over.
over(#{conn := Conn}) ->
    receive {tcp_closed, {'$inet', megaphone_socket, Conn}} -> ok
    after ?TIMEOUT -> error(not_told)
    end,
    ?assertEqual(nothing, got(20)).

reply(#{conn := Conn}, Message) -> megaphone_nif:ws_send(Conn, Message).

close(#{conn := Conn}, Code, Reason) -> megaphone_nif:ws_close(Conn, Code, iolist_to_binary(Reason)).

send(#{peer := Peer, id := Id}, Bytes) -> ok = link_peer:send(Peer, Id, Bytes).

%% All that could be sent has been seen.
synced(#{peer := Peer}) -> ok = link_peer:flush(Peer).

outcome(#{peer := Peer, id := Id}) -> link_peer:outcome(Peer, Id).

rest(#{peer := Peer, id := Id}) ->
    {Bytes, _} = link_peer:recv_rest(Peer, Id),
    Bytes.

%% The next frame that the client gets: no server masks.
read(#{peer := Peer, id := Id} = Ws) ->
    <<First, 0:1, Short:7>> = link_peer:recv(Peer, Id, 2),
    Size = case Short of
               126 -> <<Length:16>> = link_peer:recv(Peer, Id, 2), Length;
               127 -> <<Length:64>> = link_peer:recv(Peer, Id, 8), Length;
               _ -> Short
           end,
    {First, take(Ws, Size)}.

take(_Ws, 0) -> <<>>;
take(#{peer := Peer, id := Id}, Size) ->
    %% By the piece, for no more than a window comes on credit.
    Piece = link_peer:recv(Peer, Id, min(Size, 500)),
    <<Piece/binary, (take(#{peer => Peer, id => Id}, Size - byte_size(Piece)))/binary>>.

%% The WebSocket was failed: with this code, and for this reason.
failed(Ws) ->
    {?FIN + ?CLOSE, <<Code:16, Text/binary>>} = read(Ws),
    {close, _} = outcome(Ws),
    {Code, Text}.

frame(Opcode, Payload) -> raw_frame(?FIN + Opcode, Payload).

%% A client's frame.
raw_frame(First, Payload0) ->
    Payload = iolist_to_binary(Payload0),
    Length = case byte_size(Payload) of
                 Size when Size < 126 -> <<1:1, Size:7>>;
                 Size when Size < 65536 -> <<1:1, 126:7, Size:16>>;
                 Size -> <<1:1, 127:7, Size:64>>
             end,
    Key = binary:copy(<<?KEY>>, byte_size(Payload) div 4 + 1),
    Masked = crypto:exor(Payload, binary:part(Key, 0, byte_size(Payload))),
    <<First, Length/binary, ?KEY, Masked/binary>>.

close_frame(Code, Reason) -> frame(?CLOSE, [<<Code:16>>, Reason]).
