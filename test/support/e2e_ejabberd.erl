%% An ejabberd node of a test's own, from unpacked Debian packages: no distribution,
%% no epmd, every file below one directory. The node is an OTP `peer` over its standard
%% input, so it ends with the test run, whatever becomes of that.
-module(e2e_ejabberd).

-export([start/1, stop/1, kill/1, call/4, log_file/1, wait_log/3, grep_log/2]).
-export_type([ejabberd/0]).

-type ejabberd() :: #{peer := pid(), os_pid := non_neg_integer(), dir := file:filename()}.
-type options() :: #{version := string(), dir := file:filename(), config := iodata(),
                     users => [{User :: string(), Password :: string()}]}.

-define(HOST, <<"localhost">>).
-define(START_TIMEOUT, 60_000).

%% Returns when ejabberd has started, or what its log says when it would not.
-spec start(options()) -> {ok, ejabberd()} | {error, {Reason :: term(), Log :: binary()}}.
start(#{version := Version, dir := Dir, config := Config} = Options) ->
    ok = filelib:ensure_dir(filename:join([Dir, "mnesia", "file"])),
    ok = file:write_file(config_file(Dir), Config),
    {ok, Peer, _Node} = peer:start(#{connection => standard_io, name => undefined,
                                     args => arguments(Version, Dir), env => env(Version),
                                     wait_boot => ?START_TIMEOUT, peer_down => stop}),
    OsPid = list_to_integer(peer:call(Peer, os, getpid, [])),
    Node = #{peer => Peer, os_pid => OsPid, dir => Dir},
    case start_ejabberd(Peer) of
        ok ->
            [ok = register_user(Node, User) || User <- maps:get(users, Options, [])],
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

-spec call(ejabberd(), module(), atom(), [term()]) -> term().
call(#{peer := Peer}, Module, Function, Args) ->
    peer:call(Peer, Module, Function, Args, ?START_TIMEOUT).

-spec log_file(ejabberd()) -> file:filename().
log_file(#{dir := Dir}) -> log_name(Dir).

-spec wait_log(ejabberd(), Pattern :: iodata(), timeout()) -> {ok, binary()} | {error, term()}.
wait_log(Node, Pattern, Timeout) -> e2e_log:wait(log_file(Node), Pattern, Timeout).

-spec grep_log(ejabberd(), Pattern :: iodata()) -> [binary()].
grep_log(Node, Pattern) -> e2e_log:grep(log_file(Node), Pattern).

%% A wrong configuration halts the whole node, which ends the call as well.
start_ejabberd(Peer) ->
    try peer:call(Peer, application, ensure_all_started, [ejabberd], ?START_TIMEOUT) of
        {ok, _Started} -> ok;
        {error, _} = Error -> Error
    catch
        _Class:Reason -> {error, Reason}
    end.

register_user(Node, {User, Password}) ->
    call(Node, ejabberd_auth, try_register,
         [list_to_binary(User), ?HOST, list_to_binary(Password)]).

arguments(Version, Dir) ->
    Libraries = libraries(Version),
    filelib:is_dir(Libraries) orelse error({not_unpacked, Version, "run scripts/ejabberd " ++ Version}),
    ["-pa", e2e_paths:app_ebin(), filename:dirname(code:which(?MODULE))]
        ++ ["-ejabberd", "config", term(config_file(Dir)),
            "-ejabberd", "log_path", term(log_name(Dir)),
            "-ejabberd", "quiet", "true",
            "-mnesia", "dir", term(filename:join(Dir, "mnesia"))].

env(Version) -> [{"ERL_LIBS", libraries(Version)}, {"ERL_CRASH_DUMP_BYTES", "0"}].

libraries(Version) -> filename:join(e2e_paths:ejabberd(Version), "lib").

config_file(Dir) -> filename:join(Dir, "ejabberd.yml").

log_name(Dir) -> filename:join(Dir, "ejabberd.log").

log(Dir) ->
    case file:read_file(log_name(Dir)) of
        {ok, Text} -> Text;
        {error, enoent} -> <<>>
    end.

term(Text) -> lists:flatten(io_lib:format("~p", [Text])).
