%% {packet, http | http_bin | httph | httph_bin} on a socket, as ejabberd_http uses it.
%% What is in the terms themselves is http_SUITE's.
-module(socket_http_SUITE).
-include("support/socket_cases.hrl").

-define(GET, "GET /a?b HTTP/1.1\r\nHost: x\r\nFoo-bar: Y y\r\n\r\n").

cases() ->
    [passive, passive_binary, in_list_mode, active_true, active_once, active_n,
     byte_by_byte, every_cut, headers_only, headers_only_active,
     body_in_raw_mode, body_in_raw_mode_active, body_longer_than_a_window, pipelined,
     keep_alive_as_ejabberd_http_does, switch_in_the_middle_of_a_head, switch_to_headers,
     switch_to_binary, set_again, unrecv_completes_a_head,
     end_after_a_head, end_in_the_middle, end_in_the_middle_active,
     error_line, error_line_active, long_line, endless_line, endless_line_active,
     size_limit, sending_is_raw, recv_of_a_length].

items(S, N) -> [gen_tcp:recv(S, 0, ?TIMEOUT) || _ <- lists:seq(1, N)].

messages(S, N) ->
    [receive {http, S, Item} -> Item
     after ?TIMEOUT -> error({timeout, process_info(self(), messages)})
     end || _ <- lists:seq(1, N)].

get_items() ->
    [{http_request, 'GET', {abs_path, "/a?b"}, {1, 1}},
     {http_header, 14, 'Host', "Host", "x"},
     {http_header, 0, "Foo-Bar", "Foo-bar", "Y y"},
     http_eoh].

get_items_bin() ->
    [{http_request, 'GET', {abs_path, <<"/a?b">>}, {1, 1}},
     {http_header, 14, 'Host', <<"Host">>, <<"x">>},
     {http_header, 0, <<"Foo-Bar">>, <<"Foo-bar">>, <<"Y y">>},
     http_eoh].

%% ---- one head ----

passive(Config) ->
    {C, S} = open(Config, [{packet, http}]),
    socket_pair:send(C, ?GET),
    ?assertEqual([{ok, Item} || Item <- get_items()], items(S, 4)).

passive_binary(Config) ->
    {C, S} = open(Config, [{packet, http_bin}]),
    socket_pair:send(C, ?GET),
    ?assertEqual([{ok, Item} || Item <- get_items_bin()], items(S, 4)).

%% The packet mode alone says what the terms are made of.
in_list_mode(Config) ->
    {C, S} = open(Config, [{packet, http_bin}, {mode, list}]),
    socket_pair:send(C, [?GET, "body"]),
    ?assertEqual([{ok, Item} || Item <- get_items_bin()], items(S, 4)),
    ok = inet:setopts(S, [{packet, raw}]),
    ?assertEqual({ok, "body"}, gen_tcp:recv(S, 4, ?TIMEOUT)).

active_true(Config) ->
    {C, S} = open(Config, [{packet, http}, {active, true}]),
    socket_pair:send(C, [?GET, ?GET]),
    ?assertEqual(get_items() ++ get_items(), messages(S, 8)),
    nothing(S).

active_once(Config) ->
    {C, S} = open(Config, [{packet, http_bin}]),
    socket_pair:send(C, ?GET),
    [begin
         ok = inet:setopts(S, [{active, once}]),
         ?assertEqual([Item], messages(S, 1)),
         nothing(S)
     end || Item <- get_items_bin()].

active_n(Config) ->
    {C, S} = open(Config, [{packet, http_bin}, {active, 3}]),
    socket_pair:send(C, ?GET),
    ?assertEqual(lists:sublist(get_items_bin(), 3), messages(S, 3)),
    receive {tcp_passive, S} -> ok after ?TIMEOUT -> error(timeout) end,
    nothing(S),
    ?assertEqual({ok, http_eoh}, gen_tcp:recv(S, 0, ?TIMEOUT)).

byte_by_byte(Config) ->
    {C, S} = open(Config, [{packet, http_bin}]),
    Reader = in_process(fun() -> items(S, 4) end),
    [socket_pair:send(C, <<Byte>>) || Byte <- ?GET],
    ?assertEqual([{ok, Item} || Item <- get_items_bin()], result(Reader)).

