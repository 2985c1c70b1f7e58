%% @doc Accepts links on a listen socket: in ejabberd's listener process for a
%% Unix socket, in a process of its own for {@link megaphone:listen/2}.
-module(megaphone_link_acceptor).

%% megaphone_ejabberd, megaphone_listen
-export([loop/3, begin_accepting/1]).
%% megaphone_listener_sup
-export([start_link/3]).
%% proc_lib
-export([init/3]).

-include_lib("kernel/include/logger.hrl").

%% How long to wait after an error that is the system's (no file descriptor is
%% left, say), in milliseconds: it will not be better at once.
-define(ERROR_PAUSE, 100).

-spec start_link(Tree :: pid(), gen_tcp:socket(), megaphone_listener:config()) ->
          {ok, pid()}.
start_link(Tree, ListenSocket, Config) ->
    {ok, proc_lib:spawn_link(?MODULE, init, [Tree, ListenSocket, Config])}.

%% @doc Says that the listen socket is the acceptor's now.
-spec begin_accepting(pid()) -> ok.
begin_accepting(Acceptor) ->
    Acceptor ! {?MODULE, go},
    ok.

-spec init(pid(), gen_tcp:socket(), megaphone_listener:config()) -> no_return().
init(Tree, ListenSocket, Config) ->
    receive {?MODULE, go} -> ok end,
    loop(ListenSocket, megaphone_link:ref(Tree, Config), []).

%% @doc Accepts links for ever; `Opts' may hold ejabberd's `accept_interval'.
-spec loop(gen_tcp:socket(), megaphone_link:ref() | refused, [{atom(), term()}]) -> no_return().
loop(ListenSocket, Ref, Opts) ->
    case gen_tcp:accept(ListenSocket) of
        {ok, Socket} ->
            take(Socket, Ref),
            pause(proplists:get_value(accept_interval, Opts, 0));
        {error, closed} ->
            exit(shutdown);
        {error, Reason} ->
            ?LOG_ERROR("megaphone listener ~ts cannot accept a link: ~ts",
                       [name(Ref), inet:format_error(Reason)]),
            pause(?ERROR_PAUSE)
    end,
    loop(ListenSocket, Ref, Opts).

take(Socket, refused) ->
    gen_tcp:close(Socket);
take(Socket, Ref) ->
    Peer = peer(Socket),
    case megaphone_link:open(Socket, Ref) of
        {ok, Pid} ->
            ?LOG_INFO("(~p) Accepted link ~ts -> ~ts", [Pid, Peer, name(Ref)]);
        {error, {not_our_ecm, Pid, Uid}} ->
            ?LOG_WARNING("megaphone listener ~ts refused a link from process ~b of user ~b: "
                         "only its own ECM may connect", [name(Ref), Pid, Uid]),
            gen_tcp:close(Socket);
        {error, refused} ->                     % it is said already
            gen_tcp:close(Socket);
        {error, Reason} ->
            ?LOG_WARNING("megaphone listener ~ts refused a link from ~ts: ~tp",
                         [name(Ref), Peer, Reason]),
            gen_tcp:close(Socket)
    end.

pause(0) -> ok;
pause(Ms) -> receive after Ms -> ok end.

name(refused) -> "refused";
name(#{name := Name}) -> Name.

peer(Socket) ->
    case inet:peername(Socket) of
        {ok, {local, _}} -> "unix socket";
        {ok, Address} -> megaphone_address:hide(megaphone_address:format(Address));
        {error, Reason} -> atom_to_list(Reason)
    end.
