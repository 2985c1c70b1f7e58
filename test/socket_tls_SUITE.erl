%% A virtual socket turned into a TLS socket, as STARTTLS does: OTP's ssl on it, and
%% ejabberd's fast_tls where that is installed. The client is a real one.
-module(socket_tls_SUITE).
-define(GROUPS, [tcp, megaphone]).
-include("support/socket_cases.hrl").

cases() ->
    [handshake_and_echo, much_both_ways, upgrade_in_mid_stream, active_once, close_notify,
     refused_handshake, client_leaves_in_the_handshake, fast_tls_and_echo].

%% ---- ssl ----

handshake_and_echo(Config) ->
    {Client, Server} = tls(Config),
    ok = ssl:send(Client, "hello"),
    ?assertEqual({ok, <<"hello">>}, ssl:recv(Server, 5, ?TIMEOUT)),
    ok = ssl:send(Server, "world"),
    ?assertEqual({ok, <<"world">>}, ssl:recv(Client, 5, ?TIMEOUT)).

much_both_ways(Config) ->
    {Client, Server} = tls(Config),
    Bytes = binary:copy(<<"0123456789abcdef">>, 40000),
    Writers = [in_process(fun() -> ssl:send(From, Bytes) end) || From <- [Client, Server]],
    [?assert({ok, Bytes} =:= ssl:recv(To, byte_size(Bytes), ?TIMEOUT)) || To <- [Client, Server]],
    [ok = result(W) || W <- Writers].

%% STARTTLS: lines first, then TLS on the same socket.
upgrade_in_mid_stream(Config) ->
    {C, S} = open(Config, [{packet, line}]),
    socket_pair:send(C, "STARTTLS\n"),
    ?assertEqual({ok, <<"STARTTLS\n">>}, gen_tcp:recv(S, 0, ?TIMEOUT)),
    ok = inet:setopts(S, [{packet, raw}]),
    ok = gen_tcp:send(S, "OK\n"),
    <<"OK\n">> = socket_pair:recv(C, 3),
    {Client, Server} = upgrade(Config, C, S),
    ok = ssl:send(Client, "hello"),
    ?assertEqual({ok, <<"hello">>}, ssl:recv(Server, 5, ?TIMEOUT)).

active_once(Config) ->
    {Client, Server} = tls(Config),
    ok = ssl:setopts(Server, [{active, once}]),
    ok = ssl:send(Client, "abc"),
    receive {ssl, Server, Data} -> ?assertEqual(<<"abc">>, Data)
    after ?TIMEOUT -> error({timeout, process_info(self(), messages)}) end,
    ok = ssl:setopts(Server, [{active, true}]),
    ok = ssl:send(Client, "def"),
    receive {ssl, Server, More} -> ?assertEqual(<<"def">>, More)
    after ?TIMEOUT -> error({timeout, process_info(self(), messages)}) end.

close_notify(Config) ->
    {Client, Server} = tls(Config),
    ok = ssl:close(Client),
    ?assertEqual({error, closed}, ssl:recv(Server, 0, ?TIMEOUT)),
    {Client2, Server2} = tls(Config),
    ok = ssl:close(Server2),
    ?assertEqual({error, closed}, ssl:recv(Client2, 0, ?TIMEOUT)).

refused_handshake(Config) ->
    {C, S} = open(Config),
    socket_pair:send(C, "this is no TLS at all\r\n"),
    ?assertMatch({error, {tls_alert, _}}, ssl:handshake(S, server_options(Config), ?TIMEOUT)).

client_leaves_in_the_handshake(Config) ->
    {C, S} = open(Config),
    socket_pair:send(C, <<22, 3, 1>>),
    socket_pair:close(C),
    ?assertMatch({error, _}, ssl:handshake(S, server_options(Config), ?TIMEOUT)).

%% ---- fast_tls ----

