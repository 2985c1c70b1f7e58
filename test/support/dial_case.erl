%% What suites about dials begin with: a listener of their own, a peer that has said nothing yet, and what
%% the listener counts.
-module(dial_case).

-include_lib("common_test/include/ct.hrl").

-export([listen/1, stranger/1, say_hello/2, works/2, address/1, server/2]).
-export([tree/1, dials/1, settled_dials/1]).

-define(TIMEOUT, 10_000).

listen(Options) ->
    {ok, L} = megaphone:listen(0, Options),
    {ok, Port} = inet:port(L),
    {L, Port}.

%% One that has said nothing yet.
stranger(Port) -> link_peer:connect(Port, #{handshake => false}).

say_hello(Peer, Options) ->
    ok = link_peer:raw(Peer, link_peer:frame(0, link_peer:hello_line(Options))),
    _ = link_peer:wait_line(Peer, "^hello "),
    link_peer:hello(Peer).

%% A connection on this link carries bytes both ways.
works(L, Peer) ->
    Id = erlang:unique_integer([positive]) + 1000,
    ok = link_peer:open(Peer, Id, <<"default">>),
    {ok, Socket} = gen_tcp:accept(L, ?TIMEOUT),
    ok = link_case:works(Peer, Id, Socket),
    {Id, Socket}.

address(Peer) ->
    {_, Port} = link_peer:address(Peer),
    "127\\.0\\.0\\.[12]:" ++ integer_to_list(Port).

server(Config, Verify) ->
    #{server := Server, client_ca := Ca} = ?config(certificates, Config),
    [{certfile, Server}, {keyfile, Server}, {verify, Verify}, {cacertfile, Ca}].

tree(L) ->
    {ok, Address} = megaphone:sockname(L),
    [Tree] = [Tree || Tree <- megaphone_root:listeners(),
                      {ok, Address} =:= megaphone_listener:sockname(Tree)],
    Tree.

dials(L) -> maps:get(dials, megaphone_listener:info(tree(L))).

%% When no dial is left.
settled_dials(L) ->
    poll:until(fun() -> maps:get(now, dials(L)) =:= 0 end),
    dials(L).
