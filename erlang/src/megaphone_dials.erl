%% @doc The dials of one listener that have not proved yet who they are: how many there may be,
%% from where, and how long one must wait that comes from where others failed.
%%
%% Who fails often could be guessing. Each failure doubles the time that the next dial from the
%% same address waits for its answer, and such an address holds an eighth of the places at most,
%% so that it never keeps others out.
-module(megaphone_dials).
-behaviour(gen_server).

%% megaphone_listener_sup
-export([start_link/1]).
%% megaphone_greeter
-export([enter/2, passed/1, failed/1]).
%% megaphone_listener
-export([info/1]).
%% gen_server
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-export_type([info/0]).

-include_lib("kernel/include/logger.hrl").

%% What a dial waits after one failure from its address, and at most, in milliseconds.
-define(DELAY_MIN, 100).
-define(DELAY_MAX, 3000).
%% Addresses that are remembered, and for how long after their last failure, in milliseconds.
-define(ADDRESSES_MAX, 1024).
-define(REMEMBERED, 600_000).
%% What is said once, and then with how many more there were, in milliseconds.
-define(SAID, 1000).

-type info() :: #{now := non_neg_integer(), max_handshakes := pos_integer(),
                  passed := non_neg_integer(), failed := non_neg_integer(),
                  busy := non_neg_integer(), not_allowed := non_neg_integer(),
                  slowed := non_neg_integer()}. % addresses

%% A customer has a /64 of IPv6, and every address in it.
-type source() :: inet:ip4_address() | {0..65535, 0..65535, 0..65535, 0..65535, 64} | local.

