%% A chat user over BOSH, WebSocket or c2s with STARTTLS, who stays logged in as long as a test
%% needs: says, hears, and tells how the server ended the connection.
-module(e2e_user).

-export([login/3, login/4, jid/1, say/3, hear/1, hear/2, listen/1, chat/3, ending/2, close/1]).
-export_type([user/0, transport/0, ports/0, ending/0]).

-type transport() :: bosh | websocket | c2s.
-type ports() :: #{http := inet:port_number(), c2s => inet:port_number(), ca => file:filename(), atom() => term()}.
-type user() :: #{transport := transport(), jid := binary(), atom() => term()}.
%% How it ended and what was said before that and not heard.
-type ending() :: {closed | econnreset | timeout | {close_frame, non_neg_integer(), binary()}
                   | {terminate, binary()} | term(), Said :: binary()}.

-define(TIMEOUT, 20_000).
%% Longer than ejabberd holds a request of e2e_bosh's.
-define(BOSH_TIMEOUT, 40_000).
-define(FRAMING, "urn:ietf:params:xml:ns:xmpp-framing").
-define(STREAMS, "http://etherx.jabber.org/streams").
-define(SASL, "urn:ietf:params:xml:ns:xmpp-sasl").
-define(BIND, "urn:ietf:params:xml:ns:xmpp-bind").

%% The password of a user is the name with "-pw"; `anonymous` has none.
-spec login(transport(), User :: binary() | anonymous, ports()) -> user().
login(Transport, User, Ports) -> login(Transport, User, Ports, []).

%% Raises `{login, Reason}` where the connection is refused or ends on the way.
-spec login(transport(), User :: binary() | anonymous, ports(), [gen_tcp:connect_option()]) -> user().
login(bosh, User, #{http := Port}, Options) ->
    Connect = fun() -> bosh_connection(Port, Options) end,
    try e2e_bosh:login(Connect(), User, <<User/binary, "-pw">>, resource(bosh)) of
        #{http := Http} = Session ->
            #{transport => bosh, jid => e2e_bosh:jid(Session), session => Session, connect => Connect,
              asked => [], free => [Http], text => <<>>}
    catch
        throw:{ended, Reason} -> error({login, Reason})
    end;
login(Transport, User, Ports, Options) ->
    Host = host(User),
    Stream0 = stream(Transport, Ports, [{nodelay, true} | Options]),
    Stream1 = secure(open(Stream0, Host), Host, Ports),
    Stream2 = authenticate(Stream1, User),
    Stream3 = open(Stream2, Host),
    send(Stream3, ["<iq xmlns='jabber:client' type='set' id='bind'><bind xmlns='" ?BIND "'>",
                   [["<resource>", resource(Transport), "</resource>"] || User =/= anonymous],
                   "</bind></iq>"]),
    {[Jid], Stream4} = expect(Stream3, "<jid>([^<]*)</jid>.*?</iq>"),
    send(Stream4, "<presence xmlns='jabber:client'/>"),
    %% It is told of its own presence: from here on it gets messages.
    {_, Stream5} = expect(Stream4, "<presence[^>]*?(/>|>.*?</presence>)"),
    Stream5#{jid => Jid}.

