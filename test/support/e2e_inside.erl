%% Runs inside the ejabberd under test: what can be waited for or counted only there.
-module(e2e_inside).

-export([wait_down/2, kill_sender/0, count_opens/0, opens/0]).

%% Waits for a process's end: its reason.
-spec wait_down(pid(), timeout()) -> {ok, Reason :: term()} | {error, still_there}.
wait_down(Pid, Timeout) ->
    Ref = monitor(process, Pid),
    receive
        {'DOWN', Ref, process, Pid, Reason} -> {ok, Reason}
    after Timeout ->
        demonitor(Ref, [flush]),
        {error, still_there}
    end.

%% Kills the one process that writes to the only link.
-spec kill_sender() -> true.
kill_sender() ->
    [{Receiver, _Info}] = megaphone:links(),
    {links, Linked} = process_info(Receiver, links),
    [Sender] = [Pid || Pid <- Linked, is_pid(Pid), is_sender(Pid)],
    exit(Sender, kill).

is_sender(Pid) ->
    case process_info(Pid, current_function) of
        {current_function, {megaphone_sender, _, _}} -> true;
        _ -> false
    end.

%% From now on each connection that an edge opens here is noted with its time. A call of
%% megaphone's is traced, so that nothing depends on what a log drops in a storm.
-spec count_opens() -> ok.
count_opens() ->
    {module, _} = code:ensure_loaded(megaphone_service),
    Caller = self(),
    Pid = spawn(fun() ->
                        true = register(?MODULE, self()),
                        _ = erlang:trace(all, true, [call, monotonic_timestamp]),
                        1 = erlang:trace_pattern({megaphone_service, offer, 2}, true, [local]),
                        Caller ! {self(), ready},
                        count([])
                end),
    receive {Pid, ready} -> ok end.

count(Times) ->
    receive
        {trace_ts, _, call, {megaphone_service, offer, _}, Time} ->
            count([erlang:convert_time_unit(Time, native, millisecond) | Times]);
        {opens, From, Ref} ->
            From ! {Ref, lists:reverse(Times)},
            count(Times)
    end.

%% When each was opened, in milliseconds of the node's monotonic clock, in order.
-spec opens() -> [integer()].
opens() ->
    Ref = make_ref(),
    ?MODULE ! {opens, self(), Ref},
    receive {Ref, Times} -> Times end.
