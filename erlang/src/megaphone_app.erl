%% @doc Start and stop of the OTP application `megaphone'.
%%
%% ejabberd starts it with the first listener of `module: megaphone'; an
%% Erlang developer's program starts it with
%% `application:ensure_all_started(megaphone)', or leaves that to
%% {@link megaphone:listen/2}.
-module(megaphone_app).
-behaviour(application).

%% application
-export([start/2, prep_stop/1, stop/1]).
%% megaphone_ejabberd, megaphone_greeter
-export([is_stopping/0]).

%% Not in the application's environment: while the node stops, whoever keeps
%% that answers nobody.
-define(STOPPING, {?MODULE, stopping}).

-spec start(application:start_type(), term()) -> {ok, pid()} | {error, term()}.
start(_Type, _Args) ->
    _ = persistent_term:erase(?STOPPING),
    megaphone_root:start_link().

-spec prep_stop(State) -> State.
prep_stop(State) ->
    ok = persistent_term:put(?STOPPING, true),
    State.

-spec stop(term()) -> ok.
stop(_State) ->
    ok.

%% @doc Whether listeners that end do so because the application does.
-spec is_stopping() -> boolean().
is_stopping() ->
    persistent_term:get(?STOPPING, false).
