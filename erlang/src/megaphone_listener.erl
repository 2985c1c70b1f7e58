%% @doc One link listener: what is started for it, and the process that watches
%% its owner.
%%
%% The owner is ejabberd's listener process, or whoever called
%% {@link megaphone:listen/2}. It may be killed at any time (ejabberd does that
%% to a listener whose options changed); all that was started for it ends then:
%% ECM, links, connections, acceptors.
-module(megaphone_listener).
-behaviour(gen_server).

%% megaphone_ejabberd, megaphone_listen
-export([prepare/0, start/2]).
%% megaphone_link
-export([add_link/2, has_link/2]).
%% megaphone_edge
-export([ecm_ended/1]).
%% megaphone_service, megaphone
-export([sockname/1, info/1, links/1]).
%% megaphone_listener_sup
-export([start_link/1]).
%% gen_server
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-export_type([config/0, info/0]).

-include_lib("kernel/include/logger.hrl").

%% How long the tree of an earlier listener on the same address may take to
%% end, in milliseconds: more than any of its children's shutdown time.
-define(ENDED_MAX, 60000).
-type config() ::
        #{owner := pid(),
          name := string(),                     % the address, for the log
          address := megaphone_address:address(),
          services := #{binary() => megaphone_acceptor:service()
                                  | #{socket_options => [gen_tcp:option()]}},
          aliases => [binary()],                % names that share the one service
          access := megaphone_access:access(),
          max_handshakes := pos_integer(),
          accept_queue := pos_integer(),
          acceptors => pos_integer(),
          link := map(),                        % of megaphone_receiver:start_link/2
          listen => gen_tcp:socket(),           % megaphone:listen/2's own
          unlink => file:filename_all(),        % socket file to remove at the end
          ecm => megaphone_edge:config()}.

-type info() :: #{listener := string(), address := megaphone_address:address(), links := [pid()],
                  services := #{binary() => megaphone_service:info()
                                          | #{name := binary(), module := megaphone_http}},
                  %% Absent while the listener ends.
                  dials => megaphone_dials:info() | undefined,
                  ecm => megaphone_edge:info() | undefined}.

