%%% @doc A user on WebSocket (RFC 7395) without a process of the connection's own: an
%%% `xmpp_socket' between the NIF, which speaks RFC 6455, and `ejabberd_c2s'.
%%%
%%% ```
%%% link → NIF: a whole message → {'$megaphone_ws', Text} → this module, in the user's process
%%%      → element → xmpp_stream_in
%%% xmpp_stream_in → send_xml/2 → ws_send/2 → link
%%% '''
%%%
%%% What it makes of the stream, the upgrade's answer and ejabberd's options are those of
%%% `ejabberd_http_ws' (24.12). Clients from before RFC 7395, which 23.01 still takes, are told
%%% that their stream is wrong, as 24.12 does.
-module(megaphone_ws).
%% -behaviour(xmpp_socket), which is ejabberd's.
-behaviour(megaphone_xmpp).

%% megaphone_http
-export([upgrade/5]).
%% xmpp_socket
-export([send_xml/2, setopts/2, sockname/1, peername/1, controlling_process/2, get_owner/1,
         reset_stream/1, close/1, change_shaper/2, get_transport/1]).
%% megaphone_xmpp
-export([received/2, next/1]).

-export_type([socket/0]).

-type address() :: {inet:ip_address(), inet:port_number()}.
-type socket() :: {?MODULE, megaphone_nif:conn(), Client :: address()}.
-type attributes() :: [{binary(), binary()}].
-type element() :: {xmlel, binary(), attributes(), [element() | {xmlcdata, binary()}]}.
-type outgoing() :: {xmlstreamstart, binary(), attributes()} | {xmlstreamelement, element()}
                  | {xmlstreamend, binary()} | {xmlstreamraw, iodata()}.

-define(NS_FRAMING, <<"urn:ietf:params:xml:ns:xmpp-framing">>).
-define(NS_STREAM, <<"http://etherx.jabber.org/streams">>).
-define(NS_CLIENT, <<"jabber:client">>).
%% RFC 6455, 1.3.
-define(GUID, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").
%% Options of the listener that are the stream's.
-define(STREAM_OPTIONS, [stream_management, max_ack_queue, ack_timeout, resume_timeout,
                         max_resume_timeout, resend_on_timeout, allow_unencrypted_sasl2, access]).
%% A message where `max_stanza_size' sets no bound, bytes.
-define(MAX_MESSAGE, 16#1000000).
%% In which a client has to take what is sent, as ejabberd_http_ws has it, milliseconds. Here and
%% not an option of the connection, which would take memory.
-define(SEND_TIMEOUT, 15_000).
%% Close codes (RFC 6455, 7.4.1): the end; the server goes away.
-define(NORMAL, 1000).
-define(GOING_AWAY, 1001).
%% Keys in the dictionary of the user's process.
-define(STREAM_ENDED, '$megaphone_ended').
-define(CLOSE_CODE, '$megaphone_code').

%%% megaphone_http

%% @doc Answers a request for an upgrade and starts the user's process, which owns the connection
%% from then on. `not_upgrade': it is none, or its origin is not allowed, and nothing was sent.
-spec upgrade(megaphone_nif:conn(), Method :: atom() | binary(), Headers :: [{atom() | binary(), binary()}],
              Client :: address(), HttpOptions :: [term()]) -> {ok, pid()} | not_upgrade | closed.
upgrade(Conn, 'GET', Headers, Client, HttpOptions) ->
    case is_upgrade(Headers) andalso is_origin_allowed(Headers) of
        true -> start(Conn, Headers, Client, HttpOptions);
        false -> not_upgrade
    end;
upgrade(_Conn, _Method, _Headers, _Client, _HttpOptions) ->
    not_upgrade.

is_upgrade(Headers) ->
    has(<<"websocket">>, 'Upgrade', Headers)
        andalso has(<<"13">>, <<"Sec-Websocket-Version">>, Headers)
        andalso lists:all(fun(Name) -> lists:keymember(Name, 1, Headers) end,
                          ['Connection', 'Host', <<"Sec-Websocket-Key">>]).

has(Value, Name, Headers) ->
    case lists:keyfind(Name, 1, Headers) of
        {_, Given} -> string:lowercase(Given) =:= Value;
        false -> false
    end.

%% Only browsers say where a page is from, and only pages are to be kept out.
is_origin_allowed(Headers) ->
    case {ejabberd_option:websocket_origin(), lists:keyfind(<<"Origin">>, 1, Headers)} of
        {[], _} -> true;
        {_, false} -> true;
        {Origins, {_, Origin}} -> lists:member(string:lowercase(Origin), Origins)
    end.

start(Conn, Headers, Client, HttpOptions) ->
    ok = megaphone_xmpp:ensure(),
    Options = ejabberd_c2s_config:get_c2s_limits()
        ++ [Option || {Name, _} = Option <- HttpOptions, lists:member(Name, ?STREAM_OPTIONS)],
    case ejabberd_c2s:start(?MODULE, {?MODULE, Conn, Client}, Options) of
        {ok, User} -> switch(Conn, Headers, User, Options);
        _ -> closed
    end.

%% The user's process waits for accept/1 before it asks for anything.
switch(Conn, Headers, User, Options) ->
    case megaphone_nif:send(Conn, answer(Headers)) of
        {error, _} ->
            stop(User);
        _ ->
            case megaphone_nif:ws_start(Conn, User, limits(Options)) of
                ok -> ejabberd_c2s:accept(User), {ok, User};
                {error, closed} -> stop(User)
            end
    end.

limits(Options) ->
    #{max_message => case proplists:get_value(max_stanza_size, Options, infinity) of
                         infinity -> ?MAX_MESSAGE;
                         Bytes -> Bytes
                     end,
      ping_interval => ejabberd_option:websocket_ping_interval(),
      timeout => ejabberd_option:websocket_timeout()}.

