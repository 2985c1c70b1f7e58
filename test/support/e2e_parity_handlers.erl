%% Requests for the parity suite, a table for each of ejabberd's handlers, as in e2e_parity_cases.
-module(e2e_parity_handlers).

-export([all/0, custom/0]).

-import(e2e_parity_requests, [get/1, get/2, post/3, request/4, alice/0, upgrade/2]).
-compile({no_auto_import, [get/1]}).

all() ->
    lists:append([bosh(), websocket(), api(), files(), admin(), converse(), captcha(), host_meta(), oauth(), register(),
                  upload(), handoff()]).

%% Where custom_headers are put and where not.
custom() -> lists:append([bosh(), websocket(), files(), converse()]).

bosh() ->
    Body = fun(Attributes, Inner) ->
                   ["<body xmlns='http://jabber.org/protocol/httpbind' ", Attributes, ">", Inner, "</body>"]
           end,
    Xml = "text/xml; charset=utf-8",
    [{"bosh " ++ Method, Statuses, request(Method, "/bosh", [], none)}
     || {Method, Statuses} <- [{"GET", [200]}, {"OPTIONS", [200]}, {"HEAD", [400]}, {"DELETE", [400]}, {"POST", [400]}]] ++
        [{"bosh GET below", [400], get("/bosh/x")},
         {"bosh GET query", [200], get("/bosh?x")},
         {"bosh PUT", [400], request("PUT", "/bosh", "Connection: close\r\n", "x")},
         {"bosh no XML", [400], post("/bosh", Xml, "this is no XML")},
         {"bosh half XML", [400], post("/bosh", Xml, "<body xmlns='http://jabber.org/protocol/httpbind'>")},
         {"bosh another element", [400], post("/bosh", Xml, "<x xmlns='http://jabber.org/protocol/httpbind'/>")},
         {"bosh no rid", [400], post("/bosh", Xml, Body("to='localhost' wait='60' hold='1'", ""))},
         {"bosh bad rid", [400], post("/bosh", Xml, Body("rid='x' to='localhost'", ""))},
         {"bosh no to", [200], post("/bosh", Xml, Body("rid='1' wait='60' hold='1'", ""))},
         {"bosh unknown host", [200], post("/bosh", Xml, Body("rid='1' wait='60' hold='1' to='unknown.example'", ""))},
         {"bosh unknown session", [200], post("/bosh", Xml, Body("rid='2' sid='no-such-sid'", ""))},
         {"bosh terminate unknown", [200], post("/bosh", Xml, Body("rid='2' sid='no-such-sid' type='terminate'", ""))},
         {"bosh session", [200],
          post("/bosh", Xml, Body("rid='1000' to='localhost' wait='10' hold='1' ver='1.11' xml:lang='en' content='text/xml' "
                                  "xmpp:version='1.0' xmlns:xmpp='urn:xmpp:xbosh'", ""))},
         {"bosh session, other wishes", [200],
          post("/bosh", Xml, Body("rid='1000' to='localhost' wait='1' hold='0' ver='1.6' ack='1' "
                                  "xmpp:version='1.0' xmlns:xmpp='urn:xmpp:xbosh' xml:lang='de'", ""))},
         {"bosh session, closing", [200],
          request("POST", "/bosh", ["Connection: close\r\nContent-Type: ", Xml, "\r\n"],
                  Body("rid='1000' to='localhost' wait='10' hold='1' ver='1.11' xmpp:version='1.0' xmlns:xmpp='urn:xmpp:xbosh'", ""))},
         {"bosh session in 1.0", [200],
          begin
              Create = Body("rid='1000' to='localhost' wait='10' hold='1' ver='1.11' xmpp:version='1.0' xmlns:xmpp='urn:xmpp:xbosh'", ""),
              ["POST /bosh HTTP/1.0\r\nHost: localhost\r\nContent-Length: ", integer_to_list(iolist_size(Create)), "\r\n\r\n", Create]
          end},
         {"bosh session from a proxy", [200],
          request("POST", "/bosh", "X-Forwarded-For: 192.0.2.9\r\n",
                  Body("rid='1000' to='localhost' wait='10' hold='1' ver='1.11' xmpp:version='1.0' xmlns:xmpp='urn:xmpp:xbosh'", ""))},
         {"bosh JSON", [400], post("/bosh", "application/json", "{}")}].