every_cut(Config) ->
    {C, S} = open(Config, [{packet, http_bin}, {active, true}]),
    [begin
         {Before, After} = lists:split(Cut, ?GET),
         socket_pair:send(C, Before),
         socket_pair:send(C, After),
         ?assertEqual(get_items_bin(), messages(S, 4))
     end || Cut <- lists:seq(1, length(?GET) - 1)].

headers_only(Config) ->
    {C, S} = open(Config, [{packet, httph}]),
    socket_pair:send(C, "Host: x\r\nfoo: y\r\n\r\nmore: z\r\n\r\n"),
    ?assertEqual([{ok, {http_header, 14, 'Host', "Host", "x"}},
                  {ok, {http_header, 0, "Foo", "foo", "y"}},
                  {ok, http_eoh},
                  {ok, {http_header, 0, "More", "more", "z"}},
                  {ok, http_eoh}], items(S, 5)),
    ?assertEqual({ok, [{packet, httph}]}, inet:getopts(S, [packet])).

headers_only_active(Config) ->
    {C, S} = open(Config, [{packet, httph_bin}, {active, true}]),
    socket_pair:send(C, "Host: x\r\n\r\n"),
    ?assertEqual([{http_header, 14, 'Host', <<"Host">>, <<"x">>}, http_eoh], messages(S, 2)).

%% ---- heads and bodies ----

body_in_raw_mode(Config) ->
    {C, S} = open(Config, [{packet, http}]),
    socket_pair:send(C, [?GET, "the body", ?GET]),
    _ = items(S, 4),
    ok = inet:setopts(S, [{packet, raw}]),
    ?assertEqual({ok, <<"the body">>}, gen_tcp:recv(S, 8, ?TIMEOUT)),
    ok = inet:setopts(S, [{packet, http}]),
    ?assertEqual([{ok, Item} || Item <- get_items()], items(S, 4)).

body_in_raw_mode_active(Config) ->
    {C, S} = open(Config, [{packet, http_bin}]),
    socket_pair:send(C, [?GET, "the body"]),
    [ok, ok, ok, ok] = [begin
                            ok = inet:setopts(S, [{active, once}]),
                            [_] = messages(S, 1),
                            ok
                        end || _ <- lists:seq(1, 4)],
    ok = inet:setopts(S, [{packet, raw}, {active, true}]),
    ?assertEqual(<<"the body">>, collect(S, 8)),
    ok = inet:setopts(S, [{packet, http_bin}]),
    socket_pair:send(C, ?GET),
    ?assertEqual(get_items_bin(), messages(S, 4)).

body_longer_than_a_window(Config) ->
    {C, S} = open(Config, [{packet, http}]),
    Body = binary:copy(<<"0123456789">>, 50000),
    Writer = in_process(fun() -> socket_pair:send(C, [?GET, Body, ?GET]) end),
    _ = items(S, 4),
    ok = inet:setopts(S, [{packet, raw}]),
    ?assert({ok, Body} =:= gen_tcp:recv(S, byte_size(Body), ?TIMEOUT)),
    ok = inet:setopts(S, [{packet, http}]),
    ?assertEqual([{ok, Item} || Item <- get_items()], items(S, 4)),
    ok = result(Writer).

pipelined(Config) ->
    {C, S} = open(Config, [{packet, http_bin}]),
    Count = 300,
    Writer = in_process(fun() -> socket_pair:send(C, lists:duplicate(Count, ?GET)) end),
    [?assertEqual([{ok, Item} || Item <- get_items_bin()], items(S, 4))
     || _ <- lists:seq(1, Count)],
    ok = result(Writer).

