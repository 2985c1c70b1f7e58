%% Real clients against a real ejabberd, through megaphone and its ECM: one group of
%% cases for each ejabberd. The `stock` groups run what they can on ejabberd's own
%% listeners of the same node: a case that fails in both groups is a wrong case.
-module(ejabberd_SUITE).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-export([suite/0, all/0, groups/0, init_per_group/2, end_per_group/2]).
-export([strophe_bosh/1, strophe_bosh_anonymous/1, strophe_websocket/1, strophe_websocket_anonymous/1,
         slixmpp_starttls/1, paho_mqtt/1]).
-export([web_admin/1, files/1, peer_address_on_every_request/1, each_client_its_own_answer/1,
         stalled_clients_delay_nobody/1]).
-export([converse_websocket/1, converse_bosh/1]).
-export([v1_bosh_login/1, v1_every_byte_a_write/1, v1_every_byte_a_frame/1, v1_cut_at_every_byte/1]).

suite() -> [{timetrap, {minutes, 2}}].

all() -> [{group, ejabberd_23_01}, {group, ejabberd_24_12}].

groups() ->
    [{ejabberd_23_01, [], [{group, stock}, {group, megaphone}]},
     {ejabberd_24_12, [], [{group, stock}, {group, megaphone}]},
     {stock, [], clients() ++ http()},
     {megaphone, [], clients() ++ http() ++ browser() ++ version_1()}].

clients() ->
    [strophe_bosh, strophe_bosh_anonymous, strophe_websocket, strophe_websocket_anonymous,
     slixmpp_starttls, paho_mqtt].

http() -> [web_admin, files, peer_address_on_every_request, each_client_its_own_answer,
           stalled_clients_delay_nobody].

browser() -> [converse_websocket, converse_bosh].

version_1() -> [v1_bosh_login, v1_every_byte_a_write, v1_every_byte_a_frame, v1_cut_at_every_byte].

