%% From the bytes of a BOSH request to the call of its handler with `#request{}': ejabberd_http's own code and
%% megaphone's, in one node, in turns. It is the handler, and for ejabberd_http the socket too, on which nothing costs
%% anything: stock's clock begins in recv, with its process awake and the bytes there, while megaphone's begins with the
%% bytes of a link and has the frame, the connection and the start of the request's process in it.
-module(bench_request).

%% Beam.eval of the benchmark
-export([run/2]).
%% a handler
-export([process/2]).
%% gen_tcp, inet
-export([recv/3, send/2, setopts/2, peername/1, close/1]).

-define(WARM, 2_000).
%% Requests between two grants of credit for their answers.
-define(GRANT, 500).
-define(WINDOW, 1 bsl 20).

%% Nanoseconds of a request, the median of each run: stock's, and megaphone's; of these what the NIF takes to gather the
%% request out of its frame, and what any process takes to start.
-spec run(Requests :: pos_integer(), Runs :: pos_integer()) -> {[integer()], [integer()], [integer()], [integer()]}.
run(Requests, Runs) ->
    true = register(?MODULE, self()),
    Stock = stock_start(),
    Ours = ours_start(),
    _ = {stock(Stock, ?WARM), ours(Ours, ?WARM)},
    {Theirs, Mine} = lists:unzip([pair(N rem 2, Stock, Ours, Requests) || N <- lists:seq(1, Runs)]),
    Starts = [starts(Requests) || _ <- lists:seq(1, Runs)],
    exit(Stock, kill),
    true = unregister(?MODULE),
    {All, Gathering} = lists:unzip(Mine),
    {Theirs, All, Gathering, Starts}.

pair(1, Stock, Ours, Requests) ->
    First = stock(Stock, Requests),
    {First, ours(Ours, Requests)};
pair(0, Stock, Ours, Requests) ->
    First = ours(Ours, Requests),
    {stock(Stock, Requests), First}.

handlers() -> [{request_handlers, [{[<<"bosh">>], ?MODULE}]}].

%% The request is what both are asked for: all of it has to be right.
-spec process(Path :: [binary()], Request :: tuple()) -> {200, [{binary(), binary()}], binary()}.
process(_Path, Request) ->
    Time = erlang:monotonic_time(nanosecond),
    'POST' = element(2, Request),
    ?MODULE ! {called, Time, get(began)},
    {200, [{<<"Content-Type">>, <<"text/plain">>}], <<"ok">>}.

%%% stock

stock_start() ->
    {ok, Pid} = ejabberd_http:start(gen_tcp, {'$inet', ?MODULE, none}, handlers()),
    ok = ejabberd_http:accept(Pid),
    Pid.

stock(Pid, Requests) ->
    Bytes = request(),
    median([begin
                   Pid ! {bytes, Bytes},
                   Time = receive {called, At, Began} -> At - Began end,
                   receive sent -> Time end
               end || _ <- lists:seq(1, Requests)]).

recv(_Socket, 0, _Timeout) ->
    receive
        {bytes, Bytes} ->
            put(began, erlang:monotonic_time(nanosecond)),
            {ok, Bytes}
    end.

send(_Socket, _Data) ->
    ?MODULE ! sent,
    ok.

setopts(_Socket, _Options) -> ok.

peername(_Socket) -> {ok, {{192, 0, 2, 1}, 40_000}}.

close(_Socket) -> ok.

%%% megaphone

ours_start() ->
    {ok, Service} = megaphone_http_service:start_link(<<"bench">>, #{opts => handlers(), send_timeout => 15_000}),
    {http, Key, Http} = megaphone_http_service:handle(Service),
    Link = link_up(),
    [{open, Conn, _, _}] = feed(Link, control("open 7 service=bench peer=192.0.2.1:40000 local=192.0.2.2:443\n")),
    ok = megaphone_nif:http_start(Conn, Http),
    {Link, Conn, Key}.

ours({Link, _, Key}, Requests) ->
    Bytes = frame(7, request()),
    {All, Gathering} = lists:unzip(
             [begin
                   N rem ?GRANT =:= 0 andalso grant(Link),
                   Began = erlang:monotonic_time(nanosecond),
                   [{request, Conn, Key}] = feed(Link, Bytes),
                   Fed = erlang:monotonic_time(nanosecond),
                   _ = megaphone_http_request:start(Conn, Key),
                   Time = receive {called, At, _} -> At - Began end,
                   answered(Link),
                   {Time, Fed - Began}
               end || N <- lists:seq(1, Requests)]),
    {median(All), median(Gathering)}.

%% From spawning a process to its first call, as the request's process is started.
starts(Count) ->
    median([begin
                Began = erlang:monotonic_time(nanosecond),
                _ = spawn_opt(fun() -> ?MODULE ! {began, erlang:monotonic_time(nanosecond)} end, [{min_heap_size, 1598}]),
                receive {began, At} -> At - Began end
            end || _ <- lists:seq(1, Count)]).

%% The handler has been called; the answer is not there yet, maybe, and a window may be before it.
answered(Link) ->
    case megaphone_nif:drain(Link) of
        empty -> erlang:yield(), answered(Link);
        Bytes -> binary:match(iolist_to_binary(Bytes), <<"HTTP/1.1 200">>) =/= nomatch orelse answered(Link)
    end.

grant(Link) ->
    [] = feed(Link, control(io_lib:format("window 7 ~b\n", [?GRANT * 150]))),
    ok.

link_up() ->
    Handshake = megaphone_nif:handshake_new(#{node => <<"bench">>, nonce => <<"00">>, window => ?WINDOW,
                                              max_frame => 65536, allow_v1 => true, resume_timeout => 0,
                                              secret => nil}),
    Hello = control(io_lib:format("hello version=2 name=bench window=~b max_frame=65536 nonce=00\n", [?WINDOW])),
    {hello, _, _} = megaphone_nif:handshake(Handshake, Hello),
    _ = megaphone_nif:handshake_answer(Handshake, <<"bench">>, <<"token">>, nil),
    {up, 2, 0} = megaphone_nif:handshake(Handshake, <<>>),
    megaphone_nif:link_new(#{name => <<"bench">>, window => ?WINDOW, max_connections => 1000,
                             resume_buffer => 0, max_buffered => 1 bsl 40, idle_timeout => nil,
                             peer => {{127, 0, 0, 1}, 1}, local => {{127, 0, 0, 1}, 2}}, Handshake).

feed(Link, Chunk) -> feed(Link, Chunk, 0).

feed(Link, Chunk, Offset) ->
    case megaphone_nif:feed(Link, Chunk, Offset) of
        {ok, News} -> News;
        {more, Next, News} -> News ++ feed(Link, Chunk, Next)
    end.

control(Text) -> frame(0, Text).

frame(Id, Content) ->
    iolist_to_binary(io_lib:format("~10..0b|~20..0b|~s", [32 + iolist_size(Content), Id, Content])).

%%% Both

%% Whoever else has the processor for a while makes single ones long.
median(Times) ->
    lists:nth((length(Times) + 1) div 2, lists:sort(Times)).

%% What a browser sends.
request() ->
    Body = <<"<body rid='1573741820' sid='SomeSID' xmlns='http://jabber.org/protocol/httpbind'>"
             "<message to='friend@example.com' xmlns='jabber:client'><body>I will be there at nine, and bring"
             " the papers.</body></message></body>">>,
    <<"POST /bosh HTTP/1.1\r\n"
      "Host: localhost\r\n"
      "Connection: keep-alive\r\n"
      "Content-Length: ", (integer_to_binary(byte_size(Body)))/binary, "\r\n"
      "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n"
      "Content-Type: text/xml; charset=utf-8\r\n"
      "Accept: */*\r\n"
      "Origin: https://chat.example.org\r\n"
      "Accept-Encoding: gzip, deflate, br\r\n"
      "Accept-Language: en-US,en;q=0.5\r\n"
      "\r\n", Body/binary>>.
