%% @doc The accept queue of one service of one link listener.
%%
%% Receivers {@link offer/2} connections that were opened; acceptors, or an
%% Erlang developer's `gen_tcp:accept/2', take them, first come, first served
%% on both sides. The queue is bounded (`accept_queue'): what does not fit is
%% refused at once, as a full TCP backlog does, and never makes a link wait.
%%
%% A connection that its client closed while it waited is handed out all the
%% same, as a TCP stack does: what it sent can be read, then comes the end.
-module(megaphone_service).
-behaviour(gen_server).

%% megaphone_root
-export([create_table/0]).
%% megaphone_listener_sup
-export([start_link/4]).
%% megaphone_receiver
-export([offer/2]).
%% megaphone_acceptor, megaphone_socket
-export([accept/2, sockname/1, close/1]).
%% megaphone
-export([info/1]).
%% gen_server
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-export_type([info/0]).

%% Depth and bound by pid, so that offer/2 asks nobody.
-define(TABLE, megaphone_services).

-type info() :: #{name := binary(), queued := non_neg_integer(),
                  accept_queue := pos_integer(), waiting := non_neg_integer(),
                  refused := non_neg_integer()}.

-record(service, {pid :: pid(),
                  %% 1: connections in the queue; 2: those that found it full.
                  depth :: atomics:atomics_ref(),
                  bound :: pos_integer(),
                  name :: binary(),
                  tree :: pid(),
                  %% What sockets have from their listener, as in gen_tcp.
                  options :: [gen_tcp:option()]}).

-record(state, {depth :: atomics:atomics_ref(),
                queue = queue:new() :: queue:queue(megaphone:socket()),
                %% Whoever waits in accept/2, in the order they came.
                waiters = queue:new() :: queue:queue(waiter())}).

%% The waiter, what its answer is tagged with, our monitor of it.
-type waiter() :: {pid(), reference(), reference()}.

%% @doc Makes the table of services; its owner is the caller, for life.
-spec create_table() -> ok.
create_table() ->
    ?TABLE = ets:new(?TABLE, [named_table, public, {keypos, #service.pid},
                              {read_concurrency, true}]),
    ok.

-spec start_link(Tree :: pid(), Name :: binary(), Bound :: pos_integer(),
                 [gen_tcp:option()]) -> {ok, pid()} | {error, term()}.
start_link(Tree, Name, Bound, Options) ->
    gen_server:start_link(?MODULE, {Tree, Name, Bound, Options}, []).

%% @doc Puts an opened connection into the queue. Never blocks.
%%
%% `{error, overload}': the queue is full, or the service is gone; the
%% connection is to be refused. The service must own the socket.
-spec offer(pid(), megaphone:socket()) -> ok | {error, overload}.
offer(Service, Socket) ->
    case ets:lookup(?TABLE, Service) of
        [#service{depth = Depth, bound = Bound}] ->
            case atomics:add_get(Depth, 1, 1) of
                N when N =< Bound ->
                    gen_server:cast(Service, {offer, Socket});
                _ ->
                    atomics:sub(Depth, 1, 1),
                    atomics:add(Depth, 2, 1),
                    {error, overload}
            end;
        [] ->
            {error, overload}
    end.

%% @doc Waits up to `Timeout' milliseconds for a connection; the caller becomes
%% its owner. As `gen_tcp:accept/2'.
-spec accept(pid(), timeout()) ->
          {ok, megaphone:socket()} | {error, closed | timeout}.
accept(Service, Timeout) ->
    Mref = monitor(process, Service),
    gen_server:cast(Service, {accept, self(), Mref}),
    Result = await(Service, Mref, Timeout),
    demonitor(Mref, [flush]),
    inherit(Service, Result).

%% @doc Address of the link listener that this service belongs to.
-spec sockname(pid()) ->
          {ok, {inet:ip_address(), inet:port_number()} | {local, binary()}}
        | {error, closed}.
sockname(Service) ->
    case ets:lookup(?TABLE, Service) of
        [#service{tree = Tree}] -> megaphone_listener:sockname(Tree);
        [] -> {error, closed}
    end.

%% @doc Ends the link listener that this service belongs to, its links and all
%% connections that nobody has accepted. Returns when the address is free.
-spec close(pid()) -> ok.
close(Service) ->
    case ets:lookup(?TABLE, Service) of
        [#service{tree = Tree}] -> megaphone_root:stop_listener(Tree);
        [] -> ok
    end.

-spec info(pid()) -> info() | undefined.
info(Service) ->
    try gen_server:call(Service, info)
    catch exit:_ -> undefined
    end.

%%% gen_server

init({Tree, Name, Bound, Options}) ->
    process_flag(trap_exit, true),              % for terminate/2
    Depth = atomics:new(2, []),
    true = ets:insert(?TABLE, #service{pid = self(), depth = Depth, bound = Bound,
                                       name = Name, tree = Tree, options = Options}),
    {ok, #state{depth = Depth}}.

handle_call({cancel, Tag}, _From, State) ->
    {reply, ok, forget(Tag, State)};
handle_call(info, _From, #state{queue = Queue, waiters = Waiters, depth = Depth} = State) ->
    [#service{name = Name, bound = Bound}] = ets:lookup(?TABLE, self()),
    {reply, #{name => Name, queued => queue:len(Queue), accept_queue => Bound,
              waiting => queue:len(Waiters), refused => atomics:get(Depth, 2)}, State}.

handle_cast({offer, Socket}, #state{queue = Queue} = State) ->
    {noreply, serve(State#state{queue = queue:in(Socket, Queue)})};
handle_cast({accept, Pid, Tag}, #state{waiters = Waiters} = State) ->
    Waiter = {Pid, Tag, monitor(process, Pid, [{tag, {gone, Tag}}])},
    {noreply, serve(State#state{waiters = queue:in(Waiter, Waiters)})}.

handle_info({{gone, Tag}, _Monitor, process, _Pid, _Reason}, State) ->
    {noreply, forget(Tag, State)};
handle_info(_Other, State) ->
    {noreply, State}.

terminate(_Reason, _State) ->
    true = ets:delete(?TABLE, self()),
    ok.

%%% helpers

%% Pairs the oldest connection with the oldest waiter while there are both.
serve(#state{queue = Queue, waiters = Waiters} = State) ->
    case {queue:out(Queue), queue:out(Waiters)} of
        {{{value, Socket}, Left}, {{value, Waiter}, LeftWaiters}} ->
            case hand(Socket, Waiter, State) of
                taken -> serve(State#state{queue = Left, waiters = LeftWaiters});
                waiter_gone -> serve(State#state{waiters = LeftWaiters})
            end;
        _ ->
            State
    end.

hand(Socket, {Pid, Tag, Monitor}, #state{depth = Depth}) ->
    demonitor(Monitor, [flush]),
    case megaphone_socket:controlling_process(Socket, Pid) of
        {error, _} ->
            case is_process_alive(Pid) of
                %% The connection has ended; its waiter finds out, as with TCP.
                true -> give(Socket, Pid, Tag, Depth);
                false -> waiter_gone
            end;
        ok ->
            give(Socket, Pid, Tag, Depth)
    end.

give(Socket, Pid, Tag, Depth) ->
    atomics:sub(Depth, 1, 1),
    Pid ! {Tag, Socket},
    taken.

%% The accepting process sets them: with `{active, true}' the messages are its.
inherit(Service, {ok, Socket} = Accepted) ->
    case ets:lookup(?TABLE, Service) of
        [#service{options = [_ | _] = Options}] -> _ = inet:setopts(Socket, Options), Accepted;
        _ -> Accepted
    end;
inherit(_Service, Error) ->
    Error.

forget(Tag, #state{waiters = Waiters} = State) ->
    Left = queue:filter(fun({_, T, Monitor}) when T =:= Tag ->
                                not demonitor(Monitor, [flush]);
                           (_) ->
                                true
                        end, Waiters),
    State#state{waiters = Left}.

await(Service, Tag, Timeout) ->
    receive
        {Tag, Socket} -> {ok, Socket};
        {'DOWN', Tag, process, Service, _} -> {error, closed}
    after Timeout ->
            cancel(Service, Tag)
    end.

%% The connection may have been on its way when the time was up: the answer to
%% `cancel' comes after it, so that none is lost.
cancel(Service, Tag) ->
    try gen_server:call(Service, {cancel, Tag}, infinity) of
        ok ->
            receive {Tag, Socket} -> {ok, Socket}
            after 0 -> {error, timeout}
            end
    catch
        exit:_ -> {error, closed}
    end.
