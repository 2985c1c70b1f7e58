%% Just enough of an HTTP/1.1 client to see what a server really sends, over a TCP
%% connection or over anything else that carries bytes.
-module(e2e_http).

-export([connect/1, connect/2, on/1, over/2, close/1]).
-export([get/2, get/3, request/2, ask/2, post/4, answer/1]).
-export_type([connection/0, answer/0]).

-type connection() :: #{send := fun((iodata()) -> ok), recv := fun(() -> binary()),
                        close := fun(() -> ok), rest := binary()}.
-type answer() :: #{status := 100..599, headers := #{binary() => binary()}, body := binary()}.

-define(TIMEOUT, 15_000).

-spec connect(inet:port_number()) -> connection().
connect(Port) -> connect(Port, []).

-spec connect(inet:port_number(), [gen_tcp:connect_option()]) -> connection().
connect(Port, Options) ->
    {ok, Socket} = gen_tcp:connect({127, 0, 0, 1}, Port, [binary, {active, false} | Options], ?TIMEOUT),
    on(Socket).

%% On a passive socket in binary mode.
-spec on(gen_tcp:socket()) -> connection().
on(Socket) ->
    #{send => fun(Bytes) -> ok = gen_tcp:send(Socket, Bytes) end,
      recv => fun() -> {ok, Bytes} = gen_tcp:recv(Socket, 0, ?TIMEOUT), Bytes end,
      close => fun() -> gen_tcp:close(Socket) end,
      socket => Socket,
      rest => <<>>}.

%% Over whatever these two functions send to and receive from.
-spec over(fun((iodata()) -> ok), fun(() -> binary())) -> connection().
over(Send, Recv) -> #{send => Send, recv => Recv, close => fun() -> ok end, rest => <<>>}.

-spec close(connection()) -> ok.
close(#{close := Close}) -> Close().

get(Connection, Path) -> get(Connection, Path, []).

-spec get(connection(), iodata(), [{iodata(), iodata()}]) -> {answer(), connection()}.
get(Connection, Path, Headers) ->
    request(Connection, [head("GET", Path, Headers), "\r\n"]).

%% These two send a request; its answer is read with answer/1.
-spec ask(connection(), iodata()) -> ok.
ask(#{send := Send}, Path) -> Send([head("GET", Path, []), "\r\n"]).

-spec post(connection(), iodata(), [{iodata(), iodata()}], iodata()) -> ok.
post(#{send := Send}, Path, Headers, Body) ->
    Length = integer_to_list(iolist_size(Body)),
    Send([head("POST", Path, [{"Content-Length", Length} | Headers]), "\r\n", Body]).

%% Sends a request as it is and reads its answer.
-spec request(connection(), iodata()) -> {answer(), connection()}.
request(#{send := Send} = Connection, Request) ->
    ok = Send(Request),
    answer(Connection).

%% Reads one answer; what came after it stays with the connection.
-spec answer(connection()) -> {answer(), connection()}.
answer(#{rest := Rest} = Connection) ->
    {Head, AfterHead} = until_blank_line(Connection, Rest),
    [StatusLine | Lines] = binary:split(Head, <<"\r\n">>, [global]),
    <<"HTTP/1.1 ", Status:3/binary, _/binary>> = StatusLine,
    Headers = maps:from_list([header(Line) || Line <- Lines]),
    Length = binary_to_integer(maps:get(<<"content-length">>, Headers)),
    {Body, After} = exactly(Connection, Length, byte_size(AfterHead), [AfterHead]),
    {#{status => binary_to_integer(Status), headers => Headers, body => Body},
     Connection#{rest := After}}.

head(Method, Path, Headers) ->
    [Method, " ", Path, " HTTP/1.1\r\nHost: localhost\r\n",
     [[Name, ": ", Value, "\r\n"] || {Name, Value} <- Headers]].

header(Line) ->
    [Name, Value] = binary:split(Line, <<":">>),
    {string:lowercase(Name), string:trim(Value)}.

until_blank_line(#{recv := Recv} = Connection, Bytes) ->
    case binary:split(Bytes, <<"\r\n\r\n">>) of
        [Head, After] -> {Head, After};
        [_] -> until_blank_line(Connection, <<Bytes/binary, (Recv())/binary>>)
    end.

exactly(_, Length, Have, Parts) when Have >= Length ->
    <<Body:Length/binary, After/binary>> = iolist_to_binary(lists:reverse(Parts)),
    {Body, After};
exactly(#{recv := Recv} = Connection, Length, Have, Parts) ->
    More = Recv(),
    exactly(Connection, Length, Have + byte_size(More), [More | Parts]).
