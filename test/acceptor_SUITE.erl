%% How connections are given to a listening module: each way in which ejabberd's modules
%% start (start/3, start/2, under a supervisor or not, `preowned_socket'), and those that
%% crash or will not. This suite is the module.
-module(acceptor_SUITE).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-export([suite/0, all/0, init_per_testcase/2, end_per_testcase/2]).
-export([started_with_its_options/1, supervised/1, unsupervised/1, two_argument_start/1,
         preowned_socket/1, refusal_closes/1, crash_closes_that_one/1,
         send_timeout_is_set/1, log_line/1]).
%% The listening module.
-export([start/3, start_link/3, start/2, start_link/2, accept/1]).
-export([listening_module/2, own/2]).

-define(TIMEOUT, 10_000).
-define(LOOPBACK, {127, 0, 0, 1}).

suite() -> [{timetrap, {minutes, 1}}].

all() ->
    [started_with_its_options, supervised, unsupervised, two_argument_start, preowned_socket,
     refusal_closes, crash_closes_that_one, send_timeout_is_set, log_line].

init_per_testcase(_Case, Config) ->
    {ok, _} = application:ensure_all_started(megaphone),
    ok = megaphone_nif:load(),
    [{log, log_capture:start()} | Config].

end_per_testcase(_Case, Config) -> log_capture:stop(?config(log, Config)).

%% ---- what the module gets ----

started_with_its_options(_Config) ->
    Peer = listen(#{opts => options(own) ++ [{other, option}]}),
    ok = link_peer:open(Peer, 1, <<"s">>),
    {_Pid, _Socket, Options} = started(),
    ?assertEqual(option, proplists:get_value(other, Options)),
    ok = link_peer:send(Peer, 1, <<"echo">>),
    ?assertEqual(<<"echo">>, link_peer:recv(Peer, 1, 4)).

%% The process is a supervisor's: its crash is its own, and the listener's end reaches it.
supervised(_Config) ->
    Peer = listen(#{opts => options(own)}),
    [ok = link_peer:open(Peer, Id, <<"s">>) || Id <- [1, 2]],
    [First, Second] = [element(1, started()) || _ <- [1, 2]],
    ?assertEqual(megaphone_connections, supervisor(First)),
    Gone = monitor(process, Second),
    exit(First, crash),
    ?assertEqual(ended, ended_one(Peer)),
    demonitor(Gone, [flush]),
    ?assert(is_process_alive(Second)).

unsupervised(_Config) ->
    Peer = listen(#{opts => options(own), supervisor => false}),
    ok = link_peer:open(Peer, 1, <<"s">>),
    {Pid, Socket, _} = started(),
    ?assertEqual(none, supervisor(Pid)),
    {ok, #{owner := Owner}} = megaphone:info(Socket),
    ?assertEqual(Pid, Owner).

two_argument_start(_Config) ->
    Module = two_argument_module(),
    [begin
         Peer = listen(#{module => Module, opts => options(own), supervisor => Supervisor}),
         ok = link_peer:open(Peer, 1, <<"s">>),
         {_, _, Options} = started(),
         ?assertEqual(2, proplists:get_value(arity, Options)),
         ok = link_peer:send(Peer, 1, <<"echo">>),
         ?assertEqual(<<"echo">>, link_peer:recv(Peer, 1, 4))
     end || Supervisor <- [true, false]].

%% The module says that it owns the socket already: nothing is handed over.
preowned_socket(_Config) ->
    Peer = listen(#{opts => options(preowned)}),
    ok = link_peer:open(Peer, 1, <<"s">>),
    {Pid, Socket, _} = started(),
    {ok, #{owner := Owner}} = megaphone:info(Socket),
    ?assertNotEqual(Pid, Owner).

refusal_closes(Config) ->
    Peer = listen(#{opts => options(refuse)}),
    ok = link_peer:open(Peer, 1, <<"s">>),
    ?assertMatch({_, _}, ended(Peer, 1)),
    {warning, _} = logged(Config, "acceptor_SUITE took no connection of service s: "
                          "{error,not_today}"),
    {info, _} = logged(Config, "\\(none\\) Accepted connection").

crash_closes_that_one(Config) ->
    [begin
         Peer = listen(#{opts => options(crash), supervisor => Supervisor, acceptors => 1}),
         ok = link_peer:open(Peer, 1, <<"s">>),
         ?assertMatch({_, _}, ended(Peer, 1)),
         _ = logged(Config, Line),
         %% The acceptor goes on.
         ok = link_peer:open(Peer, 2, <<"s">>),
         ?assertMatch({_, _}, ended(Peer, 2))
     end || {Supervisor, Line} <- [{true, "took no connection of service s: .*not_today"},
                                   {false, "failed to start for a connection of service s"}]].

send_timeout_is_set(_Config) ->
    Peer = listen(#{opts => options(own), send_timeout => 1234}),
    ok = link_peer:open(Peer, 1, <<"s">>),
    {_, Socket, _} = started(),
    ?assertEqual({ok, [{send_timeout, 1234}, {send_timeout_close, true}]},
                 inet:getopts(Socket, [send_timeout, send_timeout_close])).

log_line(Config) ->
    Peer = listen(#{opts => options(own)}),
    ok = link_peer:open(Peer, 77, <<"s">>),
    {Pid, _, _} = started(),
    {info, Line} = logged(Config, "Accepted connection .*0077 for s"),
    ?assertEqual(iolist_to_binary(
                   io_lib:format("(~p) Accepted connection 192.0.2.7:40000 -> 198.51.100.1:5280 "
                                 "(megaphone 00000000000000000077 for s)", [Pid])), Line).

%% ---- a listening module ----

start(SockMod, Socket, Options) -> start(Options, fun erlang:spawn/3, SockMod, Socket).
start_link(SockMod, Socket, Options) -> start(Options, fun proc_lib:spawn_link/3, SockMod, Socket).
start({SockMod, Socket}, Options) -> start(SockMod, Socket, [{arity, 2} | Options]).
start_link({SockMod, Socket}, Options) -> start_link(SockMod, Socket, [{arity, 2} | Options]).

accept(Pid) -> Pid ! accept, ok.

start(Options, Spawn, gen_tcp, Socket) ->
    case proplists:get_value(how, Options) of
        refuse -> {error, not_today};
        crash -> error(not_today);
        How ->
            Pid = Spawn(?MODULE, own, [Socket, Options]),
            case How of
                own -> {ok, Pid};
                preowned -> {ok, Pid, preowned_socket}
            end
    end.

%% Tells the test, then echoes.
own(Socket, Options) ->
    receive accept -> ok end,
    proplists:get_value(test, Options) ! {started, self(), Socket, Options},
    echo(Socket).

echo(Socket) ->
    case gen_tcp:recv(Socket, 0) of
        {ok, Data} -> _ = gen_tcp:send(Socket, Data), echo(Socket);
        {error, _} -> ok
    end.

%% The same with the two-argument form only.
two_argument_module() ->
    Forms = ["-module(acceptor_two).", "-export([start/2, start_link/2, accept/1]).",
             "start(S, O) -> acceptor_SUITE:start(S, O).",
             "start_link(S, O) -> acceptor_SUITE:start_link(S, O).",
             "accept(P) -> acceptor_SUITE:accept(P)."],
    Parsed = [begin {ok, T, _} = erl_scan:string(F), {ok, P} = erl_parse:parse_form(T), P end
              || F <- Forms],
    {ok, Module, Beam} = compile:forms(Parsed),
    {module, Module} = code:load_binary(Module, "acceptor_two", Beam),
    Module.

%% ---- starting and asking ----

options(How) -> [{how, How}, {test, self()}].

%% A listener as ejabberd's options would make it, with the one service `s', and a link.
listen(Service) ->
    Test = self(),
    _ = spawn_link(?MODULE, listening_module, [Test, Service]),
    receive {port, Port} -> link_peer:connect(Port) end.

listening_module(Test, Service) ->
    {ok, Listen} = gen_tcp:listen(0, [binary, {active, false}, {ip, ?LOOPBACK}]),
    {ok, {_, Port} = Address} = inet:sockname(Listen),
    Defaults = #{module => ?MODULE, supervisor => true, send_timeout => 15_000},
    {ok, Access} = megaphone_access:new(Address, #{}),
    {ok, Ref} = megaphone_listener:start(
                  Address, #{owner => self(), name => "test", address => Address,
                             services => #{<<"s">> => maps:merge(Defaults, Service)},
                             access => Access, max_handshakes => 64, accept_queue => 10,
                             acceptors => maps:get(acceptors, Service, 2),
                             link => link_options()}),
    Test ! {port, Port},
    megaphone_link_acceptor:loop(Listen, Ref, []).

link_options() ->
    Options = [version_1, window, max_frame, max_connections, idle_timeout, heartbeat,
               resume_timeout, resume_buffer, max_buffered],
    megaphone_options:link(
      maps:from_list([{default_service, <<"s">>}
                      | [{Option, megaphone_options:default(Option)} || Option <- Options]])).

started() ->
    receive {started, Pid, Socket, Options} -> {Pid, Socket, Options}
    after ?TIMEOUT -> error({not_started, process_info(self(), messages)})
    end.

%% Who is linked to it, if anybody.
supervisor(Pid) ->
    case process_info(Pid, links) of
        {links, []} -> none;
        {links, [Supervisor]} -> element(2, proc_lib:translate_initial_call(Supervisor))
    end.

ended(Peer, Id) ->
    case link_peer:outcome(Peer, Id) of
        ended -> {ended, Id};
        {_, _} = How -> How
    end.

%% Which of the two was the first process's is not known.
ended_one(Peer) ->
    Outcomes = [socket_pair:in_process(fun() -> ended(Peer, Id) end) || Id <- [1, 2]],
    Refs = [Ref || {_, Ref, _} <- Outcomes],
    receive {Ref, {_, _}} when Ref =:= hd(Refs); Ref =:= hd(tl(Refs)) -> ended
    after ?TIMEOUT -> error(neither)
    end.

logged(Config, Pattern) -> log_capture:wait(?config(log, Config), [Pattern], ?TIMEOUT).
