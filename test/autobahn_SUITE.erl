%% Autobahn's test suite for WebSocket, its fuzzing client, at an echo that speaks with the NIF's
%% WebSocket, through an ECM. All its cases but those of compression, which is not offered.
-module(autobahn_SUITE).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-export([suite/0, all/0, init_per_suite/1, end_per_suite/1]).
-export([framing/1, pings_and_pongs/1, reserved_bits/1, opcodes/1, fragmentation/1, utf8/1, close_handshake/1,
         limits_and_performance/1, auto_fragmentation/1]).

-define(TIMEOUT, 20_000).
-define(RUN_TIMEOUT, 240_000).
%% The largest message of section 9 has 16 MiB.
-define(MAX_MESSAGE, 16 * 1024 * 1024).

suite() -> [{timetrap, {minutes, 5}}].

all() ->
    [framing, pings_and_pongs, reserved_bits, opcodes, fragmentation, utf8, close_handshake, limits_and_performance,
     auto_fragmentation].

init_per_suite(Config) ->
    Python = filename:join([e2e_paths:installed(), "autobahn", "python"]),
    case filelib:is_file(Python) of
        true -> run(Python, Config);
        false -> {skip, "scripts/clients found no Python 2.7"}
    end.

%% One run for all sections: it starts once, and each of its cases is a connection of its own.
run(Python, Config) ->
    Dir = e2e_ejabberd:temporary(),
    Port = e2e_port:free(),
    Service = canary:service([], fun upgraded/1),
    Ecm = canary:start_ecm(["[backend]\naddress = \"127.0.0.1:", integer_to_list(canary:service_port(Service)), "\"\n"],
                           #{dir => Dir, ports => [Port]}),
    {ok, _} = e2e_log:wait(canary:ecm_log(Ecm), 0, "link 1 up", ?TIMEOUT),
    %% What Autobahn does wrong on purpose is in the log, a line a second; it need not fill the terminal.
    Log = log_capture:start(),
    Reports = filename:join(?config(priv_dir, Config), "autobahn"),
    Spec = filename:join(Dir, "spec.json"),
    ok = file:write_file(Spec, ["{\"outdir\": \"", Reports, "\", \"servers\": [{\"agent\": \"megaphone\", \"url\": \"ws://127.0.0.1:",
                                integer_to_list(Port), "\"}], \"cases\": [\"*\"], \"exclude-cases\": [\"12.*\", \"13.*\"], "
                                "\"exclude-agent-cases\": {}}"]),
    try
        {ok, 0, _} = e2e_process:run(Python, [filename:join([e2e_paths:root(), "test", "clients", "wstest.py"]),
                                              filename:join([e2e_paths:installed(), "autobahn", "site"]),
                                              "-m", "fuzzingclient", "-s", Spec], [], ?RUN_TIMEOUT),
        {ok, Index} = file:read_file(filename:join(Reports, "index.json")),
        [{verdicts, verdicts(Index)} | Config]
    after
        log_capture:stop(Log),
        catch canary:stop_ecm(Ecm),
        catch canary:stop(Service),
        file:del_dir_r(Dir)
    end.

end_per_suite(_Config) -> ok.

framing(Config) -> passed("1", 16, Config).

pings_and_pongs(Config) -> passed("2", 11, Config).

reserved_bits(Config) -> passed("3", 7, Config).

opcodes(Config) -> passed("4", 10, Config).

fragmentation(Config) -> passed("5", 20, Config).

utf8(Config) -> passed("6", 145, Config).

close_handshake(Config) -> passed("7", 37, Config).

limits_and_performance(Config) -> passed("9", 54, Config).

auto_fragmentation(Config) -> passed("10", 1, Config).

%% As many cases as Autobahn has, and each as it wants it. `NON-STRICT` is allowed by the RFC and
%% would be a pity; `INFORMATIONAL` has no right and wrong.
passed(Section, Count, Config) ->
    Cases = [Case || {Id, _, _} = Case <- ?config(verdicts, Config), hd(string:split(Id, ".")) =:= Section],
    ?assertEqual([], [Case || {_, Behavior, Close} = Case <- Cases,
                              not (good(Behavior) andalso good(Close))]),
    ?assertEqual(Count, length(Cases)),
    {comment, integer_to_list(Count) ++ " cases"}.

good(Verdict) -> lists:member(Verdict, ["OK", "INFORMATIONAL"]).

verdicts(Index) ->
    {match, Found} = re:run(Index, "\"([0-9.]+)\": {\\s*\"behavior\": \"([^\"]*)\",\\s*\"behaviorClose\": \"([^\"]*)\"",
                            [global, {capture, [1, 2, 3], list}]),
    [{Id, Behavior, Close} || [Id, Behavior, Close] <- Found].

%% ---- an echo ----

upgraded({'$inet', _, _} = Socket) -> upgraded(Socket, <<>>).

upgraded({'$inet', _, Conn} = Socket, Bytes) ->
    case binary:split(Bytes, <<"\r\n\r\n">>) of
        [Head, Early] ->
            {match, [Key]} = re:run(Head, "\r\nsec-websocket-key: *([^\r]*)", [caseless, {capture, [1], binary}]),
            ok = gen_tcp:send(Socket, ["HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                       "Sec-WebSocket-Accept: ",
                                       base64:encode(crypto:hash(sha, [Key, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"])), "\r\n\r\n"]),
            ok = gen_tcp:unrecv(Socket, Early),
            ok = megaphone_nif:ws_start(Conn, self(), #{max_message => ?MAX_MESSAGE, ping_interval => 0, timeout => 0,
                                                        reply_in_kind => true}),
            next(Conn);
        [_] ->
            case gen_tcp:recv(Socket, 0, ?TIMEOUT) of
                {ok, More} -> upgraded(Socket, <<Bytes/binary, More/binary>>);
                {error, _} -> gone
            end
    end.

next(Conn) ->
    case megaphone_nif:ws_next(Conn) of
        {ok, Message} -> echo(Conn, Message);
        closed -> gone;
        wait ->
            receive
                {'$megaphone_ws', Message} -> echo(Conn, Message);
                {tcp_closed, _} -> gone
            end
    end.

echo(Conn, Message) ->
    case megaphone_nif:ws_send(Conn, Message) of
        ok -> next(Conn);
        {wait, Token, _} -> receive {'$megaphone_reply', Token, _} -> next(Conn) end;
        {error, _} -> gone
    end.
