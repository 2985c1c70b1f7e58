%%% @doc Ends the connections of links that go, evenly over a time, so that those who come back
%%% elsewhere come one after the other.
%%%
%%% A link is drained because this node is (`megaphone:drain/1': all links, also those that dial
%%% meanwhile), or because its ECM says so (`goaway ... within=SECONDS'). What is said to whom is
%%% {@link megaphone_farewell}'s. A connection that was told and is still there when the time is
%%% over, or some seconds after it was told, is closed with reason `shutdown'.
-module(megaphone_drain).
-behaviour(gen_server).

%% megaphone_root
-export([start_link/0]).
%% megaphone
-export([start/1, cancel/0]).
%% megaphone_receiver
-export([link/2]).
%% gen_server
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-include_lib("kernel/include/logger.hrl").

%% How often it is looked what is due, milliseconds.
-define(TICK, 100).
%% Connections of a link that are told or looked at in one go; other messages come between two.
%% One costs some 10 us, most of it the look at its owner.
-define(STEP_MAX, 256).
%% A connection that was told is looked at again after so many milliseconds.
-define(LOOK_AGAIN, 250).
%% What a connection that was told has at least to end by itself, milliseconds.
-define(LAST_WORDS, 2_000).
%% Seconds after which an ECM that dials a drained node may try again, at least.
-define(RETRY_AFTER, 5).
%% Pause between two lines of progress in the log, milliseconds.
-define(PROGRESS, 10_000).

-record(told, {look :: integer(),               % when it is looked at next
               until :: integer(),              % when it is closed
               conn :: megaphone_nif:conn(),
               %% `busy' until its owner could be told.
               said :: megaphone_farewell:said()}).

