%%% @doc Has the answers of BOSH sessions sent, for requests that are held: one process for each
%%% scheduler instead of one for each request.
%%%
%%% A session answers whoever asked, and that is a responder: it asks in the name of all clients.
%%% What is held is in a table that outlives the responders, so that of one that crashed nobody
%%% waits for ever.
%%%
%%% When the NIF says that a client is gone, the session hears it at once: its request that is held
%%% is answered to nobody, as if `wait' were over, which starts the time that the client has to
%%% come back (`max_inactivity'). The answer stays with the session, for a client that repeats the
%%% request.
-module(megaphone_bosh_responder).
-behaviour(gen_server).

%% megaphone_root
-export([create_table/0, start_link/1, number/0]).
%% megaphone_bosh
-export([token/0, hold/6, tell/3]).
%% megaphone_farewell
-export([session/1]).
%% erlang:spawn/3
-export([client_gone/3]).
%% gen_server
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-export_type([token/0]).

-include_lib("kernel/include/logger.hrl").

-type token() :: pos_integer().

-define(TABLE, ?MODULE).
-define(POOL, ?MODULE).
%% Answers of more elements are written by a process of their own: others wait behind this one.
-define(MANY, 32).
%% How long after the first try a client's leave is looked at again, milliseconds: the news of it
%% can overtake that of its request.
-define(LOOK_AGAIN, 500).
%% What a session may take to say what it is at, milliseconds.
-define(BUSY, 5_000).

-record(held, {token :: token(),
               responder :: pos_integer(),
               conn :: megaphone_nif:conn(),
               session :: pid(),
               monitor :: reference(),
               how :: {megaphone_http_service:key(), megaphone_http_answer:style()}}).

-record(state, {number :: pos_integer()}).

