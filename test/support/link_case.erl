%% What the link suites begin with: a listener, a link under test, and a neighbour on a
%% link of its own that must notice nothing, whatever is done to the first.
-module(link_case).

-export([start/1, start/2, stop/1]).
-export([listen/1, port/1, peer/1, log/1, connect/1, connect/2]).
-export([open/1, open/2, open/3, works/1, works/3, undisturbed/1, link_pid/1, counters/1]).

-define(TIMEOUT, 10000).

start(Config) -> start(Config, []).

%% Options are those of megaphone:listen/2.
start(Config, Options) ->
    Log = log_capture:start(),
    {ok, L} = megaphone:listen(0, [{ip, {127, 0, 0, 1}} | Options]),
    {ok, Port} = inet:port(L),
    [Neighbour, Peer] = [up(link_peer:connect(Port, #{name => Name}), #{})
                         || Name <- ["neighbour", "peer"]],
    Case = #{listen => L, port => Port, log => Log, peer => Peer, neighbour => Neighbour},
    [{link_case, Case#{beside => open(Case, Neighbour)}} | Config].

stop(Config) ->
    #{listen := L, log := Log, peer := Peer, neighbour := Neighbour} = the(Config),
    [catch link_peer:stop(P) || P <- [Peer, Neighbour]],
    gen_tcp:close(L),
    log_capture:stop(Log).

the(Config) when is_map(Config) -> Config;
the(Config) -> proplists:get_value(link_case, Config).

listen(Config) -> maps:get(listen, the(Config)).
port(Config) -> maps:get(port, the(Config)).
peer(Config) -> maps:get(peer, the(Config)).
log(Config) -> maps:get(log, the(Config)).

%% One more link.
connect(Config) -> connect(Config, #{}).
connect(Config, Options) -> up(link_peer:connect(port(Config), Options), Options).

%% Who answers the hello has no link yet: it is there with the first answer to a ping.
up(Peer, #{handshake := false}) -> Peer;
up(Peer, #{version := 1}) -> Peer;
up(Peer, _) -> ok = link_peer:flush(Peer), Peer.

%% A new connection on the link under test, or on another: {Id, Socket}.
open(Config) -> open(Config, peer(Config)).
open(Config, Peer) -> open(Config, Peer, []).

open(Config, Peer, Options) ->
    Id = erlang:unique_integer([positive]) + 1000,
    ok = link_peer:open(Peer, Id, <<"default">>),
    {ok, Socket} = gen_tcp:accept(listen(Config), ?TIMEOUT),
    Id = megaphone:connection_id(Socket),
    %% Without any, it may be closed already.
    Options =:= [] orelse (ok = inet:setopts(Socket, Options)),
    {Id, Socket}.

%% The neighbour's connection carries bytes both ways, and a new link is taken.
undisturbed(Config) ->
    #{neighbour := Neighbour, beside := {Id, Socket}} = the(Config),
    works(Neighbour, Id, Socket),
    Another = connect(Config),
    {Id2, Socket2} = open(Config, Another),
    works(Another, Id2, Socket2),
    ok = gen_tcp:close(Socket2),
    link_peer:stop(Another).

%% Another connection of the link under test does.
works(Config) ->
    {Id, Socket} = open(Config),
    works(peer(Config), Id, Socket),
    gen_tcp:close(Socket).

works(Peer, Id, Socket) ->
    Word = integer_to_binary(erlang:unique_integer([positive])),
    Size = byte_size(Word),
    ok = link_peer:send(Peer, Id, Word),
    {ok, Word} = gen_tcp:recv(Socket, Size, ?TIMEOUT),
    ok = gen_tcp:send(Socket, Word),
    Word = link_peer:recv(Peer, Id, Size),
    ok.

%% The process that holds this peer's link.
link_pid(Peer) ->
    #{<<"link">> := Name} = link_peer:hello(Peer),
    [Pid] = [Pid || {Pid, #{link := Link}} <- megaphone:links(), Link =:= Name],
    Pid.


%% What the link counted.
counters(Peer) ->
    {ok, Info} = megaphone:info(link_pid(Peer)),
    Info.
