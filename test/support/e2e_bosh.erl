%% A BOSH client (XEP-0124, XEP-0206) on connections that the caller makes: what a
%% test needs to log in and chat where the real clients cannot go.
-module(e2e_bosh).

-export([login/3, login/4, listen/1, say/3, hear/1, jid/1]).
-export_type([session/0]).

-type session() :: #{http := e2e_http:connection(), rid := pos_integer(), sid := binary(),
                     jid := binary(), asked := boolean()}.

-define(BIND_NS, "urn:ietf:params:xml:ns:xmpp-bind").
-define(SASL_NS, "urn:ietf:params:xml:ns:xmpp-sasl").

%% Creates a session on localhost, logs in with SCRAM, binds a resource and says
%% that it is there.
-spec login(e2e_http:connection(), User :: binary(), Password :: binary()) -> session().
login(Http, User, Password) -> login(Http, User, Password, <<"raw">>).

-spec login(e2e_http:connection(), User :: binary(), Password :: binary(), Resource :: binary()) -> session().
login(Http, User, Password, Resource) ->
    Start = #{http => Http, rid => rand:uniform(1 bsl 40), sid => <<>>, jid => <<>>, asked => false},
    {Created, Session0} = exchange(Start, " to='localhost' wait='30' hold='1' ver='1.11' "
                                   "xml:lang='en' content='text/xml; charset=utf-8' "
                                   "xmpp:version='1.0' xmlns:xmpp='urn:xmpp:xbosh'", ""),
    Session1 = Session0#{sid := attribute(Created, "sid")},
    {First, Bare} = e2e_scram:first(User),
    {Challenge, Session2} =
        exchange(Session1, "", ["<auth xmlns='" ?SASL_NS "' mechanism='SCRAM-SHA-1'>",
                                base64:encode(First), "</auth>"]),
    {Final, Signature} = e2e_scram:final(Bare, base64:decode(content(Challenge, "challenge")),
                                         Password, <<"n,,">>),
    {Success, Session3} =
        exchange(Session2, "", ["<response xmlns='" ?SASL_NS "'>", base64:encode(Final), "</response>"]),
    true = e2e_scram:proves(base64:decode(content(Success, "success")), Signature),
    {_Features, Session4} =
        exchange(Session3, " xmpp:restart='true' to='localhost' xmlns:xmpp='urn:xmpp:xbosh'", ""),
    {Bound, Session5} =
        exchange(Session4, "", ["<iq xmlns='jabber:client' type='set' id='bind'><bind xmlns='" ?BIND_NS "'><resource>",
                               Resource, "</resource></bind></iq>"]),
    {_, Session6} = exchange(Session5#{jid := content(Bound, "jid")}, "",
                             "<presence xmlns='jabber:client'/>"),
    Session6.

-spec jid(session()) -> binary().
jid(#{jid := Jid}) -> Jid.

%% Leaves a request with the server, which holds it until there is something to tell.
-spec listen(session()) -> session().
listen(Session) -> ask(Session, "", "").

%% Sends a chat message; the server holds the request as it does after listen/1.
-spec say(session(), To :: binary(), Text :: binary()) -> session().
say(Session, To, Text) ->
    ask(Session, "", ["<message xmlns='jabber:client' type='chat' to='", To, "'><body>", Text,
                      "</body></message>"]).

%% The chat message that answers what was asked last.
-spec hear(session()) -> {Text :: binary(), session()}.
hear(Session) ->
    {Answer, Next} = told(Session),
    case re:run(Answer, "<body>([^<]*)</body>", [{capture, [1], binary}]) of
        {match, [Text]} -> {Text, Next};
        nomatch -> hear(listen(Next))
    end.

exchange(Session, Attributes, Stanza) -> told(ask(Session, Attributes, Stanza)).

ask(#{http := Http, rid := Rid, sid := Sid, asked := false} = Session, Attributes, Stanza) ->
    Body = ["<body xmlns='http://jabber.org/protocol/httpbind' rid='", integer_to_list(Rid), "'",
            [[" sid='", Sid, "'"] || Sid =/= <<>>], Attributes, ">", Stanza, "</body>"],
    ok = e2e_http:post(Http, "/bosh", [{"Content-Type", "text/xml; charset=utf-8"}], Body),
    Session#{rid := Rid + 1, asked := true}.

told(#{http := Http, asked := true} = Session) ->
    {#{status := 200, body := Answer}, Next} = e2e_http:answer(Http),
    nomatch = re:run(Answer, "type='terminate'"),
    {Answer, Session#{http := Next, asked := false}}.

attribute(Xml, Name) -> capture(Xml, [" ", Name, "=['\"]([^'\"]*)"]).

content(Xml, Name) -> capture(Xml, ["<", Name, "[^>]*>([^<]*)<"]).

capture(Xml, Pattern) ->
    {match, [Text]} = re:run(Xml, Pattern, [{capture, [1], binary}]),
    Text.
