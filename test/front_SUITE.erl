%% Connections that speak HTTP: requests collected in the NIF, given to a process one by one,
%% answered, refused, held, let go. No ejabberd, no sockets, no clock: see nif_link.
-module(front_SUITE).

-include_lib("stdlib/include/assert.hrl").

-export([all/0, init_per_testcase/2]).
-export([simple_get/1, terms/1, targets/1, queries/1, methods/1, hosts/1, keep_alive/1, upgrade/1]).
-export([dribble/1, pipelined/1, pipelined_flood/1, chunked/1, large/1, continue/1]).
-export([refused/1, after_a_refusal/1, early_garbage/1]).
-export([head_timeout/1, body_timeout/1, idle_timeout/1, send_timeout/1, not_taken/1]).
-export([upload/1, upload_bounded/1, upload_credit/1, upload_unread/1, upload_unread_large/1,
         upload_client_gone/1, upload_stalls/1]).
-export([owner_dies/1, owner_dies_in_the_middle/1, parts_of_an_answer/1, close_after/1]).
-export([held/1, held_client_goes/1, held_closed/1, held_then_pipelined/1]).
-export([client_gone_before/1, half_closed/1, link_lost/1]).
-export([nothing_is_left/1, draining/1, detached/1, facts/1, start_with_bytes/1, credit/1, overload/1]).

-define(GET, "GET /a HTTP/1.1\r\nHost: example.org\r\n\r\n").
-define(OK, <<"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok">>).

all() ->
    [F || {F, 1} <- ?MODULE:module_info(exports), not lists:member(F, [all, module_info])].

init_per_testcase(_Case, Config) ->
    ok = megaphone_nif:load(),
    Config.

%%% requests

simple_get(_) ->
    {Link, Conn} = http(),
    [{request, Conn, 17}] = nif_link:feed(Link, 1, ?GET),
    {ok, Request} = megaphone_nif:http_request(Conn),
    ?assertEqual({'GET', {1, 1}, <<"/a">>, [<<"a">>], [{nokey, <<>>}],
                  [{'Host', <<"example.org">>}], {<<"example.org">>, undefined}, <<"en">>, 0, <<>>,
                  true, false, {{192, 0, 2, 1}, 40000}}, Request),
    ?assertEqual(idle, megaphone_nif:http_reply(Conn, ?OK, keep)),
    ?assertEqual(?OK, nif_link:sent(Link, 1)),
    ?assertEqual(closed, megaphone_nif:http_reply(Conn, ?OK, keep)),
    ?assertEqual({error, closed}, megaphone_nif:http_request(Conn)),
    ?OK = ask(Link, Conn, ?GET).

terms(_) ->
    {Link, Conn} = http(),
    Request = request(Link, Conn, "POST /b%20c/../d?x=y HTTP/1.0\r\nhOsT: A.Example:81\r\nx-my-HEADER:  v \r\n"
                      "Accept-Language: de;q=1, en\r\nContent-Type: application/x-www-form-urlencoded\r\n"
                      "X-A--b: 1\r\nCookie: c\r\nContent-Length: 7\r\n\r\na=1&b=2"),
    ?assertEqual({'POST', {1, 0}, <<"/b%20c/../d?x=y">>, [<<"d">>], [{<<"a">>, <<"1">>}, {<<"b">>, <<"2">>}],
                  [{'Content-Length', <<"7">>}, {'Cookie', <<"c">>}, {<<"X-A--B">>, <<"1">>},
                   {'Content-Type', <<"application/x-www-form-urlencoded">>},
                   {'Accept-Language', <<"de;q=1, en">>}, {<<"X-My-Header">>, <<"v ">>},
                   {'Host', <<"A.Example:81">>}],
                  {<<"a.example">>, 81}, <<"de">>, 7, <<"a=1&b=2">>, false, false, {{192, 0, 2, 1}, 40000}},
                 Request).

targets(_) ->
    Path = fun(Target) ->
                   {Raw, Path, _} = target(["GET ", Target, " HTTP/1.1\r\n\r\n"]),
                   {Raw, Path}
           end,
    ?assertEqual({<<"/">>, []}, Path("/")),
    ?assertEqual({<<"/a//b/">>, [<<"a">>, <<"b">>]}, Path("/a//b/")),
    ?assertEqual({<<"/%2e%2e/a%2fb">>, [<<"a">>, <<"b">>]}, Path("/%2e%2e/a%2fb")),
    ?assertEqual({<<"/x">>, [<<"x">>]}, Path("http://example.org:80/x")),
    ?assertEqual({other, bad}, Path("*")),
    ?assertEqual({<<"/%zz">>, bad}, Path("/%zz")),
    ?assertEqual({<<"/%00">>, bad}, Path("/%00")).

