%% Raw HTTP over TCP: what a server answers to given bytes, byte for byte, and whether it takes
%% another request afterwards. Nothing is taken for granted but how long an answer is.
-module(e2e_raw).

-export([exchange/3, exchange/2, read/3, connect/2, status/1, head/1, body/1]).
-export_type([step/0, seen/0]).

-define(TIMEOUT, 5_000).
%% Asks for little, and for the end.
-define(PROBE, "GET /peer HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").

%% A request whose answer is read; one whose head is sent first and whose body when something, a
%% 100, has come; one whose parts are separate writes; requests in one write, whose answers are read then.
-type step() :: iodata() | {continue, Head :: iodata(), Body :: iodata()} | {parts, [iodata()]} | {pipeline, [iodata()]}.

%% Answers as they came; then `open` when the connection served one more request, `closed` when it
%% ended behind the last answer, `{closed, Rest}` when something else came before its end.
-type seen() :: [binary() | open | closed | reset | timeout | {closed | reset | timeout, binary()}].

-spec exchange(inet:port_number(), [step()]) -> seen().
exchange(Port, Steps) -> exchange(Port, Steps, []).

-spec exchange(inet:port_number(), [step()], [gen_tcp:connect_option()]) -> seen().
exchange(Port, Steps, Options) ->
    Socket = connect(Port, Options),
    try steps(Socket, Steps)
    after gen_tcp:close(Socket)
    end.

-spec connect(inet:port_number(), [gen_tcp:connect_option()]) -> gen_tcp:socket().
connect(Port, Options) ->
    {ok, Socket} = gen_tcp:connect({127, 0, 0, 1}, Port,
                                   [binary, {active, false}, {nodelay, true}, {show_econnreset, true} | Options],
                                   ?TIMEOUT),
    Socket.

steps(Socket, []) ->
    %% It may have closed already, which the reading then shows.
    _ = gen_tcp:send(Socket, ?PROBE),
    case read(Socket, "GET", <<>>) of
        {ok, <<"HTTP/1.1 200 ", _/binary>>, <<>>} -> [open];
        {ok, Other, Rest} -> [{open, <<Other/binary, Rest/binary>>}];
        %% The probe may have met a connection that had ended.
        {ended, reset, <<>>} -> [closed];
        {ended, How, <<>>} -> [How];
        {ended, How, Rest} -> [{How, Rest}]
    end;
steps(Socket, [{pipeline, Requests} | Steps]) ->
    _ = gen_tcp:send(Socket, Requests),
    pipeline(Socket, [method(Request) || Request <- Requests], <<>>, Steps);
steps(Socket, [Step | Steps]) ->
    {Method, Answers} = send_step(Socket, Step),
    case Answers of
        {ended, How, <<>>} -> [How];
        {ended, How, Rest} -> [{How, Rest}];
        {ok, Before} ->
            case final(Socket, Method, <<>>, Before) of
                {ok, Seen, Answer, <<>>} ->
                    case closes(Answer) of
                        true -> Seen ++ rest(Socket, <<>>);
                        false -> Seen ++ steps(Socket, Steps)
                    end;
                {ok, Seen, _Answer, Rest} -> Seen ++ rest(Socket, Rest);
                {ended, Seen, How, <<>>} -> Seen ++ [How];
                {ended, Seen, How, Rest} -> Seen ++ [{How, Rest}]
            end
    end.

pipeline(Socket, [], <<>>, Steps) -> steps(Socket, Steps);
pipeline(Socket, [], Rest, _Steps) -> rest(Socket, Rest);
pipeline(Socket, [Method | Methods], Bytes, Steps) ->
    case final(Socket, Method, Bytes, []) of
        {ok, Seen, Answer, Rest} ->
            case closes(Answer) of
                true -> Seen ++ rest(Socket, Rest);
                false -> Seen ++ pipeline(Socket, Methods, Rest, Steps)
            end;
        {ended, Seen, How, <<>>} -> Seen ++ [How];
        {ended, Seen, How, Rest} -> Seen ++ [{How, Rest}]
    end.

