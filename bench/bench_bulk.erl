%% A listening module of ejabberd that takes bytes or gives them, as fast as it can: the other end of
%% `megaphone-load bulk'. It calls gen_tcp alone, so the same code runs behind a listener of
%% ejabberd's own and behind megaphone.
%%
%% The first byte from the client says what it wants:
%%   u  up: what follows is read and counted. After the client's end the count is sent, in decimal,
%%      and the connection closed.
%%   d  down: bytes are sent until the client closes. Byte number N of them is N rem 251, from 0.
-module(bench_bulk).

%% ejabberd_listener, megaphone_acceptor
-export([start/3, start_link/3, accept/1, listen_options/0]).
%% spawn
-export([init/1]).

%% Bytes of one send, nearly 64 KiB: the pattern fits it 256 times.
-define(BLOCK, 251 * 256).
%% Bytes that gen_tcp reads at a time, on both sides: by default it would be 1460 on a TCP socket.
-define(BUFFER, 65_536).
%% Bytes that the kernel takes ahead of the client. Left to itself it takes up to 4 MiB for each: of
%% a thousand connections some have then filled theirs seconds before others have their first turn.
-define(SEND_BUFFER, 262_144).

-spec start(gen_tcp, gen_tcp:socket(), [term()]) -> {ok, pid()}.
start(gen_tcp, Socket, _Opts) ->
    {ok, spawn(?MODULE, init, [Socket])}.

-spec start_link(gen_tcp, gen_tcp:socket(), [term()]) -> {ok, pid()}.
start_link(gen_tcp, Socket, _Opts) ->
    {ok, spawn_link(?MODULE, init, [Socket])}.

%% The process owns the socket now.
-spec accept(pid()) -> ok.
accept(Pid) ->
    Pid ! accept,
    ok.

-spec listen_options() -> [].
listen_options() -> [].

-spec init(gen_tcp:socket()) -> ok.
init(Socket) ->
    receive accept -> ok end,
    _ = inet:setopts(Socket, [{buffer, ?BUFFER}, {sndbuf, ?SEND_BUFFER}, {exit_on_close, false}]),
    _ = case gen_tcp:recv(Socket, 1) of
            {ok, <<"u">>} -> up(Socket, 0);
            {ok, <<"d">>} -> down(Socket, block());
            _ -> ok
        end,
    gen_tcp:close(Socket).

up(Socket, Count) ->
    case gen_tcp:recv(Socket, 0) of
        {ok, Bytes} -> up(Socket, Count + byte_size(Bytes));
        {error, closed} -> gen_tcp:send(Socket, integer_to_binary(Count));
        {error, _} = Error -> Error
    end.

down(Socket, Block) ->
    case gen_tcp:send(Socket, Block) of
        ok -> down(Socket, Block);
        {error, _} = Error -> Error
    end.

block() ->
    binary:copy(list_to_binary(lists:seq(0, 250)), ?BLOCK div 251).
