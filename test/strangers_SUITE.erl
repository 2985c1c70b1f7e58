%% What a stranger can cost: who may dial, how many at a time, for how long, and what comes of failing.
-module(strangers_SUITE).
-include("support/dial_cases.hrl").

%% A second address of this machine, for a peer that comes from elsewhere.
-define(ELSEWHERE, {127, 0, 0, 2}).

all() ->
    [allowed_ips, subnets, deadline, few_at_a_time, failures_are_slowed, failures_keep_nobody_else_out,
     remembered_addresses_are_bounded, long_messages_are_refused, listener_ends_with_its_dials,
     looking_is_no_failure].

allowed_ips(Config) ->
    {L, Port} = listen([{allowed_ips, ["10.0.0.0/8", ?ELSEWHERE]}]),
    works(L, link_peer:connect(Port, #{tcp => [{ip, ?ELSEWHERE}]})),
    Peer = stranger(Port),
    closed = link_peer:link_outcome(Peer),
    {warning, _} = wait(?config(log, Config), ["refused a link from " ++ address(Peer),
                                               "its address is not in 'allowed_ips'"]),
    ?assertMatch(#{not_allowed := 1, passed := 1}, settled_dials(L)),
    %% A Unix socket has no addresses; its file's mode says who may.
    Path = filename:join(?config(dir, Config), "allowed.sock"),
    {ok, Unix} = megaphone:listen({local, Path}, [{allowed_ips, ["10.0.0.0/8"]}]),
    works(Unix, link_peer:connect({local, Path})),
    ok = gen_tcp:close(Unix).

subnets(_Config) ->
    [begin
         {ok, Access} = megaphone_access:new({?LOOPBACK, 1}, #{allowed_ips => Allowed}),
         {ok, Ip} = inet:parse_strict_address(Text),
         ?assertEqual({Allowed, Text, Expected},
                      {Allowed, Text, megaphone_access:is_allowed({Ip, 1}, Access)})
     end || {Allowed, Text, Expected} <-
                [{["10.1.2.3"], "10.1.2.3", true}, {["10.1.2.3"], "10.1.2.4", false},
                 {["10.1.2.3/31"], "10.1.2.2", true}, {["10.1.2.3/31"], "10.1.2.4", false},
                 {["0.0.0.0/0"], "192.0.2.1", true}, {["0.0.0.0/0"], "2001:db8::1", false},
                 {["10.0.0.0/8"], "::ffff:10.9.9.9", true},
                 {["::ffff:10.0.0.0/104"], "10.9.9.9", true},
                 {["::ffff:10.0.0.0/104"], "11.9.9.9", false},
                 {["2001:db8::/32"], "2001:db8:ffff::1", true},
                 {["2001:db8::/32"], "2001:db9::1", false},
                 {["::/0"], "2001:db9::1", true}, {["::1"], "127.0.0.1", false},
                 {[{{10, 0, 0, 0}, 8}, {127, 0, 0, 1}], "127.0.0.1", true},
                 {all, "192.0.2.1", true}]].

%% One deadline for all of it, whether nothing comes or a byte now and then.
deadline(Config) ->
    {L, Port} = listen([{secret, ?SECRET}]),
    Silent = stranger(Port),
    Dripping = stranger(Port),
    _ = say_hello(Dripping, #{}),
    Slow = link_peer:connect(Port, #{handshake => false, tcp => [{ip, ?ELSEWHERE}]}),
    {_, TlsPort} = listen([{tls, server(Config, verify_peer)}]),
    NoTls = stranger(TlsPort),
    Self = self(),
    _ = spawn_link(fun() -> drip(Slow, Self) end),
    [begin
         ?assertEqual(closed, link_peer:link_outcome(Peer, 2 * ?TIMEOUT)),
         _ = wait(?config(log, Config), [address(Peer), "its handshake took more than 10 s, closed"])
     end || Peer <- [Silent, Dripping, Slow, NoTls]],
    receive {dripped, N} -> ?assert(N > 10) end,
    ?assertMatch(#{failed := 3, now := 0, passed := 0}, settled_dials(L)).

%% The pace is what is tested here: a byte each tenth of a second.
drip(Peer, Report) ->
    Bytes = iolist_to_binary(link_peer:frame(0, link_peer:hello_line(#{name => lists:duplicate(128, $a)}))),
    Report ! {dripped, drip(Peer, Bytes, 0)}.

drip(Peer, <<Byte, Rest/binary>>, N) ->
    case catch link_peer:raw(Peer, <<Byte>>) of
        ok -> receive after 100 -> drip(Peer, Rest, N + 1) end;
        _ -> N
    end;
drip(_, <<>>, N) -> N.

few_at_a_time(Config) ->
    {L, Port} = listen([{max_handshakes, 3}]),
    Silent = [stranger(Port) || _ <- [1, 2, 3]],
    poll:until(fun() -> maps:get(now, dials(L)) =:= 3 end),
    More = [stranger(Port) || _ <- lists:seq(1, 20)],
    [closed = link_peer:link_outcome(Peer) || Peer <- More],
    ?assertMatch(#{busy := 20, now := 3, max_handshakes := 3}, dials(L)),
    {warning, _} = wait(?config(log, Config), ["refused a link from 127",
                                               "'max_handshakes' is 3"]),
    {warning, _} = wait(?config(log, Config), ["refused [0-9]+ more links"]),
    link_peer:stop(hd(Silent)),
    poll:until(fun() -> maps:get(now, dials(L)) =:= 2 end),
    works(L, link_peer:connect(Port)).

%% Each failure doubles what the next one from there waits.
failures_are_slowed(_Config) ->
    {L, Port} = listen([{secret, ?SECRET}]),
    Took = [fails(Port, [{ip, ?LOOPBACK}]) || _ <- [1, 2, 3, 4]],
    [?assert(Ms >= Least, {Took, Least}) || {Ms, Least} <- lists:zip(Took, [0, 100, 200, 400])],
    ?assertMatch(#{slowed := 1, failed := 4}, settled_dials(L)),
    %% Nobody else waits, and who does it right is forgiven.
    ?assertEqual({ok, 0}, delay(L, ?ELSEWHERE)),
    ?assertEqual({ok, 800}, delay(L, ?LOOPBACK)),
    {Right, Peer} = timer:tc(fun() -> link_peer:connect(Port, #{secret => ?SECRET}) end),
    ?assert(Right >= 800_000),
    works(L, Peer),
    ?assertMatch(#{slowed := 0, passed := 1, failed := 4}, settled_dials(L)),
    ?assertEqual({ok, 0}, delay(L, ?LOOPBACK)).

%% What a dial from there would wait.
delay(L, Ip) ->
    {ok, Dials} = megaphone_listener_sup:child(tree(L), dials),
    socket_pair:result(socket_pair:in_process(fun() -> megaphone_dials:enter(Dials, {Ip, 1}) end)).

%% Milliseconds from dialling to the end.
fails(Port, Tcp) ->
    {Microseconds, ok} =
        timer:tc(fun() ->
                         Peer = link_peer:connect(Port, #{handshake => false, tcp => Tcp}),
                         ok = link_peer:raw(Peer, link_peer:frame(0, link_peer:line("ping x"))),
                         closed = link_peer:link_outcome(Peer),
                         ok
                 end),
    Microseconds div 1000.

%% An address that has failed holds an eighth of the places.
failures_keep_nobody_else_out(_Config) ->
    {L, Port} = listen([{secret, ?SECRET}, {max_handshakes, 8}]),
    _ = fails(Port, []),
    poll:until(fun() -> maps:get(now, dials(L)) =:= 0 end),
    _Holds = stranger(Port),
    poll:until(fun() -> maps:get(now, dials(L)) =:= 1 end),
    closed = link_peer:link_outcome(stranger(Port)),
    ?assertMatch(#{busy := 1}, dials(L)),
    works(L, link_peer:connect(Port, #{secret => ?SECRET, tcp => [{ip, ?ELSEWHERE}]})).

remembered_addresses_are_bounded(_Config) ->
    {ok, Access} = megaphone_access:new({?LOOPBACK, 1}, #{secret => ?SECRET}),
    {ok, Dials} = gen_server:start(megaphone_dials,
                                   #{name => "test", access => Access, max_handshakes => 4}, []),
    Fail = fun(Ip) ->
                   {Pid, Monitor} = spawn_monitor(
                                      fun() ->
                                              {ok, _} = megaphone_dials:enter(Dials, {Ip, 1}),
                                              megaphone_dials:failed(Dials)
                                      end),
                   receive {'DOWN', Monitor, process, Pid, normal} -> ok end
           end,
    [begin
         Fail({10, 0, N bsr 8, N band 255}),
         #{now := 0} = quiet(Dials)
     end || N <- lists:seq(1, 1100)],
    ?assertMatch(#{slowed := 1024, failed := 1100}, megaphone_dials:info(Dials)),
    %% All of a /64 is one.
    Fail({16#2001, 16#db8, 0, 0, 1, 2, 3, 4}),
    #{now := 0} = quiet(Dials),
    Neighbour = {16#2001, 16#db8, 0, 0, 5, 6, 7, 8},
    ?assertEqual({ok, 100}, socket_pair:result(
                              socket_pair:in_process(
                                fun() -> megaphone_dials:enter(Dials, {Neighbour, 1}) end))),
    gen_server:stop(Dials).

%% Its dials' ends have been seen.
quiet(Dials) ->
    case megaphone_dials:info(Dials) of
        #{now := 0} = Info -> Info;
        _ -> erlang:yield(), quiet(Dials)
    end.

%% Refused by their length, and nothing is kept of them.
long_messages_are_refused(Config) ->
    {L, Port} = listen([{secret, ?SECRET}]),
    Frame = stranger(Port),
    ok = link_peer:raw(Frame, "9999999999|00000000000000000000|"),
    ?assertEqual(closed, link_peer:link_outcome(Frame)),
    _ = wait(?config(log, Config), [address(Frame), "length 9999999999 is over the limit"]),
    Whole = link_peer:connect(Port, #{handshake => false, tcp => [{ip, ?ELSEWHERE}]}),
    ok = link_peer:raw(Whole, [link_peer:head(32 + 60000, 0), binary:copy(<<"x">>, 4000)]),
    poll:until(fun() -> greeters(L) =/= [] andalso heard(hd(greeters(L))) end),
    [Greeter] = greeters(L),
    {memory, Memory} = process_info(Greeter, memory),
    {binary, Binaries} = process_info(Greeter, binary),
    ?assert(Memory + lists:sum([Size || {_, Size, _} <- Binaries]) < 65536, {Memory, Binaries}),
    ok = link_peer:raw(Whole, binary:copy(<<"x">>, 200)),
    ?assertEqual(closed, link_peer:link_outcome(Whole)),
    _ = wait(?config(log, Config), [address(Whole), "longer than 4096 bytes"]).

%% It has taken all that came and waits for more.
heard(Greeter) ->
    case process_info(Greeter, [current_function, reductions, message_queue_len, status]) of
        [{current_function, {megaphone_greeter, wait, 1}}, {reductions, N},
         {message_queue_len, 0}, {status, waiting}] -> N > 0;
        _ -> false
    end.

listener_ends_with_its_dials(_Config) ->
    {L, Port} = listen([{secret, ?SECRET}]),
    Peer = stranger(Port),
    _ = say_hello(Peer, #{}),
    [Greeter] = greeters(L),
    Monitor = monitor(process, Greeter),
    ok = gen_tcp:close(L),
    receive {'DOWN', Monitor, process, Greeter, _} -> ok after ?TIMEOUT -> error(timeout) end,
    ?assertEqual(closed, link_peer:link_outcome(Peer)).

%% As a load balancer does.
looking_is_no_failure(Config) ->
    {L, Port} = listen([{secret, ?SECRET}]),
    Peer = stranger(Port),
    Address = address(Peer),
    _ = wait(?config(log, Config), ["Accepted link " ++ Address]),
    link_peer:stop(Peer),
    _ = wait(?config(log, Config), [Address, "closed by its peer, which has said nothing"]),
    ?assertMatch(#{failed := 0, slowed := 0}, settled_dials(L)),
    %% Who holds a place for longer than that takes does fail.
    Holder = stranger(Port),
    _ = wait(?config(log, Config), ["Accepted link " ++ address(Holder)]),
    receive after 1500 -> link_peer:stop(Holder) end,
    ok = poll:until(fun() -> maps:get(failed, dials(L)) =:= 1 end),
    ?assertMatch(#{slowed := 1}, settled_dials(L)).

%% ---- helpers ----

%% Those that are with a peer of this listener.
greeters(L) ->
    {ok, Dials} = megaphone_listener_sup:child(tree(L), dials),
    {monitors, Monitored} = process_info(Dials, monitors),
    [Pid || {process, Pid} <- Monitored].
