%% @doc What belongs to one link listener: it lives and ends as a whole.
%%
%% Links hold the pids of the accept queues, so a tree that has lost one of
%% these is of no use: the significant children take the whole tree down, and
%% with it the process that owns the listen socket, which its own supervisor
%% starts anew.
-module(megaphone_listener_sup).
-behaviour(supervisor).

%% megaphone_root
-export([start_link/1]).
%% megaphone_listener
-export([child/2, services/1, http_services/1]).
%% supervisor
-export([init/1]).

-spec start_link(megaphone_listener:config()) -> {ok, pid()} | {error, term()}.
start_link(Config) ->
    supervisor:start_link(?MODULE, Config).

%% @doc Pid of the child `Id' of a listener's tree.
-spec child(Tree :: pid(), Id :: term()) -> {ok, pid()} | {error, closed}.
child(Tree, Id) ->
    try lists:keyfind(Id, 1, supervisor:which_children(Tree)) of
        {_, Pid, _, _} when is_pid(Pid) -> {ok, Pid};
        _ -> {error, closed}
    catch
        exit:_ -> {error, closed}
    end.

%% @doc The accept queue of each service of a listener.
-spec services(Tree :: pid()) -> #{binary() => pid()}.
services(Tree) -> of_kind(service, Tree).

%% @doc The services that the NIF serves itself.
-spec http_services(Tree :: pid()) -> #{binary() => pid()}.
http_services(Tree) -> of_kind(http, Tree).

%% None, once the listener has ended.
of_kind(Kind, Tree) ->
    Children = try supervisor:which_children(Tree)
               catch exit:_ -> []
               end,
    maps:from_list([{Name, Pid} || {{Child, Name}, Pid, _, _} <- Children, Child =:= Kind]).

-spec init(megaphone_listener:config()) ->
          {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init(#{services := Services} = Config) ->
    {ok, {#{strategy => one_for_one, intensity => 10, period => 10,
            auto_shutdown => any_significant},
          lists:append(
            [[guard(Config),
              significant(dials, {megaphone_dials, start_link, [Config]}, worker)],
             [Spec || {Name, Service} <- lists:sort(maps:to_list(Services)),
                      Spec <- service(Name, Service, Config)],
             [significant(link_acceptor,
                          {megaphone_link_acceptor, start_link, [self(), Socket, Config]},
                          worker)
              || #{listen := Socket} <- [Config]],
             %% Links end before the ECM does, so that each side says why.
             [edge(Ecm#{tree => self()}) || #{ecm := Ecm} <- [Config]],
             [significant(links, {megaphone_links, start_link, []}, supervisor)]])}}.

guard(Config) ->
    significant(guard, {megaphone_listener, start_link, [Config]}, worker).

%% A service without a module is an Erlang developer's: who calls accept takes
%% the connections, so there is nothing but the queue.
service(Name, #{module := _} = Service, Config) ->
    case megaphone_http:is_native(Service) of
        true -> [significant({http, Name}, {megaphone_http_service, start_link, [Name, Service]},
                             worker)];
        false -> queued(Name, Service, Config)
    end;
service(Name, Service, Config) ->
    queued(Name, Service, Config).

queued(Name, Service, #{accept_queue := Bound} = Config) ->
    Queue = significant({service, Name},
                        {megaphone_service, start_link,
                         [self(), Name, Bound, maps:get(socket_options, Service, [])]}, worker),
    case Service of
        #{module := Module} ->
            [significant({connections, Name},
                         {megaphone_connections, start_link, [Module]}, supervisor),
             Queue
             | [acceptor(Name, N, Service)
                || N <- lists:seq(1, maps:get(acceptors, Config))]];
        #{} ->
            [Queue]
    end.

acceptor(Name, N, Service) ->
    #{id => {acceptor, Name, N},
      start => {megaphone_acceptor, start_link, [self(), Name, Service]}}.

edge(Ecm) ->
    #{id => edge,
      start => {megaphone_edge, start_link, [Ecm]},
      %% Time for the client ports to be free again, see megaphone_edge.
      shutdown => 10000}.

significant(Id, Start, Type) ->
    Shutdown = case Type of supervisor -> infinity; worker -> 5000 end,
    #{id => Id, start => Start, type => Type, restart => temporary,
      significant => true, shutdown => Shutdown}.
