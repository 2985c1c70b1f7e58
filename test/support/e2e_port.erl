%% TCP ports that are free now and that nobody is given by accident.
-module(e2e_port).

-export([free/0, listening/1, unread/1]).

%% Below Linux's ephemeral range (32768 and up), so that an outgoing connection of
%% some other test cannot take the port before the server under test binds it.
-define(LOWEST, 20_000).
-define(HIGHEST, 32_000).

-spec free() -> inet:port_number().
free() ->
    Port = ?LOWEST + next() rem (?HIGHEST - ?LOWEST),
    case gen_tcp:listen(Port, [{ip, {127, 0, 0, 1}}, {reuseaddr, true}]) of
        {ok, Listener} ->
            ok = gen_tcp:close(Listener),
            Port;
        {error, eaddrinuse} ->
            free()
    end.

%% Nobody is given one that another was given, and has perhaps not bound yet.
next() ->
    case persistent_term:get(?MODULE, undefined) of
        undefined ->
            Counter = atomics:new(1, [{signed, false}]),
            ok = atomics:put(Counter, 1, rand:uniform(?HIGHEST - ?LOWEST)),
            ok = persistent_term:put(?MODULE, Counter),
            next();
        Counter ->
            atomics:add_get(Counter, 1, 1)
    end.

%% Does anybody accept connections there?
-spec listening(inet:port_number()) -> boolean().
listening(Port) ->
    case gen_tcp:connect({127, 0, 0, 1}, Port, [], 5_000) of
        {ok, Socket} ->
            ok = gen_tcp:close(Socket),
            true;
        {error, econnrefused} ->
            false
    end.

%% Bytes that we have sent and the process at the other end, on this machine too, has not read: the queue of
%% its socket in proc(5)'s /proc/net/tcp.
-spec unread(gen_tcp:socket()) -> non_neg_integer().
unread(Socket) ->
    {ok, Ours} = inet:sockname(Socket),
    {ok, Theirs} = inet:peername(Socket),
    {ok, Table} = file:read_file("/proc/net/tcp"),
    [Queue] = [binary_to_integer(Unread, 16)
               || Line <- binary:split(Table, <<"\n">>, [global]),
                  [_, Local, Remote, _, <<_:8/binary, $:, Unread/binary>> | _]
                      <- [binary:split(Line, <<" ">>, [global, trim_all])],
                  Local =:= hex(Theirs), Remote =:= hex(Ours)],
    Queue.

%% The address is in the machine's own order of bytes.
hex({{A, B, C, D}, Port}) ->
    <<Ip:32/native>> = <<A, B, C, D>>,
    iolist_to_binary(io_lib:format("~8.16.0B:~4.16.0B", [Ip, Port])).
