%% HTTP that nobody should send, over a link: docs/http.md's refusals that need more than
%% one line to be seen, its limits, and that no other connection notices.
-module(link_http_SUITE).
-compile([export_all, nowarn_export_all]).
-include_lib("stdlib/include/assert.hrl").

-import(link_case, [peer/1, open/3, undisturbed/1]).

-define(TIMEOUT, 10000).
-define(GET, "GET / HTTP/1.1\r\n").

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [two_lengths, length_and_chunked, chunked_in_http_1_0, two_encodings, folded,
     bare_cr_and_lf, nul, space_before_colon,
     header_flood, header_limit, head_limit, endless_line, endless_target, never_ends,
     never_ends_active, nothing_after_an_error, nothing_after_an_error_active,
     one_empty_line, pipelined_after_a_body, smuggled_request_is_not_seen,
     recv_and_receive_packet_refuse, body_over_the_limit, chunks].

init_per_suite(Config) ->
    {ok, _} = application:ensure_all_started(megaphone),
    Config.

end_per_suite(_Config) -> ok.

init_per_testcase(_, Config) -> link_case:start(Config).
end_per_testcase(_, Config) -> link_case:stop(Config).

%% ---- refused ----

two_lengths(Config) ->
    [refused(Config, [?GET, "Content-Length: 5\r\nContent-Length: ", Second, "\r\n\r\nhello"],
             2, ["Content-Length: ", Second, "\r\n"])
     || Second <- ["5", "6", "0"]].

length_and_chunked(Config) ->
    refused(Config, [?GET, "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"],
            2, "Transfer-Encoding: chunked\r\n"),
    refused(Config, [?GET, "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"],
            2, "Content-Length: 5\r\n").

chunked_in_http_1_0(Config) ->
    refused(Config, ["POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"],
            1, "Transfer-Encoding: chunked\r\n").

two_encodings(Config) ->
    refused(Config, [?GET, "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"],
            2, "Transfer-Encoding: chunked\r\n").

folded(Config) ->
    refused(Config, [?GET, "A: b\r\n c\r\n\r\n"], 1, "A: b\r\n"),
    refused(Config, [?GET, "Host: x\r\nA: b\r\n\tc\r\n\r\n"], 2, "A: b\r\n").

bare_cr_and_lf(Config) ->
    refused(Config, ["GET / HTTP/1.1\nHost: x\n\n"], 0, "GET / HTTP/1.1\n"),
    refused(Config, [?GET, "Host: x\nA: b\r\n\r\n"], 1, "Host: x\n"),
    refused(Config, [?GET, "A: b\rC: d\r\n\r\n"], 1, "A: b\rC: d\r\n"),
    refused(Config, [?GET, "A: b\r\n\n"], 2, "\n").

nul(Config) ->
    refused(Config, [?GET, "A: b\0c\r\n\r\n"], 1, "A: b\0c\r\n"),
    refused(Config, ["GET /\0 HTTP/1.1\r\n\r\n"], 0, "GET /\0 HTTP/1.1\r\n").

space_before_colon(Config) ->
    refused(Config, [?GET, "Content-Length : 5\r\n\r\n"], 1, "Content-Length : 5\r\n").

%% ---- limits ----

header_flood(Config) ->
    {Peer, Id, S} = http(Config),
    Flood = [["X-", integer_to_list(N), ": y\r\n"] || N <- lists:seq(1, 5000)],
    ok = link_peer:send(Peer, Id, [?GET, Flood, "\r\n"]),
    {Items, {http_error, _}} = until_error(S),
    ?assert(length(Items) =< 101),
    small(S),
    undisturbed(Config).

