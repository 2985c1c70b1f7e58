%% A megaphone-ecm of a test's own, a daemon as an administrator would run it, with its log in a
%% file that can be waited on as often as needed.
-module(e2e_ecm).

-export([start/1, stop/1, terminate/1, kill/1, mark/1, wait/2, wait/3, wait/4, grep/2, since/2, up/1]).
-export_type([ecm/0, options/0]).

-type options() :: #{dir := file:filename(),                % its files are made here
                     name := string(),
                     backends := [inet:port_number()],      % link listeners on 127.0.0.1
                     http => inet:port_number(),            % where clients come in
                     c2s => inet:port_number(),
                     top => iodata(),                       % TOML before the first table
                     backend => iodata(),                   % TOML of each backend
                     log => file:filename(),                % instead of one in `dir`
                     level => string(),                     % of its log
                     env => [{string(), string()}]}.
-type ecm() :: #{process := e2e_process:process(), log := file:filename(), links := pos_integer(), atom() => term()}.

-define(TIMEOUT, 20_000).

%% Returns when it listens. Its links come up when they can, see up/1.
-spec start(options()) -> ecm().
start(#{dir := Dir, name := Name, backends := Backends} = Options) ->
    File = filename:join(Dir, Name ++ ".toml"),
    Log = maps:get(log, Options, filename:join(Dir, Name ++ ".log")),
    ok = file:write_file(File, config(Options)),
    Mark = e2e_log:mark(Log),
    Process = e2e_process:start("sh", ["-c", "exec \"$0\" --config \"$1\" 2>>\"$2\"", e2e_paths:ecm(), File, Log],
                                maps:get(env, Options, [])),
    Ecm = #{process => Process, log => Log, mark => Mark, links => length(Backends)},
    _ = [{ok, _} = wait(Ecm, Mark, ["listening on 127\\.0\\.0\\.1:", integer_to_list(Port)], ?TIMEOUT)
         || {Port, _, _} <- listeners(Options), filelib:is_regular(Log)],
    Ecm.

%% Waits until each of its links has come up once.
-spec up(ecm()) -> ok.
up(#{links := Links, mark := Mark} = Ecm) ->
    _ = [{ok, _} = wait(Ecm, Mark, ["link ", integer_to_list(N), " up to"], ?TIMEOUT) || N <- lists:seq(1, Links)],
    ok.

%% SIGKILL.
-spec stop(ecm()) -> ok.
stop(#{process := Process}) -> e2e_process:stop(Process).

%% SIGKILL too, but its end can still be waited for.
-spec kill(ecm()) -> ok.
kill(#{process := Process}) -> e2e_process:kill(Process).

%% SIGTERM.
-spec terminate(ecm()) -> ok.
terminate(#{process := Process}) ->
    _ = os:cmd("kill -TERM " ++ integer_to_list(e2e_process:os_pid(Process))),
    ok.

-spec mark(ecm()) -> e2e_log:mark().
mark(#{log := Log}) -> e2e_log:mark(Log).

wait(Ecm, Pattern) -> wait(Ecm, 0, Pattern, ?TIMEOUT).

wait(Ecm, Mark, Pattern) -> wait(Ecm, Mark, Pattern, ?TIMEOUT).

-spec wait(ecm(), e2e_log:mark(), Pattern :: iodata(), timeout()) -> {ok, binary()} | {error, term()}.
wait(#{log := Log}, Mark, Pattern, Timeout) -> e2e_log:wait(Log, Mark, Pattern, Timeout).

-spec grep(ecm(), Pattern :: iodata()) -> [binary()].
grep(#{log := Log}, Pattern) -> e2e_log:grep(Log, Pattern).

-spec since(ecm(), e2e_log:mark()) -> binary().
since(#{log := Log}, Mark) -> e2e_log:since(Log, Mark).

config(#{name := Name, backends := Backends} = Options) ->
    ["name = \"", Name, "\"\n", maps:get(top, Options, ""),
     [[table(Backends), "address = \"127.0.0.1:", integer_to_list(Port), "\"\n",
       maps:get(backend, Options, "reconnect_min = \"50ms\"\nreconnect_max = \"500ms\"\n")]
      || Port <- Backends],
     [["[[listeners]]\nlisten = \"127.0.0.1:", integer_to_list(Port), "\"\nservice = \"", Service,
       "\"\nkind = \"", Kind, "\"\n"] || {Port, Service, Kind} <- listeners(Options)],
     "[log]\nlevel = \"", maps:get(level, Options, "info"), "\"\n"].

table([_]) -> "[backend]\n";
table(_) -> "[[backends]]\n".

listeners(Options) ->
    [{maps:get(Key, Options), Service, Kind}
     || {Key, Service, Kind} <- [{http, "http", "http"}, {c2s, "c2s", "tcp"}], is_map_key(Key, Options)].