fast_tls_and_echo(Config) ->
    %% ejabberd's own, of the packages that scripts/ejabberd unpacked.
    Libs = filename:join([e2e_paths:ejabberd("23.01"), "unpacked/usr/lib/erlang/lib"]),
    ok = code:add_pathsz(filelib:wildcard(filename:join(Libs, "p1_{tls,utils}-*/ebin"))),
    case code:ensure_loaded(fast_tls) of
        {error, _} -> {skip, "no fast_tls here"};
        {module, _} -> fast_tls_and_echo_(Config)
    end.

fast_tls_and_echo_(Config) ->
    {ok, _} = application:ensure_all_started(fast_tls),
    {C, S} = open(Config),
    Client = client(C),
    {ok, T} = fast_tls:tcp_to_tls(S, [{certfile, pem(Config)}]),
    Echo = in_process(fun() ->
                              Ssl = connected(Client),
                              ok = ssl:send(Ssl, "hello"),
                              ssl:recv(Ssl, 5, ?TIMEOUT)
                      end),
    {ok, <<"hello">>} = fast_tls_recv(T, 5, <<>>),
    ok = fast_tls:send(T, "world"),
    ?assertEqual({ok, <<"world">>}, result(Echo)).

fast_tls_recv(_, N, Acc) when byte_size(Acc) >= N -> {ok, Acc};
fast_tls_recv(T, N, Acc) ->
    {ok, Bytes} = fast_tls:recv(T, 0, ?TIMEOUT),
    fast_tls_recv(T, N, <<Acc/binary, Bytes/binary>>).

%% ---- helpers ----

tls(Config) ->
    {C, S} = open(Config),
    upgrade(Config, C, S).

upgrade(Config, C, S) ->
    Client = client(C),
    {ok, Server} = ssl:handshake(S, server_options(Config), ?TIMEOUT),
    {connected(Client), Server}.

%% The handshake needs both sides at the same time, and each its own process.
client(C) ->
    {ok, _} = application:ensure_all_started(ssl),
    Socket = socket_pair:socket(C),
    ok = inet:setopts(Socket, [{exit_on_close, true}]),
    Pid = spawn(fun() ->
                        receive go -> ok end,
                        {ok, T} = ssl:connect(Socket, client_options(), ?TIMEOUT),
                        receive
                            {get, To} -> ok = ssl:controlling_process(T, To), To ! {self(), T}
                        end
                end),
    ok = gen_tcp:controlling_process(Socket, Pid),
    Pid ! go,
    Pid.

connected(Pid) ->
    Ref = monitor(process, Pid),
    Pid ! {get, self()},
    receive
        {Pid, T} -> demonitor(Ref, [flush]), T;
        {'DOWN', Ref, _, _, Why} -> error({client, Why})
    end.

server_options(Config) ->
    {ok, _} = application:ensure_all_started(ssl),
    [{certs_keys, [certificate(Config)]}, {active, false}, {mode, binary}].
client_options() -> [{verify, verify_none}, {active, false}, {mode, binary}].

%% Made by OTP itself, for the length of a test.
certificate(_Config) ->
    case persistent_term:get(?MODULE, undefined) of
        undefined ->
            Key = [{key, {namedCurve, secp256r1}}, {digest, sha256}],
            Chain = #{root => Key, intermediates => [], peer => Key},
            #{server_config := Server} =
                public_key:pkix_test_data(#{server_chain => Chain, client_chain => Chain}),
            Made = maps:with([cert, key], maps:from_list(Server)),
            persistent_term:put(?MODULE, Made),
            Made;
        Made -> Made
    end.

pem(Config) ->
    #{cert := Cert, key := {Type, Der}} = certificate(Config),
    File = filename:join(proplists:get_value(priv_dir, Config), "tls.pem"),
    ok = file:write_file(File, public_key:pem_encode([{Type, Der, not_encrypted},
                                                      {'Certificate', Cert, not_encrypted}])),
    File.
