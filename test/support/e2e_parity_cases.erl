%% Requests for the parity suite, a table for each matter of HTTP itself: {Name, Statuses of the answers as
%% stock gives them, Request or {steps, [...]} of e2e_raw} and perhaps options of the client's socket.
%% Most go to e2e_echo_handler, which shows the `#request{}` that was made of them.
-module(e2e_parity_cases).

-export([all/0, custom/0, long/0]).

-import(e2e_parity_requests, [get/1, get/2, post/3, request/4, alice/0]).
-compile({no_auto_import, [get/1]}).

all() ->
    lists:append([echo(), targets(), queries(), methods(), connections(), hosts(), authorizations(), forwarded(), headers(),
                  bodies(), shapes()]).

%% Where custom_headers are put and where not.
custom() -> lists:append([echo(), hosts(), shapes(), methods()]).

%% A request with something of everything.
long() ->
    request("POST", "/echo/a%20b/c?q=1&r=%41",
            ["Accept-Language: de-DE, en;q=0.5\r\nX-Forwarded-For: 192.0.2.7\r\nx-mIxEd-cASE: a\r\n",
             "Connection: keep-alive\r\nCookie: a=b\r\n", alice()], "key=value&other=%42+c").

echo() ->
    [{"GET", [200], get("/echo")},
     {"GET with a slash", [200], get("/echo/")},
     {"something of everything", [200], long()},
     {"longest prefix does not win, order does", [200], get("/echo/deep/er/and/deeper")},
     {"not a prefix by whole parts", [404], get("/echoes")},
     {"no handler", [404], get("/")},
     {"no handler either", [404], get("/nothing/here?x")},
     {"three on one connection", [200, 200, 404], {steps, [get("/echo/1"), long(), get("/no")]}}].

targets() ->
    [{lists:flatten(io_lib:format("~ts", [Target])), Statuses, get(Target)}
     || {Target, Statuses} <-
            [{"/echo//a///b", [200]}, {"/echo/./a", [200]}, {"/echo/../echo/b", [200]}, {"/echo/a/../../echo/c", [200]},
             {"/echo/..", [404]}, {"/..", [404]}, {"/../../echo", [200]}, {"/echo/a/..", [200]}, {"/echo/%2e%2e/x", [404]},
             {"/echo/%2E%2e/echo", [200]}, {"/echo/a%2fb", [200]}, {"/echo/%41%c3%bc", [200]}, {"/echo/%", [200]},
             {"/echo/%4", [200]}, {"/echo/%zz", [400]}, {"/echo/%00", [400]}, {"/echo/%0a", [200]}, {"/echo/a+b", [200]},
             {"/echo/%25", [200]}, {"/echo/%+1", [200]}, {"/echo/%-1", [200]}, {"/echo;p=1/a", [404]}, {"/echo/~a:b@c!$&'()*,;=", [200]},
             {"/echo#fragment", [404]}, {"/echo/#f?x", [200]}, {"/%65cho", [200]}, {"/echo/...", [200]}, {"/echo/.../..", [200]},
             {"/echo/.", [200]}, {"/echo/a.", [200]}, {"/echo/a..b", [200]}, {"/./echo", [200]}, {"//echo", [200]},
             {[<<"/echo/ü"/utf8>>], [200]}, {"/echo/\\x", [200]}, {"/echo/<>\"{}|^`", [200]},
             {"http://other.example/echo/absolute?x=1", [200]}, {"http://other.example:99/echo", [200]},
             {"https://other.example/echo", [200]}, {"http://other.example", [404]}, {"echo", [400]}, {"*", [400]},
             {"ftp://x/echo", [400]}, {"localhost:80", [400]},
             {"/echo/" ++ lists:duplicate(3000, $a), [200]},
             {"/echo/" ++ lists:append(lists:duplicate(500, "b/")), [200]}]].