%% @doc Makes the table of requests that are held; its owner is the caller, for life.
-spec create_table() -> ok.
create_table() ->
    ?TABLE = ets:new(?TABLE, [named_table, public, {keypos, #held.token},
                              {write_concurrency, true}]),
    ok.

%% @doc How many responders there are.
-spec number() -> pos_integer().
number() ->
    erlang:system_info(schedulers_online).

-spec start_link(pos_integer()) -> {ok, pid()} | {error, term()}.
start_link(Number) ->
    gen_server:start_link({local, name(Number)}, ?MODULE, Number, []).

name(Number) ->
    list_to_atom("megaphone_bosh_responder_" ++ integer_to_list(Number)).

%% @doc A responder for a request, and the request's number.
-spec token() -> {pid(), token()}.
token() ->
    Pool = persistent_term:get(?POOL),
    Token = erlang:unique_integer([positive]),
    {element(erlang:system_info(scheduler_id) rem tuple_size(Pool) + 1, Pool), Token}.

%% @doc Gives a session its request, and its client the answer when there is one.
-spec hold(pid(), token(), megaphone_nif:conn(), pid(),
           {megaphone_http_service:key(), megaphone_http_answer:style()}, megaphone_bosh_body:t()) ->
          ok.
hold(Responder, Token, Conn, Session, How, Body) ->
    Responder ! {hold, Token, Conn, Session, How, Body},
    ok.

%% @doc Gives a session a request of which the client is gone already.
-spec tell(pid(), token(), megaphone_bosh_body:t()) -> ok.
tell(Session, Token, Body) ->
    ask(Session, Token, Body),
    client_gone(Session, self(), Token).

%% As p1_fsm:sync_send_event/3 asks.
ask(Session, Token, Body) ->
    Session ! {'$gen_sync_event', {self(), Token}, Body},
    ok.

%% @doc The session that holds a request.
-spec session(token()) -> {ok, pid()} | error.
session(Token) ->
    case ets:lookup(?TABLE, Token) of
        [#held{session = Session}] -> {ok, Session};
        [] -> error
    end.

%%% gen_server

init(Number) ->
    _ = [fail(Held) || #held{responder = Of} = Held <- ets:tab2list(?TABLE), Of =:= Number],
    %% Each comes back under its name, and each of them fills its own place.
    Pool = list_to_tuple([case N of
                              Number -> self();
                              _ -> case whereis(name(N)) of undefined -> self(); Pid -> Pid end
                          end || N <- lists:seq(1, number())]),
    persistent_term:put(?POOL, Pool),
    {ok, #state{number = Number}}.

%% Its responder has crashed: the answer is lost, and RFC 9112 has no word for it but this.
fail(#held{token = Token, conn = Conn}) ->
    true = ets:delete(?TABLE, Token),
    megaphone_nif:abort(Conn, internal).

handle_call(_Request, _From, State) ->
    {reply, {error, badarg}, State}.

handle_cast(_Request, State) ->
    {noreply, State}.

handle_info({Token, Body}, State) when is_integer(Token) ->
    case ets:take(?TABLE, Token) of
        [#held{monitor = Monitor} = Held] ->
            demonitor(Monitor),
            answer(Body, Held);
        [] ->
            ok                                  % its client is gone
    end,
    {noreply, State};
handle_info({hold, Token, Conn, Session, How, Body}, #state{number = Number} = State) ->
    Monitor = monitor(process, Session, [{tag, {down, Token}}]),
    true = ets:insert(?TABLE, #held{token = Token, responder = Number, conn = Conn,
                                    session = Session, monitor = Monitor, how = How}),
    ask(Session, Token, Body),
    {noreply, State};
handle_info({'$megaphone_gone', Token}, State) ->
    _ = gone(Token) orelse erlang:send_after(?LOOK_AGAIN, self(), {look_again, Token}),
    {noreply, State};
handle_info({look_again, Token}, State) ->
    _ = gone(Token),
    {noreply, State};
handle_info({{down, Token}, _Monitor, process, _Session, Reason}, State) ->
    _ = [answer(ended(Reason), Held) || Held <- ets:take(?TABLE, Token)],
    {noreply, State};
handle_info(_Other, State) ->
    {noreply, State}.

%%% answers

answer(Body, #held{conn = Conn, how = {Key, Style}} = Held) ->
    case {megaphone_bosh_body:elements(Body), megaphone_http_service:get(Key)} of
        {_, gone} ->
            megaphone_nif:abort(Conn, shutdown);
        {error, _} ->
            answer(megaphone_bosh_body:terminate(<<"Unexpected error">>, <<"internal-server-error">>),
                   Held);
        {Number, #{bosh := Config}} when Number > ?MANY ->
            _ = spawn(fun() -> send(Conn, Key, Style, Body, Config) end),
            ok;
        {_, #{bosh := Config}} ->
            send(Conn, Key, Style, Body, Config)
    end.

send(Conn, Key, {_, _, _, Then} = Style, Body, Config) ->
    case megaphone_http_answer:send(Conn, megaphone_bosh:answer(Body, Style, Config), Then) of
        next -> _ = megaphone_http_request:start(Conn, Key), ok;
        _ -> ok
    end.

%% As ejabberd_bosh tells a client whose session it does not find any more.
ended(Reason) when Reason =:= noproc; Reason =:= normal ->
    megaphone_bosh_body:terminate(<<"BOSH session not found">>, <<"item-not-found">>);
ended(_Reason) ->
    megaphone_bosh_body:terminate(<<"Unexpected error">>, <<"internal-server-error">>).

%%% a client that is gone

gone(Token) ->
    case ets:take(?TABLE, Token) of
        [#held{session = Session, monitor = Monitor}] ->
            demonitor(Monitor),
            _ = spawn(?MODULE, client_gone, [Session, self(), Token]),
            true;
        [] ->
            false
    end.

%% @private
%% The session looks at itself between two of its messages, and if it still holds this request,
%% the end of its `wait' is the next.
-spec client_gone(pid(), pid(), token()) -> ok.
client_gone(Session, Responder, Token) when node(Session) =:= node() ->
    Layout = persistent_term:get(megaphone_bosh_layout),
    try
        _ = sys:replace_state(Session, fun(State) -> end_wait(State, {Responder, Token}, Layout) end,
                              ?BUSY),
        ok
    catch
        _:_ -> ok                               % it has ended, or is another one than we know
    end;
%% Its own clock will say it.
client_gone(_Session, _Responder, _Token) ->
    ok.

%% What p1_fsm keeps: the messages it has taken from its mailbox are before all that are there.
end_wait([Name, StateName, Data, ejabberd_bosh = Module, Time, Limits, Queue, Length], From,
         #{wait_timer := Timer, prev_rid := PrevRid, receivers := Receivers}) ->
    case gb_trees:lookup(element(PrevRid, Data), element(Receivers, Data)) of
        {value, {From, _Body}} when is_reference(element(Timer, Data)) ->
            Wait = element(Timer, Data),
            _ = erlang:cancel_timer(Wait),
            [Name, StateName, Data, Module, Time, Limits,
             queue:in_r({timeout, Wait, wait_timeout}, Queue), Length + 1];
        _ ->
            [Name, StateName, Data, Module, Time, Limits, Queue, Length]
    end;
end_wait(Other, _From, _Layout) ->
    Other.
