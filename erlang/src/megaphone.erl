%% @doc Many client connections over a few links, each an ordinary Erlang socket.
%%
%% Two faces. To ejabberd this is a listening module: `module: megaphone' in
%% `listen' (docs/operating.md). To an Erlang developer it is what `gen_tcp' is,
%% for virtual connections:
%%
%% ```
%% {ok, Listen} = megaphone:listen(6280, [{ip, {127, 0, 0, 1}}]),
%% {ok, Socket} = gen_tcp:accept(Listen),
%% {ok, {{Method, Uri, _Version}, Headers, Body}} = megaphone:receive_packet(Socket),
%% ok = megaphone:send(Socket, <<"HTTP/1.1 204 No Content\r\n\r\n">>),
%% ok = megaphone:close(Socket).
%% '''
%%
%% A virtual connection is named by its socket, with which every call of
%% <a href="https://www.erlang.org/doc/man/gen_tcp.html">gen_tcp</a> and
%% <a href="https://www.erlang.org/doc/man/inet.html">inet</a> works as well, or
%% by its connection id, the number that the edge gave it, which costs a search
%% over all links each time.
-module(megaphone).

%% ejabberd_listener
-export([start/2, start/3, start_link/3, accept/1, socket_type/0,
         listen_options/0, listen_opt_type/1, tcp_init/2]).
%% Erlang developers: listening
-export([listen/1, listen/2]).
%% Erlang developers: a connection
-export([recv/1, recv/2, recv/3, send/2, receive_packet/1, receive_packet/2,
         close/1, shutdown/2, setopts/2, getopts/2, peername/1, sockname/1,
         controlling_process/2]).
%% Erlang developers: looking things up
-export([socket/1, connection_id/1, info/1, links/0, connections/1, listeners/0,
         memory/0, format_error/1]).
%% Administrators
-export([drain/1, undrain/0]).
%% megaphone_acceptor
-export([format_connection_id/1]).

-export_type([socket/0, listen_socket/0, connection_id/0, listen_option/0,
              http_item/0, request/0]).

-type socket() :: {'$inet', megaphone_socket, term()}.
-type listen_socket() :: {'$inet', megaphone_socket, {listener, pid()}}.
%% 1 to 2^64-1.
-type connection_id() :: pos_integer().

%% What {@link recv/1} gives, one after the other: the terms of
%% `erlang:decode_packet(http, ...)', then the body.
-type http_item() :: {http_request, Method :: atom() | string(), Uri :: term(),
                      Version :: {non_neg_integer(), non_neg_integer()}}
                   | {http_header, non_neg_integer(), Name :: atom() | string(),
                      Unmodified :: term(), Value :: string()}
                   | http_eoh
                   | {http_error, string()}
                   | binary().

-type request() :: {Request :: term(), Headers :: [term()], Body :: binary()}.

-type listen_option() ::
        {ip, inet:socket_address()} | inet | inet6 % this machine only; {ip, any} for all
      | {backlog, pos_integer()}                % accept queue, connections; 1024
      | {services, [binary()]}                  % names taken; [<<"default">>]
      | {window, pos_integer()}                 % bytes a connection; 16384
      | {max_frame, pos_integer()}              % bytes of content; 65536
      | {max_connections, pos_integer()}        % a link; 1000000
      | {version_1, boolean()}                  % true
      | {idle_timeout, timeout()}               % ms, version 1; 300000
      | {heartbeat, pos_integer()}              % ms, 1000 or more; 10000
      | {resume_timeout, non_neg_integer()}     % ms, 0: never; 30000
      | {resume_buffer, pos_integer()}          % bytes a link; 16777216
      | {max_buffered, pos_integer()}           % bytes a link; 268435456
      | {secret, binary()} | {secret_file, file:name_all()}
      | {tls, [ssl:tls_server_option()]}
      | {allowed_ips, [string() | inet:ip_address() | {inet:ip_address(), 0..128}]}
      | {max_handshakes, pos_integer()}         % dials at a time; 64
      | gen_tcp:option().                       % what accepted sockets begin with

%%% For ejabberd. The work is in megaphone_ejabberd and megaphone_options.

%% @private
-spec start({gen_tcp, gen_tcp:socket()}, list()) -> {ok, pid()} | {error, term()}.
start({SockMod, Socket}, State) ->
    start(SockMod, Socket, State).

