%% Attacks on megaphone's HTTP and WebSocket, each with the limit that stops it (what the client is told
%% and what the log says), while users beside it go on chatting.
-module(attack_SUITE).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-export([suite/0, all/0, init_per_suite/1, end_per_suite/1, init_per_testcase/2, end_per_testcase/2]).
-export([slow_loris/1, slow_loris_of_the_first_line/1, header_flood/1, one_endless_header/1, long_target/1, huge_body/1,
         endless_chunks/1, chunk_extensions/1, slow_body/1, slow_chunks/1, slow_read/1, smuggling/1, pipelining_flood/1,
         request_and_reset_storm/1, idle_connections/1]).
-export([websocket_bombs/1, websocket_fragments_without_end/1, websocket_ping_flood/1, websocket_reads_nothing/1,
         xml_bombs/1]).

-define(TIMEOUT, 15_000).
%% Of the service that is attacked.
-define(LIMITS, ", head_timeout: 1, body_timeout: 1, idle_timeout: 3, send_timeout: 1, max_body_size: 1000000").
%% How long an attack that a timeout of 1 s ends may take, on a busy machine.
-define(ENDED_WITHIN, 6000).
%% What users beside an attack may wait for four round trips, in milliseconds. It takes tens where there is room, and
%% without end where an attack holds the link up; attacker, edge, server, users and whatever else runs share two cores.
-define(UNDISTURBED, 5000).

suite() -> [{timetrap, {seconds, 90}}].

all() ->
    [slow_loris, slow_loris_of_the_first_line, header_flood, one_endless_header, long_target, huge_body, endless_chunks,
     chunk_extensions, slow_body, slow_chunks, slow_read, smuggling, pipelining_flood, request_and_reset_storm, idle_connections,
     websocket_bombs, websocket_fragments_without_end, websocket_ping_flood, websocket_reads_nothing, xml_bombs].

