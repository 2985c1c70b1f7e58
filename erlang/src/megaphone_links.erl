%% @doc Supervisor of a listener's links: one {@link megaphone_receiver} each,
%% which starts its own sender. A link that ended is not started again: the
%% edge dials anew.
-module(megaphone_links).
-behaviour(supervisor).

%% megaphone_listener_sup
-export([start_link/0]).
%% megaphone_link
-export([start_receiver/3]).
%% supervisor
-export([init/1]).

-spec start_link() -> {ok, pid()} | {error, term()}.
start_link() ->
    supervisor:start_link(?MODULE, []).

%% @doc Starts a receiver for `LinkSocket'; the caller still owns the socket.
-spec start_receiver(pid(), gen_tcp:socket(), map()) ->
          {ok, pid()} | {error, term()}.
start_receiver(Links, LinkSocket, LinkConfig) ->
    try supervisor:start_child(Links, [LinkSocket, LinkConfig]) of
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