%% @private
-spec start(gen_tcp, gen_tcp:socket(), list()) -> {ok, pid()} | {error, term()}.
start(gen_tcp, Socket, State) ->
    megaphone_ejabberd:start_greeter(alone, Socket, State).

%% @private
-spec start_link(gen_tcp, gen_tcp:socket(), list()) -> {ok, pid()} | {error, term()}.
start_link(gen_tcp, Socket, State) ->
    megaphone_ejabberd:start_greeter(linked, Socket, State).

%% @private ejabberd has made `Pid' the link socket's owner.
-spec accept(pid()) -> ok.
accept(Pid) ->
    megaphone_greeter:activate(Pid).

%% @private
-spec socket_type() -> raw.
socket_type() ->
    raw.

%% @private
-spec listen_options() -> [{atom(), term()}].
listen_options() ->
    megaphone_options:defaults().

%% @private
-spec listen_opt_type(atom()) -> fun((term()) -> term()).
listen_opt_type(Option) ->
    megaphone_options:type(Option).

%% @private
-spec tcp_init(gen_tcp:socket(), [{atom(), term()}]) -> list().
tcp_init(ListenSocket, Opts) ->
    megaphone_ejabberd:tcp_init(ListenSocket, Opts).

%%% Listening

%% @equiv listen(Address, [])
-spec listen(inet:port_number() | {local, file:name_all()}) ->
          {ok, listen_socket()}
        | {error, nif_not_loaded | system_limit | inet:posix() | megaphone_access:error()}.
listen(Address) ->
    listen(Address, []).

%% @doc Listens for links, without ejabberd.
%%
%% `Address' is a TCP port (0: any free one, see `inet:port/1') or `{local,
%% Path}', a Unix socket; a stale socket file there is replaced. The listener
%% is the caller's: it ends with the caller, or by `gen_tcp:close/1'.
%% `gen_tcp:accept/1,2' gives the virtual connections, from all links, in the
%% order they were opened.
%%
%% A listener that other hosts can reach needs a secret, or `tls' with `{verify,
%% verify_peer}': `{error, no_authentication}'. Reasons have a sentence in {@link
%% format_error/1}; docs/operating.md says more of each option.
%%
%% Accepted sockets are `binary', `{active, false}' and `{packet, raw}' unless
%% `Options' say otherwise. Blocks no longer than it takes to start some
%% processes, or to end what listened on this address just before.
-spec listen(inet:port_number() | {local, file:name_all()}, [listen_option()]) ->
          {ok, listen_socket()}
        | {error, nif_not_loaded | system_limit | inet:posix() | megaphone_access:error()}.
listen(Address, Options) ->
    case megaphone_listen:open(Address, Options) of
        {ok, Service} -> {ok, {'$inet', megaphone_socket, {listener, Service}}};
        {error, _} = Error -> Error
    end.

%%% A connection

%% @doc Waits for, and returns, the connection's next HTTP item.
%%
%% One for each call: the request line, each header, `http_eoh' (as
%% `erlang:decode_packet(http, ...)' has them), then the body in one piece where
%% the request has one. Several processes may wait on one connection; items go
%% to them first come, first served.
-spec recv(connection_id() | socket()) ->
          {ok, http_item()} | {error, closed | inet:posix()}.
recv(Connection) ->
    with_socket(Connection, fun(Socket) -> megaphone_socket:recv_http(Socket, infinity) end).

%% @equiv recv(Connection, Length, infinity)
-spec recv(connection_id() | socket(), non_neg_integer()) ->
          {ok, term()} | {error, closed | inet:posix()}.
recv(Connection, Length) ->
    recv(Connection, Length, infinity).

%% @doc As `gen_tcp:recv/3'; `Timeout' in milliseconds.
-spec recv(connection_id() | socket(), non_neg_integer(), timeout()) ->
          {ok, term()} | {error, closed | timeout | inet:posix()}.
recv(Connection, Length, Timeout) ->
    with_socket(Connection, fun(Socket) -> megaphone_socket:recv(Socket, Length, Timeout) end).

%% @doc As `gen_tcp:send/2': blocks while the client takes nothing and its
%% window is used up, up to the socket's `send_timeout'.
-spec send(connection_id() | socket(), iodata()) ->
          ok | {error, closed | timeout | inet:posix()}.