%% ejabberd_http: request line and headers by recv/3 in packet mode http with recbuf
%% 8192, the body in raw mode, an answer, and packet mode http again.
keep_alive_as_ejabberd_http_does(Config) ->
    {C, S} = open(Config),
    ok = inet:setopts(S, [{packet, http}, {recbuf, 8192}]),
    [begin
         Body = binary:copy(<<"b">>, N * 997),
         Writer = in_process(
                    fun() ->
                            socket_pair:send(C, ["POST /bosh HTTP/1.1\r\nContent-Length: ",
                                                 integer_to_list(byte_size(Body)), "\r\n\r\n"]),
                            socket_pair:send(C, Body)
                    end),
         Length = integer_to_list(byte_size(Body)),
         ?assertMatch([{ok, {http_request, 'POST', {abs_path, "/bosh"}, {1, 1}}},
                       {ok, {http_header, _, 'Content-Length', _, Length}},
                       {ok, http_eoh}], items(S, 3)),
         ok = inet:setopts(S, [{packet, 0}]),
         ?assert({ok, Body} =:= gen_tcp:recv(S, byte_size(Body), ?TIMEOUT)),
         ok = gen_tcp:send(S, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
         ?assertMatch(<<"HTTP/1.1 200", _/binary>>, socket_pair:recv(C, 38)),
         ok = result(Writer),
         ok = inet:setopts(S, [{packet, http}])
     end || N <- lists:seq(1, 10)].

%% ---- changes of mode ----

%% Leaving packet mode http forgets where in a head the stream is.
switch_in_the_middle_of_a_head(Config) ->
    {C, S} = open(Config, [{packet, http}]),
    socket_pair:send(C, [?GET, "GET / HTTP/1.0\r\n"]),
    [{ok, {http_request, _, _, _}}] = items(S, 1),
    ok = inet:setopts(S, [{packet, raw}]),
    ok = inet:setopts(S, [{packet, http}]),
    %% gen_tcp still knows that headers are due: it is the items that count.
    ?assertEqual([{ok, Item} || Item <- tl(get_items())], items(S, 3)),
    ?assertMatch([{ok, {http_request, 'GET', _, {1, 0}}}], items(S, 1)).

switch_to_headers(Config) ->
    {C, S} = open(Config, [{packet, http}]),
    socket_pair:send(C, ?GET),
    [{ok, {http_request, _, _, _}}] = items(S, 1),
    ok = inet:setopts(S, [{packet, httph}]),
    ?assertEqual([{ok, Item} || Item <- tl(get_items())], items(S, 3)).

switch_to_binary(Config) ->
    {C, S} = open(Config, [{packet, http}]),
    socket_pair:send(C, ?GET),
    [{ok, {http_request, _, {abs_path, "/a?b"}, _}}] = items(S, 1),
    ok = inet:setopts(S, [{packet, http_bin}]),
    ?assertEqual([{ok, Item} || Item <- tl(get_items_bin())], items(S, 3)).

set_again(Config) ->
    {C, S} = open(Config, [{packet, http}]),
    socket_pair:send(C, ?GET),
    Got = [begin
               ok = inet:setopts(S, [{packet, http}]),
               Item
           end || Item <- items(S, 4)],
    ?assertEqual([{ok, Item} || Item <- get_items()], Got).

unrecv_completes_a_head(Config) ->
    {C, S} = open(Config, [{packet, http}]),
    {Before, After} = lists:split(20, ?GET),
    socket_pair:send(C, After),
    ok = gen_tcp:unrecv(S, Before),
    ?assertEqual([{ok, Item} || Item <- get_items()], items(S, 4)).

%% ---- ends and errors ----

end_after_a_head(Config) ->
    {C, S} = open(Config, [{packet, http}]),
    socket_pair:send(C, ?GET),
    socket_pair:finish(C),
    ?assertEqual([{ok, Item} || Item <- get_items()], items(S, 4)),
    ok = gen_tcp:send(S, "answer"),
    ?assertEqual(<<"answer">>, socket_pair:recv(C, 6)),
    ?assertEqual({error, closed}, gen_tcp:recv(S, 0, ?TIMEOUT)).

end_in_the_middle(Config) ->
    {C, S} = open(Config, [{packet, http}]),
    socket_pair:send(C, "GET / HTTP/1.1\r\nHos"),
    socket_pair:close(C),
    ?assertEqual([{ok, {http_request, 'GET', {abs_path, "/"}, {1, 1}}}, {error, closed}],
                 items(S, 2)).

end_in_the_middle_active(Config) ->
    {C, S} = open(Config, [{packet, http}, {active, true}]),
    socket_pair:send(C, "GET / HTTP/1.1\r\nHos"),
    socket_pair:close(C),
    [{http_request, 'GET', {abs_path, "/"}, {1, 1}}] = messages(S, 1),
    receive {tcp_closed, S} -> ok after ?TIMEOUT -> error(timeout) end,
    nothing(S).

%% What is no HTTP is an item, too: the connection is the reader's to end.
error_line(Config) ->
    {C, S} = open(Config, [{packet, http_bin}]),
    socket_pair:send(C, "GET\r\n"),
    ?assertEqual({ok, {http_error, <<"GET\r\n">>}}, gen_tcp:recv(S, 0, ?TIMEOUT)),
    ok = gen_tcp:send(S, "HTTP/1.1 400 Bad Request\r\n\r\n"),
    ?assertMatch(<<"HTTP/1.1 400", _/binary>>, socket_pair:recv(C, 28)).

error_line_active(Config) ->
    {C, S} = open(Config, [{packet, http}, {active, true}]),
    %% A header line ends where the next byte shows that it is not folded.
    socket_pair:send(C, "GET / HTTP/1.1\r\nno header\r\nHost"),
    ?assertEqual([{http_request, 'GET', {abs_path, "/"}, {1, 1}}, {http_error, "no header\r\n"}],
                 messages(S, 2)).

%% Within the limits of docs/http.md, and of gen_tcp's buffer.
long_line(Config) ->
    {C, S} = open(Config, [{packet, http_bin}, {recbuf, 8192}]),
    Path = ["/", binary:copy(<<"x">>, 7000)],
    socket_pair:send(C, ["GET ", Path, " HTTP/1.1\r\n"]),
    PathBin = iolist_to_binary(Path),
    ?assertEqual({ok, {http_request, 'GET', {abs_path, PathBin}, {1, 1}}},
                 gen_tcp:recv(S, 0, ?TIMEOUT)).

%% gen_tcp gives up at its buffer's size with emsgsize, megaphone at its own limits.
endless_line(Config) ->
    {C, S} = open(Config, [{packet, http}, {recbuf, 8192}]),
    _ = in_process(fun() -> socket_pair:send(C, ["GET /", binary:copy(<<"x">>, 400000)]) end),
    case {virtual(Config), gen_tcp:recv(S, 0, ?TIMEOUT)} of
        {false, {error, emsgsize}} -> ok;
        {true, {error, emsgsize}} -> ok;
        {true, {ok, {http_error, _}}} -> ok
    end.

endless_line_active(Config) ->
    {C, S} = open(Config, [{packet, http}, {active, true}]),
    _ = in_process(fun() ->
                           socket_pair:send(C, ["GET / HTTP/1.1\r\nA: ",
                                                binary:copy(<<"x">>, 400000)])
                   end),
    [{http_request, _, _, _}] = messages(S, 1),
    receive
        {tcp_error, S, emsgsize} ->
            receive {tcp_closed, S} -> ok after ?TIMEOUT -> error(timeout) end;
        {http, S, {http_error, _}} ->
            ?assert(virtual(Config))
    after ?TIMEOUT -> error({timeout, process_info(self(), messages)})
    end.

size_limit(Config) ->
    {C, S} = open(Config, [{packet, http}, {packet_size, 30}]),
    socket_pair:send(C, ["GET / HTTP/1.1\r\nHost: ", lists:duplicate(40, $x), "\r\n\r\n"]),
    ?assertMatch([{ok, {http_request, _, _, _}}, {error, emsgsize}], items(S, 2)),
    assert_closed(gen_tcp:recv(S, 0, ?TIMEOUT)).

sending_is_raw(Config) ->
    {C, S} = open(Config, [{packet, http}]),
    ok = gen_tcp:send(S, "HTTP/1.1 200 OK\r\n\r\n"),
    ?assertEqual(<<"HTTP/1.1 200 OK\r\n\r\n">>, socket_pair:recv(C, 19)).

recv_of_a_length(Config) ->
    {C, S} = open(Config, [{packet, http}]),
    socket_pair:send(C, ?GET),
    ?assertEqual({error, einval}, gen_tcp:recv(S, 4, ?TIMEOUT)),
    ?assertEqual([{ok, Item} || Item <- get_items()], items(S, 4)).
