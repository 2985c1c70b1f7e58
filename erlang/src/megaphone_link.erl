%% @doc Starts links: a receiver for each socket that an edge has dialled.
-module(megaphone_link).

%% megaphone_listener, megaphone_link_acceptor
-export([ref/2]).
%% megaphone_link_acceptor
-export([open/2]).
%% megaphone_ejabberd
-export([start_receiver/3]).

-export_type([ref/0]).

%% SOL_SOCKET, SO_PEERCRED and the size of `struct ucred' on Linux, unix(7).
-define(PEERCRED, {raw, 1, 17, 12}).

%% What a link needs to be started.
-type ref() :: #{tree := pid(), guard := pid(), name := string(),
                 restricted := boolean(),       % links of our own ECM only
                 link := map()}.                % of megaphone_receiver:start_link/2

%% @doc What links of the listener `Config' need, whose tree is `Tree'.
-spec ref(pid(), megaphone_listener:config()) -> ref().
ref(Tree, #{name := Name, link := Link} = Config) ->
    {ok, Guard} = megaphone_listener_sup:child(Tree, guard),
    #{tree => Tree, guard => Guard, name => Name,
      restricted => is_map_key(ecm, Config),
      link => Link#{services => services(Tree, Config),
                    name => atom_to_binary(node()),
                    listener => list_to_binary(Name)}}.

services(Tree, #{aliases := Names}) ->
    [Pid] = maps:values(megaphone_listener_sup:services(Tree)),
    maps:from_keys(Names, Pid);
services(Tree, #{}) ->
    megaphone_listener_sup:services(Tree).

%% @doc Takes a link on a socket that the caller has accepted; the caller
%% closes it where that fails.
%%
%% `not_our_ecm': where we run the ECM ourselves, no other process may be one,
%% not even of our own user's.
-spec open(gen_tcp:socket(), ref()) ->
          {ok, pid()}
        | {error, closed | {not_our_ecm, Pid :: integer(), Uid :: integer()} | term()}.
open(Socket, Ref) ->
    case admit(Socket, Ref) of
        ok ->
            case start_receiver(ours, Socket, Ref) of
                {ok, Pid} -> activate(Socket, Pid);
                {error, _} = Error -> Error
            end;
        {error, _} = Error ->
            Error
    end.

%% @doc Starts a link's receiver, linked to the caller (`linked', what ejabberd's
%% supervisor wants) or under our own supervisor (`ours').
-spec start_receiver(linked | ours, gen_tcp:socket(), ref()) ->
          {ok, pid()} | {error, closed | term()}.
start_receiver(How, Socket, #{guard := Guard} = Ref) ->
    case start(How, Socket, Ref) of
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

start(linked, Socket, #{link := Link}) ->
    megaphone_receiver:start_link(Socket, Link);
start(ours, Socket, #{tree := Tree, link := Link}) ->
    case megaphone_listener_sup:child(Tree, links) of
        {ok, Links} -> megaphone_links:start_receiver(Links, Socket, Link);
        {error, _} = Error -> Error
    end.

activate(Socket, Pid) ->
    case gen_tcp:controlling_process(Socket, Pid) of
        ok ->
            _ = megaphone_receiver:activate(Pid),
            {ok, Pid};
        {error, _} = Error ->
            exit(Pid, shutdown),
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