-spec jid(user()) -> binary().
jid(#{jid := Jid}) -> Jid.

-spec say(user(), To :: binary(), Text :: binary()) -> user().
say(#{transport := bosh} = User, To, Text) ->
    ask(User, fun(Session) -> e2e_bosh:say(Session, To, Text) end);
say(User, To, Text) ->
    send(User, ["<message xmlns='jabber:client' type='chat' to='", To, "'><body>", Text, "</body></message>"]),
    User.

-spec hear(user()) -> {Text :: binary(), user()}.
hear(User) -> hear(User, ?TIMEOUT).

-spec hear(user(), timeout()) -> {Text :: binary(), user()}.
hear(User, Timeout) ->
    {[Text], Next} = expect(User, "<message.*?<body>([^<]*)</body>.*?</message>", Timeout),
    {Text, Next}.

%% A BOSH user is told only what it asks for: leaves a request with the server, as browsers do
%% at all times. The others listen anyway.
-spec listen(user()) -> user().
listen(#{transport := bosh, asked := []} = User) -> ask(User, fun e2e_bosh:listen/1);
listen(User) -> User.

%% The first says something to the second, who answers; both hear what was said.
-spec chat(user(), user(), Text :: binary()) -> {user(), user()}.
chat(A, B, Text) ->
    Answer = <<"re: ", Text/binary>>,
    A1 = say(A, jid(B), Text),
    {Text, B1} = hear(B),
    B2 = say(B1, jid(A1), Answer),
    {Answer, A2} = hear(A1),
    {A2, B2}.

%% Waits for the end of the user's connection.
-spec ending(user(), timeout()) -> ending().
ending(#{text := Said} = User, Timeout) ->
    case recv(User, Timeout) of
        {ok, Next} -> ending(Next, Timeout);
        {error, Reason} -> {Reason, Said}
    end.

-spec close(user()) -> ok.
close(#{transport := bosh, asked := Asked, free := Free}) ->
    lists:foreach(fun e2e_http:close/1, Asked ++ Free);
close(#{transport := websocket, socket := Socket}) -> e2e_websocket:close(Socket);
close(#{transport := c2s, socket := Socket}) -> close_socket(Socket).

%% ---- BOSH: requests and answers as a stream of text ----

bosh_connection(Port, Options) ->
    case gen_tcp:connect({127, 0, 0, 1}, Port, [binary, {active, false}, {show_econnreset, true} | Options], ?TIMEOUT) of
        {ok, Socket} -> (e2e_http:on(Socket))#{send := fun(Bytes) -> bosh_send(Socket, Bytes) end,
                                               recv := fun() -> bosh_recv(Socket, ?BOSH_TIMEOUT) end,
                                               socket => Socket};
        {error, Reason} -> error({login, Reason})
    end.

bosh_recv(Socket, Timeout) ->
    case gen_tcp:recv(Socket, 0, Timeout) of
        {ok, Bytes} -> Bytes;
        {error, Reason} -> throw({ended, Reason})
    end.

bosh_send(Socket, Bytes) ->
    case gen_tcp:send(Socket, Bytes) of
        ok -> ok;
        {error, Reason} -> throw({ended, Reason})
    end.

%% As browsers do: a request goes on a second connection while the server holds the first.
ask(#{free := [], asked := [_], connect := Connect} = User, Request) ->
    ask(User#{free := [Connect()]}, Request);
ask(#{free := []} = User, Request) ->
    {ok, Next} = bosh_answer(User, ?BOSH_TIMEOUT),
    ask(Next, Request);
ask(#{free := [Http | Free], asked := Asked, session := Session} = User, Request) ->
    Asked1 = Request(Session#{http := Http, asked := false}),
    User#{session := Asked1, asked := Asked ++ [Http], free := Free}.

bosh_answer(#{asked := [Http | Asked], free := Free, text := Text} = User, Timeout) ->
    #{socket := Socket} = Http,
    try e2e_http:answer(Http#{recv := fun() -> bosh_recv(Socket, Timeout) end}) of
        {#{status := 200, body := Body}, Http1} ->
            Next = User#{asked := Asked, free := Free ++ [Http1], text := <<Text/binary, Body/binary>>},
            case re:run(Body, "<body[^>]*type='terminate'[^>]*condition='([^']*)", [{capture, [1], binary}]) of
                {match, [Condition]} -> {error, {terminate, Condition}};
                nomatch -> {ok, Next}
            end;
        {#{status := Status}, _} ->
            {error, {status, Status}}
    catch
        throw:{ended, Reason} -> {error, Reason}
    end.

%% ---- WebSocket and c2s: a stream of text ----

stream(websocket, #{http := Port}, Options) ->
    case e2e_websocket:connect(Port, "/ws", [{show_econnreset, true} | Options]) of
        {ok, WebSocket} -> #{transport => websocket, socket => WebSocket, text => <<>>, jid => <<>>};
        {error, Reason} -> error({login, Reason})
    end;
stream(c2s, #{c2s := Port}, Options) ->
    case gen_tcp:connect({127, 0, 0, 1}, Port, [binary, {active, false}, {show_econnreset, true} | Options], ?TIMEOUT) of
        {ok, Socket} -> #{transport => c2s, socket => Socket, text => <<>>, jid => <<>>};
        {error, Reason} -> error({login, Reason})
    end.

open(#{transport := websocket} = Stream, Host) ->
    send(Stream, ["<open xmlns='" ?FRAMING "' to='", Host, "' version='1.0'/>"]),
    features(Stream);
open(#{transport := c2s} = Stream, Host) ->
    send(Stream, ["<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='" ?STREAMS
                  "' to='", Host, "' version='1.0'>"]),
    features(Stream).

features(Stream) ->
    {_, Next} = expect(Stream, "<(stream:)?features.*?</(stream:)?features>"),
    Next.

secure(#{transport := c2s, socket := Tcp} = Stream, Host, #{ca := Ca}) ->
    send(Stream, "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"),
    {_, Next} = expect(Stream, "<proceed[^>]*>"),
    {ok, Tls} = ssl:connect(Tcp, [{verify, verify_peer}, {cacertfile, Ca}, {server_name_indication, Host},
                                  {log_level, none}], ?TIMEOUT),
    open(Next#{socket := Tls}, Host);
secure(Stream, _Host, _Ports) ->
    Stream.

authenticate(Stream, anonymous) ->
    send(Stream, "<auth xmlns='" ?SASL "' mechanism='ANONYMOUS'/>"),
    {_, Next} = expect(Stream, "<success[^>]*>"),
    Next;
authenticate(Stream, User) ->
    {First, Bare} = e2e_scram:first(User),
    send(Stream, ["<auth xmlns='" ?SASL "' mechanism='SCRAM-SHA-1'>", base64:encode(First), "</auth>"]),
    {[Challenge], Stream1} = expect(Stream, "<challenge[^>]*>([^<]*)</challenge>"),
    {Final, Signature} = e2e_scram:final(Bare, base64:decode(Challenge), <<User/binary, "-pw">>, <<"n,,">>),
    send(Stream1, ["<response xmlns='" ?SASL "'>", base64:encode(Final), "</response>"]),
    {[Success], Stream2} = expect(Stream1, "<success[^>]*>([^<]*)</success>"),
    true = e2e_scram:proves(base64:decode(Success), Signature),
    Stream2.

%% A new one each time: a user who comes back is no conflict for the session that was lost.
resource(Transport) ->
    iolist_to_binary([atom_to_list(Transport), "-", integer_to_list(erlang:unique_integer([positive]))]).

host(anonymous) -> "anon.localhost";
host(_) -> "localhost".

send(#{transport := websocket, socket := Socket}, Text) -> ok = e2e_websocket:send(Socket, Text);
send(#{transport := c2s, socket := Socket}, Text) when is_port(Socket) -> ok = gen_tcp:send(Socket, Text);
send(#{transport := c2s, socket := Socket}, Text) -> ok = ssl:send(Socket, Text).

%% What the groups of the pattern caught; all text up to its end is used up.
expect(Stream, Pattern) -> expect(Stream, Pattern, ?TIMEOUT).

expect(#{text := Text} = Stream, Pattern, Timeout) ->
    case re:run(Text, Pattern, [dotall, {capture, all, index}]) of
        {match, [{Start, Length} | Groups]} ->
            Caught = [binary:part(Text, Group) || {At, _} = Group <- Groups, At >= 0],
            {Caught, Stream#{text := binary:part(Text, Start + Length, byte_size(Text) - Start - Length)}};
        nomatch ->
            case recv(Stream, Timeout) of
                {ok, Next} -> expect(Next, Pattern, Timeout);
                {error, Reason} -> error({login, {Reason, Pattern, Text}})
            end
    end.

recv(#{transport := bosh, asked := []} = User, Timeout) ->
    try listen(User) of
        Listening -> recv(Listening, Timeout)
    catch
        throw:{ended, Reason} -> {error, Reason}
    end;
recv(#{transport := bosh} = User, Timeout) ->
    bosh_answer(User, Timeout);
recv(#{transport := websocket, socket := Socket, text := Text} = Stream, Timeout) ->
    case e2e_websocket:recv(Socket, Timeout) of
        {ok, More, Next} -> {ok, Stream#{socket := Next, text := <<Text/binary, More/binary>>}};
        {error, _} = Error -> Error
    end;
recv(#{transport := c2s, socket := Socket, text := Text} = Stream, Timeout) ->
    case recv_socket(Socket, Timeout) of
        {ok, More} -> {ok, Stream#{text := <<Text/binary, More/binary>>}};
        {error, _} = Error -> Error
    end.

recv_socket(Socket, Timeout) when is_port(Socket) -> gen_tcp:recv(Socket, 0, Timeout);
recv_socket(Socket, Timeout) -> ssl:recv(Socket, 0, Timeout).

close_socket(Socket) when is_port(Socket) -> gen_tcp:close(Socket);
close_socket(Socket) -> ssl:close(Socket).
