%% megaphone_http in a real ejabberd: what a process is there for and what not, what becomes of
%% handlers that fail, and BOSH whose clients leave. That its answers are those of ejabberd_http is
%% parity_SUITE's.
-module(megaphone_http_SUITE).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-export([suite/0, all/0, groups/0, init_per_group/2, end_per_group/2, end_per_testcase/2]).
-export([idle_connections_have_no_process/1, accepted_in_the_log/1, pipelined_in_order/1, handler_crashes/1,
         handler_is_killed/1, files/1, upload_is_streamed/1, trusted_proxy_on_every_request/1,
         malformed_forwarded_for/1, tls_is_ejabberds/1, service_without_options/1]).
-export([bosh_chat/1, bosh_on_one_connection/1, bosh_held_has_no_process/1, bosh_client_leaves/1, bosh_answer_is_kept/1,
         bosh_terminate_and_reset/1, bosh_session_killed/1, bosh_responder_killed/1, bosh_refusals/1,
         bosh_same_request_again/1]).

suite() -> [{timetrap, {minutes, 1}}].

all() -> [{group, ejabberd_23_01}, {group, ejabberd_24_12}].

groups() -> [{Group, [], requests() ++ bosh()} || Group <- [ejabberd_23_01, ejabberd_24_12]].

requests() ->
    [idle_connections_have_no_process, accepted_in_the_log, pipelined_in_order, handler_crashes, handler_is_killed,
     files, upload_is_streamed, trusted_proxy_on_every_request, malformed_forwarded_for, tls_is_ejabberds,
     service_without_options].

bosh() ->
    [bosh_chat, bosh_on_one_connection, bosh_held_has_no_process, bosh_client_leaves, bosh_answer_is_kept, bosh_terminate_and_reset,
     bosh_session_killed, bosh_responder_killed, bosh_refusals, bosh_same_request_again].

