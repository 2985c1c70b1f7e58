%% @doc The edge connection manager on this machine, as a port program.
%%
%% Runs `megaphone-ecm --port-program', writes its configuration to it, relays
%% its log into ours, and starts it again when it ends. The program ends when
%% its stdin does, so it goes with this process, with the application, and with
%% the emulator, be it by `kill -9'.
-module(megaphone_edge).
-behaviour(gen_server).

%% megaphone_listener_sup
-export([start_link/1]).
%% megaphone_link, megaphone_listener
-export([os_pid/1, info/1]).
%% gen_server
-export([init/1, handle_continue/2, handle_call/3, handle_cast/2, handle_info/2,
         terminate/2]).

-export_type([config/0, info/0]).

-include_lib("kernel/include/file.hrl").
-include_lib("kernel/include/logger.hrl").

%% The `ecm:' section as megaphone_options has checked it, with what the
%% listener adds: the socket to dial and each service's kind.
-type config() :: #{name := binary(),
                    tree => pid(),              % the listener's
                    socket := binary(),
                    owner := pid(),             % of the listen socket
                    log_level := error | warn | info | debug,
                    listeners := [#{ip := inet:ip_address(), port := inet:port_number(),
                                    service := binary(), kind := http | tcp,
                                    backlog => pos_integer(),
                                    send_buffer => pos_integer()}],
                    command => binary(),
                    atom() => term()}.

-type file_id() :: {Device :: integer(), Inode :: integer(), Changed :: integer()}.

-type info() :: #{name := binary(), os_pid := non_neg_integer() | undefined,
                  starts := non_neg_integer()}.

%% The first pause before the program is started again, in milliseconds; it
%% doubles with each end that follows soon, up to the longest.
-define(PAUSE_MIN, 200).
-define(PAUSE_MAX, 30000).
%% Who ran so long, in milliseconds, ended for a new reason.
-define(STEADY, 60000).
%% The longest line of log, in bytes; a longer one comes in pieces.
-define(LINE_MAX, 8192).
%% How long the program may take to be gone, in milliseconds, and how often
%% that is looked at: the kernel tells nobody who is not its parent.
-define(GONE_MAX, 5000).
-define(GONE_STEP, 5).
%% How long a look at who listens on the socket file may take, in milliseconds.
-define(PROBE_TIMEOUT, 1000).
%% The program's exit status when its configuration is wrong: trying again at
%% once is of no use.
-define(BAD_CONFIG, 2).

-record(state, {config :: config(),
                %% What the socket file is, to remove no other.
                file :: file_id() | undefined,
                port :: port() | undefined,
                os_pid :: non_neg_integer() | undefined,
                started = 0 :: integer(),
                starts = 0 :: non_neg_integer(),
                pause = ?PAUSE_MIN :: pos_integer(),
                line = [] :: iodata()}).

-spec start_link(config()) -> {ok, pid()} | {error, term()}.
start_link(Config) ->
    gen_server:start_link(?MODULE, Config, []).

%% @doc The program's process id, as the kernel knows it.
-spec os_pid(pid()) -> {ok, non_neg_integer()} | {error, closed}.
os_pid(Edge) ->
    case info(Edge) of
        #{os_pid := Pid} when is_integer(Pid) -> {ok, Pid};
        _ -> {error, closed}
    end.

-spec info(pid()) -> info() | undefined.
info(Edge) ->
    try gen_server:call(Edge, info)
    catch exit:_ -> undefined
    end.

%%% gen_server

init(#{socket := Socket} = Config) ->
    process_flag(trap_exit, true),              % the port's end, and terminate/2
    {ok, #state{config = Config, file = file_id(Socket)}, {continue, start}}.

handle_continue(start, State) ->
    {noreply, start(State)}.

handle_call(info, _From, #state{config = #{name := Name}} = State) ->
    {reply, #{name => Name, os_pid => State#state.os_pid, starts => State#state.starts},
     State}.

handle_cast(_Other, State) ->
    {noreply, State}.

handle_info({Port, {data, {noeol, Part}}}, #state{port = Port, line = Line} = State) ->
    {noreply, long_line(State#state{line = [Line, Part]})};
handle_info({Port, {data, {eol, Part}}}, #state{port = Port, line = Line} = State) ->
    {noreply, relay([Line, Part], State)};
handle_info({Port, {exit_status, Status}}, #state{port = Port} = State) ->
    {noreply, ended(Status, State)};
%% It took its configuration no more, and nothing else will say so.
handle_info({'EXIT', Port, Reason}, #state{port = Port} = State) ->
    {noreply, ended(Reason, State)};
handle_info(start, #state{port = undefined} = State) ->
    {noreply, start(State)};
handle_info(_Other, State) ->                   % the 'EXIT' of a port that ended
    {noreply, State}.

terminate(_Reason, State) ->
    stop(State),
    remove_socket(State).

%%% The program

start(#state{config = #{name := Name} = Config, starts = Starts} = State) ->
    Command = command(Config),
    try open(Command, Config) of
        {Port, Pid} ->
            ?LOG_INFO("ECM ~ts started as process ~w: ~ts", [Name, Pid, Command]),
            State#state{port = Port, os_pid = Pid, starts = Starts + 1,
                        started = erlang:monotonic_time(millisecond)}
    catch
        error:Reason ->
            ?LOG_ERROR("ECM ~ts cannot be started: ~ts: ~ts; trying again in ~ts. "
                       "`make build` builds it; 'command' of 'ecm' names another",
                       [Name, Command, file:format_error(Reason), seconds(?PAUSE_MAX)]),
            again(?PAUSE_MAX, State)
    end.

command(#{command := Command}) ->
    Command;
command(#{}) ->
    filename:join(priv_dir(), "megaphone-ecm").

%% An application that ejabberd loads from a plain directory of beams has no
%% library directory that `code:priv_dir/1' knows, so look beside the beams.
priv_dir() ->
    case code:priv_dir(megaphone) of
        {error, bad_name} ->
            Ebin = filename:dirname(filename:absname(code:which(?MODULE))),
            filename:join(filename:dirname(Ebin), "priv");
        Dir ->
            Dir
    end.

