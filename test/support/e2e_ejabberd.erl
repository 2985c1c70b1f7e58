%% An ejabberd node of a test's own, from unpacked Debian packages: no epmd, no distribution but
%% where a cluster is asked for, every file below one directory. The node is an OTP `peer` over its standard
%% input, so it ends with the test run, whatever becomes of that.
-module(e2e_ejabberd).

-export([temporary/0, start/1, stop/1, kill/1, alive/1, call/4, mark_log/1, wait_log/3, wait_log/4, grep_log/2, keep_log/2]).
-export_type([ejabberd/0]).

-type ejabberd() :: #{peer := pid(), os_pid := non_neg_integer(), dir := file:filename()}.
-type options() :: #{version := string(), dir := file:filename(), config := iodata(),
                     %% Erlang distribution, for a cluster: 127.0.0.N, and one port for all nodes.
                     node => {Name :: string(), inet:ip4_address(), inet:port_number()},
                     env => [{string(), string()}],
                     %% What to call in the node before ejabberd starts.
                     before => {module(), atom(), [term()]}}.

-define(HOST, <<"localhost">>).
-define(START_TIMEOUT, 60_000).

%% A directory of its own. It is a short one: the name of a Unix socket has 107 bytes at most,
%% and Common Test's own directories leave nothing of them.
-spec temporary() -> file:filename().
temporary() ->
    Dir = lists:flatten(io_lib:format("/tmp/megaphone-~s-~s",
                                      [os:getpid(), integer_to_list(rand:uniform(1 bsl 32), 36)])),
    ok = file:make_dir(Dir),
    Dir.

%% Starts ejabberd with the accounts alice and bob (passwords alice-pw and bob-pw).
%% Returns when it has started, or what its log says when it would not.
-spec start(options()) -> {ok, ejabberd()} | {error, {Reason :: term(), Log :: binary()}}.
start(#{version := Version, dir := Dir, config := Config} = Options) ->
    ok = filelib:ensure_dir(filename:join([Dir, "mnesia", "file"])),
    ok = file:write_file(config_file(Dir), Config),
    {ok, Peer, _Node} = peer:start(#{connection => standard_io,
                                     exec => erl(Dir), args => arguments(Dir) ++ distribution(Options),
                                     env => env(Version) ++ maps:get(env, Options, []),
                                     wait_boot => ?START_TIMEOUT, peer_down => stop}),
    OsPid = list_to_integer(peer:call(Peer, os, getpid, [])),
    Node = #{peer => Peer, os_pid => OsPid, dir => Dir},
    _ = case Options of
            #{before := {Module, Function, Args}} -> peer:call(Peer, Module, Function, Args);
            _ -> ok
        end,
    case start_ejabberd(Peer) of
        ok ->
            [register_user(Node, User) || User <- ["alice", "bob"]],
            {ok, Node};
        {error, Reason} ->
            stop(Node),
            {error, {Reason, log(Dir)}}
    end.

