%% Bad input on a link. What is wrong with the frames closes that link and no other; what
%% is wrong with one connection ends that connection and no other. Each says in the log
%% which link it was and which connection.
-module(link_bad_SUITE).
-compile([export_all, nowarn_export_all]).
-include_lib("stdlib/include/assert.hrl").

-import(link_case, [peer/1, open/1, open/3, works/3, log/1, undisturbed/1]).
-import(socket_pair, [in_process/1, result/1, nothing/1]).

-define(TIMEOUT, 10000).
%% How much 100,000 connections that came and went may have left behind, in bytes: none
%% of it may be theirs, but the allocators keep what they got from the system.
-define(LEFTOVER, 32 * 1024 * 1024).

suite() -> [{timetrap, {seconds, 120}}].

all() ->
    [bad_heads, bad_heads_version_1, bad_heads_byte_by_byte, head_after_good_frames,
     limit_and_one_more, truncated_head, truncated_content, other_protocols,
     bad_control, bad_control_before_hello, control_too_long, control_that_never_ends,
     control_frames_in_version_1, data_before_hello, empty_control_frame,
     unknown_id, closed_id, never_opened_id, dropped_is_logged,
     content_after_end, second_end, duplicate_open, unknown_service, service_name_is_escaped,
     accept_queue_full, connection_limit,
     credit_overrun, credit_overrun_in_one_frame, grant_overrun,
     opens_and_closes, opens_refused, opens_and_resets_version_1, churn_with_owners,
     asks_and_does_not_read, small_buffers_pin_nothing, closed_connections_pin_nothing].

init_per_suite(Config) ->
    {ok, _} = application:ensure_all_started(megaphone),
    Config.

end_per_suite(_Config) -> ok.

init_per_testcase(_, Config) -> link_case:start(Config).
end_per_testcase(_, Config) -> link_case:stop(Config).

%% ---- frame heads ----

heads() ->
    Id = "|00000000000000000024|",
    [{"000000x053" ++ Id, "not a digit at offset 6"},
     {"+000000053" ++ Id, "not a digit at offset 0"},
     {"        53" ++ Id, "not a digit"},
     {"-000000053" ++ Id, "not a digit"},
     {[0, "000000053" ++ Id], "not a digit"},
     {"0000000053000000000000000000024||", "no '\\|' at offset 10"},
     {"0000000053|0000000000000000002400", "no '\\|' at offset 31"},
     {"0000000053:00000000000000000024:", "no '\\|' at offset 10"},
     {"0000000053|0000000000000000002x|", "not a digit at offset 30"},
     {"0000000053|-0000000000000000024|", "not a digit at offset 11"},
     {"0000000000" ++ Id, "length 0 "},
     {"0000000031" ++ Id, "length 31 "},
     {"0000065569" ++ Id, "length 65569 is over the limit"},
     {"9999999999" ++ Id, "length 9999999999 is over the limit"},
     {"0000000053|18446744073709551616|", "over 18446744073709551615"},
     {"0000000053|99999999999999999999|", "over 18446744073709551615"}].

bad_heads(Config) ->
    [begin
         Peer = link_case:connect(Config),
         breaks(Config, Peer, Head, "frame_error", Sentence),
         undisturbed(Config)
     end || {Head, Sentence} <- heads()].