-record(state, {config :: config(),
                owner :: reference(),
                links = #{} :: #{reference() => pid()}}).

%% @doc Loads the NIF and starts the application; a sentence where that fails.
-spec prepare() -> ok | {error, Sentence :: string()}.
%% A failing `-on_load' of the listening module itself would stop ejabberd from
%% booting, so the NIF is looked at only here.
prepare() ->
    case megaphone_nif:load() of
        ok ->
            case application:ensure_all_started(megaphone) of
                {ok, _} -> limit_memory();
                {error, Reason} -> {error, format("the application megaphone does not "
                                                  "start: ~tp", [Reason])}
            end;
        {error, {no_file, File}} ->
            {error, format("the NIF is missing: there is no ~ts (`make build` makes it)", [File])};
        {error, {_, Text}} ->
            {error, format("the NIF cannot be loaded: ~ts", [Text])}
    end.

%% What all connections of all links may hold, in bytes; see megaphone.app.src.
limit_memory() ->
    {ok, Bytes} = application:get_env(megaphone, max_buffered),
    megaphone_nif:set_max_buffered(Bytes).

%% @doc Starts the tree of the listener on `Address', whose owner the caller is.
-spec start(megaphone_address:address(), config()) ->
          {ok, megaphone_link:ref()} | {error, eaddrinuse | term()}.
start(Address, Config) ->
    case megaphone_root:start_listener(Address, Config) of
        {ok, Tree} ->
            {ok, megaphone_link:ref(Tree, Config)};
        {error, {already_started, Tree}} ->
            await_end(Tree, Address, Config);
        {error, _} = Error ->
            Error
    end.

%% The listener that was here has just been stopped, and its ECM may still hold
%% the clients' ports.
await_end(Tree, Address, Config) ->
    Mref = monitor(process, Tree),
    receive
        {'DOWN', Mref, process, _, _} -> start(Address, Config)
    after ?ENDED_MAX ->
            demonitor(Mref, [flush]),
            {error, eaddrinuse}
    end.

%% @doc Tells the guard of a link, which ends with it.
-spec add_link(Guard :: pid(), Link :: pid()) -> ok | {error, closed}.
add_link(Guard, Link) ->
    try gen_server:call(Guard, {link, Link})
    catch exit:_ -> {error, closed}
    end.

-spec has_link(Guard :: pid(), Link :: pid()) -> boolean().
has_link(Guard, Link) ->
    try gen_server:call(Guard, {has_link, Link})
    catch exit:_ -> false
    end.

%% @doc The ECM that we run has ended: nobody will resume its links. Does not block: the tree's
%% supervisor may be the one who waits for the caller.
-spec ecm_ended(Tree :: pid()) -> ok.
ecm_ended(Tree) ->
    _ = spawn(fun() -> [megaphone_receiver:lost(Link) || Link <- links(Tree)] end),
    ok.

-spec sockname(pid()) -> {ok, megaphone_address:address()} | {error, closed}.
sockname(Tree) ->
    case call(Tree, config) of
        #{address := Address} -> {ok, Address};
        undefined -> {error, closed}
    end.

-spec links(pid()) -> [pid()].
links(Tree) ->
    case call(Tree, links) of
        Links when is_list(Links) -> Links;
        undefined -> []
    end.

-spec info(pid()) -> info() | undefined.
info(Tree) ->
    case call(Tree, config) of
        #{name := Name, address := Address} ->
            Services = [{ServiceName, megaphone_service:info(Pid)}
                        || {ServiceName, Pid} <-
                               maps:to_list(megaphone_listener_sup:services(Tree))]
                ++ [{ServiceName, megaphone_http_service:info(Pid)}
                    || {ServiceName, Pid} <-
                           maps:to_list(megaphone_listener_sup:http_services(Tree))],
            maps:merge(#{listener => Name, address => Address, links => links(Tree),
                         services => maps:from_list(Services)},
                       maps:from_list([{Key, Module:info(Pid)}
                                       || {Key, Child, Module} <- [{dials, dials, megaphone_dials},
                                                                   {ecm, edge, megaphone_edge}],
                                          {ok, Pid} <- [megaphone_listener_sup:child(Tree, Child)]]));
        undefined ->
            undefined
    end.

call(Tree, Request) ->
    try
        {ok, Guard} = megaphone_listener_sup:child(Tree, guard),
        gen_server:call(Guard, Request)
    catch
        error:{badmatch, {error, closed}} -> undefined;
        exit:_ -> undefined
    end.

%%% gen_server

-spec start_link(config()) -> {ok, pid()} | {error, term()}.
start_link(Config) ->
    gen_server:start_link(?MODULE, Config, []).

init(#{owner := Owner} = Config) ->
    process_flag(trap_exit, true),              % for terminate/2
    {ok, #state{config = Config, owner = monitor(process, Owner)}}.

handle_call({link, Pid}, _From, #state{links = Links} = State) ->
    {reply, ok, State#state{links = Links#{monitor(process, Pid) => Pid}}};
handle_call({has_link, Pid}, _From, #state{links = Links} = State) ->
    {reply, lists:member(Pid, maps:values(Links)), State};
handle_call(links, _From, #state{links = Links} = State) ->
    {reply, maps:values(Links), State};
handle_call(config, _From, #state{config = Config} = State) ->
    {reply, Config, State}.

handle_cast(_Other, State) ->
    {noreply, State}.

handle_info({'DOWN', Owner, process, _, _}, #state{owner = Owner} = State) ->
    #state{config = #{name := Name}, links = Links} = State,
    ?LOG_INFO("megaphone listener ~ts ended, with its ~b links", [Name, map_size(Links)]),
    {stop, normal, State};                      % significant: the tree ends
handle_info({'DOWN', Mref, process, _, _}, #state{links = Links} = State) ->
    {noreply, State#state{links = maps:remove(Mref, Links)}};
handle_info(_Other, State) ->
    {noreply, State}.

terminate(_Reason, #state{config = Config}) ->
    %% A port whose owner has ended closes some time later; the address shall be free now.
    _ = [gen_tcp:close(Socket) || #{listen := Socket} <- [Config]],
    _ = [file:delete(File) || #{unlink := File} <- [Config]],
    ok.

%%% helpers

format(Format, Args) ->
    lists:flatten(io_lib:format(Format, Args)).
