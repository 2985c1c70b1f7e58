%% A listening module of ejabberd that sends back what comes: the other end of `megaphone-load link'.
%% It calls gen_tcp alone, so the same code runs behind a listener of ejabberd's own and behind
%% megaphone.
%%
%% There may be a million of them, so each is one bare process with nothing on its heap but the
%% socket: no proc_lib, no gen_server, no supervisor (`supervisor: false' in its configuration). It is
%% not hibernated: what it costs is what a process costs, some 2.7 kB.
-module(bench_echo).

%% ejabberd_listener, megaphone_acceptor
-export([start/3, start_link/3, accept/1, listen_options/0]).
%% spawn
-export([init/1]).

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
    receive accept -> loop(Socket) end.

%% As ejabberd's own sockets do, it asks for one packet after the other.
loop(Socket) ->
    case inet:setopts(Socket, [{active, once}]) of
        ok -> wait(Socket);
        {error, _} -> gen_tcp:close(Socket)
    end.

wait(Socket) ->
    receive
        {tcp, Socket, Bytes} ->
            case gen_tcp:send(Socket, Bytes) of
                ok -> loop(Socket);
                {error, _} -> gen_tcp:close(Socket)
            end;
        {tcp_closed, Socket} -> gen_tcp:close(Socket);
        {tcp_error, Socket, _Reason} -> gen_tcp:close(Socket)
    end.
