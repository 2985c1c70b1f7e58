%%% @doc One service with `module: megaphone_http': what its requests are answered with.
%%%
%%% All of it is in a persistent term, so that a request's process copies nothing. It is written
%%% when the service starts and when ejabberd's configuration was reloaded to something else.
-module(megaphone_http_service).
-behaviour(gen_server).

%% megaphone_http
-export([can_make_requests/0]).
%% megaphone_listener_sup
-export([start_link/2]).
%% megaphone_link
-export([handle/1]).
%% megaphone_listener
-export([info/1]).
%% megaphone_http_request, megaphone_bosh_responder
-export([get/1]).
%% gen_server
-export([init/1, handle_call/3, handle_cast/2, terminate/2]).

-export_type([key/0, handle/0, config/0]).

-include_lib("kernel/include/logger.hrl").

-type key() :: pos_integer().
%% What a link needs to adopt connections for the service.
-type handle() :: {http, key(), megaphone_nif:http_service()}.
-type config() ::
        #{name := binary(),
          handlers := [tuple()],                 % {Prefix, Module} | {Prefix, Module, Opts}
          opts := [{atom(), term()}],            % what `#request.opts' has
          layout := megaphone_records:request_layout(),
          %% `custom_headers' as they stand there, and by name.
          custom := {[{binary(), binary()}], #{binary() => binary()}},
          %% Those of ejabberd's own hosts, which are prepared already (RFC 3491).
          hosts := #{binary() => []},
          %% `false': mod_bosh gets its requests as any other handler.
          bosh := false | megaphone_bosh:config()}.

-record(state, {key :: key(),
                name :: binary(),
                opts :: [{atom(), term()}],
                handle :: megaphone_nif:http_service(),
                reloaded :: fun(() -> ok)}).

-define(KEY(Key), {megaphone_http, Key}).
%% Where `send_timeout' is `infinity': 24 days, the longest that a timer of C can be.
-define(FOREVER, 16#7fffffff).

%% @doc Whether `#request{}' of this ejabberd is one that we can make. If not, the log says why.
-spec can_make_requests() -> boolean().
can_make_requests() ->
    case megaphone_records:request() of
        {ok, _} ->
            true;
        {error, Missing} ->
            ?LOG_ERROR("megaphone_http does not know this ejabberd: #request{} has no ~ts; "
                       "ejabberd_http serves instead",
                       [lists:join(", ", [atom_to_list(Field) || Field <- Missing])]),
            false
    end.

-spec start_link(Name :: binary(), megaphone_acceptor:service()) -> {ok, pid()} | {error, term()}.
start_link(Name, Service) ->
    gen_server:start_link(?MODULE, {Name, Service}, []).

-spec handle(pid()) -> handle().
handle(Pid) ->
    gen_server:call(Pid, handle).

-spec info(pid()) -> map() | undefined.
info(Pid) ->
    try gen_server:call(Pid, info)
    catch exit:_ -> undefined
    end.

%% @doc `gone': the listener has ended.
-spec get(key()) -> config() | gone.
get(Key) ->
    persistent_term:get(?KEY(Key), gone).

%%% gen_server

init({Name, #{opts := Opts, send_timeout := SendTimeout}}) ->
    process_flag(trap_exit, true),              % for terminate/2
    Key = erlang:unique_integer([positive]),
    Handle = megaphone_nif:http_service(
               #{key => Key,
                 head_timeout => megaphone_http:option(head_timeout, Opts),
                 body_timeout => megaphone_http:option(body_timeout, Opts),
                 idle_timeout => megaphone_http:option(idle_timeout, Opts),
                 send_timeout => case SendTimeout of
                                     infinity -> ?FOREVER;
                                     _ -> min(SendTimeout, ?FOREVER)
                                 end,
                 max_body => megaphone_http:option(max_body_size, Opts)}),
    Self = self(),
    Reloaded = fun() -> gen_server:cast(Self, reloaded) end,
    ejabberd_hooks:add(config_reloaded, Reloaded, 50),
    State = #state{key = Key, name = Name, opts = megaphone_http:stock_options(Opts),
                   handle = Handle, reloaded = Reloaded},
    persistent_term:put(?KEY(Key), config(State)),
    {ok, State}.

handle_call(handle, _From, #state{key = Key, handle = Handle} = State) ->
    {reply, {http, Key, Handle}, State};
handle_call(info, _From, #state{name = Name} = State) ->
    {reply, #{name => Name, module => megaphone_http}, State}.

handle_cast(reloaded, #state{key = Key} = State) ->
    persistent_term:put(?KEY(Key), config(State)),
    {noreply, State}.

terminate(_Reason, #state{key = Key, reloaded = Reloaded}) ->
    _ = persistent_term:erase(?KEY(Key)),
    try ejabberd_hooks:delete(config_reloaded, Reloaded, 50)
    catch exit:_ -> ok                          % ejabberd stops, and its hooks are gone before us
    end.

%%% helpers

config(#state{name = Name, opts = Opts}) ->
    {ok, Layout} = megaphone_records:request(),
    CustomHeaders = proplists:get_value(custom_headers, Opts, []),
    Custom = {CustomHeaders, maps:from_list(CustomHeaders)},
    #{name => Name,
      handlers => proplists:get_value(request_handlers, Opts, []),
      opts => Opts,
      layout => Layout,
      custom => Custom,
      hosts => maps:from_keys(ejabberd_option:hosts(), []),
      bosh => megaphone_bosh:config(Custom)}.
