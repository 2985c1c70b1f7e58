%% inet:getopts/2 and inet:setopts/2.
-module(socket_options_SUITE).
-include("support/socket_cases.hrl").

cases() ->
    [defaults, kept, asked_by_ejabberd, asked_with_values, sizes_are_sizes, raw_nodelay,
     unknown_names, unknown_values, nothing_set_when_one_is_wrong, nonsense,
     mode_both_ways, packet_names, deliver_port, empty_lists].

defaults(Config) ->
    {_, S} = open(Config),
    Defaults = [{active, false}, {mode, binary}, {packet, 0}, {packet_size, 0}, {header, 0},
                {deliver, term}, {exit_on_close, true}, {send_timeout, infinity},
                {send_timeout_close, false}, {show_econnreset, false}, {delay_send, false},
                {linger, {false, 0}}, {high_watermark, 8192}, {low_watermark, 4096},
                {high_msgq_watermark, 8192}, {low_msgq_watermark, 4096}],
    [?assertEqual({ok, [Default]}, inet:getopts(S, [Name])) || {Name, _} = Default <- Defaults],
    ?assertEqual({ok, Defaults}, inet:getopts(S, [Name || {Name, _} <- Defaults])).

%% What is set is what is read, also where it changes nothing on a virtual socket.
kept(Config) ->
    {_, S} = open(Config),
    Set = [{active, true}, {active, once}, {active, false}, {mode, list}, {mode, binary},
           {packet, 4}, {packet, line}, {packet, http_bin}, {packet, 0}, {packet_size, 1000},
           {packet_size, 0}, {header, 3}, {header, 0}, {exit_on_close, false},
           {exit_on_close, true}, {send_timeout, 0}, {send_timeout, 15000},
           {send_timeout, infinity}, {send_timeout_close, true}, {send_timeout_close, false},
           {show_econnreset, true}, {show_econnreset, false}, {delay_send, true},
           {delay_send, false}, {nodelay, true}, {nodelay, false}, {keepalive, true},
           {keepalive, false}, {reuseaddr, true}, {linger, {true, 5}},
           {high_watermark, 20000}, {low_watermark, 10000}, {high_msgq_watermark, 30000},
           {low_msgq_watermark, 5000}, {buffer, 5000}, {priority, 3}, {tos, 16},
           {dontroute, true}, {dontroute, false}],
    [begin
         ?assertEqual({Option, ok}, {Option, inet:setopts(S, [Option])}),
         ?assertEqual({ok, [Option]}, inet:getopts(S, [Name]))
     end || {Name, _} = Option <- Set].

%% The calls of ejabberd 23.01 to 26.07, xmpp, fast_tls and ssl on a socket given to them.
asked_by_ejabberd(Config) ->
    {_, S} = open(Config),
    [?assertEqual({Options, ok}, {Options, inet:setopts(S, Options)})
     || Options <- [[{packet, http}, {recbuf, 8192}],
                    [{packet, raw}, {active, false}],
                    [{packet, httph}],
                    [{active, once}],
                    [{active, 100}],
                    [{active, false}],
                    [binary, {packet, 0}, {active, false}, {reuseaddr, true},
                     {nodelay, true}, {send_timeout, 15000}, {send_timeout_close, true},
                     {keepalive, true}],
                    [{active, true}],
                    [{mode, binary}, {packet, 0}, {active, false}, {header, 0},
                     {packet_size, 0}]]],
    [?assertMatch({_, {ok, [_ | _]}}, {Names, inet:getopts(S, Names)})
     || Names <- [[recbuf], [sndbuf], [mode, packet, active, header, packet_size],
                  [nodelay], [keepalive], [buffer], [send_timeout]]].

asked_with_values(Config) ->
    {_, S} = open(Config),
    ok = inet:setopts(S, [{packet, 2}, {active, 7}, {send_timeout, 77}]),
    ?assertEqual({ok, [{send_timeout, 77}, {packet, 2}, {active, 7}, {packet, 2}]},
                 inet:getopts(S, [send_timeout, packet, active, packet])).

%% The kernel may give more than was asked for. {recbuf, N} makes a `buffer` that nobody
%% has set as large.
sizes_are_sizes(Config) ->
    {_, S} = open(Config),
    [begin
         ok = inet:setopts(S, [{Name, 20000}]),
         {ok, [{Name, Size}]} = inet:getopts(S, [Name]),
         ?assert(Size >= 20000)
     end || Name <- [recbuf, sndbuf, buffer]],
    {_, S2} = open(Config),
    ok = inet:setopts(S2, [{recbuf, 65536}]),
    {ok, [{buffer, Buffer}]} = inet:getopts(S2, [buffer]),
    ?assert(Buffer >= 65536).

