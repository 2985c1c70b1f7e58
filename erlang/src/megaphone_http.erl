%%% @doc A drop-in for `ejabberd_http' as a service of a listener `module: megaphone'.
%%%
%%% There the NIF collects requests, and a process exists only while one is answered: see
%%% {@link megaphone_http_service} and {@link megaphone_http_request}. What is here is what
%%% ejabberd asks of a listening module. On a real socket, or with `tls' (which the client speaks
%%% through the edge with ejabberd itself), `ejabberd_http' does the work.
-module(megaphone_http).

%% ejabberd_listener, megaphone_acceptor
-export([start/3, start_link/3, accept/1, listen_options/0, listen_opt_type/1]).
%% megaphone_listener_sup
-export([is_native/1]).
%% megaphone_http_service
-export([stock_options/1, option/2]).

%% Milliseconds and bytes. The last is what ejabberd_http has, the third what it waits for bytes.
-define(OWN, [{head_timeout, 10_000},
              {body_timeout, 30_000},
              {idle_timeout, 300_000},
              {max_body_size, 20_971_520}]).
%% An hour and 1 GiB: more is a mistake.
-define(TIMEOUT_MAX, 3600).
-define(BODY_MAX, 16#40000000).

%% @doc For a connection that the NIF does not serve itself.
-spec start(module(), term(), [{atom(), term()}]) -> {ok, pid()}.
start(SockMod, Socket, Opts) ->
    ejabberd_http:start(SockMod, Socket, stock_options(Opts)).

-spec start_link(module(), term(), [{atom(), term()}]) -> {ok, pid()}.
start_link(SockMod, Socket, Opts) ->
    ejabberd_http:start_link(SockMod, Socket, stock_options(Opts)).

-spec accept(pid()) -> ok.
accept(Pid) ->
    ejabberd_http:accept(Pid).

-spec listen_options() -> [{atom(), term()} | atom()].
listen_options() ->
    ?OWN ++ ejabberd_http:listen_options().

-spec listen_opt_type(atom()) -> fun((term()) -> term()).
listen_opt_type(Option) when Option =:= head_timeout; Option =:= body_timeout;
                             Option =:= idle_timeout ->
    megaphone_options:at_most(?TIMEOUT_MAX);
listen_opt_type(max_body_size) ->
    econf:int(1, ?BODY_MAX);
listen_opt_type(Option) ->
    ejabberd_http:listen_opt_type(Option).

%% @doc Whether the NIF collects the requests of a service: not inside of TLS, which it does not
%% see into, and not for an ejabberd whose `#request{}' we could not make.
-spec is_native(map()) -> boolean().
is_native(#{module := ?MODULE, opts := Opts}) ->
    not proplists:get_bool(tls, Opts) andalso megaphone_http_service:can_make_requests();
is_native(#{}) ->
    false.

%% @doc What ejabberd_http, and handlers in `#request.opts', know of a listener's options.
-spec stock_options([{atom(), term()}]) -> [{atom(), term()}].
stock_options(Opts) ->
    [Option || {Name, _} = Option <- Opts, not lists:keymember(Name, 1, ?OWN)].

%% @doc An option of ours, or its default.
-spec option(atom(), [{atom(), term()}]) -> term().
option(Name, Opts) ->
    {Name, Default} = lists:keyfind(Name, 1, ?OWN),
    proplists:get_value(Name, Opts, Default).
