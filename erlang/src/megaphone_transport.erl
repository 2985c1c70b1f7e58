%% @doc A link's transport: TCP (a Unix socket too), or TLS over it.
-module(megaphone_transport).

%% megaphone_greeter
-export([tls/3]).
%% megaphone_greeter, megaphone_receiver, megaphone_sender
-export([send/2, setopts/2, close/1, abort/1, peername/1, sockname/1, controlling_process/2,
         message/2]).

-export_type([t/0]).

-type t() :: {tcp, gen_tcp:socket()} | {tls, ssl:sslsocket()}.

%% @doc Does the server's side of the TLS handshake; blocks for at most `Timeout' milliseconds.
%% The caller owns the passive `Socket', which is closed where it fails.
-spec tls(gen_tcp:socket(), [ssl:tls_server_option()], timeout()) ->
          {ok, t()} | {error, closed | timeout | term()}.
tls(Socket, Options, Timeout) ->
    case ssl:handshake(Socket, Options, Timeout) of
        {ok, TlsSocket} -> {ok, {tls, TlsSocket}};
        {error, _} = Error -> gen_tcp:close(Socket), Error
    end.

%% @doc As `gen_tcp:send/2': blocks up to the socket's `send_timeout'. Any process may.
-spec send(t(), iodata()) -> ok | {error, closed | timeout | inet:posix() | term()}.
send({tcp, Socket}, Data) -> gen_tcp:send(Socket, Data);
send({tls, Socket}, Data) -> ssl:send(Socket, Data).

%% @doc As `inet:setopts/2'.
-spec setopts(t(), [gen_tcp:option()]) -> ok | {error, inet:posix() | term()}.
setopts({tcp, Socket}, Options) -> inet:setopts(Socket, Options);
setopts({tls, Socket}, Options) -> ssl:setopts(Socket, Options).

-spec close(t()) -> ok.
close({tcp, Socket}) -> gen_tcp:close(Socket);
close({tls, Socket}) -> _ = ssl:close(Socket), ok.

%% @doc Ends the transport at once, with a reset, and never blocks: close would wait for minutes
%% for a peer that takes nothing any more.
-spec abort(t()) -> ok.
abort(Transport) ->
    _ = spawn(fun() ->
                      _ = setopts(Transport, [{linger, {true, 0}}]),
                      close(Transport)
              end),
    ok.

-spec peername(t()) -> {ok, megaphone_address:address()} | {error, inet:posix() | term()}.
peername({tcp, Socket}) -> inet:peername(Socket);
peername({tls, Socket}) -> ssl:peername(Socket).

-spec sockname(t()) -> {ok, megaphone_address:address()} | {error, inet:posix() | term()}.
sockname({tcp, Socket}) -> inet:sockname(Socket);
sockname({tls, Socket}) -> ssl:sockname(Socket).

%% @doc As `gen_tcp:controlling_process/2'; the transport must be passive.
-spec controlling_process(t(), pid()) -> ok | {error, closed | not_owner | badarg | term()}.
controlling_process({tcp, Socket}, Pid) -> gen_tcp:controlling_process(Socket, Pid);
controlling_process({tls, Socket}, Pid) -> ssl:controlling_process(Socket, Pid).

%% @doc What a message to the owner says of exactly this transport.
-spec message(t(), term()) -> {data, binary()} | passive | closed | {error, term()} | other.
message({tcp, Socket}, {tcp, Socket, Data}) -> {data, Data};
message({tcp, Socket}, {tcp_passive, Socket}) -> passive;
message({tcp, Socket}, {tcp_closed, Socket}) -> closed;
message({tcp, Socket}, {tcp_error, Socket, Reason}) -> {error, Reason};
message({tls, Socket}, {ssl, Socket, Data}) -> {data, Data};
message({tls, Socket}, {ssl_passive, Socket}) -> passive;
message({tls, Socket}, {ssl_closed, Socket}) -> closed;
message({tls, Socket}, {ssl_error, Socket, Reason}) -> {error, Reason};
message(_, _) -> other.
