%% @doc `megaphone:listen/2': a link listener of an Erlang program's own.
-module(megaphone_listen).

%% megaphone
-export([open/2]).

-include_lib("kernel/include/logger.hrl").

%% Links that dial at the same time and wait to be accepted.
-define(LINK_BACKLOG, 128).
-define(SERVICE, <<"default">>).
-define(LINK_OPTIONS, [version_1, window, max_frame, max_connections, idle_timeout, heartbeat,
                       resume_timeout, resume_buffer, max_buffered]).
%% How long a look at an old socket file may take, in milliseconds.
-define(PROBE_TIMEOUT, 1000).

-spec open(inet:port_number() | {local, file:name_all()}, [megaphone:listen_option()]) ->
          {ok, Service :: pid()} | {error, term()}.
open(Address, Options) ->
    case megaphone_listener:prepare() of
        ok ->
            case listen(Address, family(Options)) of
                {ok, ListenSocket} -> start(ListenSocket, Address, Options);
                {error, _} = Error -> Error
            end;
        {error, Sentence} ->
            ?LOG_ERROR("megaphone:listen: ~ts", [Sentence]),
            {error, nif_not_loaded}
    end.

listen({local, Path}, _Family) ->
    ok = remove_stale(Path),
    gen_tcp:listen(0, [{ifaddr, {local, Path}} | link_options()]);
listen(Port, Family) ->
    gen_tcp:listen(Port, Family ++ link_options()).

link_options() ->
    [binary, {packet, raw}, {active, false}, {reuseaddr, true}, {nodelay, true},
     {keepalive, true}, {backlog, ?LINK_BACKLOG}].

%% A socket file on which nobody listens is what a killed process left.
remove_stale(Path) ->
    case gen_tcp:connect({local, Path}, 0, [], ?PROBE_TIMEOUT) of
        {ok, Socket} -> gen_tcp:close(Socket);  % listen will say eaddrinuse
        {error, econnrefused} -> _ = file:delete(Path), ok;
        {error, _} -> ok
    end.

start(ListenSocket, Address, Options) ->
    {ok, Name} = inet:sockname(ListenSocket),
    case megaphone_access:new(Name, access(Options)) of
        {ok, Access} ->
            start(ListenSocket, config(Name, Access, Address, Options));
        {error, Error} ->
            ?LOG_ERROR("megaphone listener ~ts does not start: ~ts",
                       [megaphone_address:format(Name), megaphone_access:format_error(Error)]),
            gen_tcp:close(ListenSocket),
            {error, Error}
    end.

start(ListenSocket, #{address := Name} = Config) ->
    case megaphone_listener:start(Name, Config#{listen => ListenSocket}) of
        {ok, #{tree := Tree}} ->
            {ok, Acceptor} = megaphone_listener_sup:child(Tree, link_acceptor),
            ok = gen_tcp:controlling_process(ListenSocket, Acceptor),
            megaphone_link_acceptor:begin_accepting(Acceptor),
            [Service] = maps:values(megaphone_listener_sup:services(Tree)),
            {ok, Service};
        {error, _} = Error ->
            gen_tcp:close(ListenSocket),
            Error
    end.

%% Who may dial, as far as it is said.
access(Options) ->
    maps:from_list([{Key, checked(Key, Value)}
                    || Key <- [secret, secret_file, tls, allowed_ips],
                       Value <- [proplists:get_value(Key, Options)], Value =/= undefined]).

config(Name, Access, Address, Options) ->
    Get = fun(Key, Default) -> checked(Key, proplists:get_value(Key, Options, Default)) end,
    Ours = fun(Key) -> Get(Key, megaphone_options:default(Key)) end,
    [Default | _] = Names = Get(services, [?SERVICE]),
    Config = #{owner => self(),
               access => Access,
               max_handshakes => Ours(max_handshakes),
               name => megaphone_address:format(Name),
               address => Name,
               %% One queue: who accepts does not choose among services.
               services => #{Default => #{socket_options => socket_options(Options)}},
               aliases => Names,
               accept_queue => Get(backlog, megaphone_options:default(accept_queue)),
               link => megaphone_options:link(
                         maps:from_list([{default_service, Default}
                                         | [{Key, Ours(Key)} || Key <- ?LINK_OPTIONS]]))},
    case Address of
        {local, Path} -> Config#{unlink => Path};
        _ -> Config
    end.

%% Nobody elsewhere is let in who was not asked for.
family(Options) ->
    case [Option || Option <- Options,
                    lists:member(key(Option), [inet, inet6, ip, ifaddr])] of
        [] -> [{ip, loopback}];
        [inet] -> [inet, {ip, loopback}];
        [inet6] -> [inet6, {ip, loopback}];
        Family -> Family
    end.

%% As gen_tcp does with a bad option: the caller's mistake, not an error to handle.
checked(version_1, Value) when is_boolean(Value) -> Value;
checked(services, [_ | _] = Value) ->
    lists:all(fun is_binary/1, Value) orelse exit(badarg),
    Value;
checked(idle_timeout, infinity) -> infinity;
checked(resume_timeout, 0) -> 0;
checked(heartbeat, Value) when Value < 1000 -> exit(badarg);
checked(max_frame, Value) when Value < 4096 -> exit(badarg);
checked(secret, Value) when is_binary(Value) -> Value;
checked(secret_file, Value) when is_list(Value); is_binary(Value) -> Value;
checked(Key, [_ | _] = Value) when Key =:= tls; Key =:= allowed_ips -> Value;
checked(Key, _) when Key =:= secret; Key =:= secret_file; Key =:= tls; Key =:= allowed_ips ->
    exit(badarg);
checked(_, Value) when is_integer(Value), Value > 0 -> Value;
checked(_, _) -> exit(badarg).

%% The rest is the accepted sockets'.
socket_options(Options) ->
    Ours = [ip, ifaddr, inet, inet6, backlog, services, reuseaddr,
            secret, secret_file, tls, allowed_ips, max_handshakes | ?LINK_OPTIONS],
    [binary || not lists:member(list, Options)]
        ++ [Option || Option <- Options, Option =/= binary,
                      not lists:member(key(Option), Ours)].

key({Key, _}) -> Key;
key(Key) -> Key.