queries(_) ->
    Get = fun(Query) -> element(3, target(["GET /?", Query, " HTTP/1.1\r\n\r\n"])) end,
    Post = fun(Type, Body) ->
                   element(3, target(["POST / HTTP/1.1\r\nContent-Type: ", Type, "\r\nContent-Length: ",
                                      integer_to_list(length(Body)), "\r\n\r\n", Body]))
           end,
    ?assertEqual([{<<"a">>, <<"b c">>}, {<<"d">>, <<>>}, {nokey, <<"e">>}], Get("a=b+c&d&e")),
    ?assertEqual([], Get("a=%xx")),
    ?assertEqual([{<<"a">>, <<"b">>}], Post("text/plain", "a=b")),
    ?assertEqual([], Post("text/xml; charset=utf-8", "<a b='c'/>")),
    ?assertEqual([{nokey, <<"{\"a\":1}">>}], Post("application/json", "{\"a\":1}")),
    ?assertEqual([], element(3, target("PUT /?a=b HTTP/1.1\r\nContent-Length: 1\r\n\r\nx"))).

methods(_) ->
    Of = fun(Head) ->
                 {Link, Conn} = http(),
                 {Method, _, _, Path, _, _, _, _, Length, Data, _, _, _} = request(Link, Conn, Head),
                 {Method, Path, Length, Data}
         end,
    ?assertEqual({'HEAD', [], 0, <<>>}, Of("HEAD / HTTP/1.1\r\n\r\n")),
    ?assertEqual({'DELETE', [], 3, <<>>}, Of("DELETE / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc")),
    ?assertEqual({'OPTIONS', [], 0, <<>>}, Of("OPTIONS / HTTP/1.1\r\n\r\n")),
    ?assertEqual({'POST', bad, 0, <<>>}, Of("POST / HTTP/1.1\r\n\r\n")),
    ?assertEqual({'PUT', bad, 0, <<>>}, Of("PUT / HTTP/1.1\r\n\r\n")),
    ?assertEqual({<<"PATCH">>, bad, 1, <<>>}, Of("PATCH / HTTP/1.1\r\nContent-Length: 1\r\n\r\nx")),
    ?assertEqual({'TRACE', bad, 0, <<>>}, Of("TRACE / HTTP/1.1\r\n\r\n")).

hosts(_) ->
    Host = fun(Headers) -> element(7, request_of(["GET / HTTP/1.1\r\n", Headers, "\r\n"])) end,
    ?assertEqual(undefined, Host("")),
    ?assertEqual({<<"::1">>, 5280}, Host("Host: [::1]:5280\r\n")),
    ?assertEqual({<<>>, undefined}, Host("Host: \r\n")),
    ?assertEqual(error, Host("Host: a:99999999999999999999\r\n")).

keep_alive(_) ->
    KeepAlive = fun(Version, Headers) ->
                        element(11, request_of(["GET / HTTP/1.", Version, "\r\n", Headers, "\r\n"]))
                end,
    ?assert(KeepAlive("1", "")),
    ?assert(KeepAlive("0", "Connection: Keep-Alive\r\n")),
    ?assertNot(KeepAlive("0", "")),
    ?assertNot(KeepAlive("1", "Connection: close\r\n")),
    ?assert(KeepAlive("1", "Connection: Upgrade\r\n")).

upgrade(_) ->
    Upgrade = fun(Headers) -> element(12, request_of(["GET / HTTP/1.1\r\n", Headers, "\r\n"])) end,
    ?assertNot(Upgrade("Connection: Upgrade\r\n")),
    ?assert(Upgrade("Connection: Upgrade\r\nUpgrade: websocket\r\n")).

dribble(_) ->
    {Link, Conn} = http(),
    Request = "POST /a HTTP/1.1\r\nHost: example.org\r\nContent-Length: 5\r\n\r\nhello",
    [] = lists:append([nif_link:feed(Link, 1, [Byte]) || Byte <- lists:droplast(Request)]),
    [{request, Conn, 17}] = nif_link:feed(Link, 1, "o"),
    {ok, Taken} = megaphone_nif:http_request(Conn),
    ?assertEqual(<<"hello">>, element(10, Taken)).

%% In order, and the next one is the same process's.
pipelined(_) ->
    {Link, Conn} = http(),
    Three = ["GET /", "1 HTTP/1.1\r\nHost: a\r\n\r\n", "POST /2 HTTP/1.1\r\nContent-Length: 1\r\n\r\nx", "GET /3",
             " HTTP/1.1\r\n\r\n"],
    [{request, Conn, 17}] = nif_link:feed(Link, 1, Three),
    ?assertEqual(<<"/1">>, raw_path(Conn)),
    ?assertEqual(next, megaphone_nif:http_reply(Conn, ?OK, keep)),
    ?assertEqual(<<"/2">>, raw_path(Conn)),
    ?assertEqual(next, megaphone_nif:http_reply(Conn, ?OK, keep)),
    ?assertEqual(<<"/3">>, raw_path(Conn)),
    ?assertEqual(idle, megaphone_nif:http_reply(Conn, ?OK, keep)),
    ?assertEqual(iolist_to_binary([?OK, ?OK, ?OK]), nif_link:sent(Link, 1)).