init_per_group(Group, Config) ->
    Dir = e2e_ejabberd:temporary(),
    #{ca := Ca, server := Certificate} = e2e_certs:make(Dir),
    Stock = e2e_config:ports(),
    Edge = e2e_config:ports(),
    Link = e2e_port:free(),
    Yaml = e2e_config:yaml(#{dir => Dir, certificate => Certificate, stock => Stock, edge => Edge, link => Link,
                             top => "trusted_proxies: [\"127.0.0.1\", \"10.9.0.0/16\"]\n",
                             services => services()}),
    {ok, Node} = e2e_ejabberd:start(#{version => version(Group), dir => Dir, config => Yaml}),
    %% The edge listens a little later than ejabberd has started.
    [{ok, _} = e2e_ejabberd:wait_log(Node, ["listening on 127.0.0.1:", integer_to_list(Port)], 20_000)
     || Port <- maps:values(Edge)],
    [{node, Node}, {dir, Dir}, {ca, Ca}, {stock, Stock}, {edge, Edge} | Config].

%% The third one is in the place of MQTT: HTTPS, which the client speaks with ejabberd itself.
services() ->
    Handlers = "request_handlers: {/bosh: mod_bosh, /ws: ejabberd_http_ws, /native: e2e_native_handler, "
               "/echo: e2e_echo_handler}",
    ["      http: {module: megaphone_http, ", Handlers, "}\n"
     "      c2s: {module: megaphone_http}\n"
     "      mqtt: {module: megaphone_http, tls: true, head_timeout: 5, ", Handlers, "}\n"].

end_per_group(_Group, Config) ->
    ok = e2e_ejabberd:stop(?config(node, Config)),
    e2e_ejabberd:keep_log(?config(dir, Config), ?config(priv_dir, Config)).

%% No session may be left confused: ejabberd_bosh says so when it hears what it does not know.
end_per_testcase(_Case, Config) ->
    case e2e_ejabberd:grep_log(?config(node, Config), "Unexpected|CRASH REPORT|Generic server") of
        [] -> ok;
        Lines -> {fail, Lines}
    end.

version(ejabberd_23_01) -> "23.01";
version(ejabberd_24_12) -> "24.12".

%% ---- requests ----

idle_connections_have_no_process(Config) ->
    Before = inside(erlang, system_info, [process_count], Config),
    Connections = [begin
                       {#{status := 200}, Connection} = e2e_http:get(connect(Config), "/native/x"),
                       Connection
                   end || _ <- lists:seq(1, 100)],
    ok = inside(poll, until, [fun e2e_native_handler:processes/0, 0], Config),
    ?assert(inside(erlang, system_info, [process_count], Config) < Before + 20),
    %% A request has one of its own.
    Pids = [begin
                {#{status := 200, body := Pid}, Next} = e2e_http:get(Connection, "/native/self"),
                e2e_http:close(Next),
                Pid
            end || Connection <- Connections],
    ?assertEqual(100, length(lists:usort(Pids))).

accepted_in_the_log(Config) ->
    Mark = e2e_ejabberd:mark_log(?config(node, Config)),
    {#{status := 200, body := <<"127.0.0.1 ", Port/binary>>}, Connection} = e2e_http:get(connect(Config), "/native/x"),
    {ok, _} = e2e_ejabberd:wait_log(?config(node, Config), Mark,
                                    ["Accepted connection .*:", Port, " -> .*:", integer_to_list(port(http, Config)),
                                     " \\(megaphone [0-9]{20} for http\\)"], 5000),
    e2e_http:close(Connection).

pipelined_in_order(Config) ->
    #{send := Send} = Connection = connect(Config),
    %% The slow ones first.
    Paths = ["/native/slow/" ++ integer_to_list(Ms) || Ms <- [60, 30, 10]] ++ ["/native/self", "/no", "/native/self"],
    Send([["GET ", Path, " HTTP/1.1\r\nHost: localhost\r\n\r\n"] || Path <- Paths]),
    {Answers, _} = lists:mapfoldl(fun(_, C) -> e2e_http:answer(C) end, Connection, Paths),
    ?assertMatch([#{body := <<"slow">>}, #{body := <<"slow">>}, #{body := <<"slow">>},
                  #{body := <<"<", _/binary>>}, #{status := 404}, #{body := <<"<", _/binary>>}], Answers).

handler_crashes(Config) ->
    Node = ?config(node, Config),
    Mark = e2e_ejabberd:mark_log(Node),
    {#{status := 500, headers := #{<<"connection">> := <<"close">>}}, Connection} =
        e2e_http:get(connect(Config), "/native/crash"),
    closed(Connection),
    {ok, _} = e2e_ejabberd:wait_log(Node, Mark, "handler e2e_native_handler of service http crashed", 5000),
    served(Config).

handler_is_killed(Config) ->
    {#{status := 500, headers := #{<<"connection">> := <<"close">>}}, Connection} =
        e2e_http:get(connect(Config), "/native/killed"),
    closed(Connection),
    served(Config).

files(Config) ->
    [begin
         Name = "megaphone-file-" ++ os:getpid(),
         Content = crypto:strong_rand_bytes(Size),
         ok = file:write_file(filename:join("/tmp", Name), Content),
         {Answer, Connection} = e2e_http:get(connect(Config), ["/native/file/", Name]),
         ok = file:delete(filename:join("/tmp", Name)),
         #{status := 200, body := Body} = Answer,
         ?assert(Body =:= Content, Size),
         {#{status := 404}, _} = e2e_http:get(Connection, ["/native/file/", Name])
     end || Size <- [0, 1, 65536, 65537, 3_000_000]].

%% 20 MB through a handler that reads slowly: what is held of it is a window or two.
upload_is_streamed(Config) ->
    Before = inside(megaphone, memory, [], Config),
    Content = binary:copy(crypto:strong_rand_bytes(20_000), 1000),
    #{send := Send} = Connection = connect(Config),
    Send(["PUT /native/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: ", integer_to_list(byte_size(Content)),
          "\r\n\r\n", Content]),
    {#{status := 200, body := Body}, Next} = e2e_http:answer(Connection),
    [Hash, Most] = binary:split(Body, <<" ">>),
    ?assertEqual(binary:encode_hex(crypto:hash(sha256, Content)), Hash),
    ct:pal("held at most ~s bytes, ~b before", [Most, Before]),
    ?assert(binary_to_integer(Most) - Before < 3_000_000),
    {#{status := 200}, _} = e2e_http:get(Next, "/native/x").

trusted_proxy_on_every_request(Config) ->
    Connection0 = connect(Config),
    lists:foldl(
      fun({Forwarded, Ip}, Connection) ->
              {#{status := 200, body := Body}, Next} =
                  e2e_http:get(Connection, "/native/x", [{"X-Forwarded-For", Forwarded}]),
              ?assertMatch([Ip, _], binary:split(Body, <<" ">>)),
              Next
      end, Connection0,
      [{"10.1.2.3", <<"10.1.2.3">>}, {"10.1.2.3, 10.9.8.7", <<"10.1.2.3">>},
       %% Somebody who is not trusted may say what they like.
       {"10.1.2.3, 10.8.8.7", <<"127.0.0.1">>}, {"", <<"127.0.0.1">>}, {"2001:db8::1", <<"2001:db8::1">>}]).

malformed_forwarded_for(Config) ->
    {#{status := 400, body := Body}, Connection} =
        e2e_http:get(connect(Config), "/native/x", [{"X-Forwarded-For", "nobody"}]),
    ?assertEqual(<<"Malformed X-Forwarded-For header">>, Body),
    closed(Connection).

tls_is_ejabberds(Config) ->
    {ok, _} = application:ensure_all_started(ssl),
    {ok, Socket} = ssl:connect({127, 0, 0, 1}, port(mqtt, Config), [{verify, verify_none}, binary, {active, false}], 10_000),
    Connection = e2e_http:over(fun(Bytes) -> ssl:send(Socket, Bytes) end,
                               fun() -> {ok, Bytes} = ssl:recv(Socket, 0, 10_000), Bytes end),
    {#{status := 200, body := <<"127.0.0.1 ", _/binary>>}, _} = e2e_http:get(Connection, "/native/x"),
    ssl:close(Socket).

service_without_options(Config) ->
    {#{status := 404}, _} = e2e_http:get(e2e_http:connect(port(c2s, Config)), "/bosh"),
    [Services] = [Services || #{services := #{<<"c2s">> := _} = Services, address := {local, _}}
                                  <- inside(megaphone, listeners, [], Config)],
    ?assertEqual(#{name => <<"c2s">>, module => megaphone_http}, maps:get(<<"c2s">>, Services)).

%% ---- BOSH ----

bosh_chat(Config) ->
    Alice = e2e_bosh:listen(e2e_bosh:login(connect(Config), <<"alice">>, <<"alice-pw">>)),
    %% The other one at ejabberd's own listener.
    Bob = e2e_bosh:listen(e2e_bosh:login(e2e_http:connect(maps:get(http, ?config(stock, Config))),
                                         <<"bob">>, <<"bob-pw">>)),
    {Alice1, Bob1} = lists:foldl(
                       fun(Number, {A0, B0}) ->
                               Text = integer_to_binary(Number),
                               {_, A1} = {sent, say_while_held(A0, Config, e2e_bosh:jid(B0), Text)},
                               {Text, B1} = e2e_bosh:hear(B0),
                               {A1, e2e_bosh:listen(B1)}
                       end, {Alice, Bob}, lists:seq(1, 100)),
    [e2e_http:close(Http) || #{http := Http} <- [Alice1, Bob1]].

%% Each request right behind the answer to the one before it, which a responder has sent.
bosh_on_one_connection(Config) ->
    Sessions = [login(Config, Number) || Number <- lists:seq(1, 4)],
    Last = lists:foldl(
             fun(Number, Now) ->
                     Text = integer_to_binary(Number),
                     Said = [e2e_bosh:say(Session, e2e_bosh:jid(Session), Text) || Session <- Now],
                     [begin {Text, Next} = e2e_bosh:hear(Session), Next end || Session <- Said]
             end, Sessions, lists:seq(1, 500)),
    [leave(Session, Config) || Session <- Last].

%% On a second connection, as BOSH clients do: the request that is held is answered, and the new
%% one is held in its place.
say_while_held(#{http := Held, rid := Rid, sid := Sid, asked := true} = Session, Config, To, Text) ->
    Second = connect(Config),
    Body = ["<body xmlns='http://jabber.org/protocol/httpbind' rid='", integer_to_list(Rid), "' sid='", Sid, "'>"
            "<message xmlns='jabber:client' type='chat' to='", To, "'><body>", Text, "</body></message></body>"],
    e2e_http:post(Second, "/bosh", [{"Content-Type", "text/xml; charset=utf-8"}], Body),
    {#{status := 200}, First} = e2e_http:answer(Held),
    e2e_http:close(First),
    Session#{http := Second, rid := Rid + 1}.

bosh_held_has_no_process(Config) ->
    Held = inside(e2e_native_handler, held, [], Config),
    Logins = [login(Config, Number) || Number <- lists:seq(1, 20)],
    Sessions = [hold(Session, Config) || Session <- Logins],
    ok = inside(e2e_native_handler, wait_held, [Held + 20], Config),
    ?assertEqual(0, inside(e2e_native_handler, processes, [], Config)),
    [?assertMatch({true, false}, inside(e2e_native_handler, timers, [Sid], Config)) || #{sid := Sid} <- Sessions],
    [leave(Session, Config) || Session <- Sessions],
    ok = inside(e2e_native_handler, wait_held, [Held], Config).

%% The session knows at once, and gives its client max_inactivity to come back; ejabberd_http would
%% notice at the end of `wait`.
bosh_client_leaves(Config) ->
    #{sid := Sid} = Session = hold(login(Config, 1), Config),
    e2e_http:close(maps:get(http, Session)),
    poll:until(fun() -> {false, true} =:= inside(e2e_native_handler, timers, [Sid], Config) end),
    %% It comes back: the session lives, and holds the next request.
    leave(hold(Session#{http := connect(Config), asked := false}, Config), Config).

%% What was answered to nobody is answered again to who repeats the request (XEP-0124, 14.3).
bosh_answer_is_kept(Config) ->
    #{sid := Sid} = Session = hold(login(Config, 1), Config),
    e2e_http:close(maps:get(http, Session)),
    poll:until(fun() -> {false, true} =:= inside(e2e_native_handler, timers, [Sid], Config) end),
    #{rid := Next} = Session,
    #{http := Http} = Repeated = e2e_bosh:listen(Session#{http := connect(Config), rid := Next - 1, asked := false}),
    {#{status := 200, body := Body}, _} = e2e_http:answer(Http),
    ?assertEqual(<<"<body xmlns='http://jabber.org/protocol/httpbind'/>">>, Body),
    leave(Repeated, Config).

%% A page that closes: its last request ends the session, though nobody waits for the answer.
bosh_terminate_and_reset(Config) ->
    [begin
         #{sid := Sid, rid := Rid, http := Http} = login(Config, Number),
         {ok, Socket} = gen_tcp:connect({127, 0, 0, 1}, port(http, Config), [binary, {linger, {true, 0}}]),
         Body = ["<body xmlns='http://jabber.org/protocol/httpbind' type='terminate' rid='", integer_to_list(Rid),
                 "' sid='", Sid, "'/>"],
         e2e_http:post(e2e_http:on(Socket), "/bosh", [], Body),
         %% The edge has to have it before the reset throws it away.
         poll:until(fun() -> e2e_port:unread(Socket) =:= 0 end),
         ok = gen_tcp:close(Socket),
         poll:until(fun() -> gone =:= inside(e2e_native_handler, timers, [Sid], Config) end),
         e2e_http:close(Http)
     end || Number <- lists:seq(1, 5)].

bosh_session_killed(Config) ->
    #{sid := Sid, http := Http} = hold(login(Config, 1), Config),
    true = inside(e2e_native_handler, kill_session, [Sid], Config),
    {#{status := 200, body := Body}, Next} = e2e_http:answer(Http),
    ?assertMatch({match, _}, re:run(Body, "type='terminate' condition='internal-server-error'")),
    {#{status := 200}, _} = e2e_http:get(Next, "/native/x").

%% Its clients lose their connection and nothing else.
bosh_responder_killed(Config) ->
    #{http := Http} = Session = hold(login(Config, 1), Config),
    [exit_inside(list_to_atom("megaphone_bosh_responder_" ++ integer_to_list(N)), Config)
     || N <- lists:seq(1, min(2, inside(erlang, system_info, [schedulers_online], Config)))],
    closed(Http),
    leave(hold(Session#{http := connect(Config), asked := false}, Config), Config).

exit_inside(Name, Config) ->
    case inside(erlang, whereis, [Name], Config) of
        undefined -> ok;
        Pid ->
            true = inside(erlang, exit, [Pid, kill], Config),
            poll:until(fun() ->
                          New = inside(erlang, whereis, [Name], Config),
                          is_pid(New) andalso New =/= Pid
                  end)
    end.

%% As the oracle on the same node.
bosh_refusals(Config) ->
    Ns = "xmlns='http://jabber.org/protocol/httpbind'",
    [?assertEqual(raw_post(maps:get(http, ?config(stock, Config)), Body), raw_post(port(http, Config), Body))
     || Body <- ["<body", "<nobody/>", "", "x", ["<body ", Ns, "/>"], ["<body ", Ns, " rid='x'/>"],
                 ["<body ", Ns, " rid='-1'/>"], ["<body ", Ns, " rid='1'/>"], ["<body ", Ns, " rid='1' sid='nobody'/>"],
                 "<body xmlns='other' rid='1'/>", ["<body ", Ns, " rid='1' to='no.such.host'/>"],
                 ["<body ", Ns, " rid='1' secure='maybe' to='localhost'/>"],
                 ["<body ", Ns, " rid='1' to='localhost' hold='-1' wait='many'/>"],
                 ["<body ", Ns, " rid='1' sid='", lists:duplicate(300_000, $x), "'/>"]]].

raw_post(Port, Body) ->
    {ok, Socket} = gen_tcp:connect({127, 0, 0, 1}, Port, [binary, {active, false}]),
    ok = gen_tcp:send(Socket, ["POST /bosh HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: ",
                               integer_to_list(iolist_size(Body)), "\r\n\r\n", Body]),
    to_the_end(Socket, <<>>).

to_the_end(Socket, Bytes) ->
    case gen_tcp:recv(Socket, 0, 10_000) of
        {ok, More} -> to_the_end(Socket, <<Bytes/binary, More/binary>>);
        {error, closed} -> gen_tcp:close(Socket), Bytes
    end.

%% A client whose request got lost sends it again while the first one is held: both are answered,
%% the first at once.
bosh_same_request_again(Config) ->
    #{http := Http, rid := Next} = Session = hold(login(Config, 1), Config),
    Again = e2e_bosh:listen(Session#{http := connect(Config), rid := Next - 1, asked := false}),
    {#{status := 200}, _} = e2e_http:answer(Http),
    leave(Again, Config).

%% ---- helpers ----

login(Config, Number) ->
    e2e_bosh:login(connect(Config), <<"alice">>, <<"alice-pw">>, ["r", integer_to_list(Number)]).

%% A request that stays held: what there is to tell (other resources' presence) has been told.
hold(Session, Config) -> held(e2e_bosh:listen(Session), Config).

held(#{sid := Sid, http := #{socket := Socket} = Http} = Asked, Config) ->
    case gen_tcp:recv(Socket, 0, 100) of
        {ok, First} ->
            {#{status := 200}, Next} = e2e_http:answer(Http#{rest := First}),
            hold(Asked#{http := Next, asked := false}, Config);
        {error, timeout} ->
            case inside(e2e_native_handler, timers, [Sid], Config) of
                {true, false} -> Asked;
                _ -> held(Asked, Config)
            end
    end.

leave(#{http := Http, rid := Rid, sid := Sid}, Config) ->
    e2e_http:close(Http),
    Other = connect(Config),
    e2e_http:post(Other, "/bosh", [], ["<body xmlns='http://jabber.org/protocol/httpbind' type='terminate' rid='",
                                       integer_to_list(Rid), "' sid='", Sid, "'/>"]),
    {#{status := 200}, _} = e2e_http:answer(Other),
    e2e_http:close(Other).

connect(Config) -> e2e_http:connect(port(http, Config)).

served(Config) ->
    {#{status := 200}, Connection} = e2e_http:get(connect(Config), "/native/x"),
    e2e_http:close(Connection).

%% Closed by the server.
closed(#{recv := Recv}) ->
    ?assertError({badmatch, {error, _}}, Recv()).

inside(Module, Function, Args, Config) -> e2e_ejabberd:call(?config(node, Config), Module, Function, Args).

port(Service, Config) -> maps:get(Service, ?config(edge, Config)).