websocket() ->
    [{"ws " ++ Method, Statuses, request(Method, "/ws", [], none)}
     || {Method, Statuses} <- [{"GET", [200]}, {"HEAD", [200]}, {"OPTIONS", [200]}, {"POST", [400]}, {"DELETE", [400]}]] ++
        [{"ws POST with a body", [400], post("/ws", "x/y", "x")},
         {"ws below", [200], get("/ws/x?y")},
         {"ws no key", [200], get("/ws", "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n")},
         {"ws no version", [200], get("/ws", "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\n")},
         {"ws version 8", [200], get("/ws", "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 8\r\n")},
         {"ws no connection", [200], get("/ws", "Upgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n")},
         {"ws other upgrade", [200], get("/ws", "Upgrade: h2c\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n")},
         {"ws bad origin", [403], upgrade("/ws", "Origin: https://evil.example\r\nSec-WebSocket-Protocol: xmpp\r\n")},
         {"mqtt GET", [200], get("/mqtt")},
         {"mqtt OPTIONS", [200], request("OPTIONS", "/mqtt", [], none)},
         {"mqtt POST", [400], request("POST", "/mqtt", [], none)}].

api() ->
    Json = "application/json",
    [{"api status", [200], get("/api/status")},
     {"api status POST", [200], post("/api/status", Json, "{}")},
     {"api HEAD", [400], request("HEAD", "/api/status", [], none)},
     {"api OPTIONS", [200], request("OPTIONS", "/api/status", [], none)},
     {"api DELETE", [400], request("DELETE", "/api/status", [], none)},
     {"api no command", [400], get("/api")},
     {"api unknown command", [404], get("/api/no_such_command", alice())},
     {"api not allowed", [403], get("/api/registered_users?host=localhost")},
     {"api wrong password", [401], get("/api/registered_users?host=localhost", "Authorization: Basic eDp5\r\n")},
     {"api query", [200], get("/api/registered_users?host=localhost", alice())},
     {"api body", [200], request("POST", "/api/registered_users", alice(), "{\"host\": \"localhost\"}")},
     {"api missing argument", [400], request("POST", "/api/registered_users", alice(), "{}")},
     {"api bad JSON", [400], request("POST", "/api/registered_users", alice(), "{")},
     {"api version", {either, [400], [200]}, get("/api/status/v1")},
     {"api token of nobody", [401], get("/api/registered_users?host=localhost", "Authorization: Bearer nonsense\r\n")},
     {"api chain", [200, 200, 200], {steps, [get("/api/status"), get("/api/registered_vhosts"), post("/api/status", Json, "{}")]}}].

files() ->
    [{"files " ++ Path, [Status], get("/files" ++ Path)}
     || {Path, Status} <- [{"", 200}, {"/", 200}, {"/index.html", 200}, {"/dir", 200}, {"/dir/", 200}, {"/empty_dir", 404},
                           {"/a%20b.txt", 200}, {"/empty.txt", 200}, {"/%c3%bc.txt", 200}, {"/large.bin", 200}, {"/noext", 200},
                           {"/page.xhtml", 200}, {"/s.unknownsuffix", 200}, {"/none.txt", 404}, {"/../ejabberd.yml", 404},
                           {"/%2e%2e/ejabberd.yml", 404}, {"/..%2fejabberd.yml", 404}, {"/dir/../index.html", 200}]] ++
        [{"files " ++ Method, [Status], request(Method, "/files/large.bin", [], none)}
         || {Method, Status} <- [{"HEAD", 200}, {"DELETE", 200}, {"OPTIONS", 200}]] ++
        [{"files POST", [200], post("/files/index.html", "x/y", "abc")},
         {"files in 1.0", [200], "GET /files/large.bin HTTP/1.0\r\nHost: localhost\r\n\r\n"},
         {"files closing", [200], get("/files/large.bin", "Connection: close\r\n")},
         {"files If-None-Match", [200], get("/files/index.html", "If-None-Match: \"x\"\r\n")},
         {"files If-Modified-Since", [200], get("/files/index.html", "If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT\r\n")},
         {"files modified", [200], get("/files/index.html", "If-Modified-Since: Fri, 01 Jan 1999 00:00:00 GMT\r\n")},
         {"files Range", [200], get("/files/index.html", "Range: bytes=0-1\r\n")},
         {"files one after the other", [200, 200, 404, 200],
          {steps, [get("/files/large.bin"), get("/files/index.html"), get("/files/none"), get("/files/large.bin")]}}].

