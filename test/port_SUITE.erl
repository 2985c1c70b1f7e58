%% The ECM as an Erlang port program: started, given its configuration, listened to,
%% started again, and gone without a trace. A shell script stands in where the program
%% has to misbehave; the real one is asked whether it takes what we write.
-module(port_SUITE).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-export([suite/0, all/0, init_per_testcase/2, end_per_testcase/2]).
-export([configuration_is_what_the_ecm_takes/1, smallest_configuration/1,
         configuration_arrives/1, lines_are_relayed/1, ends_are_told_apart/1,
         pauses_double/1, bad_configuration_is_not_tried_at_once/1, missing_program/1,
         killed_program_comes_back/1, stopped_with_its_owner/1, killed_with_its_owner/1,
         stubborn_program_is_reported/1, socket_file/1]).

-define(TIMEOUT, 10_000).

suite() -> [{timetrap, {minutes, 1}}].

all() ->
    [configuration_is_what_the_ecm_takes, smallest_configuration, configuration_arrives,
     lines_are_relayed, ends_are_told_apart, pauses_double,
     bad_configuration_is_not_tried_at_once, missing_program, killed_program_comes_back,
     stopped_with_its_owner, killed_with_its_owner, stubborn_program_is_reported,
     socket_file].

init_per_testcase(_Case, Config) ->
    process_flag(trap_exit, true),              % of the edges that are stopped
    Log = log_capture:start(),
    ok = logger:set_primary_config(level, debug),
    [{log, Log}, {dir, e2e_ejabberd:temporary()} | Config].

end_per_testcase(_Case, Config) ->
    log_capture:stop(?config(log, Config)),
    file:del_dir_r(?config(dir, Config)).

%% ---- its configuration ----

configuration_is_what_the_ecm_takes(Config) ->
    Understood = check(Config, #{links => 3, window => 2048, max_frame => 4096,
                                 max_clients => 7, max_waiting => 0, workers => 2,
                                 connect_wait => 60_000, heartbeat => 3_600_000,
                                 close_timeout => 1_000, log_level => warn,
                                 listeners => [#{ip => {127, 0, 0, 1}, port => 5280, kind => http,
                                                 service => <<"http">>, backlog => 5},
                                               #{ip => {0, 0, 0, 0, 0, 0, 0, 1}, port => 65535,
                                                 kind => tcp, service => <<"c2s">>}]}),
    [?assertMatch({Part, {match, _}}, {Part, re:run(Understood, Part)})
     || Part <- ["127\\.0\\.0\\.1:5280", "\\[::1\\]:65535", "quo\"ted|quo\\\\\"ted|link\\.sock"]].

