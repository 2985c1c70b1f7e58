%%% @doc From what a handler returns to the bytes of an answer: those that ejabberd_http would send.
-module(megaphone_http_answer).

%% megaphone_http_request, megaphone_http_file, megaphone_bosh, megaphone_bosh_responder
-export([send/3]).
%% megaphone_http_request
-export([style/3, last/1, make/3, bad_request/2, text/4]).
%% megaphone_http_file
-export([head/5]).
%% megaphone_bosh
-export([custom/2, lines/1, start/2]).

-export_type([style/0, headers/0]).

-type headers() :: [{binary(), iodata()} | html].
%% What of a request its answer depends on.
-type style() :: {Version :: binary(), Connection :: binary(), IsHead :: boolean(),
                  Then :: keep | close}.
-type custom() :: {[{binary(), binary()}], #{binary() => binary()}}.

-define(XHTML, <<"<?xml version='1.0'?>\n<!DOCTYPE html PUBLIC "
                 "\"-//W3C//DTD XHTML 1.0 Transitional//EN\" "
                 "\"http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd\">\n">>).
-define(HTML, <<"<!DOCTYPE html PUBLIC \"-//W3C//DTD XHTML 1.0 Transitional//EN\" "
                "\"http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd\">\n">>).

%% Data over this many bytes is copied on a dirty scheduler: a copy of 256 kB takes some 50 us.
-define(LARGE, 262_144).

%% @doc Sends an answer and ends the request, see `megaphone_nif:http_reply/3'.
-spec send(megaphone_nif:conn(), iodata(), keep | close) -> idle | next | closed.
send(Conn, Answer, Then) ->
    case iolist_size(Answer) of
        Size when Size > ?LARGE -> megaphone_nif:http_reply_large(Conn, Answer, Then);
        _ -> megaphone_nif:http_reply(Conn, Answer, Then)
    end.

-spec style(Method :: atom() | binary(), {1, 0 | 1}, KeepAlive :: boolean()) -> style().
style(Method, {1, 1}, true) -> {<<"HTTP/1.1 ">>, <<>>, Method =:= 'HEAD', keep};
style(Method, {1, 1}, false) -> {<<"HTTP/1.1 ">>, <<"Connection: close\r\n">>, Method =:= 'HEAD', close};
style(Method, _, true) -> {<<"HTTP/1.0 ">>, <<"Connection: keep-alive\r\n">>, Method =:= 'HEAD', keep};
style(Method, _, false) -> {<<"HTTP/1.0 ">>, <<"Connection: close\r\n">>, Method =:= 'HEAD', close}.

%% @doc The same, of an answer that nothing comes behind.
-spec last(style()) -> style().
last({Version, _, IsHead, _}) -> {Version, <<"Connection: close\r\n">>, IsHead, close}.

%% @doc The answer that a handler's result stands for; `none': the handler has sent it itself.
-spec make(term(), style(), custom()) ->
          iodata() | {file, Status :: 100..599, headers(), file:filename_all()} | none.
make({xmlel, _, _, _} = Page, Style, {Custom, _}) ->
    page(200, Custom, Page, Style);
make({Status, Headers, {xmlel, _, _, _} = Page}, Style, Custom) ->
    page(Status, custom(Headers, Custom), Page, Style);
make(Output, Style, {Custom, _}) when is_binary(Output); is_list(Output) ->
    text(200, <<>>, Custom, Output, Style);
make({Status, Headers, Output}, Style, Custom) when is_binary(Output); is_list(Output) ->
    text(Status, <<>>, custom(Headers, Custom), Output, Style);
make({Status, Headers, {file, Name}}, _Style, _Custom) ->
    {file, Status, Headers, Name};
make({Status, Reason, Headers, Output}, Style, Custom) when is_binary(Output); is_list(Output) ->
    text(Status, Reason, custom(Headers, Custom), Output, Style);
make(_Other, _Style, _Custom) ->
    none.

-spec bad_request(style(), custom()) -> iodata().
bad_request(Style, {Custom, _}) ->
    Title = {xmlel, <<"h1">>, [], [{xmlcdata, <<"400 Bad Request">>}]},
    page(400, Custom, ejabberd_web:make_xhtml([Title]), Style).

%% @doc An answer of a line of text.
-spec text(100..599, iodata(), style(), custom()) -> iodata().
text(Status, Text, Style, {Custom, _}) ->
    text(Status, <<>>, Custom, Text, Style).

text(Status, Reason, Headers, Text, {_, _, IsHead, _} = Style) ->
    Body = case IsHead of
               true -> <<>>;
               false -> Text
           end,
    [head(Status, Reason, Headers, iolist_size(Body), Style), Body].

page(Status, Headers, Page, {_, _, IsHead, _} = Style) ->
    Body = case IsHead of
               true -> <<>>;
               false -> [doctype(Headers), fxml:element_to_binary(Page)]
           end,
    [head(Status, <<>>, Headers, iolist_size(Body), Style), Body].

doctype(Headers) ->
    case lists:member(html, Headers) of
        true -> ?HTML;
        false -> ?XHTML
    end.

%% @doc A handler's headers with those that the administrator wants in all answers.
-spec custom(headers(), custom()) -> headers().
custom([{_, _}] = Headers, {[], _}) ->
    Headers;
custom([], {[], _}) ->
    [];
custom(Headers, {_, Custom}) ->
    %% ejabberd_http sorts them in this way, whether there are custom ones or not.
    case lists:member(html, Headers) of
        true -> [html | merge([Header || {_, _} = Header <- Headers], Custom)];
        false -> merge(Headers, Custom)
    end.

merge(Headers, Custom) ->
    maps:to_list(maps:merge(maps:from_list(Headers), Custom)).

%% @doc All up to the body, which has so many bytes.
-spec head(100..599, Reason :: iodata(), headers(), non_neg_integer(), style()) -> iodata().
head(Status, Reason, Headers, Length, {Version, Connection, _, _}) ->
    Type = case lists:keymember(<<"Content-Type">>, 1, Headers) of
               true -> <<"Content-Length: ">>;
               false -> <<"Content-Type: text/html; charset=utf-8\r\nContent-Length: ">>
           end,
    [Version, start(Status, Reason), Connection, Type, integer_to_binary(Length), <<"\r\n">>,
     lines(Headers), <<"\r\n">>].

-spec lines(headers()) -> iodata().
lines([{Name, Value} | Headers]) -> [Name, <<": ">>, Value, <<"\r\n">> | lines(Headers)];
lines([html | Headers]) -> lines(Headers);
lines([]) -> [].

%% @doc The first line, from the status on.
-spec start(100..599, Reason :: iodata()) -> iodata().
start(200, <<>>) -> <<"200 OK\r\n">>;
start(Status, <<>>) -> [integer_to_binary(Status), $\s, phrase(Status), <<"\r\n">>];
start(Status, Reason) -> [integer_to_binary(Status), $\s, Reason, <<"\r\n">>].

%% ejabberd_http's words, the space of 101 too.
phrase(100) -> <<"Continue">>;
phrase(101) -> <<"Switching Protocols ">>;
phrase(201) -> <<"Created">>;
phrase(202) -> <<"Accepted">>;
phrase(203) -> <<"Non-Authoritative Information">>;
phrase(204) -> <<"No Content">>;
phrase(205) -> <<"Reset Content">>;
phrase(206) -> <<"Partial Content">>;
phrase(300) -> <<"Multiple Choices">>;
phrase(301) -> <<"Moved Permanently">>;
phrase(302) -> <<"Found">>;
phrase(303) -> <<"See Other">>;
phrase(304) -> <<"Not Modified">>;
phrase(305) -> <<"Use Proxy">>;
phrase(306) -> <<"(Unused)">>;
phrase(307) -> <<"Temporary Redirect">>;
phrase(400) -> <<"Bad Request">>;
phrase(401) -> <<"Unauthorized">>;
phrase(402) -> <<"Payment Required">>;
phrase(403) -> <<"Forbidden">>;
phrase(404) -> <<"Not Found">>;
phrase(405) -> <<"Method Not Allowed">>;
phrase(406) -> <<"Not Acceptable">>;
phrase(407) -> <<"Proxy Authentication Required">>;
phrase(408) -> <<"Request Timeout">>;
phrase(409) -> <<"Conflict">>;
phrase(410) -> <<"Gone">>;
phrase(411) -> <<"Length Required">>;
phrase(412) -> <<"Precondition Failed">>;
phrase(413) -> <<"Request Entity Too Large">>;
phrase(414) -> <<"Request-URI Too Long">>;
phrase(415) -> <<"Unsupported Media Type">>;
phrase(416) -> <<"Requested Range Not Satisfiable">>;
phrase(417) -> <<"Expectation Failed">>;
phrase(500) -> <<"Internal Server Error">>;
phrase(501) -> <<"Not Implemented">>;
phrase(502) -> <<"Bad Gateway">>;
phrase(503) -> <<"Service Unavailable">>;
phrase(504) -> <<"Gateway Timeout">>;
phrase(505) -> <<"HTTP Version Not Supported">>;
phrase(_) -> <<>>.
