%% For what no event tells of: another process's state, a count, a table of a node.
-module(poll).

-export([until/1, until/2, until/3]).

-define(TIMEOUT, 20_000).

%% Looks again and again, until it is so.
-spec until(fun(() -> boolean())) -> ok.
until(Look) -> until(Look, true).

%% Until what is seen is what is wanted. That it never was is an error that has both.
-spec until(fun(() -> Seen), Seen) -> ok when Seen :: term().
until(Look, Wanted) -> until(Look, Wanted, ?TIMEOUT).

-spec until(fun(() -> Seen), Seen, timeout()) -> ok when Seen :: term().
until(Look, Wanted, Timeout) ->
    again(Look, Wanted, erlang:monotonic_time(millisecond) + Timeout).

again(Look, Wanted, Deadline) ->
    case Look() of
        Wanted ->
            ok;
        Other ->
            erlang:monotonic_time(millisecond) < Deadline orelse error({never, Wanted, Other}),
            receive after 1 -> again(Look, Wanted, Deadline) end
    end.
