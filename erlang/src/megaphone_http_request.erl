%%% @doc The process of one request: from what the NIF has read to a handler and back.
%%%
%%% It lives as long as the request, or the requests that its client has sent ahead. Nothing of
%%% what ejabberd_http does for a handler is left out: `#request{}' with all its fields, the hooks
%%% `http_request_handlers' and `http_request_debug', `trusted_proxies', `custom_headers'.
-module(megaphone_http_request).

%% megaphone_receiver
-export([adopt/4]).
%% megaphone_receiver, megaphone_bosh_responder
-export([start/2]).
%% erlang:spawn_opt/4, erlang:spawn/3
-export([serve/2, log/3]).

-include_lib("kernel/include/logger.hrl").

%% Words: a small request is answered without a collection.
-define(HEAP, 1598).
-define(HTTP_PORT, 80).
%% Longer names are none to jid:nameprep/1; in bytes.
-define(NAME_MAX, 1024).

%% @doc Takes a connection that was just opened. Called by the link's receiver, which nothing
%% may hold up: not even its log line.
-spec adopt(megaphone_nif:conn(), megaphone_http_service:key(), megaphone_nif:http_service(),
            Name :: binary()) -> ok.
adopt(Conn, Key, Http, Name) ->
    _ = logger:allow(info, ?MODULE) andalso spawn(?MODULE, log, [self(), Conn, Name]),
    _ = case megaphone_nif:http_start(Conn, Http) of
            request -> start(Conn, Key);
            _ -> ok
        end,
    ok.

%% @private
%% As ejabberd's listeners do, with the process that has the link for that of the connection.
-spec log(Receiver :: pid(), megaphone_nif:conn(), Name :: binary()) -> ok.
log(Receiver, Conn, Name) ->
    case megaphone_nif:addresses(Conn) of
        {ok, {Peer, Local}} ->
            ?LOG_INFO("(~p) Accepted connection ~ts -> ~ts (megaphone ~ts for ~ts)",
                      [Receiver, megaphone_address:hide(megaphone_address:format(Peer)),
                       megaphone_address:format(Local), id(Conn), Name]);
        {error, _} ->
            ok                                  % reset meanwhile
    end.

