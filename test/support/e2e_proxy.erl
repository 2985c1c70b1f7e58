%% A TCP relay between an ECM and a link listener that can go bad: cut its connections, or let
%% nothing through any more without closing anything, as a network does that drops packets.
-module(e2e_proxy).

-export([start/1, port/1, cut/1, freeze/1, stall/1, thaw/1, stop/1]).
-export_type([proxy/0]).

-type proxy() :: #{pid := pid(), port := inet:port_number()}.

-spec start(Target :: inet:port_number()) -> proxy().
start(Target) ->
    Caller = self(),
    Pid = spawn_link(fun() -> init(Caller, Target) end),
    receive {Pid, Port} -> #{pid => Pid, port => Port} end.

-spec port(proxy()) -> inet:port_number().
port(#{port := Port}) -> Port.

%% Closes all connections; new ones are relayed.
cut(Proxy) -> tell(Proxy, cut).

%% Nothing passes any more, neither on the connections that are there nor on new ones. What was
%% sent meanwhile arrives after thaw/1.
freeze(Proxy) -> tell(Proxy, freeze).

%% The same for the connections that are there; new ones are relayed, as behind a firewall that
%% has forgotten what it let through.
stall(Proxy) -> tell(Proxy, stall).

thaw(Proxy) -> tell(Proxy, thaw).

stop(Proxy) -> tell(Proxy, stop).

tell(#{pid := Pid}, What) ->
    Ref = monitor(process, Pid),
    Pid ! {What, self(), Ref},
    receive
        {Ref, ok} -> demonitor(Ref, [flush]), ok;
        {'DOWN', Ref, process, _, Reason} -> error({proxy, Reason})
    end.

init(Caller, Target) ->
    {ok, Listener} = gen_tcp:listen(0, [binary, {active, false}, {ip, {127, 0, 0, 1}}, {reuseaddr, true}]),
    {ok, Port} = inet:port(Listener),
    Self = self(),
    _ = spawn_link(fun() -> accept(Self, Listener) end),
    Caller ! {self(), Port},
    loop(Target, Listener, [], false).

accept(Proxy, Listener) ->
    case gen_tcp:accept(Listener) of
        {ok, Socket} ->
            ok = gen_tcp:controlling_process(Socket, Proxy),
            Proxy ! {accepted, Socket},
            accept(Proxy, Listener);
        {error, closed} ->
            ok
    end.

loop(Target, Listener, Relays, Frozen) ->
    receive
        {accepted, Socket} ->
            Relay = spawn_link(fun() -> receive {go, Frozen0} -> relay(Socket, Target, Frozen0) end end),
            ok = gen_tcp:controlling_process(Socket, Relay),
            Relay ! {go, Frozen},
            loop(Target, Listener, [Relay | Relays], Frozen);
        {cut, From, Ref} ->
            all(Relays, cut),
            From ! {Ref, ok},
            loop(Target, Listener, [], Frozen);
        {stop, From, Ref} ->
            gen_tcp:close(Listener),
            all(Relays, cut),
            From ! {Ref, ok};
        {stall, From, Ref} ->
            all(Relays, freeze),
            From ! {Ref, ok},
            loop(Target, Listener, Relays, Frozen);
        {What, From, Ref} when What =:= freeze; What =:= thaw ->
            all(Relays, What),
            From ! {Ref, ok},
            loop(Target, Listener, Relays, What =:= freeze)
    end.

%% Returns when each relay has done it, or is gone.
all(Relays, What) ->
    lists:foreach(fun(Relay) ->
                          Ref = monitor(process, Relay),
                          Relay ! {What, self(), Ref},
                          receive
                              {Ref, ok} -> demonitor(Ref, [flush]);
                              {'DOWN', Ref, process, _, _} -> ok
                          end
                  end, Relays).

relay(Ecm, Target, true) ->
    receive
        {thaw, From, Ref} -> From ! {Ref, ok}, relay(Ecm, Target, false);
        {cut, From, Ref} -> gen_tcp:close(Ecm), From ! {Ref, ok}
    end;
relay(Ecm, Target, false) ->
    case gen_tcp:connect({127, 0, 0, 1}, Target, [binary, {active, false}, {nodelay, true}]) of
        {ok, Node} ->
            ok = inet:setopts(Ecm, [{nodelay, true}, {active, once}]),
            ok = inet:setopts(Node, [{active, once}]),
            relay(#{Ecm => Node, Node => Ecm});
        {error, _} ->
            gen_tcp:close(Ecm)
    end.

relay(Other) ->
    receive
        {tcp, From, Bytes} ->
            case gen_tcp:send(maps:get(From, Other), Bytes) of
                ok -> _ = inet:setopts(From, [{active, once}]), relay(Other);
                {error, _} -> cut_off(Other)
            end;
        {Closed, _Socket} when Closed =:= tcp_closed ->
            cut_off(Other);
        {tcp_error, _Socket, _Reason} ->
            cut_off(Other);
        {freeze, From, Ref} ->
            From ! {Ref, ok},
            frozen(Other);
        {thaw, From, Ref} ->
            From ! {Ref, ok},
            relay(Other);
        {cut, From, Ref} ->
            cut_off(Other),
            From ! {Ref, ok}
    end.

%% Not even an end passes: whoever closes, the other side does not know.
frozen(Other) ->
    receive
        {thaw, From, Ref} -> From ! {Ref, ok}, relay(Other);
        {freeze, From, Ref} -> From ! {Ref, ok}, frozen(Other);
        {cut, From, Ref} -> cut_off(Other), From ! {Ref, ok}
    end.

cut_off(Other) -> lists:foreach(fun gen_tcp:close/1, maps:keys(Other)).
