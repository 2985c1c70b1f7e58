%% @doc Top of the supervision tree.
%%
%% ```
%% megaphone_root
%%   megaphone_listeners              one child for each link listener
%%     megaphone_listener_sup
%%       megaphone_listener           watches the owner; its end ends the tree
%%       megaphone_dials              who has not proved yet who they are
%%       {connections, Service}       the services' own processes
%%       {service, Service}           the accept queue
%%       {acceptor, Service, 1..N}
%%       {http, Service}              instead of these three: a service that the NIF serves
%%       megaphone_link_acceptor      only for megaphone:listen/2
%%       megaphone_edge               only with `ecm:'
%%       megaphone_links              the links: a receiver each
%%   megaphone_xmpp                   keeps our handler among ejabberd's
%%   megaphone_trim                   makes quiet users' processes small
%%   megaphone_drain                  ends connections of links that go
%%   megaphone_bosh_responder 1..N    has BOSH requests answered that are held
%% '''
%%
%% It is not called `megaphone_sup': ejabberd registers a supervisor of its
%% own under `<module>_sup' for each listening module.
-module(megaphone_root).
-behaviour(supervisor).

%% megaphone_app
-export([start_link/0]).
%% megaphone_listener
-export([start_listener/2, stop_listener/1, listeners/0]).
%% supervisor
-export([init/1]).

-define(LISTENERS, megaphone_listeners).

-spec start_link() -> {ok, pid()} | {error, term()}.
start_link() ->
    supervisor:start_link({local, ?MODULE}, ?MODULE, root).

%% @doc Starts the tree of one link listener.
%%
%% `Id' is what only one listener can hold at a time (the address it listens
%% on). A tree that an earlier listener left there is on its way down: the
%% caller gets its pid to wait for.
-spec start_listener(Id :: term(), megaphone_listener:config()) ->
          {ok, pid()} | {error, {already_started, pid()} | term()}.
start_listener(Id, Config) ->
    supervisor:start_child(
      ?LISTENERS,
      #{id => Id,
        start => {megaphone_listener_sup, start_link, [Config]},
        restart => temporary,
        shutdown => infinity,
        type => supervisor}).

%% @doc Ends a listener's tree and returns when all of it is gone.
-spec stop_listener(Tree :: pid()) -> ok.
stop_listener(Tree) ->
    _ = [supervisor:terminate_child(?LISTENERS, Id)
         || {Id, Pid, _, _} <- supervisor:which_children(?LISTENERS),
            Pid =:= Tree],
    ok.

-spec listeners() -> [Tree :: pid()].
listeners() ->
    try supervisor:which_children(?LISTENERS) of
        Children -> [Pid || {_, Pid, _, _} <- Children, is_pid(Pid)]
    catch
        exit:_ -> []                            % the application is not running
    end.

-spec init(root | listeners) ->
          {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init(root) ->
    ok = megaphone_service:create_table(),
    ok = megaphone_link_table:create(),
    ok = megaphone_bosh_responder:create_table(),
    {ok, {#{strategy => one_for_one, intensity => 3, period => 10},
          [#{id => ?LISTENERS,
             start => {supervisor, start_link,
                       [{local, ?LISTENERS}, ?MODULE, listeners]},
             type => supervisor},
          #{id => xmpp,
            start => {megaphone_xmpp, start_link, []}},
           #{id => trim,
            start => {megaphone_trim, start_link, []}},
          #{id => drain,
             start => {megaphone_drain, start_link, []}}
           | [#{id => {bosh, Number},
                start => {megaphone_bosh_responder, start_link, [Number]}}
              || Number <- lists:seq(1, megaphone_bosh_responder:number())]]}};
init(listeners) ->
    {ok, {#{strategy => one_for_one, intensity => 3, period => 10}, []}}.
