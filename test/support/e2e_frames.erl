%% WebSocket frames (RFC 6455, 5.2) as a client makes them, right and wrong ones.
-module(e2e_frames).

-export([frame/2, frame/3, recv/2, recv/3, collect/2]).
-export_type([type/0, options/0]).

-type type() :: continuation | text | binary | close | ping | pong | 0..15.
-type options() :: #{fin => boolean(), rsv => 0..7, masked => boolean(), mask => binary(),
                     size => non_neg_integer(), % what the head says instead
                     long => 16 | 64}.          % a longer form of the size than is needed

-define(TIMEOUT, 10_000).

-spec frame(type(), iodata()) -> iodata().
frame(Type, Payload) -> frame(Type, Payload, #{}).

-spec frame(type(), iodata(), options()) -> iodata().
frame(Type, Payload0, Options) ->
    Payload = iolist_to_binary(Payload0),
    Fin = case maps:get(fin, Options, true) of true -> 1; false -> 0 end,
    Rsv = maps:get(rsv, Options, 0),
    Size = size7(maps:get(size, Options, byte_size(Payload)), maps:get(long, Options, none)),
    case maps:get(masked, Options, true) of
        true ->
            Mask = maps:get(mask, Options, <<16#37, 16#fa, 16#21, 16#3d>>),
            [<<Fin:1, Rsv:3, (opcode(Type)):4, 1:1, Size/bitstring>>, Mask, masked(Payload, Mask)];
        false ->
            [<<Fin:1, Rsv:3, (opcode(Type)):4, 0:1, Size/bitstring>>, Payload]
    end.

size7(Size, 64) -> <<127:7, Size:64>>;
size7(Size, 16) -> <<126:7, Size:16>>;
size7(Size, none) when Size < 126 -> <<Size:7>>;
size7(Size, none) when Size < 65_536 -> <<126:7, Size:16>>;
size7(Size, none) -> <<127:7, Size:64>>.

masked(Payload, Mask) ->
    Size = byte_size(Payload),
    Stream = binary:part(binary:copy(Mask, Size div 4 + 1), 0, Size),
    crypto:exor(Payload, Stream).

opcode(continuation) -> 0;
opcode(text) -> 1;
opcode(binary) -> 2;
opcode(close) -> 8;
opcode(ping) -> 9;
opcode(pong) -> 10;
opcode(Other) -> Other.

type(0) -> continuation;
type(1) -> text;
type(2) -> binary;
type(8) -> close;
type(9) -> ping;
type(10) -> pong;
type(Other) -> Other.

%% The server's next frame: never masked, its size in the shortest form, no reserved bit.
-spec recv(gen_tcp:socket(), binary()) ->
          {ok, {type(), binary()}, Rest :: binary()} | {error, term()}.
recv(Socket, Bytes) -> recv(Socket, Bytes, ?TIMEOUT).

recv(Socket, Bytes, Timeout) ->
    case parse(Bytes) of
        {ok, Frame, Rest} -> {ok, Frame, Rest};
        more ->
            case gen_tcp:recv(Socket, 0, Timeout) of
                {ok, More} -> recv(Socket, <<Bytes/binary, More/binary>>, Timeout);
                {error, _} = Error -> Error
            end
    end.

parse(<<Fin:1, 0:3, Opcode:4, 0:1, 127:7, Size:64, Payload:Size/binary, Rest/binary>>) when Size > 65_535 ->
    {ok, typed(Fin, Opcode, Payload), Rest};
parse(<<Fin:1, 0:3, Opcode:4, 0:1, 126:7, Size:16, Payload:Size/binary, Rest/binary>>) when Size > 125 ->
    {ok, typed(Fin, Opcode, Payload), Rest};
parse(<<Fin:1, 0:3, Opcode:4, 0:1, Size:7, Payload:Size/binary, Rest/binary>>) when Size < 126 ->
    {ok, typed(Fin, Opcode, Payload), Rest};
parse(<<_:1, Rsv:3, _/bitstring>>) when Rsv > 0 -> error(reserved_bit);
parse(<<_:8, 1:1, _/bitstring>>) -> error(masked_by_server);
parse(_) -> more.

typed(1, Opcode, Payload) -> {type(Opcode), Payload};
typed(0, Opcode, Payload) -> {{part, type(Opcode)}, Payload}.

%% All frames until the server closes the connection; its Close is answered.
-spec collect(gen_tcp:socket(), binary()) -> [{type(), binary()} | closed | {error, term()}].
collect(Socket, Bytes) ->
    case recv(Socket, Bytes) of
        {ok, {close, Payload} = Frame, Rest} ->
            _ = gen_tcp:send(Socket, frame(close, Payload)),
            [Frame | collect(Socket, Rest)];
        {ok, Frame, Rest} -> [Frame | collect(Socket, Rest)];
        {error, closed} -> [closed];
        {error, _} = Error -> [Error]
    end.
