%% Who does not read holds up himself and nobody else: what backpressure costs the
%% neighbours, and that it reaches from one end to the other, both ways.
-module(slow_reader_SUITE).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-export([suite/0, all/0, init_per_testcase/2, end_per_testcase/2]).
-export([neighbours_are_as_fast/1, service_that_does_not_read/1, client_that_does_not_read/1]).

-define(LOOPBACK, {127, 0, 0, 1}).
-define(TIMEOUT, 10_000).
%% Who could not send for so long is stalled.
-define(STALLED, 300).
-define(PIECE, 65_536).

%% The link's window, when the listener does not say another.
-define(WINDOW, 16_384).

%% Normal connections, slow ones of each kind, and seconds of a round.
-define(NORMAL, 1000).
-define(SLOW, 15).
-define(ROUND, 2).
%% Rounds with and as many without; as many more where the first do not decide.
-define(ROUNDS, 3).
%% What the issue asks for: their p99 stays within twice of what it is without.
-define(WITHIN, 2).

suite() -> [{timetrap, {minutes, 3}}].

all() -> [service_that_does_not_read, client_that_does_not_read, neighbours_are_as_fast].

%% One ECM with one link. Its ports are for clients that want an echo, a service that
%% sends without end, and one that never reads.
init_per_testcase(_Case, Config) ->
    Dir = e2e_ejabberd:temporary(),
    Ports = [Echo, Flood, Deaf] = [e2e_port:free() || _ <- [echo, flood, deaf]],
    Self = self(),
    Service = canary:service([], fun(Socket) -> serve(Self, Socket, Flood, Deaf) end),
    Ecm = canary:start_ecm(["[backend]\naddress = \"127.0.0.1:",
                            integer_to_list(canary:service_port(Service)), "\"\n"],
                           #{dir => Dir, ports => Ports}),
    {ok, _} = e2e_log:wait(canary:ecm_log(Ecm), 0, "link 1 up", ?TIMEOUT),
    [{dir, Dir}, {service, Service}, {ecm, Ecm}, {echo, Echo}, {flood, Flood}, {deaf, Deaf} | Config].

end_per_testcase(_Case, Config) ->
    catch canary:stop_ecm(?config(ecm, Config)),
    catch canary:stop(?config(service, Config)),
    Log = canary:ecm_log(?config(ecm, Config)),
    _ = file:copy(Log, filename:join(?config(priv_dir, Config), filename:basename(Log))),
    file:del_dir_r(?config(dir, Config)).

%% A connection is served by the port on which its client came. The cases get the sockets
%% of the services that do not echo, and tell those what to do.
serve(Case, Socket, Flood, Deaf) ->
    case inet:sockname(Socket) of
        {ok, {_, Flood}} -> flood(Case, Socket, 0);
        {ok, {_, Deaf}} -> Case ! {deaf, self(), Socket}, deaf(Case, Socket);
        {ok, _} -> canary:echo(Socket);
        {error, _} -> gone
    end.

%% Sends without end. Says when the client takes no more for the first time.
flood(Case, Socket, Sent) ->
    ok = inet:setopts(Socket, [{send_timeout, ?STALLED}]),
    case send_all(Socket, Sent) of
        {timeout, Total} ->
            Case ! {stalled, flood, Total},
            ok = inet:setopts(Socket, [{send_timeout, infinity}]),
            _ = send_all(Socket, Total),
            gen_tcp:close(Socket);
        {_, _} ->
            gen_tcp:close(Socket)
    end.

send_all(Socket, Sent) ->
    case gen_tcp:send(Socket, piece(Sent)) of
        ok -> send_all(Socket, Sent + ?PIECE);
        {error, Why} -> {Why, Sent}
    end.

%% Reads nothing until it is told to.
deaf(Case, Socket) ->
    Watch = monitor(process, Case),
    receive
        {read, Bytes} -> Case ! {read, self(), gen_tcp:recv(Socket, Bytes, ?TIMEOUT)}, deaf(Case, Socket);
        close -> gen_tcp:close(Socket);
        {'DOWN', Watch, process, _, _} -> gen_tcp:close(Socket)
    end.

%% ---- backpressure from end to end ----

%% Nothing opens the client's window again but a service that reads on.
service_that_does_not_read(Config) ->
    Client = dial(deaf, Config, [{send_timeout, ?STALLED}]),
    {Service, Socket} = receive {deaf, Pid, S} -> {Pid, S} after ?TIMEOUT -> error(not_accepted) end,
    {timeout, Sent} = send_all(Client, 0),
    %% The last piece went in part.
    Most = Sent + ?PIECE,
    ?assert(Most =< ?WINDOW + kernel_buffers() + 2 * ?PIECE),
    %% The node holds one window of it.
    Arrived = ?WINDOW,
    ok = poll:until(fun() -> {ok, #{queued := Queued}} = megaphone:info(Socket), Queued end, Arrived),
    ok = undisturbed(Config),
    %% It was kept, all of it and in order.
    Service ! {read, Sent},
    receive {read, Service, {ok, Bytes}} -> ?assertEqual(stream(Sent), Bytes)
    after ?TIMEOUT -> error({not_read, Sent})
    end,
    Service ! close,
    gen_tcp:close(Client),
    ct:comment("the client's writes stopped after ~b to ~b bytes, ~b of them in the node", [Sent, Most, Arrived]).

client_that_does_not_read(Config) ->
    Before = erlang:monotonic_time(millisecond),
    Client = dial(flood, Config, []),
    Sent = receive {stalled, flood, Bytes} -> Bytes after ?TIMEOUT -> error(never_stalled) end,
    ?assert(erlang:monotonic_time(millisecond) - Before >= ?STALLED),
    ?assert(Sent =< ?WINDOW + kernel_buffers() + 2 * ?PIECE),
    ok = undisturbed(Config),
    %% What was sent is all there, and the blocked send goes on when it is read.
    {ok, First} = gen_tcp:recv(Client, Sent, ?TIMEOUT),
    ?assertEqual(stream(Sent), First),
    {ok, _} = gen_tcp:recv(Client, 4 * ?PIECE, ?TIMEOUT),
    gen_tcp:close(Client),
    ok = canary:idle(?config(service, Config)),
    ct:comment("send blocked after ~b bytes", [Sent]).

%% What a service sends is stamped by its position.
stream(Length) -> iolist_to_binary([piece(At) || At <- lists:seq(0, Length - 1, ?PIECE)]).

piece(At) -> binary:copy(<<(At div ?PIECE):64>>, ?PIECE div 8).

%% What the kernel may hold of a connection: the sender's and the receiver's buffer.
kernel_buffers() -> most("tcp_wmem") + most("tcp_rmem").

most(Name) ->
    {ok, Text} = file:read_file("/proc/sys/net/ipv4/" ++ Name),
    [_, _, Most] = string:lexemes(string:trim(Text), "\t "),
    binary_to_integer(Most).

undisturbed(Config) ->
    Client = dial(echo, Config, []),
    ok = gen_tcp:send(Client, "still here"),
    {ok, <<"still here">>} = gen_tcp:recv(Client, 10, ?TIMEOUT),
    gen_tcp:close(Client).

%% ---- the neighbours ----

neighbours_are_as_fast(Config) ->
    Rounds = rounds(?ROUNDS, Config),
    case judge(Rounds) of
        {ok, Comment} -> {comment, Comment};
        %% Something else may have run on this machine.
        {error, _} ->
            {Verdict, Comment} = judge(Rounds ++ rounds(?ROUNDS, Config)),
            ?assertEqual({ok, Comment}, {Verdict, Comment}),
            {comment, Comment}
    end.

judge(Rounds) ->
    {Without, With} = lists:unzip(Rounds),
    [Base, Beside] = [median(Figures) || Figures <- [Without, With]],
    Comment = lists:flatten(io_lib:format("p99 ~.1f ms without, ~.1f ms beside ~b slow readers (medians of ~b rounds)",
                                          [Base / 1000, Beside / 1000, 3 * ?SLOW, length(Rounds)])),
    ct:log("~ts~nus: ~p", [Comment, Rounds]),
    case Beside =< ?WITHIN * Base of
        true -> {ok, Comment};
        false -> {error, Comment}
    end.

%% {p99 without, p99 with}, in turns.
rounds(Count, Config) ->
    [begin
         Without = p99(Config),
         Slow = slow_readers(Config),
         With = p99(Config),
         _ = [stop_slow(One) || One <- Slow],
         ok = hear_ends(),
         ok = canary:idle(?config(service, Config)),
         {Without, With}
     end || _ <- lists:seq(1, Count)].

p99(Config) ->
    {ok, Status, Lines} =
        e2e_process:run(e2e_paths:canary(),
                        ["--ecm", "127.0.0.1:" ++ integer_to_list(?config(echo, Config)), "--ping-pong",
                         "--clients", integer_to_list(?NORMAL), "--seconds", integer_to_list(?ROUND),
                         "--pause", "200"], [], 60_000),
    ?assertEqual({0, Lines}, {Status, Lines}),
    canary:figure(p99_us, lists:last(Lines)).

median(Figures) -> lists:nth((length(Figures) + 1) div 2, lists:sort(Figures)).

%% Clients that read nothing of a flood, clients that read a little of one now and then,
%% and clients that send to a service that reads nothing. Returns when all are stalled.
slow_readers(Config) ->
    Kinds = [Kind || Kind <- [still, trickle, deaf], _ <- lists:seq(1, ?SLOW)],
    Slow = [slow(Kind, Config) || Kind <- Kinds],
    _ = [receive {stalled, deaf, _} -> ok after ?TIMEOUT -> error(not_stalled) end || {deaf, _} <- Slow],
    _ = [receive {stalled, flood, _} -> ok after ?TIMEOUT -> error(not_stalled) end || {Kind, _} <- Slow, Kind =/= deaf],
    Slow.

slow(Kind, Config) ->
    Self = self(),
    {Kind, spawn_link(fun() -> slow(Kind, Self, Config) end)}.

slow(still, _Case, Config) ->
    _ = dial(flood, Config, [{recbuf, 16_384}]),
    wait_stop();
slow(trickle, _Case, Config) ->
    trickle(dial(flood, Config, [{recbuf, 16_384}]));
slow(deaf, Case, Config) ->
    Client = dial(deaf, Config, [{send_timeout, ?STALLED}]),
    {timeout, Sent} = send_all(Client, 0),
    Case ! {stalled, deaf, Sent},
    wait_stop().

%% 100 bytes, fifty times a second.
trickle(Client) ->
    {ok, _} = gen_tcp:recv(Client, 100, ?TIMEOUT),
    receive
        {stop, From} -> From ! {stopped, self()}
    after 20 -> trickle(Client)
    end.

wait_stop() -> receive {stop, From} -> From ! {stopped, self()} end.

%% A service that never reads does not hear that its client has gone.
hear_ends() ->
    receive
        {deaf, Service, _} -> Service ! close, hear_ends()
    after 0 -> ok
    end.

%% Its process takes the socket with it.
stop_slow({_, Pid}) ->
    Monitor = monitor(process, Pid),
    Pid ! {stop, self()},
    receive {'DOWN', Monitor, process, _, _} -> ok end.

dial(Which, Config, Options) ->
    {ok, Client} = gen_tcp:connect(?LOOPBACK, ?config(Which, Config), [binary, {active, false} | Options], ?TIMEOUT),
    Client.