header_limit(Config) ->
    Headers = fun(N) -> [["X: ", integer_to_list(I), "\r\n"] || I <- lists:seq(1, N)] end,
    {Peer, Id, S} = http(Config),
    ok = link_peer:send(Peer, Id, [?GET, Headers(100), "\r\n"]),
    Items = [item(S) || _ <- lists:seq(1, 102)],
    ?assertEqual(http_eoh, lists:last(Items)),
    {Peer2, Id2, S2} = http(Config),
    ok = link_peer:send(Peer2, Id2, [?GET, Headers(101), "\r\n"]),
    {Before, {http_error, Line}} = until_error(S2),
    ?assertEqual({101, <<"X: 101\r\n">>}, {length(Before), Line}).

head_limit(Config) ->
    Head = fun(Size) ->
                   Line = ["A: ", binary:copy(<<"x">>, 7995), "\r\n"],
                   Start = iolist_size([?GET, Line, "\r\n"]),
                   [?GET, Line, "B: ", binary:copy(<<"y">>, Size - Start - 5), "\r\n\r\n"]
           end,
    16384 = iolist_size(Head(16384)),
    {Peer, Id, S} = http(Config),
    ok = link_peer:send(Peer, Id, Head(16384)),
    ?assertMatch([{http_request, _, _, _}, {http_header, _, _, _, _}, {http_header, _, _, _, _},
                  http_eoh], [item(S) || _ <- lists:seq(1, 4)]),
    {Peer2, Id2, S2} = http(Config),
    ok = link_peer:send(Peer2, Id2, Head(16385)),
    {_, {http_error, _}} = until_error(S2),
    small(S2).

endless_line(Config) ->
    {Peer, Id, S} = http(Config),
    ok = link_peer:send(Peer, Id, [?GET, "A: ", binary:copy(<<"x">>, 200000)]),
    {[_], {http_error, Line}} = until_error(S),
    ?assert(byte_size(Line) =< 1024),
    small(S),
    undisturbed(Config).

endless_target(Config) ->
    {Peer, Id, S} = http(Config),
    ok = link_peer:send(Peer, Id, ["GET /", binary:copy(<<"x">>, 200000)]),
    {[], {http_error, <<"GET /xxx", _/binary>> = Line}} = until_error(S),
    ?assert(byte_size(Line) =< 1024),
    undisturbed(Config).

%% Byte after byte for ever: the head's limit ends it, and what it keeps until then is
%% bounded. (How long that may take is the service's to say, by recv's time-out.)
never_ends(Config) ->
    {Peer, Id, S} = http(Config),
    ok = link_peer:send(Peer, Id, ?GET),
    {http_request, _, _, _} = item(S),
    ?assertEqual({error, timeout}, gen_tcp:recv(S, 0, 5)),
    [begin
         ok = link_peer:send(Peer, Id, "a"),
         ?assertEqual({error, timeout}, gen_tcp:recv(S, 0, 0))
     end || _ <- lists:seq(1, 200)],
    ok = link_peer:send(Peer, Id, binary:copy(<<"a">>, 16384)),
    {[], {http_error, _}} = until_error(S),
    small(S),
    undisturbed(Config).

never_ends_active(Config) ->
    {Peer, Id, S} = http(Config, [{active, true}]),
    [ok = link_peer:send(Peer, Id, "A: b\r\n") || _ <- lists:seq(1, 3000)],
    receive {http, S, {http_error, _}} -> ok after ?TIMEOUT -> error(timeout) end,
    small(S),
    undisturbed(Config).

%% ---- after an error ----

%% Nobody can tell where the next request begins: nothing behind an error is read as one.
nothing_after_an_error(Config) ->
    {Peer, Id, S} = http(Config),
    ok = link_peer:send(Peer, Id, ["bad\r\n", ?GET, "\r\n"]),
    ?assertEqual({http_error, <<"bad\r\n">>}, item(S)),
    ?assertEqual({error, timeout}, gen_tcp:recv(S, 0, 20)),
    ok = link_peer:send(Peer, Id, [?GET, "\r\n"]),
    ?assertEqual({http_error, <<>>}, item(S)),
    %% It is not closed for that: an answer can be sent.
    ok = gen_tcp:send(S, "HTTP/1.1 400 Bad Request\r\n\r\n"),
    ?assertMatch(<<"HTTP/1.1 400", _/binary>>, link_peer:recv(Peer, Id, 28)),
    ok = gen_tcp:close(S).

