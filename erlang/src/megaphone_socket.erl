%%% @doc A virtual connection as an Erlang socket.
%%%
%%% A socket is `{'$inet', megaphone_socket, Conn}': OTP's `gen_tcp', `inet' and `file:sendfile'
%%% pass every call on such a tuple to this module, so that code written for TCP runs on it
%%% unchanged. What each call means and returns is what OTP's pages of `gen_tcp' and `inet' say;
%%% docs/messages.md lists what a socket's owner can see, and the few differences.
%%%
%%% `{'$inet', megaphone_socket, {listener, Pid}}' is what `gen_tcp:accept/1,2' takes.
-module(megaphone_socket).

%% gen_tcp
-export([accept/2, recv/3, send/2, unrecv/2, shutdown/2, close/1, controlling_process/2]).
%% inet
-export([setopts/2, getopts/2, sockname/1, peername/1, socknames/1, getstat/2, monitor/1,
         cancel_monitor/1, info/1, socket_to_list/1, which_packet_type/1]).
%% file
-export([sendfile/4]).
%% megaphone
-export([socket/1, whereis/1, connection_id/1, recv_http/2, facts/1]).
%% megaphone_ws
-export([await_send/2]).

-export_type([socket/0, listen_socket/0]).

-type socket() :: {'$inet', ?MODULE, megaphone_nif:conn()}.
-type listen_socket() :: {'$inet', ?MODULE, {listener, pid()}}.
-type reason() :: closed | inet:posix().

-define(SOCKET(Conn), {'$inet', ?MODULE, Conn}).
-define(LISTENER(Pid), {'$inet', ?MODULE, {listener, Pid}}).

%% Data over this many bytes is copied on a dirty scheduler: a copy of 256 kB takes some 50 us.
-define(LARGE, 262_144).
%% A file is sent in pieces of this size.
-define(FILE_CHUNK, 65_536).
-define(ALL_STATS, [recv_oct, recv_cnt, recv_max, recv_avg, recv_dvi,
                    send_oct, send_cnt, send_max, send_avg, send_pend]).

%%% gen_tcp

%% @doc Waits for a connection. See `gen_tcp:accept/2'.
-spec accept(listen_socket(), timeout()) -> {ok, socket()} | {error, closed | timeout}.
accept(?LISTENER(Pid), Timeout) ->
    megaphone_service:accept(Pid, Timeout).

%% @doc Waits for data, on a passive socket. See `gen_tcp:recv/3'.
-spec recv(socket(), non_neg_integer(), timeout()) ->
          {ok, string() | binary() | HttpPacket :: term()}
              | {error, closed | timeout | reason()}.
recv(?SOCKET(Conn), Length, Timeout) when is_integer(Length), Length >= 0 ->
    await_recv(Conn, nif_recv(Conn, Length), Timeout).

nif_recv(_Conn, Length) when Length > 16#ffffffff -> {error, enomem};
nif_recv(Conn, Length) -> megaphone_nif:recv(Conn, Length).

await_recv(Conn, {wait, Token}, Timeout) ->
    receive
        {'$megaphone_reply', Token, Result} -> Result
    after Timeout ->
            case megaphone_nif:cancel_recv(Conn, Token) of
                true -> {error, timeout};
                false -> receive {'$megaphone_reply', Token, Result} -> Result end
            end
    end;
await_recv(_Conn, Result, _Timeout) ->
    Result.

%% @doc Sends; blocks while the client takes less than is sent, up to `send_timeout'.
%% See `gen_tcp:send/2'.
-spec send(socket(), iodata()) -> ok | {error, closed | timeout | reason()}.
send(?SOCKET(Conn), Data) ->
    Sent = try iolist_size(Data) of
               Size when Size > ?LARGE -> megaphone_nif:send_large(Conn, Data);
               _ -> megaphone_nif:send(Conn, Data)
           catch
               error:badarg -> {error, einval}
           end,
    await_send(Conn, Sent).

