%% @doc Starts links: a greeter for each socket that an edge has dialled, and the receiver of the
%% link that comes of it.
-module(megaphone_link).

%% megaphone_listener, megaphone_link_acceptor
-export([ref/2]).
%% megaphone_link_acceptor
-export([open/2]).
%% megaphone_greeter
-export([start_receiver/2, is_ours/2]).

-export_type([ref/0]).

%% SOL_SOCKET, SO_PEERCRED and the size of `struct ucred' on Linux, unix(7).
-define(PEERCRED, {raw, 1, 17, 12}).

%% What a dial needs to become a link.
-type ref() :: #{tree := pid(), guard := pid(), dials := pid(), name := string(),
                 node := binary(),
                 access := megaphone_access:access(),
                 restricted := boolean(),       % links of our own ECM only
                 link := map()}.                % of megaphone_receiver:start_link/1

%% @doc What links of the listener `Config' need, whose tree is `Tree'.
-spec ref(pid(), megaphone_listener:config()) -> ref().
ref(Tree, #{name := Name, access := Access, link := Link} = Config) ->
    {ok, Guard} = megaphone_listener_sup:child(Tree, guard),
    {ok, Dials} = megaphone_listener_sup:child(Tree, dials),
    #{tree => Tree, guard => Guard, dials => Dials, name => Name,
      node => atom_to_binary(node()),
      access => Access,
      restricted => is_map_key(ecm, Config),
      link => Link#{services => services(Tree, Config),
                    listener => list_to_binary(Name)}}.

services(Tree, #{aliases := Names}) ->
    [Pid] = maps:values(megaphone_listener_sup:services(Tree)),
    maps:from_keys(Names, Pid);
services(Tree, #{}) ->
    maps:merge(megaphone_listener_sup:services(Tree),
               maps:map(fun(_Name, Pid) -> megaphone_http_service:handle(Pid) end,
                        megaphone_listener_sup:http_services(Tree))).

%% @doc Takes a dial on a socket that the caller has accepted; the caller closes it where that
%% fails.
%%
%% `not_our_ecm': where we run the ECM ourselves, no other process may be one,
%% not even of our own user's. `refused': megaphone_dials has said why.
-spec open(gen_tcp:socket(), ref()) ->
          {ok, pid()}
        | {error, closed | refused
                | {not_our_ecm, Pid :: integer(), Uid :: integer()} | term()}.
open(Socket, Ref) ->
    case admit(Socket, Ref) of
        ok ->
            case megaphone_greeter:start(alone, Socket, Ref) of
                {ok, Pid} -> activate(Socket, Pid);
                {error, _} = Error -> Error
            end;
        {error, _} = Error ->
            Error
    end.

activate(Socket, Greeter) ->
    case gen_tcp:controlling_process(Socket, Greeter) of
        ok ->
            megaphone_greeter:activate(Greeter),
            {ok, Greeter};
        {error, _} = Error ->
            exit(Greeter, shutdown),
            Error
    end.

admit(_Socket, #{restricted := false}) ->
    ok;
admit(Socket, #{tree := Tree}) ->
    case {edge_pid(Tree), inet:getopts(Socket, [?PEERCRED])} of
        {{ok, Pid}, {ok, [{raw, 1, 17, <<Pid:32/native, _Uid:32, _Gid:32>>}]}} ->
            ok;
        {_, {ok, [{raw, 1, 17, <<Pid:32/native, Uid:32/native, _Gid:32>>}]}} ->
            {error, {not_our_ecm, Pid, Uid}};
        {_, Other} ->
            {error, {no_peer_credentials, Other}}
    end.

edge_pid(Tree) ->
    case megaphone_listener_sup:child(Tree, edge) of
        {ok, Edge} -> megaphone_edge:os_pid(Edge);
        {error, _} = Error -> Error
    end.

%% @doc Starts the receiver of a link that is up, under the listener's own supervisor. `Link' is
%% what its handshake gave.
-spec start_receiver(map(), ref()) -> {ok, pid()} | {error, closed | term()}.
start_receiver(Link, #{tree := Tree, guard := Guard, link := Options}) ->
    case start(Tree, maps:merge(Options, Link)) of
        {ok, Pid} ->
            %% No link outlives its listener: the guard knows of it before it
            %% takes the first byte.
            case megaphone_listener:add_link(Guard, Pid) of
                ok ->
                    {ok, Pid};
                {error, closed} = Error ->
                    exit(Pid, shutdown),
                    Error
            end;
        {error, _} = Error ->
            Error
    end.

start(Tree, Options) ->
    case megaphone_listener_sup:child(Tree, links) of
        {ok, Links} -> megaphone_links:start_receiver(Links, Options);
        {error, _} = Error -> Error
    end.

%% @doc Is this the receiver of a link of the same listener?
-spec is_ours(pid(), ref()) -> boolean().
is_ours(Receiver, #{guard := Guard}) ->
    megaphone_listener:has_link(Guard, Receiver).