open(Command, #{socket := Socket} = Config) ->
    Toml = megaphone_toml:ecm(Config, Socket),
    Port = open_port({spawn_executable, Command},
                     [{args, ["--port-program"]}, {line, ?LINE_MAX}, binary,
                      use_stdio, stderr_to_stdout, exit_status, hide]),
    %% One that has ended already says so in a message of its port's.
    _ = try port_command(Port, [<<(byte_size(Toml)):32>>, Toml])
        catch error:badarg -> false
        end,
    case erlang:port_info(Port, os_pid) of
        {os_pid, Pid} -> {Port, Pid};
        undefined -> {Port, undefined}
    end.

ended(Status, #state{port = Port, config = #{name := Name}} = State) ->
    Ran = erlang:monotonic_time(millisecond) - State#state.started,
    Pause = pause(Status, Ran, State),
    ?LOG_ERROR("ECM ~ts ended after ~ts: ~ts; starting it again in ~ts",
               [Name, seconds(Ran), status(Status), seconds(Pause)]),
    _ = close(Port),
    _ = [megaphone_listener:ecm_ended(Tree) || #{tree := Tree} <- [State#state.config]],
    again(Pause, flush(State#state{port = undefined, os_pid = undefined,
                                   pause = min(Pause * 2, ?PAUSE_MAX)})).

pause(?BAD_CONFIG, _Ran, _State) -> ?PAUSE_MAX;
pause(_Status, Ran, _State) when Ran >= ?STEADY -> ?PAUSE_MIN;
pause(_Status, _Ran, #state{pause = Pause}) -> Pause.

again(Pause, State) ->
    _ = erlang:send_after(Pause, self(), start),
    State.

%% Of 128 and more the rest is a signal's number, as in a shell. Where its port ended before it, why.
status(Reason) when not is_integer(Reason) -> file:format_error(Reason);
status(Status) when Status > 128 -> io_lib:format("killed by signal ~b", [Status - 128]);
status(?BAD_CONFIG) -> "exit status 2, its configuration is wrong";
status(Status) -> io_lib:format("exit status ~b", [Status]).

seconds(Ms) ->
    io_lib:format("~.1f s", [Ms / 1000]).

stop(#state{port = undefined}) ->
    ok;
stop(#state{port = Port, os_pid = Pid, config = #{name := Name}}) ->
    true = close(Port),
    %% The next one wants the same client ports, so wait until they are free.
    case await_gone(Pid, erlang:monotonic_time(millisecond) + ?GONE_MAX) of
        ok -> ?LOG_INFO("ECM ~ts stopped", [Name]);
        timeout -> ?LOG_WARNING("ECM ~ts (process ~b) still runs ~b ms after it was stopped",
                                [Name, Pid, ?GONE_MAX])
    end.

close(Port) ->
    try port_close(Port)
    catch error:badarg -> true
    end.

await_gone(undefined, _Deadline) ->
    ok;
await_gone(Pid, Deadline) ->
    Proc = filename:join("/proc", integer_to_list(Pid)),
    case filelib:is_dir(Proc) of
        false ->
            ok;
        true ->
            case erlang:monotonic_time(millisecond) < Deadline of
                true -> receive after ?GONE_STEP -> await_gone(Pid, Deadline) end;
                false -> timeout
            end
    end.

%% ejabberd leaves the socket file of a listener that it stops. After a reload
%% there may be a new one of the same name already, with the same inode even.
remove_socket(#state{file = undefined}) ->
    ok;
remove_socket(#state{file = File, config = #{socket := Socket} = Config}) ->
    case file_id(Socket) =:= File andalso is_stale(Socket, Config) of
        true -> _ = file:delete(Socket), ok;
        false -> ok
    end.

%% While the owner lives, the file is its own. After that, it is a new one's if
%% somebody listens on it.
is_stale(Socket, #{owner := Owner}) ->
    is_process_alive(Owner)
        orelse {error, econnrefused} =:= gen_tcp:connect({local, Socket}, 0, [],
                                                         ?PROBE_TIMEOUT).

file_id(Socket) ->
    case file:read_link_info(Socket, [{time, posix}]) of
        {ok, #file_info{major_device = Device, inode = Inode, ctime = Changed}} ->
            {Device, Inode, Changed};
        {error, _} ->
            undefined
    end.

%%% Its log

long_line(#state{line = Line} = State) ->
    case iolist_size(Line) < ?LINE_MAX of
        true -> State;
        false -> relay(Line, State)
    end.

flush(#state{line = []} = State) -> State;
flush(#state{line = Line} = State) -> relay(Line, State).

relay(Line, #state{config = #{name := Name}} = State) ->
    {Level, Message} = level(iolist_to_binary(Line)),
    ?LOG(Level, "ECM ~ts: ~ts", [Name, printable(Message)]),
    State#state{line = []}.

level(<<"error ", Message/binary>>) -> {error, Message};
level(<<"warn ", Message/binary>>) -> {warning, Message};
level(<<"info ", Message/binary>>) -> {info, Message};
level(<<"debug ", Message/binary>>) -> {debug, Message};
level(Message) -> {warning, Message}.           % a panic, a dynamic linker

printable(Message) ->
    case unicode:characters_to_list(Message) of
        Text when is_list(Text) -> Text;
        _ -> binary_to_list(Message)
    end.