queries() ->
    [{"query " ++ Query, [200], get("/echo?" ++ Query)}
     || Query <- ["", "a", "a=", "=b", "=", "&", "&&", "a&b", "a=1&a=2", "a=b=c", "a%3db=c%26d", "a+b=c+d", "a=%", "a=%4",
                  "a=%zz", "%=1", "a=%00", "a=%c3%bc", binary_to_list(<<"a=ü"/utf8>>), "a?b=c?d", "a;b=c", "a=b#c", "%41=%42", "a=/../b",
                  "a=b&", "&a=b", "a=%2B", "a=%+1"]].

methods() ->
    [{Method ++ " " ++ What, Statuses, request(Method, "/echo/m?q=1", [], Body)}
     || {Method, What, Statuses, Body} <-
            [{"HEAD", "", [200], none}, {"DELETE", "", [200], none}, {"OPTIONS", "", [200], none},
             {"POST", "without a length", [400], none}, {"POST", "of nothing", [400], ""}, {"POST", "of a byte", [200], "x"},
             {"PUT", "of some", [200], "content"},
             {"PATCH", "", [400], none}, {"TRACE", "", [400], none}, {"PROPFIND", "", [400], none}, {"get", "", [400], none},
             {"CONNECT", "", [400], none}, {"A", "", [400], none}, {"M-SEARCH", "", [400], none},
             {"X!#$%&'*+.^_`|~9", "", [400], none}]] ++
        [{"OPTIONS *", [400], request("OPTIONS", "*", [], none)},
         {"HEAD of no handler", [404], request("HEAD", "/no", [], none)},
         {"HEAD and then GET", [200, 200], {steps, [request("HEAD", "/echo", [], none), get("/echo")]}}].

connections() ->
    [{"Connection: " ++ Value, [200], get("/echo", ["Connection: ", Value, "\r\n"])}
     || Value <- ["close", "Close", "keep-alive", "Keep-Alive", "upgrade", "foo", "TE, keep-alive"]] ++
        [{"two, close last", [200], get("/echo", "Connection: keep-alive\r\nConnection: close\r\n")},
         {"two, close first", [200], get("/echo", "Connection: close\r\nConnection: keep-alive\r\n")},
         {"1.0", [200], "GET /echo HTTP/1.0\r\nHost: localhost\r\n\r\n"},
         {"1.0, keep-alive", [200, 200], {steps, ["GET /echo HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n",
                                                  "GET /echo HTTP/1.0\r\nHost: localhost\r\nConnection: Keep-Alive\r\n\r\n"]}},
         {"1.0, HEAD", [200], "HEAD /echo HTTP/1.0\r\nHost: localhost\r\n\r\n"},
         {"1.0, POST", [200], "POST /echo HTTP/1.0\r\nHost: localhost\r\nContent-Length: 3\r\n\r\na=b"},
         {"1.0, not found", [404], "GET /no HTTP/1.0\r\nHost: localhost\r\n\r\n"}
        ].

hosts() ->
    [{"Host: " ++ Value, Statuses, ["GET /echo HTTP/1.1\r\nHost: ", Value, "\r\n\r\n"]}
     || {Value, Statuses} <-
            [{"localhost", [200]}, {"LOCALHOST", [200]}, {"localhost:5280", [200]}, {"127.0.0.1", [200]}, {"127.0.0.1:80", [200]},
             {"[::1]", [200]}, {"[::1]:81", [200]}, {"unknown.example", [200]}, {"a_b", [200]}, {"localhost.", [200]},
             {"localhost:", [200]}, {"xn--bcher-kva.example", [200]}, {"bücher.example", [400]}]] ++
        [{"no Host", [400], "GET /echo HTTP/1.1\r\n\r\n"},
         {"no Host, 1.0", [400], "GET /echo HTTP/1.0\r\n\r\n"},
         {"no Host, HEAD", [400], "HEAD /echo HTTP/1.1\r\n\r\n"},
         {"no Host, keep-alive", [400], "GET /echo HTTP/1.1\r\nConnection: keep-alive\r\n\r\n"},
         {"no Host, absolute target", [400], "GET http://localhost/echo HTTP/1.1\r\n\r\n"},
         {"Host not at the end", [200], "GET /echo HTTP/1.1\r\nHost: localhost:99\r\nAccept: */*\r\n\r\n"}].

