%% Parity: the same bytes at ejabberd's own HTTP listener and at megaphone's, on both ejabberds, to
%% every handler. What the client gets is equal, byte for byte, but for what is random in it.
%% The cases are in e2e_parity_cases; what is deliberately different is in e2e_parity_differences
%% and in docs/parity.md.
-module(parity_SUITE).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-export([suite/0, all/0, groups/0, init_per_group/2, end_per_group/2]).
-export([http/1, every_handler/1, custom_headers/1, split_in_two/1, hooks/1, upload/1, upload_large/1, oauth_token/1, websocket/1,
         mqtt_over_websocket/1, handler_takes_the_socket/1, differences/1,
         every_request_is_answered/1, every_connection_is_served/1, every_stanza_arrives/1]).

%% Clients in a hurry, and what each of them does.
-define(CLIENTS, 20).
-define(ROUNDS, 200).

suite() -> [{timetrap, {minutes, 2}}].

all() -> [{group, ejabberd_23_01}, {group, ejabberd_24_12}].

groups() -> [{Group, [], cases()} || Group <- [ejabberd_23_01, ejabberd_24_12]].

cases() ->
    [http, every_handler, custom_headers, split_in_two, hooks, upload, upload_large, oauth_token, websocket,
     mqtt_over_websocket, handler_takes_the_socket, differences,
     every_request_is_answered, every_connection_is_served, every_stanza_arrives].

