%% A real megaphone-ecm in front of a link listener, for the length of one test.
-module(edge).

-export([start/1, start/2, port/1, stop/1, logged/2]).

-define(TIMEOUT, 10000).

start(Backend) -> start(Backend, []).

%% Backend is where the links go: {local, Path} or a port, or one of them with TOML for the
%% backend. More is TOML for the top. Waits until the ECM listens and its link is up.
start(Backend, More) ->
    Self = self(),
    Ref = make_ref(),
    {Pid, Monitor} = spawn_monitor(fun() -> init(Self, Ref, Backend, More) end),
    receive
        {Ref, Port} ->
            demonitor(Monitor, [flush]),
            #{pid => Pid, port => Port};
        {'DOWN', Monitor, process, _, Why} ->
            error({edge, Why})
    end.

port(#{port := Port}) -> Port.

%% Waits for a line of the ECM's log.
logged(#{pid := Pid}, Pattern) -> call(Pid, {logged, Pattern}).

stop(#{pid := Pid}) -> call(Pid, stop).

call(Pid, What) ->
    Ref = monitor(process, Pid),
    Pid ! {What, {self(), Ref}},
    receive
        {Ref, Reply} -> demonitor(Ref, [flush]), Reply;
        {'DOWN', Ref, process, _, Why} -> error({edge, Why})
    end.

init(Parent, Ref, Backend, More) ->
    Watch = monitor(process, Parent),
    File = filename:join("/tmp", "edge-" ++ os:getpid() ++ "-"
                         ++ integer_to_list(erlang:unique_integer([positive])) ++ ".toml"),
    ok = file:write_file(File, config(Backend, More)),
    Process = e2e_process:start(e2e_paths:ecm(), ["--config", File], []),
    try
        {ok, Line, Before} = e2e_process:wait_line(Process, "listening on ", ?TIMEOUT),
        {match, [Port]} = re:run(Line, "listening on [^ ]*:([0-9]+)", [{capture, [1], list}]),
        Up = fun(L) -> re:run(L, "link \\d+ up") =/= nomatch end,
        {ok, _, _} = case lists:any(Up, Before) of
                         true -> {ok, up, []};
                         false -> e2e_process:wait_line(Process, "link \\d+ up", ?TIMEOUT)
                     end,
        Parent ! {Ref, list_to_integer(Port)},
        loop(Process, Watch)
    after
        e2e_process:stop(Process),
        file:delete(File)
    end.

loop(Process, Watch) ->
    receive
        {{logged, Pattern}, {Pid, Ref}} ->
            Pid ! {Ref, e2e_process:wait_line(Process, Pattern, ?TIMEOUT)},
            loop(Process, Watch);
        {stop, {Pid, Ref}} ->
            e2e_process:stop(Process),
            Pid ! {Ref, ok};
        {'DOWN', Watch, process, _, _} ->
            ok
    end.

config({Where, Toml}, More) when Where =/= local -> config(Where, Toml, More);
config(Where, More) -> config(Where, [], More).

config(Backend, Toml, More) ->
    [More,
     "[backend]\naddress = \"", address(Backend), "\"\n", Toml,
     "[[listeners]]\nlisten = \"127.0.0.1:0\"\nservice = \"default\"\nkind = \"tcp\"\n"
     "[log]\nlevel = \"debug\"\n"].

address({local, Path}) -> ["unix:", Path];
address(Port) -> ["127.0.0.1:", integer_to_list(Port)].