authorizations() ->
    [{"Authorization: " ++ Value, [200], get("/echo", ["Authorization: ", Value, "\r\n"])}
     || Value <- ["Basic " ++ base64:encode_to_string("alice@localhost:alice-pw"), "Basic " ++ base64:encode_to_string("a:b:c"),
                  "Basic " ++ base64:encode_to_string("nocolon"), "Basic !!!", "Basic ", "Basic", "basic eDp5",
                  "Basic " ++ base64:encode_to_string("ü:ü"), "Basic " ++ base64:encode_to_string([$a, $:, 255]),
                  "Bearer token", "Bearer  a b ", "Bearer ", "Digest username=\"x\"", "x"]] ++
        [{"two Authorizations", [200], get("/echo", ["Authorization: Basic eDp5\r\nAuthorization: Bearer z\r\n"])}].

%% 127.0.0.1 and 10.0.0.0/8 are trusted proxies here, 127.0.0.2 is none.
forwarded() ->
    [{lists:flatten(["X-Forwarded-For: ", Value, " from ", inet:ntoa(From)]), [200],
      get("/echo", ["X-Forwarded-For: ", Value, "\r\n"]), [{ip, From}]}
     || From <- [{127, 0, 0, 1}, {127, 0, 0, 2}],
        Value <- ["192.0.2.1", "192.0.2.1, 10.1.1.1", "192.0.2.1, 192.0.2.2", "192.0.2.1,10.0.0.1,10.0.0.2", "2001:db8::1"]] ++
        [{"X-Forwarded-For on every request", [200, 200, 200, 200],
          {steps, [get("/echo", "X-Forwarded-For: 192.0.2.1\r\n"), get("/echo"), get("/echo", "X-Forwarded-For: 192.0.2.2\r\n"),
                   get("/echo")]}},
         {"x-forwarded-for in small letters", [200], get("/echo", "x-forwarded-for: 192.0.2.1\r\n")},
         {"two X-Forwarded-For", [200], get("/echo", "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: 192.0.2.2\r\n")},
         {"X-Real-IP", [200], get("/echo", "X-Real-IP: 192.0.2.1\r\n")},
         {"Forwarded", [200], get("/echo", "Forwarded: for=192.0.2.1\r\n")},
         {"X-Forwarded-Proto and Host", [200], get("/echo", "X-Forwarded-Proto: https\r\nX-Forwarded-Host: a.example\r\n")}].

headers() ->
    [{"header " ++ Header, [200], get("/echo", [Header, "\r\n"])}
     || Header <- ["Accept: */*", "accept: a", "ACCEPT-language: de", "Accept-Language: ", "Accept-Language: ,;", "Accept-Language: de;q=1,en",
                   "User-Agent: x/1 (y; z)", "X-a-Bc-DEF: 1", "x_y: 1", "-a-: 1", "A: ", "A:b", "A:   b", "A: b  ", "A:\tb\t", "A: b\tc",
                   "Content-Type: text/plain; charset=utf-8", "Cookie: a=b; c=d", "If-None-Match: \"x\"", "Range: bytes=0-1",
                   "Sec-Fetch-Mode: cors", "sec-websocket-key: x", "Ümlaut: 1", "A: ü", "Origin: https://a.example", "Via: 1.1 a",
                   "Te: trailers", "Keep-Alive: timeout=5", "Proxy-Connection: close", "X-Forwarded-Forx: 1",
                   "this-is-a-name-of-more-than-twenty-letters: 1",
                   "this-is-a-name-of-very-much-more-than-fifty-letters-so-it-is-long: 1",
                   "Upgrade: h2c", "Etag: a", "Www-Authenticate: b", "Content-Md5: c", "Dnt: 1", "Priority: u=1"],
        Header =/= "Ümlaut: 1"] ++
        [{"same header thrice", [200], get("/echo", "A: 1\r\nB: 2\r\nA: 3\r\nA: 1\r\n")},
         {"ninety headers", [200], get("/echo", [["H", integer_to_list(N), ": ", integer_to_list(N), "\r\n"] || N <- lists:seq(1, 90)])},
         {"a long value", [200], get("/echo", ["A: ", lists:duplicate(8000, $v), "\r\n"])}].

