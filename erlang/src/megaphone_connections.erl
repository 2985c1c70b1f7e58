%% @doc Supervisor of the processes that a service's module starts for its
%% connections, as `ejabberd_tmp_sup' is for a listener of its own: a crash is
%% one connection's, nothing is started again, and `stop' reaches all.
-module(megaphone_connections).
-behaviour(supervisor).

%% megaphone_listener_sup
-export([start_link/1]).
%% megaphone_acceptor
-export([start_connection/3, end_connection/2]).
%% supervisor
-export([init/1]).

-spec start_link(module()) -> {ok, pid()} | {error, term()}.
start_link(Module) ->
    supervisor:start_link(?MODULE, Module).

%% @doc `Module:start_link(gen_tcp, Socket, Opts)', or the two-argument form
%% where the module has only that.
-spec start_connection(pid(), 2 | 3, [term()]) ->
          supervisor:startchild_ret() | {ok, pid(), preowned_socket}.
start_connection(Connections, 3, [_SockMod, _Socket, _Opts] = Args) ->
    supervisor:start_child(Connections, Args);
start_connection(Connections, 2, [SockMod, Socket, Opts]) ->
    supervisor:start_child(Connections, [{SockMod, Socket}, Opts]).

-spec end_connection(pid(), pid()) -> ok.
end_connection(Connections, Pid) ->
    _ = supervisor:terminate_child(Connections, Pid),
    ok.

-spec init(module()) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init(Module) ->
    {ok, {#{strategy => simple_one_for_one},
          [#{id => Module,
             start => {Module, start_link, []},
             restart => temporary,
             shutdown => 5000}]}}.
