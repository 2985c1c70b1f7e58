%% HTTP terms, held against erlang:decode_packet/3: the same for all that a conforming
%% client sends (RFC 9110, RFC 9112), and refused where docs/http.md says so.
-module(http_SUITE).
-compile([export_all, nowarn_export_all]).
-include_lib("stdlib/include/assert.hrl").
-import(proper_types, [binary/0, byte/0, list/1, non_empty/1, oneof/1, range/2]).
%% Debian's erlang-proper has no proper.hrl; these are the three macros of it used here.
-define(FORALL(X, Type, Property), proper:forall(Type, fun(X) -> Property end)).
-define(LET(X, Type, Made), proper_types:bind(Type, fun(X) -> Made end, false)).
-define(SUCHTHAT(X, Type, Condition),
        proper_types:add_constraint(Type, fun(X) -> Condition end, true)).

-define(TYPES, [http, http_bin]).
-define(HEADER_TYPES, [httph, httph_bin]).

suite() -> [{timetrap, {seconds, 120}}].

all() ->
    [known_headers, known_methods, targets, field_names, values, empty_line,
     line_ends_need_the_next_byte, every_prefix_needs_more, request_then_rest,
     request_lines_property, header_lines_property, heads_property, prefixes_property,
     any_bytes_property, refused_request_lines, refused_headers,
     refused_framing, lines_at_the_limit,
     head_at_once, arguments].

init_per_suite(Config) ->
    ok = megaphone_nif:load(),
    Config.

end_per_suite(_Config) -> ok.

%% ---- by hand ----

known_headers(_) ->
    [same(Type, [Case(Name), ": ", value_of(Name), "\r\n\r\n"])
     || Name <- known(), Case <- cases(), Type <- ?HEADER_TYPES],
    %% As long as a known one, and not it.
    [same(httph_bin, [lists:droplast(Name), "q: v\r\n\r\n"]) || Name <- known()],
    [same(httph_bin, [Name, "s: v\r\n\r\n"]) || Name <- known()].

known_methods(_) ->
    [same(Type, [Case(Method), " / HTTP/1.1\r\n"])
     || Method <- ["OPTIONS", "GET", "HEAD", "POST", "PUT", "DELETE", "TRACE", "PATCH",
                   "CONNECT", "PROPFIND", "M-SEARCH", "GETX", "GE", "!#$%&'*+-.^_`|~"],
        Case <- cases(), Type <- ?TYPES].

%% RFC 9112, section 3.2: origin-form, absolute-form, authority-form, asterisk-form.
targets(_) ->
    [same(Type, ["GET ", Target, " HTTP/1.", Minor, "\r\n"])
     || Target <- ["/", "/a", "/a/b?c=d&e", "/%20", "//h/x", "/?", "/a;b=1,2", "/~u/@:!$&'()*+=",
                   "*", "http://h/p", "http://h", "http://h:80/p", "http://h:8080",
                   "https://h:443/", "HTTP://H/x", "https://example.org/a?b",
                   "ftp://h/x", "h:80", "example.org:443", "mailto:a"],
        Minor <- ["0", "1"], Type <- ?TYPES].

field_names(_) ->
    [same(Type, [Name, ": x\r\n\r\n"])
     || Name <- ["a", "A", "foo", "FOO-BAR", "aBC--d", "1a-2b", "-a", "a-", "a_b-c.d",
                 "x-abcdefghijklmnopqrstuvwxyz", "sec-websocket-key", "SEC-CH-UA",
                 "!#$%&'*+-.^_`|~"],
        Type <- ?HEADER_TYPES],
    [same(httph_bin, [lists:duplicate(N, Char), ": x\r\n\r\n"])
     || N <- lists:seq(1, 100), Char <- "aB"].

