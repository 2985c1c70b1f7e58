%% @doc Start and stop of the OTP application `megaphone'.
%%
%% ejabberd starts it with the first listener of `module: megaphone'; an
%% Erlang developer's program starts it with
%% `application:ensure_all_started(megaphone)', or leaves that to
%% {@link megaphone:listen/2}.
-module(megaphone_app).
-behaviour(application).

%% application
-export([start/2, stop/1]).

-spec start(application:start_type(), term()) -> {ok, pid()} | {error, term()}.
start(_Type, _Args) ->
    megaphone_root:start_link().

-spec stop(term()) -> ok.
stop(_State) ->
    ok.