send(Connection, Data) ->
    with_socket(Connection, fun(Socket) -> megaphone_socket:send(Socket, Data) end).

%% @equiv receive_packet(Connection, infinity)
-spec receive_packet(connection_id() | socket()) ->
          {ok, request()} | {error, closed | term()}.
receive_packet(Connection) ->
    receive_packet(Connection, infinity).

%% @doc Waits up to `Timeout' milliseconds for the next whole HTTP request, its
%% body decoded.
-spec receive_packet(connection_id() | socket(), timeout()) ->
          {ok, request()} | {error, closed | timeout | term()}.
receive_packet(Connection, Timeout) ->
    with_socket(Connection, fun(Socket) -> megaphone_request:recv(Socket, Timeout) end).

%% @doc As `gen_tcp:close/1': what was sent is still delivered to the client. A
%% listen socket's listener ends with its links.
-spec close(connection_id() | socket() | listen_socket()) -> ok.
close({'$inet', megaphone_socket, {listener, Service}}) ->
    megaphone_service:close(Service);
close(Connection) ->
    _ = with_socket(Connection, fun megaphone_socket:close/1),
    ok.

%% @doc As `gen_tcp:shutdown/2'.
-spec shutdown(connection_id() | socket(), read | write | read_write) ->
          ok | {error, closed | inet:posix()}.
shutdown(Connection, How) ->
    with_socket(Connection, fun(Socket) -> gen_tcp:shutdown(Socket, How) end).

%% @doc As `inet:setopts/2'.
-spec setopts(connection_id() | socket(), [gen_tcp:option()]) ->
          ok | {error, closed | inet:posix()}.
setopts(Connection, Options) ->
    with_socket(Connection, fun(Socket) -> inet:setopts(Socket, Options) end).

%% @doc As `inet:getopts/2'.
-spec getopts(connection_id() | socket(), [gen_tcp:option_name()]) ->
          {ok, [gen_tcp:option()]} | {error, closed | inet:posix()}.
getopts(Connection, Names) ->
    with_socket(Connection, fun(Socket) -> inet:getopts(Socket, Names) end).

%% @doc The client's own address, as the edge saw it; with version 1 of the
%% protocol, the link's.
-spec peername(connection_id() | socket()) ->
          {ok, {inet:ip_address(), inet:port_number()}} | {error, closed | inet:posix()}.
peername(Connection) ->
    with_socket(Connection, fun(Socket) -> inet:peername(Socket) end).

%% @doc The address that the client connected to; of a listen socket, where
%% it listens for links.
-spec sockname(connection_id() | socket() | listen_socket()) ->
          {ok, {inet:ip_address(), inet:port_number()} | {local, binary()}}
        | {error, closed | inet:posix()}.
sockname({'$inet', megaphone_socket, {listener, Service}}) ->
    megaphone_service:sockname(Service);
sockname(Connection) ->
    with_socket(Connection, fun(Socket) -> inet:sockname(Socket) end).

%% @doc As `gen_tcp:controlling_process/2': the caller must be the owner.
-spec controlling_process(connection_id() | socket(), pid()) ->
          ok | {error, closed | not_owner | badarg | inet:posix()}.
controlling_process(Connection, Pid) ->
    with_socket(Connection, fun(Socket) -> gen_tcp:controlling_process(Socket, Pid) end).

%%% Looking things up

%% @doc The socket of a connection, looked for on all links.
-spec socket(connection_id() | socket()) -> {ok, socket()} | {error, closed}.
socket({'$inet', megaphone_socket, _} = Socket) ->
    {ok, Socket};
socket(ConnectionId) when is_integer(ConnectionId) ->
    megaphone_socket:whereis(ConnectionId).

%% @doc The number that the edge gave the connection, also when it has ended.
-spec connection_id(socket()) -> connection_id().
connection_id({'$inet', megaphone_socket, _} = Socket) ->
    megaphone_socket:connection_id(Socket).

%% @doc What is known about a connection, or about a link by its pid.
-spec info(connection_id() | socket() | pid()) -> {ok, map()} | {error, closed}.
info(Link) when is_pid(Link) ->
    case megaphone_receiver:info(Link) of
        #{} = Info -> {ok, Info};
        undefined -> {error, closed}
    end;