init_per_suite(Config) ->
    [{world, e2e_parity:start("24.12", #{more => ?LIMITS})} | Config].

end_per_suite(Config) ->
    e2e_parity:stop(?config(world, Config), ?config(priv_dir, Config)).

%% The users are at the service beside the one that is attacked, over the same link.
init_per_testcase(_Case, Config) ->
    Ports = #{http => port(custom, Config)},
    [{users, spawn_users(Ports)} | Config].

end_per_testcase(_Case, Config) ->
    {Rounds, Worst} = stop_users(?config(users, Config)),
    ct:log("~b rounds of chat beside it, the slowest took ~b ms", [Rounds, Worst]),
    case {Rounds > 0, Worst =< ?UNDISTURBED} of
        {true, true} -> ok;
        _ -> {fail, {users_disturbed, {rounds, Rounds}, {slowest_ms, Worst}}}
    end.

%% ---- heads ----

%% Hundreds that send a header's byte now and then: the head has one deadline, whatever comes.
slow_loris(Config) ->
    drips(["GET /echo HTTP/1.1\r\nHost: a\r\nX-", fun() -> "a" end], 200, Config, 408, "408: .*head_timeout").

slow_loris_of_the_first_line(Config) ->
    drips(["GET /", fun() -> "a" end], 50, Config, 408, "408: .*head_timeout").

header_flood(Config) ->
    floods("GET /echo HTTP/1.1\r\nHost: a\r\n", fun(N) -> ["X-", integer_to_list(N), ": y\r\n"] end, Config, 431, "431: ").

one_endless_header(Config) ->
    floods("GET /echo HTTP/1.1\r\nHost: a\r\nX: ", fun(_) -> lists:duplicate(100, $y) end, Config, 431, "431: ").

long_target(Config) ->
    floods("GET /", fun(_) -> lists:duplicate(100, $y) end, Config, 414, "414: ").

%% ---- bodies ----

%% Refused at the head: nothing of it is waited for.
huge_body(Config) ->
    logged("413: .*max_body_size", Config,
           fun() ->
                   Seen = exchange(plain, [["POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000000\r\n\r\n"]], Config),
                   ?assertMatch([<<"HTTP/1.1 413", _/binary>>, closed], Seen)
           end).

endless_chunks(Config) ->
    Chunk = ["1000\r\n", lists:duplicate(16#1000, $x), "\r\n"],
    Sent = floods("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", fun(_) -> Chunk end, Config,
                  413, "413: .*max_body_size"),
    %% What is in between has a bound: the kernel's buffers, the ECM's and the link's windows.
    ?assert(Sent < 20_000_000, Sent).

%% A byte of body with a kilobyte around it.
chunk_extensions(Config) ->
    Chunk = ["1;", lists:duplicate(1000, $x), "\r\nx\r\n"],
    floods("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", fun(_) -> Chunk end, Config, 400, "400: ").

slow_body(Config) ->
    drips(["POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n", fun() -> "a" end], 100, Config,
          408, "408: .*body_timeout").

slow_chunks(Config) ->
    drips(["POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", fun() -> "1\r\na\r\n" end], 100, Config,
          408, "408: .*body_timeout").

%% Asks for much and reads none of it.
slow_read(Config) ->
    Before = connections(Config),
    Memory = megaphone_memory(Config),
    #{node := Node} = ?config(world, Config),
    Mark = e2e_ejabberd:mark_log(Node),
    Sockets = [begin
                   Socket = e2e_raw:connect(port(plain, Config), [{recbuf, 4096}]),
                   ok = gen_tcp:send(Socket, lists:duplicate(10, "GET /echo/shape/big HTTP/1.1\r\nHost: a\r\n\r\n")),
                   Socket
               end || _ <- lists:seq(1, 20)],
    {ok, _} = e2e_ejabberd:wait_log(Node, Mark, "send_timeout", ?TIMEOUT),
    ok = poll:until(fun() -> connections(Config) =< Before end),
    %% What is in buffers still comes, then the end: 15 MB were asked for.
    [begin
         {Size, Reason} = read_all(Socket, 0),
         ?assert(Size < 10_000_000, Size),
         ?assert(lists:member(Reason, [closed, econnreset]), Reason),
         gen_tcp:close(Socket)
     end || Socket <- Sockets],
    After = megaphone_memory(Config),
    ?assert(After - Memory < 5_000_000, {Memory, After}).

%% ---- what two readers could read in two ways ----

%% None is served twice, or in another way than by a refusal.
smuggling(Config) ->
    Post = "POST /echo HTTP/1.1\r\nHost: a\r\n",
    Smuggled = "GET /echo/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    Requests =
        [{"CL.TE", [Post, "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG", Smuggled]},
         {"TE.CL", [Post, "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\n", Smuggled]},
         {"CL.CL", [Post, "Content-Length: 0\r\nContent-Length: 44\r\n\r\n", Smuggled]},
         {"TE in 1.0", ["POST /echo HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Smuggled]},
         {"CL in a continued line", [Post, "X: y\r\n Content-Length: 44\r\n\r\n", Smuggled]},
         {"LF in the head", [Post, "X: y\nContent-Length: 44\r\n\r\n", Smuggled]},
         {"CR in the head", [Post, "X: y\rContent-Length: 44\r\n\r\n", Smuggled]},
         {"space before the colon", [Post, "Content-Length : 44\r\n\r\n", Smuggled]},
         {"space before the name", [Post, " Content-Length: 44\r\n\r\n", Smuggled]},
         {"chunk's size too long", [Post, "Transfer-Encoding: chunked\r\n\r\n00000000000000000\r\n\r\n", Smuggled]},
         {"chunk's size of 2^64", [Post, "Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n\r\n", Smuggled]},
         {"chunk's size with a sign", [Post, "Transfer-Encoding: chunked\r\n\r\n+0\r\n\r\n", Smuggled]},
         {"chunk's size in 0x", [Post, "Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n", Smuggled]},
         {"chunk with LF", [Post, "Transfer-Encoding: chunked\r\n\r\n0\n\n", Smuggled]},
         {"chunk's end missing", [Post, "Transfer-Encoding: chunked\r\n\r\n1\r\na0\r\n\r\n", Smuggled]}]
        ++ [{[$", Value, $"], [Post, "Transfer-Encoding: ", Value, "\r\n\r\n0\r\n\r\n", Smuggled]}
            || Value <- ["xchunked", "chunked, identity", "identity, chunked", "chunked, chunked", [11, "chunked"], "\"chunked\"",
                         "chunked;x=1", "", "identity", "chunke"]]
        ++ [{["Content-Length ", Value], [Post, "Content-Length: ", Value, "\r\n\r\n", Smuggled]}
            || Value <- ["44x", "4 4", "44,44", "0x2c", "+44", "-1", "44.0", "1e2", "", "9223372036854775808", "99999999999999999999999"]],
    logged("(400|501|413): ", Config,
           fun() ->
                   Served = [{Name, Seen}
                             || {Name, Request} <- Requests,
                                Seen <- [exchange(plain, [Request], Config)],
                                not refused(Seen)],
                   ?assertEqual([], Served)
           end).

refused([Answer, closed]) when is_binary(Answer) -> lists:member(e2e_raw:status(Answer), [400, 413, 501]);
refused(_) -> false.

%% ---- many ----

%% Tens of thousands of requests in a row and no answer read: the client is held up, and when it reads,
%% each is answered, in order.
pipelining_flood(Config) ->
    Before = megaphone_memory(Config),
    Socket = e2e_raw:connect(port(custom, Config), [{recbuf, 4096}, {sndbuf, 4096}, {send_timeout, 300}]),
    Batch = fun(From) -> [["GET /echo/", integer_to_list(N), " HTTP/1.1\r\nHost: a\r\n\r\n"] || N <- lists:seq(From, From + 99)] end,
    Sent = flood_until_held(Socket, Batch, 0, 60_000),
    ?assert(megaphone_memory(Config) - Before < 10_000_000),
    ?assert(Sent < 60_000, not_held_up),
    ok = gen_tcp:shutdown(Socket, write),
    Answers = count_answers(Socket, <<>>, 0),
    ?assert(Answers > 100),
    ct:log("~b requests sent before it was held up, ~b answers in order", [Sent, Answers]),
    gen_tcp:close(Socket).

flood_until_held(Socket, Batch, Sent, Most) when Sent < Most ->
    case gen_tcp:send(Socket, Batch(Sent)) of
        ok -> flood_until_held(Socket, Batch, Sent + 100, Most);
        {error, timeout} -> Sent
    end;
flood_until_held(_Socket, _Batch, Sent, _Most) -> Sent.

%% The echo tells its number.
count_answers(Socket, Bytes, N) ->
    case e2e_raw:read(Socket, "GET", Bytes) of
        {ok, <<"HTTP/1.1 200", _/binary>> = Answer, Rest} ->
            Number = integer_to_binary(N),
            ?assertMatch({match, _}, re:run(Answer, ["local_path,\\[<<\"", Number, "\">>\\]"])),
            count_answers(Socket, Rest, N + 1);
        %% The last request was cut where the client was held up.
        {ok, <<"HTTP/1.1 4", _/binary>>, _} -> N;
        {ended, _, _} -> N
    end.

%% A request and the client's end, at once, without end: what they started comes to its end too.
request_and_reset_storm(Config) ->
    Before = processes(Config),
    Body = "<body xmlns='http://jabber.org/protocol/httpbind' rid='1' sid='none'/>",
    [begin
         Socket = e2e_raw:connect(port(plain, Config), [{linger, {true, 0}}]),
         _ = gen_tcp:send(Socket, case N rem 3 of
                                      0 when N rem 30 =:= 0 -> "GET /echo/shape/big HTTP/1.1\r\nHost: a\r\n\r\n";
                                      0 -> "GET /echo HTTP/1.1\r\nHost: a\r\n\r\n";
                                      1 -> ["POST /bosh HTTP/1.1\r\nHost: a\r\nContent-Length: ",
                                            integer_to_list(length(Body)), "\r\n\r\n", Body];
                                      2 -> "PUT /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nabc"
                                  end),
         gen_tcp:close(Socket)
     end || N <- lists:seq(1, 600)],
    ok = poll:until(fun() -> processes(Config) =< Before + 30 end),
    ?assertMatch([<<"HTTP/1.1 200", _/binary>>, open],
                 exchange(plain, [["GET /echo HTTP/1.1\r\nHost: a\r\n\r\n"]], Config)).

%% Connections that ask once and stay, and some that never ask: closed, and no process for any.
idle_connections(Config) ->
    Before = processes(Config),
    Sockets = [begin
                   Socket = e2e_raw:connect(port(plain, Config), []),
                   case N rem 2 of
                       0 -> ok;
                       1 ->
                           ok = gen_tcp:send(Socket, "GET /peer HTTP/1.1\r\nHost: a\r\n\r\n"),
                           {ok, <<"HTTP/1.1 200", _/binary>>, <<>>} = e2e_raw:read(Socket, "GET", <<>>)
                   end,
                   Socket
               end || N <- lists:seq(1, 200)],
    ?assert(processes(Config) - Before < 50),
    [?assertEqual({error, closed}, gen_tcp:recv(Socket, 0, ?TIMEOUT)) || Socket <- Sockets],
    ok.

%% ---- WebSocket ----

websocket_bombs(Config) ->
    Frame = fun e2e_frames:frame/3,
    Fails = fun(Bytes, Code, Name) ->
                    Socket = upgrade(Config),
                    ok = gen_tcp:send(Socket, Bytes),
                    ?assertMatch([{close, <<Code:16, _/binary>>}, closed], e2e_frames:collect(Socket, <<>>), Name)
            end,
    [logged(["WebSocket closed with ", integer_to_list(Code), ": ", Why], Config, fun() -> Fails(Bytes, Code, Why) end)
     || {Bytes, Code, Why} <-
            [{Frame(text, "<open", #{size => 1 bsl 62}), 1009, ".*max_message"},
             {Frame(text, "<open/>", #{masked => false}), 1002, ".*mask"},
             {Frame(text, [16#ff, 16#fe], #{}), 1007, ".*UTF-8"}]],
    [Fails(Bytes, Code, Name)
     || {Name, Bytes, Code} <-
            [{"2^64 - 1 bytes announced", Frame(text, "<open", #{size => 16#ffffffffffffffff}), 1002},
             {"compressed", Frame(text, "x", #{rsv => 4}), 1002},
             {"reserved opcode", Frame(5, "x", #{}), 1002},
             {"control frame of 126", Frame(ping, binary:copy(<<"x">>, 126), #{}), 1002},
             {"fragmented ping", Frame(ping, "x", #{fin => false}), 1002},
             {"continuation of nothing", Frame(continuation, "x", #{}), 1002},
             {"an overlong slash", Frame(text, [16#c0, 16#af], #{}), 1007},
             {"a surrogate", Frame(text, [16#ed, 16#a0, 16#80], #{}), 1007}]],
    ok.

%% A message that never ends, in pieces of nothing.
websocket_fragments_without_end(Config) ->
    logged("WebSocket closed with 1008", Config,
           fun() ->
                   Socket = upgrade(Config),
                   ok = gen_tcp:send(Socket, e2e_frames:frame(text, "", #{fin => false})),
                   Bomb = lists:duplicate(100, e2e_frames:frame(continuation, "", #{fin => false})),
                   _ = [gen_tcp:send(Socket, Bomb) || _ <- lists:seq(1, 30)],
                   ?assertMatch([{close, <<1008:16, _/binary>>} | _], e2e_frames:collect(Socket, <<>>))
           end).

%% Each is answered, or stands for a later one (RFC 6455, 5.5.3); nobody else waits.
websocket_ping_flood(Config) ->
    Socket = upgrade(Config),
    Pings = [e2e_frames:frame(ping, integer_to_list(N)) || N <- lists:seq(1, 20_000)],
    Self = self(),
    spawn_link(fun() -> Self ! {sent, gen_tcp:send(Socket, Pings)} end),
    ok = last_pong(Socket, <<>>, <<"20000">>),
    receive {sent, ok} -> ok end,
    gen_tcp:close(Socket).

last_pong(Socket, Bytes, Last) ->
    case e2e_frames:recv(Socket, Bytes) of
        {ok, {pong, Last}, _} -> ok;
        {ok, {pong, _}, Rest} -> last_pong(Socket, Rest, Last)
    end.

%% Pings without end, and no pong is read: held up or closed, and nothing grows.
websocket_reads_nothing(Config) ->
    Before = megaphone_memory(Config),
    Socket = e2e_raw:connect(port(plain, Config), [{recbuf, 4096}, {send_timeout, 500}]),
    ok = gen_tcp:send(Socket, e2e_parity_requests:upgrade("/ws", "Sec-WebSocket-Protocol: xmpp\r\n")),
    Pings = [e2e_frames:frame(ping, lists:duplicate(100, $p)) || _ <- lists:seq(1, 100)],
    Ended = lists:foldl(fun(_, ok) -> gen_tcp:send(Socket, Pings);
                           (_, Error) -> Error
                        end, ok, lists:seq(1, 3000)),
    ct:log("~p", [Ended]),
    ?assertMatch({error, _}, Ended),
    ?assert(megaphone_memory(Config) - Before < 5_000_000),
    gen_tcp:close(Socket).

%% What the XML holds is c2s's to judge, and is judged as on ejabberd's own listener.
xml_bombs(Config) ->
    Open = "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='localhost' version='1.0'/>",
    [begin
         [Stock, Ours] =
             [begin
                  Socket = upgrade(Port),
                  _ = gen_tcp:send(Socket, [e2e_frames:frame(text, Text) || Text <- Texts]),
                  Frames = e2e_frames:collect(Socket, <<>>),
                  gen_tcp:close(Socket),
                  Frames
              end || Port <- [stock_port(Config), port(plain, Config)]],
         ct:log("~ts~n~tp~n~tp", [Name, Stock, Ours]),
         ?assertEqual(texts(Stock), texts(Ours), Name),
         ?assertMatch([closed, {close, _} | _], lists:reverse(Ours), Name)
     end || {Name, Texts} <-
                [{"entities", ["<!DOCTYPE x [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;\">]><open>&b;</open>"]},
                 {"depth", [Open, [lists:duplicate(20_000, "<a>")]]},
                 {"no XML", [Open, "this is none"]},
                 {"half an element", [Open, "<message>"]}]],
    ok.

texts(Frames) -> [e2e_parity_requests:not_random(Text) || {text, Text} <- Frames].

%% ---- means ----

%% Many clients that send the beginning and then a byte now and then, until they are told.
drips([Begin, More], Count, Config, Status, Line) ->
    logged(Line, Config,
           fun() ->
                   Started = erlang:monotonic_time(millisecond),
                   Sockets = [begin
                                  Socket = e2e_raw:connect(port(plain, Config), []),
                                  ok = gen_tcp:send(Socket, Begin),
                                  Socket
                              end || _ <- lists:seq(1, Count)],
                   Answers = drip(Sockets, More, #{}),
                   Took = erlang:monotonic_time(millisecond) - Started,
                   ?assertEqual([], [Answer || Answer <- maps:values(Answers), e2e_raw:status(Answer) =/= Status]),
                   ?assert(Took < ?ENDED_WITHIN, Took),
                   [gen_tcp:close(Socket) || Socket <- Sockets]
           end).

drip([], _More, Answers) -> Answers;
drip(Sockets, More, Answers0) ->
    {Left, Answers} =
        lists:foldl(fun(Socket, {Left, Answers}) ->
                            case gen_tcp:recv(Socket, 0, 0) of
                                {ok, Answer} -> {Left, Answers#{Socket => Answer}};
                                {error, timeout} ->
                                    _ = gen_tcp:send(Socket, More()),
                                    {[Socket | Left], Answers}
                            end
                    end, {[], Answers0}, Sockets),
    %% The attacker's own pace.
    receive after 50 -> ok end,
    drip(Left, More, Answers).

%% A client that sends without end, and reads when it can send no more or is told something. What it sent.
floods(Begin, More, Config, Status, Line) ->
    logged(Line, Config,
           fun() ->
                   Socket = e2e_raw:connect(port(plain, Config), [{send_timeout, ?TIMEOUT}]),
                   ok = gen_tcp:send(Socket, Begin),
                   {Sent, Answer} = flood(Socket, More, 1, 0),
                   ?assertEqual(Status, e2e_raw:status(Answer)),
                   gen_tcp:close(Socket),
                   Sent
           end).

flood(Socket, More, N, Sent) ->
    case gen_tcp:recv(Socket, 0, 0) of
        {ok, Answer} -> {Sent, Answer};
        {error, timeout} ->
            Bytes = More(N),
            case gen_tcp:send(Socket, Bytes) of
                ok -> flood(Socket, More, N + 1, Sent + iolist_size(Bytes));
                {error, Reason} -> error({no_answer, Reason, {sent, Sent}})
            end;
        {error, Reason} -> error({no_answer, Reason, {sent, Sent}})
    end.

%% Does it until the log says so, which it does once a second at most for all that is refused.
logged(Line, Config, Attack) -> logged(Line, Config, Attack, 5).

logged(Line, Config, Attack, Times) ->
    #{node := Node} = ?config(world, Config),
    Mark = e2e_ejabberd:mark_log(Node),
    Result = Attack(),
    case e2e_ejabberd:wait_log(Node, Mark, Line, 1_500) of
        {ok, Found} ->
            ct:log("~ts", [Found]),
            Result;
        {error, _} when Times > 1 -> logged(Line, Config, Attack, Times - 1);
        {error, Reason} -> error({not_logged, Line, Reason})
    end.

read_all(Socket, Size) ->
    case gen_tcp:recv(Socket, 0, ?TIMEOUT) of
        {ok, Bytes} -> read_all(Socket, Size + byte_size(Bytes));
        {error, Reason} -> {Size, Reason}
    end.

upgrade(Config) when is_list(Config) -> upgrade(port(plain, Config));
upgrade(Port) ->
    Socket = e2e_raw:connect(Port, []),
    ok = gen_tcp:send(Socket, e2e_parity_requests:upgrade("/ws", "Sec-WebSocket-Protocol: xmpp\r\n")),
    {ok, <<"HTTP/1.1 101", _/binary>>, <<>>} = e2e_raw:read(Socket, "GET", <<>>),
    Socket.

exchange(Kind, Steps, Config) -> e2e_raw:exchange(port(Kind, Config), Steps).

stock_port(Config) -> maps:get(plain, maps:get(stock, ?config(world, Config))).

port(Kind, Config) -> maps:get(Kind, maps:get(ours, ?config(world, Config))).

connections(Config) ->
    lists:sum([maps:get(connections, Info)
               || {_, Info} <- e2e_ejabberd:call(maps:get(node, ?config(world, Config)), megaphone, links, [])]).

processes(Config) ->
    e2e_ejabberd:call(maps:get(node, ?config(world, Config)), erlang, system_info, [process_count]).

%% What the NIF keeps, in bytes.
megaphone_memory(Config) ->
    e2e_ejabberd:call(maps:get(node, ?config(world, Config)), megaphone, memory, []).

%% ---- the users beside it ----

%% Two over WebSocket and two over BOSH, who talk without a pause.
spawn_users(Ports) ->
    Self = self(),
    Pid = spawn_link(fun() ->
                             Users = [{e2e_user:login(Transport, <<"alice">>, Ports), e2e_user:login(Transport, <<"bob">>, Ports)}
                                      || Transport <- [websocket, bosh]],
                             Self ! {self(), ready},
                             chat(Users, 0, 0)
                     end),
    receive {Pid, ready} -> Pid after 30_000 -> error(users_not_there) end.

chat(Users, Rounds, Worst) ->
    receive
        {stop, From} ->
            _ = [begin e2e_user:close(A), e2e_user:close(B) end || {A, B} <- Users],
            From ! {self(), {Rounds, Worst}}
    after 0 ->
        Started = erlang:monotonic_time(millisecond),
        Next = [e2e_user:chat(A, B, integer_to_binary(Rounds)) || {A, B} <- Users],
        Took = erlang:monotonic_time(millisecond) - Started,
        chat(Next, Rounds + 1, max(Worst, Took))
    end.

stop_users(Pid) ->
    Pid ! {stop, self()},
    receive {Pid, Said} -> Said after ?TIMEOUT -> {0, ?TIMEOUT} end.
