%% Opcodes of WebSocket frames, and the bit of the last frame of a message (RFC 6455, 5.2).
-define(MORE, 0).
-define(TEXT, 1).
-define(BINARY, 2).
-define(CLOSE, 8).
-define(PING, 9).
-define(PONG, 10).
-define(FIN, 16#80).
%% The mask of a client's frames here.
-define(KEY, 16#a1, 16#b2, 16#c3, 16#d4).
