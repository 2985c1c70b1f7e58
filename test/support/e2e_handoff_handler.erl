%% A request handler that is given the socket with the request, as those of WebSockets are. Inside the
%% ejabberd under test.
-module(e2e_handoff_handler).

-export([socket_handoff/3]).

-define(TIMEOUT, 10_000).

%% `take`: the connection goes on as a protocol of the handler's own, which shouts back.
socket_handoff([<<"take">> | _], Request, _Opts) ->
    #{sockmod := SockMod, socket := Socket, data := Early} = e2e_echo_handler:fields(Request),
    ok = SockMod:send(Socket, <<"HTTP/1.1 101 Switching Protocols\r\nUpgrade: shout\r\nConnection: Upgrade\r\n\r\n">>),
    ok = SockMod:send(Socket, string:uppercase(Early)),
    shout(SockMod, Socket);
socket_handoff(Path, Request, _Opts) -> e2e_echo_handler:process(Path, Request).

shout(SockMod, Socket) ->
    case SockMod:recv(Socket, 0, ?TIMEOUT) of
        {ok, Bytes} ->
            ok = SockMod:send(Socket, string:uppercase(Bytes)),
            shout(SockMod, Socket);
        {error, _} -> taken
    end.
