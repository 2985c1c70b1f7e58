%% @doc Takes connections from a service's accept queue and starts the
%% service's module on each, as `ejabberd_listener' does with a TCP socket.
%%
%% Any ejabberd listening module will do: it gets `gen_tcp' and a virtual
%% socket where it would get a real one.
-module(megaphone_acceptor).

%% megaphone_listener_sup
-export([start_link/3]).
%% proc_lib
-export([init/3]).

-export_type([service/0]).

-include_lib("kernel/include/logger.hrl").

-type service() :: #{module := module(),
                     opts := [{atom(), term()}],     % what Module:start gets
                     supervisor := boolean(),
                     send_timeout := timeout()}.     % ms

-spec start_link(Tree :: pid(), Name :: binary(), service()) -> {ok, pid()}.
start_link(Tree, Name, Service) ->
    {ok, proc_lib:spawn_link(?MODULE, init, [Tree, Name, Service])}.

-spec init(pid(), binary(), service()) -> no_return().
init(Tree, Name, #{module := Module} = Service) ->
    {ok, Queue} = megaphone_listener_sup:child(Tree, {service, Name}),
    {ok, Connections} = megaphone_listener_sup:child(Tree, {connections, Name}),
    {module, Module} = code:ensure_loaded(Module),
    loop(Queue, Service#{name => Name, connections => Connections,
                         arity => arity(Module)}).

%% ejabberd allows both forms of start; it looks at start/3 first.
arity(Module) ->
    case erlang:function_exported(Module, start, 3) of
        true -> 3;
        false -> 2
    end.

loop(Queue, Service) ->
    case megaphone_service:accept(Queue, infinity) of
        {ok, Socket} ->
            serve(Socket, Service),
            loop(Queue, Service);
        {error, closed} ->
            exit(shutdown)
    end.

serve(Socket, Service) ->
    case {inet:sockname(Socket), inet:peername(Socket)} of
        {{ok, Local}, {ok, Peer}} ->
            Pid = start(Socket, Service),
            ?LOG_INFO("(~p) Accepted connection ~ts -> ~ts (megaphone ~ts for ~ts)",
                      [Pid, megaphone_address:hide(megaphone_address:format(Peer)),
                       megaphone_address:format(Local),
                       megaphone:format_connection_id(Socket), maps:get(name, Service)]);
        _ ->
            gen_tcp:close(Socket)               % reset while it waited
    end.

%% The pid, or `none' as ejabberd logs it where the module did not take it.
start(Socket, #{module := Module, name := Name} = Service) ->
    try
        ok = send_timeout(Socket, Service),
        hand_over(Socket, Service, start_module(Socket, Service))
    of
        {ok, Pid} ->
            Pid;
        gone ->                                 % reset meanwhile
            gen_tcp:close(Socket),
            none;
        Other ->
            ?LOG_WARNING("~ts took no connection of service ~ts: ~tp",
                         [Module, Name, Other]),
            gen_tcp:close(Socket),
            none
    catch
        Class:Reason:Stack ->
            ?LOG_ERROR("~ts failed to start for a connection of service ~ts: ~ts",
                       [Module, Name,
                        erl_error:format_exception(Class, Reason, Stack)]),
            gen_tcp:close(Socket),
            none
    end.

%% A client that takes nothing must not hold a process for ever in send/2.
send_timeout(Socket, #{send_timeout := Timeout}) ->
    _ = inet:setopts(Socket, [{send_timeout, Timeout}, {send_timeout_close, true}]),
    ok.

start_module(Socket, #{supervisor := true, opts := Opts} = Service) ->
    #{connections := Connections, arity := Arity} = Service,
    megaphone_connections:start_connection(Connections, Arity, [gen_tcp, Socket, Opts]);
start_module(Socket, #{module := Module, opts := Opts, arity := 3}) ->
    Module:start(gen_tcp, Socket, Opts);
start_module(Socket, #{module := Module, opts := Opts, arity := 2}) ->
    Module:start({gen_tcp, Socket}, Opts).

hand_over(_Socket, #{module := Module}, {ok, Pid, preowned_socket}) ->
    Module:accept(Pid),
    {ok, Pid};
hand_over(Socket, #{module := Module} = Service, {ok, Pid}) ->
    case gen_tcp:controlling_process(Socket, Pid) of
        ok ->
            Module:accept(Pid),
            {ok, Pid};
        {error, _} ->
            stop(Pid, Service),
            gone
    end;
hand_over(_Socket, _Service, Other) ->
    Other.

stop(Pid, #{supervisor := true, connections := Connections}) ->
    megaphone_connections:end_connection(Connections, Pid);
stop(Pid, _Service) ->
    exit(Pid, kill).