send_step(Socket, {continue, Head, Body}) ->
    Method = method(Head),
    _ = gen_tcp:send(Socket, Head),
    case read(Socket, Method, <<>>) of
        {ok, Answer, <<>>} ->
            _ = gen_tcp:send(Socket, Body),
            {Method, {ok, [Answer]}};
        {ok, Answer, Rest} -> {Method, {ended, garbled, <<Answer/binary, Rest/binary>>}};
        {ended, _, _} = Ended -> {Method, Ended}
    end;
send_step(Socket, {parts, Parts}) ->
    _ = [gen_tcp:send(Socket, Part) || Part <- Parts],
    {method(Parts), {ok, []}};
send_step(Socket, Request) ->
    _ = gen_tcp:send(Socket, Request),
    {method(Request), {ok, []}}.

%% The answer that counts; what was told before it (100) is seen as well.
final(Socket, Method, Bytes, Before) ->
    case read(Socket, Method, Bytes) of
        {ok, <<"HTTP/1.1 100", _/binary>> = Continue, Rest} -> final(Socket, Method, Rest, Before ++ [Continue]);
        {ok, Answer, Rest} -> {ok, Before ++ [Answer], Answer, Rest};
        {ended, How, Rest} -> {ended, Before, How, Rest}
    end.

%% One answer and what came with it.
-spec read(gen_tcp:socket(), Method :: iodata(), binary()) ->
          {ok, Answer :: binary(), Rest :: binary()} | {ended, closed | reset | timeout, binary()}.
read(Socket, Method, Bytes) ->
    case binary:match(Bytes, <<"\r\n\r\n">>) of
        nomatch ->
            case gen_tcp:recv(Socket, 0, ?TIMEOUT) of
                {ok, More} -> read(Socket, Method, <<Bytes/binary, More/binary>>);
                {error, Reason} -> {ended, ending(Reason), Bytes}
            end;
        {At, 4} ->
            Size = At + 4 + body_size(Method, binary:part(Bytes, 0, At + 4)),
            case byte_size(Bytes) of
                Have when Have >= Size ->
                    <<Answer:Size/binary, Rest/binary>> = Bytes,
                    {ok, Answer, Rest};
                Have ->
                    case gen_tcp:recv(Socket, Size - Have, ?TIMEOUT) of
                        {ok, More} -> {ok, <<Bytes/binary, More/binary>>, <<>>};
                        {error, Reason} -> {ended, ending(Reason), Bytes}
                    end
            end
    end.

body_size("HEAD", _Head) -> 0;
body_size(_, <<"HTTP/1.", _, " 1", _/binary>>) -> 0;
body_size(_, <<"HTTP/1.", _, " 204", _/binary>>) -> 0;
body_size(_, Head) ->
    case re:run(Head, "\r\ncontent-length: *([0-9]+)", [caseless, {capture, [1], binary}]) of
        {match, [Length]} -> binary_to_integer(Length);
        nomatch -> 0
    end.

%% Does the answer say that the connection ends, or is it no HTTP any more?
closes(<<"HTTP/1.1 101", _/binary>>) -> false;
closes(Answer) ->
    Head = head(Answer),
    Says = fun(What) -> re:run(Head, ["\r\nconnection: *", What], [caseless]) =/= nomatch end,
    case Head of
        <<"HTTP/1.0", _/binary>> -> not Says("keep-alive");
        _ -> Says("close")
    end.

rest(Socket, Bytes) ->
    case gen_tcp:recv(Socket, 0, ?TIMEOUT) of
        {ok, More} -> rest(Socket, <<Bytes/binary, More/binary>>);
        {error, Reason} when Bytes =:= <<>> -> [ending(Reason)];
        {error, Reason} -> [{ending(Reason), Bytes}]
    end.

ending(closed) -> closed;
ending(econnreset) -> reset;
ending(timeout) -> timeout.

-spec status(binary()) -> 100..599.
status(<<"HTTP/1.", _, " ", Status:3/binary, _/binary>>) -> binary_to_integer(Status).

-spec head(binary()) -> binary().
head(Answer) -> hd(binary:split(Answer, <<"\r\n\r\n">>)).

-spec body(binary()) -> binary().
body(Answer) ->
    [_, Body] = binary:split(Answer, <<"\r\n\r\n">>),
    Body.

method(Request) -> method(iolist_to_binary(Request), []).

method(<<Upper, Rest/binary>>, Method) when Upper >= $A, Upper =< $Z -> method(Rest, [Upper | Method]);
method(_, Method) -> lists:reverse(Method).
