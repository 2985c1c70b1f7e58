%%% @doc `<body/>' of BOSH, from XML to the `#body{}' of ejabberd's sessions and back.
-module(megaphone_bosh_body).

%% megaphone_bosh, megaphone_bosh_responder
-export([decode/1, encode/1, attribute/2, reason/1, terminate/2, elements/1]).

-export_type([t/0]).

%% The `#body{}' of ejabberd_bosh; {@link megaphone_records:bosh/0} knows whether it is.
-record(body, {http_reason = <<>> :: binary(),
               attrs = [] :: [{atom() | binary(), term()}],
               els = [] :: [tuple()],
               size = 0 :: non_neg_integer()}).

-opaque t() :: #body{}.

-define(HTTP_BIND, <<"http://jabber.org/protocol/httpbind">>).
-define(XBOSH, <<"urn:xmpp:xbosh">>).
-define(STREAM, <<"http://etherx.jabber.org/streams">>).
-define(CLIENT, <<"jabber:client">>).

%%% in

-spec decode(binary()) -> {ok, t()} | {error, Reason :: binary()}.
decode(Data) ->
    case fxml_stream:parse_element(Data) of
        {xmlel, <<"body">>, Attributes, Children} ->
            body(attributes(Attributes, []), Children, byte_size(Data));
        {xmlel, _, _, _} ->
            {error, <<"Unexpected payload">>};
        _ ->
            {error, <<"XML is not well-formed">>}
    end.

body({error, _} = Error, _Children, _Size) ->
    Error;
body(Attributes, Children, Size) ->
    case lists:keyfind(rid, 1, Attributes) of
        false ->
            {error, <<"Missing \"rid\" attribute">>};
        _ ->
            {ok, #body{attrs = Attributes, size = Size,
                       els = [{xmlstreamelement, El} || {xmlel, _, _, _} = El <- Children]}}
    end.

%% The last one first, as sessions have them: of two with one name the last counts.
attributes([{Name, Value} | Left], Done) ->
    try attribute_in(Name, Value) of
        none -> attributes(Left, Done);
        Attribute -> attributes(Left, [Attribute | Done])
    catch
        error:_ -> {error, <<"Invalid \"", Name/binary, "\" attribute">>}
    end;
attributes([], Done) ->
    Done.

attribute_in(<<"rid">>, Value) -> {rid, number(Value)};
attribute_in(<<"sid">>, Value) -> {sid, Value};
attribute_in(<<"xmlns">>, ?HTTP_BIND) -> none;
attribute_in(<<"xmlns">>, _) -> error(badarg);
attribute_in(<<"to">>, Value) -> {to, jid:nameprep(Value)};
attribute_in(<<"type">>, Value) -> {type, Value};
attribute_in(<<"key">>, Value) -> {key, Value};
attribute_in(<<"newkey">>, Value) -> {newkey, Value};
attribute_in(<<"ver">>, Value) -> {ver, Value};
attribute_in(<<"xmpp:version">>, Value) -> {'xmpp:version', Value};
attribute_in(<<"xmpp:restart">>, Value) -> {'xmpp:restart', flag(Value)};
attribute_in(<<"secure">>, Value) -> {secure, flag(Value)};
attribute_in(<<"wait">>, Value) -> {wait, number(Value)};
attribute_in(<<"hold">>, Value) -> {hold, number(Value)};
attribute_in(<<"ack">>, Value) -> {ack, number(Value)};
attribute_in(<<"pause">>, Value) -> {pause, number(Value)};
attribute_in(Name, Value) -> {Name, Value}.

number(Text) ->
    case binary_to_integer(Text) of
        Number when Number >= 0 -> Number;
        _ -> error(badarg)
    end.

flag(<<"true">>) -> true;
flag(<<"1">>) -> true;
flag(<<"false">>) -> false;
flag(<<"0">>) -> false.

%% @doc An attribute's value; `<<>>' where there is none.
-spec attribute(atom(), t()) -> term().
attribute(Name, #body{attrs = Attributes}) ->
    case lists:keyfind(Name, 1, Attributes) of
        {_, Value} -> Value;
        false -> <<>>
    end.

%%% out

%% @doc What ends a session, with the words for the status line.
-spec terminate(Reason :: binary(), Condition :: binary()) -> t().
terminate(Reason, Condition) ->
    #body{http_reason = Reason, attrs = [{type, <<"terminate">>}, {condition, Condition}]}.

-spec reason(t()) -> binary().
reason(#body{http_reason = Reason}) ->
    Reason.

%% @doc How many elements there are to write; `error': that is no body.
-spec elements(t() | term()) -> non_neg_integer() | error.
elements(#body{els = Elements}) when is_list(Elements) -> length(Elements);
elements(_) -> error.

-spec encode(t()) -> iodata().
encode(#body{attrs = Attributes0, els = Elements}) ->
    {Attributes, Content} = content(Elements, [{<<"xmlns">>, ?HTTP_BIND}
                                               | [attribute_text(A) || A <- Attributes0]]),
    case Content of
        [] -> [<<"<body">>, [attribute_out(A) || A <- Attributes], <<"/>">>];
        _ -> [<<"<body">>, [attribute_out(A) || A <- Attributes], $>, Content, <<"</body>">>]
    end.

%% Some elements are attributes of the body; what comes last is looked at first.
content([], Attributes) ->
    {Attributes, []};
content([Element | Elements], Attributes0) ->
    {Attributes, Content} = content(Elements, Attributes0),
    case Element of
        {xmlstreamelement, {xmlel, Name, _, _} = El} ->
            {element_attributes(Name, Attributes), [element_out(Name, El) | Content]};
        {xmlstreamraw, Text} ->
            {Attributes, [Text | Content]};
        {xmlstreamstart, <<"stream:stream">>, Stream} ->
            {stream_attributes(Stream, Attributes), Content};
        {xmlstreamend, _} ->
            {remote_error(Attributes), Content};
        {xmlstreamerror, _} ->
            {[{<<"type">>, <<"terminate">>}, {<<"condition">>, <<"remote-stream-error">>},
              {<<"xmlns:stream">>, ?STREAM} | Attributes], Content};
        _ ->
            {Attributes, Content}
    end.

remote_error(Attributes) ->
    [{<<"type">>, <<"terminate">>}, {<<"condition">>, <<"remote-stream-error">>} | Attributes].

element_attributes(<<"stream:error">>, Attributes) ->
    [{<<"type">>, <<"terminate">>}, {<<"condition">>, <<"remote-stream-error">>},
     {<<"xmlns:stream">>, ?STREAM} | Attributes];
element_attributes(<<"stream:features">>, Attributes) ->
    lists:keystore(<<"xmlns:stream">>, 1, Attributes, {<<"xmlns:stream">>, ?STREAM});
element_attributes(_, Attributes) ->
    Attributes.

%% Stanzas are of the client's namespace, and not of the body's.
element_out(Name, {xmlel, _, Attributes, Children})
  when Name =:= <<"message">>; Name =:= <<"presence">>; Name =:= <<"iq">> ->
    Stored = lists:keystore(<<"xmlns">>, 1, Attributes, {<<"xmlns">>, ?CLIENT}),
    fxml:element_to_binary({xmlel, Name, Stored, Children});
element_out(_, El) ->
    fxml:element_to_binary(El).

stream_attributes(Stream, Attributes) ->
    Id = {<<"authid">>, fxml:get_attr_s(<<"id">>, Stream)},
    case fxml:get_attr_s(<<"version">>, Stream) of
        <<>> ->
            [Id | Attributes];
        Version ->
            lists:keystore(<<"xmlns:xmpp">>, 1, [{<<"xmpp:version">>, Version}, Id | Attributes],
                           {<<"xmlns:xmpp">>, ?XBOSH})
    end.

attribute_text({Name, Value}) when is_atom(Name) -> {atom_to_binary(Name), text(Value)};
attribute_text(Attribute) -> Attribute.

attribute_out({Name, Value}) ->
    [$\s, Name, $=, $', fxml:crypt(Value), $'].

text(Value) when is_integer(Value), Value >= 0 -> integer_to_binary(Value);
text(true) -> <<"true">>;
text(false) -> <<"false">>;
text(Value) -> Value.