smallest_configuration(Config) ->
    _ = check(Config, #{}).

check(Config, Ecm) ->
    File = filename:join(?config(dir, Config), "ecm.toml"),
    ok = file:write_file(File, megaphone_toml:ecm(maps:merge(config(Config), Ecm),
                                                  <<"/run/quo\"ted/link.sock">>)),
    Ecm1 = e2e_process:start(e2e_paths:ecm(), ["--config", File, "--check"], []),
    {ok, Status, Lines} = e2e_process:wait_exit(Ecm1, ?TIMEOUT),
    ?assertEqual({0, Lines}, {Status, Lines}),
    Lines.

%% Four bytes of length, then the text; more would be a second configuration.
configuration_arrives(Config) ->
    Copy = filename:join(?config(dir, Config), "copy"),
    Edge = start(Config, ["head -c 4 >/dev/null; head -c ", toml_size(Config), " >", Copy,
                          "; echo info copied; cat >", Copy, ".rest"]),
    logged(Config, "ECM test: copied"),
    ?assertEqual({ok, toml(Config)}, file:read_file(Copy)),
    stop(Edge).

toml_size(Config) -> integer_to_list(byte_size(toml(Config))).

toml(Config) ->
    #{socket := Socket} = Ecm = config(Config),
    megaphone_toml:ecm(Ecm, Socket).

%% ---- its log ----

lines_are_relayed(Config) ->
    Edge = start(Config, ["echo 'error one'; echo 'warn two'; echo 'info three'; "
                          "echo 'debug four'; echo \"thread 'x' panicked\" >&2; "
                          "printf 'info \\377 five\\n'; "
                          "head -c 20000 /dev/zero | tr '\\0' x; echo; echo info six; exec cat"]),
    [?assertEqual({Level, Text}, {logged(Config, Text), Text})
     || {Level, Text} <- [{error, "ECM test: one"}, {warning, "ECM test: two"},
                          {info, "ECM test: three"}, {debug, "ECM test: four"},
                          {warning, "ECM test: thread 'x' panicked"},
                          {info, "ECM test: .* five"}, {warning, "ECM test: x{100}"},
                          {info, "ECM test: six"}]],
    stop(Edge).

%% ---- its ends ----

ends_are_told_apart(Config) ->
    [begin
         Edge = start(Config, Script),
         ?assertEqual(error, logged(Config, ["ECM test ended after [0-9.]+ s: ", Text,
                                             "; starting it again in"])),
         stop(Edge)
     end || {Script, Text} <- [{"exit 0", "exit status 0"}, {"exit 1", "exit status 1"},
                               {"exit 2", "exit status 2, its configuration is wrong"},
                               {"kill -9 $$", "killed by signal 9"}]].

pauses_double(Config) ->
    Edge = start(Config, "exit 1"),
    [logged(Config, ["starting it again in ", Pause, " s"]) || Pause <- ["0\\.2", "0\\.4", "0\\.8"]],
    #{starts := Starts, os_pid := undefined} = megaphone_edge:info(Edge),
    ?assert(Starts >= 3),
    stop(Edge).

bad_configuration_is_not_tried_at_once(Config) ->
    Edge = start(Config, "echo error listeners: none; exit 2"),
    logged(Config, "ECM test: listeners: none"),
    logged(Config, "starting it again in 30\\.0 s"),
    stop(Edge).

missing_program(Config) ->
    {ok, Edge} = megaphone_edge:start_link((config(Config))#{command => <<"/no/such/ecm">>}),
    ?assertEqual(error, logged(Config, "ECM test cannot be started: /no/such/ecm: no such file")),
    ?assertEqual({error, closed}, megaphone_edge:os_pid(Edge)),
    stop(Edge).

killed_program_comes_back(Config) ->
    Edge = start(Config, "echo info up $$; exec cat >/dev/null"),
    {ok, First} = os_pid(Config, Edge),
    ok = e2e_process:kill_os_pid(First),
    logged(Config, "killed by signal 9"),
    {ok, Second} = os_pid(Config, Edge, First),
    ?assertNotEqual(First, Second),
    stop(Edge),
    ?assertNot(e2e_process:alive(Second)).

%% When the edge has stopped, its program is gone: its client ports are free.
stopped_with_its_owner(Config) ->
    Edge = start(Config, "echo info up $$; exec cat >/dev/null"),
    {ok, OsPid} = os_pid(Config, Edge),
    stop(Edge),
    ?assertNot(e2e_process:alive(OsPid)),
    logged(Config, "ECM test stopped").

killed_with_its_owner(Config) ->
    Edge = start(Config, "echo info up $$; exec cat >/dev/null"),
    {ok, OsPid} = os_pid(Config, Edge),
    exit(Edge, kill),
    ok = e2e_process:wait_gone(OsPid, ?TIMEOUT).

%% Who does not end with its input is at least named.
stubborn_program_is_reported(Config) ->
    Edge = start(Config, "echo info up $$; exec sleep 600"),
    {ok, OsPid} = os_pid(Config, Edge),
    stop(Edge),
    ?assertEqual(warning, logged(Config, ["process ", integer_to_list(OsPid), "\\) still runs"])),
    ok = e2e_process:kill_os_pid(OsPid).

%% It goes with the listener, unless the next one's is there already.
socket_file(Config) ->
    #{socket := Socket} = config(Config),
    [begin
         {ok, Old} = gen_tcp:listen(0, [{ifaddr, {local, Socket}}]),
         Edge = start(Config, "exec cat", #{owner => Owner}),
         gen_tcp:close(Old),
         Next = case Then of
                    nobody -> undefined;
                    another ->
                        ok = file:delete(Socket),
                        {ok, New} = gen_tcp:listen(0, [{ifaddr, {local, Socket}}]),
                        New
                end,
         stop(Edge),
         ?assertEqual({Owner, Then, Stays}, {Owner, Then, {error, enoent} =/= file:read_link_info(Socket)}),
         _ = [gen_tcp:close(Next) || Next =/= undefined],
         _ = file:delete(Socket)
     end || {Owner, Then, Stays} <- [{dead(), nobody, false}, {dead(), another, true},
                                     {self(), nobody, false}]].

dead() ->
    {Pid, Monitor} = spawn_monitor(fun() -> ok end),
    receive {'DOWN', Monitor, process, Pid, _} -> Pid end.

%% ---- starting and asking ----

start(Config, Script) -> start(Config, Script, #{}).

start(Config, Script, More) ->
    File = filename:join(?config(dir, Config), "program"),
    ok = file:write_file(File, ["#!/bin/sh\n", Script, "\n"]),
    ok = file:change_mode(File, 8#700),
    {ok, Edge} = megaphone_edge:start_link(
                   maps:merge((config(Config))#{command => list_to_binary(File)}, More)),
    Edge.

stop(Edge) -> ok = gen_server:stop(Edge).

config(Config) ->
    Dir = list_to_binary(?config(dir, Config)),
    #{name => <<"test">>, log_level => debug, owner => self(),
      socket => <<Dir/binary, "/link.sock">>,
      listeners => [#{ip => {127, 0, 0, 1}, port => 0, service => <<"http">>, kind => http}]}.

%% The level of the first line that matches.
logged(Config, Pattern) ->
    {Level, _} = log_capture:wait(?config(log, Config), [Pattern], ?TIMEOUT),
    Level.

os_pid(Config, Edge) ->
    logged(Config, "ECM test: up"),
    megaphone_edge:os_pid(Edge).

os_pid(Config, Edge, Before) ->
    logged(Config, ["ECM test: up (?!", integer_to_list(Before), "$)"]),
    megaphone_edge:os_pid(Edge).
