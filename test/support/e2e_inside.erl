%% Runs inside the ejabberd under test: what can be waited for or counted only there.
-module(e2e_inside).

-export([wait_down/2, kill_sender/0, count_opens/0, opens/0]).
-export([processes_of_users/0, end_users/0, shrink_all_the_time/0, stop_shrinking/1]).

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

is_sender(Pid) -> element(1, proc_lib:initial_call(Pid)) =:= megaphone_sender.

%% From now on each connection that an edge opens here is noted with its time. A call of
%% megaphone's is traced, so that nothing depends on what a log drops in a storm.
-spec count_opens() -> ok.
count_opens() ->
    _ = [{module, _} = code:ensure_loaded(Module)
         || Module <- [megaphone_greeter, megaphone_service, megaphone_http_request]],
    Caller = self(),
    Pid = spawn(fun() ->
                        true = register(?MODULE, self()),
                        _ = erlang:trace(all, true, [call, monotonic_timestamp]),
                        1 = erlang:trace_pattern({megaphone_greeter, start, 3}, true, [local]),
                        1 = erlang:trace_pattern({megaphone_service, offer, 2}, true, [local]),
                        1 = erlang:trace_pattern({megaphone_http_request, adopt, 4}, true, [local]),
                        Caller ! {self(), ready},
                        count([])
                end),
    receive {Pid, ready} -> ok end.

count(Times) ->
    receive
        {trace_ts, _, call, {Module, _, _}, Time} ->
            count([{erlang:convert_time_unit(Time, native, millisecond), Module} | Times]);
        {opens, From, Ref} ->
            From ! {Ref, lists:sort(Times)},
            count(Times)
    end.

%% When an edge dialled last, before it can have opened any, and when each was opened since then, in
%% order: milliseconds of the node's monotonic clock.
-spec opens() -> {Dialled :: integer(), [integer()]}.
opens() ->
    Ref = make_ref(),
    ?MODULE ! {opens, self(), Ref},
    Times = receive {Ref, Noted} -> Noted end,
    Dialled = lists:max([Time || {Time, megaphone_greeter} <- Times]),
    {Dialled, [Time || {Time, Module} <- Times, Module =/= megaphone_greeter, Time >= Dialled]}.

%% The processes of users' sessions: what they are, the bytes they take and whether they hibernate.
-spec processes_of_users() -> [{module(), Bytes :: non_neg_integer(), boolean()}].
processes_of_users() ->
    [{Module, Bytes, Function =:= {erlang, hibernate, 3}}
     || Pid <- processes(),
        {Module, _, _} <- [proc_lib:initial_call(Pid)],
        megaphone_shrink:is_kind(Module),
        [{memory, Bytes}, {current_function, Function}] <- [process_info(Pid, [memory, current_function])]].

%% Ends their sessions; of BOSH nobody else would for half a minute.
-spec end_users() -> ok.
end_users() ->
    Pids = [Pid || Pid <- processes(), {Module, _, _} <- [proc_lib:initial_call(Pid)],
                   megaphone_shrink:is_kind(Module)],
    Ends = [begin
                Ref = monitor(process, Pid),
                exit(Pid, kill),
                Ref
            end || Pid <- Pids],
    [receive {'DOWN', Ref, process, _, _} -> ok end || Ref <- Ends],
    ok.

%% Tells all of them to become small, over and over.
-spec shrink_all_the_time() -> pid().
shrink_all_the_time() ->
    Nobody = spawn(fun() -> ok end),
    spawn(fun() -> shrink(Nobody, 0) end).

shrink(Nobody, Told) ->
    Pids = [Pid || Pid <- processes(), {Module, _, _} <- [proc_lib:initial_call(Pid)],
                   megaphone_shrink:is_kind(Module)],
    [Pid ! megaphone_shrink:message(Nobody) || Pid <- Pids],
    receive {stop, From, Ref} -> From ! {Ref, Told}
    after 1 -> shrink(Nobody, Told + length(Pids))
    end.

%% How often it told one.
-spec stop_shrinking(pid()) -> non_neg_integer().
stop_shrinking(Pid) ->
    Ref = make_ref(),
    Pid ! {stop, self(), Ref},
    receive {Ref, Told} -> Told end.
