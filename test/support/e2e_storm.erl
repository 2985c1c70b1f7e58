%% Clients by the thousand, each a process that tries until it is served, as real ones do: one who
%% is refused comes again after as long as it was told, one whose connection ends comes at once.
-module(e2e_storm).

-export([start/3, served/3, stop/1, http/2]).
-export_type([storm/0, round/0]).

-type attempt() :: fun((Number :: pos_integer()) -> {ok, Held :: term()} | {refused, Wait :: non_neg_integer()}
                                                     | {cut, Wait :: non_neg_integer()}).
%% Returns when what attempt() gave has ended.
-type hold() :: fun((Held :: term()) -> _).
-type storm() :: #{clients := [pid()], ref := reference()}.
%% Milliseconds from the call of served/3 to the last of them; answers that said "later", and
%% connections that just ended.
-type round() :: #{took := non_neg_integer(), refused := non_neg_integer(), cut := non_neg_integer()}.

-spec start(pos_integer(), attempt(), hold()) -> storm().
start(Count, Attempt, Hold) ->
    Ref = make_ref(),
    Collector = self(),
    #{ref => Ref,
      clients => [spawn_link(fun() -> client({Collector, Ref}, Number, Attempt, Hold, 0, 0) end)
                  || Number <- lists:seq(1, Count)]}.

%% Waits until so many were served that had not been counted before.
-spec served(storm(), pos_integer(), timeout()) -> {ok, round()} | {error, {missing, pos_integer()}}.
served(#{ref := Ref}, Count, Timeout) ->
    Began = now_ms(),
    served(Ref, Count, Began, Began + Timeout, #{took => 0, refused => 0, cut => 0}).

served(_Ref, 0, Began, _Deadline, Round) ->
    {ok, Round#{took := now_ms() - Began}};
served(Ref, Missing, Began, Deadline, #{refused := Refused, cut := Cut} = Round) ->
    receive
        {Ref, MoreRefused, MoreCut} ->
            served(Ref, Missing - 1, Began, Deadline, Round#{refused := Refused + MoreRefused, cut := Cut + MoreCut})
    after max(0, Deadline - now_ms()) ->
        {error, {missing, Missing}}
    end.

%% All of them hang up.
-spec stop(storm()) -> ok.
stop(#{clients := Clients, ref := Ref}) ->
    Monitors = [begin unlink(Client), exit(Client, kill), monitor(process, Client) end || Client <- Clients],
    [receive {'DOWN', Monitor, process, _, _} -> ok end || Monitor <- Monitors],
    flush(Ref).

%% An attempt over HTTP from one of twenty addresses: served is who gets a 200.
-spec http(inet:port_number(), Number :: pos_integer()) -> {ok, gen_tcp:socket()} | {refused | cut, non_neg_integer()}.
http(Port, Number) ->
    Options = [binary, {active, false}, {ip, {127, 0, 0, 10 + Number rem 20}}],
    case gen_tcp:connect({127, 0, 0, 1}, Port, Options, 60_000) of
        {ok, Socket} ->
            _ = gen_tcp:send(Socket, "GET /peer HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            answer(Socket, gen_tcp:recv(Socket, 0, 60_000));
        {error, _} ->
            {cut, some_time()}
    end.

answer(Socket, {ok, <<"HTTP/1.1 200", _/binary>>}) ->
    {ok, Socket};
answer(Socket, {ok, <<"HTTP/1.1 503", _/binary>> = Answer}) ->
    {match, [Seconds]} = re:run(Answer, "[Rr]etry-[Aa]fter: ([0-9]+)", [{capture, [1], binary}]),
    ok = gen_tcp:close(Socket),
    %% Not all in the same millisecond, which people are not either.
    {refused, binary_to_integer(Seconds) * 1_000 + rand:uniform(1_000)};
answer(Socket, {error, _}) ->
    ok = gen_tcp:close(Socket),
    {cut, some_time()}.

client({Collector, Ref} = To, Number, Attempt, Hold, Refused, Cut) ->
    case Attempt(Number) of
        {ok, Held} ->
            Collector ! {Ref, Refused, Cut},
            _ = Hold(Held),
            client(To, Number, Attempt, Hold, 0, 0);
        {refused, Wait} ->
            receive after Wait -> client(To, Number, Attempt, Hold, Refused + 1, Cut) end;
        {cut, Wait} ->
            receive after Wait -> client(To, Number, Attempt, Hold, Refused, Cut + 1) end
    end.

some_time() -> 500 + rand:uniform(1_000).

flush(Ref) ->
    receive {Ref, _, _} -> flush(Ref) after 0 -> ok end.

now_ms() -> erlang:monotonic_time(millisecond).
