%% @doc Supervisor of a listener's links: one {@link megaphone_receiver} each,
%% which starts its own sender. A link that ended is not started again: the
%% edge dials anew.
-module(megaphone_links).
-behaviour(supervisor).

%% megaphone_listener_sup
-export([start_link/0]).
%% megaphone_link
-export([start_receiver/2]).
%% supervisor
-export([init/1]).

-spec start_link() -> {ok, pid()} | {error, term()}.
start_link() ->
    supervisor:start_link(?MODULE, []).

%% @doc Starts the receiver of a link whose handshake is done; the caller still owns its
%% transport.
-spec start_receiver(pid(), megaphone_receiver:options()) -> {ok, pid()} | {error, term()}.
start_receiver(Links, Options) ->
    try supervisor:start_child(Links, [Options]) of
        {ok, Pid} when is_pid(Pid) -> {ok, Pid};
        {error, _} = Error -> Error
    catch
        exit:_ -> {error, closed}
    end.

-spec init([]) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init([]) ->
    {ok, {#{strategy => simple_one_for_one},
          [#{id => link,
             start => {megaphone_receiver, start_link, []},
             restart => temporary}]}}.