stop(User) ->
    ejabberd_c2s:stop_async(User),
    closed.

answer(Headers) ->
    {_, Key} = lists:keyfind(<<"Sec-Websocket-Key">>, 1, Headers),
    [<<"HTTP/1.1 101 Switching Protocols\r\n"
       "Upgrade: websocket\r\n"
       "Connection: Upgrade\r\n">>,
     protocol(Headers),
     <<"Sec-WebSocket-Accept: ">>, base64:encode(crypto:hash(sha, [Key, ?GUID])), <<"\r\n\r\n">>].

protocol(Headers) ->
    case [Value || Name <- [<<"Sec-Websocket-Protocol">>, <<"Websocket-Protocol">>],
                   {_, Value} <- [lists:keyfind(Name, 1, Headers)]] of
        [Protocol | _] -> [<<"Sec-Websocket-Protocol:">>, Protocol, <<"\r\n">>];
        [] -> []
    end.

%%% megaphone_xmpp

%% @doc One message of the client's: one element (RFC 7395, 3.3).
-spec received(binary(), megaphone_xmpp:state()) -> megaphone_xmpp:state().
received(_Text, #{stream_state := disconnected} = State) ->
    State;
received(Text, State) ->
    ok = megaphone_xmpp:event(event(fxml_stream:parse_element(Text))),
    ok = megaphone_xmpp:next(?MODULE, megaphone_xmpp:conn(), byte_size(Text)),
    State.

event({xmlel, <<"open">>, Attributes, _}) ->
    {xmlstreamstart, <<"stream:stream">>,
     [{<<"xmlns:stream">>, ?NS_STREAM}, {<<"xmlns">>, ?NS_CLIENT} | without_namespaces(Attributes)]};
event({xmlel, <<"close">>, _, _}) ->
    {xmlstreamend, <<"stream:stream">>};
event({xmlel, _, _, _} = Element) ->
    {xmlstreamelement, Element};
event({error, _}) ->
    {xmlstreamerror, {4, <<"not well-formed">>}}.

%% @doc The next message comes to the caller, the user's process.
-spec next(megaphone_nif:conn()) -> ok.
next(Conn) ->
    case megaphone_nif:ws_next(Conn) of
        {ok, Text} -> self() ! {'$megaphone_ws', Text}, ok;
        wait -> ok;
        closed -> ok                            % `tcp_closed' says so
    end.

%%% xmpp_socket; all in the user's process

-spec send_xml(socket(), outgoing()) -> ok | {error, timeout | inet:posix() | closed}.
send_xml(Socket, {xmlstreamelement, Element}) ->
    remember_reason(Element),
    send(Socket, with_namespace(Element));
send_xml(Socket, {xmlstreamstart, _, Attributes}) ->
    send(Socket, {xmlel, <<"open">>, [{<<"xmlns">>, ?NS_FRAMING} | without_namespaces(Attributes)], []});
send_xml(Socket, {xmlstreamend, _}) ->
    _ = put(?STREAM_ENDED, true),
    send(Socket, {xmlel, <<"close">>, [{<<"xmlns">>, ?NS_FRAMING}], []});
%% White space between stanzas, to see whether the client is there: the NIF pings.
send_xml(_Socket, {xmlstreamraw, _}) ->
    ok.

send({?MODULE, Conn, _}, Element) ->
    Sent = case megaphone_nif:ws_send(Conn, fxml:element_to_binary(Element)) of
               {wait, Token, infinity} -> {wait, Token, ?SEND_TIMEOUT};
               Done -> Done
           end,
    stalled(Conn, megaphone_socket:await_send(Conn, Sent)).

%% As `send_timeout_close' does: what waits for the client has no one to go to.
stalled(Conn, {error, timeout} = Error) ->
    _ = megaphone_nif:abort(Conn, timeout),
    Error;
stalled(_Conn, Result) ->
    Result.

%% A message is a document of its own: no namespace comes from the stream's head.
with_namespace({xmlel, <<"stream:", _/binary>> = Name, Attributes, Children}) ->
    {xmlel, Name, [{<<"xmlns:stream">>, ?NS_STREAM} | lists:keydelete(<<"xmlns:stream">>, 1, Attributes)],
     Children};
with_namespace({xmlel, Name, Attributes, Children} = Element) ->
    case lists:keyfind(<<"xmlns">>, 1, Attributes) of
        {_, Namespace} when Namespace =/= <<>> -> Element;
        _ -> {xmlel, Name, [{<<"xmlns">>, ?NS_CLIENT} | lists:keydelete(<<"xmlns">>, 1, Attributes)],
              Children}
    end.

without_namespaces(Attributes) ->
    [Attribute || {Name, _} = Attribute <- Attributes, Name =/= <<"xmlns">>, Name =/= <<"xmlns:stream">>].

%% A client that is told that the server goes should come back elsewhere.
remember_reason({xmlel, <<"stream:error">>, _, Children}) ->
    _ = lists:keymember(<<"system-shutdown">>, 2, Children) andalso put(?CLOSE_CODE, ?GOING_AWAY),
    ok;
remember_reason(_) ->
    ok.

-spec setopts(socket(), [{active, once | boolean()}]) -> ok.
setopts({?MODULE, Conn, _}, Options) ->
    case lists:member({active, once}, Options) of
        true -> next(Conn);
        false -> ok
    end.

-spec sockname(socket()) -> {ok, address()}.
sockname(_Socket) ->
    {ok, {{0, 0, 0, 0}, 0}}.

-spec peername(socket()) -> {ok, address()}.
peername({?MODULE, _, Client}) ->
    {ok, Client}.

-spec controlling_process(socket(), pid()) -> ok.
controlling_process(_Socket, _Pid) ->
    ok.

-spec get_owner(socket()) -> pid().
get_owner({?MODULE, Conn, _}) ->
    megaphone_xmpp:owner(Conn).

-spec get_transport(socket()) -> websocket.
get_transport(_Socket) ->
    websocket.

-spec reset_stream(socket()) -> socket().
reset_stream(Socket) ->
    Socket.

-spec change_shaper(socket(), term()) -> ok.
change_shaper(_Socket, Shaper) ->
    megaphone_xmpp:change_shaper(Shaper).

-spec close(socket()) -> ok.
close({?MODULE, Conn, _} = Socket) ->
    _ = get(?STREAM_ENDED) =:= true orelse send_xml(Socket, {xmlstreamend, <<>>}),
    Code = case get(?CLOSE_CODE) of
               undefined -> ?NORMAL;
               GoingAway -> GoingAway
           end,
    megaphone_nif:ws_close(Conn, Code, <<>>).