%% Ends the node in good order; one that does not end in time is killed.
-spec stop(ejabberd()) -> ok.
stop(#{peer := Peer, os_pid := OsPid}) ->
    catch peer:cast(Peer, init, stop, []),
    case e2e_process:wait_gone(OsPid, 20_000) of
        ok -> ok;
        {error, _} -> e2e_process:kill_os_pid(OsPid)
    end,
    catch peer:stop(Peer),
    ok.

%% kill -9.
-spec kill(ejabberd()) -> ok.
kill(#{os_pid := OsPid}) -> e2e_process:kill_os_pid(OsPid).

-spec alive(ejabberd()) -> boolean().
alive(#{os_pid := OsPid}) -> e2e_process:alive(OsPid).

-spec call(ejabberd(), module(), atom(), [term()]) -> term().
call(#{peer := Peer}, Module, Function, Args) ->
    peer:call(Peer, Module, Function, Args, ?START_TIMEOUT).

-spec mark_log(ejabberd()) -> e2e_log:mark().
mark_log(#{dir := Dir} = Node) ->
    %% What was said before is before the mark: the handler writes late.
    ok = call(Node, logger_std_h, filesync, [ejabberd_log]),
    e2e_log:mark(log_file(Dir)).

wait_log(Node, Pattern, Timeout) -> wait_log(Node, 0, Pattern, Timeout).

-spec wait_log(ejabberd(), e2e_log:mark(), Pattern :: iodata(), timeout()) -> {ok, binary()} | {error, term()}.
wait_log(#{dir := Dir}, Mark, Pattern, Timeout) -> e2e_log:wait(log_file(Dir), Mark, Pattern, Timeout).

-spec grep_log(ejabberd(), Pattern :: iodata()) -> [binary()].
grep_log(#{dir := Dir}, Pattern) -> e2e_log:grep(log_file(Dir), Pattern).

%% Puts the log where Common Test shows it, and removes the node's directory.
-spec keep_log(file:filename(), Into :: file:filename()) -> ok.
keep_log(Dir, Into) ->
    [file:copy(File, filename:join(Into, filename:basename(Dir) ++ "." ++ filename:basename(File)))
     || File <- [log_file(Dir), errors_file(Dir)]],
    file:del_dir_r(Dir).

%% A wrong configuration halts the whole node, which ends the call as well.
start_ejabberd(Peer) ->
    try peer:call(Peer, application, ensure_all_started, [ejabberd], ?START_TIMEOUT) of
        {ok, _Started} -> ok;
        {error, _} = Error -> Error
    catch
        _Class:Reason -> {error, Reason}
    end.

%% A node that is started again in its old directory has them already.
register_user(Node, User) ->
    Result = call(Node, ejabberd_auth, try_register,
                  [list_to_binary(User), ?HOST, list_to_binary(User ++ "-pw")]),
    true = lists:member(Result, [ok, {error, exists}]).

%% What the node says outside of its log (a crash, above all) is kept beside it.
erl(Dir) ->
    Erl = os:find_executable("erl"),
    {os:find_executable("sh"), ["-c", "exec \"$0\" \"$@\" 2>>" ++ errors_file(Dir), Erl]}.

arguments(Dir) ->
    ["-pa", e2e_paths:app_ebin(), filename:dirname(code:which(?MODULE)),
     "-ejabberd", "config", term(config_file(Dir)),
     "-ejabberd", "log_path", term(log_file(Dir)),
     "-ejabberd", "quiet", "true",
     "-mnesia", "dir", term(filename:join(Dir, "mnesia"))].

%% Without epmd: each node listens on an address of its own, all on the port that is given here,
%% which is then every node's. <https://www.erlang.org/doc/man/erl.html#erl_epmd_port>
distribution(#{node := {Name, Ip, Port}}) ->
    ["-name", Name ++ "@" ++ inet:ntoa(Ip), "-setcookie", "cluster_of_" ++ os:getpid(),
     "-start_epmd", "false", "-erl_epmd_port", integer_to_list(Port),
     "-kernel", "inet_dist_use_interface", term(Ip)];
distribution(_) -> [].

env(Version) ->
    Libraries = filename:join(e2e_paths:ejabberd(Version), "lib"),
    filelib:is_dir(Libraries) orelse error({not_unpacked, Version, "run scripts/ejabberd " ++ Version}),
    [{"ERL_LIBS", Libraries}, {"ERL_CRASH_DUMP_BYTES", "0"}].

config_file(Dir) -> filename:join(Dir, "ejabberd.yml").

log_file(Dir) -> filename:join(Dir, "ejabberd.log").

errors_file(Dir) -> filename:join(Dir, "stderr").

log(Dir) ->
    case file:read_file(log_file(Dir)) of
        {ok, Text} -> Text;
        {error, enoent} -> <<>>
    end.

term(Text) -> lists:flatten(io_lib:format("~p", [Text])).