nothing_after_an_error_active(Config) ->
    {Peer, Id, S} = http(Config, [{active, true}]),
    ok = link_peer:send(Peer, Id, ["bad\r\n", ?GET, "\r\n"]),
    receive {http, S, {http_error, <<"bad\r\n">>}} -> ok after ?TIMEOUT -> error(timeout) end,
    socket_pair:nothing(S).

one_empty_line(Config) ->
    {Peer, Id, S} = http(Config),
    ok = link_peer:send(Peer, Id, ["\r\n", ?GET, "\r\n", "\r\n", ?GET, "\r\n", "\r\n\r\n", ?GET]),
    [{http_request, _, _, _}, http_eoh, {http_request, _, _, _}, http_eoh] =
        [item(S) || _ <- lists:seq(1, 4)],
    ?assertMatch({http_error, _}, item(S)).

pipelined_after_a_body(Config) ->
    {Peer, Id, S} = http(Config),
    ok = link_peer:send(Peer, Id, lists:duplicate(3, ["POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n",
                                                      "hello"])),
    [begin
         [{http_request, 'POST', _, _}, {http_header, _, 'Content-Length', _, <<"5">>}, http_eoh] =
             [item(S) || _ <- lists:seq(1, 3)],
         ok = inet:setopts(S, [{packet, raw}]),
         ?assertEqual({ok, <<"hello">>}, gen_tcp:recv(S, 5, ?TIMEOUT)),
         ok = inet:setopts(S, [{packet, http_bin}])
     end || _ <- lists:seq(1, 3)].

%% The classic: one reader takes the first header, another the second.
smuggled_request_is_not_seen(Config) ->
    Smuggled = "GET /admin HTTP/1.1\r\nHost: x\r\n\r\n",
    [begin
         {Peer, Id, S} = http(Config),
         ok = link_peer:send(Peer, Id, ["POST / HTTP/1.1\r\nHost: x\r\n", Framing, "\r\n", "0\r\n\r\n",
                                        Smuggled]),
         {Items, {http_error, _}} = until_error(S),
         ?assertEqual([], [I || {http_request, _, {abs_path, <<"/admin">>}, _} = I <- Items]),
         ?assertNot(lists:member(http_eoh, Items))
     end || Framing <- ["Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
                        "Transfer-Encoding: chunked\r\nContent-Length: 40\r\n",
                        "Transfer-Encoding: xchunked\r\n", "Transfer-Encoding:\vchunked\r\n",
                        "Transfer-Encoding: identity\r\nContent-Length: 5\r\n",
                        "Content-Length: 5\r\nContent-Length: 40\r\n",
                        "Content-Length: 5, 40\r\n", "Content-Length: +5\r\n",
                        "Transfer-Encoding\r\n : chunked\r\n", "X: y\nTransfer-Encoding: chunked\r\n"]].

%% ---- the same for megaphone:recv/1 and receive_packet/2 ----

recv_and_receive_packet_refuse(Config) ->
    Bytes = [?GET, "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"],
    {Peer, Id, _} = raw(Config),
    ok = link_peer:send(Peer, Id, Bytes),
    ?assertMatch([{ok, {http_request, 'GET', _, _}}, {ok, {http_header, _, 'Content-Length', _, "5"}},
                  {ok, {http_error, "Content-Length: 6\r\n"}}],
                 [megaphone:recv(Id) || _ <- [1, 2, 3]]),
    {Peer2, Id2, _} = raw(Config),
    ok = link_peer:send(Peer2, Id2, Bytes),
    ?assertEqual({error, {http_error, "Content-Length: 6\r\n"}},
                 megaphone:receive_packet(Id2, ?TIMEOUT)).