%% All times are milliseconds of now_ms/0.
-record(job, {handle :: megaphone_nif:link(),
              name :: binary(),
              why :: node | edge,
              began :: integer(),
              until :: integer(),
              %% Not told yet, how many these are, and when the next one is due.
              todo = [] :: [non_neg_integer()],
              left = 0 :: non_neg_integer(),
              next :: number(),
              %% Told, in the order in which they are looked at.
              told = queue:new() :: queue:queue(#told{}),
              all = 0 :: non_neg_integer(),
              ended = 0 :: non_neg_integer(),
              cut = 0 :: non_neg_integer(),     % of these: closed by us when their time was over
              progress :: integer(),            % when the log says next how far it is
              done = false :: boolean()}).

-record(state, {node = off :: off | integer(),  % the node is drained, until when
                finished = false :: boolean(),  % and the log has said that it is empty
                jobs = #{} :: #{Link :: pid() => #job{}},
                %% Of links that are gone: connections that ended, and all that there were.
                gone = {0, 0} :: {non_neg_integer(), non_neg_integer()},
                timer :: undefined | reference()}).

-spec start_link() -> {ok, pid()} | {error, term()}.
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

%% @doc See `megaphone:drain/1'.
-spec start(Seconds :: non_neg_integer()) -> ok | {error, not_running}.
start(Seconds) ->
    call({node, Seconds}).

%% @doc See `megaphone:undrain/0'.
-spec cancel() -> ok | {error, not_running}.
cancel() ->
    call(cancel).

call(Request) ->
    try gen_server:call(?MODULE, Request, infinity)
    catch exit:{noproc, _} -> {error, not_running}
    end.

%% @doc Ends the connections of one link within so many seconds. Does not block.
-spec link(Link :: pid(), non_neg_integer()) -> ok.
link(Link, Seconds) ->
    gen_server:cast(?MODULE, {link, Link, Seconds}).

%%% gen_server

init([]) ->
    {ok, #state{}}.

handle_call({node, Seconds}, _From, #state{jobs = Jobs0} = State) ->
    ?LOG_NOTICE("drain: no new connections from now on; those that are open end within ~b s",
                [Seconds]),
    Until = now_ms() + Seconds * 1000,
    Jobs = maps:map(fun(_, #job{why = node} = Job) -> reschedule(Until, Job);
                       (_, Job) -> reschedule(min(Until, Job#job.until), Job)
                    end, Jobs0),
    {reply, ok, tick_now(State#state{node = Until, finished = false, jobs = Jobs})};
handle_call(cancel, _From, #state{node = off} = State) ->
    {reply, ok, State};
handle_call(cancel, _From, #state{jobs = Jobs} = State) ->
    ?LOG_NOTICE("drain: cancelled, ~ts", [summary(State)]),
    {reply, ok, State#state{node = off, gone = {0, 0},
                            jobs = maps:filter(fun(_, #job{why = Why}) -> Why =:= edge end, Jobs)}}.

handle_cast({link, Link, Seconds}, #state{jobs = Jobs} = State) ->
    Until = now_ms() + Seconds * 1000,
    {noreply, tick_now(
                case Jobs of
                    #{Link := Job} ->
                        Edge = Job#job{why = edge},
                        State#state{jobs = Jobs#{Link := reschedule(Until, Edge)}};
                    #{} ->
                        begin_job(edge, Until, lists:keyfind(Link, 1, megaphone_link_table:all()),
                                  State)
                end)}.

handle_info(tick, State) ->
    {noreply, tick(State#state{timer = undefined})};
handle_info({'DOWN', _, process, Link, _}, #state{jobs = Jobs} = State) ->
    {noreply, case maps:take(Link, Jobs) of
                  {Job, Left} -> link_gone(Job, State#state{jobs = Left});
                  error -> State
              end};
handle_info(_Other, State) ->
    {noreply, State}.

%%% which links

tick_now(#state{timer = undefined} = State) ->
    tick(State);
tick_now(#state{timer = Timer} = State) ->
    _ = erlang:cancel_timer(Timer),
    tick(State#state{timer = undefined}).

tick(State) ->
    #state{jobs = Jobs0} = State1 = new_links(State),
    Now = now_ms(),
    Steps = maps:map(fun(_, Job) -> step(Now, Job) end, Jobs0),
    State2 = finished(State1#state{jobs = maps:map(fun(_, {_, Job}) -> Job end, Steps)}),
    Wait = case lists:any(fun({Pace, _}) -> Pace =:= more end, maps:values(Steps)) of
               true -> 0;
               false -> ?TICK
           end,
    case State2 of
        #state{node = off, jobs = None} when map_size(None) =:= 0 -> State2;
        _ -> State2#state{timer = erlang:send_after(Wait, self(), tick)}
    end.

%% A link that dials while the node is drained hears so at once.
new_links(#state{node = off} = State) ->
    State;
new_links(#state{node = Until} = State) ->
    lists:foldl(
      fun({Link, Handle, _} = New, #state{jobs = Jobs} = Acc) when not is_map_key(Link, Jobs) ->
              Within = max(0, Until - now_ms()) div 1000,
              megaphone_nif:goaway(Handle, shutdown, max(?RETRY_AFTER, Within), Within),
              begin_job(node, Until, New, Acc);
         (_, Acc) ->
              Acc
      end, State, megaphone_link_table:all()).

begin_job(_Why, _Until, false, State) ->
    State;
begin_job(Why, Until, {Link, Handle, Name}, #state{jobs = Jobs} = State) ->
    _ = erlang:monitor(process, Link),
    Now = now_ms(),
    Job = list(#job{handle = Handle, name = Name, why = Why, began = Now, until = Until, next = Now,
                    progress = Now + ?PROGRESS}),
    ?LOG_INFO("drain: link ~ts: ~b connections end within ~b s",
              [Name, Job#job.all, max(0, Until - Now) div 1000]),
    State#state{finished = false, jobs = Jobs#{Link => Job}}.

reschedule(Until, Job) ->
    Job#job{until = Until, next = now_ms()}.

%% Those who were left on it end with it.
link_gone(#job{why = Why, all = All, ended = Ended, done = Done} = Job, #state{gone = {E, A}} = State) ->
    _ = Done orelse log(Job, "; the link is gone"),
    case Why of
        node -> State#state{gone = {E + Ended, A + All}};
        edge -> State
    end.

finished(#state{node = Until, finished = false, jobs = Jobs} = State) when Until =/= off ->
    case lists:all(fun(#job{done = Done}) -> Done end, maps:values(Jobs)) of
        true ->
            ?LOG_NOTICE("drain: done, ~ts", [summary(State)]),
            State#state{finished = true};
        false ->
            State
    end;
finished(State) ->
    State.

summary(#state{jobs = Jobs, gone = Gone}) ->
    {Ended, All} = maps:fold(fun(_, #job{why = node, ended = E, all = A}, {Es, As}) -> {Es + E, As + A};
                                (_, _, Acc) -> Acc
                             end, Gone, Jobs),
    io_lib:format("~b of ~b connections ended", [Ended, All]).

%%% one link

%% A bounded piece of its work. `more': there is more that is due.
step(Now, #job{left = 0, told = Told, done = Done} = Job) ->
    case queue:is_empty(Told) of
        false ->
            report(Now, look(Now, ?STEP_MAX, Job));
        true ->
            case list(Job) of
                #job{left = 0} when Done -> {wait, Job};
                #job{left = 0} -> log(Job, ""), {wait, Job#job{done = true}};
                New -> {more, New#job{done = false, next = Now}}
            end
    end;
step(Now, Job) ->
    {Number, Next} = due(Now, Job),
    {Pace, Job1} = look(Now, ?STEP_MAX, tell(Now, min(Number, ?STEP_MAX), Job#job{next = Next})),
    report(Now, {case Number > ?STEP_MAX of true -> more; false -> Pace end, Job1}).

%% How many are to be told by now, and when the one after these (or after the bound) is due.
due(Now, #job{until = Until, left = Left}) when Now >= Until ->
    {Left, Now};
due(Now, #job{next = Next}) when Now < Next ->
    {0, Next};
due(Now, #job{until = Until, left = Left, next = Next}) ->
    Pause = (Until - Next) / Left,
    Number = min(Left, trunc((Now - Next) / Pause) + 1),
    {Number, Next + min(Number, ?STEP_MAX) * Pause}.

tell(_Now, 0, Job) ->
    Job;
tell(Now, Number, #job{handle = Handle, todo = [Id | Todo], left = Left} = Job) ->
    Job1 = Job#job{todo = Todo, left = Left - 1},
    tell(Now, Number - 1, case megaphone_nif:lookup(Handle, Id) of
                              {ok, Conn} -> told(Now, Conn, Job1);
                              {error, closed} -> ended(Job1)
                          end).

told(Now, Conn, #job{until = Until} = Job) ->
    keep(Now, #told{look = Now, until = max(Until, Now + ?LAST_WORDS), conn = Conn, said = busy}, Job).

%% Says what there is to say, once it can be said.
keep(Now, #told{conn = Conn, said = Before} = Told, Job) ->
    case megaphone_farewell:say(Conn, Before) of
        closed -> ended(Job);
        Said -> again(Now, Told#told{said = Said}, Job)
    end.

again(Now, Told, #job{told = Queue} = Job) ->
    Job#job{told = queue:in(Told#told{look = Now + ?LOOK_AGAIN}, Queue)}.

look(_Now, 0, Job) ->
    {more, Job};
look(Now, Most, #job{told = Queue} = Job) ->
    case queue:out(Queue) of
        {{value, #told{look = Look} = Told}, Left} when Look =< Now ->
            look(Now, Most - 1, look_at(Now, Told, Job#job{told = Left}));
        _ ->
            {wait, Job}
    end.

look_at(Now, #told{conn = Conn, until = Until, said = Said}, Job) when Now >= Until ->
    case megaphone_farewell:cut(Conn, Said) of
        true -> ended(Job#job{cut = Job#job.cut + 1});
        false -> ended(Job)
    end;
look_at(Now, Told, Job) ->
    keep(Now, Told, Job).

ended(#job{ended = Ended} = Job) ->
    Job#job{ended = Ended + 1}.

%% All connections that there are now.
list(#job{handle = Handle, all = All} = Job) ->
    case maps:from_list(megaphone_nif:link_info(Handle)) of
        #{connections := 0} ->
            Job;
        #{} ->
            Ids = megaphone_nif:connections(Handle),
            Number = length(Ids),
            Job#job{todo = Ids, left = Number, all = All + Number}
    end.

report(Now, {Pace, #job{progress = At} = Job}) when Now >= At ->
    log(Job, " so far"),
    {Pace, Job#job{progress = Now + ?PROGRESS}};
report(_Now, Step) ->
    Step.

log(#job{name = Name, all = All, ended = Ended, cut = Cut, began = Began}, More) ->
    ?LOG_INFO("drain: ~b of ~b connections ended on link ~ts in ~.1f s, ~b of them cut short~ts",
              [Ended, All, Name, (now_ms() - Began) / 1000, Cut, More]).

now_ms() ->
    erlang:monotonic_time(millisecond).
