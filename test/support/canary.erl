%% The canary with all that it flies through: a service that echoes, behind
%% megaphone:listen/2 in this node, and a real ECM. Every byte of its clients says where it
%% belongs (native/canary).
-module(canary).

-export([service/1, service/2, echo/1, service_port/1, idle/1, stop/1]).
-export([start_ecm/2, ecm_log/1, stop_ecm/1]).
-export([fly/3, figure/2]).
-export_type([service/0, ecm/0, report/0]).

-type service() :: #{pid := pid(), port := inet:port_number()}.
-type ecm() :: #{process := e2e_process:process(), log := file:filename()}.
-type report() :: #{status := integer(), json := binary(), lines := [binary()], log := file:filename()}.

-define(LOOPBACK, {127, 0, 0, 1}).
-define(TIMEOUT, 10_000).
%% What every fault must have been noticed in, beside the time that the canary was given.
-define(MORE_TIME, 120_000).
%% A `late' echo holds back what came for so long.
-define(LATE, 20).
-define(ACCEPTORS, 4).

%% ---- the service ----

%% A service that echoes. Options are those of megaphone:listen/2.
-spec service([megaphone:listen_option()]) -> service().
service(Options) -> service(Options, fun echo/1).

%% `Serve' is called for each connection, in a process that owns it.
-spec service([megaphone:listen_option()], fun((megaphone:socket()) -> term())) -> service().
service(Options, Serve) ->
    {ok, _} = application:ensure_all_started(megaphone),
    Self = self(),
    {Pid, Monitor} = spawn_monitor(fun() -> init_service(Self, Options, Serve) end),
    receive
        {Pid, Port} -> demonitor(Monitor, [flush]), #{pid => Pid, port => Port};
        {'DOWN', Monitor, process, Pid, Why} -> error({service, Why})
    end.