bad_heads_version_1(Config) ->
    [begin
         Peer = link_case:connect(Config, #{version => 1}),
         ok = link_peer:send(Peer, 7, "good"),
         {ok, S} = accept(Config),
         {ok, <<"good">>} = gen_tcp:recv(S, 4, ?TIMEOUT),
         ok = link_peer:raw(Peer, Head),
         ?assertEqual(closed, link_peer:link_outcome(Peer)),
         ?assertEqual({error, closed}, gen_tcp:recv(S, 0, ?TIMEOUT)),
         %% Version 1 has no words for it: nothing but frames was sent.
         ?assertEqual([], link_peer:lines(Peer)),
         _ = log_capture:wait(log(Config), [Sentence, "link is closed", address(Peer)])
     end || {Head, Sentence} <- heads()],
    undisturbed(Config).

bad_heads_byte_by_byte(Config) ->
    [begin
         Peer = link_case:connect(Config),
         [catch link_peer:raw(Peer, <<Byte>>) || <<Byte>> <= iolist_to_binary(Head)],
         %% It is told so as well, which a reset may overtake: there are bytes that were not read.
         _ = log_capture:wait(log(Config), [Sentence, "\\(frame_error\\); the link is closed", address(Peer)]),
         ?assertEqual(closed, link_peer:link_outcome(Peer))
     end || {Head, Sentence} <- heads()],
    undisturbed(Config).

%% What came before is delivered, what comes behind is not read.
head_after_good_frames(Config) ->
    Peer = link_case:connect(Config),
    {Id, S} = link_case:open(Config, Peer),
    ok = link_peer:raw(Peer, [link_peer:frame(Id, "good"), "bad", link_peer:frame(Id, "never")]),
    ?assertEqual({ok, <<"good">>}, gen_tcp:recv(S, 4, ?TIMEOUT)),
    ?assertEqual({error, closed}, gen_tcp:recv(S, 0, ?TIMEOUT)),
    ?assertEqual(closed, link_peer:link_outcome(Peer)).

%% 65,536 bytes of content are taken, one more is not; nothing is kept for what is refused.
limit_and_one_more(Config) ->
    {ok, L} = megaphone:listen(0, [{window, 200000}]),
    {ok, Port} = inet:port(L),
    Peer = link_peer:connect(Port),
    ok = link_peer:open(Peer, 5, <<"default">>),
    {ok, S} = gen_tcp:accept(L, ?TIMEOUT),
    ok = link_peer:raw(Peer, link_peer:frame(5, binary:copy(<<"x">>, 65536))),
    {ok, _} = gen_tcp:recv(S, 65536, ?TIMEOUT),
    ok = link_peer:raw(Peer, link_peer:head(32 + 65537, 5)),
    ?assertEqual(closed, link_peer:link_outcome(Peer)),
    _ = log_capture:wait(log(Config), ["length 65569 is over the limit of 65568"]),
    ok = gen_tcp:close(L).

truncated_head(Config) ->
    [begin
         Peer = link_case:connect(Config),
         {Id, S} = link_case:open(Config, Peer),
         Name = link_name(Peer),
         ok = link_peer:raw(Peer, binary:part(link_peer:head(40, Id), 0, Size)),
         link_peer:stop(Peer),
         ?assertEqual({error, closed}, gen_tcp:recv(S, 0, ?TIMEOUT)),
         _ = log_capture:wait(log(Config), [Name, "the link ended "])
     end || Size <- [1, 10, 11, 31]],
    undisturbed(Config).

%% What there was of the content is delivered.
truncated_content(Config) ->
    Peer = link_case:connect(Config),
    {Id, S} = open(Config, Peer, [{active, true}]),
    Name = link_name(Peer),
    ok = link_peer:raw(Peer, [link_peer:head(40, Id), "abc"]),
    link_peer:stop(Peer),
    ?assertEqual(<<"abc">>, socket_pair:collect(S, 3)),
    receive {tcp_closed, S} -> ok after ?TIMEOUT -> error(timeout) end,
    _ = log_capture:wait(log(Config), [Name, "the link ended "]),
    undisturbed(Config).

%% Whoever finds the port by accident: the log shows what it sent, and no control character.
other_protocols(Config) ->
    [begin
         Peer = link_case:connect(Config, #{handshake => false}),
         ok = link_peer:raw(Peer, Bytes),
         ?assertEqual(closed, link_peer:link_outcome(Peer)),
         {_, Text} = log_capture:wait(log(Config), [Shown, "link is closed", address(Peer)]),
         ?assertEqual(nomatch, re:run(Text, "[\\x00-\\x1f\\x7f]")),
         ?assert(byte_size(Text) < 400)
     end || {Bytes, Shown} <-
                [{"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: somebody\r\n\r\n", "GET / HTTP/1.1"},
                 {<<22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3, (binary:copy(<<7>>, 600))/binary>>, "x16"},
                 {["<?xml version='1.0'?><stream:stream to='localhost' xmlns='jabber:client'>"],
                  "<\\?xml version"},
                 {binary:copy(<<0>>, 64), "x00"}]],
    undisturbed(Config).

%% ---- control messages ----

bad_control(Config) ->
    [begin
         Peer = link_case:connect(Config),
         breaks(Config, Peer, link_peer:frame(0, link_peer:line(Line)), "protocol_error",
                "control message")
     end || Line <-
                ["", " ", " ping x", "ping  x", "ping x ", <<"ping ", 16#c3, 16#a4>>, <<"ping ", 0>>,
                 "ping \t", "ping", "ping a b", "pong",
                 "open", "open x service=default " ++ addresses(),
                 "open -1 service=default " ++ addresses(),
                 "open 18446744073709551616 service=default " ++ addresses(),
                 "open 0 service=default " ++ addresses(),
                 "open 5", "open 5 service=default", "open 5 " ++ addresses(),
                 "open 5 service=default peer=1.2.3.4 local=1.2.3.4:5",
                 "open 5 service=default peer=1.2.3.4:99999 local=1.2.3.4:5",
                 "open 5 service=default peer=example.org:80 local=1.2.3.4:5",
                 "open 5 service=default peer=::1:80 local=1.2.3.4:5",
                 "open 5 service=default service=other " ++ addresses(),
                 "open 5 service=%zz " ++ addresses(),
                 "open 5 service=" ++ lists:duplicate(256, $a) ++ " " ++ addresses(),
                 "window", "window 5", "window 5 x", "window 5 -1", "window 5 0", "window 0 5",
                 "window 5 99999999999", "window 5 1 1",
                 "close", "close 5", "close 5 reason=", "close 5 reason=because", "close 0 reason=normal",
                 "close x reason=normal", "reset 5", "reset 5 reason=boredom",
                 "goaway", "goaway reason=nothing", "goaway reason=shutdown retry_after=soon",
                 "ack", "ack x", "ack -1"]],
    undisturbed(Config).

bad_control_before_hello(Config) ->
    [begin
         Peer = link_case:connect(Config, #{handshake => false}),
         ok = link_peer:raw(Peer, link_peer:frame(0, link_peer:line(Line))),
         ?assertEqual(closed, link_peer:link_outcome(Peer)),
         _ = log_capture:wait(log(Config), ["link is closed", address(Peer)])
     end || Line <- ["ping x", "nonsense", "open 5 service=default " ++ addresses(), "hello",
                     "hello version=2", "hello version=0 name=a nonce=00 window=1 max_frame=4096",
                     "hello version=2 name=a nonce=xx window=1 max_frame=65536",
                     "hello version=2 name=a nonce=00 window=x max_frame=65536",
                     "hello version=2 name=a nonce=00 window=2147483648 max_frame=65536",
                     "hello version=2 name=a nonce=00 window=16384 max_frame=100",
                     "hello version=2 name=a nonce=00 window=16384",
                     "hello version=two name=a nonce=00 window=16384 max_frame=65536"]],
    Twice = link_case:connect(Config),
    breaks(Config, Twice, link_peer:frame(0, link_peer:hello_line(#{})), "protocol_error",
           "second hello"),
    undisturbed(Config).

control_too_long(Config) ->
    Longest = ["ping ", lists:duplicate(4096 - 6, $x)],
    ok = link_peer:control(peer(Config), Longest),
    _ = link_peer:wait_line(peer(Config), "^pong x+$"),
    Peer = link_case:connect(Config),
    breaks(Config, Peer, link_peer:frame(0, link_peer:line([Longest, "x"])), "protocol_error",
           "longer than 4096 bytes"),
    undisturbed(Config).

%% A line without end is refused when it is too long, not when memory is.
control_that_never_ends(Config) ->
    Peer = link_case:connect(Config),
    breaks(Config, Peer, [link_peer:frame(0, "ping "),
                          [link_peer:frame(0, lists:duplicate(100, $x)) || _ <- lists:seq(1, 41)]],
           "protocol_error", "longer than 4096 bytes"),
    undisturbed(Config).

control_frames_in_version_1(Config) ->
    Peer = link_case:connect(Config, #{version => 1}),
    ok = link_peer:send(Peer, 7, "good"),
    {ok, _} = accept(Config),
    ok = link_peer:raw(Peer, link_peer:frame(0, link_peer:hello_line(#{}))),
    ?assertEqual(closed, link_peer:link_outcome(Peer)),
    _ = log_capture:wait(log(Config), ["connection 0", "version 1", address(Peer)]),
    undisturbed(Config).

data_before_hello(Config) ->
    %% The first frame is on id 0, so it is version 2; then data before the hello is whole.
    Peer = link_case:connect(Config, #{handshake => false}),
    ok = link_peer:raw(Peer, [link_peer:frame(0, "hello "), link_peer:frame(7, "data")]),
    ?assertEqual(closed, link_peer:link_outcome(Peer)),
    _ = log_capture:wait(log(Config), ["before the hello", address(Peer)]),
    undisturbed(Config).

empty_control_frame(Config) ->
    Peer = link_case:connect(Config),
    breaks(Config, Peer, link_peer:frame(0, ""), "protocol_error", "empty frame on connection 0"),
    undisturbed(Config).

%% ---- frames for nobody ----

unknown_id(Config) ->
    dropped(Config, fun(Peer, _) -> ok = link_peer:raw(Peer, link_peer:frame(4711, "data")) end).

closed_id(Config) ->
    dropped(Config, fun(Peer, {Id, S}) ->
                            ok = gen_tcp:close(S),
                            {close, _} = link_peer:outcome(Peer, Id),
                            ok = link_peer:raw(Peer, link_peer:frame(Id, "late"))
                    end).

never_opened_id(Config) ->
    [dropped(Config, Bytes, fun(Peer, _) -> ok = link_peer:raw(Peer, Bytes) end)
     || Bytes <- [link_peer:frame(18446744073709551615, "data"),
                  link_peer:frame(4711, ""),
                  link_peer:frame(0, link_peer:line("close 4711 reason=normal")),
                  link_peer:frame(0, link_peer:line("reset 4711 reason=normal"))]].

%% A whole frame of it is counted once, and delivered to nobody: version 2 opens nothing
%% without `open`.
dropped(Config, Do) -> dropped(Config, there, Do).

dropped(Config, What, Do) ->
    Peer = link_case:connect(Config),
    Other = {Id, S} = open(Config, Peer, [{active, true}]),
    Before = maps:get(dropped, link_case:counters(Peer)),
    Do(Peer, Other),
    ok = link_peer:flush(Peer),
    ?assertEqual({What, Before + 1}, {What, maps:get(dropped, link_case:counters(Peer))}),
    nothing(S),
    ?assertEqual({error, timeout}, gen_tcp:accept(link_case:listen(Config), 0)),
    {Id2, S2} = link_case:open(Config, Peer),
    works(Peer, Id2, S2),
    ?assert(Id =/= Id2).

dropped_is_logged(Config) ->
    Peer = peer(Config),
    Name = link_name(Peer),
    ok = link_peer:raw(Peer, [link_peer:frame(Id, "x") || Id <- lists:seq(4001, 4711)]),
    _ = log_capture:wait(log(Config), [Name, "dropped", "00000000000000004711"]).

%% ---- one connection is wrong ----

content_after_end(Config) ->
    resets(Config, [{exit_on_close, false}],
           fun(Peer, Id) ->
                   ok = link_peer:raw(Peer, [link_peer:frame(Id, ""), link_peer:frame(Id, "more")])
           end, "after the end of the stream").

second_end(Config) ->
    resets(Config, [{exit_on_close, false}],
           fun(Peer, Id) ->
                   ok = link_peer:raw(Peer, [link_peer:frame(Id, ""), link_peer:frame(Id, "")])
           end, "after the end of the stream").

%% Nobody can tell whose bytes come next.
duplicate_open(Config) ->
    resets(Config, [], fun(Peer, Id) -> ok = link_peer:open(Peer, Id, <<"default">>) end,
           "open already").

resets(Config, Options, Do, Sentence) ->
    Peer = peer(Config),
    {Beside, BesideSocket} = open(Config),
    {Id, S} = open(Config, Peer, [{active, true} | Options]),
    Name = link_name(Peer),
    Do(Peer, Id),
    ?assertEqual({reset, <<"protocol_error">>}, link_peer:outcome(Peer, Id)),
    receive {tcp_closed, S} -> ok after ?TIMEOUT -> error(timeout) end,
    _ = log_capture:wait(log(Config), [Name, digits(Id), Sentence]),
    ?assertEqual({error, closed}, gen_tcp:send(S, "x")),
    ?assertEqual({error, timeout}, gen_tcp:accept(link_case:listen(Config), 0)),
    works(Peer, Beside, BesideSocket),
    undisturbed(Config).

unknown_service(Config) ->
    Peer = peer(Config),
    ok = link_peer:open(Peer, 77, <<"gopher">>),
    ?assertEqual({reset, <<"refused">>}, link_peer:outcome(Peer, 77)),
    _ = log_capture:wait(log(Config), [link_name(Peer), digits(77), "gopher", "refused"]),
    link_case:works(Config),
    undisturbed(Config).

service_name_is_escaped(Config) ->
    Peer = peer(Config),
    ok = link_peer:open(Peer, 77, <<"a%0Ab%1B%5B31mc">>),
    ?assertEqual({reset, <<"refused">>}, link_peer:outcome(Peer, 77)),
    {_, Text} = log_capture:wait(log(Config), [digits(77), "refused"]),
    ?assertEqual(nomatch, re:run(Text, "[\\x00-\\x1f\\x7f]")).

%% What nobody accepts is bounded, and refused beyond that.
accept_queue_full(Config) ->
    {ok, L} = megaphone:listen(0, [{backlog, 5}]),
    {ok, Port} = inet:port(L),
    Peer = link_peer:connect(Port),
    [ok = link_peer:open(Peer, Id, <<"default">>) || Id <- lists:seq(1, 8)],
    ?assertEqual([{reset, <<"overload">>} || _ <- [6, 7, 8]],
                 [link_peer:outcome(Peer, Id) || Id <- [6, 7, 8]]),
    _ = log_capture:wait(log(Config), [link_name(Peer), digits(6), "accept queue", "full"]),
    Sockets = [element(2, {ok, _} = gen_tcp:accept(L, ?TIMEOUT)) || _ <- lists:seq(1, 5)],
    [works(Peer, Id, S) || {Id, S} <- lists:zip(lists:seq(1, 5), Sockets)],
    ok = link_peer:open(Peer, 9, <<"default">>),
    {ok, S9} = gen_tcp:accept(L, ?TIMEOUT),
    works(Peer, 9, S9),
    ok = gen_tcp:close(L).

connection_limit(Config) ->
    {ok, L} = megaphone:listen(0, [{max_connections, 3}]),
    {ok, Port} = inet:port(L),
    Peer = link_peer:connect(Port),
    [ok = link_peer:open(Peer, Id, <<"default">>) || Id <- lists:seq(1, 4)],
    ?assertEqual({reset, <<"limit">>}, link_peer:outcome(Peer, 4)),
    _ = log_capture:wait(log(Config), [link_name(Peer), digits(4), "3 connections"]),
    {ok, S} = gen_tcp:accept(L, ?TIMEOUT),
    works(Peer, 1, S),
    ok = gen_tcp:close(S),
    {close, _} = link_peer:outcome(Peer, 1),
    ok = link_peer:open(Peer, 5, <<"default">>),
    [{ok, _}, {ok, _}, {ok, S5}] = [gen_tcp:accept(L, ?TIMEOUT) || _ <- [2, 3, 5]],
    works(Peer, 5, S5),
    ok = gen_tcp:close(L).

%% ---- credit ----

credit_overrun(Config) ->
    Peer = link_case:connect(Config),
    {Id, _} = link_case:open(Config, Peer),
    ok = link_peer:raw(Peer, [link_peer:frame(Id, binary:copy(<<"x">>, 16384))]),
    ok = link_peer:flush(Peer),
    breaks(Config, Peer, link_peer:frame(Id, "y"), "flow_control", digits(Id)),
    undisturbed(Config).

%% As soon as the length says so, and with nothing of it kept.
credit_overrun_in_one_frame(Config) ->
    Peer = link_case:connect(Config),
    {Id, _} = link_case:open(Config, Peer),
    breaks(Config, Peer, link_peer:frame(Id, binary:copy(<<"x">>, 16385)), "flow_control",
           digits(Id)),
    undisturbed(Config).

grant_overrun(Config) ->
    Peer = link_case:connect(Config),
    {Id, _} = link_case:open(Config, Peer),
    Max = 2147483647 - 16384,
    ok = link_peer:control(Peer, io_lib:format("window ~b ~b", [Id, Max])),
    ok = link_peer:flush(Peer),
    breaks(Config, Peer, link_peer:frame(0, io_lib:format("window ~b 1\n", [Id])), "flow_control",
           digits(Id)),
    undisturbed(Config).

%% ---- many ----

%% 100,000 connections come, say something, and go. Those that found no room in the accept
%% queue were refused; nothing of any is left.
opens_and_closes(Config) ->
    many(Config, fun(Id) ->
                         [control(["open ", id(Id), " service=default ", addresses()]),
                          link_peer:frame(Id, "hello"),
                          control(["close ", id(Id), " reason=client_closed"])]
                 end).

opens_refused(Config) ->
    many(Config, fun(Id) ->
                         [control(["open ", id(Id), " service=nothing ", addresses()]),
                          link_peer:frame(Id, "hello"),
                          link_peer:frame(Id, "")]
                 end).

many(Config, Frames) ->
    Peer = link_case:connect(Config, #{keep => false}),
    Acceptor = acceptor(Config, fun gen_tcp:close/1),
    Round = fun(Round) ->
                    [begin
                         First = Round * 1000000 + Batch * 1000,
                         ok = link_peer:raw(Peer, [Frames(Id) || Id <- lists:seq(First, First + 999)]),
                         ok = link_peer:flush(Peer)
                     end || Batch <- lists:seq(1, 50)]
            end,
    level(fun() -> Round(1) end, fun() -> Round(2) end),
    ok = nothing_is_left(Peer),
    stop_acceptor(Config, Acceptor),
    undisturbed(Config).

%% Without a control channel a connection that nobody ends here stays as long as its peer
%% wants; both ends are said by empty frames.
opens_and_resets_version_1(Config) ->
    Peer = link_case:connect(Config, #{version => 1, keep => false}),
    Acceptor = acceptor(Config, fun gen_tcp:close/1),
    Round = fun(Round) ->
                    [begin
                         First = Round * 1000000 + Batch * 500,
                         ok = link_peer:raw(Peer, [[link_peer:frame(Id, "hello"), link_peer:frame(Id, "")]
                                                   || Id <- lists:seq(First, First + 499)]),
                         [ended = link_peer:outcome(Peer, Id) || Id <- [First + 499]]
                     end || Batch <- lists:seq(1, 50)]
            end,
    level(fun() -> Round(1) end, fun() -> Round(2) end),
    stop_acceptor(Config, Acceptor),
    undisturbed(Config).

%% Each connection has a process of its own that answers and ends, as a service's would.
churn_with_owners(Config) ->
    Peer = link_case:connect(Config, #{keep => false}),
    Acceptor = acceptor(Config, fun(S) ->
                                        Pid = spawn(fun() -> receive go -> answer(S) end end),
                                        ok = gen_tcp:controlling_process(S, Pid),
                                        Pid ! go
                                end),
    Round = fun(Round) ->
                    [begin
                         First = Round * 1000000 + Batch * 500,
                         Ids = lists:seq(First, First + 499),
                         ok = link_peer:raw(Peer, [[control(["open ", id(Id), " service=default ",
                                                             addresses()]),
                                                    link_peer:frame(Id, "hello")] || Id <- Ids]),
                         [?assertMatch({<<"hello">>, {close, _}}, link_peer:recv_rest(Peer, Id))
                          || Id <- Ids]
                     end || Batch <- lists:seq(1, 10)]
            end,
    level(fun() -> Round(1) end, fun() -> Round(2) end),
    ok = nothing_is_left(Peer),
    stop_acceptor(Config, Acceptor),
    undisturbed(Config).

answer(S) ->
    {ok, Bytes} = gen_tcp:recv(S, 5, ?TIMEOUT),
    ok = gen_tcp:send(S, Bytes).                % and its death closes the connection

%% The second round leaves no more behind than the first did. (Nor do the log's keepers
%% count: Common Test and log_capture remember every line.)
level(First, Second) ->
    #{level := Level} = logger:get_primary_config(),
    ok = logger:set_primary_config(level, error),
    First(),
    Before = footprint(),
    Second(),
    After = settled(Before),
    ok = logger:set_primary_config(level, Level),
    ?assert(maps:get(processes, After) =< maps:get(processes, Before) + 10, {Before, After}),
    [?assert(maps:get(What, After) =< maps:get(What, Before) + ?LEFTOVER, {What, Before, After})
     || What <- [beam, rss]].

%% No connection, and nothing that is to be written.
nothing_is_left(Peer) ->
    poll:until(fun() -> maps:with([connections, queued], link_case:counters(Peer)) end,
               #{connections => 0, queued => 0}).

%% Processes that were told to end need a moment to.
settled(Before) ->
    settled(maps:get(processes, Before) + 10, erlang:monotonic_time(millisecond) + 5000).

settled(Most, Deadline) ->
    Wait = erlang:system_info(process_count) > Most
        andalso erlang:monotonic_time(millisecond) < Deadline,
    case Wait of
        true -> erlang:yield(), settled(Most, Deadline);
        false -> footprint()
    end.

footprint() ->
    [erlang:garbage_collect(Pid) || Pid <- processes()],
    {ok, Status} = file:read_file("/proc/self/status"),
    {match, [Kb]} = re:run(Status, "VmRSS:\\s+(\\d+) kB", [{capture, [1], binary}]),
    #{processes => erlang:system_info(process_count),
      beam => erlang:memory(total), binary => erlang:memory(binary), rss => binary_to_integer(Kb) * 1024}.

%% Answers that nobody reads are not kept without end: the link is closed.
asks_and_does_not_read(Config) ->
    Peer = link_case:connect(Config),
    {_, S} = open(Config, Peer, [{active, true}]),
    Name = link_name(Peer),
    Before = footprint(),
    ok = link_peer:pause(Peer),
    Ping = control(["ping ", lists:duplicate(4000, $x)]),
    Flood = spawn(fun() -> flood(Peer, iolist_to_binary(lists:duplicate(100, Ping))) end),
    receive {tcp_closed, S} -> ok after 60000 -> error(timeout) end,
    _ = log_capture:wait(log(Config), [Name]),
    exit(Flood, kill),
    After = footprint(),
    ?assert(maps:get(rss, After) - maps:get(rss, Before) < 100 * 1024 * 1024, {Before, After}),
    undisturbed(Config).

flood(Peer, Bytes) ->
    case catch link_peer:raw(Peer, Bytes) of
        ok -> flood(Peer, Bytes);
        _ -> ok
    end.

%% ---- what a connection that keeps little costs ----

%% 40 bytes that wait to be read came in a chunk of 64 kB: the chunk is not kept for them.
small_buffers_pin_nothing(Config) ->
    Peer = link_case:connect(Config, #{keep => false}),
    Pairs = [link_case:open(Config, Peer) || _ <- lists:seq(1, 500)],
    {Busy, BusySocket} = link_case:open(Config, Peer),
    Before = footprint(),
    [begin
         %% One chunk: much for one that reads, little for one that does not.
         ok = link_peer:raw(Peer, [link_peer:frame(Busy, binary:copy(<<"x">>, 8000)),
                                   link_peer:frame(Id, binary:copy(<<"y">>, 40))]),
         {ok, _} = gen_tcp:recv(BusySocket, 8000, ?TIMEOUT)
     end || {Id, _} <- Pairs],
    ok = link_peer:flush(Peer),
    [begin
         #{megaphone := #{queued := 40, buffer := Buffer}} = inet:info(S),
         ?assert(Buffer =< 2 * 40 + 1024)
     end || {_, S} <- Pairs],
    After = footprint(),
    %% Chunks would be binaries: of whatever else comes and goes in the node nothing is asked.
    ?assert(maps:get(binary, After) - maps:get(binary, Before) < 500 * 2000, {Before, After}),
    %% And what was read costs nothing.
    [{ok, _} = gen_tcp:recv(S, 40, ?TIMEOUT) || {_, S} <- Pairs],
    [?assertMatch(#{megaphone := #{queued := 0, buffer := 0}}, inet:info(S)) || {_, S} <- Pairs].

%% A socket that somebody still holds after its end keeps no bytes.
closed_connections_pin_nothing(Config) ->
    Peer = peer(Config),
    Sockets = [begin
                   {Id, S} = open(Config),
                   ok = link_peer:send(Peer, Id, binary:copy(<<"x">>, 10000)),
                   S
               end || _ <- lists:seq(1, 20)],
    ok = link_peer:flush(Peer),
    [ok = gen_tcp:close(S) || S <- Sockets],
    [?assertMatch({ok, #{state := closed, queued := 0, buffer := 0}}, megaphone:info(S))
     || S <- Sockets].

%% ---- helpers ----

%% The bytes close this link: it is told why, the log says it, and its connections end.
breaks(Config, Peer, Bytes, Code, Sentence) ->
    {_, S} = open(Config, Peer, [{active, true}]),
    Name = link_name(Peer),
    ok = link_peer:raw(Peer, Bytes),
    Line = link_peer:wait_line(Peer, "^error "),
    ?assertMatch({match, _}, re:run(Line, ["^error code=", Code, " text="]), {Bytes, Line}),
    ?assertEqual({Bytes, closed}, {Bytes, link_peer:link_outcome(Peer)}),
    receive {tcp_closed, S} -> ok after ?TIMEOUT -> error({timeout, Bytes}) end,
    {warning, Text} = log_capture:wait(log(Config), [Name, "the link is closed"]),
    ?assertMatch({match, _}, re:run(Text, Sentence), {Bytes, Text}),
    ?assertEqual(nomatch, re:run(Text, "[\\x00-\\x1f\\x7f]"), Text),
    gen_tcp:close(S).

acceptor(Config, Do) ->
    L = link_case:listen(Config),
    spawn(fun() -> accept_all(L, Do) end).

accept_all(L, Do) ->
    case gen_tcp:accept(L) of
        {ok, S} -> Do(S), accept_all(L, Do);
        {error, closed} -> ok
    end.

%% And takes what it left.
stop_acceptor(Config, Pid) ->
    Ref = monitor(process, Pid),
    exit(Pid, kill),
    receive {'DOWN', Ref, _, _, _} -> drain(link_case:listen(Config)) end.

drain(L) ->
    case gen_tcp:accept(L, 0) of
        {ok, S} -> gen_tcp:close(S), drain(L);
        {error, timeout} -> ok
    end.

link_name(Peer) -> maps:get(<<"link">>, link_peer:hello(Peer)).

address(Peer) ->
    {_, Port} = link_peer:address(Peer),
    ["127\\.0\\.0\\.1:", integer_to_list(Port)].

accept(Config) -> gen_tcp:accept(link_case:listen(Config), ?TIMEOUT).
control(Line) -> link_peer:frame(0, link_peer:line(Line)).
id(Id) -> integer_to_list(Id).
digits(Id) -> io_lib:format("~20..0b", [Id]).
addresses() -> "peer=192.0.2.7:40000 local=198.51.100.1:5280".