%% @doc Starts the process of a request that `megaphone_nif:feed/3' has told.
-spec start(megaphone_nif:conn(), megaphone_http_service:key()) -> pid().
start(Conn, Key) ->
    spawn_opt(?MODULE, serve, [Conn, Key], [{min_heap_size, ?HEAP}]).

%% @private
-spec serve(megaphone_nif:conn(), megaphone_http_service:key()) -> ok.
serve(Conn, Key) ->
    case taken(Conn) of
        {ok, Request} ->
            case request(Conn, Key, megaphone_http_service:get(Key), Request) of
                next -> serve(Conn, Key);
                _ -> ok
            end;
        {error, closed} ->
            ok
    end.

taken(Conn) ->
    case megaphone_nif:http_request(Conn) of
        large -> megaphone_nif:http_request_large(Conn);
        Request -> Request
    end.

%% Its listener has ended, and the link is about to.
request(Conn, _Key, gone, _Request) ->
    megaphone_nif:abort(Conn, shutdown),
    closed;
request(Conn, Key, Service, {Method, Version, RawPath, Path, Query, Headers, Host, Lang, Length,
                             Data, KeepAlive, Upgrade, Peer}) ->
    Style = megaphone_http_answer:style(Method, Version, KeepAlive),
    case host(Host, Service) of
        {Name, Port} when is_list(Path), is_binary(RawPath) ->
            case takes(Method, Length) andalso megaphone_http_client:address(Peer, Headers) of
                false ->
                    bad_request(Conn, Style, Service);
                error ->
                    refuse(Conn, <<"Malformed X-Forwarded-For header">>, Style, Service);
                Ip ->
                    #{layout := Layout, opts := Opts} = Service,
                    Fields = {Method, Path, RawPath, Query, megaphone_http_client:auth(Headers),
                              Lang, Data, Ip, Name, Port, Opts, http, Headers, Length, gen_tcp,
                              megaphone_socket:socket(Conn)},
                    handled(Conn, Key, Service, Style, Upgrade, Fields,
                            megaphone_records:make_request(Layout, Fields))
            end;
        {_, _} ->
            bad_request(Conn, Style, Service);
        missing ->
            refuse(Conn, <<"Missing Host header">>, Style, Service);
        malformed ->
            refuse(Conn, <<"Malformed Host header">>, Style, Service)
    end.

host(undefined, _Service) ->
    missing;
host({Name, undefined}, Service) ->
    host({Name, ?HTTP_PORT}, Service);
host({Name, _Port} = Host, #{hosts := Hosts}) when is_map_key(Name, Hosts) ->
    Host;
host({Name, Port} = Host, _Service) ->
    case byte_size(Name) < ?NAME_MAX andalso is_prepared(Name) orelse jid:nameprep(Name) of
        true -> Host;
        error -> malformed;
        Prepared -> {Prepared, Port}
    end;
host(error, _Service) ->
    malformed.

%% Nameprep (RFC 3491) leaves these as they are.
is_prepared(<<C, Rest/binary>>)
  when C >= $a, C =< $z; C >= $0, C =< $9; C =:= $.; C =:= $- ->
    is_prepared(Rest);
is_prepared(Rest) ->
    Rest =:= <<>>.

%% Methods that ejabberd_http knows what to do with.
takes('GET', _) -> true;
takes('POST', Length) -> Length > 0;
takes('HEAD', _) -> true;
takes('OPTIONS', _) -> true;
takes('PUT', Length) -> Length > 0;
takes('DELETE', _) -> true;
takes(_, _) -> false.

bad_request(Conn, {_, _, _, Then} = Style, #{custom := Custom}) ->
    megaphone_http_answer:send(Conn, megaphone_http_answer:bad_request(Style, Custom), Then).

%% As ejabberd_http, which closes behind these.
refuse(Conn, Text, Style, #{custom := Custom}) ->
    megaphone_http_answer:send(Conn, megaphone_http_answer:text(400, Text, Style, Custom), close).

%%% handlers

handled(Conn, Key, #{handlers := Configured} = Service, Style, Upgrade, Fields, Request) ->
    Handlers = ejabberd_hooks:run_fold(http_request_handlers, Configured,
                                       [element(9, Fields), Request]),
    case find(Handlers, element(2, Fields)) of
        {Module, Opts, Local} ->
            try
                Result = call(Module, Opts, Local, Request,
                              {Conn, Key, Service, Style, Upgrade, Fields}),
                ejabberd_hooks:run(http_request_debug, [{Local, Request}]),
                reply(Conn, Result, Style, Service)
            catch
                Class:Reason:Stack ->
                    ?LOG_ERROR("handler ~ts of service ~ts crashed, connection ~ts, ~ts ~ts: ~ts",
                               [Module, maps:get(name, Service), id(Conn), element(1, Fields),
                                lists:join("/", ["" | element(2, Fields)]),
                                erl_error:format_exception(Class, Reason, Stack)]),
                    crashed(Conn, element(1, Fields))
            end;
        none ->
            reply(Conn, ejabberd_web:error(not_found), Style, Service)
    end.

%% The first one whose prefix the path has, and the rest of the path.
find([Handler | Handlers], Path) ->
    case rest(element(1, Handler), Path) of
        false -> find(Handlers, Path);
        Local when tuple_size(Handler) =:= 2 -> {element(2, Handler), [], Local};
        Local -> {element(2, Handler), element(3, Handler), Local}
    end;
find([], _Path) ->
    none.

rest([Part | Prefix], [Part | Path]) -> rest(Prefix, Path);
rest([], Path) -> Path;
rest(_, _) -> false.

%% `{done, Ended}': the answer is sent, or somebody else's duty. `{detached, Result}': it goes out
%% on a plain socket.
call(mod_bosh, _Opts, [], Request, {Conn, Key, #{bosh := #{} = Bosh}, Style, _, Fields})
  when element(1, Fields) =:= 'POST', element(7, Fields) =/= <<>> ->
    case megaphone_bosh:is_xml(element(13, Fields)) of
        true -> megaphone_bosh:request(Conn, Key, Style, Bosh, element(8, Fields), element(7, Fields));
        false -> mod_bosh:process([], Request)
    end;
call(ejabberd_http_ws, Opts, Local, Request, {Conn, _, _, _, true, Fields}) ->
    case megaphone_ws:upgrade(Conn, element(1, Fields), element(13, Fields), element(8, Fields),
                              element(11, Fields)) of
        {ok, _Session} -> {done, closed};
        closed -> {done, closed};
        not_upgrade -> ejabberd_http_ws:socket_handoff(Local, Request, Opts)
    end;
call(Module, Opts, Local, Request, {Conn, _, _, _, _, Fields}) ->
    case erlang:function_exported(Module, socket_handoff, 3) of
        true ->
            %% Which protocols it knows, it alone does.
            case lists:keymember('Upgrade', 1, element(13, Fields)) of
                true when Module =/= ejabberd_http_ws ->
                    _ = megaphone_nif:http_detach(Conn),
                    {detached, Module:socket_handoff(Local, Request, Opts)};
                _ ->
                    Module:socket_handoff(Local, Request, Opts)
            end;
        false ->
            Module:process(Local, Request)
    end.

reply(_Conn, {done, Ended}, _Style, _Service) ->
    Ended;
reply(Conn, {detached, Result}, Style, #{custom := Custom}) ->
    Socket = megaphone_socket:socket(Conn),
    _ = case megaphone_http_answer:make(Result, megaphone_http_answer:last(Style), Custom) of
            none -> ok;
            {file, _, _, _} -> ok;
            Answer -> gen_tcp:send(Socket, Answer)
        end,
    gen_tcp:close(Socket),
    closed;
reply(Conn, Result, {_, _, _, Then} = Style, #{custom := Custom}) ->
    case megaphone_http_answer:make(Result, Style, Custom) of
        none -> megaphone_http_answer:send(Conn, <<>>, Then);
        {file, Status, Headers, Name} -> megaphone_http_file:reply(Conn, {Status, Headers, Name}, Style);
        Answer -> megaphone_http_answer:send(Conn, Answer, Then)
    end.

%% Nobody can tell what of an answer is there already.
crashed(Conn, Method) ->
    Style = megaphone_http_answer:style(Method, {1, 1}, false),
    megaphone_http_answer:send(
      Conn, megaphone_http_answer:text(500, <<"The handler of this request has failed.\n">>, Style,
                                       {[{<<"Content-Type">>, <<"text/plain">>}], #{}}), close).

id(Conn) ->
    megaphone:format_connection_id(megaphone_socket:socket(Conn)).
