%% TCP ports that are free now and that nobody is given by accident.
-module(e2e_port).

-export([free/0, listening/1]).

%% Below Linux's ephemeral range (32768 and up), so that an outgoing connection of
%% some other test cannot take the port before the server under test binds it.
-define(LOWEST, 20_000).
-define(HIGHEST, 32_000).

-spec free() -> inet:port_number().
free() ->
    Port = ?LOWEST + rand:uniform(?HIGHEST - ?LOWEST),
    case gen_tcp:listen(Port, [{ip, {127, 0, 0, 1}}, {reuseaddr, true}]) of
        {ok, Listener} ->
            ok = gen_tcp:close(Listener),
            Port;
        {error, eaddrinuse} ->
            free()
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
