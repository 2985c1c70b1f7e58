%% A log file as a stream of lines to wait for, from some place on and while it grows.
-module(e2e_log).

-export([mark/1, wait/4, grep/2, since/2]).

-type mark() :: non_neg_integer().
-export_type([mark/0]).

%% Where the file ends now: what is waited for from there on is news.
-spec mark(file:filename()) -> mark().
mark(File) -> filelib:file_size(File).

%% Waits until the file has a line behind the mark that matches.
-spec wait(file:filename(), mark(), Pattern :: iodata(), timeout()) -> {ok, Line :: binary()} | {error, term()}.
wait(File, Mark, Pattern, Timeout) ->
    Tail = e2e_process:start("tail", ["-c", "+" ++ integer_to_list(Mark + 1), "-s", "0.05", "-F", File], []),
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

%% All text behind the mark.
-spec since(file:filename(), mark()) -> binary().
since(File, Mark) ->
    {ok, <<_:Mark/binary, Text/binary>>} = file:read_file(File),
    Text.
