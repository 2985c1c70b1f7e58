%% The far end of a link, written from docs/protocol.md alone: it shares no code
%% with the product. It splits frames, keeps what arrived for each connection,
%% honours the credit it was given and gives credit back as its caller takes
%% bytes. What a test wants to do wrong it does with raw/2.
%%
%%   Peer = link_peer:connect(Port, #{}),               % says hello, version 2
%%   ok = link_peer:open(Peer, 7, <<"default">>),
%%   ok = link_peer:send(Peer, 7, <<"abc">>),
%%   <<"abc">> = link_peer:recv(Peer, 7, 3),
%%   ok = link_peer:finish(Peer, 7),
%%   ended = link_peer:outcome(Peer, 7).
-module(link_peer).
-behaviour(gen_server).

%% The link.
-export([connect/1, connect/2, stop/1, abort/1, pause/1, resume/1, raw/2, control/2, flush/1]).
-export([hello/1, lines/1, wait_line/2, wait_line/3, link_outcome/1, link_outcome/2,
         address/1, received/1]).
%% One connection.
-export([open/3, open/4, send/3, finish/2, leave/2, close/3, reset/3]).
-export([recv/3, recv/4, recv_some/2, recv_rest/2, outcome/2, outcome/3]).
-export([credit/2, held/2, arrived/3, longest/1]).
%% Bytes.
-export([frame/2, head/2, line/1, hello_line/1, auth_line/3, decode/1]).
%% gen_server
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-define(TIMEOUT, 10000).
-define(HEAD, 32).

-type conn_id() :: non_neg_integer().
-record(conn, {in = <<>> :: binary(),         % arrived, not yet taken
               owed = 0 :: non_neg_integer(), % bytes of it whose credit was not given back
               outcome = open :: open | ended | {close | reset, binary()},
               out = <<>> :: binary(),        % waiting for credit
               finish = false :: boolean(),   % an empty frame follows `out`
               left = false :: boolean(),     % the client is gone: answer data with reset
               credit = 0 :: non_neg_integer() | infinity}).
-record(state, {sock, version, max_frame, window,
                peer_window = infinity, hello = undefined,
                buffer = <<>> :: binary(), lines = [] :: [binary()],
                longest = 0 :: non_neg_integer(),
                received = 0 :: non_neg_integer(), % bytes, those of the hello not
                keep = true :: boolean(),
                address,
                outcome = up :: up | closed | {error, term()},
                conns = #{} :: #{conn_id() => #conn{}},
                waits = [] :: [{gen_server:from(), fun()}]}).

%% ---- the link ----

connect(Where) -> connect(Where, #{}).

%% Options: version (2), handshake (true: say hello and wait for the answer),
%% name, window (bytes we take per connection), max_frame; keep (true: remember all
%% control lines; false: only as long as nobody has waited for them); options of
%% gen_tcp as `tcp`; options of ssl as `tls`; secret (the other side's proof is
%% checked, and ours is sent); resume_timeout (seconds), resume ({Link, Token,
%% Received}).
connect(Where, Options) ->
    {ok, Peer} = gen_server:start(?MODULE, {Where, Options, self()}, []),
    case Options of
        #{handshake := false} -> ok;
        #{version := 1} -> ok;
        _ ->
            ok = raw(Peer, frame(0, hello_line(Options))),
            <<"hello ", _/binary>> = wait_line(Peer, "^hello "),
            prove(Peer, Options)
    end,
    Peer.

prove(Peer, #{secret := Secret} = Options) ->
    #{<<"nonce">> := Theirs, <<"proof">> := Proof} = hello(Peer),
    Proof = hmac(Secret, ["megaphone server|", nonce(Options), "|", Theirs]),
    ok = raw(Peer, frame(0, auth_line(Secret, Theirs, nonce(Options))));
prove(_Peer, _Options) ->
    ok.

stop(Peer) -> gen_server:stop(Peer).

%% Ends the link with a TCP reset rather than a FIN.
abort(Peer) -> gen_server:call(Peer, abort).

%% Stops reading, and goes on.
pause(Peer) -> gen_server:call(Peer, {active, false}).
resume(Peer) -> gen_server:call(Peer, {active, true}).

%% Any bytes at all, as they are.
raw(Peer, Bytes) -> gen_server:call(Peer, {raw, Bytes}, ?TIMEOUT).

control(Peer, Line) -> raw(Peer, frame(0, line(Line))).

%% Everything sent so far was read by the other side: it has answered a ping that
%% went after it (version 2 only).
flush(Peer) ->
    Word = integer_to_binary(erlang:unique_integer([positive])),
    ok = control(Peer, [<<"ping ">>, Word]),
    _ = wait_line(Peer, [<<"^pong ">>, Word, <<"$">>]),
    ok.

%% What the other side said in its hello, or undefined.
hello(Peer) -> gen_server:call(Peer, hello).

%% Control lines that arrived, oldest first, without their newline.
lines(Peer) -> gen_server:call(Peer, lines).

wait_line(Peer, Pattern) -> wait_line(Peer, Pattern, ?TIMEOUT).
wait_line(Peer, Pattern, Timeout) -> wait(Peer, {line, iolist_to_binary(Pattern)}, Timeout).

%% closed | {error, Reason}: waits until the other side ended the link.
link_outcome(Peer) -> link_outcome(Peer, ?TIMEOUT).
link_outcome(Peer, Timeout) -> wait(Peer, link_outcome, Timeout).

%% Our own address, as the other side sees it, also after the end.
address(Peer) -> gen_server:call(Peer, address).

%% ---- one connection ----

open(Peer, Id, Service) -> open(Peer, Id, Service, "peer=192.0.2.7:40000 local=198.51.100.1:5280").

open(Peer, Id, Service, Rest) ->
    control(Peer, io_lib:format("open ~b service=~s ~s", [Id, Service, Rest])).

%% Queues the bytes; they go out as fast as the credit allows.
send(Peer, Id, Data) -> gen_server:call(Peer, {send, Id, iolist_to_binary(Data)}, ?TIMEOUT).

%% Our direction ends after what was queued (a FIN from the client).
finish(Peer, Id) -> gen_server:call(Peer, {finish, Id}, ?TIMEOUT).

%% The client closed its socket: FIN, and whatever still comes is refused.
leave(Peer, Id) -> gen_server:call(Peer, {leave, Id}, ?TIMEOUT).

close(Peer, Id, Reason) -> control(Peer, io_lib:format("close ~b reason=~s", [Id, Reason])).
reset(Peer, Id, Reason) -> control(Peer, io_lib:format("reset ~b reason=~s", [Id, Reason])).

%% Takes exactly N bytes, and gives their credit back. The outcome if the
%% connection ends first.
recv(Peer, Id, N) -> recv(Peer, Id, N, ?TIMEOUT).
recv(Peer, Id, N, Timeout) -> wait(Peer, {recv, Id, N}, Timeout).

%% Takes what there is, at least a byte.
recv_some(Peer, Id) -> wait(Peer, {recv, Id, some}, ?TIMEOUT).

%% Takes all until the other direction ends: {Bytes, Outcome}.
recv_rest(Peer, Id) -> recv_rest(Peer, Id, []).

recv_rest(Peer, Id, Acc) ->
    case recv_some(Peer, Id) of
        Bytes when is_binary(Bytes) -> recv_rest(Peer, Id, [Acc, Bytes]);
        Outcome -> {iolist_to_binary(Acc), Outcome}
    end.

%% ended | {close, Reason} | {reset, Reason} | link_closed: waits for it.
outcome(Peer, Id) -> outcome(Peer, Id, ?TIMEOUT).
outcome(Peer, Id, Timeout) -> wait(Peer, {outcome, Id}, Timeout).

%% How much we may still send, what is queued not subtracted.
credit(Peer, Id) -> gen_server:call(Peer, {credit, Id}).

%% Bytes that arrived and were not taken: those of which we gave no credit back.
held(Peer, Id) -> gen_server:call(Peer, {held, Id}).

%% Waits until so many are there, and takes none.
arrived(Peer, Id, N) -> wait(Peer, {arrived, Id, N}, ?TIMEOUT).

%% The longest content of a frame so far.
longest(Peer) -> gen_server:call(Peer, longest).

%% Bytes that came after the handshake, as `ack` and `received` count them.
received(Peer) -> gen_server:call(Peer, received).

wait(Peer, What, Timeout) ->
    try gen_server:call(Peer, {wait, What}, Timeout)
    catch exit:{timeout, _} -> error({timeout, What, sys:get_state(Peer)})
    end.

%% ---- bytes ----

frame(Id, Content) ->
    Bytes = iolist_to_binary(Content),
    [head(byte_size(Bytes) + ?HEAD, Id), Bytes].

%% Length is that of the whole frame.
head(Length, Id) -> iolist_to_binary(io_lib:format("~10..0b|~20..0b|", [Length, Id])).

line(Text) -> [Text, $\n].

hello_line(Options) ->
    line([io_lib:format("hello version=~b name=~s nonce=~s window=~b max_frame=~b",
                        [maps:get(version, Options, 2), maps:get(name, Options, "peer"),
                         nonce(Options), maps:get(window, Options, 16384),
                         maps:get(max_frame, Options, 65536)]),
          [io_lib:format(" resume_timeout=~b", [Seconds])
           || #{resume_timeout := Seconds} <- [Options]],
          [io_lib:format(" resume=~s token=~s received=~b", [Link, Token, Received])
           || #{resume := {Link, Token, Received}} <- [Options]]]).

nonce(Options) -> maps:get(nonce, Options, "00112233445566778899aabbccddeeff").

%% What proves to the other side, with its nonce, that we know the secret.
auth_line(Secret, Theirs, Ours) ->
    line(["auth proof=", hmac(Secret, ["megaphone client|", Theirs, "|", Ours])]).

hmac(Secret, Text) ->
    << <<(lists:nth(Half + 1, "0123456789abcdef"))>>
       || <<Half:4>> <= crypto:mac(hmac, sha256, Secret, Text) >>.

%% Whole frames and what is left over.
-spec decode(binary()) -> {[{conn_id(), binary()}], binary()}.
decode(Bytes) -> decode(Bytes, []).

decode(<<L:10/binary, $|, I:20/binary, $|, Rest/binary>> = All, Acc) ->
    Size = binary_to_integer(L) - ?HEAD,
    case Rest of
        <<Content:Size/binary, More/binary>> ->
            decode(More, [{binary_to_integer(I), Content} | Acc]);
        _ -> {lists:reverse(Acc), All}
    end;
decode(Bytes, Acc) ->
    {lists:reverse(Acc), Bytes}.

%% ---- gen_server ----

init({Where, Options, Owner}) ->
    _ = monitor(process, Owner),
    %% Active is what it becomes when all has been asked of it: one that closes at once has no address then.
    Tcp = [binary, {active, false}, {packet, raw}, {buffer, 131072} | maps:get(tcp, Options, [])],
    {ok, Sock} = case Where of
                     {local, _} -> gen_tcp:connect(Where, 0, [local | Tcp]);
                     Port -> gen_tcp:connect({127, 0, 0, 1}, Port, [{nodelay, true} | Tcp])
                 end,
    {ok, Address} = inet:sockname(Sock),
    {ok, #state{sock = secured(Sock, Options), address = Address, version = maps:get(version, Options, 2),
                max_frame = maps:get(max_frame, Options, 65536),
                window = maps:get(window, Options, 16384),
                keep = maps:get(keep, Options, true)}}.

%% {tcp, Socket} or {tls, Socket}: send/2 and set/2 know which.
secured(Sock, #{tls := Tls}) ->
    {ok, TlsSock} = ssl:connect(Sock, Tls, ?TIMEOUT),
    ok = ssl:setopts(TlsSock, [{active, true}]),
    {tls, TlsSock};
secured(Sock, _) ->
    ok = inet:setopts(Sock, [{active, true}]),
    {tcp, Sock}.

send({tcp, Sock}, Bytes) -> gen_tcp:send(Sock, Bytes);
send({tls, Sock}, Bytes) -> ssl:send(Sock, Bytes).

set({tcp, Sock}, Options) -> inet:setopts(Sock, Options);
set({tls, Sock}, Options) -> ssl:setopts(Sock, Options).

handle_call({wait, What}, From, State) ->
    {noreply, answer(State#state{waits = State#state.waits ++ [{From, What}]})};
handle_call({raw, Bytes}, _From, State) ->
    {reply, send(State#state.sock, Bytes), State};
handle_call({send, Id, Data}, _From, State) ->
    Conn = #conn{out = Out} = conn(Id, State),
    {reply, ok, push(Id, Conn#conn{out = <<Out/binary, Data/binary>>}, State)};
handle_call({finish, Id}, _From, State) ->
    {reply, ok, push(Id, (conn(Id, State))#conn{finish = true}, State)};
handle_call({leave, Id}, _From, State) ->
    Conn = (conn(Id, State))#conn{finish = true, left = true},
    {reply, ok, refuse(Id, Conn, push(Id, Conn, State))};
handle_call({credit, Id}, _From, State) ->
    {reply, (conn(Id, State))#conn.credit, State};
handle_call({held, Id}, _From, State) ->
    {reply, byte_size((conn(Id, State))#conn.in), State};
handle_call(received, _From, State) -> {reply, State#state.received, State};
handle_call(longest, _From, State) -> {reply, State#state.longest, State};
handle_call(hello, _From, State) -> {reply, State#state.hello, State};
handle_call(lines, _From, State) -> {reply, lists:reverse(State#state.lines), State};
handle_call(address, _From, State) -> {reply, State#state.address, State};
handle_call({active, Active}, _From, State) ->
    {reply, set(State#state.sock, [{active, Active}]), State};
handle_call(abort, _From, State = #state{sock = {tcp, Sock}}) ->
    _ = inet:setopts(Sock, [{linger, {true, 0}}]),
    ok = gen_tcp:close(Sock),
    {reply, ok, State#state{outcome = closed}}.

handle_cast(_, State) -> {noreply, State}.

handle_info({Data, _, Bytes}, State = #state{buffer = Buffer, received = Received})
  when Data =:= tcp; Data =:= ssl ->
    {Frames, Rest} = decode(<<Buffer/binary, Bytes/binary>>),
    {noreply, answer(lists:foldl(fun take_frame/2,
                                 State#state{buffer = Rest, received = Received + byte_size(Bytes)},
                                 Frames))};
handle_info({Closed, _}, State) when Closed =:= tcp_closed; Closed =:= ssl_closed ->
    {noreply, answer(State#state{outcome = closed})};
handle_info({Error, _, Why}, State) when Error =:= tcp_error; Error =:= ssl_error ->
    {noreply, answer(State#state{outcome = {error, Why}})};
handle_info({'DOWN', _, process, _, _}, State) ->
    {stop, normal, State}.

%% ---- what arrives ----

take_frame({0, Lines}, State) ->
    lists:foldl(fun take_line/2, State, binary:split(Lines, <<"\n">>, [global, trim_all]));
take_frame({Id, <<>>}, State) ->
    put_conn(Id, (conn(Id, State))#conn{outcome = ended}, State);
take_frame({Id, Content}, State0) ->
    State = State0#state{longest = max(byte_size(Content), State0#state.longest)},
    case conn(Id, State) of
        #conn{left = true} = Conn -> refuse(Id, Conn#conn{in = Content}, State);
        #conn{in = In, owed = Owed} = Conn ->
            put_conn(Id, Conn#conn{in = <<In/binary, Content/binary>>,
                                   owed = Owed + byte_size(Content)}, State)
    end.

take_line(Line, State0) ->
    State = State0#state{lines = [Line | State0#state.lines]},
    case binary:split(Line, <<" ">>, [global]) of
        [<<"hello">> | Words] ->
            Hello = maps:from_list([list_to_tuple(binary:split(W, <<"=">>)) || W <- Words]),
            State#state{hello = Hello,
                        received = State#state.received - ?HEAD - byte_size(Line) - 1,
                        peer_window = binary_to_integer(maps:get(<<"window">>, Hello))};
        [<<"window">>, Id, Bytes] -> granted(binary_to_integer(Id), binary_to_integer(Bytes), State);
        [<<"close">>, Id | Why] -> gone(close, binary_to_integer(Id), Why, State);
        [<<"reset">>, Id | Why] -> gone(reset, binary_to_integer(Id), Why, State);
        [<<"ping">>, Word] ->
            _ = send(State#state.sock, frame(0, line([<<"pong ">>, Word]))),
            State;
        _ -> State
    end.

granted(Id, Bytes, State) ->
    case conn(Id, State) of
        #conn{credit = infinity} -> State;
        #conn{credit = Credit} = Conn -> push(Id, Conn#conn{credit = Credit + Bytes}, State)
    end.

gone(How, Id, [<<"reason=", Why/binary>> | _], State) ->
    Conn = conn(Id, State),
    put_conn(Id, Conn#conn{outcome = {How, Why}, out = <<>>, finish = false}, State).

%% What TCP does when data comes for a socket that was closed.
refuse(Id, #conn{in = <<_, _/binary>>, outcome = open} = Conn, State) ->
    _ = send(State#state.sock,
                     frame(0, line(io_lib:format("reset ~b reason=client_closed", [Id])))),
    put_conn(Id, Conn#conn{in = <<>>, outcome = {reset, <<"client_closed">>}}, State);
refuse(Id, Conn, State) -> put_conn(Id, Conn#conn{in = <<>>}, State).

%% ---- what goes out ----

push(Id, Conn = #conn{out = Out, credit = Credit}, State) ->
    case min(byte_size(Out), Credit) of
        0 when Conn#conn.finish, Out =:= <<>> ->
            _ = send(State#state.sock, frame(Id, <<>>)),
            put_conn(Id, Conn#conn{finish = false}, State);
        0 -> put_conn(Id, Conn, State);
        Can ->
            Size = min(Can, State#state.max_frame),
            <<Now:Size/binary, Later/binary>> = Out,
            _ = send(State#state.sock, frame(Id, Now)),
            push(Id, Conn#conn{out = Later, credit = less(Credit, Size)}, State)
    end.

less(infinity, _) -> infinity;
less(Credit, Size) -> Credit - Size.

%% ---- who waits ----

answer(State = #state{waits = Waits}) ->
    lists:foldl(
      fun({From, What} = Wait, S) ->
              case ready(What, S) of
                  wait -> S#state{waits = S#state.waits ++ [Wait]};
                  {wait, S1} -> S1#state{waits = S1#state.waits ++ [Wait]};
                  {Reply, S1} -> gen_server:reply(From, Reply), S1
              end
      end, State#state{waits = []}, Waits).

ready({line, Pattern}, S) ->
    case [L || L <- lists:reverse(S#state.lines), re:run(L, Pattern, [{capture, none}]) =:= match] of
        [Line | _] when S#state.keep -> {Line, S};
        %% So much happened before it that nobody will ask for.
        [Line | _] -> {Line, S#state{lines = [], conns = #{}}};
        [] when S#state.outcome =/= up -> {link_closed, S};
        [] -> wait
    end;
ready(link_outcome, #state{outcome = up}) -> wait;
ready(link_outcome, S) -> {S#state.outcome, S};
ready({outcome, Id}, S) ->
    case conn(Id, S) of
        #conn{outcome = open} when S#state.outcome =:= up -> wait;
        #conn{outcome = open} -> {link_closed, S};
        #conn{outcome = Outcome} -> {Outcome, S}
    end;
ready({arrived, Id, N}, S) ->
    case conn(Id, S) of
        #conn{in = In} when byte_size(In) >= N -> {ok, S};
        _ -> ready({outcome, Id}, S)
    end;
ready({recv, Id, N}, S) ->
    case conn(Id, S) of
        #conn{in = In} = Conn when N =:= some, In =/= <<>> -> taken(byte_size(In), Id, Conn, S);
        #conn{in = In} = Conn when byte_size(In) >= N -> taken(N, Id, Conn, S);
        Conn ->
            %% Who waits for more than a window has to let more come.
            wants_more(Id, Conn, S)
    end.

wants_more(Id, Conn, S) ->
    case ready({outcome, Id}, S) of
        wait when Conn#conn.owed > 0 -> {wait, give_back(Conn#conn.owed, Id, Conn, S)};
        Answer -> Answer
    end.

taken(N, Id, Conn = #conn{in = In, owed = Owed}, S) ->
    <<Bytes:N/binary, Rest/binary>> = In,
    {Bytes, give_back(max(0, Owed - byte_size(Rest)), Id, Conn#conn{in = Rest}, S)}.

give_back(N, Id, Conn, S = #state{version = Version, sock = Sock}) ->
    _ = [send(Sock, frame(0, line(io_lib:format("window ~b ~b", [Id, N]))))
         || Version =:= 2, N > 0, Conn#conn.outcome =:= open],
    put_conn(Id, Conn#conn{owed = Conn#conn.owed - N}, S).

conn(Id, #state{conns = Conns, version = Version, peer_window = Window}) ->
    case Conns of
        #{Id := Conn} -> Conn;
        _ when Version =:= 1 -> #conn{credit = infinity};
        _ -> #conn{credit = Window}
    end.

put_conn(Id, Conn, State = #state{conns = Conns}) ->
    State#state{conns = Conns#{Id => Conn}}.
