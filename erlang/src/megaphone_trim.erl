%%% @doc Makes users' processes that have gone quiet give back what they do not need.
%%%
%%% A process of ejabberd's keeps the heap of its busiest moment; an idle one never collects. Here each
%%% session's processes are looked at again and again while they are awake, at most so many a second,
%%% and one that did nothing for `trim_idle' is told to shrink ({@link megaphone_shrink}). It hibernates
%%% then, is forgotten here, and tells when a message has woken it: quiet users cost no time at all.
%%%
%%% Who is new or had been asleep for long is taken for quiet in a tenth of that time: a login or an
%%% answer to an empty BOSH request is over in an instant, and what many have left of it at a time is
%%% what the node needs at its peak. Who is woken soon after that has more to do, and gets the whole.
%%%
%%% It does nothing until {@link mod_megaphone} says so for a host. A new session is found by the
%%% hook `c2s_init', those that are there already among all processes, once.
-module(megaphone_trim).
-behaviour(gen_server).

%% megaphone_root
-export([start_link/0]).
%% mod_megaphone
-export([enable/2, disable/1, info/0]).
%% ejabberd_hooks
-export([c2s_init/2]).
%% megaphone_shrink, in a user's process
-export([awake/1, woken/1, stock/0, collect/1, sample/2, failed/3]).
%% gen_server
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-export_type([options/0]).

-include_lib("kernel/include/logger.hrl").

-type options() :: #{idle := pos_integer(),     % milliseconds
                     rate := pos_integer(),     % looks a second
                     stock := boolean()}.

%% How often those that are due are looked at, milliseconds.
-define(TICK, 50).
%% A process is looked at so often within its time: it is quiet if it did nothing between all of these.
-define(LOOKS, 2).
%% What part of `idle' is enough for one that is `brief'.
-define(BRIEF, 10).
%% Between the two collections of a process that cannot shrink, milliseconds.
-define(AGAIN, 200).
-define(STOCK, {?MODULE, stock}).
-define(SEQUENCE, 90).

%% What to expect of a process: that it is done soon, or that it goes on.
-type pace() :: brief | busy.
%% When it is looked at next, who, its reductions at the last look, how many looks saw no others.
-type watched() :: {Due :: integer(), pid(), Reductions :: integer(), Same :: non_neg_integer()}.

-record(state, {hosts = #{} :: #{Host :: binary() => options()},
                idle = infinity :: pos_integer() | infinity,
                rate = 0 :: non_neg_integer(),
                %% By due time each, for all of a pace wait equally long.
                brief = queue:new() :: queue:queue(watched()),
                busy = queue:new() :: queue:queue(watched()),
                timer :: undefined | {Due :: integer(), reference()},
                samples = #{} :: #{term() => term()},
                nobody :: pid(),
                trimmed = 0 :: non_neg_integer(),
                failed = false :: boolean()}).

-spec start_link() -> {ok, pid()} | {error, term()}.
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

%% @doc From now on, or with other options. Of several hosts' options those count that trim most.
-spec enable(Host :: binary(), options()) -> ok.
enable(Host, Options) ->
    gen_server:call(?MODULE, {enable, Host, Options}, infinity).

-spec disable(Host :: binary()) -> ok.
disable(Host) ->
    gen_server:call(?MODULE, {disable, Host}, infinity).

%% @doc Processes that are awake and watched, and how many were told to shrink so far.
-spec info() -> #{awake := non_neg_integer(), trimmed := non_neg_integer()}.
info() ->
    gen_server:call(?MODULE, info, infinity).

%%% ejabberd_hooks