%% @doc Waits for what a sending call of the NIF began, as long as that call says.
-spec await_send(megaphone_nif:conn(), ok | {wait, pos_integer(), timeout()} | {error, Reason}) ->
          ok | {error, timeout | Reason} when Reason :: atom().
await_send(Conn, {wait, Token, Timeout}) ->
    receive
        {'$megaphone_reply', Token, Result} -> Result
    after Timeout ->
            case megaphone_nif:send_timed_out(Conn, Token) of
                true -> {error, timeout};
                false -> receive {'$megaphone_reply', Token, Result} -> Result end
            end
    end;
await_send(_Conn, Result) ->
    Result.

%% @doc Puts data back, to be received again.
-spec unrecv(socket(), iodata()) -> ok | {error, closed}.
unrecv(?SOCKET(Conn), Data) ->
    megaphone_nif:unrecv(Conn, Data).

%% @doc Ends one direction or both. See `gen_tcp:shutdown/2'.
-spec shutdown(socket(), read | write | read_write) -> ok | {error, reason()}.
shutdown(?SOCKET(Conn), read) -> megaphone_nif:shutdown(Conn, true, false);
shutdown(?SOCKET(Conn), write) -> megaphone_nif:shutdown(Conn, false, true);
shutdown(?SOCKET(Conn), read_write) -> megaphone_nif:shutdown(Conn, true, true).

%% @doc Closes. What was sent still goes out. See `gen_tcp:close/1'.
-spec close(socket() | listen_socket()) -> ok.
close(?LISTENER(Pid)) ->
    megaphone_service:close(Pid);
close(?SOCKET(Conn) = Socket) ->
    megaphone_nif:close(Conn),
    %% As inet does: a closed socket leaves its owner no news of its end.
    receive {tcp_closed, Socket} -> ok
    after 0 -> ok
    end.

