%% A log file as a stream of lines to wait for, from its beginning and while it grows.
-module(e2e_log).

-export([wait/3, grep/2]).

%% Waits until the file has a line that matches.
-spec wait(file:filename(), Pattern :: iodata(), timeout()) -> {ok, Line :: binary()} | {error, term()}.
wait(File, Pattern, Timeout) ->
    Tail = e2e_process:start("tail", ["-n", "+1", "-s", "0.05", "-F", File], []),
    Result = e2e_process:wait_line(Tail, Pattern, Timeout),
    ok = e2e_process:stop(Tail),
    case Result of
        {ok, Line, _Before} -> {ok, Line};
        {error, Reason} -> {error, {Pattern, Reason}}
    end.

%% The lines that are there now and match.
-spec grep(file:filename(), Pattern :: iodata()) -> [binary()].
grep(File, Pattern) ->
    {ok, Text} = file:read_file(File),
    [Line || Line <- binary:split(Text, <<"\n">>, [global]),
             re:run(Line, Pattern, [unicode]) =/= nomatch].