%% @doc A session begins, in its own process.
-spec c2s_init(Result, [term()]) -> Result when Result :: {ok, map()} | term().
c2s_init({ok, #{socket := Socket}} = Result, Options) when is_tuple(Socket) ->
    SockMod = element(2, Socket),
    case proplists:get_value(max_fsm_queue, Options) of
        undefined -> ok;
        Max -> _ = put('$megaphone_max_queue', Max), ok
    end,
    ok = new(stock() orelse megaphone_shrink:is_ours(SockMod), self()),
    %% The process of a BOSH session, or of a stock WebSocket.
    case proplists:get_value(receiver, Options) of
        undefined -> ok;
        Carrier -> ok = new(stock() orelse megaphone_shrink:is_ours(SockMod), Carrier)
    end,
    Result;
c2s_init(Result, _Options) ->
    Result.

new(true, Pid) -> gen_server:cast(?MODULE, {new, Pid});
new(false, _Pid) -> ok.

%%% megaphone_shrink

%% @doc A process is to be watched of which nothing is known.
-spec awake(pid()) -> ok.
awake(Pid) ->
    gen_server:cast(?MODULE, {awake, Pid}).

%% @doc The calling process has been woken, after so many milliseconds.
-spec woken(Slept :: non_neg_integer()) -> ok.
woken(Slept) ->
    gen_server:cast(?MODULE, {woken, self(), Slept}).

%% @doc Whether users of stock listeners are meant too.
-spec stock() -> boolean().
stock() ->
    persistent_term:get(?STOCK, false).

%% @doc Has the garbage of another process collected.
-spec collect(pid()) -> ok.
collect(Pid) ->
    gen_server:cast(?MODULE, {collect, Pid}).

%% @doc One of the states that a shape's skeleton is made of, which is then found under the key.
-spec sample(Key :: term(), term()) -> ok.
sample(Key, Sample) ->
    gen_server:cast(?MODULE, {sample, Key, Sample}).

-spec failed(atom(), term(), [term()]) -> ok.
failed(Class, Reason, Stack) ->
    gen_server:cast(?MODULE, {failed, Class, Reason, Stack}).

%%% gen_server

init([]) ->
    %% Where thousands log in all schedulers are busy, and to ask one that is about to run is to wait for
    %% it. A look would come seconds late then, with the garbage of all who came meanwhile in between.
    %% What it does in a second is bounded by `rate'.
    _ = process_flag(priority, high),
    ok = megaphone_shrink:new(),
    {ok, #state{nobody = nobody()}}.

%% Answers that nobody waits for go to a process that is no more.
nobody() ->
    {Pid, Ref} = spawn_monitor(fun() -> ok end),
    receive {'DOWN', Ref, process, Pid, _} -> Pid end.

handle_call({enable, Host, Options}, _From, #state{hosts = Hosts} = State) ->
    Next = configure(State#state{hosts = Hosts#{Host => Options}}),
    _ = map_size(Hosts) =:= 0 andalso ejabberd_hooks:add(c2s_init, ?MODULE, c2s_init, ?SEQUENCE),
    %% Those that are there already.
    AtOnce = at_once(Next),
    _ = is_more(State, Next)
        andalso spawn(fun() -> find([Pid || Pid <- processes(), is_known(Pid)], AtOnce) end),
    {reply, ok, Next};
handle_call({disable, Host}, _From, #state{hosts = Hosts} = State) ->
    Next = configure(State#state{hosts = maps:remove(Host, Hosts)}),
    _ = map_size(Next#state.hosts) =:= 0
        andalso ejabberd_hooks:delete(c2s_init, ?MODULE, c2s_init, ?SEQUENCE),
    {reply, ok, Next};
handle_call(info, _From, #state{brief = Brief, busy = Busy, trimmed = Trimmed} = State) ->
    {reply, #{awake => queue:len(Brief) + queue:len(Busy), trimmed => Trimmed}, State}.

handle_cast({new, Pid}, State) ->
    {noreply, watch(brief, Pid, State)};
handle_cast({awake, Pid}, State) ->
    {noreply, watch(busy, Pid, State)};
handle_cast({woken, Pid, Slept}, #state{idle = Idle} = State) ->
    {noreply, watch(if Slept >= Idle -> brief; true -> busy end, Pid, State)};
handle_cast({collect, Pid}, State) ->
    ok = collect_now(Pid),
    %% The first makes a young generation old, and only the second makes room of it.
    _ = erlang:send_after(?AGAIN, self(), {collect, Pid}),
    {noreply, State};
handle_cast({sample, Key, Sample}, #state{samples = Samples} = State) ->
    {noreply, case maps:take(Key, Samples) of
                  {First, Others} ->
                      ok = persistent_term:put(Key, megaphone_shrink:skeleton(First, Sample)),
                      State#state{samples = Others};
                  error ->
                      State#state{samples = Samples#{Key => Sample}}
              end};
handle_cast({failed, Class, Reason, Stack}, #state{failed = false} = State) ->
    ?LOG_WARNING("trim_idle: a process cannot be made smaller than by a collection (said once): ~tp",
                 [{Class, Reason, Stack}]),
    {noreply, State#state{failed = true}};
handle_cast({failed, _, _, _}, State) ->
    {noreply, State}.

%% Not one that was cancelled too late: with each of those there would be one more for good.
handle_info({timeout, Timer, tick}, #state{timer = {_, Timer}} = State) ->
    case schedule(look(at_once(State), now_ms(), State#state{timer = undefined})) of
        %% Nobody is awake, and thousands may have been.
        #state{timer = undefined} = Next -> {noreply, Next, hibernate};
        Next -> {noreply, Next}
    end;
handle_info({collect, Pid}, State) ->
    ok = collect_now(Pid),
    {noreply, State};
handle_info(_Other, State) ->
    {noreply, State}.

%%% who is watched

configure(#state{hosts = Hosts} = State) when map_size(Hosts) =:= 0 ->
    set_stock(false),
    State#state{idle = infinity, rate = 0, brief = queue:new(), busy = queue:new()};
configure(#state{hosts = Hosts} = State) ->
    All = maps:values(Hosts),
    set_stock(is_stock(Hosts)),
    State#state{idle = lists:min([Idle || #{idle := Idle} <- All]),
                rate = lists:max([Rate || #{rate := Rate} <- All])}.

set_stock(Stock) ->
    persistent_term:put(?STOCK, Stock).

%% Whether there may be processes that nobody told of, since they were not meant before.
is_more(#state{idle = Before}, #state{idle = Now}) when Before =:= infinity, Now =/= infinity -> true;
is_more(#state{hosts = Before}, #state{hosts = Now}) -> is_stock(Now) andalso not is_stock(Before).

is_stock(Hosts) ->
    lists:any(fun(#{stock := Stock}) -> Stock end, maps:values(Hosts)).

%% Not all at once: what they are told to do takes its time.
find([], _AtOnce) ->
    ok;
find(Pids, AtOnce) ->
    {Now, Later} = lists:split(min(AtOnce, length(Pids)), Pids),
    lists:foreach(fun awake/1, Now),
    timer:sleep(?TICK),
    find(Later, AtOnce).

is_known(Pid) ->
    case proc_lib:initial_call(Pid) of
        {Module, _, _} -> megaphone_shrink:is_kind(Module);
        false -> false
    end.

%% Looks within a tick.
at_once(#state{rate = Rate}) ->
    max(1, Rate * ?TICK div 1000).

watch(_Pace, _Pid, #state{idle = infinity} = State) ->
    State;
watch(Pace, Pid, State) ->
    schedule(again(Pace, Pid, 0, 0, State)).

again(brief, Pid, Reductions, Same, #state{idle = Idle, brief = Watched} = State) ->
    State#state{brief = queue:in({due(Idle div ?BRIEF), Pid, Reductions, Same}, Watched)};
again(busy, Pid, Reductions, Same, #state{idle = Idle, busy = Watched} = State) ->
    State#state{busy = queue:in({due(Idle), Pid, Reductions, Same}, Watched)}.

due(Time) ->
    now_ms() + max(1, Time div ?LOOKS).

%% The pace and the queue of who is due first.
-spec first(#state{}) -> {Due :: integer(), pace()} | nobody.
first(#state{brief = Brief, busy = Busy}) ->
    case {queue:peek(Brief), queue:peek(Busy)} of
        {empty, empty} -> nobody;
        {{value, First}, empty} -> {element(1, First), brief};
        {empty, {value, First}} -> {element(1, First), busy};
        {{value, One}, {value, Other}} -> min({element(1, One), brief}, {element(1, Other), busy})
    end.

schedule(#state{timer = Timer} = State) ->
    case {first(State), Timer} of
        {nobody, _} ->
            State;
        {{Due, _}, {Until, _}} when Until =< Due ->
            State;
        {{Due, _}, _} ->
            _ = is_tuple(Timer) andalso erlang:cancel_timer(element(2, Timer)),
            Wait = max(?TICK, Due - now_ms()),
            State#state{timer = {Due, erlang:start_timer(Wait, self(), tick)}}
    end.

look(0, _Now, State) ->
    State;
look(Left, Now, State) ->
    case first(State) of
        {Due, Pace} when Due =< Now -> look(Left - 1, Now, look_at(Pace, State));
        _ -> State
    end.

look_at(brief, #state{brief = Watched} = State) ->
    look_at(brief, queue:get(Watched), State#state{brief = queue:drop(Watched)});
look_at(busy, #state{busy = Watched} = State) ->
    look_at(busy, queue:get(Watched), State#state{busy = queue:drop(Watched)}).

%% Asked for more than its reductions a process would have to do something.
look_at(Pace, {_Due, Pid, Before, Same}, State) ->
    case erlang:process_info(Pid, reductions) of
        {reductions, Before} when Same + 1 >= ?LOOKS -> trim(Pid, State);
        {reductions, Before} -> again(Pace, Pid, Before, Same + 1, State);
        {reductions, Now} -> again(Pace, Pid, Now, 0, State);
        undefined -> State
    end.

trim(Pid, #state{nobody = Nobody, trimmed = Trimmed} = State) ->
    case erlang:process_info(Pid, current_function) of
        {current_function, {erlang, hibernate, 3}} ->
            State;
        _ ->
            Pid ! megaphone_shrink:message(Nobody),
            State#state{trimmed = Trimmed + 1}
    end.

collect_now(Pid) ->
    _ = erlang:garbage_collect(Pid, [{async, collected}]),
    ok.

now_ms() ->
    erlang:monotonic_time(millisecond).
