%%% @doc What the `xmpp_socket' modules of megaphone share: how news of their connections reach an
%%% `ejabberd_c2s' process, and what they do in one.
%%%
%%% `xmpp_stream_in' gives messages that it does not know to the hook `c2s_handle_info' of the
%%% user's host. This process puts a handler there, for every host that there is or comes; the
%%% handler finds the module by the message's tag. It runs in the user's own process.
-module(megaphone_xmpp).
-behaviour(gen_server).

%% megaphone_root
-export([start_link/0]).
%% modules that are an xmpp_socket
-export([ensure/0, owner/1, conn/0, event/1, change_shaper/1, next/3]).
%% ejabberd_hooks
-export([received/2, host_up/1, host_down/1]).
%% gen_server
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-export_type([event/0, state/0]).

%% What xmpp_stream_in takes from an XML parser.
-type event() :: {xmlstreamstart, binary(), [{binary(), binary()}]}
               | {xmlstreamelement, tuple()}
               | {xmlstreamend, binary()}
               | {xmlstreamerror, {integer(), binary()} | binary()}.
%% xmpp_stream_in:state().
-type state() :: #{atom() => term()}.

%% The message with this module's tag, in a user's process.
-callback received(Data :: term(), state()) -> state().
%% Asks for the next message, which may be here at once.
-callback next(megaphone_nif:conn()) -> term().

%% Before ejabberd_c2s's own handler, which logs what it does not know.
-define(SEQUENCE, 10).
-define(INSTALLED, {?MODULE, installed}).
%% Keys in the dictionary of a user's process.
-define(CONN, '$megaphone_conn').
-define(SHAPER, '$megaphone_shaper').

-spec start_link() -> {ok, pid()} | {error, term()}.
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

%% @doc Returns when the handlers are there. Costs nothing from then on.
-spec ensure() -> ok.
ensure() ->
    case persistent_term:get(?INSTALLED, false) of
        true -> ok;
        false -> gen_server:call(?MODULE, install, infinity)
    end.

%% @doc What `get_owner/1' answers. xmpp_socket makes an XML parser for a socket whose owner is the
%% calling process, of which we have no need, and asks before all else: somebody else. Then it
%% monitors the owner, for the user's whole life: a monitor of oneself takes no memory, and
%% the connection tells of its end anyway.
-spec owner(megaphone_nif:conn()) -> pid().
owner(Conn) ->
    case put(?CONN, Conn) of
        undefined -> group_leader();
        _ -> self()
    end.

%% @doc The connection of the calling user's process.
-spec conn() -> megaphone_nif:conn() | undefined.
conn() ->
    get(?CONN).

%% @doc Gives the calling user's process what an XML parser would. It comes behind what is
%% there already, as a parser's news do.
-spec event(event()) -> ok.
event(Event) ->
    self() ! {'$gen_event', Event},
    ok.

%% @doc What `change_shaper/2' does.
-spec change_shaper(term()) -> ok.
change_shaper(none) ->
    _ = erase(?SHAPER),
    ok;
change_shaper(Shaper) ->
    _ = put(?SHAPER, Shaper),
    ok.

%% @doc Asks for what comes behind so many bytes, as soon as the user's shaper allows it.
-spec next(module(), megaphone_nif:conn(), non_neg_integer()) -> ok.
next(Module, Conn, Bytes) ->
    case get(?SHAPER) of
        undefined ->
            _ = Module:next(Conn),
            ok;
        Shaper ->
            {Next, Pause} = ejabberd_shaper:update(Shaper, Bytes),
            ok = change_shaper(Next),
            later(Pause, Module, Conn)
    end.

later(Pause, Module, Conn) when Pause > 0 ->
    _ = erlang:send_after(Pause, self(), {'$megaphone_next', Module, Conn}),
    ok;
later(_Pause, Module, Conn) ->
    _ = Module:next(Conn),
    ok.

%%% ejabberd_hooks

%% @doc A message that xmpp_stream_in did not know, in the process of any user of the node. With
%% `{stop, _}' no other handler sees it.
-spec received(state(), term()) -> state() | {stop, state()}.
received(State, {'$megaphone_ws', Data}) -> {stop, megaphone_ws:received(Data, State)};
received(State, {'$megaphone_stream', Piece}) -> {stop, megaphone_c2s:received(Piece, State)};
received(State, {'$megaphone_next', Module, Conn}) -> _ = Module:next(Conn), {stop, State};
received(State, _Other) -> State.

-spec host_up(binary()) -> ok.
host_up(Host) ->
    ejabberd_hooks:add(c2s_handle_info, Host, ?MODULE, received, ?SEQUENCE).

-spec host_down(binary()) -> ok.
host_down(Host) ->
    ejabberd_hooks:delete(c2s_handle_info, Host, ?MODULE, received, ?SEQUENCE).

%%% gen_server

init([]) ->
    %% After a crash of ours they are there still, but of an ejabberd that ended meanwhile not.
    _ = persistent_term:erase(?INSTALLED),
    {ok, none}.

handle_call(install, _From, none) ->
    Hooks = erlang:monitor(process, ejabberd_hooks),
    ok = ejabberd_hooks:add(host_up, ?MODULE, host_up, ?SEQUENCE),
    ok = ejabberd_hooks:add(host_down, ?MODULE, host_down, 100 - ?SEQUENCE),
    lists:foreach(fun host_up/1, ejabberd_option:hosts()),
    ok = persistent_term:put(?INSTALLED, true),
    {reply, ok, Hooks};
handle_call(install, _From, Hooks) ->
    {reply, ok, Hooks}.

handle_cast(_Other, Hooks) ->
    {noreply, Hooks}.

%% ejabberd was stopped, and its hooks are gone.
handle_info({'DOWN', Hooks, process, _, _}, Hooks) ->
    _ = persistent_term:erase(?INSTALLED),
    {noreply, none};
handle_info(_Other, Hooks) ->
    {noreply, Hooks}.
