%% What megaphone answers otherwise than ejabberd_http on purpose: {Name, Steps, what stock does, what
%% megaphone does}, as statuses and the connection's end or what the first answer says; `any`: nothing that
%% is worth holding on to.
%% The same table, with reasons, is docs/parity.md.
-module(e2e_parity_differences).

-export([all/0]).

-import(e2e_parity_requests, [get/1, get/2, post/3, request/4, upgrade/2]).
-compile({no_auto_import, [get/1]}).

all() -> framing() ++ lines() ++ limits() ++ persistence().

%% ---- where a request ends: what two readers could read in two ways ----

framing() ->
    [{"Content-Length twice, equal", [["POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc"]],
      [200, open], [400, closed]},
     {"Content-Length twice", [["POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 3\r\n\r\nabc"]],
      [200, open], [400, closed]},
     {"Content-Length +3", [["POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc"]], [200, open], [400, closed]},
     {"Content-Length -3", [["POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: -3\r\nConnection: close\r\n\r\n"]], any, [400, closed]},
     {"Content-Length 0x3", [["POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 0x3\r\nConnection: close\r\n\r\n"]], [400, closed], [400, closed]},
     {"Content-Length 3, 3", [["POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\nConnection: close\r\n\r\n"]], [400, closed], [400, closed]},
     {"both framings", [["POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"]],
      any, [400, closed]},
     {"both framings, other order", [["POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n"]],
      any, [400, closed]},
     {"chunked body", [["POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\na=b\r\n0\r\n\r\n"]],
      any, [200, open]},
     {"another coding", [["POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n"]], any, [501, closed]},
     {"codings in a row", [["POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"]], any, [501, closed]},
     {"chunk size wrong", [["POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n"]], any, [400, closed]},
     {"chunk without its end", [["POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n"]], any, [400, closed]},
     {"PUT in chunks", [["PUT /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"]], any, [411, closed]},
     {"GET with a body", [[request("GET", "/echo", "Content-Length: 3\r\n", none), "abc"], get("/echo")], any, [200, 200, open]},
     {"three at a time", [{pipeline, [get("/echo/1"), request("HEAD", "/echo/2", [], none), get("/no")]}], any, [200, 200, 404, open]},
     {"the second of three closes", [{pipeline, [get("/echo/1"), get("/echo/2", "Connection: close\r\n"), get("/echo/3")]}],
      any, [200, 200, closed]},
     {"the second of three is wrong", [{pipeline, [get("/echo/1"), "GET /echo\r\n\r\n", get("/echo/3")]}],
      any, [200, 400, closed]}].

%% ---- what a line may hold ----

lines() ->
    Host = "Host: a\r\n",
    [{Name, [Request], any, [400, closed]}
     || {Name, Request} <-
            [{"a folded header", ["GET /echo HTTP/1.1\r\n", Host, "A: b\r\n c\r\n\r\n"]},
             {"LF alone", "GET /echo HTTP/1.1\nHost: a\n\n"},
             {"CR alone", ["GET /echo HTTP/1.1\r\n", Host, "A: b\rc\r\n\r\n"]},
             {"NUL in a value", ["GET /echo HTTP/1.1\r\n", Host, "A: b", 0, "c\r\n\r\n"]},
             {"NUL in the target", ["GET /echo", 0, " HTTP/1.1\r\n", Host, "\r\n"]},
             {"no name", ["GET /echo HTTP/1.1\r\n", Host, ": b\r\n\r\n"]},
             {"space before the colon", ["GET /echo HTTP/1.1\r\n", Host, "A : b\r\n\r\n"]},
             {"no colon", ["GET /echo HTTP/1.1\r\n", Host, "Abc\r\n\r\n"]},
             {"name that is no token", ["GET /echo HTTP/1.1\r\n", Host, "A(b: c\r\n\r\n"]},
             {"two spaces", ["GET  /echo HTTP/1.1\r\n", Host, "\r\n"]},
             {"TAB", ["GET\t/echo HTTP/1.1\r\n", Host, "\r\n"]},
             {"broken UTF-8 in the target", ["GET /echo/", 252, " HTTP/1.1\r\n", Host, "\r\n"]},
             {"an answer", "HTTP/1.1 200 OK\r\n\r\n"},
             {"no HTTP at all", [16#16, 3, 1, 0, 200, "hello\r\n\r\n"]},
             {"HTTP/0.9", "GET /echo\r\n"},
             {"two Host headers", ["GET /echo HTTP/1.1\r\n", Host, Host, "\r\n"]}]] ++
        [{"something behind the version", [["GET /echo HTTP/1.1 x\r\n", Host, "\r\n"]], any, [505, closed]},
         {"HTTP/2.0", [["GET /echo HTTP/2.0\r\n", Host, "\r\n"]], any, [505, closed]},
         {"HTTP/9.9", [["GET /echo HTTP/9.9\r\n", Host, "\r\n"]], any, [505, closed]},
         {"an HTTP/2 preface", ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"], any, [505, closed]},
         {"an empty line in front", [["\r\n", get("/echo")]], [closed], [200, open]}].

%% ---- how much there may be ----

limits() ->
    [{"target too long", [get(["/echo/", lists:duplicate(8200, $a)])], [200, open], [414, closed]},
     {"head too long", [get("/echo", [["A", integer_to_list(N), ": ", lists:duplicate(1000, $x), "\r\n"] || N <- lists:seq(1, 20)])],
      [200, open], [431, closed]},
     {"too many headers", [get("/echo", [["A", integer_to_list(N), ": x\r\n"] || N <- lists:seq(1, 120)])], [200, open], [431, closed]},
     {"body too long", [request("POST", "/echo", "Content-Length: 20971521\r\n", none)], [400, open], [413, closed]}].

%% ---- how long a connection lasts ----

persistence() ->
    [{"close among other words", [get("/echo", "Connection: foo, close\r\n")], [200, open], [200, closed]},
     {"Expect, body there already", [[request("POST", "/echo", "Content-Length: 3\r\nExpect: 100-continue\r\n", none), "a=b"]],
      [100, 200, open], [200, open]},
     {"Expect without a body", [get("/echo", "Expect: 100-continue\r\n")], [100, 200, open], [200, open]},
     {"a taker of sockets that does not", [get("/handoff/y", "Upgrade: shout\r\nConnection: Upgrade\r\n")], [200, open], [200, closed]},
     {"MQTT from a wrong page", [upgrade("/mqtt", "Origin: https://evil.example\r\nSec-WebSocket-Protocol: mqtt\r\n")],
      [403, open], [403, closed]},
     {"q of a body of XML", [post("/echo", "text/xml", "<a b='c'/>")], {says, "{q,\\[{<<\"<a b\">>"}, {says, "{q,\\[\\]}"}},
     {"q of a body of more than 64 kB", [post("/echo", "application/x-www-form-urlencoded", binary:copy(<<"a=b&">>, 20_000))],
      {says, "{q,\\[{<<\"a\">>,<<\"b\">>}(?s:.*){data,{80000,<<"}, {says, "{q,\\[\\]}(?s:.*){data,{80000,<<"}},
     {"a handler that crashes", [get("/echo/shape/crash")], [closed], [500, closed]},
     {"a handler that exits", [get("/echo/shape/exit")], [closed], [500, closed]},
     {"a PUT that nobody reads", [[request("PUT", "/no", "Content-Length: 9\r\n", none), "not read."], get("/echo")],
      any, [404, 200, open]}].
