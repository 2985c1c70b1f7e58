%% A request handler that runs inside the ejabberd under test: it answers with the `#request{}`
%% that it was given, or with every shape of answer there is.
-module(e2e_echo_handler).

-export([process/2, fields/1]).
%% ejabberd's hooks
-export([hook/0, unhook/0, add_handler/3, debug/1, debugged/0]).
-export([slot/2]).

-define(TIMEOUT, 10_000).
-define(BIG, 1_500_000).

%% `#request{}` as both ejabberds have it; its header file is not in the packages.
-define(FIELDS, [method, path, raw_path, q, us, auth, lang, data, ip, host, port, opts, tp, headers,
                 length, sockmod, socket]).

process([<<"shape">>, Shape], Request) -> shape(Shape, Request);
process(Path, Request) ->
    #{method := Method} = Fields = fields(Request),
    Whole = case Method of
                'PUT' -> Fields#{data := upload(Fields)};
                _ -> Fields
            end,
    Told = [{local_path, Path} | [{Name, told(Name, maps:get(Name, Whole), Fields)} || Name <- ?FIELDS]],
    {200, [{<<"Content-Type">>, <<"text/plain">>}],
     unicode:characters_to_binary(io_lib:format("~p", [Told]))}.

%% What is not the same for two listeners of one node is not told, or only what it is good for.
told(socket, Socket, #{sockmod := SockMod}) ->
    {ok, {Ip, _}} = case SockMod of
                        gen_tcp -> inet:peername(Socket);
                        _ -> SockMod:peername(Socket)
                    end,
    {peername, Ip};
told(ip, {Ip, _Port}, _) -> Ip;
told(data, Data, _) when byte_size(Data) > 1000 -> {byte_size(Data), erlang:md5(Data)};
told(opts, Opts, _) ->
    [{Name, proplists:get_value(Name, Opts)}
     || Name <- [request_handlers, custom_headers, default_host, tag, tls]];
told(_Name, Value, _) -> Value.

fields(Request) -> maps:from_list(lists:zip(?FIELDS, tl(tuple_to_list(Request)))).

%% The rest of a PUT's body is read by its handler.
upload(#{data := Data, length := Length, sockmod := SockMod, socket := Socket}) ->
    case Length - byte_size(Data) of
        Left when Left > 0 ->
            case SockMod:recv(Socket, Left, ?TIMEOUT) of
                {ok, Rest} -> <<Data/binary, Rest/binary>>;
                {error, Reason} -> term_to_binary(Reason)
            end;
        _ -> Data
    end.

%% ---- every answer that a handler may give ----

shape(<<"binary">>, _) -> <<"just text">>;
shape(<<"list">>, _) -> ["just ", <<"an ">>, [$i, "olist"]];
shape(<<"xmlel">>, _) -> element();
shape(<<"status_xmlel">>, _) -> {202, [{<<"X-One">>, <<"1">>}], element()};
shape(<<"html_xmlel">>, _) -> {200, [html, {<<"Content-Type">>, <<"text/html">>}], element()};
shape(<<"status_text">>, _) -> {201, [{<<"X-One">>, <<"1">>}, {<<"X-Two">>, <<"2">>}], <<"made">>};
shape(<<"status_list">>, _) -> {404, [], ["not ", <<"there">>]};
shape(<<"reason">>, _) -> {418, <<"I'm a teapot">>, [{<<"Content-Type">>, <<"text/plain">>}], <<"short and stout">>};
shape(<<"empty">>, _) -> {204, [], <<>>};
shape(<<"custom">>, _) -> {200, [{<<"X-Custom">>, <<"of the handler">>}, {<<"A">>, <<"b">>}], <<"x">>};
shape(<<"connection">>, _) -> {200, [{<<"Connection">>, <<"close">>}], <<"x">>};
shape(<<"file">>, _) -> {200, [{<<"Content-Type">>, <<"application/octet-stream">>}], {file, own_file()}};
shape(<<"no_file">>, _) -> {200, [], {file, <<"/no/such/file">>}};
shape(<<"no_file_string">>, _) -> {200, [], {file, "/no/such/file"}};
shape(<<"directory">>, _) -> {200, [], {file, <<"/">>}};
shape(<<"big">>, _) -> {200, [], binary:copy(<<"0123456789abcdef">>, ?BIG div 16)};
shape(<<"status_", Status/binary>>, _) -> {binary_to_integer(Status), [], <<"x">>};
shape(<<"crash">>, _) -> error(on_purpose);
shape(<<"exit">>, _) -> exit(on_purpose);
shape(<<"nothing">>, _) -> none.

element() ->
    {xmlel, <<"p">>, [{<<"title">>, <<"a & 'b'">>}], [{xmlcdata, <<"x < y, ", "ü"/utf8>>}, {xmlel, <<"br">>, [], []}]}.

%% Larger than a socket's buffer.
own_file() -> list_to_binary(filename:join(code:lib_dir(stdlib), "ebin/unicode_util.beam")).

%% ---- hooks ----

hook() ->
    _ = ejabberd_hooks:add(http_request_handlers, ?MODULE, add_handler, 50),
    _ = ejabberd_hooks:add(http_request_debug, ?MODULE, debug, 50),
    ok.

unhook() ->
    _ = ejabberd_hooks:delete(http_request_handlers, ?MODULE, add_handler, 50),
    _ = ejabberd_hooks:delete(http_request_debug, ?MODULE, debug, 50),
    ok.

%% A handler that no listener's options name, and only for one host.
add_handler(Handlers, <<"hooked.example">>, Request) ->
    #{path := [<<"hooked">> | _]} = fields(Request),
    [{[<<"hooked">>], ?MODULE} | Handlers];
add_handler(Handlers, _Host, _Request) -> Handlers.

debug({LocalPath, Request}) ->
    case fields(Request) of
        #{method := Method, raw_path := <<"/echo/debug", _/binary>> = RawPath} ->
            persistent_term:put({?MODULE, debugged}, {LocalPath, Method, RawPath});
        _ -> ok
    end.

debugged() -> persistent_term:get({?MODULE, debugged}, none).

%% ---- mod_http_upload: where a file may be put, as a path ----

slot(Name, Size) ->
    Iq = xmpp:decode(
           fxml_stream:parse_element(
             iolist_to_binary(["<iq xmlns='jabber:client' type='get' id='slot' from='localhost' to='upload.localhost'>"
                               "<request xmlns='urn:xmpp:http:upload:0' filename='", Name, "' size='",
                               integer_to_list(Size), "'/></iq>"]))),
    Self = self(),
    Ref = make_ref(),
    _ = ejabberd_router:route_iq(Iq, fun(Reply) -> Self ! {Ref, fxml:element_to_binary(xmpp:encode(Reply))} end),
    receive
        {Ref, Answer} ->
            {match, [Path]} = re:run(Answer, "<put url='http://[^/]*([^']*)'", [{capture, [1], binary}]),
            Path
    after ?TIMEOUT -> error(no_slot)
    end.