init_per_group(stock, Config) -> [{ports, ?config(stock, Config)} | Config];
init_per_group(megaphone, Config) -> [{ports, ?config(edge, Config)} | Config];
init_per_group(Ejabberd, Config) ->
    Dir = e2e_ejabberd:temporary(),
    #{ca := Ca, server := Certificate} = e2e_certs:make(Dir),
    Stock = e2e_config:ports(),
    Edge = e2e_config:ports(),
    Link = e2e_port:free(),
    Yaml = e2e_config:yaml(#{dir => Dir, certificate => Certificate,
                             stock => Stock, edge => Edge, link => Link}),
    {ok, Node} = e2e_ejabberd:start(#{version => version(Ejabberd), dir => Dir, config => Yaml}),
    [{node, Node}, {dir, Dir}, {ca, Ca}, {stock, Stock}, {edge, Edge}, {link, Link} | Config].

end_per_group(Group, _Config) when Group =:= stock; Group =:= megaphone -> ok;
end_per_group(_Ejabberd, Config) ->
    ok = e2e_ejabberd:stop(?config(node, Config)),
    e2e_ejabberd:keep_log(?config(dir, Config), ?config(priv_dir, Config)).

version(ejabberd_23_01) -> "23.01";
version(ejabberd_24_12) -> "24.12".

%% ---- Clients: log in, exchange messages both ways, log out ----

strophe_bosh(Config) -> ?assertEqual(ok, e2e_client:strophe(url("http", "/bosh", Config), password)).

strophe_bosh_anonymous(Config) ->
    ?assertEqual(ok, e2e_client:strophe(url("http", "/bosh", Config), anonymous)).

strophe_websocket(Config) -> ?assertEqual(ok, e2e_client:strophe(url("ws", "/ws", Config), password)).

strophe_websocket_anonymous(Config) ->
    ?assertEqual(ok, e2e_client:strophe(url("ws", "/ws", Config), anonymous)).

%% The certificate that the client verifies is ejabberd's: TLS goes end to end.
slixmpp_starttls(Config) -> ?assertEqual(ok, e2e_client:c2s(port(c2s, Config), ?config(ca, Config))).

paho_mqtt(Config) -> ?assertEqual(ok, e2e_client:mqtt(port(mqtt, Config))).

%% ---- HTTP: what ejabberd's own listener answers, byte for byte ----

web_admin(Config) ->
    Unknown = same_as_stock("/admin/", [], Config),
    ?assertMatch(#{status := 401}, Unknown),
    Login = {"Authorization", ["Basic ", base64:encode("alice@localhost:alice-pw")]},
    ?assertMatch(#{status := 200, headers := #{<<"content-type">> := <<"text/html", _/binary>>}},
                 same_as_stock("/admin/", [Login], Config)),
    ?assertMatch(#{status := 200}, same_as_stock("/admin/server/localhost/users/", [Login], Config)).

%% 1.3 MB, as ejabberd reads and sends it in two different ways.
files(Config) ->
    {ok, Script} = file:read_file(filename:join(e2e_paths:node_modules(), "converse.js/dist/converse.min.js")),
    [begin
         #{status := 200, body := Body} = same_as_stock(Path, [], Config),
         ?assert(Body =:= Script, Path)
     end || Path <- ["/conversejs/converse.min.js", "/files/node_modules/converse.js/dist/converse.min.js"]],
    ?assertMatch(#{status := 404}, same_as_stock("/files/no/such/file", [], Config)).

%% A connection from an address that no other connection of the test has. ejabberd itself
%% forgets a PROXY protocol's address after the first request.
peer_address_on_every_request(Config) ->
    Connection = e2e_http:connect(port(http, Config), [{ip, {127, 0, 0, 2}}]),
    {#{status := 200, body := <<"127.0.0.2 ", Port/binary>> = Peer}, Connection1} = e2e_http:get(Connection, "/peer"),
    {#{body := Second}, Connection2} = e2e_http:get(Connection1, "/peer"),
    {#{body := Third}, Connection3} = e2e_http:get(Connection2, "/peer"),
    ok = e2e_http:close(Connection3),
    ?assertEqual([Peer, Peer], [Second, Third]),
    ?assert(binary_to_integer(Port) > 0).

%% Hundreds of connections, all with a request under way at a time; each answer names the port
%% of the one that asked, so that no answer can come to another without being seen.
each_client_its_own_answer(Config) ->
    Rounds = 5,
    Connections = [begin
                       {ok, Socket} = gen_tcp:connect({127, 0, 0, 1}, port(http, Config), [binary, {active, false}]),
                       %% Only a client that is being served lets the next one come: the oracle's
                       %% backlog is short.
                       {#{status := 200}, Connection} = e2e_http:get(e2e_http:on(Socket), "/peer"),
                       {Connection, Socket}
                   end || _ <- lists:seq(1, 300)],
    Last = lists:foldl(
             fun(_Round, Now) ->
                     [ok = e2e_http:ask(Connection, "/peer") || {Connection, _} <- Now],
                     [begin
                          {#{body := Body}, Next} = e2e_http:answer(Connection),
                          {ok, {_, Port}} = inet:sockname(Socket),
                          ?assertEqual(<<"127.0.0.1 ", (integer_to_binary(Port))/binary>>, Body),
                          {Next, Socket}
                      end || {Connection, Socket} <- Now]
             end, Connections, lists:seq(1, Rounds)),
    [ok = gen_tcp:close(Socket) || {_, Socket} <- Last],
    ok.

%% Clients that ask for much and read nothing are nobody's trouble but their own.
stalled_clients_delay_nobody(Config) ->
    Stalled = [begin
                   {ok, Socket} = gen_tcp:connect({127, 0, 0, 1}, port(http, Config),
                                                  [binary, {active, false}, {recbuf, 4096}]),
                   ok = e2e_http:ask(e2e_http:on(Socket), "/conversejs/converse.min.js"),
                   Socket
               end || _ <- lists:seq(1, 20)],
    {#{status := 200}, Connection} = e2e_http:get(e2e_http:connect(port(http, Config)), "/peer"),
    ?assertEqual(ok, e2e_client:strophe(url("http", "/bosh", Config), password)),
    {#{status := 200}, _} = e2e_http:get(Connection, "/peer"),
    %% One that reads after all gets what it asked for.
    {#{status := 200, body := Body}, _} = e2e_http:answer(e2e_http:on(hd(Stalled))),
    ?assertEqual(filelib:file_size(filename:join(e2e_paths:node_modules(), "converse.js/dist/converse.min.js")),
                 byte_size(Body)),
    [ok = gen_tcp:close(Socket) || Socket <- Stalled],
    ok.

same_as_stock(Path, Headers, Config) ->
    {Answer, Connection} =
        e2e_http:get(e2e_http:connect(port(http, Config)), Path, Headers),
    {Expected, Stock} =
        e2e_http:get(e2e_http:connect(maps:get(http, ?config(stock, Config))), Path, Headers),
    ok = e2e_http:close(Connection),
    ok = e2e_http:close(Stock),
    ?assertEqual(maps:remove(body, Expected), maps:remove(body, Answer)),
    ?assert(maps:get(body, Expected) =:= maps:get(body, Answer), Path),
    Answer.

%% ---- Converse.js in Chromium: two users chat ----

%% The page that an administrator gets from mod_conversejs.
converse_websocket(Config) -> converse("/conversejs", websocket, Config).

%% A page of a site's own.
converse_bosh(Config) -> converse("/files/scripts/bosh.html", bosh, Config).

converse(Path, Transport, Config) ->
    Page = ["http://localhost:", integer_to_list(port(http, Config)), Path],
    ?assertEqual(ok, e2e_client:converse(Page, Transport, ?config(priv_dir, Config), atom_to_list(Transport))).

%% ---- A peer that speaks only version 1 ----

v1_bosh_login(Config) -> v1_chat(fun(Peer, Id, Bytes) -> link_peer:raw(Peer, link_peer:frame(Id, Bytes)) end, Config).

%% Heads and contents alike arrive a byte at a time.
v1_every_byte_a_write(Config) ->
    v1_chat(fun(Peer, Id, Bytes) ->
                    Frame = iolist_to_binary(link_peer:frame(Id, Bytes)),
                    [ok = link_peer:raw(Peer, <<Byte>>) || <<Byte>> <= Frame],
                    ok
            end, Config).

%% Frame borders mean nothing above the link.
v1_every_byte_a_frame(Config) ->
    v1_chat(fun(Peer, Id, Bytes) ->
                    Content = iolist_to_binary(Bytes),
                    link_peer:raw(Peer, [link_peer:frame(Id, <<Byte>>) || <<Byte>> <= Content])
            end, Config).

%% alice and bob log in over one link and send each other a message.
v1_chat(Send, Config) ->
    Peer = v1_peer(Config),
    Alice = e2e_bosh:login(v1_http(Peer, 1001, Send), <<"alice">>, <<"alice-pw">>),
    Bob = e2e_bosh:login(v1_http(Peer, 16#ffffffffffffffff, Send), <<"bob">>, <<"bob-pw">>),
    Bob1 = e2e_bosh:listen(Bob),
    Alice1 = e2e_bosh:say(Alice, e2e_bosh:jid(Bob), <<"Schöne Grüße"/utf8>>),
    {<<"Schöne Grüße"/utf8>>, Bob2} = e2e_bosh:hear(Bob1),
    _ = e2e_bosh:say(Bob2, e2e_bosh:jid(Alice), <<"0000000032|00000000000000001001|">>),
    {<<"0000000032|00000000000000001001|">>, _} = e2e_bosh:hear(Alice1),
    link_peer:stop(Peer).

%% For each place in a frame, a new connection whose first frame is cut there: what precedes
%% the cut has certainly been read, for a request in front of it in the same write was answered.
v1_cut_at_every_byte(Config) ->
    Peer = v1_peer(Config),
    Request = "GET /files/scripts/texts.json HTTP/1.1\r\nHost: localhost\r\n\r\n",
    Whole = fun(P, Id, Bytes) -> link_peer:raw(P, link_peer:frame(Id, Bytes)) end,
    {#{status := 200, body := Expected}, Witness} = e2e_http:request(v1_http(Peer, 1, Whole), Request),
    Size = iolist_size(link_peer:frame(0, Request)),
    lists:foldl(
      fun(Cut, WitnessNow) ->
              Id = 1_000_000 + Cut,
              <<Before:Cut/binary, After/binary>> = iolist_to_binary(link_peer:frame(Id, Request)),
              ok = link_peer:raw(Peer, [link_peer:frame(1, Request), Before]),
              {#{status := 200, body := Expected}, WitnessNext} = e2e_http:answer(WitnessNow),
              ok = link_peer:raw(Peer, After),
              {#{status := 200, body := Expected}, _} = e2e_http:answer(v1_http(Peer, Id, Whole)),
              %% The client's end, and ejabberd's.
              ok = link_peer:finish(Peer, Id),
              ended = link_peer:outcome(Peer, Id),
              WitnessNext
      end, Witness, lists:seq(1, Size - 1)),
    link_peer:stop(Peer).

v1_peer(Config) ->
    link_peer:connect(?config(link, Config), #{version => 1, tcp => [{nodelay, true}]}).

v1_http(Peer, Id, Send) ->
    e2e_http:over(fun(Bytes) -> Send(Peer, Id, Bytes) end, fun() -> link_peer:recv_some(Peer, Id) end).

%% ---- Where things are ----

url(Scheme, Path, Config) -> [Scheme, "://127.0.0.1:", integer_to_list(port(http, Config)), Path].

port(Service, Config) -> maps:get(Service, ?config(ports, Config)).