%% A body that no memory should hold in one piece is refused before it is waited for; one
%% that does not say how long it will be, as soon as it is too long.
body_over_the_limit(Config) ->
    {Peer, Id, S} = raw(Config),
    ok = link_peer:send(Peer, Id, "POST / HTTP/1.1\r\nContent-Length: 1000000000000\r\n\r\n"),
    ?assertEqual({error, emsgsize}, megaphone:receive_packet(S, ?TIMEOUT)),
    {Peer2, Id2, S2} = raw(Config),
    ok = link_peer:send(Peer2, Id2, ["POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffff0\r\n",
                                     binary:copy(<<"x">>, 2000000)]),
    ?assertEqual({error, emsgsize}, megaphone:receive_packet(S2, ?TIMEOUT)),
    undisturbed(Config).

chunks(Config) ->
    [begin
         {Peer, Id, S} = raw(Config),
         ok = link_peer:send(Peer, Id, ["POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", Body]),
         ?assertMatch({Body, {error, _}}, {Body, megaphone:receive_packet(S, ?TIMEOUT)})
     end || Body <- ["x\r\nhello\r\n0\r\n\r\n", "-5\r\nhello\r\n0\r\n\r\n", "+5\r\nhello\r\n0\r\n\r\n",
                     "0x5\r\nhello\r\n0\r\n\r\n", "5\nhello\r\n0\r\n\r\n", "5\r\nhelloX\r\n0\r\n\r\n",
                     " 5\r\nhello\r\n0\r\n\r\n", "\r\nhello\r\n0\r\n\r\n", "5\r\nhello0\r\n\r\n",
                     "10000000000000005\r\nhello\r\n0\r\n\r\n",
                     ["5;", binary:copy(<<"x">>, 2000), "\r\nhello\r\n0\r\n\r\n"],
                     ["5\r\nhello\r\n0\r\nA: ", binary:copy(<<"x">>, 10000), "\r\n\r\n"],
                     "5\r\nhello\r\n0\r\nA : b\r\n\r\n"]].

%% ---- helpers ----

raw(Config) -> raw(Config, []).

raw(Config, Options) ->
    Peer = peer(Config),
    {Id, S} = open(Config, Peer, Options),
    {Peer, Id, S}.

http(Config) -> http(Config, []).
http(Config, Options) -> raw(Config, [{packet, http_bin} | Options]).

item(S) ->
    {ok, Item} = gen_tcp:recv(S, 0, ?TIMEOUT),
    Item.

until_error(S) -> until_error(S, []).

until_error(S, Before) ->
    case item(S) of
        {http_error, _} = Error -> {lists:reverse(Before), Error};
        Item -> until_error(S, [Item | Before])
    end.

%% So many items, and then this error; passive and active alike.
refused(Config, Bytes, Count, Line) ->
    Error = {http_error, iolist_to_binary(Line)},
    {Peer, Id, S} = http(Config),
    ok = link_peer:send(Peer, Id, Bytes),
    {Items, Got} = until_error(S),
    ?assertEqual({Bytes, Count, Error}, {Bytes, length(Items), Got}),
    ok = gen_tcp:close(S),
    {Peer2, Id2, S2} = http(Config, [{active, true}]),
    ok = link_peer:send(Peer2, Id2, Bytes),
    Messages = [receive {http, S2, Item} -> Item after ?TIMEOUT -> error(timeout) end
                || _ <- lists:seq(0, Count)],
    ?assertEqual(Items ++ [Error], Messages),
    ok = gen_tcp:close(S2),
    link_case:works(Config).

%% What the connection holds is no more than its window.
small(S) ->
    {ok, #{buffer := Buffer}} = megaphone:info(S),
    ?assert(Buffer =< 2 * 16384 + 1024).
