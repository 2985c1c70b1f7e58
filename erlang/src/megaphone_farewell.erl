%%% @doc How one connection ends in good order: with the words its protocol has for it.
%%%
%%% Who serves a connection, and what it is at, is seen from outside: the owner's initial call,
%%% what it stands in, and whom it monitors. No service module has to know of this, and without
%%% ejabberd every connection is of the last kind.
%%%
%%% | who | what |
%%% |---|---|
%%% | `xmpp_stream_in': a client or server on raw XMPP | it sends `system-shutdown' and closes (RFC 6120, 4.9.3.20) |
%%% | `ejabberd_http' in a WebSocket | `system-shutdown' and `<close/>' where it is XMPP (RFC 7395, 3.5), then close frame 1001 (RFC 6455, 7.4.1) |
%%% | `ejabberd_http' with a BOSH request held | the session ends, its answer says `system-shutdown' and `Connection: close' |
%%% | `ejabberd_http' with another request | the answer says `Connection: close', then as below |
%%% | `ejabberd_http' between requests, and anybody else | closed; what was sent is delivered |
%%%
%%% What `megaphone_http' serves is told the same: the NIF knows what such a connection is at.
-module(megaphone_farewell).

%% megaphone_drain
-export([say/2, cut/2]).

-export_type([said/0]).

%% `busy': nothing could be said yet, an HTTP request is under way. `{told, Sessions}': the owner
%% ends the connection, and the sessions are to be stopped after that.
-type said() :: busy | {told, [pid()]}.

%% An element of its own for each text frame (RFC 7395, 3.3).
-define(WS_ERROR,
        <<"<stream:error xmlns:stream='http://etherx.jabber.org/streams'>"
          "<system-shutdown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>">>).
-define(WS_CLOSE, <<"<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>">>).

%% @doc Takes the end of a connection a step further, from `busy' on, until it is `closed': over,
%% or so soon as what was sent is delivered. Blocks nobody.
-spec say(megaphone_nif:conn(), said()) -> said() | closed.
say(Conn, Said) ->
    case {facts(Conn), Said} of
        {#{state := State}, _} when State =:= closed; State =:= lingering ->
            stop(Said),
            closed;
        {#{front := Front}, _} when Front =/= websocket, Front =/= stream, Front =/= detached ->
            request(Front, Conn, Said);
        {#{owner := Owner} = Facts, busy} when is_pid(Owner) ->
            ok = megaphone_nif:set_draining(Conn),
            say(initial_call(Owner), Owner, Conn, Facts);
        {#{owner := Owner} = Facts, {told, _}} when is_pid(Owner) ->
            told(initial_call(Owner), Owner, Conn, Facts, Said);
        _ ->
            close(Conn)
    end.

%% @doc Closes a connection whose time is over; `false': it was over by itself.
-spec cut(megaphone_nif:conn(), said()) -> boolean().
cut(Conn, Said) ->
    #{state := State} = facts(Conn),
    megaphone_nif:close(Conn, shutdown),
    stop(Said),
    State =/= closed andalso State =/= lingering.

%% A session with stream management would wait for its client to come back here (XEP-0198, 5).
stop(busy) -> ok;
stop({told, Sessions}) -> lists:foreach(fun xmpp_stream_in:stop_async/1, Sessions).

%%% what the NIF serves

request(idle, Conn, _Said) ->
    close(Conn);
request({held, Token}, Conn, busy) ->
    ok = megaphone_nif:set_draining(Conn),
    case megaphone_bosh_responder:session(Token) of
        {ok, Session} when node(Session) =:= node() ->
            lists:foreach(fun end_stream/1, streams([Session])),
            {told, []};
        _ ->
            busy
    end;
request({held, _Token}, _Conn, Said) ->
    Said;
request(_UnderWay, Conn, Said) ->
    ok = megaphone_nif:set_draining(Conn),
    Said.

%%% one kind after the other

say(xmpp_stream_in, Owner, _Conn, _Facts) ->
    end_stream(Owner),
    {told, []};
say(ejabberd_http, Owner, Conn, Facts) ->
    http(at(Owner), monitored(Owner), Owner, Conn, Facts);
say(_Other, _Owner, Conn, _Facts) ->
    close(Conn).

%% What ejabberd_http_ws and others send to this process as well: it makes whole frames of them,
%% in this order, and behind the last one it closes.
http(websocket, Handlers, Owner, _Conn, _Facts) ->
    Xmpp = [Pid || Pid <- Handlers, initial_call(Pid) =:= ejabberd_http_ws],
    _ = [Owner ! {text, Text} || _ <- Xmpp, Text <- [?WS_ERROR, ?WS_CLOSE]],
    Owner ! shutdown,
    {told, streams(Xmpp)};
http(bosh, Handlers, _Owner, _Conn, _Facts) ->
    Sessions = [Pid || Pid <- Handlers, initial_call(Pid) =:= ejabberd_bosh],
    lists:foreach(fun end_stream/1, streams(Sessions)),
    {told, []};
http(between_requests, _Handlers, _Owner, Conn, #{queued := 0}) ->
    close(Conn);
http(_, _Handlers, _Owner, _Conn, _Facts) ->
    busy.

%% What is left of one that was told: an HTTP connection after the answer.
told(ejabberd_http, Owner, Conn, #{queued := 0}, Said) ->
    case at(Owner) of
        between_requests -> close(Conn);
        _ -> Said
    end;
told(_Other, _Owner, _Conn, _Facts, Said) ->
    Said.

%% What an ejabberd_http process is at; outermost calls come last.
at(Owner) ->
    case erlang:process_info(Owner, current_stacktrace) of
        {current_stacktrace, Stack} ->
            Calls = [{M, F} || {M, F, _, _} <- Stack],
            case {lists:keymember(ejabberd_websocket, 1, Calls),
                  lists:keymember(ejabberd_bosh, 1, Calls)} of
                {true, _} -> websocket;
                {_, true} -> bosh;
                _ -> between_requests(Calls)
            end;
        undefined ->
            dead
    end.

monitored(Owner) ->
    case erlang:process_info(Owner, monitors) of
        {monitors, Monitors} -> [Pid || {process, Pid} <- Monitors];
        undefined -> []
    end.

between_requests([{megaphone_socket, _} | Calls]) -> between_requests(Calls);
between_requests([{gen_tcp, _} | Calls]) -> between_requests(Calls);
between_requests([{ejabberd_http, receive_headers} | _]) -> between_requests;
between_requests(_) -> in_request.

%% As ejabberd_sm does it when a host goes down.
end_stream(Pid) ->
    xmpp_stream_in:send(Pid, xmpp:serr_system_shutdown()),
    xmpp_stream_in:stop_async(Pid).

%% Whoever serves the XMPP streams that these carry watches them.
streams(Carriers) ->
    [Pid || Carrier <- Carriers,
            {monitored_by, Watchers} <- [erlang:process_info(Carrier, monitored_by)],
            Pid <- Watchers, is_pid(Pid), initial_call(Pid) =:= xmpp_stream_in].

initial_call(Pid) when node(Pid) =:= node() ->
    case proc_lib:initial_call(Pid) of
        {Module, _, _} -> Module;
        false -> unknown
    end;
initial_call(_Pid) ->
    unknown.

close(Conn) ->
    megaphone_nif:close(Conn, shutdown),
    closed.

facts(Conn) ->
    maps:from_list(megaphone_nif:conn_info(Conn)).