values(_) ->
    [same(Type, ["A:", Value, "\r\n\r\n"])
     || Value <- ["", " ", "\t", "b", " b", "\tb", "  \t b", " b ", " b\t ", " a  b", " a\tb",
                  " \"q\" , b", " b:c", " ä", <<" ", 16#80, 16#ff>>, " ;,()<>@/[]?={}"],
        Type <- ?HEADER_TYPES].

%% RFC 9112, section 2.2: an empty line before a request is skipped. decode_packet makes
%% a http_error of it.
empty_line(_) ->
    [?assertMatch({ok, {http_request, 'GET', _, {1, 1}}, <<>>},
                  megaphone_nif:decode_packet(Type, <<"\r\nGET / HTTP/1.1\r\n">>))
     || Type <- ?TYPES],
    [?assertMatch({ok, {http_error, _}, _},
                  megaphone_nif:decode_packet(Type, <<"\r\n\r\nGET / HTTP/1.1\r\n">>))
     || Type <- ?TYPES],
    [?assertEqual({more, undefined}, megaphone_nif:decode_packet(Type, <<"\r\n">>))
     || Type <- ?TYPES],
    [same(Type, Bytes) || Type <- ?HEADER_TYPES, Bytes <- ["\r\n", "\r\nrest"]].

%% A header line may go on in the next one, so it ends where that begins.
line_ends_need_the_next_byte(_) ->
    [begin
         ?assertEqual({more, undefined}, megaphone_nif:decode_packet(Type, Line)),
         same(Type, Line),
         same(Type, <<Line/binary, "B">>)
     end || Type <- ?HEADER_TYPES, Line <- [<<"A: b\r\n">>, <<"Host: x\r\n">>]].

every_prefix_needs_more(_) ->
    [[begin
          Prefix = binary:part(Line, 0, Size),
          ?assertEqual({Prefix, {more, undefined}},
                       {Prefix, megaphone_nif:decode_packet(Type, Prefix)}),
          same(Type, Prefix)
      end || Size <- lists:seq(0, byte_size(Line) - 1)]
     || {Type, Line} <- [{http, <<"GET /a HTTP/1.1\r\n">>}, {http_bin, <<"POST * HTTP/1.0\r\n">>},
                         {httph, <<"Host: x\r\nB">>}, {httph_bin, <<"foo-bar:\r\n\r">>},
                         {httph_bin, <<"\r\n">>}]].

request_then_rest(_) ->
    ?assertEqual({ok, {http_request, 'GET', {abs_path, <<"/">>}, {1, 1}}, <<"Host: x\r\n">>},
                 megaphone_nif:decode_packet(http_bin, <<"GET / HTTP/1.1\r\nHost: x\r\n">>)).

%% ---- generated ----

request_lines_property(_) ->
    check(?FORALL({Type, Line, Rest}, {oneof(?TYPES), request_line(), binary()},
                  agree(Type, [Line, Rest]))).

header_lines_property(_) ->
    check(?FORALL({Type, Line, Rest}, {oneof(?HEADER_TYPES), header_line(), rest()},
                  agree(Type, [Line, Rest]))).

%% A whole head, item after item, and what follows it.
heads_property(_) ->
    check(?FORALL({{First, Next}, Line, Headers, Body},
                  {oneof([{http, httph}, {http_bin, httph_bin}]),
                   request_line(), list(header_line()), binary()},
                  agree_items(First, Next,
                              iolist_to_binary([Line, Headers, "\r\n", Body])))).

prefixes_property(_) ->
    check(?FORALL({Type, Line}, oneof([{http_bin, request_line()}, {httph_bin, header_line()}]),
                  begin
                      Bytes = iolist_to_binary(Line),
                      lists:all(fun(Size) ->
                                        Prefix = binary:part(Bytes, 0, Size),
                                        {more, undefined} =:=
                                            megaphone_nif:decode_packet(Type, Prefix)
                                end, lists:seq(0, byte_size(Bytes) - 1))
                  end)).

%% Never an exception; and what we take, decode_packet takes for the same.
any_bytes_property(_) ->
    check(?FORALL({Type, Bytes}, {oneof(?TYPES ++ ?HEADER_TYPES), garbage()},
                  begin
                      Input = iolist_to_binary(Bytes),
                      case megaphone_nif:decode_packet(Type, Input) of
                          {more, undefined} -> true;
                          {ok, {http_error, _}, _} -> true;
                          Taken -> Taken =:= erlang:decode_packet(Type, without_empty_line(Type, Input), [])
                      end
                  end)).

%% ---- refused: docs/http.md, "Refused" ----

refused_request_lines(_) ->
    refused(http_bin,
            ["GET / HTTP/9.9\r\n", "GET / HTTP/0.9\r\n", "GET / HTTP/1.2\r\n",
             "GET / HTTP/2.0\r\n", "GET / HTTP/1.10\r\n", "GET / HTTP/01.1\r\n",
             "GET /\r\n", "hello world\r\n",
             "GET / HTTP/1.1\n", "GET / HTTP/1.1 \r\n", "GET / HTTP/1.1 x\r\n",
             "GET\t/ HTTP/1.1\r\n", "GET  / HTTP/1.1\r\n", "GET /\tHTTP/1.1\r\n",
             "GET /\0 HTTP/1.1\r\n", "GET /\r HTTP/1.1\r\n", "GET /\x7f HTTP/1.1\r\n",
             <<"GET /", 16#80, " HTTP/1.1\r\n">>, "HTTP/1.1 200 OK\r\n"]),
    refused_by_both(http_bin,
                    ["G(T / HTTP/1.1\r\n", "G\0T / HTTP/1.1\r\n", " GET / HTTP/1.1\r\n",
                     "\nGET / HTTP/1.1\r\n", "GET / http/1.1\r\n", "GET / HTTP/1\r\n"]).

refused_headers(_) ->
    refused(httph_bin,
            ["A: b\r\n c\r\nB", "A: b\r\n\tc\r\nB", "A: b\nB", "\n", "A: b\rc\r\nB",
             "A: b\0c\r\nB", "A: b\x7f\r\nB", "A: \x01\r\nB", "A:b\x0bc\r\nB", ": b\r\nB"]),
    refused_by_both(httph_bin,
                    ["A : b\r\nB", "A\t: b\r\nB", "A b: c\r\nB", "no colon\r\nB",
                     " A: b\r\nB", "(A): b\r\nB", "A\0: b\r\nB", <<16#c4, ": b\r\nB">>]).

%% Where a body ends must be clear: RFC 9112, section 6.
refused_framing(_) ->
    refused(httph_bin,
            [["Content-Length: ", Length, "\r\nB"]
             || Length <- ["+5", "-5", "0x5", "5,5", "5, 5", "5 5", "", "99999999999999999999",
                           "5;", "0.5", "five"]]),
    refused(httph_bin,
            [["Transfer-Encoding: ", Coding, "\r\nB"]
             || Coding <- ["gzip, chunked", "chunked, chunked", "chunked, identity", "xchunked",
                           "chunkedx", "chunked\v", "identity", "\"chunked\"", "chunked;a=b", ""]]),
    [same(httph_bin, Line)
     || Line <- ["Content-Length: 0\r\nB", "content-length:5\r\nB", "Content-Length: 005 \r\nB",
                 "Transfer-Encoding: chunked\r\nB", "transfer-encoding:CHUNKED\t\r\nB"]].

%% The limits of docs/http.md: 8,192 bytes of target, 16,384 of head.
lines_at_the_limit(_) ->
    Get = fun(Size) -> ["GET /", binary:copy(<<"x">>, Size - 1), " HTTP/1.1\r\n"] end,
    same(http_bin, Get(8192)),
    refused(http_bin, [Get(8193)]),
    Header = fun(Size) -> ["A: ", binary:copy(<<"x">>, Size), "\r\nB"] end,
    same(httph_bin, Header(8000)),
    refused(httph_bin, [Header(16385)]),
    %% And none is waited for without end.
    [?assertMatch({_, {ok, {http_error, _}, _}},
                  {Type, megaphone_nif:decode_packet(
                           Type, iolist_to_binary([Start, binary:copy(<<"x">>, 20000)]))})
     || {Type, Start} <- [{http, "GET /"}, {http_bin, ""}, {httph, "A: "}, {httph_bin, ""}]].

%% The same head in one call.
head_at_once(_) ->
    Head = <<"GET /a HTTP/1.1\r\nHost: x\r\nfoo: y\r\n\r\n">>,
    ?assertEqual({ok, [{http_request, 'GET', {abs_path, <<"/a">>}, {1, 1}},
                       {http_header, 14, 'Host', <<"Host">>, <<"x">>},
                       {http_header, 0, <<"Foo">>, <<"foo">>, <<"y">>}], <<"rest">>},
                 megaphone_nif:decode_head(http_bin, <<Head/binary, "rest">>)),
    [?assertEqual(more, megaphone_nif:decode_head(http_bin, binary:part(Head, 0, Size)))
     || Size <- lists:seq(0, byte_size(Head) - 1)],
    ?assertMatch({error, {http_error, _}},
                 megaphone_nif:decode_head(http_bin, <<"GET / HTTP/1.1\r\nA : b\r\n\r\n">>)).

arguments(_) ->
    [?assertError(badarg, megaphone_nif:decode_packet(Type, Bytes))
     || {Type, Bytes} <- [{line, <<"a\n">>}, {http, "GET"}, {http, 1}, {"http", <<>>}]].

%% ---- helpers ----

%% Ours is decode_packet's answer.
same(Type, Data) ->
    Bytes = iolist_to_binary(Data),
    ?assertEqual({Type, Bytes, erlang:decode_packet(Type, Bytes, [])},
                 {Type, Bytes, megaphone_nif:decode_packet(Type, Bytes)}).

%% For properties: PropEr 1.2 does not live through an exception on OTP 25.
agree(Type, Data) ->
    Bytes = iolist_to_binary(Data),
    megaphone_nif:decode_packet(Type, Bytes) =:= erlang:decode_packet(Type, Bytes, []).

agree_items(Type, Next, Bytes) ->
    agree(Type, Bytes) andalso
        case erlang:decode_packet(Type, Bytes, []) of
            {ok, http_eoh, _} -> true;
            {ok, _, Rest} -> agree_items(Next, Next, Rest)
        end.

%% decode_packet takes it; we do not, and say which line it was.
refused(Type, Lines) ->
    [begin
         Bytes = iolist_to_binary(Line),
         {ok, Item, _} = erlang:decode_packet(Type, Bytes, []),
         ?assertNotMatch({_, {http_error, _}}, {Bytes, Item}),
         {ok, {http_error, Wrong}, _} = Ours = megaphone_nif:decode_packet(Type, Bytes),
         ?assert(is_binary(Wrong) andalso byte_size(Wrong) =< 1024, {Bytes, Ours})
     end || Line <- Lines].

refused_by_both(Type, Lines) ->
    [begin
         Bytes = iolist_to_binary(Line),
         ?assertMatch({_, {ok, {http_error, _}, _}},
                      {Bytes, megaphone_nif:decode_packet(Type, Bytes)}),
         ?assertMatch({_, {ok, {http_error, _}, _}},
                      {Bytes, erlang:decode_packet(Type, Bytes, [])})
     end || Line <- Lines].

without_empty_line(Type, <<"\r\n", Rest/binary>>) when Type =:= http; Type =:= http_bin -> Rest;
without_empty_line(_, Bytes) -> Bytes.

check(Property) ->
    case proper:quickcheck(Property, [long_result, quiet, {numtests, 2000}, {max_size, 60}]) of
        true -> ok;
        Counterexample -> ct:fail({counterexample, Counterexample})
    end.

cases() ->
    [fun(Name) -> Name end, fun string:lowercase/1, fun string:uppercase/1, fun alternate/1].

alternate(Name) -> alternate(string:lowercase(Name), true).
alternate([], _) -> [];
alternate([C | Rest], true) when C >= $a, C =< $z -> [C - 32 | alternate(Rest, false)];
alternate([C | Rest], _) -> [C | alternate(Rest, true)].

%% erts/emulator/beam/packet_parser.c, http_hdr_strings
known() ->
    ["Cache-Control", "Connection", "Date", "Pragma", "Transfer-Encoding", "Upgrade", "Via",
     "Accept", "Accept-Charset", "Accept-Encoding", "Accept-Language", "Authorization", "From",
     "Host", "If-Modified-Since", "If-Match", "If-None-Match", "If-Range",
     "If-Unmodified-Since", "Max-Forwards", "Proxy-Authorization", "Range", "Referer",
     "User-Agent", "Age", "Location", "Proxy-Authenticate", "Public", "Retry-After", "Server",
     "Vary", "Warning", "Www-Authenticate", "Allow", "Content-Base", "Content-Encoding",
     "Content-Language", "Content-Length", "Content-Location", "Content-Md5", "Content-Range",
     "Content-Type", "Etag", "Expires", "Last-Modified", "Accept-Ranges", "Set-Cookie",
     "Set-Cookie2", "X-Forwarded-For", "Cookie", "Keep-Alive", "Proxy-Connection"].

%% Two headers may not have any value.
value_of(Name) -> value_of(Name, "some value").

value_of(Name, Other) ->
    case string:lowercase(Name) of
        "content-length" -> "17";
        "transfer-encoding" -> "chunked";
        _ -> Other
    end.

%% ---- generators ----

request_line() ->
    ?LET({Method, Target, Minor}, {method(), target(), oneof("01")},
         [Method, " ", Target, " HTTP/1.", Minor, "\r\n"]).

method() ->
    oneof(["GET", "POST", "OPTIONS", "HEAD", "PUT", "DELETE", "TRACE", token()]).

target() ->
    oneof(["*", origin(), ?LET({S, H, P, O}, {scheme(), host(), port(), oneof(["", origin()])},
                               [S, "://", H, P, O])]).

scheme() -> oneof(["http", "https", "HTTP", "ftp", "coap+tcp"]).
host() -> non_empty(list(oneof([range($a, $z), range($A, $Z), range($0, $9), $-, $.]))).
port() -> oneof(["", ?LET(P, range(1, 65535), [":", integer_to_list(P)])]).
origin() -> ?LET(Path, list(oneof([range($a, $z), range($0, $9)] ++ "/?&=%.-_~!$'()*+,;:@")),
                 [$/ | Path]).

header_line() ->
    ?LET({Name, Before, Value, After}, {name(), spaces(), value(), spaces()},
         [Name, ":", Before, value_of(Name, Value), After, "\r\n"]).

name() ->
    oneof([token(), ?LET({Name, Case}, {oneof(known()), oneof(cases())}, Case(Name))]).

%% RFC 9110, section 5.6.2
token() ->
    non_empty(list(oneof([range($a, $z), range($A, $Z), range($0, $9)] ++ "!#$%&'*+-.^_`|~"))).

spaces() -> list(oneof(" \t")).

%% RFC 9110, section 5.5: inside a value spaces and tabs are allowed.
value() ->
    oneof(["", ?LET({First, Middle, Last}, {visible(), list(oneof([visible(), $\s, $\t])), visible()},
                    [First, Middle, Last])]).

visible() -> oneof([range(16#21, 16#7e), range(16#80, 16#ff)]).

%% What may follow a header line: not the space that would fold it.
rest() -> ?SUCHTHAT(Rest, non_empty(binary()), binary:first(Rest) =/= $\s
                    andalso binary:first(Rest) =/= $\t).

garbage() ->
    list(oneof([byte(), " ", "\r\n", "\r", "\n", ":", "/", "GET", "HTTP/1.1", "Host",
                "GET / HTTP/1.1\r\n", "A: b\r\n"])).