%% @doc Makes another process the owner, and moves what is queued for it.
%% See `gen_tcp:controlling_process/2'.
-spec controlling_process(socket(), pid()) -> ok | {error, not_owner | badarg | einval}.
controlling_process(?LISTENER(_), NewOwner) when is_pid(NewOwner) ->
    ok;
controlling_process(?SOCKET(Conn) = Socket, NewOwner) when is_pid(NewOwner) ->
    case megaphone_nif:hand_over(Conn) of
        {ok, Active} when NewOwner =:= self() ->
            megaphone_nif:set_owner(Conn, NewOwner, Active);
        {ok, Active} ->
            move_queued(Socket, NewOwner),
            case megaphone_nif:set_owner(Conn, NewOwner, Active) of
                ok ->
                    ok;
                {error, _} = Error ->
                    _ = megaphone_nif:set_active(Conn, Active),
                    Error
            end;
        {error, _} = Error ->
            Error
    end.

move_queued(Socket, NewOwner) ->
    receive
        {tcp, Socket, _} = Message -> move_queued(Message, Socket, NewOwner);
        {http, Socket, _} = Message -> move_queued(Message, Socket, NewOwner);
        {tcp_error, Socket, _} = Message -> move_queued(Message, Socket, NewOwner);
        {tcp_passive, Socket} = Message -> move_queued(Message, Socket, NewOwner);
        {tcp_closed, Socket} = Message -> move_queued(Message, Socket, NewOwner)
    after 0 ->
            ok
    end.

move_queued(Message, Socket, NewOwner) ->
    NewOwner ! Message,
    move_queued(Socket, NewOwner).

%%% inet

%% @doc See `inet:setopts/2'. What only a kernel socket acts on (`nodelay', `recbuf', ...) is
%% remembered and shown by `getopts'; `{raw, _, _, _}' is `einval'.
-spec setopts(socket() | listen_socket(), [gen_tcp:option()]) -> ok | {error, einval}.
setopts(?LISTENER(_), Options) when is_list(Options) ->
    ok;
setopts(?SOCKET(Conn), [{active, Active}]) ->
    megaphone_nif:set_active(Conn, Active);
setopts(?SOCKET(Conn), Options) when is_list(Options) ->
    megaphone_nif:setopts(Conn, [pair(Option) || Option <- Options]).

pair(binary) -> {mode, binary};
pair(list) -> {mode, list};
pair(Option) -> Option.

%% @doc See `inet:getopts/2'. There is no kernel's socket to ask for a `raw' option.
-spec getopts(socket() | listen_socket(), [gen_tcp:option_name()]) ->
          {ok, [gen_tcp:option()]} | {error, einval}.
getopts(?LISTENER(_), Names) when is_list(Names) ->
    {ok, []};
getopts(?SOCKET(Conn), Names) when is_list(Names) ->
    case lists:all(fun is_atom/1, Names) of
        true -> megaphone_nif:getopts(Conn, Names);
        false -> {error, einval}
    end.

%% @doc The address that the client connected to, at the edge.
-spec sockname(socket() | listen_socket()) ->
          {ok, {inet:ip_address(), inet:port_number()} | {local, binary()}}
              | {error, einval}.
sockname(?LISTENER(Pid)) ->
    case megaphone_service:sockname(Pid) of
        {ok, _} = Ok -> Ok;
        {error, closed} -> {error, einval}
    end;
sockname(?SOCKET(Conn)) ->
    case megaphone_nif:addresses(Conn) of
        {ok, {_Peer, Local}} -> {ok, Local};
        {error, _} = Error -> Error
    end.

%% @doc The client's own address, as the edge saw it.
-spec peername(socket() | listen_socket()) ->
          {ok, {inet:ip_address(), inet:port_number()}} | {error, einval | enotconn}.
peername(?LISTENER(_)) ->
    {error, enotconn};
peername(?SOCKET(Conn)) ->
    case megaphone_nif:addresses(Conn) of
        {ok, {Peer, _Local}} -> {ok, Peer};
        {error, _} = Error -> Error
    end.

-spec socknames(socket() | listen_socket()) -> {ok, [term()]} | {error, einval}.
socknames(Socket) ->
    case sockname(Socket) of
        {ok, Address} -> {ok, [Address]};
        {error, _} = Error -> Error
    end.

%% @doc See `inet:getstat/2'. `recv_dvi' is always 0.
-spec getstat(socket(), [inet:stat_option()]) ->
          {ok, [{inet:stat_option(), non_neg_integer()}]} | {error, einval}.
getstat(?SOCKET(Conn), What) when is_list(What) ->
    megaphone_nif:getstat(Conn, What).

%% @doc See `inet:monitor/1': `{'DOWN', MRef, socket, Socket, closed}' when the socket closes.
-spec monitor(socket()) -> reference().
monitor(?SOCKET(Conn) = Socket) ->
    %% The alias is what makes the monitor: without it nothing arrives any more.
    MRef = erlang:alias(),
    Caller = self(),
    _ = spawn(fun() -> watch(Conn, Socket, Caller, MRef) end),
    MRef.

watch(Conn, Socket, Caller, MRef) ->
    CallerRef = erlang:monitor(process, Caller),
    Token = case megaphone_nif:watch(Conn, self()) of
                {ok, T} -> T;
                {error, closed} -> self() ! {'$megaphone_reply', closed, closed}, closed
            end,
    receive
        {'$megaphone_reply', Token, closed} -> MRef ! {'DOWN', MRef, socket, Socket, closed};
        {'DOWN', CallerRef, process, Caller, _} -> ok
    end.

%% @doc `true' when the monitor was there.
-spec cancel_monitor(reference()) -> boolean().
cancel_monitor(MRef) ->
    Was = erlang:unalias(MRef),
    receive {'DOWN', MRef, socket, _, _} -> Was
    after 0 -> Was
    end.

%% @doc As `inet:info/1' answers for its sockets.
-spec info(socket() | listen_socket()) -> map().
info(?LISTENER(Pid)) ->
    #{states => [listen], owner => Pid};
