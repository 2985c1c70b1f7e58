%% What becomes of users when something breaks: a process is killed, a disk is full, the clock
%% jumps, the network swallows what is sent, everybody comes at once. Each case holds what the
%% clients see and prints how long it took: the table of docs/reliability.md is what this prints.
-module(reliability_SUITE).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-export([suite/0, all/0, init_per_suite/1, end_per_suite/1, init_per_testcase/2, end_per_testcase/2]).
-export([cut_link/1, link_that_stays_away/1, killed_ecm/1, killed_ejabberd/1, killed_receiver/1, killed_sender/1,
         full_disk_for_the_ecm_s_log/1, full_disk_for_ejabberd_s_log/1, clock_jump/1,
         frozen_link/1, stalled_connection/1, storm_while_ejabberd_restarts/1, users_come_back_to_ejabberd_at_the_rate/1,
         users_come_back_to_the_ecm_at_the_rate/1]).

-define(TIMEOUT, 30_000).
%% Milliseconds within which a client must know that its ECM is dead: the kernel tells it.
-define(AT_ONCE, 10_000).

suite() -> [{timetrap, {minutes, 3}}].

all() ->
    [cut_link, link_that_stays_away, killed_ecm, killed_ejabberd, killed_receiver, killed_sender,
     full_disk_for_the_ecm_s_log, full_disk_for_ejabberd_s_log, clock_jump,
     frozen_link, stalled_connection, storm_while_ejabberd_restarts, users_come_back_to_ejabberd_at_the_rate,
     users_come_back_to_the_ecm_at_the_rate].

init_per_suite(Config) ->
    {ok, _} = application:ensure_all_started(ssl),
    Config.

end_per_suite(_Config) -> ok.

init_per_testcase(_Case, Config) ->
    Dir = e2e_ejabberd:temporary(),
    #{ca := Ca, server := Certificate} = e2e_certs:make(Dir),
    [{dir, Dir}, {ca, Ca}, {certificate, Certificate}, {link, e2e_port:free()},
     {ports, maps:with([http, c2s], e2e_config:ports())} | Config].

%% A case that failed left its nodes and ECMs running.
end_per_testcase(_Case, Config) ->
    _ = [begin e2e_process:kill_os_pid(OsPid), e2e_process:wait_gone(OsPid, ?TIMEOUT) end
         || ok =/= ?config(tc_status, Config), OsPid <- started(Config)],
    Dir = ?config(dir, Config),
    [file:copy(Log, filename:join(?config(priv_dir, Config), filename:basename(Dir) ++ "." ++ filename:basename(Log)))
     || Log <- filelib:wildcard(filename:join(Dir, "*.log")), filelib:is_regular(Log)],
    e2e_ejabberd:keep_log(Dir, ?config(priv_dir, Config)).

%% ---- The link ----

-define(CUTS, 10).

