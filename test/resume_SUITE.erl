%% A link whose transport drops: what its peer, its sockets and the log see. The far end
%% is played here byte by byte, from docs/protocol.md: a dial is one transport, a link
%% what goes over all its dials.
-module(resume_SUITE).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-compile(export_all).
-compile(nowarn_export_all).

-define(TIMEOUT, 10000).

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [goes_on_behind_any_byte, repeats_what_the_peer_lacks, repeats_it_again,
     goes_on_while_the_old_transport_lives, recv_waits_and_send_blocks,
     a_late_dial_changes_nothing,
     wrong_token_is_a_fresh_link, wrong_count_is_a_fresh_link,
     not_in_time, one_client_after_the_other, version_1_is_lost, one_side_keeps_nothing,
     after_goaway, after_an_error, an_ack_of_too_much, nobody_acknowledges,
     acknowledges_in_time, sender_killed, receiver_killed_while_parked, half_dead,
     round_trip_time, closed_before_the_client_had_all, held_for_one_too_many, last_response].

init_per_suite(Config) ->
    {ok, _} = application:ensure_all_started(megaphone),
    Config.

end_per_suite(_) -> ok.

init_per_testcase(_, Config) -> [{log, log_capture:start()} | Config].

end_per_testcase(_, Config) -> log_capture:stop(?config(log, Config)).

%%% What goes on

