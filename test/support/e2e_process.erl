%% Programs that a test starts: their lines of output are events to wait for, and
%% none of them outlives the test that started it.
-module(e2e_process).

-export([start/3, wait_line/3, wait_exit/2, run/4, kill/1, stop/1, os_pid/1]).
-export([alive/1, kill_os_pid/1, wait_gone/2, children/1, name/1]).
-export_type([process/0]).

%% `none`: it had ended before it could be asked.
-type os_pid() :: non_neg_integer() | none.
-type process() :: #{port := port(), os_pid := os_pid()}.
-type env() :: [{string(), string() | false}].

%% The longest line kept in one piece; a client's 20 kB message is printed by length only.
-define(LONGEST_LINE, 65_536).

-spec start(file:filename(), [string()], env()) -> process().
start(Program, Args, Env) ->
    {Executable, AllArgs} = bound_to_us(executable(Program), Args),
    Port = open_port({spawn_executable, Executable},
                     [{args, AllArgs}, {env, Env}, {line, ?LONGEST_LINE}, binary, exit_status,
                      stderr_to_stdout, use_stdio, hide]),
    OsPid = case erlang:port_info(Port, os_pid) of
                {os_pid, Running} -> Running;
                undefined -> none
            end,
    #{port => Port, os_pid => OsPid}.

-spec os_pid(process()) -> os_pid().
os_pid(#{os_pid := OsPid}) -> OsPid.

%% The first line from now on that matches; the lines before it are given too.
-spec wait_line(process(), Pattern :: iodata(), timeout()) ->
          {ok, Line :: binary(), Before :: [binary()]}
        | {error, {exit, integer(), [binary()]} | {timeout, [binary()]}}.
wait_line(Process, Pattern, Timeout) ->
    lines(Process, fun(Line) -> re:run(Line, Pattern, [unicode]) =/= nomatch end,
          deadline(Timeout), []).

%% Waits for the program's end, as long as `Timeout` at most.
-spec wait_exit(process(), timeout()) ->
          {ok, Status :: integer(), [binary()]} | {error, {timeout, [binary()]}}.
wait_exit(Process, Timeout) ->
    case lines(Process, fun(_) -> false end, deadline(Timeout), []) of
        {error, {exit, Status, Lines}} -> {ok, Status, Lines};
        {error, {timeout, _}} = Error -> Error
    end.

%% Runs a program to its end; one that takes too long is killed.
-spec run(file:filename(), [string()], env(), timeout()) ->
          {ok, Status :: integer(), [binary()]} | {error, {timeout, [binary()]}}.
run(Program, Args, Env, Timeout) ->
    Process = start(Program, Args, Env),
    Result = wait_exit(Process, Timeout),
    stop(Process),
    Result.

%% kill -9, as the kernel's out-of-memory killer would. The exit can still be waited for.
-spec kill(process()) -> ok.
kill(#{os_pid := OsPid}) -> kill_os_pid(OsPid).

%% Ends the program, whatever state it is in.
-spec stop(process()) -> ok.
stop(#{port := Port, os_pid := OsPid}) ->
    case erlang:port_info(Port) of
        undefined ->
            ok;
        _ ->
            kill_os_pid(OsPid),
            catch port_close(Port),
            wait_gone(OsPid, 5_000)
    end.

-spec kill_os_pid(os_pid()) -> ok.
kill_os_pid(none) ->
    ok;
kill_os_pid(OsPid) ->
    _ = os:cmd("kill -KILL " ++ integer_to_list(OsPid)),
    ok.

%% Is there such a process? One that ended and was not yet waited for by its parent is gone.
-spec alive(non_neg_integer()) -> boolean().
alive(OsPid) ->
    case file:read_file(["/proc/", integer_to_list(OsPid), "/stat"]) of
        {ok, Stat} -> state(Stat) =/= $Z;
        {error, _} -> false
    end.

%% Waits for the end of a process that is no child of this node: `tail --pid` watches it.
-spec wait_gone(non_neg_integer(), timeout()) -> ok | {error, {still_running, non_neg_integer()}}.
wait_gone(OsPid, Timeout) ->
    Watch = start("tail", ["--pid=" ++ integer_to_list(OsPid), "-s", "0.05", "-f", "/dev/null"], []),
    case wait_exit(Watch, Timeout) of
        {ok, 0, _} ->
            ok;
        {error, {timeout, _}} ->
            #{port := Port, os_pid := WatchPid} = Watch,
            kill_os_pid(WatchPid),
            catch port_close(Port),
            {error, {still_running, OsPid}}
    end.

%% The program that a process runs, its first 15 bytes; empty when there is no such process.
-spec name(non_neg_integer()) -> binary().
name(OsPid) ->
    case file:read_file(["/proc/", integer_to_list(OsPid), "/comm"]) of
        {ok, Name} -> string:trim(Name);
        {error, _} -> <<>>
    end.

%% All living descendants of a process, for "nothing is left behind".
-spec children(non_neg_integer()) -> [non_neg_integer()].
children(OsPid) ->
    Direct = [list_to_integer(Pid) || Pid <- processes_of(OsPid)],
    Direct ++ lists:flatmap(fun children/1, Direct).

processes_of(OsPid) ->
    [filename:basename(Dir) || Dir <- filelib:wildcard("/proc/[0-9]*"), parent(Dir) =:= OsPid].

parent(Dir) ->
    case file:read_file(filename:join(Dir, "stat")) of
        {ok, Stat} -> binary_to_integer(lists:nth(2, after_name(Stat)));
        {error, _} -> none
    end.

state(Stat) -> binary:first(hd(after_name(Stat))).

%% The second field of /proc/PID/stat is the program's name in brackets and may hold anything.
after_name(Stat) ->
    [_, After] = string:split(Stat, ") ", trailing),
    binary:split(After, <<" ">>, [global]).

lines(#{port := Port} = Process, Wanted, Deadline, Before) ->
    receive
        {Port, {data, {_EolOrNot, Line}}} ->
            case Wanted(Line) of
                true -> {ok, Line, lists:reverse(Before)};
                false -> lines(Process, Wanted, Deadline, [Line | Before])
            end;
        {Port, {exit_status, Status}} ->
            {error, {exit, Status, lists:reverse(Before)}}
    after left(Deadline) ->
        {error, {timeout, lists:reverse(Before)}}
    end.

deadline(infinity) -> infinity;
deadline(Timeout) -> erlang:monotonic_time(millisecond) + Timeout.

left(infinity) -> infinity;
left(Deadline) -> max(0, Deadline - erlang:monotonic_time(millisecond)).

%% Where the system can do that, a program is killed when this node dies, even by kill -9.
bound_to_us(Executable, Args) ->
    case os:find_executable("setpriv") of
        false -> {Executable, Args};
        Setpriv -> {Setpriv, ["--pdeathsig", "KILL", Executable | Args]}
    end.

executable(Program) ->
    case os:find_executable(Program) of
        false -> error({not_installed, Program});
        Path -> Path
    end.