info(Connection) ->
    with_socket(Connection, fun(Socket) -> {ok, megaphone_socket:facts(Socket)} end).

%% @doc All links, up or parked, on all listeners: the pid names a link.
-spec links() -> [{Link :: pid(), Info :: map()}].
links() ->
    [{Link, Info} || {Link, _, _} <- megaphone_link_table:all(), {ok, Info} <- [info(Link)]].

%% @doc The connections of a link. Up to a million: for people, not for loops.
-spec connections(Link :: pid()) -> [connection_id()].
connections(Link) ->
    case megaphone_link_table:handle(Link) of
        {ok, Handle} -> megaphone_nif:connections(Handle);
        {error, closed} -> []
    end.

%% @doc All link listeners: their address, services and their queues, links.
-spec listeners() -> [megaphone_listener:info()].
listeners() ->
    [Info || Tree <- megaphone_root:listeners(),
             #{} = Info <- [megaphone_listener:info(Tree)]].

%% @doc Bytes that the NIF holds: links, their connections' state and buffers, the queue
%% of what is to be sent and what a peer has not acknowledged.
%%
%% It is memory of the system's, which `erlang:memory/0' does not know of. Frames as they were
%% read and what processes were given are binaries of the emulator's, and stand there under
%% `binary'. 0 where no listener was ever started.
-spec memory() -> non_neg_integer().
memory() ->
    try megaphone_nif:memory()
    catch error:{not_loaded, _} -> 0
    end.

%% @doc A sentence about the reason of an `{error, Reason}'.
-spec format_error(term()) -> string().
format_error(nif_not_loaded) -> "megaphone's NIF is not loaded: the log says why";
format_error(closed) -> "the connection is closed";
format_error(timeout) -> "the time was up";
format_error(not_running) -> "megaphone is not running on this node";
format_error(not_owner) -> "the caller does not own the socket";
format_error(system_limit) -> "a limit of the emulator or the system was reached";
format_error(no_authentication = Error) -> megaphone_access:format_error(Error);
format_error({bad_subnet, _} = Error) -> megaphone_access:format_error(Error);
format_error({secret, _} = Error) -> megaphone_access:format_error(Error);
format_error({secret_file, _, _} = Error) -> megaphone_access:format_error(Error);
format_error({link_tls, _} = Error) -> megaphone_access:format_error(Error);
format_error({http_error, Line}) -> text("not HTTP that can be taken: ~ts", [Line]);
format_error(Reason) when is_atom(Reason) ->
    case inet:format_error(Reason) of
        "unknown POSIX error" ++ _ -> atom_to_list(Reason);
        Sentence -> Sentence
    end;
format_error(Reason) -> text("~tp", [Reason]).

%%% Administrators

%% @doc Empties this node: all links are told to open no more connections here, and the
%% connections that are open end evenly over so many seconds, each with the words its protocol has
%% for it (docs/operating.md, "Draining a node"). A link that dials meanwhile is told the same.
%%
%% Does not wait; the log says how far it is. Another call changes the time. The node stays
%% drained, with no connections, until {@link undrain/0} or its end.
-spec drain(Seconds :: non_neg_integer()) -> ok | {error, not_running}.
drain(Seconds) when is_integer(Seconds), Seconds >= 0 ->
    megaphone_drain:start(Seconds).

%% @doc Cancels {@link drain/1}: connections that were not told to end go on, and links that dial
%% from now on open connections here. A link that was told to go stays told: its ECM dials anew
%% once its last connection has ended.
-spec undrain() -> ok | {error, not_running}.
undrain() ->
    megaphone_drain:cancel().

%% @private A connection's id as it stands in frames and in the ECM's log.
-spec format_connection_id(socket()) -> string().
format_connection_id(Socket) ->
    text("~20..0b", [connection_id(Socket)]).

%%% helpers

with_socket({'$inet', megaphone_socket, _} = Socket, Do) ->
    Do(Socket);
with_socket(ConnectionId, Do) when is_integer(ConnectionId) ->
    case megaphone_socket:whereis(ConnectionId) of
        {ok, Socket} -> Do(Socket);
        {error, closed} -> {error, closed}
    end.

text(Format, Args) ->
    lists:flatten(io_lib:format(Format, Args)).