init_per_group(Group, Config) ->
    [{world, e2e_parity:start(version(Group), #{})} | Config].

end_per_group(_Group, Config) ->
    e2e_parity:stop(?config(world, Config), ?config(priv_dir, Config)).

version(ejabberd_23_01) -> "23.01";
version(ejabberd_24_12) -> "24.12".

%% What becomes of a request on its way to a handler, and of an answer on its way back.
http(Config) -> same(plain, e2e_parity_cases:all(), Config).

%% Each case of each handler, with the status that stock is known to give.
every_handler(Config) -> same(plain, e2e_parity_handlers:all(), Config).

%% Those that are answered by way of the listener's own headers.
custom_headers(Config) -> same(custom, e2e_parity_cases:custom() ++ e2e_parity_handlers:custom(), Config).

%% A request that comes in two writes, cut at each of some places, is the same request.
split_in_two(Config) ->
    Request = iolist_to_binary(e2e_parity_cases:long()),
    Whole = seen(ours, plain, [Request], Config),
    ?assertMatch([<<"HTTP/1.1 200", _/binary>>, open], Whole),
    [begin
         <<Before:Cut/binary, After/binary>> = Request,
         ?assertEqual(Whole, seen(ours, plain, [{parts, [Before, After]}], Config), Cut)
     end || Cut <- lists:seq(1, byte_size(Request) - 1, 3)],
    %% A byte a write.
    ?assertEqual(Whole, seen(ours, plain, [{parts, [<<Byte>> || <<Byte>> <= Request]}], Config)).

hooks(Config) ->
    Hooked = [{"a handler of a hook", [200], "GET /hooked/in?x=1 HTTP/1.1\r\nHost: hooked.example\r\n\r\n"},
              {"not for another host", [404], "GET /hooked/in HTTP/1.1\r\nHost: localhost\r\n\r\n"}],
    same(plain, [{Name, [404], Request} || {Name, _, Request} <- Hooked], Config),
    ok = inside(hook, [], Config),
    try
        same(plain, Hooked, Config),
        [begin
             Path = "/echo/debug/" ++ atom_to_list(Side),
             _ = seen(Side, plain, [["GET ", Path, "?a HTTP/1.1\r\nHost: localhost\r\n\r\n"]], Config),
             ?assertEqual({[<<"debug">>, atom_to_binary(Side)], 'GET', list_to_binary(Path ++ "?a")},
                          inside(debugged, [], Config))
         end || Side <- [stock, ours]]
    after
        ok = inside(unhook, [], Config)
    end.

%% A file each way through each side, and each side's file through the other.
upload(Config) -> upload(<<"a file's content, ", 0, 255, "\r\n\r\n">>, Config).

upload_large(Config) -> upload(binary:copy(crypto:strong_rand_bytes(1000), 5000), Config).

upload(Content, Config) ->
    Size = byte_size(Content),
    Put = fun(Path, Length, More) ->
                  ["PUT ", Path, " HTTP/1.1\r\nHost: localhost\r\nContent-Length: ", integer_to_list(Length), "\r\n",
                   More, "\r\n"]
          end,
    Get = fun(Method, Path) -> [Method, " ", Path, " HTTP/1.1\r\nHost: localhost\r\n\r\n"] end,
    Uploaded =
        [{Side,
          begin
              Path = inside(slot, [<<"file.bin">>, Size], Config),
              {Path, seen(Side, plain, [[Put(Path, Size, []), Content],
                                        %% The slot is used up now.
                                        [Put(Path, 3, "Connection: close\r\n"), "abc"]], Config)}
          end} || Side <- [stock, ours]],
    {_, Expected} = proplists:get_value(stock, Uploaded),
    {_, Got} = proplists:get_value(ours, Uploaded),
    ?assertMatch([<<"HTTP/1.1 201", _/binary>>, <<"HTTP/1.1 403", _/binary>> | _], Expected),
    ?assertEqual(Expected, Got),
    [begin
         Seen = seen(Side, plain, [Get(Method, Path) || Method <- ["GET", "HEAD", "OPTIONS", "DELETE"]], Config),
         ?assertEqual([200, 200, 200, 405], statuses(Seen)),
         ?assert(e2e_raw:body(hd(Seen)) =:= Content),
         ?assertEqual(no_bodies(seen(stock, plain, [Get(Method, Path) || Method <- ["GET", "HEAD", "OPTIONS", "DELETE"]],
                                     Config)),
                      no_bodies(Seen))
     end || {_, {Path, _}} <- Uploaded, Side <- [stock, ours]],
    %% Another size than was asked for.
    Wrong = [begin
                 Path = inside(slot, [<<"file.bin">>, Size], Config),
                 seen(Side, plain, [[Put(Path, 3, "Connection: close\r\n"), "abc"]], Config)
             end || Side <- [stock, ours]],
    ?assertMatch([[<<"HTTP/1.1 413", _/binary>> | _], _], Wrong),
    ?assertEqual(hd(Wrong), lists:last(Wrong)),
    %% With the body sent when it is asked for.
    Asked = [begin
                 Path = inside(slot, [<<"file.bin">>, Size], Config),
                 seen(Side, plain, [{continue, Put(Path, Size, "Expect: 100-continue\r\n"), Content}], Config)
             end || Side <- [stock, ours]],
    ?assertEqual([100, 201], statuses(hd(Asked))),
    ?assertEqual(hd(Asked), lists:last(Asked)).

%% A token that one side gave is good at the other.
oauth_token(Config) ->
    Form = "grant_type=password&username=alice%40localhost&password=alice-pw&scope=ejabberd%3Aadmin&ttl=600",
    Request = e2e_parity_requests:post("/oauth/token", "application/x-www-form-urlencoded", Form),
    Tokens = [begin
                  [Answer | _] = seen(Side, plain, [Request], Config),
                  {match, [Token]} = re:run(Answer, "access_token\": ?\"([^\"]+)", [{capture, [1], binary}]),
                  {Token, binary:replace(Answer, Token, <<"TOKEN">>)}
              end || Side <- [stock, ours]],
    [{One, Expected}, {Other, Got}] = Tokens,
    ?assertEqual(Expected, Got),
    [begin
         Seen = seen(Side, plain, [["GET /api/registered_users?host=localhost HTTP/1.1\r\nHost: localhost\r\n"
                                    "Authorization: Bearer ", Token, "\r\n\r\n"]], Config),
         ?assertMatch([<<"HTTP/1.1 200", _/binary>>, open], Seen),
         ?assertEqual(<<"[\"alice\",\"bob\"]">>, iolist_to_binary(re:replace(e2e_raw:body(hd(Seen)), "\\s", "", [global])))
     end || Token <- [One, Other], Side <- [stock, ours]].

%% The answer to an upgrade, and the stream's first words behind it.
websocket(Config) ->
    Both = [begin
                Socket = e2e_raw:connect(port(Side, plain, Config), []),
                try [upgraded(Socket, More) || More <- ["Sec-WebSocket-Protocol: xmpp\r\n"]]
                after gen_tcp:close(Socket)
                end ++
                    [begin
                         Again = e2e_raw:connect(port(Side, plain, Config), []),
                         try upgraded(Again, More) after gen_tcp:close(Again) end
                     end || More <- ["", "Sec-WebSocket-Protocol: xmpp, other\r\n", "Websocket-Protocol: xmpp\r\n",
                                     "Origin: https://good.example\r\nSec-WebSocket-Protocol: xmpp\r\n",
                                     "Origin: HTTPS://Good.Example\r\nSec-WebSocket-Protocol: xmpp\r\n",
                                     "Sec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Protocol: xmpp\r\n"]]
            end || Side <- [stock, ours]],
    ?assertEqual([hd(Both)], lists:usort(Both)).

upgraded(Socket, More) ->
    ok = gen_tcp:send(Socket, e2e_parity_requests:upgrade("/ws", More)),
    {ok, <<"HTTP/1.1 101", _/binary>> = Head, Rest} = e2e_raw:read(Socket, "GET", <<>>),
    Open = <<"<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='localhost' version='1.0'/>">>,
    ok = gen_tcp:send(Socket, e2e_frames:frame(text, Open)),
    {ok, {text, First}, Rest1} = e2e_frames:recv(Socket, Rest),
    {ok, {text, Second}, _} = e2e_frames:recv(Socket, Rest1),
    {Head, e2e_parity_requests:not_random(First), e2e_parity_requests:not_random(Second)}.

%% CONNECT and CONNACK, in binary frames: a handler that takes the socket of an upgrade.
mqtt_over_websocket(Config) ->
    Connect = <<16, 37, 0, 4, "MQTT", 4, 16#c2, 0, 30, 0, 0, 0, 15, "alice@localhost", 0, 8, "alice-pw">>,
    Size = byte_size(Connect) - 2,
    <<16, _, Packet/binary>> = Connect,
    Both = [begin
                Socket = e2e_raw:connect(port(Side, plain, Config), []),
                ok = gen_tcp:send(Socket, e2e_parity_requests:upgrade("/mqtt", "Sec-WebSocket-Protocol: mqtt\r\n")),
                {ok, <<"HTTP/1.1 101", _/binary>> = Head, Rest} = e2e_raw:read(Socket, "GET", <<>>),
                ok = gen_tcp:send(Socket, e2e_frames:frame(binary, <<16, Size, Packet/binary>>)),
                {ok, Frame, _} = e2e_frames:recv(Socket, Rest),
                ok = gen_tcp:close(Socket),
                {Head, Frame}
            end || Side <- [stock, ours]],
    ?assertMatch([{_, {binary, <<32, 2, 0, 0>>}}, _], Both),
    ?assertEqual(hd(Both), lists:last(Both)).

handler_takes_the_socket(Config) ->
    Both = [begin
                Socket = e2e_raw:connect(port(Side, plain, Config), []),
                ok = gen_tcp:send(Socket, ["GET /handoff/take HTTP/1.1\r\nHost: localhost\r\nUpgrade: shout\r\n"
                                           "Connection: Upgrade\r\n\r\n"]),
                {ok, Head, <<>>} = e2e_raw:read(Socket, "GET", <<>>),
                ok = gen_tcp:send(Socket, "hello"),
                {ok, Hello} = gen_tcp:recv(Socket, 5, 10_000),
                ok = gen_tcp:send(Socket, binary:copy(<<"x">>, 300_000)),
                {ok, Much} = gen_tcp:recv(Socket, 300_000, 10_000),
                ok = gen_tcp:close(Socket),
                {Head, Hello, byte_size(Much)}
            end || Side <- [stock, ours]],
    ?assertMatch([{<<"HTTP/1.1 101", _/binary>>, <<"HELLO">>, 300_000}, _], Both),
    ?assertEqual(hd(Both), lists:last(Both)).

%% What megaphone refuses or does where stock is lax, each as the table in docs/parity.md has it.
differences(Config) ->
    Wrong = lists:append([difference(One, Config) || One <- e2e_parity_differences:all()]),
    ?assertEqual([], Wrong).

difference({Name, Steps, Stock, Ours}, Config) ->
    [{Name, Side, summary(Seen), {expected, Expected}}
     || {Side, Expected} <- [{stock, Stock}, {ours, Ours}],
        e2e_parity:front() =:= "megaphone_http" orelse Side =:= stock,
        %% What stock makes of some things is not worth holding on to.
        Expected =/= any,
        Seen <- [seen(Side, plain, Steps, Config)],
        not as(Expected, Seen)].

as({says, Pattern}, [Answer | _]) when is_binary(Answer) -> re:run(Answer, Pattern) =/= nomatch;
as({says, _}, _) -> false;
as(Expected, Seen) -> summary(Seen) =:= Expected.

summary(Seen) -> [case One of
                      <<"HTTP/", _/binary>> -> e2e_raw:status(One);
                      {How, _} -> How;
                      How -> How
                  end || One <- Seen].

%% ---- in a hurry ----

%% The next request follows on the answer's heels, on many connections at a time, sometimes cut in two
%% and sometimes with another behind it: what is looked for is one that nobody hears of.
every_request_is_answered(Config) ->
    Port = port(ours, plain, Config),
    together(fun(Client) ->
                     Socket = e2e_raw:connect(Port, []),
                     lists:foldl(fun(Round, Rest) -> hurry(Socket, Client, Round, Rest) end, <<>>, lists:seq(1, ?ROUNDS)),
                     gen_tcp:close(Socket)
             end).

hurry(Socket, Client, Round, Rest) ->
    Name = io_lib:format("~b-~b", [Client, Round]),
    Get = iolist_to_binary(["GET /echo/", Name, " HTTP/1.1\r\nHost: a\r\n\r\n"]),
    Post = iolist_to_binary(["POST /echo/", Name, " HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na=b"]),
    Put = iolist_to_binary(["PUT /echo/", Name, " HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabcdef"]),
    {Writes, Count} = case (Client + Round) rem 6 of
                          0 -> {[Get], 1};
                          1 -> {cut(Post, Round), 1};
                          2 -> {[[Get, Post, Get]], 3};
                          3 -> {cut(Put, Round), 1};
                          4 -> {cut(<<Get/binary, Put/binary, Post/binary>>, Round), 3};
                          5 -> {[Post], 1}
                      end,
    _ = [ok = gen_tcp:send(Socket, Bytes) || Bytes <- Writes],
    lists:foldl(fun(_, Bytes) ->
                        {ok, <<"HTTP/1.1 200", _/binary>> = Answer, More} = e2e_raw:read(Socket, "GET", Bytes),
                        ?assertNotEqual(nomatch, binary:match(Answer, iolist_to_binary(Name))),
                        More
                end, Rest, lists:seq(1, Count)).

cut(Bytes, Round) ->
    At = 1 + Round * 7 rem (byte_size(Bytes) - 1),
    <<Before:At/binary, After/binary>> = Bytes,
    [Before, After].

%% A connection for each request, which comes with it or right behind it.
every_connection_is_served(Config) ->
    Port = port(ours, plain, Config),
    Body = "<body xmlns='http://jabber.org/protocol/httpbind' rid='1' sid='none'/>",
    Requests = [{<<"200">>, ["POST /bosh HTTP/1.1\r\nHost: a\r\nContent-Length: ", integer_to_list(length(Body)), "\r\n\r\n", Body]},
                {<<"200">>, "GET /peer HTTP/1.1\r\nHost: a\r\n\r\n"},
                {<<"200">>, "GET /peer HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"},
                {<<"400">>, "GET\r\n\r\n"},
                {<<"101">>, e2e_parity_requests:upgrade("/ws", "")}],
    together(fun(Client) ->
                     _ = [begin
                              {Status, Request} = lists:nth(1 + (Client + Round) rem length(Requests), Requests),
                              Socket = e2e_raw:connect(Port, []),
                              ok = gen_tcp:send(Socket, Request),
                              {ok, <<"HTTP/1.1 ", Got:3/binary, _/binary>>, _} = e2e_raw:read(Socket, "GET", <<>>),
                              ?assertEqual(Status, Got),
                              gen_tcp:close(Socket)
                          end || Round <- lists:seq(1, ?ROUNDS)],
                     ok
             end).

%% Users talk to themselves over BOSH and WebSocket, as fast as they are answered.
every_stanza_arrives(Config) ->
    Ports = #{http => port(ours, plain, Config)},
    together(fun(Client) ->
                     Transport = case Client rem 4 of 0 -> websocket; _ -> bosh end,
                     [A, B] = [e2e_user:login(Transport, User, Ports) || User <- [<<"alice">>, <<"bob">>]],
                     {A1, B1} = lists:foldl(fun(Round, {X, Y}) -> e2e_user:chat(X, Y, integer_to_binary(Round)) end,
                                            {A, B}, lists:seq(1, ?ROUNDS)),
                     _ = [e2e_user:close(User) || User <- [A1, B1]]
             end).

together(Fun) ->
    Clients = [spawn_monitor(fun() -> Fun(Client) end) || Client <- lists:seq(1, ?CLIENTS)],
    Ends = [receive {'DOWN', Monitor, process, Pid, Reason} -> Reason end || {Pid, Monitor} <- Clients],
    ?assertEqual([], [Reason || Reason <- Ends, Reason =/= normal]).

%% ---- both sides ----

same(Kind, Cases, Config) ->
    Wrong = lists:append([wrong(Kind, Case, Config) || Case <- Cases]),
    _ = [ct:pal("~ts~n  stock: ~0tp~n  ours:  ~0tp", [Name, Expected, Got]) || {Name, Expected, Got} <- Wrong],
    ?assertEqual([], [Name || {Name, _, _} <- Wrong]),
    {comment, integer_to_list(length(Cases)) ++ " requests"}.

wrong(Kind, Case, Config) ->
    {Name, Statuses, Steps, Options} = normal(Case),
    Run = fun(Side) -> [not_random(One) || One <- seen(Side, Kind, Steps, Options, Config)] end,
    case {Run(stock), Run(ours)} of
        {Same, Same} ->
            case allowed(statuses(Same), Statuses) of
                true -> [];
                false -> [{Name, {status, Statuses}, Same}]
            end;
        %% A handler of ejabberd's own that crashes is a difference by itself, see there.
        {[closed], [<<"HTTP/1.1 500 ", _/binary>>, closed] = Got} ->
            case allowed([], Statuses) of
                true -> [];
                false -> [{Name, [closed], Got}]
            end;
        {Expected, Got} -> [{Name, Expected, Got}]
    end.

%% `{either, ...}`: the two ejabberds differ. `any`: whatever it is, both sides say it.
allowed(_, any) -> true;
allowed(Statuses, {either, One, Other}) -> Statuses =:= One orelse Statuses =:= Other;
allowed(Statuses, Expected) -> Statuses =:= Expected.

normal({Name, Statuses, Steps}) -> normal({Name, Statuses, Steps, []});
normal({Name, Statuses, {steps, Steps}, Options}) -> {Name, Statuses, Steps, Options};
normal({Name, Statuses, Request, Options}) -> {Name, Statuses, [Request], Options}.

not_random(Seen) when is_binary(Seen) -> e2e_parity_requests:not_random(Seen);
not_random(Seen) -> Seen.

statuses(Seen) -> [e2e_raw:status(One) || <<"HTTP/", _/binary>> = One <- Seen].

no_bodies(Seen) -> [case One of
                        <<"HTTP/", _/binary>> -> e2e_raw:head(One);
                        _ -> One
                    end || One <- Seen].

seen(Side, Kind, Steps, Config) -> seen(Side, Kind, Steps, [], Config).

seen(Side, Kind, Steps, Options, Config) ->
    Started = erlang:monotonic_time(millisecond),
    Seen = e2e_raw:exchange(port(Side, Kind, Config), Steps, Options),
    case erlang:monotonic_time(millisecond) - Started of
        Took when Took > 1000 -> ct:pal("~s took ~b ms: ~0tp", [Side, Took, [if is_binary(One) -> e2e_raw:status(One); true -> One end || One <- Seen]]);
        _ -> ok
    end,
    Seen.

port(Side, Kind, Config) -> maps:get(Kind, maps:get(Side, ?config(world, Config))).

inside(Function, Args, Config) ->
    e2e_ejabberd:call(maps:get(node, ?config(world, Config)), e2e_echo_handler, Function, Args).