%% Who asks and takes no answer is not asked for more: what waits is a window of requests, and one
%% answer.
pipelined_flood(_) ->
    {Link, Conn} = http(#{}, #{peer_window => 1000}),
    Answer = binary:copy(<<"x">>, 5000),
    [{request, Conn, 17}] = nif_link:feed(Link, 1, lists:duplicate(100, ?GET)),
    {ok, _} = megaphone_nif:http_request(Conn),
    ?assertEqual(idle, megaphone_nif:http_reply(Conn, Answer, keep)),
    ?assertEqual([], nif_link:ready(Link)),
    [] = nif_link:grant(Link, 1, 3999),
    ?assertEqual([], nif_link:ready(Link)),
    [] = nif_link:grant(Link, 1, 1),
    [{request, Conn, 17}] = nif_link:ready(Link),
    ?assertEqual(Answer, nif_link:sent(Link, 1)).

chunked(_) ->
    {Link, Conn} = http(),
    Request = request(Link, Conn, "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1;x\r\nd\r\n"
                      "0\r\nA: b\r\n\r\nGET /next HTTP/1.1\r\n\r\n"),
    ?assertEqual({4, <<"abcd">>}, {element(9, Request), element(10, Request)}),
    ?assertEqual(next, megaphone_nif:http_reply(Conn, ?OK, keep)),
    ?assertEqual(<<"/next">>, raw_path(Conn)).

%% Bodies longer than a window come, for credit is given as they do; the longest ones are copied on
%% a dirty scheduler.
large(_) ->
    {Link, Conn} = http(#{}, #{window => 65536}),
    Body = rand:bytes(1_000_000),
    [] = nif_link:feed(Link, 1, "POST / HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n"),
    [{request, Conn, 17}] = feed_slowly(Link, Body),
    ?assertEqual(large, megaphone_nif:http_request(Conn)),
    {ok, Request} = megaphone_nif:http_request_large(Conn),
    ?assertEqual(Body, element(10, Request)),
    ?assertEqual(idle, megaphone_nif:http_reply_large(Conn, ?OK, keep)).

continue(_) ->
    {Link, Conn} = http(),
    Head = "POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n",
    [] = nif_link:feed(Link, 1, Head),
    ?assertEqual(<<"HTTP/1.1 100 Continue\r\n\r\n">>, nif_link:sent(Link, 1)),
    [{request, Conn, 17}] = nif_link:feed(Link, 1, "ab"),
    ?OK = answer(Link, Conn),
    %% Nobody needs to be told what has come already.
    [{request, Conn, 17}] = nif_link:feed(Link, 1, [Head, "ab"]),
    ?OK = answer(Link, Conn).

%%% refusals

refused(_) ->
    [begin
         {Link, _Conn} = http(),
         News = nif_link:feed(Link, 1, Bytes) ++ nif_link:ready(Link),
         ?assertMatch([{refused, 1, _}], News, Bytes),
         [{refused, 1, Text}] = News,
         Code = integer_to_binary(Status),
         ?assertMatch({_, _}, binary:match(Text, Code)),
         {Answer, eof} = nif_link:sent(Link, 1),
         ?assertMatch({0, _}, binary:match(Answer, <<"HTTP/1.1 ", Code/binary, " ">>), Answer),
         ?assertMatch({_, _}, binary:match(Answer, <<"\r\nConnection: close\r\n">>))
     end || {Status, Bytes} <-
                [{400, "GET\r\n\r\n"},
                 {400, "GET / HTTP/1.1\nHost: a\n\n"},
                 {400, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"},
                 {400, "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"},
                 {400, "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"},
                 {411, "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"},
                 {413, "POST / HTTP/1.1\r\nContent-Length: 20000000000\r\n\r\n"},
                 {414, ["GET /", lists:duplicate(9000, $a), " HTTP/1.1\r\n\r\n"]},
                 {431, ["GET / HTTP/1.1\r\n", lists:duplicate(200, "a: b\r\n"), "\r\n"]},
                 {431, ["GET / HTTP/1.1\r\na: ", lists:duplicate(20000, $b)]},
                 {501, "POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n"},
                 {505, "GET / HTTP/2.0\r\n\r\n"}]].

%% What still comes of the refused one is no request.
after_a_refusal(_) ->
    {Link, Conn} = http(),
    _ = nif_link:feed(Link, 1, "GET\r\n\r\n"),
    [] = [R || {request, _, _} = R <- nif_link:feed(Link, 1, ?GET)],
    ?assertEqual({error, closed}, megaphone_nif:http_request(Conn)).

early_garbage(_) ->
    {Link, _Conn} = http(),
    _ = nif_link:feed(Link, 1, <<16#16, 3, 1, 2, 0, 1, 0, 1>>),
    ?assertMatch({<<"HTTP/1.1 400 ", _/binary>>, eof}, nif_link:sent(Link, 1)).

%%% time

head_timeout(_) ->
    {Link, _Conn} = http(#{head_timeout => 3000}),
    [] = nif_link:feed(Link, 1, "GET / HTTP/1.1\r\n"),
    [] = nif_link:tick(Link, 2),
    [] = nif_link:feed(Link, 1, "A: b\r\n"),
    ?assertMatch([{refused, 1, <<"HTTP request answered with 408", _/binary>>}], nif_link:tick(Link, 2)),
    ?assertMatch({<<"HTTP/1.1 408 ", _/binary>>, eof}, nif_link:sent(Link, 1)).

body_timeout(_) ->
    {Link, _Conn} = http(#{body_timeout => 3000}),
    [] = nif_link:feed(Link, 1, "POST / HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n"),
    %% Slowly, but it comes.
    [begin
         [] = nif_link:feed(Link, 1, binary:copy(<<"a">>, 1024)),
         [] = nif_link:tick(Link, 3)
     end || _ <- lists:seq(1, 5)],
    ?assertEqual(<<>>, nif_link:sent(Link, 1)),
    [] = nif_link:feed(Link, 1, "aaaa"),
    ?assertMatch([{refused, 1, _}], nif_link:tick(Link, 4)),
    ?assertMatch({<<"HTTP/1.1 408 ", _/binary>>, eof}, nif_link:sent(Link, 1)).

%% Silently, also after a request.
idle_timeout(_) ->
    {Link, Conn} = http(#{idle_timeout => 5000}),
    [] = nif_link:tick(Link, 3),
    ?OK = ask(Link, Conn, ?GET),
    [] = nif_link:tick(Link, 4),
    ?assertEqual(<<>>, nif_link:sent(Link, 1)),
    [] = nif_link:tick(Link, 3),
    ?assertEqual({<<>>, eof}, nif_link:sent(Link, 1)).

send_timeout(_) ->
    {Link, Conn} = http(#{send_timeout => 3000}, #{peer_window => 1000}),
    _ = request(Link, Conn, ?GET),
    idle = megaphone_nif:http_reply(Conn, binary:copy(<<"x">>, 5000), keep),
    [] = nif_link:tick(Link, 3),
    [] = nif_link:grant(Link, 1, 10),
    [] = nif_link:tick(Link, 3),
    ?assertEqual(1010, byte_size(nif_link:sent(Link, 1))),
    ?assertMatch([{refused, 1, <<"the client takes nothing", _/binary>>}], nif_link:tick(Link, 4)),
    ?assertEqual({<<>>, reset}, nif_link:sent(Link, 1)),
    %% Who takes all of it may take its time for the next request.
    {Slow, Conn2} = http(#{send_timeout => 3000}, #{peer_window => 1000}),
    _ = request(Slow, Conn2, ?GET),
    idle = megaphone_nif:http_reply(Conn2, binary:copy(<<"x">>, 5000), keep),
    [] = nif_link:grant(Slow, 1, 10000),
    5000 = byte_size(nif_link:sent(Slow, 1)),
    [] = nif_link:tick(Slow, 20),
    ?OK = ask(Slow, Conn2, ?GET).

not_taken(_) ->
    {Link, Conn} = http(#{idle_timeout => 10000}),
    [{request, Conn, 17}] = nif_link:feed(Link, 1, ?GET),
    ?assertMatch([{refused, 1, _}], nif_link:tick(Link, 70)),
    ?assertMatch({<<"HTTP/1.1 503 ", _/binary>>, eof}, nif_link:sent(Link, 1)).

%%% uploads

upload(_) ->
    {Link, Conn} = http(),
    Request = request(Link, Conn, "PUT /f HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n"),
    ?assertEqual({10, <<>>, [<<"f">>]}, {element(9, Request), element(10, Request), element(4, Request)}),
    %% The client is told to go on when somebody wants it to.
    ?assertEqual(<<>>, nif_link:sent(Link, 1)),
    {wait, Token} = megaphone_nif:recv(Conn, 4),
    ?assertEqual(<<"HTTP/1.1 100 Continue\r\n\r\n">>, nif_link:sent(Link, 1)),
    [] = nif_link:feed(Link, 1, "abc"),
    [] = nif_link:feed(Link, 1, "defghijGET / HTTP/1.1\r\n\r\n"),
    receive {'$megaphone_reply', Token, Result} -> ?assertEqual({ok, <<"abcd">>}, Result) end,
    ?assertEqual({error, closed}, megaphone_nif:recv(Conn, 7)),
    ?assertEqual({ok, <<"ef">>}, megaphone_nif:recv(Conn, 2)),
    ?assertEqual({ok, <<"ghij">>}, megaphone_nif:recv(Conn, 0)),
    ?assertEqual({error, closed}, megaphone_nif:recv(Conn, 0)),
    ?assertEqual(next, megaphone_nif:http_reply(Conn, ?OK, keep)),
    ?OK = answer(Link, Conn, 1, [?OK]).

%% Nothing but a PUT's body can be received.
upload_bounded(_) ->
    {Link, Conn} = http(),
    ?assertEqual({error, einval}, megaphone_nif:recv(Conn, 0)),
    _ = request(Link, Conn, [?GET, ?GET]),
    ?assertEqual({error, closed}, megaphone_nif:recv(Conn, 0)),
    ?assertEqual({error, einval}, megaphone_nif:recv_item(Conn)).

%% The client sends as much as the reader takes, and no more than a window ahead.
upload_credit(_) ->
    {Link, Conn} = http(#{}, #{window => 65536}),
    _ = request(Link, Conn, "PUT /f HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n"),
    _ = nif_link:told(Link),
    [] = nif_link:feed(Link, 1, binary:copy(<<"a">>, 60000)),
    ?assertEqual([], nif_link:told(Link)),
    {ok, _} = megaphone_nif:recv(Conn, 60000),
    ?assertMatch([<<"window ", _/binary>>], nif_link:told(Link)),
    {wait, Token} = megaphone_nif:recv(Conn, 300000),
    [] = feed_slowly(Link, binary:copy(<<"b">>, 300000)),
    receive {'$megaphone_reply', Token, {ok, Got}} -> ?assertEqual(300000, byte_size(Got)) after 0 -> error(none) end.

upload_unread(_) ->
    {Link, Conn} = http(),
    _ = request(Link, Conn, "PUT /f HTTP/1.1\r\nContent-Length: 10000\r\n\r\nabc"),
    ?assertEqual(idle, megaphone_nif:http_reply(Conn, ?OK, keep)),
    [{request, Conn, 17}] = nif_link:feed(Link, 1, [lists:duplicate(9997, $x), "GET /n HTTP/1.1\r\n\r\n"]),
    ?assertEqual(<<"/n">>, raw_path(Conn)),
    idle = megaphone_nif:http_reply(Conn, ?OK, keep),
    _ = request(Link, Conn, "PUT /f HTTP/1.1\r\nContent-Length: 10000\r\n\r\nabc"),
    idle = megaphone_nif:http_reply(Conn, ?OK, keep),
    _ = nif_link:sent(Link, 1),
    ?assertMatch([{refused, 1, <<"the rest of a body", _/binary>>}], nif_link:tick(Link, 70)),
    ?assertEqual({<<>>, eof}, nif_link:sent(Link, 1)).

upload_unread_large(_) ->
    [begin
         {Link, Conn} = http(),
         _ = request(Link, Conn, ["PUT /f HTTP/1.1\r\n", Head, "\r\n"]),
         ?assertEqual(closed, megaphone_nif:http_reply(Conn, ?OK, keep)),
         ?assertEqual({?OK, eof}, nif_link:sent(Link, 1))
     end || Head <- ["Content-Length: 100000\r\n",
                     %% Whether this one comes depends on what the client makes of the answer.
                     "Expect: 100-continue\r\nContent-Length: 3\r\n"]].

upload_client_gone(_) ->
    {Link, Conn} = http(),
    _ = request(Link, Conn, "PUT /f HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc"),
    {wait, Token} = megaphone_nif:recv(Conn, 10),
    _ = nif_link:finish(Link, 1),
    receive {'$megaphone_reply', Token, Result} -> ?assertEqual({error, closed}, Result) after 0 -> error(none) end,
    ?assertEqual({ok, <<"abc">>}, megaphone_nif:recv(Conn, 0)),
    ?assertEqual({error, closed}, megaphone_nif:recv(Conn, 0)),
    ?assertEqual(closed, megaphone_nif:http_reply(Conn, ?OK, keep)).

upload_stalls(_) ->
    {Link, Conn} = http(#{body_timeout => 3000}),
    _ = request(Link, Conn, "PUT /f HTTP/1.1\r\nContent-Length: 10000\r\n\r\nabc"),
    %% Nobody reads: whose fault is that?
    [] = nif_link:tick(Link, 10),
    {wait, Token} = megaphone_nif:recv(Conn, 5000),
    [] = nif_link:feed(Link, 1, binary:copy(<<"a">>, 1024)),
    [] = nif_link:tick(Link, 4),
    ?assertMatch([{refused, 1, _}], nif_link:tick(Link, 4)),
    receive {'$megaphone_reply', Token, Result} -> ?assertEqual({error, closed}, Result) after 0 -> error(none) end,
    ?assertMatch({<<"HTTP/1.1 408 ", _/binary>>, eof}, nif_link:sent(Link, 1)).

%%% owners and answers

owner_dies(_) ->
    {Link, Conn} = http(),
    [{request, Conn, 17}] = nif_link:feed(Link, 1, ?GET),
    in_its_own(fun() -> {ok, _} = megaphone_nif:http_request(Conn) end),
    ?assertMatch({<<"HTTP/1.1 500 ", _/binary>>, eof}, sent_in_time(Link, 1)).

owner_dies_in_the_middle(_) ->
    {Link, Conn} = http(),
    [{request, Conn, 17}] = nif_link:feed(Link, 1, ?GET),
    in_its_own(fun() ->
                       {ok, _} = megaphone_nif:http_request(Conn),
                       ok = megaphone_nif:send(Conn, "HTTP/1.1 200 OK\r\n")
               end),
    ?assertEqual({<<"HTTP/1.1 200 OK\r\n">>, reset}, sent_in_time(Link, 1)).

parts_of_an_answer(_) ->
    {Link, Conn} = http(),
    _ = request(Link, Conn, ?GET),
    ok = megaphone_nif:send(Conn, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"),
    ok = megaphone_nif:send(Conn, "abc"),
    ?assertEqual(idle, megaphone_nif:http_reply(Conn, <<>>, keep)),
    ?assertEqual(<<"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc">>, nif_link:sent(Link, 1)).

close_after(_) ->
    {Link, Conn} = http(#{}, #{peer_window => 10}),
    _ = request(Link, Conn, [?GET, ?GET]),
    ?assertEqual(closed, megaphone_nif:http_reply(Conn, ?OK, close)),
    <<First:10/binary, Rest/binary>> = ?OK,
    ?assertEqual(First, nif_link:sent(Link, 1)),
    _ = nif_link:grant(Link, 1, 1000),
    ?assertEqual({Rest, eof}, nif_link:sent(Link, 1)).

%%% held

held(_) ->
    {Link, Conn} = http(),
    [{request, Conn, 17}] = nif_link:feed(Link, 1, ?GET),
    Self = self(),
    in_its_own(fun() ->
                       {ok, _} = megaphone_nif:http_request(Conn),
                       ok = megaphone_nif:http_hold(Conn, Self, 99)
               end),
    [] = nif_link:tick(Link, 400),
    ?assertEqual(<<>>, nif_link:sent(Link, 1)),
    ?assertEqual(idle, megaphone_nif:http_reply(Conn, ?OK, keep)),
    ?assertEqual(?OK, nif_link:sent(Link, 1)),
    ?OK = ask(Link, Conn, ?GET),
    none = gone().

held_client_goes(_) ->
    [begin
         {Link, Conn} = http(),
         _ = request(Link, Conn, ?GET),
         ok = megaphone_nif:http_hold(Conn, self(), 99),
         _ = nif_link:Go(Link, 1),
         ?assertEqual(99, gone()),
         none = gone(),
         ?assertEqual(closed, megaphone_nif:http_reply(Conn, ?OK, keep))
     end || Go <- [finish, close, reset]].

%% By whom does not matter.
held_closed(_) ->
    {Link, Conn} = http(),
    _ = request(Link, Conn, ?GET),
    ok = megaphone_nif:http_hold(Conn, self(), 99),
    ok = megaphone_nif:close(Conn, shutdown),
    ?assertEqual(99, gone()),
    ?assertEqual({<<>>, eof}, nif_link:sent(Link, 1)).

held_then_pipelined(_) ->
    {Link, Conn} = http(),
    _ = request(Link, Conn, [?GET, "GET /n HTTP/1.1\r\n\r\n"]),
    ok = megaphone_nif:http_hold(Conn, self(), 99),
    ?assertEqual(next, megaphone_nif:http_reply(Conn, ?OK, keep)),
    Self = self(),
    in_its_own(fun() -> Self ! raw_path(Conn), idle = megaphone_nif:http_reply(Conn, ?OK, keep) end),
    receive Path -> ?assertEqual(<<"/n">>, Path) end,
    ?assertEqual(<<?OK/binary, ?OK/binary>>, nif_link:sent(Link, 1)).

%%% clients that go

%% A user's last word is heard, whatever it does behind it.
client_gone_before(_) ->
    [begin
         {Link, Conn} = http(),
         [{request, Conn, 17}] = nif_link:feed(Link, 1, ?GET),
         [] = nif_link:Go(Link, 1),
         ?assertEqual(<<"/a">>, raw_path(Conn)),
         ?assertEqual(closed, megaphone_nif:http_reply(Conn, ?OK, keep))
     end || Go <- [close, reset]].

%% Who says that it asks for nothing more gets its answers all the same.
half_closed(_) ->
    {Link, Conn} = http(),
    [{request, Conn, 17}] = nif_link:feed(Link, 1, [?GET, ?GET]),
    [] = nif_link:finish(Link, 1),
    ?assertEqual(<<"/a">>, raw_path(Conn)),
    ?assertEqual(next, megaphone_nif:http_reply(Conn, ?OK, keep)),
    ?assertEqual(<<"/a">>, raw_path(Conn)),
    ?assertEqual(closed, megaphone_nif:http_reply(Conn, ?OK, keep)),
    ?assertEqual({<<?OK/binary, ?OK/binary>>, eof}, nif_link:sent(Link, 1)),
    {Other, _} = http(),
    [] = nif_link:feed(Other, 1, "GET / HT"),
    [] = nif_link:finish(Other, 1),
    ?assertEqual({<<>>, eof}, nif_link:sent(Other, 1)).

link_lost(_) ->
    {Link, Conn} = http(),
    _ = request(Link, Conn, ?GET),
    ok = megaphone_nif:http_hold(Conn, self(), 7),
    more = megaphone_nif:end_some(element(2, Link), link_lost),
    ?assertEqual(7, gone()),
    ?assertEqual(closed, megaphone_nif:http_reply(Conn, ?OK, keep)).

%% Whatever its connections were at, a link that is gone takes its memory with it.
nothing_is_left(_) ->
    Lose = fun(Rounds) -> [in_its_own(fun lost_with_all/0) || _ <- lists:seq(1, Rounds)] end,
    _ = Lose(5),
    Before = megaphone_nif:memory(),
    _ = Lose(50),
    %% A link alone has some 20 kB. The last are freed when their processes' terms are.
    ok = poll:until(fun() -> megaphone_nif:memory() < Before + 50_000 end).

lost_with_all() ->
    Link = nif_link:new(#{peer_window => 100}),
    Self = self(),
    [begin
         Conn = nif_link:open(Link, Id),
         ok = megaphone_nif:http_start(Conn, service(#{})),
         News = nif_link:feed(Link, Id, bytes_of_some_kind(Id rem 7)),
         case [C || {request, C, _} <- News] of
             [Conn] when Id rem 14 < 7 ->
                 {ok, _} = megaphone_nif:http_request(Conn),
                 case Id rem 4 of
                     0 -> megaphone_nif:http_hold(Conn, Self, 1);
                     1 -> megaphone_nif:http_reply(Conn, binary:copy(<<"x">>, 1000), keep);
                     2 -> megaphone_nif:http_reply(Conn, binary:copy(<<"x">>, 1000), close);
                     3 -> megaphone_nif:recv(Conn, 50)
                 end;
             _ ->
                 ok
         end
     end || Id <- lists:seq(1, 84)],
    end_all(element(2, Link)).

bytes_of_some_kind(0) -> "GET / HT";
bytes_of_some_kind(1) -> ?GET;
bytes_of_some_kind(2) -> "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n";
bytes_of_some_kind(3) -> "PUT / HTTP/1.1\r\nContent-Length: 100\r\n\r\nabc";
bytes_of_some_kind(4) -> "GET\r\n\r\n";
bytes_of_some_kind(5) -> [?GET, ?GET];
bytes_of_some_kind(6) -> "POST / HTTP/1.1\r\nContent-Length: 100\r\n\r\nabc".

end_all(Link) ->
    case megaphone_nif:end_some(Link, link_lost) of
        more -> end_all(Link);
        done -> ok
    end.

%%% the rest

draining(_) ->
    {Link, Conn} = http(),
    ok = megaphone_nif:set_draining(Conn),
    ?assertEqual({<<>>, eof}, nif_link:sent(Link, 1)),
    {Link2, Conn2} = http(),
    ?assert(element(11, request(Link2, Conn2, ?GET))),
    ok = megaphone_nif:set_draining(Conn2),
    ?assertEqual(closed, megaphone_nif:http_reply(Conn2, ?OK, keep)),
    ?assertEqual({<<"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok">>, eof},
                 nif_link:sent(Link2, 1)),
    %% The client is still at the last answer.
    {Link4, Conn4} = http(#{}, #{peer_window => 10}),
    _ = request(Link4, Conn4, ?GET),
    idle = megaphone_nif:http_reply(Conn4, ?OK, keep),
    ok = megaphone_nif:set_draining(Conn4),
    _ = nif_link:grant(Link4, 1, 1000),
    ?assertEqual({?OK, eof}, nif_link:sent(Link4, 1)),
    {Link3, Conn3} = http(),
    [{request, Conn3, 17}] = nif_link:feed(Link3, 1, ?GET),
    ok = megaphone_nif:set_draining(Conn3),
    {ok, Request} = megaphone_nif:http_request(Conn3),
    ?assertNot(element(11, Request)),
    closed = megaphone_nif:http_reply(Conn3, ?OK, close),
    ?assertEqual({?OK, eof}, nif_link:sent(Link3, 1)).

detached(_) ->
    {Link, Conn} = http(),
    _ = request(Link, Conn, [?GET, "more"]),
    ok = megaphone_nif:http_detach(Conn),
    Socket = megaphone_socket:socket(Conn),
    ?assertEqual({ok, <<"more">>}, gen_tcp:recv(Socket, 0)),
    ok = inet:setopts(Socket, [{active, true}]),
    [] = nif_link:feed(Link, 1, "bytes"),
    receive {tcp, Socket, Bytes} -> ?assertEqual(<<"bytes">>, Bytes) after 0 -> error(none) end,
    ok = gen_tcp:send(Socket, "answer"),
    ?assertEqual(<<"answer">>, nif_link:sent(Link, 1)),
    [] = nif_link:tick(Link, 400),
    ?assertEqual(<<>>, nif_link:sent(Link, 1)).

facts(_) ->
    {Link, Conn} = http(),
    Front = fun() -> proplists:get_value(front, megaphone_nif:conn_info(Conn)) end,
    ?assertEqual(idle, Front()),
    [] = nif_link:feed(Link, 1, "GET"),
    ?assertEqual(collecting, Front()),
    [_] = nif_link:feed(Link, 1, " / HTTP/1.1\r\n\r\n"),
    ?assertEqual(request, Front()),
    {ok, _} = megaphone_nif:http_request(Conn),
    ok = megaphone_nif:http_hold(Conn, self(), 5),
    ?assertEqual({held, 5}, Front()),
    idle = megaphone_nif:http_reply(Conn, ?OK, keep),
    ?assertEqual(idle, Front()).

start_with_bytes(_) ->
    Link = nif_link:new(#{}),
    Conn = nif_link:open(Link, 1),
    [] = nif_link:feed(Link, 1, ?GET),
    ?assertEqual(request, megaphone_nif:http_start(Conn, service(#{}))),
    ?assertEqual(<<"/a">>, raw_path(Conn)),
    ?assertEqual({error, closed}, megaphone_nif:http_start(Conn, service(#{}))).

%% A client that has been answered may send as much as before.
credit(_) ->
    {Link, Conn} = http(#{}, #{window => 1000}),
    [?OK = ask(Link, Conn, ["POST / HTTP/1.1\r\nContent-Length: 800\r\n\r\n", lists:duplicate(800, $a)])
     || _ <- lists:seq(1, 100)],
    ok.

overload(_) ->
    {Link, _Conn} = http(#{}, #{max_buffered => 10000}),
    ?assertMatch([{reset, 1, _}],
                 nif_link:feed(Link, 1, ["POST / HTTP/1.1\r\nContent-Length: 50000\r\n\r\n", lists:duplicate(20000, $a)])),
    ?assertEqual({<<>>, reset}, nif_link:sent(Link, 1)),
    %% What is decoded already counts too.
    {Other, _} = http(#{}, #{max_buffered => 10000}),
    Chunk = ["1f40\r\n", lists:duplicate(8000, $a), "\r\n"],
    [] = nif_link:feed(Other, 1, ["POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", Chunk]),
    ?assertMatch([{reset, 1, _}], nif_link:feed(Other, 1, Chunk)).

%%% ----

http() -> http(#{}).

http(Limits) -> http(Limits, #{}).

http(Limits, Options) ->
    Link = nif_link:new(Options),
    Conn = nif_link:open(Link, 1),
    ok = megaphone_nif:http_start(Conn, service(Limits)),
    {Link, Conn}.

service(Limits) ->
    megaphone_nif:http_service(
      maps:merge(#{key => 17, head_timeout => 10_000, body_timeout => 30_000, idle_timeout => 300_000,
                   send_timeout => 30_000, max_body => 10_000_000}, Limits)).

request(Link, Conn, Bytes) ->
    [{request, Conn, 17}] = nif_link:feed(Link, 1, Bytes),
    {ok, Request} = megaphone_nif:http_request(Conn),
    Request.

request_of(Bytes) ->
    {Link, Conn} = http(),
    request(Link, Conn, Bytes).

target(Bytes) ->
    Request = request_of(Bytes),
    {element(3, Request), element(4, Request), element(5, Request)}.

raw_path(Conn) ->
    {ok, Request} = megaphone_nif:http_request(Conn),
    element(3, Request).

ask(Link, Conn, Bytes) ->
    [{request, Conn, 17}] = nif_link:feed(Link, 1, Bytes),
    answer(Link, Conn).

answer(Link, Conn) -> answer(Link, Conn, 1, []).

%% The answer to the request that is ready, behind others.
answer(Link, Conn, Id, Before) ->
    {ok, _} = megaphone_nif:http_request(Conn),
    idle = megaphone_nif:http_reply(Conn, ?OK, keep),
    Sent = nif_link:sent(Link, Id),
    Length = iolist_size(Before),
    <<_:Length/binary, Answer/binary>> = Sent,
    Answer.

feed_slowly(Link, <<Part:10000/binary, Rest/binary>>) ->
    nif_link:feed(Link, 1, Part) ++ feed_slowly(Link, Rest);
feed_slowly(_Link, <<>>) ->
    [];
feed_slowly(Link, Rest) ->
    nif_link:feed(Link, 1, Rest).

in_its_own(Fun) ->
    {_, Ref} = spawn_monitor(Fun),
    receive {'DOWN', Ref, process, _, Reason} -> normal = Reason end.

%% A monitor of the NIF may fire a little later than one of ours.
sent_in_time(Link, Id) -> sent_in_time(Link, Id, <<>>, 1000).

sent_in_time(Link, Id, Before, Left) when Left > 0 ->
    case nif_link:sent(Link, Id) of
        {Bytes, End} -> {<<Before/binary, Bytes/binary>>, End};
        Bytes -> timer:sleep(1), sent_in_time(Link, Id, <<Before/binary, Bytes/binary>>, Left - 1)
    end.

gone() ->
    receive {'$megaphone_gone', Token} -> Token after 0 -> none end.
