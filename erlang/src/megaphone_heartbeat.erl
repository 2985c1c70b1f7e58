%%% @doc Is the other end of a link alive, and how far is it? Pings at each interval, also while
%%% there is traffic, so that the round-trip time is always a fresh one.
-module(megaphone_heartbeat).

%% megaphone_receiver
-export([new/1, tick/2, pong/2, rtt/1]).

-export_type([t/0, rtt/0]).

%% Intervals without a byte after which a link is taken for dead (docs/protocol.md).
-define(MISSES_MAX, 3).

%% Microseconds.
-type rtt() :: #{last := pos_integer(), smoothed := pos_integer(), min := pos_integer()}.

-record(heartbeat, {%% In ticks.
                    interval :: pos_integer(),
                    since_ping = 0 :: non_neg_integer(),
                    silent = 0 :: non_neg_integer(),
                    %% Bytes, at the last tick.
                    received = 0 :: non_neg_integer(),
                    ping :: undefined | {Word :: binary(), SentAt :: integer()},
                    rtt :: undefined | rtt()}).

-opaque t() :: #heartbeat{}.

%% @doc Of a link that has just come up, or was resumed. A tick is a second.
-spec new(Interval :: pos_integer()) -> t().
new(Interval) ->
    #heartbeat{interval = Interval}.

%% @doc A second has passed, and so many bytes have come since the link began.
%%
%% `ping': that word is to be sent. `silent': nothing came for so many seconds, and the transport
%% is dead.
-spec tick(Received :: non_neg_integer(), t()) ->
          {ok | {ping, Word :: binary()} | {silent, Seconds :: pos_integer()}, t()}.
tick(Received, #heartbeat{received = Received, silent = Silent, interval = Interval} = Beat) ->
    case Silent + 1 of
        Seconds when Seconds >= ?MISSES_MAX * Interval -> {{silent, Seconds}, Beat};
        Seconds -> ping(Beat#heartbeat{silent = Seconds})
    end;
tick(Received, Beat) ->
    ping(Beat#heartbeat{received = Received, silent = 0}).

ping(#heartbeat{since_ping = Since, interval = Interval} = Beat) when Since + 1 >= Interval ->
    Word = integer_to_binary(erlang:unique_integer([positive])),
    {{ping, Word}, Beat#heartbeat{since_ping = 0, ping = {Word, now_us()}}};
ping(#heartbeat{since_ping = Since} = Beat) ->
    {ok, Beat#heartbeat{since_ping = Since + 1}}.

%% @doc A pong has come. One that answers no ping, or an old one, says nothing.
-spec pong(Word :: binary(), t()) -> t().
pong(Word, #heartbeat{ping = {Word, SentAt}, rtt = Rtt} = Beat) ->
    Beat#heartbeat{ping = undefined, rtt = measured(max(1, now_us() - SentAt), Rtt)};
pong(_Word, Beat) ->
    Beat.

%% As TCP smooths it (RFC 6298).
measured(Last, undefined) ->
    #{last => Last, smoothed => Last, min => Last};
measured(Last, #{smoothed := Smoothed, min := Min}) ->
    #{last => Last, smoothed => (7 * Smoothed + Last) div 8, min => min(Min, Last)}.

%% @doc The round-trip time, once it is known.
-spec rtt(t()) -> rtt() | undefined.
rtt(#heartbeat{rtt = Rtt}) ->
    Rtt.

now_us() ->
    erlang:monotonic_time(microsecond).