%% The peer's stream is cut behind each of its bytes in turn.
goes_on_behind_any_byte(_) ->
    L = listen([]),
    {Link0, S} = open(dial(L)),
    Text = <<"every byte of it, whichever transport it came over">>,
    {Link, _} = lists:foldl(
                  fun(Byte, {Link, N}) ->
                          Next = redial(cut(write(Link, Byte), how(N))),
                          %% A dial takes the place of one before it that is not done.
                          ok = poll:until(fun() -> maps:get(resumes, info(Next)) end, N + 1),
                          {Next, N + 1}
                  end, {Link0, 0}, one_by_one(link_peer:frame(7, Text))),
    ?assertEqual({ok, Text}, gen_tcp:recv(S, byte_size(Text), ?TIMEOUT)),
    ok = gen_tcp:send(S, <<"and back">>),
    {_, <<"and back">>} = content(Link, 8),
    #{resumes := Resumes, state := up, closed := Closed} = info(Link),
    ?assertEqual({byte_size(Text) + 32, #{}}, {Resumes, Closed}).

one_by_one(Frame) -> [<<Byte>> || <<Byte>> <= iolist_to_binary(Frame)].

how(N) when N rem 2 =:= 0 -> fin;
how(_) -> reset.

%% It says that it has fewer bytes than it was sent: those behind are written again.
repeats_what_the_peer_lacks(_) ->
    L = listen([]),
    Text = binary:copy(<<"0123456789">>, 20),
    [begin
         {Link, S} = open(dial(L), Lost + 1),
         ok = gen_tcp:send(S, Text),
         {Link1, Text} = content(Link, 200),
         {_, Text} = content(redial(forget(Lost, cut(Link1, fin))), 200)
     end || Lost <- [0, 1, 31, 32, 33, 199, 200, 231, 232]].

%% The second transport breaks while it repeats.
repeats_it_again(_) ->
    L = listen([]),
    {Link0, S} = open(dial(L)),
    Link1 = cut(Link0, fin),
    Parts = [<<N:32, (binary:copy(<<"x">>, 500))/binary>> || N <- lists:seq(1, 30)],
    ok = gen_tcp:send(S, Parts),
    Link2 = lists:foldl(fun(_, Link) -> cut(some(redial(Link)), reset) end, Link1, lists:seq(1, 5)),
    {_, All} = content(redial(Link2), 30 * 504),
    ?assertEqual(iolist_to_binary(Parts), All).

%% The peer found out first that the transport is dead.
goes_on_while_the_old_transport_lives(Config) ->
    L = listen([]),
    {#{sock := Old} = Link0, S} = open(dial(L)),
    Link = write(redial(Link0), link_peer:frame(7, <<"abc">>)),
    {ok, <<"abc">>} = gen_tcp:recv(S, 3, ?TIMEOUT),
    ok = until_ended(Old),
    ok = gen_tcp:send(S, <<"def">>),
    {_, <<"def">>} = content(Link, 3),
    logged(Config, "its peer dials again; parked with 1 connection").

%% Where more than a second has passed there is an acknowledgement before that.
until_ended(Old) ->
    case gen_tcp:recv(Old, 0, ?TIMEOUT) of
        {ok, _} -> until_ended(Old);
        {error, Reason} when Reason =/= timeout -> ok
    end.

recv_waits_and_send_blocks(_) ->
    L = listen([]),
    {Link0, S} = open(dial(L)),
    Link1 = cut(Link0, fin),
    parked(Link1),
    ?assertEqual({error, timeout}, gen_tcp:recv(S, 1, 50)),
    ok = inet:setopts(S, [{send_timeout, 50}]),
    Credit = binary:copy(<<"a">>, 16384),
    ok = gen_tcp:send(S, Credit),
    More = binary:copy(<<"b">>, 20000),
    ?assertEqual({error, timeout}, gen_tcp:send(S, More)),
    {Link2, Credit} = content(redial(Link1), 16384),
    %% What timed out is queued, as in a port's driver.
    Link3 = write(Link2, control("window 7 20000")),
    {_, All} = content(Link3, 36384),
    ?assertEqual(<<Credit/binary, More/binary>>, All).

%% A dial that was given up proves itself too late: another one has taken the link.
a_late_dial_changes_nothing(_) ->
    Secret = <<"0123456789abcdef">>,
    L = listen([{secret, Secret}]),
    {Link0, S} = open(dial(L, #{secret => Secret})),
    Link1 = cut(Link0, fin),
    Stalled = greet(Link1),
    Link2 = redial(Link1),
    Link3 = write(Link2, link_peer:frame(7, <<"once">>)),
    {ok, <<"once">>} = gen_tcp:recv(S, 4, ?TIMEOUT),
    #{sock := Late} = prove(Stalled),
    _ = gen_tcp:send(Late, link_peer:frame(7, <<"twice">>)),
    {error, _} = gen_tcp:recv(Late, 0, ?TIMEOUT),
    Link4 = write(Link3, link_peer:frame(7, <<"!">>)),
    {ok, <<"!">>} = gen_tcp:recv(S, 1, ?TIMEOUT),
    #{state := up} = info(Link4).

%%% What does not

wrong_token_is_a_fresh_link(_) ->
    L = listen([]),
    {#{link := Name} = Link, S} = open(dial(L)),
    Wrong = <<"00112233445566778899aabbccddeeff">>,
    #{hello := Hello} = greet(Link#{token := Wrong}),
    ?assertNot(is_map_key(<<"resumed">>, Hello)),
    ?assertNotEqual(Name, maps:get(<<"link">>, Hello)),
    works(Link, S).

wrong_count_is_a_fresh_link(_) ->
    L = listen([]),
    {#{in := In} = Link, S} = open(dial(L)),
    %% More than the acknowledgements that may be sent meanwhile.
    #{hello := Hello} = greet(Link#{in := <<In/binary, (binary:copy(<<"never sent">>, 1000))/binary>>}),
    ?assertNot(is_map_key(<<"resumed">>, Hello)),
    works(Link, S).

not_in_time(Config) ->
    L = listen([{resume_timeout, 1000}]),
    {Link, S} = open(dial(L)),
    Pid = pid(Link),
    Mref = monitor(process, Pid),
    _ = cut(Link, fin),
    ?assertEqual({error, closed}, gen_tcp:recv(S, 0, ?TIMEOUT)),
    ?assertEqual(link_lost, maps:get(reason, element(2, megaphone:info(S)))),
    receive {'DOWN', Mref, process, Pid, _} -> ok end,
    logged(Config, "closed by its peer; parked with 1 connection\\(s\\), for 1 s at most"),
    logged(Config, "was not resumed in time").

%% 200 users do not leave in one moment: 64 at a time, and a pause of 10 ms before the next.
one_client_after_the_other(_) ->
    L = listen([{resume_timeout, 0}]),
    {Link0, First} = open(dial(L), 1),
    {Link, Sockets} = lists:foldl(fun(Id, {Link, Sockets}) ->
                                          {Next, S} = open(Link, Id),
                                          {Next, [S | Sockets]}
                                  end, {Link0, [First]}, lists:seq(2, 200)),
    _ = erlang:trace(all, true, [call, monotonic_timestamp]),
    1 = erlang:trace_pattern({megaphone_nif, end_some, 2}, true, []),
    _ = cut(Link, reset),
    [{error, closed} = gen_tcp:recv(S, 0, ?TIMEOUT) || S <- Sockets],
    _ = erlang:trace(all, false, [call]),
    Times = traced(),
    ?assert(length(Times) >= 4),
    [?assert(erlang:convert_time_unit(B - A, native, millisecond) >= 9)
     || {A, B} <- lists:zip(lists:droplast(Times), tl(Times))].

traced() ->
    receive
        {trace_ts, _, call, {megaphone_nif, end_some, [_, link_lost]}, Time} -> [Time | traced()]
    after 0 -> []
    end.

version_1_is_lost(_) ->
    L = listen([]),
    {ok, Sock} = connect(L),
    ok = gen_tcp:send(Sock, link_peer:frame(7, <<"abc">>)),
    {ok, S} = gen_tcp:accept(L, ?TIMEOUT),
    {ok, <<"abc">>} = gen_tcp:recv(S, 3, ?TIMEOUT),
    ok = gen_tcp:close(Sock),
    ?assertEqual({error, closed}, gen_tcp:recv(S, 0, ?TIMEOUT)).

one_side_keeps_nothing(_) ->
    [begin
         L = listen([{resume_timeout, Ours}]),
         {Link, S} = open(dial(L, #{resume_timeout => Theirs})),
         ?assertNot(is_map_key(<<"token">>, maps:get(hello, Link))),
         ?assertMatch(#{resumable := false, retained := 0}, info(Link)),
         _ = cut(Link, fin),
         ?assertEqual({error, closed}, gen_tcp:recv(S, 0, ?TIMEOUT))
     end || {Ours, Theirs} <- [{0, 30}, {30000, 0}]].

after_goaway(Config) ->
    L = listen([]),
    {Link, S} = open(dial(L)),
    _ = cut(write(Link, control("goaway reason=shutdown")), fin),
    ?assertEqual({error, closed}, gen_tcp:recv(S, 0, ?TIMEOUT)),
    ?assertEqual(shutdown, maps:get(reason, element(2, megaphone:info(S)))),
    logged(Config, "closed by its peer, as announced").

after_an_error(_) ->
    L = listen([]),
    {Link, S} = open(dial(L)),
    _ = cut(write(Link, control("error code=internal text=out%20of%20paper")), fin),
    ?assertEqual({error, closed}, gen_tcp:recv(S, 0, ?TIMEOUT)).

an_ack_of_too_much(_) ->
    L = listen([]),
    {Link, S} = open(dial(L)),
    {_, Lines} = ended(write(Link, control("ack 1000000"))),
    ?assertMatch([_], [Line || <<"error code=protocol_error ", _/binary>> = Line <- Lines]),
    ?assertEqual({error, closed}, gen_tcp:recv(S, 0, ?TIMEOUT)).

nobody_acknowledges(Config) ->
    L = listen([{resume_buffer, 1000}]),
    {Link0, S} = open(dial(L)),
    ok = gen_tcp:send(S, binary:copy(<<"a">>, 1001)),
    {Link, _} = content(Link0, 1001),
    logged(Config, "acknowledges too little \\(resume_buffer\\); it cannot be resumed"),
    #{resumable := false, limits := #{resume_buffer := #{max := 1000, hits := 1}}} = info(Link),
    works(Link, S),
    _ = cut(Link, fin),
    ?assertEqual({error, closed}, gen_tcp:recv(S, 0, ?TIMEOUT)).

%%% Acknowledgements, heartbeat, bounds

acknowledges_in_time(_) ->
    L = listen([]),
    {Link0, S} = open(dial(L)),
    %% In the second after something came.
    {Link1, Opened} = ack(Link0, 0),
    ?assertEqual(byte_size(maps:get(out, Link0)), Opened),
    %% And each 64 KiB, before the second is over.
    ok = inet:setopts(S, [{active, true}]),
    {Link2, Acked} = until_acked(Link1, Opened, 0),
    ?assert(Acked - Opened =< 65536 + 32 + 8192),
    ?assert(Acked =< byte_size(maps:get(out, Link2))).

until_acked(Link, Above, Granted) ->
    Next = write(Link, link_peer:frame(7, binary:copy(<<"a">>, 8192))),
    Grants = fun(In) -> length([1 || <<"window ", _/binary>> <- lines(In)]) end,
    Read = fun Read(In) -> case Grants(In) > Granted of
                               true -> In;
                               false -> Read(some(In))
                           end
           end,
    #{} = Taken = Read(Next),
    case [N || <<"ack ", Bytes/binary>> <- lines(Taken),
               N <- [binary_to_integer(Bytes)], N > Above] of
        [N | _] -> {Taken, N};
        [] -> until_acked(Taken, Above, Granted + 1)
    end.

sender_killed(Config) ->
    L = listen([]),
    {Link0, S} = open(dial(L)),
    [Sender] = [Pid || Pid <- element(2, process_info(pid(Link0), links)), is_pid(Pid),
                       {dictionary, Words} <- [process_info(Pid, dictionary)],
                       {'$initial_call', {megaphone_sender, init, 3}} <- Words],
    exit(Sender, kill),
    logged(Config, "cannot be written: killed; parked"),
    works(redial(Link0), S).

%% Whoever kills it: nobody stays on a link that is no more.
receiver_killed_while_parked(_) ->
    L = listen([]),
    {Link, S} = open(dial(L)),
    Pid = pid(Link),
    _ = cut(Link, fin),
    parked(Link),
    exit(Pid, kill),
    ?assertEqual({error, closed}, gen_tcp:recv(S, 0, ?TIMEOUT)).

half_dead(Config) ->
    L = listen([{heartbeat, 1000}]),
    {Link, S} = open(dial(L)),
    parked(Link),
    logged(Config, "nothing came for 3 s, not even an answer to a ping; parked"),
    works(redial(Link), S).

round_trip_time(_) ->
    L = listen([{heartbeat, 1000}]),
    {Link0, _} = open(dial(L)),
    #{rtt := undefined} = info(Link0),
    #{last := Last, smoothed := Last, min := Last} = rtt(Link0, 1),
    ?assert(Last > 0).

%% A second ping may have gone before the answer to the first one came: then that is not counted.
rtt(Link, N) ->
    Next = wait_line(write(pong(N, Link), control(["ping ", integer_to_list(N)])), ["^pong ", integer_to_list(N), "$"]),
    case info(Next) of
        #{rtt := undefined} -> rtt(Next, N + 1);
        #{rtt := Rtt} -> Rtt
    end.

%% The client stalls for seconds, and the socket is closed: it gets the rest all the same.
closed_before_the_client_had_all(_) ->
    L = listen([{heartbeat, 1000}]),
    {Link0, S} = open(dial(L)),
    Bytes = binary:copy(<<"0123456789">>, 2000),
    ok = inet:setopts(S, [{high_watermark, 100000}]),
    ok = gen_tcp:send(S, Bytes),
    ok = gen_tcp:close(S),
    {Link1, _} = content(Link0, 16384),
    Link2 = lists:foldl(fun pong/2, Link1, lists:seq(1, 4)),
    {Link3, Bytes} = content(write(Link2, control("window 7 10000")), 20000),
    _ = wait_line(Link3, "^close 0*7 reason=server_closed$").

%% Waits for the Nth ping, a second after the one before, and answers it.
pong(N, Link) ->
    case [Word || <<"ping ", Word/binary>> <- lines(Link)] of
        Words when length(Words) >= N -> write(Link, control(["pong ", lists:nth(N, Words)]));
        _ -> pong(N, some(Link))
    end.

%% Over the bound the one that would hold more goes; the others notice nothing.
held_for_one_too_many(_) ->
    L = listen([{max_buffered, 20000}]),
    {Link0, S1} = open(dial(L), 1),
    {Link1, S2} = open(Link0, 2),
    Link2 = write(Link1, [link_peer:frame(1, binary:copy(<<"a">>, 15000)),
                          link_peer:frame(2, binary:copy(<<"b">>, 6000))]),
    Link3 = wait_line(Link2, "^reset 0*2 reason=overload$"),
    ?assertEqual({error, closed}, gen_tcp:recv(S2, 0, ?TIMEOUT)),
    {ok, _} = gen_tcp:recv(S1, 15000, ?TIMEOUT),
    #{limits := #{link_buffered := #{max := 20000, now := 0, hits := 1}},
      closed := #{overload := 1}} = info(Link3),
    %% What `send' takes and the client does not counts as well.
    ok = gen_tcp:send(S1, binary:copy(<<"c">>, 16384)),
    ok = inet:setopts(S1, [{send_timeout, 0}]),
    ?assertEqual({error, timeout}, gen_tcp:send(S1, binary:copy(<<"d">>, 19000))),
    ?assertEqual({error, enobufs}, gen_tcp:send(S1, binary:copy(<<"d">>, 1001))).

%% A response that is the last one says so; no other bytes do.
last_response(_) ->
    L = listen([]),
    {Link0, {'$inet', _, Conn} = S} = open(dial(L)),
    ok = megaphone_nif:set_draining(Conn),
    Sent = [{<<"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n">>,
             <<"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n">>}
            | [{Same, Same} || Same <- [<<"HTTP/1.1 101 Switching Protocols\r\n\r\n">>,
                                        <<"HTTP/1.1 100 Continue\r\n\r\n">>,
                                        <<"<presence/>\r\n">>, <<"HTTP/1.">>]]],
    lists:foldl(fun({In, Out}, {Link, Before}) ->
                        ok = gen_tcp:send(S, In),
                        All = <<Before/binary, Out/binary>>,
                        {Next, All} = content(Link, byte_size(All)),
                        {Next, All}
                end, {Link0, <<>>}, Sent).

%%% The node's side

listen(Options) ->
    {ok, L} = megaphone:listen(0, [{ip, {127, 0, 0, 1}} | Options]),
    L.

pid(#{link := Name}) ->
    [Pid] = [Pid || {Pid, #{link := Link}} <- megaphone:links(), Link =:= Name],
    Pid.

info(Link) ->
    {ok, Info} = megaphone:info(pid(Link)),
    Info.

logged(Config, Pattern) -> log_capture:wait(?config(log, Config), [Pattern]).

%% A link is parked when it has no transport any more, which the peer cannot see.
parked(Link) ->
    case info(Link) of
        #{state := parked} -> ok;
        #{state := up} -> erlang:yield(), parked(Link)
    end.

works(Link, S) ->
    ok = gen_tcp:send(S, <<"still here">>),
    {_, All} = content(Link, byte_size(content_of(Link)) + 10),
    ?assertEqual(<<"still here">>, binary:part(All, byte_size(All), -10)).

%%% The peer: `out' is all that it ever wrote on the link behind the handshakes, `in' all that
%%% it has read.

dial(L) -> dial(L, #{}).

dial(L, Options) ->
    prove(greet(maps:merge(#{listen => L, resume_timeout => 30, in => <<>>, out => <<>>},
                           Options))).

redial(Link) ->
    #{hello := Hello, out := Out} = Next = prove(greet(Link)),
    #{<<"resumed">> := Resumed} = Hello,
    Has = binary_to_integer(Resumed),
    <<_:Has/binary, Rest/binary>> = Out,
    ok = gen_tcp:send(maps:get(sock, Next), Rest),
    Next.

connect(L) ->
    {ok, Port} = inet:port(L),
    gen_tcp:connect({127, 0, 0, 1}, Port, [binary, {active, false}, {nodelay, true}]).

%% Dials and says hello; a link that has a token wants to go on.
greet(#{listen := L, in := In, resume_timeout := Seconds} = Link) ->
    {ok, Sock} = connect(L),
    Resume = case Link of
                 #{link := Name, token := Token} -> #{resume => {Name, Token, byte_size(In)}};
                 #{} -> #{}
             end,
    ok = gen_tcp:send(Sock, link_peer:frame(0, link_peer:hello_line(
                                                  Resume#{resume_timeout => Seconds}))),
    {ok, Head} = gen_tcp:recv(Sock, 32, ?TIMEOUT),
    <<Length:10/binary, _/binary>> = Head,
    {ok, <<"hello ", Line/binary>>} = gen_tcp:recv(Sock, binary_to_integer(Length) - 32, ?TIMEOUT),
    Words = binary:split(string:trim(Line), <<" ">>, [global]),
    Hello = maps:from_list([list_to_tuple(binary:split(W, <<"=">>)) || W <- Words]),
    Link#{sock => Sock, hello => Hello, link => maps:get(<<"link">>, Hello),
          token => maps:get(<<"token">>, Hello, <<>>)}.

prove(#{secret := Secret, sock := Sock, hello := #{<<"nonce">> := Nonce}} = Link) ->
    Auth = link_peer:auth_line(Secret, Nonce, <<"00112233445566778899aabbccddeeff">>),
    ok = gen_tcp:send(Sock, link_peer:frame(0, Auth)),
    Link;
prove(Link) ->
    Link.

open(Link) -> open(Link, 7).

open(#{listen := L} = Link, Id) ->
    Open = io_lib:format("open ~b service=default peer=192.0.2.7:4 local=192.0.2.1:5", [Id]),
    Next = write(Link, control(Open)),
    {ok, S} = gen_tcp:accept(L, ?TIMEOUT),
    {Next, S}.

control(Line) -> link_peer:frame(0, link_peer:line(Line)).

write(#{sock := Sock, out := Out} = Link, Bytes) ->
    ok = gen_tcp:send(Sock, Bytes),
    Link#{out := iolist_to_binary([Out, Bytes])}.

cut(#{sock := Sock} = Link, fin) ->
    ok = gen_tcp:close(Sock),
    Link;
cut(#{sock := Sock} = Link, reset) ->
    ok = inet:setopts(Sock, [{linger, {true, 0}}]),
    ok = gen_tcp:close(Sock),
    Link.

%% The last bytes that it read never came.
forget(N, #{in := In} = Link) ->
    Link#{in := binary:part(In, 0, byte_size(In) - N)}.

some(#{sock := Sock, in := In} = Link) ->
    {ok, Bytes} = gen_tcp:recv(Sock, 0, ?TIMEOUT),
    Link#{in := <<In/binary, Bytes/binary>>}.

%% Reads until so many bytes of content have come in all.
content(Link, Size) ->
    case content_of(Link) of
        Content when byte_size(Content) >= Size -> {Link, Content};
        _ -> content(some(Link), Size)
    end.

content_of(#{in := In}) ->
    {Frames, _} = link_peer:decode(In),
    iolist_to_binary([Content || {Id, Content} <- Frames, Id =/= 0]).

lines(#{in := In}) ->
    {Frames, _} = link_peer:decode(In),
    binary:split(iolist_to_binary([Content || {0, Content} <- Frames]), <<"\n">>, [global, trim]).

line(Link, Pattern) ->
    case [Line || Line <- lines(Link), re:run(Line, Pattern) =/= nomatch] of
        [] -> line(some(Link), Pattern);
        Lines -> {Link, lists:last(Lines)}
    end.

wait_line(Link, Pattern) -> element(1, line(Link, Pattern)).

%% The last acknowledgement, once there is one of more than so many bytes.
ack(Link, Above) ->
    case [N || <<"ack ", Bytes/binary>> <- lines(Link),
               N <- [binary_to_integer(Bytes)], N > Above] of
        [] -> ack(some(Link), Above);
        Acks -> {Link, lists:last(Acks)}
    end.

ended(#{sock := Sock, in := In} = Link) ->
    case gen_tcp:recv(Sock, 0, ?TIMEOUT) of
        {ok, Bytes} -> ended(Link#{in := <<In/binary, Bytes/binary>>});
        {error, _} -> {Link, lines(Link)}
    end.
