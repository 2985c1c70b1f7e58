%% Users on raw TCP without a parser each: `megaphone_nif:stream_*', which cuts an XML stream into
%% stanzas, and `module: megaphone_c2s' in a real ejabberd, beside ejabberd's own where it matters.
-module(c2s_SUITE).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-export([suite/0, all/0, groups/0, init_per_group/2, end_per_group/2]).
-export([pieces/1, one_at_a_time/1, as_much_as_the_window/1, too_big/1, restart/1, end_is_told_once/1,
         owner_dies/1]).
-export([chat/1, one_process_each/1, every_byte_a_write/1, prefixes/1, namespaces_of_the_head/1,
         not_well_formed/1, stanza_too_big/1, document_type/1, client_goes/1, options/1]).

-define(TIMEOUT, 10_000).
-define(STREAMS, "http://etherx.jabber.org/streams").
-define(MAX_STANZA, 10_000).
-define(USERS, 50).

suite() -> [{timetrap, {minutes, 1}}].

all() -> [{group, nif}, {group, ejabberd_23_01}, {group, ejabberd_24_12}].

groups() ->
    [{nif, [], [pieces, one_at_a_time, as_much_as_the_window, too_big, restart, end_is_told_once, owner_dies]},
     {ejabberd_23_01, [], in_ejabberd()},
     {ejabberd_24_12, [], in_ejabberd()}].

in_ejabberd() ->
    [chat, one_process_each, every_byte_a_write, prefixes, namespaces_of_the_head, not_well_formed,
     stanza_too_big, document_type, client_goes, options].

init_per_group(nif, Config) ->
    {ok, _} = application:ensure_all_started(megaphone),
    ok = megaphone_nif:load(),
    Config;
