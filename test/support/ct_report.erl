%% Common Test event handler: one line for each test case as it ends, and the run's
%% totals for the script that adds them up. rebar.config names it in `ct_opts`.
%%
%% A line is `ok|FAILED|skipped  SUITE:GROUP:CASE  (SECONDS s)`. Where a failure has a
%% reason, it follows, indented. The totals, as CT itself counts them, are one Erlang term
%% in the file that the environment variable CT_TOTALS names:
%% `#{passed => N, failed => N, skipped => N}.`
%% <https://www.erlang.org/doc/apps/common_test/event_handler_chapter.html>
-module(ct_report).
-behaviour(gen_event).

-include_lib("common_test/include/ct_event.hrl").

-export([init/1, handle_event/2, handle_call/2, handle_info/2, terminate/2]).

-record(state, {started = #{} :: #{{module(), term()} => integer()},
                groups = [] :: [atom()],
                totals = {0, 0, 0} :: {Passed :: integer(), Failed :: integer(), Skipped :: integer()}}).

-define(REASON_DEPTH, 40).

init(_Args) -> {ok, #state{}}.

handle_event(#event{name = tc_start, data = {Suite, {init_per_group, Group, _}}}, State) ->
    {ok, start({Suite, Group}, State#state{groups = State#state.groups ++ [Group]})};
handle_event(#event{name = tc_start, data = {Suite, Case}}, State) ->
    {ok, start({Suite, Case}, State)};
handle_event(#event{name = tc_done, data = {Suite, {end_per_group, Group, _} = Name, Result}}, State) ->
    report(Suite, Name, Result, State),
    {ok, State#state{groups = lists:delete(Group, State#state.groups)}};
handle_event(#event{name = tc_done, data = {Suite, Case, Result}}, State) ->
    report(Suite, Case, Result, State),
    {ok, State};
handle_event(#event{name = Skip, data = {Suite, Case, Reason}}, State)
  when Skip =:= tc_user_skip; Skip =:= tc_auto_skip ->
    report(Suite, Case, {skipped, Reason}, State),
    {ok, State};
handle_event(#event{name = test_stats, data = {Passed, Failed, {User, Auto}}}, State) ->
    {ok, State#state{totals = {Passed, Failed, User + Auto}}};
handle_event(_Event, State) ->
    {ok, State}.

handle_call(_Request, State) -> {ok, ok, State}.

handle_info(_Message, State) -> {ok, State}.

terminate(_Reason, #state{totals = {Passed, Failed, Skipped}}) ->
    case os:getenv("CT_TOTALS") of
        false ->
            ok;
        File ->
            Totals = #{passed => Passed, failed => Failed, skipped => Skipped},
            ok = file:write_file(File, io_lib:format("~p.~n", [Totals]))
    end.

start(Key, #state{started = Started} = State) ->
    State#state{started = Started#{Key => erlang:monotonic_time()}}.

%% Preparations are worth a line only when they fail.
report(Suite, Case, ok, State) ->
    case is_preparation(Case) of
        true -> ok;
        false -> line("ok", Suite, Case, State)
    end;
report(Suite, Case, {failed, Reason}, State) ->
    line("FAILED", Suite, Case, State),
    explain(Reason);
report(Suite, Case, {_Skipped, Reason}, State) ->
    line("skipped", Suite, Case, State),
    explain(Reason);
report(_Suite, _Case, _Other, _State) ->
    ok.

is_preparation(init_per_suite) -> true;
is_preparation(end_per_suite) -> true;
is_preparation({init_per_group, _, _}) -> true;
is_preparation({end_per_group, _, _}) -> true;
is_preparation(_) -> false.

line(Word, Suite, Case, State) ->
    io:format(user, "~-8ts ~ts~ts~n", [Word, name(Suite, Case, State), seconds(Suite, Case, State)]).

name(Suite, {init_per_group, Group, _}, _) -> [path([Suite, Group]), " (init_per_group)"];
name(Suite, {end_per_group, Group, _}, _) -> [path([Suite, Group]), " (end_per_group)"];
name(Suite, {Case, Group}, _) -> path([Suite, Group, Case]);
name(Suite, Case, #state{groups = Groups}) -> path([Suite | Groups] ++ [Case]).

path(Names) -> lists:join(":", [io_lib:format("~tp", [Name]) || Name <- Names]).

seconds(Suite, Case, #state{started = Started}) ->
    case Started of
        #{{Suite, Case} := At} ->
            Took = erlang:monotonic_time() - At,
            io_lib:format(" (~.3f s)", [erlang:convert_time_unit(Took, native, microsecond) / 1.0e6]);
        #{} ->
            ""
    end.

explain(Reason) ->
    Text = io_lib:format("~tP", [Reason, ?REASON_DEPTH]),
    io:format(user, "~ts", [[["         ", Line, "\n"] || Line <- string:split(Text, "\n", all)]]).