-record(state, {name :: string(),
                access :: megaphone_access:access(),
                %% Is there anything to guess?
                slows :: boolean(),
                max :: pos_integer(),
                dials = #{} :: #{pid() => {reference(), source()}},
                counts = #{passed => 0, failed => 0, busy => 0, not_allowed => 0} ::
                    #{passed | failed | busy | not_allowed := non_neg_integer()},
                failures = #{} :: #{source() => {Times :: pos_integer(), Last :: integer()}},
                %% Refusals since the last line about one of their kind.
                said = #{} :: #{busy | not_allowed => non_neg_integer()}}).

-spec start_link(megaphone_listener:config()) -> {ok, pid()} | {error, term()}.
start_link(Config) ->
    gen_server:start_link(?MODULE, Config, []).

%% @doc Takes a place for the caller, up to its end. It must wait so many milliseconds before it
%% answers.
-spec enter(pid(), megaphone_address:address()) ->
          {ok, Delay :: 0..?DELAY_MAX} | {error, busy | not_allowed | closed}.
enter(Dials, Address) ->
    try gen_server:call(Dials, {enter, Address})
    catch exit:_ -> {error, closed}
    end.

%% @doc The caller's peer has done all that was asked of it.
-spec passed(pid()) -> ok.
passed(Dials) ->
    gen_server:cast(Dials, {passed, self()}).

%% @doc The caller's peer has failed.
-spec failed(pid()) -> ok.
failed(Dials) ->
    gen_server:cast(Dials, {failed, self()}).

-spec info(pid()) -> info() | undefined.
info(Dials) ->
    try gen_server:call(Dials, info)
    catch exit:_ -> undefined
    end.

%%% gen_server

init(#{name := Name, access := Access, max_handshakes := Max}) ->
    process_flag(trap_exit, true),              % for terminate/2
    {ok, #state{name = Name, access = Access, max = Max,
                slows = megaphone_access:is_authenticated(Access)}}.

handle_call({enter, Address}, {Pid, _}, State) ->
    Source = source(Address),
    case refusal(Address, Source, State) of
        none ->
            Dial = {monitor(process, Pid), Source},
            {reply, {ok, delay(Source, State)},
             State#state{dials = (State#state.dials)#{Pid => Dial}}};
        Kind ->
            {reply, {error, Kind}, say(Kind, Address, count(Kind, State))}
    end;
handle_call(info, _From, #state{dials = Dials, counts = Counts, failures = Failures} = State) ->
    {reply, Counts#{now => map_size(Dials), max_handshakes => State#state.max,
                    slowed => map_size(Failures)}, State}.

handle_cast({passed, Pid}, State) ->
    {noreply, forgive(Pid, count(passed, State))};
handle_cast({failed, Pid}, State) ->
    {noreply, remember(Pid, count(failed, State))}.

handle_info({'DOWN', _, process, Pid, _}, #state{dials = Dials} = State) ->
    {noreply, State#state{dials = maps:remove(Pid, Dials)}};
handle_info({said, Kind}, State) ->
    {noreply, say_more(Kind, State)};
handle_info(_Other, State) ->
    {noreply, State}.

%% ejabberd's supervisor started some of them, and no dial outlives its listener.
terminate(_Reason, #state{dials = Dials}) ->
    _ = [exit(Pid, shutdown) || Pid <- maps:keys(Dials)],
    ok.

%%% who may

refusal(Address, Source, #state{access = Access, dials = Dials, max = Max} = State) ->
    case megaphone_access:is_allowed(Address, Access) of
        false -> not_allowed;
        true when map_size(Dials) >= Max -> busy;
        true ->
            case is_crowded(Source, State) of
                true -> busy;
                false -> none
            end
    end.

is_crowded(Source, #state{dials = Dials, max = Max, failures = Failures}) ->
    is_map_key(Source, Failures)
        andalso length([S || {_, S} <- maps:values(Dials), S =:= Source]) >= max(1, Max div 8).

delay(Source, #state{failures = Failures}) ->
    case Failures of
        #{Source := {Times, _}} -> min(?DELAY_MAX, ?DELAY_MIN bsl min(Times - 1, 10));
        #{} -> 0
    end.

%% Who passes is no stranger.
forgive(Pid, #state{dials = Dials, failures = Failures} = State) ->
    case Dials of
        #{Pid := {_, Source}} -> State#state{failures = maps:remove(Source, Failures)};
        #{} -> State
    end.

remember(Pid, #state{slows = true, dials = Dials, failures = Failures} = State)
  when is_map_key(Pid, Dials) ->
    {_, Source} = maps:get(Pid, Dials),
    Now = erlang:monotonic_time(millisecond),
    Recent = maps:filter(fun(_, {_, Last}) -> Now - Last < ?REMEMBERED end, Failures),
    {Times, _} = maps:get(Source, Recent, {0, Now}),
    State#state{failures = (bounded(Source, Recent))#{Source => {Times + 1, Now}}};
remember(_, State) ->
    State.

%% The one that failed longest ago makes room.
bounded(Source, Failures)
  when map_size(Failures) < ?ADDRESSES_MAX; is_map_key(Source, Failures) ->
    Failures;
bounded(_, Failures) ->
    {_, Oldest} = lists:min([{Last, Source} || {Source, {_, Last}} <- maps:to_list(Failures)]),
    maps:remove(Oldest, Failures).

source({local, _}) -> local;
source({{_, _, _, _} = Ip4, _}) -> Ip4;
source({{0, 0, 0, 0, 0, 16#ffff, High, Low}, _}) ->
    {High bsr 8, High band 255, Low bsr 8, Low band 255};
source({{A, B, C, D, _, _, _, _}, _}) -> {A, B, C, D, 64}.

%%% what is said

count(Kind, #state{counts = Counts} = State) ->
    State#state{counts = maps:update_with(Kind, fun(N) -> N + 1 end, Counts)}.

say(Kind, Address, #state{said = Said, name = Name} = State) ->
    case Said of
        #{Kind := More} ->
            State#state{said = Said#{Kind := More + 1}};
        #{} ->
            ?LOG_WARNING("megaphone listener ~ts refused a link from ~ts: ~ts",
                         [Name, megaphone_address:hide(megaphone_address:format(Address)),
                          why(Kind, State)]),
            erlang:send_after(?SAID, self(), {said, Kind}),
            State#state{said = Said#{Kind => 0}}
    end.

say_more(Kind, #state{said = Said, name = Name} = State) ->
    case Said of
        #{Kind := 0} ->
            State#state{said = maps:remove(Kind, Said)};
        #{Kind := More} ->
            ?LOG_WARNING("megaphone listener ~ts refused ~b more links: ~ts",
                         [Name, More, why(Kind, State)]),
            erlang:send_after(?SAID, self(), {said, Kind}),
            State#state{said = Said#{Kind := 0}}
    end.

why(not_allowed, _) ->
    "its address is not in 'allowed_ips'";
why(busy, #state{max = Max}) ->
    io_lib:format("too many have not proved yet who they are ('max_handshakes' is ~b, and an "
                  "eighth of that for an address that has failed)", [Max]).
