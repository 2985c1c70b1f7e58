%%% @doc Ends the connections of a link that is gone, client by client: a million users who all
%%% leave in one moment are what a node survives least.
%%%
%%% One process a link, which waits for the receiver to end, however it ends: also one that was
%%% killed leaves nobody on a link that is no more.
-module(megaphone_ender).

%% megaphone_receiver
-export([start/1]).
%% proc_lib
-export([init/2]).

-include_lib("kernel/include/logger.hrl").

%% A batch of connections (64, megaphone_nif:end_some/2) each so many milliseconds: 6,400 a second.
-define(PAUSE, 10).
%% Of a link with more than that in this time, milliseconds, batches follow each other faster.
-define(SPREAD_MAX, 30_000).
-define(BATCH, 64).

%% @doc Starts the ender of a link whose receiver the caller is.
-spec start(megaphone_nif:link()) -> pid().
start(Link) ->
    proc_lib:spawn(?MODULE, init, [self(), Link]).

%% @private
-spec init(pid(), megaphone_nif:link()) -> ok.
init(Receiver, Link) ->
    Mref = erlang:monitor(process, Receiver),
    receive
        {'DOWN', Mref, process, Receiver, Reason} ->
            end_all(Link, Reason),
            #{name := Name, open := Opened, closed := Closed} = info(Link),
            ?LOG_INFO("link ~ts: gone, with all of its ~b connection(s); they ended with: ~ts",
                      [Name, Opened, reasons(lists:keysort(2, maps:to_list(Closed)))])
    end.

reasons([]) ->
    "-";
reasons(Closed) ->
    lists:join(", ", [io_lib:format("~ts ~b", [Reason, Count])
                      || {Reason, Count} <- lists:reverse(Closed)]).

info(Link) ->
    maps:from_list(megaphone_nif:link_info(Link)).

%% Whoever stops us has no time to wait for, nor a client a place to come back to.
end_all(Link, shutdown) ->
    case megaphone_nif:end_some(Link, shutdown) of
        more -> end_all(Link, shutdown);
        done -> ok
    end;
end_all(Link, {shutdown, peer_shutdown}) ->
    spread(Link, shutdown);
end_all(Link, _Reason) ->
    spread(Link, link_lost).

spread(Link, Reason) ->
    #{connections := Number} = info(Link),
    Steps = max(1, ?SPREAD_MAX div ?PAUSE),
    spread(Link, Reason, Number div (Steps * ?BATCH) + 1).

spread(Link, Reason, Batches) ->
    case some(Link, Reason, Batches) of
        more ->
            receive after ?PAUSE -> ok end,
            spread(Link, Reason, Batches);
        done ->
            ok
    end.

some(_Link, _Reason, 0) ->
    more;
some(Link, Reason, Batches) ->
    case megaphone_nif:end_some(Link, Reason) of
        more -> some(Link, Reason, Batches - 1);
        done -> done
    end.