%% Cut again and again while users talk: what they see is an answer that takes a little longer.
cut_link(Config) ->
    Node = start_node(#{}, Config),
    Proxy = e2e_proxy:start(?config(link, Config)),
    Ecm = start_ecm(#{backends => [e2e_proxy:port(Proxy)]}, Config),
    [Alice, Bob, Carol] = login([websocket, c2s, bosh], Config),
    {Alice1, Bob1, Carol1, Longest} =
        lists:foldl(fun(_, {A, B, C, Longest}) ->
                            Mark = e2e_ecm:mark(Ecm),
                            Began = now_ms(),
                            ok = e2e_proxy:cut(Proxy),
                            {A1, B1} = e2e_user:chat(A, B, <<"still there?">>),
                            {C1, B2} = e2e_user:chat(C, B1, <<"and me?">>),
                            Took = now_ms() - Began,
                            {ok, _} = e2e_ecm:wait(Ecm, Mark, "link 1 resumed to .* again="),
                            {A1, B2, C1, max(Longest, Took)}
                    end, {Alice, Bob, Carol, 0}, lists:seq(1, ?CUTS)),
    ?assert(Longest < ?AT_ONCE, Longest),
    ?assertEqual([], e2e_ecm:grep(Ecm, "link 1 lost")),
    {ok, _} = e2e_ejabberd:wait_log(Node, "link .*parked with \\d+ connection", ?TIMEOUT),
    {ok, _} = e2e_ejabberd:wait_log(Node, "link .*resumed after ", ?TIMEOUT),
    measured("~b cuts: the longest that two conversations took across one was ~b ms", [?CUTS, Longest]),
    [ok = e2e_user:close(User) || User <- [Alice1, Bob1, Carol1]],
    ok = e2e_proxy:stop(Proxy),
    stop([Ecm, Node]).

%% Milliseconds; both sides have it.
-define(RESUME_TIMEOUT, 2_000).

%% Nobody waits for ever: neither the users, nor their sessions.
link_that_stays_away(Config) ->
    Node = start_node(#{listener => ["    resume_timeout: ", integer_to_list(?RESUME_TIMEOUT div 1_000), "\n"]}, Config),
    Proxy = e2e_proxy:start(?config(link, Config)),
    Ecm = start_ecm(#{backends => [e2e_proxy:port(Proxy)]}, Config),
    Users = login([websocket, c2s], Config),
    Sessions = [session(User, Node) || User <- Users],
    Began = now_ms(),
    ok = e2e_proxy:freeze(Proxy),
    ok = e2e_proxy:cut(Proxy),
    Endings = endings(Users),
    AtClients = now_ms() - Began,
    [?assert(was_reset(Ending), Ending) || Ending <- Endings],
    ?assert(AtClients >= ?RESUME_TIMEOUT, AtClients),
    [{ok, _} = e2e_ejabberd:call(Node, e2e_inside, wait_down, [Session, ?TIMEOUT]) || Session <- Sessions],
    AtSessions = now_ms() - Began,
    {ok, _} = e2e_ecm:wait(Ecm, "link 1 lost: not resumed within 2 s .*closed=link_lost:2"),
    {ok, _} = e2e_ejabberd:wait_log(Node, "link .*not resumed", ?TIMEOUT),
    ok = e2e_proxy:thaw(Proxy),
    [Alice, Bob] = login([websocket, c2s], Config),
    _ = e2e_user:chat(Alice, Bob, <<"a fresh start">>),
    measured("resume_timeout of 2 s: the last client ended after ~b ms, its session after ~b ms", [AtClients, AtSessions]),
    ok = e2e_proxy:stop(Proxy),
    stop([Ecm, Node]).

%% ---- A process is killed ----

%% The ECM's clients are lost: the kernel closes their sockets. ejabberd waits for it as for any
%% link, and then ends their sessions.
killed_ecm(Config) ->
    Node = start_node(#{listener => ["    resume_timeout: ", integer_to_list(?RESUME_TIMEOUT div 1_000), "\n"]}, Config),
    Ecm = start_ecm(#{}, Config),
    Users = [_, WebSocket, C2s] = login([bosh, websocket, c2s], Config),
    Sessions = [session(User, Node) || User <- [WebSocket, C2s]],
    Killed = now_ms(),
    ok = e2e_ecm:kill(Ecm),
    Endings = endings(Users),
    Seen = now_ms() - Killed,
    [?assertMatch({_, {closed, <<>>}}, Ending) || Ending <- Endings],
    ?assert(Seen < ?AT_ONCE),
    Again = start_ecm(#{name => "edge-again"}, Config),
    [Alice, Bob] = login([websocket, c2s], Config),
    Back = now_ms() - Killed,
    {Alice1, Bob1} = e2e_user:chat(Alice, Bob, <<"again">>),
    [{ok, _} = e2e_ejabberd:call(Node, e2e_inside, wait_down, [Session, ?TIMEOUT]) || Session <- Sessions],
    Gone = now_ms() - Killed,
    ?assert(Gone >= ?RESUME_TIMEOUT),
    %% Those who came back are not touched by the end of what they left.
    _ = e2e_user:chat(Alice1, Bob1, <<"still here">>),
    {ok, _} = e2e_ejabberd:wait_log(Node, "link .*parked with", ?TIMEOUT),
    {ok, _} = e2e_ejabberd:wait_log(Node, "link .*not resumed", ?TIMEOUT),
    measured("clients knew after ~b ms and were back after ~b ms with an ECM that was started at once; "
             "with a resume_timeout of 2 s their old sessions ended after ~b ms", [Seen, Back, Gone]),
    stop([Again, Node]).

%% Clients are kept until a node answers that knows nothing of them.
killed_ejabberd(Config) ->
    Node = start_node(#{}, Config),
    Ecm = start_ecm(#{top => "connect_wait = \"100ms\"\n"}, Config),
    Users = login([bosh, websocket, c2s], Config),
    Mark = e2e_ecm:mark(Ecm),
    Killed = now_ms(),
    ok = e2e_ejabberd:kill(Node),
    {ok, _} = e2e_ecm:wait(Ecm, Mark, "link 1 parked: .* clients=3"),
    %% Who comes now is told when to come again.
    {#{status := 503, headers := #{<<"retry-after">> := _}}, _} =
        e2e_http:get(e2e_http:connect(maps:get(http, ?config(ports, Config))), "/peer"),
    Watch = watch_endings(Users),
    Again = start_node(#{}, Config),
    {Endings, Seen} = watched(Watch),
    [?assert(was_reset(Ending), Ending) || Ending <- Endings],
    {ok, _} = e2e_ecm:wait(Ecm, Mark, "link 1 lost: ejabberd does not know it any more .*closed=link_lost:3"),
    [Alice, Bob] = login([websocket, c2s], Config),
    _ = e2e_user:chat(Alice, Bob, <<"again">>),
    measured("clients ended ~b ms after ejabberd did, when it took links again", [Seen - Killed]),
    stop([Ecm, Again, Node]).

%% What the receiver knew is gone: its connections end, and the link is a fresh one.
killed_receiver(Config) ->
    Node = start_node(#{}, Config),
    Ecm = start_ecm(#{}, Config),
    Users = [_, WebSocket, C2s] = login([bosh, websocket, c2s], Config),
    Sessions = [session(User, Node) || User <- [WebSocket, C2s]],
    Mark = e2e_ecm:mark(Ecm),
    [{Receiver, _Info}] = e2e_ejabberd:call(Node, megaphone, links, []),
    Killed = now_ms(),
    true = e2e_ejabberd:call(Node, erlang, exit, [Receiver, kill]),
    Endings = endings(Users),
    Seen = now_ms() - Killed,
    [?assert(was_reset(Ending), Ending) || Ending <- Endings],
    ?assert(Seen < ?AT_ONCE),
    [{ok, _} = e2e_ejabberd:call(Node, e2e_inside, wait_down, [Session, ?TIMEOUT]) || Session <- Sessions],
    {ok, _} = e2e_ecm:wait(Ecm, Mark, "link 1 lost: ejabberd does not know it any more .*closed=link_lost:3"),
    {ok, _} = e2e_ecm:wait(Ecm, Mark, "link 1 up to"),
    [Alice, Bob] = login([websocket, c2s], Config),
    _ = e2e_user:chat(Alice, Bob, <<"again">>),
    measured("its clients ended after ~b ms", [Seen]),
    stop([Ecm, Node]).

%% The link only needs another transport: nobody sees more than a pause.
killed_sender(Config) ->
    Node = start_node(#{}, Config),
    Ecm = start_ecm(#{}, Config),
    [Alice, Bob, Carol] = login([websocket, c2s, bosh], Config),
    Mark = e2e_ecm:mark(Ecm),
    Killed = now_ms(),
    true = e2e_ejabberd:call(Node, e2e_inside, kill_sender, []),
    {Alice1, Bob1} = e2e_user:chat(Alice, Bob, <<"as if nothing had been">>),
    {_, _} = e2e_user:chat(Carol, Bob1, <<"for me too">>),
    Took = now_ms() - Killed,
    ?assert(Took < ?AT_ONCE),
    {ok, _} = e2e_ecm:wait(Ecm, Mark, "link 1 resumed to .* again="),
    ok = e2e_user:close(Alice1),
    measured("two conversations right after it took ~b ms", [Took]),
    stop([Ecm, Node]).

%% ---- No room for logs ----

%% Each line it writes fails; nobody notices.
full_disk_for_the_ecm_s_log(Config) ->
    Node = start_node(#{}, Config),
    Ecm = start_ecm(#{log => "/dev/full", level => "debug"}, Config),
    {ok, _} = e2e_ejabberd:wait_log(Node, "link .*: up, version 2", ?TIMEOUT),
    [Alice, Bob] = login([websocket, c2s], Config),
    %% Each has two lines in the log, far more together than wait for a slow writer.
    [get_peer(Config) || _ <- lists:seq(1, 500)],
    _ = e2e_user:chat(Alice, Bob, <<"unheard of">>),
    stop([Ecm, Node]).

%% Its file is replaced by one that takes nothing, and given back later.
full_disk_for_ejabberd_s_log(Config) ->
    Node = start_node(#{}, Config),
    Ecm = start_ecm(#{}, Config),
    [Alice, Bob] = login([websocket, c2s], Config),
    Log = filename:join(?config(dir, Config), "ejabberd.log"),
    ok = file:rename(Log, Log ++ ".before"),
    ok = file:make_symlink("/dev/full", Log),
    serve_until(fun() -> writes_to("/dev/full", Node) end, Config),
    [get_peer(Config) || _ <- lists:seq(1, 100)],
    {Alice1, Bob1} = e2e_user:chat(Alice, Bob, <<"unheard of">>),
    %% A link goes and a new one comes, and so do users.
    ok = e2e_ecm:stop(Ecm),
    Again = start_ecm(#{name => "edge-again"}, Config),
    [Carol, Dave] = login([websocket, bosh], Config),
    _ = e2e_user:chat(Carol, Dave, <<"nothing to read about it">>),
    ok = file:delete(Log),
    serve_until(fun() -> filelib:is_file(Log) andalso [] =/= e2e_ejabberd:grep_log(Node, "Accepted connection .*megaphone") end,
                Config),
    [ok = e2e_user:close(User) || User <- [Alice1, Bob1]],
    stop([Again, Node]).

writes_to(File, #{os_pid := OsPid}) ->
    lists:any(fun(Fd) -> file:read_link(Fd) =:= {ok, File} end,
              filelib:wildcard("/proc/" ++ integer_to_list(OsPid) ++ "/fd/*")).

%% Requests, one after the other, each with a line in the log, until it is so.
serve_until(Condition, Config) -> serve_until(Condition, now_ms() + ?TIMEOUT, Config).

serve_until(Condition, Deadline, Config) ->
    get_peer(Config),
    case Condition() of
        true -> ok;
        false -> ?assert(now_ms() < Deadline), serve_until(Condition, Deadline, Config)
    end.

%% ---- Time ----

%% Wall clock time jumps on both sides, forwards and backwards, by more than any timeout.
clock_jump(Config) ->
    case filelib:wildcard("/usr/lib/*/faketime/libfaketimeMT.so.1") of
        [Library] -> clock_jump(Library, Config);
        [] -> {skip, "libfaketime is missing (Debian: faketime)"}
    end.

clock_jump(Library, Config) ->
    Offset = filename:join(?config(dir, Config), "clock"),
    set_clock(Offset, "+0"),
    Env = [{"LD_PRELOAD", Library}, {"FAKETIME_TIMESTAMP_FILE", Offset}, {"FAKETIME_NO_CACHE", "1"},
           {"DONT_FAKE_MONOTONIC", "1"}],
    Node = start_node(#{env => Env, listener => "    heartbeat: 1\n"}, Config),
    Ecm = start_ecm(#{env => Env, top => "heartbeat = \"500ms\"\n"}, Config),
    [Alice, Bob, Carol] = login([websocket, c2s, bosh], Config),
    EcmMark = e2e_ecm:mark(Ecm),
    NodeMark = e2e_ejabberd:mark_log(Node),
    {Alice1, Bob1, Longest} =
        lists:foldl(fun({Jump, Seconds}, {A, B, Longest}) ->
                            At = e2e_ejabberd:call(Node, os, system_time, [second]),
                            set_clock(Offset, Jump),
                            Now = e2e_ejabberd:call(Node, os, system_time, [second]),
                            ?assert(abs(Now - At - Seconds) < 5),
                            chat_for(4_000, A, B, Longest)
                    end, {Alice, Bob, 0}, [{"+1d", 86_400}, {"-1d", -172_800}, {"+0", 86_400}]),
    {Carol1, _} = e2e_user:chat(Carol, Bob1, <<"what time is it?">>),
    ?assertEqual([], lines(e2e_ecm:since(Ecm, EcmMark), "link")),
    ?assertEqual([], lines(e2e_log:since(filename:join(?config(dir, Config), "ejabberd.log"), NodeMark), "link")),
    measured("three jumps: the longest answer took ~b ms", [Longest]),
    [ok = e2e_user:close(User) || User <- [Alice1, Carol1]],
    stop([Ecm, Node]).

set_clock(File, Offset) -> ok = file:write_file(File, Offset).

%% They talk without a pause for so long: milliseconds, and the longest that an answer took.
chat_for(Time, A, B, Longest) -> chat_until(now_ms() + Time, A, B, Longest).

chat_until(Until, A, B, Longest) ->
    Began = now_ms(),
    case Began > Until of
        true -> {A, B, Longest};
        false ->
            {A1, B1} = e2e_user:chat(A, B, <<"tick">>),
            chat_until(Until, A1, B1, max(Longest, now_ms() - Began))
    end.

lines(Text, Pattern) ->
    [Line || Line <- binary:split(Text, <<"\n">>, [global]), re:run(Line, Pattern) =/= nomatch].

%% ---- The network ----

%% A link is known to be dead within three heartbeats, and ejabberd's side looks once a second. The rest is
%% for a machine that stands still for some seconds, in which nothing is held against the other end.
-define(KNOWN, 12_000).

%% A link on which nothing comes through and nothing ends.
frozen_link(Config) ->
    Node = start_node(#{listener => "    heartbeat: 1\n"}, Config),
    Proxy = e2e_proxy:start(?config(link, Config)),
    Ecm = start_ecm(#{backends => [e2e_proxy:port(Proxy)], top => "heartbeat = \"1s\"\n"}, Config),
    [Alice, Bob] = login([websocket, c2s], Config),
    {Alice1, Bob1} = e2e_user:chat(Alice, Bob, <<"before">>),
    EcmMark = e2e_ecm:mark(Ecm),
    NodeMark = e2e_ejabberd:mark_log(Node),
    Began = now_ms(),
    ok = e2e_proxy:freeze(Proxy),
    {ok, _} = e2e_ecm:wait(Ecm, EcmMark, "link 1 parked"),
    AtEcm = now_ms() - Began,
    {ok, _} = e2e_ejabberd:wait_log(Node, NodeMark, "link .*parked", ?TIMEOUT),
    AtNode = now_ms() - Began,
    ?assert(AtEcm < ?KNOWN, AtEcm),
    ?assert(AtNode < ?KNOWN, AtNode),
    ok = e2e_proxy:thaw(Proxy),
    {ok, _} = e2e_ecm:wait(Ecm, EcmMark, "link 1 resumed"),
    _ = e2e_user:chat(Alice1, Bob1, <<"after">>),
    measured("heartbeats of 1 s: the ECM knew after ~b ms, ejabberd after ~b ms", [AtEcm, AtNode]),
    ok = e2e_proxy:stop(Proxy),
    stop([Ecm, Node]).

%% The connection is dead and does not know it; another one can be made.
stalled_connection(Config) ->
    Node = start_node(#{listener => "    heartbeat: 1\n"}, Config),
    Proxy = e2e_proxy:start(?config(link, Config)),
    Ecm = start_ecm(#{backends => [e2e_proxy:port(Proxy)], top => "heartbeat = \"1s\"\n"}, Config),
    [Alice, Bob] = login([websocket, c2s], Config),
    {Alice1, Bob1} = e2e_user:chat(Alice, Bob, <<"before">>),
    Mark = e2e_ecm:mark(Ecm),
    Began = now_ms(),
    ok = e2e_proxy:stall(Proxy),
    _ = e2e_user:chat(Alice1, Bob1, <<"is there anybody?">>),
    Took = now_ms() - Began,
    ?assert(Took < ?KNOWN, Took),
    {ok, _} = e2e_ecm:wait(Ecm, Mark, "link 1 resumed"),
    measured("heartbeats of 1 s: a conversation took ~b ms", [Took]),
    ok = e2e_proxy:stop(Proxy),
    stop([Ecm, Node]).

%% ---- Everybody at once ----

-define(CLIENTS, 10_000).
-define(STORM_RATE, 1_000).

%% Ten thousand find no ejabberd, and then one that has just started: they wait for their turn.
storm_while_ejabberd_restarts(Config) ->
    #{http := Http} = ?config(ports, Config),
    Node = start_node(#{}, Config),
    Ecm = start_ecm(#{top => ["open_rate = ", integer_to_list(?STORM_RATE), "\n"
                              "connect_wait = \"30s\"\nmax_waiting = ", integer_to_list(?CLIENTS), "\n"]}, Config),
    ok = e2e_ejabberd:kill(Node),
    {ok, _} = e2e_ecm:wait(Ecm, "link 1 (parked|ended)"),
    Storm = e2e_storm:start(?CLIENTS, fun(Number) -> e2e_storm:http(Http, Number) end, fun(_) -> for_ever() end),
    Again = start_node(#{before => {e2e_inside, count_opens, []}}, Config),
    %% Whoever finds ejabberd's accept queue full is told to come again; nobody is just dropped.
    {ok, #{took := Took, refused := Refused, cut := 0}} = e2e_storm:served(Storm, ?CLIENTS, 120_000),
    Busiest = keeps_rate(?STORM_RATE, ?CLIENTS, Again),
    ok = e2e_storm:stop(Storm),
    measured("~b clients were served within ~b ms of ejabberd's start, after ~b answers of 503; at most ~b in a second",
             [?CLIENTS, Took, Refused, Busiest]),
    stop([Ecm, Again, Node]).

-define(USERS, 200).
-define(USER_RATE, 50).

%% Users who were logged in come back as fast as is configured and no faster.
users_come_back_to_ejabberd_at_the_rate(Config) ->
    Node = start_node(#{}, Config),
    Ecm = start_ecm(#{top => user_rate()}, Config),
    Users = users(Config),
    ok = e2e_ejabberd:stop(Node),
    Again = start_node(#{before => {e2e_inside, count_opens, []}}, Config),
    ok = are_back(Users, Again, "ejabberd"),
    stop([Ecm, Again, Node]).

users_come_back_to_the_ecm_at_the_rate(Config) ->
    Node = start_node(#{before => {e2e_inside, count_opens, []}}, Config),
    Ecm = start_ecm(#{top => user_rate()}, Config),
    Users = users(Config),
    ok = e2e_ecm:stop(Ecm),
    Again = start_ecm(#{name => "edge-again", top => user_rate()}, Config),
    ok = are_back(Users, Node, "the ECM"),
    stop([Again, Node]).

user_rate() -> ["open_rate = ", integer_to_list(?USER_RATE), "\n"].

users(Config) ->
    Ports = ?config(ports, Config),
    Users = e2e_storm:start(?USERS, fun(_) -> user(Ports) end, fun(User) -> e2e_user:ending(User, infinity) end),
    {ok, _} = e2e_storm:served(Users, ?USERS, 60_000),
    Users.

are_back(Users, Node, Whose) ->
    {ok, #{took := Took, refused := Refused, cut := Cut}} = e2e_storm:served(Users, ?USERS, 60_000),
    Busiest = keeps_rate(?USER_RATE, ?USERS, Node),
    measured("~b WebSocket users were back ~b ms after ~ts had started again, after ~b answers of 503 and ~b closed "
             "connections; at most ~b in a second", [?USERS, Took, Whose, Refused, Cut, Busiest]),
    e2e_storm:stop(Users).

user(Ports) ->
    try {ok, e2e_user:login(websocket, anonymous, Ports)}
    catch
        error:{login, {status, <<"503">>}} -> {refused, 1_000 + rand:uniform(1_000)};
        error:{login, _} -> {cut, 500 + rand:uniform(1_000)};
        error:{badmatch, {error, _}} -> {cut, 500 + rand:uniform(1_000)}
    end.

for_ever() -> receive after infinity -> ok end.

%% At no time have more come than the rate says from when the edge dialled, and a second's worth at once.
%% They may be seen late, and in a heap where the node stood still: only "too early" is a fault.
keeps_rate(Rate, Clients, Node) ->
    {Dialled, Opens} = e2e_ejabberd:call(Node, e2e_inside, opens, []),
    ?assert(length(Opens) >= Clients),
    [?assert(Number =< Rate * ((At - Dialled) / 1_000 + 1) * 1.1, {Number, At - Dialled})
     || {Number, At} <- lists:zip(lists:seq(1, length(Opens)), Opens)],
    busiest_second(Opens).

%% The most that came within any one second, of these milliseconds in order.
busiest_second(Times) -> busiest_second(Times, Times, 0, 0).

busiest_second([], _, _, Most) -> Most;
busiest_second([Now | _] = Times, [First | Rest], Count, Most) when Now - First >= 1_000 ->
    busiest_second(Times, Rest, Count - 1, Most);
busiest_second([_ | Times], Window, Count, Most) ->
    busiest_second(Times, Window, Count + 1, max(Most, Count + 1)).

%% ---- Users ----

%% One for each transport, with these names in order.
login(Transports, Config) ->
    Names = [<<"alice">>, <<"bob">>, <<"carol">>],
    Ports = (?config(ports, Config))#{ca => ?config(ca, Config)},
    [e2e_user:listen(e2e_user:login(Transport, Name, Ports))
     || {Transport, Name} <- lists:zip(Transports, lists:sublist(Names, length(Transports)))].

%% How each of them sees the end, whichever comes first.
endings(Users) -> [{maps:get(transport, User), e2e_user:ending(User, ?TIMEOUT)} || User <- Users].

%% The same while the caller does something else; with when it was.
watch_endings(Users) ->
    Caller = self(),
    spawn_link(fun() ->
                       Endings = endings(Users),
                       Caller ! {self(), {Endings, now_ms()}}
               end).

watched(Watch) -> receive {Watch, Result} -> Result end.

%% Without a word, and not as if all had been said. (ssl tells of a reset as of an end.)
was_reset({c2s, Ending}) -> lists:member(Ending, [{econnreset, <<>>}, {closed, <<>>}]);
was_reset({_, Ending}) -> Ending =:= {econnreset, <<>>}.

get_peer(Config) ->
    {#{status := 200}, Connection} = e2e_http:get(e2e_http:connect(maps:get(http, ?config(ports, Config))), "/peer"),
    ok = e2e_http:close(Connection).

session(User, Node) ->
    [Name, Resource] = binary:split(e2e_user:jid(User), <<"/">>),
    [Local, Host] = binary:split(Name, <<"@">>),
    e2e_ejabberd:call(Node, ejabberd_sm, get_session_pid, [Local, Host, Resource]).

%% ---- Starting things ----

start_node(More, Config) ->
    Dir = ?config(dir, Config),
    {Listener, Options} = maps:take(listener, maps:merge(#{listener => ""}, More)),
    Yaml = e2e_config:yaml(#{dir => Dir, certificate => ?config(certificate, Config),
                             link => ?config(link, Config), listener => Listener}),
    {ok, Node} = e2e_ejabberd:start(Options#{version => "23.01", dir => Dir, config => Yaml}),
    note(maps:get(os_pid, Node), Config),
    _ = e2e_ejabberd:call(Node, ejabberd_auth, try_register, [<<"carol">>, <<"localhost">>, <<"carol-pw">>]),
    Node.

start_ecm(More, Config) ->
    Options = maps:merge(#{dir => ?config(dir, Config), name => "edge", backends => [?config(link, Config)]}, More),
    Ecm = e2e_ecm:start(maps:merge(?config(ports, Config), Options)),
    note(e2e_process:os_pid(maps:get(process, Ecm)), Config),
    _ = [ok = e2e_ecm:up(Ecm) || not is_map_key(log, More)],
    Ecm.

note(OsPid, Config) ->
    ok = file:write_file(started_file(Config), [integer_to_list(OsPid), "\n"], [append]).

started(Config) ->
    case file:read_file(started_file(Config)) of
        {ok, Text} -> [OsPid || Line <- binary:split(Text, <<"\n">>, [global, trim]),
                                OsPid <- [binary_to_integer(Line)], e2e_process:alive(OsPid)];
        {error, enoent} -> []
    end.

started_file(Config) -> filename:join(?config(dir, Config), "started").

stop(Things) ->
    lists:foreach(fun(#{process := _} = Ecm) -> ok = e2e_ecm:stop(Ecm);
                     (#{peer := _} = Node) -> ok = e2e_ejabberd:stop(Node)
                  end, Things).

now_ms() -> erlang:monotonic_time(millisecond).

%% For docs/reliability.md: under the line of its case.
measured(Format, Args) -> io:format(user, "         " ++ Format ++ "~n", Args).
