%% Keeps every log event while a test runs, so that a test can wait for the line
%% that an administrator would read. A logger handler as any other.
-module(log_capture).

-export([start/0, stop/1, wait/2, wait/3, lines/1]).
%% logger handler
-export([log/2]).

-define(TIMEOUT, 5000).

start() ->
    Keeper = spawn(fun() -> loop([], []) end),
    Id = list_to_atom("log_capture_" ++ integer_to_list(erlang:unique_integer([positive]))),
    #{level := Level} = logger:get_primary_config(),
    ok = logger:set_primary_config(level, info),
    %% What a test provokes on purpose need not fill the terminal.
    Terminal = case logger:get_handler_config(default) of
                   {ok, #{level := Shown}} -> Shown;
                   {error, _} -> none
               end,
    _ = logger:update_handler_config(default, level, none),
    ok = logger:add_handler(Id, ?MODULE, #{config => Keeper, level => all}),
    {?MODULE, Id, Keeper, {Level, Terminal}}.

stop({?MODULE, Id, Keeper, {Level, Terminal}}) ->
    ok = logger:set_primary_config(level, Level),
    _ = logger:update_handler_config(default, level, Terminal),
    ok = logger:remove_handler(Id),
    exit(Keeper, kill),
    ok.

%% The first line, seen already or still to come, that all of these regular
%% expressions match.
wait(Capture, Patterns) ->
    wait(Capture, Patterns, ?TIMEOUT).

wait({?MODULE, _, Keeper, _} = Capture, Patterns, Timeout) ->
    Ref = monitor(process, Keeper),
    Keeper ! {wait, {self(), Ref}, Patterns},
    receive
        {Ref, Line} ->
            demonitor(Ref, [flush]),
            Line;
        {'DOWN', Ref, process, _, Why} ->
            error({log_capture_died, Why})
    after Timeout ->
        error({no_log_line, Patterns, lines(Capture)})
    end.

%% All lines so far as {Level, Text}, oldest first.
lines({?MODULE, _, Keeper, _}) ->
    Ref = monitor(process, Keeper),
    Keeper ! {lines, {self(), Ref}},
    receive
        {Ref, Lines} ->
            demonitor(Ref, [flush]),
            Lines
    end.

log(#{level := Level} = Event, #{config := Keeper}) ->
    Text = unicode:characters_to_binary(
             logger_formatter:format(Event, #{single_line => true,
                                              template => [msg]})),
    Keeper ! {line, {Level, Text}},
    ok.

loop(Lines, Waits) ->
    receive
        {line, Line} ->
            loop([Line | Lines], [W || W <- Waits, not answered(W, [Line])]);
        {wait, From, Patterns} ->
            Wait = {From, Patterns},
            case answered(Wait, lists:reverse(Lines)) of
                true -> loop(Lines, Waits);
                false -> loop(Lines, [Wait | Waits])
            end;
        {lines, {Pid, Ref}} ->
            Pid ! {Ref, lists:reverse(Lines)},
            loop(Lines, Waits)
    end.

answered({{Pid, Ref}, Patterns}, Lines) ->
    case [Line || {_, Text} = Line <- Lines, matches(Text, Patterns)] of
        [First | _] -> Pid ! {Ref, First}, true;
        [] -> false
    end.

matches(Text, Patterns) ->
    lists:all(fun(P) -> re:run(Text, P, [{capture, none}, unicode]) =:= match end, Patterns).