admin() ->
    [{"admin unknown", [401], get("/admin/")},
     {"admin HEAD", [401], request("HEAD", "/admin/", [], none)},
     {"admin wrong password", [401], get("/admin/", "Authorization: Basic YWxpY2VAbG9jYWxob3N0Ong=\r\n")},
     {"admin no admin", [200], get("/admin/", ["Authorization: Basic ", base64:encode("bob@localhost:bob-pw"), "\r\n"])},
     {"admin first page", [200], get("/admin/", alice())},
     {"admin language", [200], get("/admin/", [alice(), "Accept-Language: de\r\n"])},
     {"admin without slash", [301], get("/admin", alice())},
     {"admin style", [200], get("/admin/style.css", alice())},
     {"admin picture", [200], get("/admin/logo.png", alice())},
     {"admin users", [200], get("/admin/server/localhost/users/", alice())},
     {"admin user", [200], get("/admin/server/localhost/user/alice/", alice())},
     {"admin no such user", [200], get("/admin/server/localhost/user/nobody/", alice())},
     {"admin no such host", [404], get("/admin/server/nowhere/", alice())},
     {"admin POST", [200], request("POST", "/admin/server/localhost/users/",
                                   [alice(), "Content-Type: application/x-www-form-urlencoded\r\n"], "nothing=1")}] ++
        %% Not those that tell the time or count what goes on.
        [{"admin page " ++ Page, any, get("/admin/" ++ Page, alice())}
         || Page <- ["vhosts/", "nodes/", "server/localhost/", "server/localhost/users/", "server/localhost/users/.local", "acls/",
                     "server/localhost/acls/", "access/", "favicon.ico", "additional.css", "server/localhost/user/alice/roster/",
                     "server/localhost/shared-roster/", "oauth/", "no/such/page", "server/localhost/last-activity/"]].

converse() ->
    [{"converse", [200], get("/conversejs")},
     {"converse as another host", [200], "GET /conversejs HTTP/1.1\r\nHost: other.localhost:77\r\n\r\n"},
     {"converse HEAD", [404], request("HEAD", "/conversejs", [], none)},
     {"converse script", [200], get("/conversejs/converse.min.js")},
     {"converse style", [200], get("/conversejs/converse.min.css")},
     {"converse nothing", [404], get("/conversejs/nothing.js")},
     {"converse out of it", [404], get("/conversejs/%2e%2e/%2e%2e/package.json")},
     {"converse POST", [404], post("/conversejs", "x/y", "x")}].

captcha() ->
    [{"captcha " ++ Method ++ Path, [404], request(Method, "/captcha" ++ Path, [], Body)}
     || {Method, Path, Body} <- [{"GET", "", none}, {"GET", "/123456", none}, {"GET", "/123456/image", none}, {"GET", "/1/2/3", none},
                                 {"POST", "/123456", "key=x&id=1"}, {"HEAD", "/123456", none}, {"OPTIONS", "", none}]].

host_meta() ->
    [{"host-meta", [200], get("/.well-known/host-meta")},
     {"host-meta.json", [200], get("/.well-known/host-meta.json")},
     {"host-meta as another host", [200], "GET /.well-known/host-meta HTTP/1.1\r\nHost: other.localhost\r\n\r\n"},
     {"host-meta below", [404], get("/.well-known/host-meta/x")},
     {"host-meta POST", [404], post("/.well-known/host-meta", "x/y", "x")},
     {"host-meta HEAD", [404], request("HEAD", "/.well-known/host-meta", [], none)}].