-spec service_port(service()) -> inet:port_number().
service_port(#{port := Port}) -> Port.

%% Waits until no connection is open: the end of each has come through.
-spec idle(service()) -> ok.
idle(Service) -> call(Service, idle).

-spec stop(service()) -> ok.
stop(Service) -> call(Service, stop).

call(#{pid := Pid}, What) ->
    Ref = monitor(process, Pid),
    Pid ! {What, self(), Ref},
    receive
        {Ref, Answer} -> demonitor(Ref, [flush]), Answer;
        {'DOWN', Ref, process, _, Why} -> error({service, Why})
    after ?TIMEOUT ->
        error({service, What, timeout, process_info(Pid, messages)})
    end.

init_service(Parent, Options, Serve) ->
    Watch = monitor(process, Parent),
    {ok, Listen} = megaphone:listen(0, [binary, {ip, ?LOOPBACK}, {active, false},
                                        {exit_on_close, false}, {backlog, 65_536} | Options]),
    {ok, Port} = inet:port(Listen),
    Self = self(),
    _ = [spawn_link(fun() -> accept(Self, Listen, Serve) end) || _ <- lists:seq(1, ?ACCEPTORS)],
    Parent ! {Self, Port},
    serve(Listen, Watch, #{}, []).

%% Open: monitors of the processes that serve. Waiting: who asked for idle.
serve(Listen, Watch, Open, Waiting) ->
    receive
        {serving, Pid} ->
            serve(Listen, Watch, Open#{monitor(process, Pid) => []}, Waiting);
        {idle, Pid, Ref} ->
            serve(Listen, Watch, Open, tell_idle(Open, [{Pid, Ref} | Waiting]));
        {stop, Pid, Ref} ->
            gen_tcp:close(Listen),
            Pid ! {Ref, ok};
        {'DOWN', Watch, process, _, _} ->
            gen_tcp:close(Listen);
        %% noproc: it had done its work before it was known here.
        {'DOWN', Monitor, process, _, Why} when Why =:= normal; Why =:= noproc ->
            Left = maps:remove(Monitor, Open),
            serve(Listen, Watch, Left, tell_idle(Left, Waiting));
        {'DOWN', _, process, _, Why} ->
            exit({serving, Why})
    end.

tell_idle(Open, Waiting) when map_size(Open) =:= 0 ->
    _ = [Pid ! {Ref, ok} || {Pid, Ref} <- Waiting],
    [];
tell_idle(_, Waiting) -> Waiting.

accept(Service, Listen, Serve) ->
    case gen_tcp:accept(Listen) of
        {ok, Socket} ->
            Pid = spawn(fun() -> receive go -> Serve(Socket) end end),
            Service ! {serving, Pid},
            _ = gen_tcp:controlling_process(Socket, Pid),
            Pid ! go,
            accept(Service, Listen, Serve);
        {error, closed} ->
            ok
    end.

%% Echoes until the client's end, then closes. Each way to read has its own code in the
%% socket, so connections take one each.
-spec echo(megaphone:socket()) -> term().
echo(Socket) ->
    case rand:uniform(5) of
        1 -> passive(Socket, gen_tcp:recv(Socket, 0));
        2 -> exact(Socket);
        3 -> late(Socket, []);
        4 -> active(Socket, once);
        5 -> active(Socket, 3)
    end.

passive(Socket, {ok, Bytes}) ->
    case gen_tcp:send(Socket, Bytes) of
        ok -> passive(Socket, gen_tcp:recv(Socket, 0));
        {error, _} -> gen_tcp:close(Socket)
    end;
passive(Socket, {error, _}) -> gen_tcp:close(Socket).

%% The first byte by itself. (A longer length would never be had of an end that is shorter.)
exact(Socket) ->
    case gen_tcp:recv(Socket, 1) of
        {ok, First} ->
            _ = gen_tcp:send(Socket, First),
            rest(Socket, gen_tcp:recv(Socket, 0, 0));
        {error, _} ->
            gen_tcp:close(Socket)
    end.

rest(Socket, {ok, Bytes}) ->
    _ = gen_tcp:send(Socket, Bytes),
    exact(Socket);
rest(Socket, {error, timeout}) -> exact(Socket);
rest(Socket, {error, _}) -> gen_tcp:close(Socket).

%% The last bytes are sent after the client's end.
late(Socket, Held) ->
    case gen_tcp:recv(Socket, 0, ?LATE) of
        {ok, Bytes} ->
            _ = gen_tcp:send(Socket, Held),
            late(Socket, Bytes);
        {error, timeout} when Held =/= [] ->
            _ = gen_tcp:send(Socket, Held),
            late(Socket, []);
        {error, timeout} ->
            passive_late(Socket, gen_tcp:recv(Socket, 0));
        {error, _} ->
            _ = gen_tcp:send(Socket, Held),
            gen_tcp:close(Socket)
    end.

passive_late(Socket, {ok, Bytes}) -> late(Socket, Bytes);
passive_late(Socket, {error, _}) -> gen_tcp:close(Socket).

active(Socket, Mode) ->
    _ = inet:setopts(Socket, [{active, Mode}]),
    in_turn(Socket, Mode).

in_turn(Socket, Mode) ->
    receive
        {tcp, Socket, Bytes} ->
            _ = gen_tcp:send(Socket, Bytes),
            case Mode of
                once -> active(Socket, once);
                _ -> in_turn(Socket, Mode)
            end;
        {tcp_passive, Socket} -> active(Socket, Mode);
        {tcp_closed, Socket} -> gen_tcp:close(Socket);
        {tcp_error, Socket, _} -> in_turn(Socket, Mode)
    end.

%% ---- the ECM ----

%% Backends: TOML. More: TOML for the top; what is there replaces what stands here.
-spec start_ecm(iodata(), #{dir := file:filename(), ports := [inet:port_number()],
                            top => [{atom(), iodata()}]}) -> ecm().
start_ecm(Backends, #{dir := Dir, ports := Ports} = Options) ->
    Name = filename:join(Dir, "ecm-" ++ integer_to_list(erlang:unique_integer([positive]))),
    Top = maps:merge(#{name => "\"canary\"", resume_timeout => "\"30s\"", heartbeat => "\"500ms\"",
                       %% No link for a while is no reason to refuse anybody here.
                       connect_wait => "\"1m\"", max_waiting => "100000"},
                     maps:from_list(maps:get(top, Options, []))),
    Config = Name ++ ".toml",
    Log = Name ++ ".log",
    ok = file:write_file(Config,
                         [[[atom_to_list(Key), " = ", Value, "\n"] || {Key, Value} <- maps:to_list(Top)],
                          Backends,
                          [["[[listeners]]\nlisten = \"", address(Port), "\"\n"
                            "service = \"default\"\nkind = \"tcp\"\nbacklog = 4096\n"] || Port <- Ports],
                          "[log]\nlevel = \"debug\"\n"]),
    ok = file:write_file(Log, <<>>),
    Process = e2e_process:start("sh", ["-c", "exec \"$0\" --config \"$1\" 2>>\"$2\"",
                                       e2e_paths:ecm(), Config, Log], []),
    #{process => Process, log => Log}.

-spec ecm_log(ecm()) -> file:filename().
ecm_log(#{log := Log}) -> Log.

-spec stop_ecm(ecm()) -> ok.
stop_ecm(#{process := Process}) -> e2e_process:stop(Process).

%% ---- the flight ----

%% Runs the canary to its end. `Start' starts the ECM when the addresses of the proxies,
%% one before each node, are known, and the port on which the clients will dial it.
-spec fly(Arguments :: [{string(), integer()}], Nodes :: [inet:port_number()],
          fun(([Proxy :: string()], Ecm :: inet:port_number()) -> ecm())) -> {report(), ecm()}.
fly(Arguments, Nodes, Start) ->
    Port = e2e_port:free(),
    Process = e2e_process:start(e2e_paths:canary(),
                                ["--ecm", address(Port)]
                                ++ lists:append([["--node", address(Node)] || Node <- Nodes])
                                ++ lists:append([[Name, integer_to_list(Value)] || {Name, Value} <- Arguments]), []),
    Proxies = [proxy(Process) || _ <- Nodes],
    Ecm = Start(Proxies, Port),
    Seconds = proplists:get_value("--seconds", Arguments),
    {Status, Lines} = told(Process, Seconds * 1000 + ?MORE_TIME, []),
    Json = case lists:reverse(Lines) of [Last | _] -> Last; [] -> <<>> end,
    {#{status => Status, json => Json, lines => Lines, log => ecm_log(Ecm)}, Ecm}.

proxy(Process) ->
    {ok, Line, Before} = e2e_process:wait_line(Process, "^proxy ", ?TIMEOUT),
    _ = [tell(Said) || Said <- Before ++ [Line]],
    {match, [Address]} = re:run(Line, "^proxy ([^ ]*) ", [{capture, [1], list}]),
    Address.

told(Process, Timeout, Lines) ->
    case e2e_process:wait_line(Process, "", Timeout) of
        {ok, Line, []} -> tell(Line), told(Process, Timeout, [Line | Lines]);
        {error, {exit, Status, []}} -> {Status, lists:reverse(Lines)};
        {error, Why} -> error({canary, Why, lists:reverse(Lines)})
    end.

tell(Line) ->
    ct:log("~ts", [Line]),
    os:getenv("SOAK") =/= false andalso io:format(user, "    ~ts~n", [Line]).

%% A number of the report, or of the canary's own last line.
-spec figure(atom(), report() | binary()) -> non_neg_integer().
figure(Name, #{json := Json}) -> figure(Name, Json);
figure(Name, Json) ->
    {match, [Text]} = re:run(Json, ["\"", atom_to_list(Name), "\":([0-9]+)"], [{capture, [1], binary}]),
    binary_to_integer(Text).

address(Port) -> "127.0.0.1:" ++ integer_to_list(Port).