init_per_group(Group, Config) ->
    Version = version(Group),
    Dir = e2e_ejabberd:temporary(),
    #{server := Certificate} = e2e_certs:make(Dir),
    Stock = e2e_config:ports(),
    Edge = e2e_config:ports(),
    Yaml = [e2e_config:yaml(#{dir => Dir, certificate => Certificate, edge => Edge, services => services("")})],
    Own = ["listen:\n  - {port: ", integer_to_list(maps:get(c2s, Stock)), ", ip: \"127.0.0.1\", ",
           "module: ejabberd_c2s, max_stanza_size: ", integer_to_list(?MAX_STANZA), "}\n"],
    {ok, Node} = e2e_ejabberd:start(#{version => Version, dir => Dir,
                                      config => string:replace(Yaml, "listen:\n", Own)}),
    {ok, _} = e2e_ejabberd:wait_log(Node, ["listening on 127\\.0\\.0\\.1:", integer_to_list(maps:get(c2s, Edge))],
                                    ?TIMEOUT),
    [{node, Node}, {dir, Dir}, {version, Version}, {certificate, Certificate}, {stock, Stock}, {edge, Edge}
     | Config].

end_per_group(nif, _Config) -> ok;
end_per_group(_Group, Config) ->
    ok = e2e_ejabberd:stop(?config(node, Config)),
    e2e_ejabberd:keep_log(?config(dir, Config), ?config(priv_dir, Config)).

version(ejabberd_23_01) -> "23.01";
version(ejabberd_24_12) -> "24.12".

services(More) ->
    ["      http: {module: ejabberd_http}\n"
     "      mqtt: {module: mod_mqtt}\n"
     "      c2s: {module: megaphone_c2s, max_stanza_size: ", integer_to_list(?MAX_STANZA), More, "}\n"].

%% ---- the NIF ----

pieces(_Config) ->
    {Peer, Conn} = stream(),
    Stream = [{header, <<"<s a='>'>">>}, {text, <<" \n">>}, {stanza, <<"<a b=\"/>\"><a/>c</a>">>},
              {stanza, <<"<b/>">>}, {finish, <<"</s>">>}],
    Bytes = iolist_to_binary([<<"<?xml version='1.0'?>">> | [Text || {_, Text} <- Stream]]),
    %% In frames of one byte, which find their way between those that are asked for.
    [ok = link_peer:send(Peer, 1, <<Byte>>) || <<Byte>> <= Bytes],
    ?assertEqual(without_text(Stream), without_text([next(Conn) || _ <- Stream])).

%% Text comes as it has arrived.
without_text(Pieces) -> [Piece || {Kind, _} = Piece <- Pieces, Kind =/= text].

one_at_a_time(_Config) ->
    {Peer, Conn} = stream(),
    wait = megaphone_nif:stream_next(Conn),
    ok = link_peer:send(Peer, 1, <<"<s><a/><b/>">>),
    ?assertEqual({header, <<"<s>">>}, receive {'$megaphone_stream', Header} -> Header after ?TIMEOUT -> none end),
    ?assertEqual({ok, {stanza, <<"<a/>">>}}, megaphone_nif:stream_next(Conn)),
    ?assertEqual({ok, {stanza, <<"<b/>">>}}, megaphone_nif:stream_next(Conn)),
    wait = megaphone_nif:stream_next(Conn),
    ?assertEqual(nothing, receive {'$megaphone_stream', _} = Early -> Early after 0 -> nothing end).

%% Who does not ask is sent a window and no more; who waits for a stanza is sent it, however long.
as_much_as_the_window(_Config) ->
    {Peer, Conn} = stream(),
    Window = 16384,
    Stanza = <<"<a>", (binary:copy(<<"x">>, 5 * Window))/binary, "</a>">>,
    ok = link_peer:send(Peer, 1, <<"<s>">>),
    {header, _} = next(Conn),
    ok = link_peer:send(Peer, 1, Stanza),
    ?assertEqual({stanza, Stanza}, next(Conn)),
    Small = binary:copy(<<"<b/>">>, 40 * Window div 4),
    Had = link_peer:credit(Peer, 1),
    ok = link_peer:send(Peer, 1, Small),
    %% The connection beside it says when all that could come has come.
    ok = link_peer:open(Peer, 2, <<"default">>),
    {ok, Other} = gen_tcp:accept(get(listener), ?TIMEOUT),
    ok = link_peer:send(Peer, 2, <<"x">>),
    {ok, <<"x">>} = gen_tcp:recv(Other, 1, ?TIMEOUT),
    #{megaphone := #{queued := Held}} = info(Conn),
    ?assert(Held > 0),
    ?assert(Held =< Had + byte_size(Stanza), {Held, Had}),
    ?assert(Held < byte_size(Small)),
    [?assertEqual({stanza, <<"<b/>">>}, next(Conn)) || _ <- lists:seq(1, byte_size(Small) div 4)].

too_big(_Config) ->
    {Peer, Conn} = stream(100),
    ok = link_peer:send(Peer, 1, [<<"<s><a>">>, binary:copy(<<"x">>, 93), <<"</a>">>]),
    {header, _} = next(Conn),
    ?assertMatch({stanza, <<_:100/binary>>}, next(Conn)),
    ok = link_peer:send(Peer, 1, [<<"<a b='">>, binary:copy(<<"x">>, 95)]),
    ?assertEqual({error, too_big}, next(Conn)),
    ok = link_peer:send(Peer, 1, <<"<a/>">>),
    ?assertEqual(wait, megaphone_nif:stream_next(Conn)).

restart(_Config) ->
    {Peer, Conn} = stream(),
    ok = link_peer:send(Peer, 1, <<"<s><auth/><?xml version='1.0'?><s><b/></s>">>),
    [{header, _}, {stanza, <<"<auth/>">>}] = [next(Conn), next(Conn)],
    ok = megaphone_nif:stream_restart(Conn),
    ?assertEqual([{header, <<"<s>">>}, {stanza, <<"<b/>">>}, {finish, <<"</s>">>}], [next(Conn) || _ <- [1, 2, 3]]).

end_is_told_once(_Config) ->
    {Peer, Conn} = stream(),
    ok = link_peer:send(Peer, 1, <<"<s><a/><b">>),
    ok = link_peer:close(Peer, 1, <<"client_closed">>),
    [{header, _}, {stanza, <<"<a/>">>}] = [next(Conn), next(Conn)],
    wait = megaphone_nif:stream_next(Conn),
    Socket = megaphone_socket:socket(Conn),
    receive {tcp_closed, Socket} -> ok after ?TIMEOUT -> ct:fail(not_told) end,
    _ = megaphone_nif:stream_next(Conn),
    ok = megaphone_nif:close(Conn),
    ?assertEqual(closed, megaphone_nif:stream_next(Conn)),
    ?assertEqual(nothing, receive {tcp_closed, Socket} -> again after 0 -> nothing end).

owner_dies(_Config) ->
    {Peer, Socket} = accepted(),
    {'$inet', megaphone_socket, Conn} = Socket,
    Owner = spawn(fun() -> receive stop -> ok end end),
    ok = megaphone_nif:stream_start(Conn, Owner, ?MAX_STANZA),
    Owner ! stop,
    ?assertMatch({close, _}, link_peer:outcome(Peer, 1)).

stream() -> stream(1_000_000).

stream(MaxStanza) ->
    {Peer, {'$inet', megaphone_socket, Conn}} = accepted(),
    ok = megaphone_nif:stream_start(Conn, self(), MaxStanza),
    {Peer, Conn}.

accepted() ->
    {ok, Listener} = megaphone:listen(0, []),
    put(listener, Listener),
    {ok, {_, Port}} = inet:sockname(Listener),
    Peer = link_peer:connect(Port, #{}),
    ok = link_peer:open(Peer, 1, <<"default">>),
    {ok, Socket} = gen_tcp:accept(Listener, ?TIMEOUT),
    {Peer, Socket}.

next(Conn) ->
    case megaphone_nif:stream_next(Conn) of
        {ok, Piece} -> Piece;
        wait -> receive {'$megaphone_stream', Piece} -> Piece after ?TIMEOUT -> ct:fail(no_piece) end
    end.

info(Conn) -> inet:info(megaphone_socket:socket(Conn)).

%% ---- ejabberd ----

chat(Config) ->
    [A, B] = [e2e_user:login(c2s, User, edge(Config)) || User <- [<<"alice">>, <<"bob">>]],
    {A1, B1} = e2e_user:chat(A, B, <<"hello &amp; so on">>),
    _ = [e2e_user:close(User) || User <- [A1, B1]],
    ok.

%% ejabberd's own c2s has as many; its parsers are what we do without, and a port.
one_process_each(Config) ->
    {Processes, Ours} = for_users(edge(Config), Config),
    {_, Stock} = for_users(?config(stock, Config), Config),
    ?assert(Processes =< ?USERS + 5, Processes),
    ?assert(Ours < Stock div 2, {Ours, Stock}).

%% What so many users are to the node: processes, and the bytes of ports, parsers and the like.
for_users(Ports, Config) ->
    First = e2e_user:login(c2s, anonymous, Ports),      % loads what code it takes
    {Processes, Bytes} = node_has(Config),
    Users = [e2e_user:login(c2s, anonymous, Ports) || _ <- lists:seq(1, ?USERS)],
    {ProcessesThen, BytesThen} = node_has(Config),
    _ = [e2e_user:close(User) || User <- [First | Users]],
    {ProcessesThen - Processes, BytesThen - Bytes}.

node_has(Config) ->
    Memory = call(erlang, memory, [], Config),
    [System | Others] = [proplists:get_value(Kind, Memory) || Kind <- [system, atom, binary, code, ets]],
    {length(call(erlang, processes, [], Config)), System - lists:sum(Others)}.

every_byte_a_write(Config) ->
    {ok, Socket} = connect(edge(Config)),
    Say = fun(Text) -> [ok = gen_tcp:send(Socket, [Byte]) || Byte <- lists:flatten(Text)] end,
    Say(head("anon.localhost", "")),
    _ = until(Socket, "</stream:features>"),
    Say("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='ANONYMOUS'/>"),
    _ = until(Socket, "<success"),
    Say(head("anon.localhost", "")),
    _ = until(Socket, "<bind "),
    ok = gen_tcp:close(Socket).

%% What a parser of streams makes of prefixes, a parser of documents does not.
prefixes(Config) ->
    same_as_stock("<x:iq xmlns:x='jabber:client' type='get' id='p'>"
                  "<y:query xmlns:y='http://jabber.org/protocol/disco#info'/></x:iq>", "", "<feature", Config).

namespaces_of_the_head(Config) ->
    same_as_stock("<iq type='get' id='p'><d:query/></iq>", " xmlns:d='http://jabber.org/protocol/disco#info'",
                  "</iq>", Config).

not_well_formed(Config) ->
    same_as_stock("<iq></presence>", "", "not-well-formed.*</stream:stream>", Config),
    same_as_stock("<iq><u:x/></iq>", "", "not-well-formed.*</stream:stream>", Config).

stanza_too_big(Config) ->
    Message = ["<message><body>", lists:duplicate(?MAX_STANZA, $x)],
    same_as_stock(Message, "", "policy-violation.*</stream:stream>", Config).

document_type(Config) ->
    User = session("", edge(Config)),
    ok = gen_tcp:send(User, "<!DOCTYPE a [<!ENTITY b 'c'>]>"),
    _ = until(User, "not-well-formed.*</stream:stream>").

client_goes(Config) ->
    Mark = e2e_ejabberd:mark_log(?config(node, Config)),
    ok = gen_tcp:close(session("", edge(Config))),
    {ok, _} = e2e_ejabberd:wait_log(?config(node, Config), Mark, "Closing c2s session for .*@anon.localhost", ?TIMEOUT).

options(Config) ->
    Dir = e2e_ejabberd:temporary(),
    Yaml = e2e_config:yaml(#{dir => Dir, certificate => ?config(certificate, Config), edge => e2e_config:ports(),
                             services => services(", starttls: true")}),
    {error, {_, Log}} = e2e_ejabberd:start(#{version => ?config(version, Config), dir => Dir, config => Yaml}),
    ?assertMatch({match, _}, re:run(Log, "megaphone_c2s has no 'starttls': the edge ends TLS")),
    file:del_dir_r(Dir).

%% The same said to both ends in the same answer, ids and random names apart.
same_as_stock(Text, Namespaces, Until, Config) ->
    [Stock, Ours] = [begin
                         Socket = session(Namespaces, Ports),
                         ok = gen_tcp:send(Socket, Text),
                         Answer = until(Socket, Until),
                         ok = gen_tcp:close(Socket),
                         re:replace(Answer, "[0-9]{15,}|[a-z0-9-]{20,}", "*", [global, {return, binary}])
                     end || Ports <- [?config(stock, Config), edge(Config)]],
    ?assertEqual(Stock, Ours).

session(Namespaces, Ports) ->
    {ok, Socket} = connect(Ports),
    ok = gen_tcp:send(Socket, head("anon.localhost", Namespaces)),
    _ = until(Socket, "</stream:features>"),
    ok = gen_tcp:send(Socket, "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='ANONYMOUS'/>"),
    _ = until(Socket, "<success[^>]*>"),
    ok = gen_tcp:send(Socket, head("anon.localhost", Namespaces)),
    _ = until(Socket, "</stream:features>"),
    ok = gen_tcp:send(Socket, "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>"),
    _ = until(Socket, "</bind></iq>"),
    Socket.

head(Host, Namespaces) ->
    ["<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='" ?STREAMS "'", Namespaces,
     " to='", Host, "' version='1.0'>"].

until(Socket, Pattern) -> until(Socket, Pattern, <<>>).

until(Socket, Pattern, Text) ->
    case re:run(Text, Pattern, [dotall]) of
        {match, _} ->
            Text;
        nomatch ->
            case gen_tcp:recv(Socket, 0, ?TIMEOUT) of
                {ok, More} -> until(Socket, Pattern, <<Text/binary, More/binary>>);
                {error, Reason} -> ct:fail({Reason, Pattern, Text})
            end
    end.

connect(#{c2s := Port}) -> gen_tcp:connect({127, 0, 0, 1}, Port, [binary, {active, false}, {nodelay, true}]).

edge(Config) -> ?config(edge, Config).

call(Module, Function, Args, Config) -> e2e_ejabberd:call(?config(node, Config), Module, Function, Args).
