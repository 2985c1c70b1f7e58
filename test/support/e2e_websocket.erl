%% The client's side of a WebSocket (RFC 6455) that carries XMPP (RFC 7395): enough of it to
%% send and read text, and to see how the server ends it.
-module(e2e_websocket).

-export([connect/3, send/2, recv/2, close/1]).
-export_type([websocket/0]).

-type websocket() :: #{socket := gen_tcp:socket(), rest := binary()}.

-define(TIMEOUT, 15_000).
-define(KEY, "dGhlIHNhbXBsZSBub25jZQ==").
-define(TEXT, 1).
-define(CLOSE, 8).
-define(PING, 9).
-define(PONG, 10).

-spec connect(inet:port_number(), Path :: iodata(), [gen_tcp:connect_option()]) ->
          {ok, websocket()} | {error, {status, binary()} | term()}.
connect(Port, Path, Options) ->
    case gen_tcp:connect({127, 0, 0, 1}, Port, [binary, {active, false} | Options], ?TIMEOUT) of
        {ok, Socket} ->
            ok = gen_tcp:send(Socket, ["GET ", Path, " HTTP/1.1\r\nHost: localhost\r\n"
                                       "Upgrade: websocket\r\nConnection: Upgrade\r\n"
                                       "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " ?KEY "\r\n"
                                       "Sec-WebSocket-Protocol: xmpp\r\n\r\n"]),
            upgraded(Socket, <<>>);
        {error, _} = Error ->
            Error
    end.

upgraded(Socket, Head) ->
    case binary:split(Head, <<"\r\n\r\n">>) of
        [<<"HTTP/1.1 101", _/binary>>, Rest] ->
            {ok, #{socket => Socket, rest => Rest}};
        [<<"HTTP/1.1 ", Status:3/binary, _/binary>>, _] ->
            gen_tcp:close(Socket),
            {error, {status, Status}};
        [_] ->
            case gen_tcp:recv(Socket, 0, ?TIMEOUT) of
                {ok, Bytes} -> upgraded(Socket, <<Head/binary, Bytes/binary>>);
                {error, _} = Error -> Error
            end
    end.

%% A client masks what it sends; any mask will do.
-spec send(websocket(), iodata()) -> ok | {error, term()}.
send(#{socket := Socket}, Text) -> gen_tcp:send(Socket, frame(?TEXT, iolist_to_binary(Text))).

%% The next text. A close frame of the server's is an end, with its code.
-spec recv(websocket(), timeout()) ->
          {ok, Text :: binary(), websocket()}
        | {error, closed | econnreset | timeout | {close_frame, Code :: non_neg_integer(), Text :: binary()}}.
recv(#{rest := <<_:4, ?CLOSE:4, _:8, Code:16, Text/binary>>}, _Timeout) ->
    {error, {close_frame, Code, Text}};
recv(#{rest := <<_:4, ?CLOSE:4, 0:8, _/binary>>}, _Timeout) ->
    {error, {close_frame, 0, <<>>}};
recv(#{socket := Socket, rest := Bytes} = WebSocket, Timeout) ->
    case unframe(Bytes) of
        {?TEXT, Text, Rest} ->
            {ok, Text, WebSocket#{rest := Rest}};
        {?PING, Payload, Rest} ->
            _ = gen_tcp:send(Socket, frame(?PONG, Payload)),
            recv(WebSocket#{rest := Rest}, Timeout);
        {_Other, _Payload, Rest} ->
            recv(WebSocket#{rest := Rest}, Timeout);
        more ->
            case gen_tcp:recv(Socket, 0, Timeout) of
                {ok, More} -> recv(WebSocket#{rest := <<Bytes/binary, More/binary>>}, Timeout);
                {error, _} = Error -> Error
            end
    end.

-spec close(websocket()) -> ok.
close(#{socket := Socket}) -> gen_tcp:close(Socket).

frame(Opcode, Payload) ->
    Mask = 0,
    [<<1:1, 0:3, Opcode:4, 1:1, (size7(byte_size(Payload)))/bitstring, Mask:32>>, Payload].

size7(Size) when Size < 126 -> <<Size:7>>;
size7(Size) when Size < 65_536 -> <<126:7, Size:16>>;
size7(Size) -> <<127:7, Size:64>>.

unframe(<<_:4, Opcode:4, 0:1, Size:7, Payload:Size/binary, Rest/binary>>) when Size < 126 ->
    {Opcode, Payload, Rest};
unframe(<<_:4, Opcode:4, 0:1, 126:7, Size:16, Payload:Size/binary, Rest/binary>>) ->
    {Opcode, Payload, Rest};
unframe(<<_:4, Opcode:4, 0:1, 127:7, Size:64, Payload:Size/binary, Rest/binary>>) ->
    {Opcode, Payload, Rest};
unframe(_) ->
    more.
