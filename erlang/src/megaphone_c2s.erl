%%% @doc A drop-in for `ejabberd_c2s' as a service of megaphone's, for users whose TLS the edge has
%%% ended: an `xmpp_socket' that needs no XML parser of its own for every user, some 13 kB each.
%%%
%%% ```
%%% link → NIF: a whole stanza → {'$megaphone_stream', Piece} → this module, in the user's process
%%%      → element → xmpp_stream_in
%%% xmpp_stream_in → send_xml/2 → link
%%% '''
%%%
%%% The NIF cuts the stream (RFC 6120) into stanzas; each is parsed by itself. The options are those
%%% of `ejabberd_c2s', but for those that put another layer between the socket and the stream
%%% (`starttls', `tls', `zlib'), which want `ejabberd_c2s' itself.
-module(megaphone_c2s).
%% -behaviour(ejabberd_listener), -behaviour(xmpp_socket), which are ejabberd's.
-behaviour(megaphone_xmpp).

%% ejabberd_listener
-export([start/3, start_link/3, accept/1, listen_opt_type/1, listen_options/0]).
%% xmpp_socket
-export([send_xml/2, setopts/2, sockname/1, peername/1, controlling_process/2, get_owner/1,
         reset_stream/1, close/1, change_shaper/2, get_transport/1]).
%% megaphone_xmpp
-export([received/2, next/1]).

-type address() :: {inet:ip_address(), inet:port_number()}.
-type socket() :: {?MODULE, megaphone_nif:conn()}.
-type attributes() :: [{binary(), binary()}].
-type outgoing() :: {xmlstreamstart, binary(), attributes()} | {xmlstreamelement, tuple()}
                  | {xmlstreamend, binary()} | {xmlstreamraw, iodata()}.

%% Options of ejabberd_c2s that cannot be had here.
-define(LAYERS, [starttls, starttls_required, tls, zlib]).
%% A stanza where `max_stanza_size' sets no bound, bytes.
-define(MAX_STANZA, 16#1000000).
%% A stream's head as nearly all clients send it: what namespaces it declares.
-define(HEADER, <<"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>">>).
%% In the dictionary of a user whose client's head declares others.
-define(OWN_HEADER, '$megaphone_header').

%%% ejabberd_listener

%% @doc Starts a user's process on a virtual socket; on any other socket, ejabberd's own.
-spec start(module(), term(), [term()]) -> {ok, pid()} | {ok, pid(), preowned_socket} | {error, term()}.
start(gen_tcp, {'$inet', megaphone_socket, Conn}, Options) ->
    begin_stream(Conn, Options, ejabberd_c2s:start(?MODULE, {?MODULE, Conn}, Options));
start(SockMod, Socket, Options) ->
    ejabberd_c2s:start(SockMod, Socket, Options).

-spec start_link(module(), term(), [term()]) ->
          {ok, pid()} | {ok, pid(), preowned_socket} | {error, term()}.
start_link(gen_tcp, {'$inet', megaphone_socket, Conn}, Options) ->
    begin_stream(Conn, Options, ejabberd_c2s:start_link(?MODULE, {?MODULE, Conn}, Options));
start_link(SockMod, Socket, Options) ->
    ejabberd_c2s:start_link(SockMod, Socket, Options).

begin_stream(Conn, Options, {ok, User}) ->
    ok = megaphone_xmpp:ensure(),
    MaxStanza = case proplists:get_value(max_stanza_size, Options, infinity) of
                    infinity -> ?MAX_STANZA;
                    Bytes -> min(Bytes, ?MAX_STANZA)
                end,
    case megaphone_nif:stream_start(Conn, User, MaxStanza) of
        ok ->
            {ok, User, preowned_socket};
        {error, closed} = Error ->
            ejabberd_c2s:stop_async(User),
            Error
    end;
begin_stream(_Conn, _Options, Error) ->
    Error.

-spec accept(pid()) -> ok.
accept(User) ->
    ejabberd_c2s:accept(User).

-spec listen_options() -> [{atom(), term()}].
listen_options() ->
    ejabberd_c2s:listen_options().

-spec listen_opt_type(atom()) -> fun((term()) -> term()).
listen_opt_type(Option) ->
    case lists:member(Option, ?LAYERS) of
        true ->
            econf:and_then(econf:bool(), fun(Value) -> without(Option, Value) end);
        false ->
            ejabberd_c2s:listen_opt_type(Option)
    end.

without(_Option, false) ->
    false;
without(Option, true) ->
    megaphone_options:fail("megaphone_c2s has no '~ts': the edge ends TLS (ecm: tls), or take "
                           "'module: ejabberd_c2s'", [Option]).

%%% megaphone_xmpp

%% @doc One piece of the client's stream.
-spec received(megaphone_nif:piece(), megaphone_xmpp:state()) -> megaphone_xmpp:state().
received(_Piece, #{stream_state := disconnected} = State) ->
    State;
received({error, Why}, State) ->
    ok = megaphone_xmpp:event({xmlstreamerror, reason(Why)}),
    State;
received({Kind, Bytes}, State) ->
    _ = self() ! event(Kind, Bytes),
    ok = next(byte_size(Bytes), State),
    State.

event(text, Bytes) -> {'$gen_all_state_event', {xmlstreamcdata, Bytes}};
event(header, Bytes) -> {'$gen_event', header(Bytes)};
event(finish, _) -> {'$gen_event', {xmlstreamend, <<"stream:stream">>}};
event(stanza, Bytes) -> {'$gen_event', stanza(Bytes)}.

%% Until the session stands, a stanza may be the last one before the stream begins again
%% (RFC 6120, 6.4.6). Whether it was is known when it has been worked on: behind it.
next(Bytes, #{stream_state := established}) ->
    megaphone_xmpp:next(?MODULE, megaphone_xmpp:conn(), Bytes);
next(_Bytes, _State) ->
    _ = self() ! {'$megaphone_next', ?MODULE, megaphone_xmpp:conn()},
    ok.

%% As the XML parser says it.
reason(too_big) -> <<"XML stanza is too big">>;
reason(document_type) -> {4, <<"a stream must not have a document type">>};
reason(not_well_formed) -> {4, <<"not well-formed (invalid token)">>}.

header(Bytes) ->
    case in_stream(Bytes, <<>>) of
        {xmlstreamstart, _, Attributes} = Start ->
            _ = case [Name || {<<"xmlns:", Name/binary>>, _} <- Attributes, Name =/= <<"stream">>] of
                    [] -> erase(?OWN_HEADER);
                    _ -> put(?OWN_HEADER, Bytes)
                end,
            Start;
        Error ->
            Error
    end.

%% An element by itself is what it is in the stream, unless it has prefixes: those of
%% the stream's head it cannot know, and in a stream they are resolved.
stanza(Bytes) ->
    case binary:match(Bytes, <<"xmlns:">>) of
        nomatch ->
            case fxml_stream:parse_element(Bytes) of
                {error, _} -> stanza_in_stream(Bytes);
                Element -> {xmlstreamelement, Element}
            end;
        _ ->
            stanza_in_stream(Bytes)
    end.

stanza_in_stream(Bytes) ->
    Header = case get(?OWN_HEADER) of
                 undefined -> ?HEADER;
                 Own -> Own
             end,
    in_stream(Header, Bytes).

%% What a parser of a stream says last of such a one.
in_stream(Header, Bytes) ->
    Parser = fxml_stream:new(self(), infinity, [no_gen_server]),
    fxml_stream:close(fxml_stream:parse(Parser, <<Header/binary, Bytes/binary>>)),
    said(Bytes =:= <<>>).

said(true) ->
    receive
        {xmlstreamstart, _, _} = Start -> Start;
        {xmlstreamerror, _} = Error -> Error
    after 0 -> {xmlstreamerror, reason(not_well_formed)}
    end;
said(false) ->
    case said(true) of
        {xmlstreamstart, _, _} ->
            receive
                {xmlstreamelement, _} = Element -> Element;
                {xmlstreamerror, _} = Error -> Error
            after 0 -> {xmlstreamerror, reason(not_well_formed)}
            end;
        Error ->
            Error
    end.

%% @doc The next piece comes to the caller, the user's process.
-spec next(megaphone_nif:conn()) -> ok.
next(Conn) ->
    case megaphone_nif:stream_next(Conn) of
        {ok, Piece} -> self() ! {'$megaphone_stream', Piece}, ok;
        wait -> ok;
        closed -> ok                            % `tcp_closed' says so
    end.

%%% xmpp_socket; all in the user's process

-spec send_xml(socket(), outgoing()) -> ok | {error, timeout | closed | inet:posix()}.
send_xml(Socket, {xmlstreamelement, Element}) ->
    send(Socket, fxml:element_to_binary(Element));
send_xml(Socket, {xmlstreamstart, Name, Attributes}) ->
    send(Socket, fxml:element_to_header({xmlel, Name, Attributes, []}));
send_xml(Socket, {xmlstreamend, Name}) ->
    send(Socket, [<<"</">>, Name, $>]);
send_xml(Socket, {xmlstreamraw, Data}) ->
    send(Socket, Data).

send({?MODULE, Conn}, Data) ->
    megaphone_socket:send(megaphone_socket:socket(Conn), Data).

-spec setopts(socket(), [{active, once | boolean()}]) -> ok.
setopts({?MODULE, Conn}, Options) ->
    case lists:member({active, once}, Options) of
        true -> next(Conn);
        false -> ok
    end.

-spec sockname(socket()) -> {ok, address()} | {error, einval}.
sockname({?MODULE, Conn}) ->
    megaphone_socket:sockname(megaphone_socket:socket(Conn)).

-spec peername(socket()) -> {ok, address()} | {error, einval}.
peername({?MODULE, Conn}) ->
    megaphone_socket:peername(megaphone_socket:socket(Conn)).

-spec controlling_process(socket(), pid()) -> ok.
controlling_process(_Socket, _Pid) ->
    ok.

-spec get_owner(socket()) -> pid().
get_owner({?MODULE, Conn}) ->
    megaphone_xmpp:owner(Conn).

-spec get_transport(socket()) -> tcp.
get_transport(_Socket) ->
    tcp.

-spec reset_stream(socket()) -> socket().
reset_stream({?MODULE, Conn} = Socket) ->
    ok = megaphone_nif:stream_restart(Conn),
    Socket.

-spec change_shaper(socket(), term()) -> ok.
change_shaper(_Socket, Shaper) ->
    megaphone_xmpp:change_shaper(Shaper).

-spec close(socket()) -> ok.
close({?MODULE, Conn}) ->
    megaphone_nif:close(Conn).