oauth() ->
    Form = "application/x-www-form-urlencoded",
    Ask = "/oauth/authorization_token?response_type=token&client_id=c&redirect_uri=http://a.example/&scope=sasl_auth&state=s",
    [{"oauth form", [200], get(Ask)},
     {"oauth form in German", [200], get(Ask, "Accept-Language: de\r\n")},
     {"oauth HEAD", [404], request("HEAD", Ask, [], none)},
     {"oauth nothing", [404], get("/oauth")},
     {"oauth logo", [404], get("/oauth/logo.png")},
     {"oauth wrong password", {either, [302], []},
      post("/oauth/authorization_token", Form, "username=alice%40localhost&password=x&response_type=token&client_id=c&"
           "redirect_uri=http%3A%2F%2Fa.example%2F&scope=sasl_auth&state=s&ttl=60")},
     {"oauth right password", {either, [302], []},
      post("/oauth/authorization_token", Form, "username=alice%40localhost&password=alice-pw&response_type=token&client_id=c&"
           "redirect_uri=http%3A%2F%2Fa.example%2F&scope=sasl_auth&state=s&ttl=60")},
     {"oauth token, wrong password", {either, [400], []},
      post("/oauth/token", Form, "grant_type=password&username=alice%40localhost&password=x&scope=sasl_auth")},
     {"oauth token, wrong grant", [400], post("/oauth/token", Form, "grant_type=magic")}].

register() ->
    Form = "application/x-www-form-urlencoded",
    [{"register " ++ Path, Statuses, get("/register" ++ Path)}
     || {Path, Statuses} <- [{"", {either, [200], [301]}}, {"/", [200]}, {"/new", {either, [200], [301]}}, {"/new/", [200]},
                             {"/delete/", [200]}, {"/change_password/", [200]}, {"/register.css", [200]},
                             {"/nothing", {either, [404], [301]}}]] ++
        [{"register in German", [200], get("/register/", "Accept-Language: de\r\n")},
         {"register HEAD", [404], request("HEAD", "/register/", [], none)},
         {"register alice again", {either, [404], [301]},
          post("/register/new", Form, "username=alice&host=localhost&password=a&password2=a&id=&key=&register=Register")},
         {"register two passwords", {either, [404], [301]},
          post("/register/new", Form, "username=carol&host=localhost&password=a&password2=b&id=&key=&register=Register")},
         {"register wrong old password", {either, [404], [301]},
          post("/register/change_password", Form,
               "username=alice&host=localhost&passwordold=x&password=a&password2=a&changepass=1")}].

upload() ->
    [{"upload " ++ Method ++ " " ++ Path, [Status], request(Method, "/upload" ++ Path, [], none)}
     || {Method, Path, Status} <- [{"GET", "", 404}, {"GET", "/a/b/c", 404}, {"HEAD", "/a/b/c", 404}, {"OPTIONS", "/a/b/c", 200},
                                   {"OPTIONS", "", 404}, {"DELETE", "/a/b/c", 405}, {"GET", "/a/b", 404}]] ++
        [{"upload no slot", [403], request("PUT", "/upload/a/b/c", "Connection: close\r\n", "abc")},
         {"upload too few parts", [404], request("PUT", "/upload/a", "Connection: close\r\n", "abc")},
         {"upload another host", [404], "PUT /upload/a/b/c HTTP/1.1\r\nHost: nowhere\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc"},
         {"upload POST", [405], post("/upload/a/b/c", "x/y", "abc")}].

handoff() ->
    [{"handoff " ++ Method, [Status], request(Method, "/handoff/x?a=b", [], Body)}
     || {Method, Status, Body} <- [{"GET", 200, none}, {"HEAD", 200, none}, {"POST", 200, "a=b"}, {"PUT", 200, "a=b"}, {"DELETE", 200, none}]] ++
        [{"handoff shape", [418], get("/handoff/shape/reason")}].