%% {raw, Protocol, Name, Value} reaches the kernel of a real socket; a virtual one has
%% no kernel socket, and says so.
raw_nodelay(Config) ->
    {_, S} = open(Config),
    Set = inet:setopts(S, [{raw, 6, 1, <<1:32/native>>}]),
    Got = inet:getopts(S, [{raw, 6, 1, 4}]),
    case virtual(Config) of
        false -> {ok, {ok, [{raw, 6, 1, <<_:4/binary>>}]}} = {Set, Got};
        true -> ?assertEqual({{error, einval}, {error, einval}}, {Set, Got})
    end.

unknown_names(Config) ->
    {_, S} = open(Config),
    [?assertEqual({error, einval}, inet:getopts(S, Names))
     || Names <- [[nonsense], [active, nonsense], [{active, true}], ["active"], [1]]],
    [?assertEqual({error, einval}, inet:setopts(S, Options))
     || Options <- [[{nonsense, 1}], [nonsense], [{"active", true}], [{active}], [1],
                    [{active, true, 1}]]].

unknown_values(Config) ->
    {_, S} = open(Config),
    Bad = [{active, maybe}, {active, 1.5}, {active, "true"}, {active, 32768},
           {packet, foo}, {packet, 3}, {packet, "raw"}, {mode, tuple}, {packet_size, -1},
           {send_timeout, -1}, {send_timeout, foo}, {header, -1}, {exit_on_close, 1},
           {send_timeout_close, 1}, {nodelay, foo}, {keepalive, 1}, {deliver, x},
           {linger, true}, {show_econnreset, 1}, {delay_send, x}, {buffer, x},
           {high_watermark, x}],
    [?assertEqual({Option, {error, einval}}, {Option, inet:setopts(S, [Option])})
     || Option <- Bad],
    {ok, [{active, false}, {packet, 0}]} = inet:getopts(S, [active, packet]).

nothing_set_when_one_is_wrong(Config) ->
    {_, S} = open(Config),
    ?assertEqual({error, einval}, inet:setopts(S, [{packet, 2}, {nonsense, 1}])),
    ?assertEqual({error, einval}, inet:setopts(S, [{packet, 4}, {active, maybe}])),
    ?assertEqual({ok, [{packet, 0}, {active, false}]}, inet:getopts(S, [packet, active])).

%% Not a list: the caller's mistake, an exception rather than an error to handle.
nonsense(Config) ->
    {_, S} = open(Config),
    [?assertError(_, inet:setopts(S, Options)) || Options <- [foo, [{active, true} | foo]]],
    ?assertError(_, inet:getopts(S, foo)),
    {ok, [{active, false}]} = inet:getopts(S, [active]).

mode_both_ways(Config) ->
    {_, S} = open(Config),
    [begin
         ok = inet:setopts(S, [Set]),
         ?assertEqual({ok, [{mode, Mode}]}, inet:getopts(S, [mode]))
     end || {Set, Mode} <- [{list, list}, {binary, binary}, {{mode, list}, list},
                            {{mode, binary}, binary}]].

packet_names(Config) ->
    {_, S} = open(Config),
    [begin
         ok = inet:setopts(S, [{packet, Set}]),
         ?assertEqual({Set, {ok, [{packet, Get}]}}, {Set, inet:getopts(S, [packet])})
     end || {Set, Get} <- [{1, 1}, {2, 2}, {4, 4}, {line, line}, {http, http},
                           {http_bin, http_bin}, {httph, httph}, {httph_bin, httph_bin},
                           {raw, 0}, {0, 0}]].

%% {deliver, port} sends {S, {data, Data}} instead of {tcp, S, Data}. Nobody is known
%% to use it on sockets: a virtual socket refuses it rather than not do it.
deliver_port(Config) ->
    {C, S} = open(Config),
    case virtual(Config) of
        false ->
            ok = inet:setopts(S, [{deliver, port}, {active, once}]),
            socket_pair:send(C, "a"),
            receive {S, {data, "a"}} -> ok after ?TIMEOUT -> error(timeout) end;
        true ->
            ?assertEqual({error, einval}, inet:setopts(S, [{deliver, port}])),
            ?assertEqual(ok, inet:setopts(S, [{deliver, term}]))
    end.

empty_lists(Config) ->
    {_, S} = open(Config),
    ?assertEqual(ok, inet:setopts(S, [])),
    ?assertEqual({ok, []}, inet:getopts(S, [])).