bodies() ->
    Large = binary:copy(<<"large=body&">>, 5_000),
    [{"form", [200], post("/echo?not=this", "application/x-www-form-urlencoded", "a=1&b=%20+c&d")},
     {"no form", [200], post("/echo", "application/json", "{\"a\": [1, 2]}")},
     {"all bytes", [200], post("/echo", "x/y", list_to_binary(lists:seq(0, 255)))},
     {"large", [200], post("/echo", "x/y", Large)},
     {"large and one more", [200, 200], {steps, [post("/echo", "x/y", Large), post("/echo", "x/y", "small")]}},
     {"body in a write of its own", [200], {steps, [{parts, [request("POST", "/echo", "Content-Length: 4\r\n", none), "a=", "bc"]}]}},
     {"Expect, body later", [100, 200],
      {steps, [{continue, request("POST", "/echo", "Content-Length: 3\r\nExpect: 100-continue\r\n", none), "a=b"}]}},
     {"PUT, Expect, body later", [100, 200],
      {steps, [{continue, request("PUT", "/echo", "Content-Length: 3\r\nExpect: 100-continue\r\n", none), "abc"}]}},
     {"Expect in 1.0", [200], "POST /echo HTTP/1.0\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx"},
     {"another expectation", [200], post("/echo", "x/y\r\nExpect: magic", "x")},
     {"PUT large", [200], request("PUT", "/echo", [], Large)},
     {"PUT in parts", [200], {steps, [{parts, [request("PUT", "/echo", "Content-Length: 6\r\n", none), "abc", "def"]}]}},
     {"PUT and GET", [200, 200], {steps, [request("PUT", "/echo", [], "x=y"), get("/echo")]}},
     {"PUT with query", [200], request("PUT", "/echo/p?a=b", [], "x=y")},
     {"POST of 0 as 00", [400], request("POST", "/echo", "Content-Length: 00\r\n", none)},
     {"length 007", [200], [request("POST", "/echo", "Content-Length: 007\r\n", none), "a=bcdef"]},
     {"POST of bad percent", [200], post("/echo", "application/x-www-form-urlencoded", "a=%zz")},
     {"POST to a bad target", [400], request("POST", "/echo/%zz", "Connection: close\r\n", "x")},
     {"POST to no handler", [404], post("/no", "x/y", "abc")}].

shapes() ->
    Shapes = [{"binary", 200}, {"list", 200}, {"xmlel", 200}, {"status_xmlel", 202}, {"html_xmlel", 200}, {"status_text", 201},
              {"status_list", 404}, {"reason", 418}, {"custom", 200}, {"file", 200}, {"no_file", 404}, {"no_file_string", 404},
              {"big", 200}],
    [{Method ++ " shape " ++ Shape, [Status], request(Method, "/echo/shape/" ++ Shape, [], none)}
     || {Shape, Status} <- Shapes, Method <- ["GET", "HEAD"]] ++
        [{"shape " ++ Shape ++ " in 1.0", [Status], ["GET /echo/shape/", Shape, " HTTP/1.0\r\nHost: localhost\r\n\r\n"]}
         || {Shape, Status} <- Shapes] ++
        [{"shape 204", [204], get("/echo/shape/empty")}] ++
        [{"status " ++ Status, [list_to_integer(Status)], get("/echo/shape/status_" ++ Status)}
         || Status <- ["202", "203", "206", "300", "301", "302", "303", "307", "401", "402", "403", "405", "406", "407", "408",
                       "409", "410", "411", "412", "413", "414", "415", "416", "417", "500", "501", "502", "503", "504", "505"]] ++
        [{"POST shape", [200], post("/echo/shape/binary", "x/y", "abc")}].
