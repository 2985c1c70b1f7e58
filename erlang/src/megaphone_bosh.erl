%%% @doc A BOSH request (XEP-0124, XEP-0206), from its body to the session and back.
%%%
%%% The session is ejabberd's own process, as is what it answers. What is not there is a process
%%% that waits: {@link megaphone_bosh_responder} has the answer sent, whoever's turn it is.
-module(megaphone_bosh).

%% megaphone_http_service
-export([config/1]).
%% megaphone_http_request
-export([is_xml/1, request/6]).
%% megaphone_bosh_responder
-export([answer/3]).

-export_type([config/0]).

-type config() :: #{%% Bytes of a body, as c2s listeners bound a stanza.
                    max := pos_integer() | infinity,
                    %% What stands behind `Content-Length' in each answer.
                    lines := binary()}.

%% As mod_bosh has them.
-define(HEADERS, [{<<"Content-Type">>, <<"text/xml; charset=utf-8">>},
                  {<<"Access-Control-Allow-Origin">>, <<"*">>},
                  {<<"Access-Control-Allow-Headers">>, <<"Content-Type">>}]).

%% @doc `false': sessions of this ejabberd are not as we know them, or it has none.
-spec config({list(), #{binary() => binary()}}) -> config() | false.
config(Custom) ->
    case megaphone_records:bosh() of
        {ok, Layout} ->
            persistent_term:put(megaphone_bosh_layout, Layout),
            Headers = megaphone_http_answer:custom(?HEADERS, Custom),
            #{max => proplists:get_value(max_stanza_size, ejabberd_c2s_config:get_c2s_limits(),
                                         infinity),
              lines => iolist_to_binary(["\r\n", megaphone_http_answer:lines(Headers), "\r\n"])};
        error ->
            false
    end.

%% @doc Not JSON, which mod_bosh had once.
-spec is_xml([{atom() | binary(), binary()}]) -> boolean().
is_xml(Headers) ->
    case lists:keyfind('Content-Type', 1, Headers) of
        {_, Type} -> binary:match(Type, <<"json">>) =:= nomatch;
        false -> true
    end.

%% @doc Gives a request to its session. The answer is sent by whoever has it.
-spec request(megaphone_nif:conn(), megaphone_http_service:key(), megaphone_http_answer:style(),
              config(), {inet:ip_address(), inet:port_number()}, binary()) ->
          {done, idle | next | closed}.
request(Conn, _Key, Style, #{max := Max} = Config, _Ip, Data) when byte_size(Data) > Max ->
    done(Conn, error_answer(403, <<"Request Too Large">>, Style, Config), Style);
request(Conn, Key, Style, Config, Ip, Data) ->
    case megaphone_bosh_body:decode(Data) of
        {error, Reason} ->
            done(Conn, error_answer(400, Reason, Style, Config), Style);
        {ok, Body} ->
            case session(Body, Ip) of
                {ok, Session} ->
                    hold(Conn, Key, Style, Session, Body);
                {error, Refusal} ->
                    done(Conn, answer(Refusal, Style, Config), Style)
            end
    end.

done(Conn, Answer, {_, _, _, Then}) ->
    {done, megaphone_http_answer:send(Conn, Answer, Then)}.

session(Body, Ip) ->
    case {megaphone_bosh_body:attribute(sid, Body), megaphone_bosh_body:attribute(to, Body)} of
        {<<>>, <<>>} ->
            {error, refusal(<<"Missing 'to' attribute">>, <<"improper-addressing">>)};
        {<<>>, _} ->
            case ejabberd_bosh:start(Body, Ip, str:sha(p1_rand:get_string())) of
                {ok, _} = Started ->
                    Started;
                _ ->
                    {error, refusal(<<"Failed to start BOSH session">>, <<"internal-server-error">>)}
            end;
        {Sid, _} ->
            case mod_bosh:find_session(Sid) of
                {ok, _} = Found -> Found;
                error -> {error, refusal(<<"Session ID mismatch">>, <<"item-not-found">>)}
            end
    end.

refusal(Reason, Condition) ->
    megaphone_bosh_body:terminate(Reason, Condition).

hold(Conn, Key, Style, Session, Body) ->
    {Responder, Token} = megaphone_bosh_responder:token(),
    case megaphone_nif:http_hold(Conn, Responder, Token) of
        ok ->
            megaphone_bosh_responder:hold(Responder, Token, Conn, Session, {Key, Style}, Body),
            {done, idle};
        {error, closed} ->
            %% What it had to say counts: it was `terminate', most often.
            megaphone_bosh_responder:tell(Session, Token, Body),
            {done, closed}
    end.

%% @doc The bytes of an answer that is a body.
-spec answer(megaphone_bosh_body:t(), megaphone_http_answer:style(), config()) -> iodata().
answer(Body, Style, Config) ->
    Xml = megaphone_bosh_body:encode(Body),
    [head(200, megaphone_bosh_body:reason(Body), iolist_size(Xml), Style, Config), Xml].

error_answer(Status, Reason, Style, Config) ->
    head(Status, Reason, 0, Style, Config).

head(Status, Reason, Length, {Version, Connection, _, _}, #{lines := Lines}) ->
    [Version, megaphone_http_answer:start(Status, Reason), Connection, <<"Content-Length: ">>,
     integer_to_binary(Length), Lines].