info(?SOCKET(Conn)) ->
    Facts = maps:from_list(megaphone_nif:conn_info(Conn)),
    Statistics = case megaphone_nif:getstat(Conn, ?ALL_STATS) of
                     {ok, Stats} -> maps:from_list(Stats);
                     {error, einval} -> #{}
                 end,
    #{states => states(maps:get(state, Facts)), owner => maps:get(owner, Facts),
      counters => Statistics, megaphone => Facts}.

states(State) when State =:= closed; State =:= lingering -> [closed];
states(_) -> [open, connected].

-spec socket_to_list(socket() | listen_socket()) -> string().
socket_to_list(?LISTENER(Pid)) ->
    "#Socket<megaphone.listener." ++ pid_to_list(Pid) ++ ">";
socket_to_list(?SOCKET(Conn)) ->
    "#Socket<megaphone." ++ integer_to_list(megaphone_nif:conn_id(Conn)) ++ ">".

-spec which_packet_type(socket()) -> {ok, term()} | error.
which_packet_type(?SOCKET(Conn)) ->
    case megaphone_nif:getopts(Conn, [packet]) of
        {ok, [{packet, Type}]} -> {ok, Type};
        {error, _} -> error
    end.

%%% file

%% @doc Sends a part of a file; `Count' 0 is all of it. See `file:sendfile/5'.
-spec sendfile(socket(), file:fd(), non_neg_integer(), non_neg_integer()) ->
          {ok, non_neg_integer()} | {error, reason()}.
sendfile(Socket, Fd, Offset, 0) ->
    sendfile(Socket, Fd, Offset, infinity, 0);
sendfile(Socket, Fd, Offset, Count) ->
    sendfile(Socket, Fd, Offset, Count, 0).

sendfile(_Socket, _Fd, _Offset, 0, Sent) ->
    {ok, Sent};
sendfile(?SOCKET(Conn) = Socket, Fd, Offset, Left, Sent) ->
    case file:pread(Fd, Offset, min(Left, ?FILE_CHUNK)) of
        {ok, Data} ->
            Size = byte_size(iolist_to_binary(Data)),
            case await_send(Conn, megaphone_nif:send_raw(Conn, Data)) of
                ok -> sendfile(Socket, Fd, Offset + Size, less(Left, Size), Sent + Size);
                {error, _} = Error -> Error
            end;
        eof ->
            {ok, Sent};
        {error, _} = Error ->
            Error
    end.

less(infinity, _Size) -> infinity;
less(Left, Size) -> Left - Size.

%%% megaphone

%% @doc The socket of a connection that the NIF knows.
-spec socket(megaphone_nif:conn()) -> socket().
socket(Conn) ->
    ?SOCKET(Conn).

%% @doc The socket of an open connection, whichever link it came over.
-spec whereis(megaphone:connection_id()) -> {ok, socket()} | {error, closed}.
whereis(Id) when Id > 0, Id < 1 bsl 64 ->
    whereis(Id, megaphone_link_table:all());
whereis(_) ->
    {error, closed}.

whereis(_Id, []) ->
    {error, closed};
whereis(Id, [{_Pid, Link, _Name} | Links]) ->
    case megaphone_nif:lookup(Link, Id) of
        {ok, Conn} -> {ok, ?SOCKET(Conn)};
        {error, closed} -> whereis(Id, Links)
    end.

-spec connection_id(socket()) -> megaphone:connection_id().
connection_id(?SOCKET(Conn)) ->
    megaphone_nif:conn_id(Conn).

%% @doc All that is known of a connection.
-spec facts(socket()) -> map().
facts(?SOCKET(Conn)) ->
    maps:from_list(megaphone_nif:conn_info(Conn)).

%% @doc The next HTTP item of a passive socket, whatever its `packet' option says: the request
%% line, each header, `http_eoh', and then the body as one binary where there is one. A body over
%% 1 MiB is `emsgsize' and ends the connection.
-spec recv_http(socket(), timeout()) ->
          {ok, term()} | {error, closed | timeout | einval | emsgsize | http_error}.
recv_http(?SOCKET(Conn), Timeout) ->
    await_recv(Conn, megaphone_nif:recv_item(Conn), Timeout).
