%% WebSocket in the NIF: its times, and how much may be under way or held.
-module(websocket_limits_SUITE).
-include("support/ws_cases.hrl").

all() ->
    [close_not_answered, pinged, pongs_keep_it, timed_out, messages_keep_it, no_time_while_parked,
     credit, longer_than_the_window, pongs_do_not_pile_up, send_waits, send_timeout, flood_over_the_budget,
     anything, nothing_is_left].

init_per_testcase(flood_over_the_budget, Config) ->
    link_case:start(Config, [{max_buffered, 100000}]);
init_per_testcase(_, Config) -> link_case:start(Config).

%% ---- time ----

close_not_answered(Config) ->
    Ws = start(Config, #{}),
    Started = erlang:monotonic_time(millisecond),
    ok = close(Ws, 1000, <<>>),
    ?assertEqual({close, <<"timeout">>}, outcome(Ws)),
    ok = waited(5000, 20000, Started),
    over(Ws).

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

%% ---- parts ----

%% Never too early, and not for ever.
waited(Least, Most, Started) ->
    Waited = erlang:monotonic_time(millisecond) - Started,
    ?assert(Waited >= Least andalso Waited < Most, Waited).
