%% A model of gen_tcp's sockets, as docs/messages.md describes them, and the generator of
%% command sequences for it (proper_statem).
%%
%% The model is pure: step/3 says what a command returns, which blocked calls it answers, and
%% what lies in each process's mailbox afterwards. socket_world carries the commands out, on
%% real TCP or on virtual sockets, and postcondition/3 compares the two. Some processes
%% (1..3) own and use some connections; the far end of a connection is its client.
-module(socket_model).

-export([initial_state/0, command/1, precondition/2, postcondition/3, next_state/3]).
-export([property/2, bytes/1]).

-define(PROCESSES, [1, 2, 3]).
-define(CONNECTIONS_MAX, 3).
%% Bytes a client may have on their way: within one `buffer' of inet (1460), so that where
%% a raw stream is cut depends on no time.
-define(UNREAD_MAX, 1000).
%% Bytes the far end of a virtual socket lets come before it takes any (socket_world), and
%% what `send' may leave over before it blocks, and goes on at (inet's defaults).
-define(WINDOW, 2048).
-define(HIGH_WATERMARK, 8192).

-record(conn, {owner :: pos_integer(),
               packet :: raw | 1 | 2 | line,
               active = false :: boolean() | once | pos_integer(),
               exit_on_close :: boolean(),
               show_econnreset :: boolean(),
               open = true :: boolean(),
               %% Sent by the client and not taken; how its stream ends behind that.
               in = <<>> :: binary(),
               ended = no :: no | fin | reset,
               %% shutdown(read): what still comes is dropped.
               deaf = false :: boolean(),
               %% tcp_closed went out.
               told = false :: boolean(),
               writable = true :: boolean(),
               %% Sent and not taken by the client, and whether an end follows.
               out = <<>> :: binary(),
               out_ended = false :: boolean(),
               %% Over, but for what can still be read and asked.
               off = false :: boolean(),
               client = open :: open | finished | left | gone,
               %% Blocked in recv, in order, and in send.
               readers = [] :: [{pos_integer(), non_neg_integer()}],
               writers = [] :: [pos_integer()]}).

-record(model, {virtual :: boolean(),
                next = 1 :: pos_integer(),
                conns = #{} :: #{pos_integer() => #conn{}},
                %% Newest first.
                mail = maps:from_list([{P, []} || P <- ?PROCESSES]) :: #{pos_integer() => list()},
                %% What the command under way answers to blocked calls, newest first.
                answers = [] :: [{pos_integer(), term()}]}).

%% Holds when the world does what the model says, for any sequence of commands.
property(Group, Seed) ->
    put(?MODULE, Group),
    proper:setup(
      fun() ->
              _ = rand:seed(exsplus, Seed),
              fun() -> ok end
      end,
      proper:forall(
        proper_statem:commands(?MODULE),
        fun(Commands) ->
                socket_world:start(Group, ?PROCESSES, ?WINDOW),
                {History, _Model, Result} = proper_statem:run_commands(?MODULE, Commands),
                Difference = socket_world:stop(),
                proper:whenfail(fun() -> report(Commands, History, Result, Difference) end,
                                fun() -> Result =:= ok end)
        end)).

report(Commands, History, Result, Difference) ->
    io:format("~nThe sequence, with what each call returned:~n"),
    print(Commands, [Returned || {_, Returned} <- History]),
    io:format("It ended with ~tp~n~ts~n", [Result, Difference]).

print([{set, _, {call, _, do, [Name, Args]}} | Commands], [Returned | More]) ->
    io:format("  ~ts(~ts) -> ~tp~n",
              [Name, lists:join(", ", [io_lib:format("~tp", [A]) || A <- Args]), Returned]),
    print(Commands, More);
print(_NotDone, []) ->
    ok.

%%% proper_statem: what may be done

%% proper gives no argument.
initial_state() -> #model{virtual = get(?MODULE) =/= tcp}.

command(#model{next = Next, conns = Conns}) ->
    Flag = proper_types:boolean(),
    Open = [{6, call(open, [Next, process(), packet(), Flag, Flag])}
            || map_size(Conns) < ?CONNECTIONS_MAX],
    Use = case maps:keys(Conns) of
              [] ->
                  [];
              Ids ->
                  C = proper_types:oneof(Ids),
                  How = proper_types:oneof([read, write, read_write]),
                  [{12, call(client_send, [C, bytes()])},
                   {2, call(client_finish, [C])},
                   {2, call(client_leave, [C])},
                   {1, call(client_reset, [C])},
                   {5, call(client_take, [C])},
                   {8, call(recv, [process(), C, len()])},
                   {6, call(start_recv, [process(), C, len()])},
                   {8, call(start_send, [process(), C, proper_types:frequency([{5, bytes()}, {1, much()}])])},
                   {8, call(set_active, [process(), C, active()])},
                   {4, call(set_packet, [process(), C, packet()])},
                   {3, call(get_active, [process(), C])},
                   {6, call(controlling_process, [process(), C, process()])},
                   {2, call(shutdown, [process(), C, How])},
                   {2, call(close, [process(), C])},
                   {2, call(kill, [process()])},
                   {2, call(forget_mail, [process()])}]
          end,
    proper_types:frequency(Open ++ Use).

call(Name, Args) -> {call, socket_world, do, [Name, Args]}.

process() -> proper_types:oneof(?PROCESSES).
packet() -> proper_types:oneof([raw, 1, 2, line]).
len() -> proper_types:frequency([{4, 0}, {3, proper_types:integer(1, 8)}]).

active() ->
    proper_types:frequency([{3, false}, {2, true}, {2, once}, {3, proper_types:integer(1, 4)},
                            {1, proper_types:integer(-4, 0)},
                            {1, proper_types:oneof([-32768, 32767])}]).

%% Small numbers, which are lengths of packets, and line ends.
bytes() ->
    Byte = proper_types:frequency([{4, proper_types:integer(0, 4)}, {1, $\n}, {2, $x}]),
    proper_types:bind(proper_types:list(Byte), fun list_to_binary/1, true).

much() -> {much, proper_types:integer(1000, 9000)}.

%% As they stand in a command.
bytes({much, N}) -> binary:copy(<<"m">>, N);
bytes(Bytes) -> Bytes.

precondition(M, {call, _, do, [Name, Args]}) -> may(Name, Args, M).

may(open, [Id, P | _], #model{next = Next} = M) -> Id =:= Next andalso free(P, M);
may(forget_mail, [P], M) -> free(P, M);
may(kill, [P], M) -> M#model.virtual orelse real_may_kill(P, M);
may(client_take, [Id], M) -> is_client(Id, [open, finished], M);
may(client_send, [Id, Bytes], M) ->
    is_client(Id, [open], M)
        andalso byte_size((conn(Id, M))#conn.in) + byte_size(Bytes) =< ?UNREAD_MAX
        andalso real(M, conn(Id, M), fun real_may_hear/1);
may(client_finish, [Id], M) ->
    is_client(Id, [open], M) andalso real(M, conn(Id, M), fun real_may_hear/1);
may(Name, [Id], M) when Name =:= client_leave; Name =:= client_reset ->
    is_client(Id, [open], M) andalso real(M, conn(Id, M), fun real_may_break/1);
may(Name, [P, Id | Args], M) ->
    case conn(Id, M) of
        none -> false;
        C -> free(P, M)
                 andalso defined(Name, C)
                 andalso real(M, C, fun(_) -> real_may(Name, P, Id, Args, C, M) end)
    end.

free(P, #model{conns = Conns}) ->
    not lists:any(fun(C) -> blocked(P, C) end, maps:values(Conns)).

blocked(P, #conn{readers = Readers, writers = Writers}) ->
    lists:keymember(P, 1, Readers) orelse lists:member(P, Writers).

is_client(Id, States, M) ->
    case conn(Id, M) of
        none -> false;
        #conn{client = Client} -> lists:member(Client, States)
    end.

%% What becomes of a recv that waits when its socket changes its mode is nowhere said.
defined(set_active, #conn{readers = Readers}) -> Readers =:= [];
defined(set_packet, #conn{readers = Readers}) -> Readers =:= [];
defined(_, _) -> true.

%% On TCP not what would depend on time there, what the kernel decides, and what
%% docs/messages.md lists as a difference.
real(#model{virtual = true}, _, _) -> true;
real(_, C, May) -> May(C).

real_may_kill(P, #model{conns = Conns}) ->
    lists:all(fun(#conn{owner = Owner, open = Open, in = In, out = Out} = C) ->
                      %% What its port has asked for, a dead process takes along.
                      (Owner =:= P orelse not blocked(P, C))
                          andalso (Owner =/= P orelse not Open orelse In =:= <<>> orelse Out =:= <<>>)
              end, maps:values(Conns)).

real_may_hear(#conn{open = Open, deaf = Deaf}) ->
    Open andalso not Deaf.

real_may_break(C) -> real_may_hear(C) andalso C#conn.in =:= <<>>.

real_may(Name, _, _, [Len], C, _) when Name =:= recv; Name =:= start_recv ->
    C#conn.readers =:= []
        %% A recv of a length leaves a buffer of just that length when its time is up.
        andalso (Name =:= start_recv orelse Len =< byte_size(C#conn.in))
        %% Nor is there time to come to the end behind a part of a packet.
        andalso (C#conn.ended =:= no orelse C#conn.in =:= <<>> orelse Name =:= start_recv
                 orelse more =/= packet(C#conn.packet, Len, C#conn.in))
        andalso (Len =:= 0 orelse C#conn.packet =:= raw orelse C#conn.ended =:= no);
real_may(start_send, _, _, [Data], C, _) ->
    %% A send that fails breaks a real socket off, whichever direction it was.
    is_binary(Data) andalso (C#conn.writable orelse not C#conn.open)
        %% A reset behind a FIN shows in recv, and not to an active owner.
        andalso (C#conn.client =/= left orelse C#conn.in =:= <<>> andalso not C#conn.show_econnreset);
real_may(set_packet, _, _, _, C, _) -> C#conn.in =:= <<>>;
real_may(controlling_process, P, Id, [To], C, M) ->
    (P =:= C#conn.owner orelse To =/= C#conn.owner)
        andalso [] =:= [kept || {I, What} <- maps:get(P, M#model.mail), I =:= Id, not is_data(What)];
real_may(shutdown, _, _, _, C, _) -> C#conn.writable andalso C#conn.ended =:= no;
real_may(close, _, _, _, C, _) -> C#conn.in =:= <<>> orelse C#conn.out =:= <<>>;
real_may(_, _, _, _, _, _) -> true.

is_data({tcp, _}) -> true;
is_data(_) -> false.

%%% proper_statem: what must be seen

next_state(M, _Result, Call) ->
    {_, M1} = step(Call, M),
    M1.

postcondition(M, Call, Result) ->
    {Expected, M1} = step(Call, M),
    socket_world:agree(#{result => {Expected, Result},
                         answers => lists:reverse(M1#model.answers),
                         mail => maps:map(fun(_, Mail) -> lists:reverse(Mail) end, M1#model.mail),
                         refused => newly(fun(C) -> C#conn.client =:= gone end, M, M1) -- reset(Call),
                         closed => newly(fun(C) -> not C#conn.open end, M, M1),
                         taken => taken(Call, M)}).

%% Connections that this step has made so.
newly(Is, M, M1) ->
    [Id || {Id, C} <- maps:to_list(M#model.conns), not Is(C), Is(conn(Id, M1))].

reset({call, _, do, [client_reset, [Id]]}) -> [Id];
reset(_) -> [].

%% What the client shall find when it takes all: {Bytes, whether an end follows}.
taken({call, _, do, [client_take, [Id]]}, M) ->
    #conn{out = Out, out_ended = Ended} = conn(Id, M),
    {Id, Out, Ended};
taken(_, _) ->
    none.

%%% the model

step({call, _, do, [Name, Args]}, M) -> step(Name, Args, M#model{answers = []}).

step(open, [Id, P, Packet, ExitOnClose, Show], #model{conns = Conns} = M) ->
    C = #conn{owner = P, packet = Packet, exit_on_close = ExitOnClose, show_econnreset = Show},
    {ok, M#model{next = Id + 1, conns = Conns#{Id => C}}};
step(forget_mail, [P], M) ->
    {ok, M#model{mail = (M#model.mail)#{P := []}}};
step(kill, [P], M) ->
    M1 = maps:fold(fun(Id, C, Acc) -> put_conn(Id, without(P, C), Acc) end, M, M#model.conns),
    Owned = [Id || {Id, #conn{owner = Owner, open = true}} <- maps:to_list(M1#model.conns), Owner =:= P],
    M2 = lists:foldl(fun close/2, M1, Owned),
    {ok, M2#model{mail = (M2#model.mail)#{P := []}}};
step(Name, [Id | Args], M) when Name =:= client_send; Name =:= client_finish; Name =:= client_leave;
                                Name =:= client_reset; Name =:= client_take ->
    {ok, client(Name, Id, Args, conn(Id, M), M)};
step(Name, [P, Id | Args], M) ->
    server(Name, P, Id, Args, conn(Id, M), M).

%% ---- the client ----

client(client_send, Id, [Bytes], #conn{in = In} = C, M) ->
    Heard = C#conn.open andalso C#conn.ended =:= no andalso not C#conn.deaf,
    settle(Id, put_conn(Id, case Heard of
                                true -> C#conn{in = <<In/binary, Bytes/binary>>};
                                false -> C
                            end, M));
client(client_finish, Id, [], C, M) ->
    settle(Id, put_conn(Id, fin(C#conn{client = finished}), M));
client(client_leave, Id, [], #conn{out = <<>>} = C, M) ->
    settle(Id, put_conn(Id, fin(C#conn{client = left}), M));
client(client_leave, Id, [], C, #model{virtual = true} = M) ->
    %% With bytes not read: link_peer ends its stream, and then refuses them.
    M1 = settle(Id, put_conn(Id, fin(C#conn{client = left}), M)),
    broken_off(Id, conn(Id, M1), M1);
client(client_leave, Id, [], C, M) ->           % TCP only resets
    broken_off(Id, C, M);
client(client_reset, Id, [], C, M) ->
    broken_off(Id, C, M);
client(client_take, Id, [], #conn{writers = Writers} = C, M) ->
    answer(Writers, ok, put_conn(Id, C#conn{out = <<>>, writers = []}, M)).

fin(#conn{ended = no} = C) -> C#conn{ended = fin};
fin(C) -> C.

%% The client is gone, and with it what was under way in both directions.
broken_off(Id, #conn{out_ended = true, open = false} = C, M) ->
    fail_writers(Id, C#conn{client = gone}, M);
broken_off(Id, #conn{off = true} = C, M) ->
    put_conn(Id, C#conn{client = gone}, M);
broken_off(Id, #conn{client = left, out_ended = true, out = Out} = C, #model{virtual = true} = M)
  when byte_size(Out) =< ?WINDOW ->             % both ends were exchanged
    put_conn(Id, C#conn{client = gone}, M);
broken_off(Id, C, M) ->
    Gone = C#conn{client = gone, ended = reset, in = <<>>},
    settle(Id, fail_writers(Id, Gone, M)).

%% Nothing more can be sent; what had no credit never went out.
fail_writers(Id, #conn{writers = Writers, out = Out} = C, #model{virtual = Virtual} = M) ->
    Went = case Virtual of
               true -> binary:part(Out, 0, min(?WINDOW, byte_size(Out)));
               false -> Out
           end,
    Failed = C#conn{off = true, writable = false, writers = [], out = Went, out_ended = true},
    answer(Writers, {error, closed}, put_conn(Id, Failed, M)).

%% ---- the server's calls ----

server(recv, _, Id, [Len], C, M) ->
    case read(Len, C) of
        {error, _} = Error -> {Error, M};
        _ when C#conn.readers =/= [] -> {{error, timeout}, M};
        _ -> recv_now(Id, C#conn{readers = [{self, Len}]}, M)
    end;
server(start_recv, P, Id, [Len], #conn{readers = Readers} = C, M) ->
    case read(Len, C) of
        {error, _} = Error -> {started, answer([P], Error, M)};
        ok -> {started, settle(Id, put_conn(Id, C#conn{readers = Readers ++ [{P, Len}]}, M))}
    end;
server(start_send, P, Id, [Data], #conn{out = Out} = C, M) ->
    Framed = frame(C#conn.packet, bytes(Data)),
    if not C#conn.open; not C#conn.writable ->
            {started, answer([P], {error, closed}, M)};
       Framed =:= error ->
            {started, answer([P], {error, emsgsize}, M)};
       C#conn.client =:= left, Framed =/= <<>> ->
            {started, broken_off(Id, C, answer([P], ok, M))};
       true ->
            sent(P, Id, C#conn{out = <<Out/binary, Framed/binary>>}, M)
    end;
server(set_active, _, _, _, #conn{open = false}, M) ->
    {{error, einval}, M};
server(set_active, _, Id, [Active], C, M) ->
    case active(Active, C#conn.active) of
        error -> {{error, einval}, M};
        passive -> {ok, settle(Id, tell(Id, tcp_passive, put_conn(Id, C#conn{active = false}, M)))};
        New -> {ok, settle(Id, put_conn(Id, C#conn{active = New}, M))}
    end;
server(set_packet, _, _, _, #conn{open = false}, M) ->
    {{error, einval}, M};
server(set_packet, _, Id, [Packet], C, M) ->
    {ok, settle(Id, put_conn(Id, C#conn{packet = Packet}, M))};
server(get_active, _, _, _, #conn{open = false}, M) ->
    {{error, einval}, M};
server(get_active, _, _, _, #conn{active = Active}, M) ->
    {{ok, Active}, M};
server(controlling_process, _, _, _, #conn{open = false}, M) ->
    {{error, closed}, M};
server(controlling_process, P, _, _, #conn{owner = Owner}, M) when Owner =/= P ->
    {{error, not_owner}, M};
server(controlling_process, P, Id, [To], C, M) ->
    {ok, move(P, Id, To, put_conn(Id, C#conn{owner = To}, M))};
server(shutdown, _, _, _, #conn{open = false}, M) ->
    {{error, closed}, M};
server(shutdown, _, Id, [How], C, M) ->
    M1 = case How =/= write of
             true -> settle(Id, put_conn(Id, fin(C#conn{deaf = true}), M));
             false -> M
         end,
    {ok, case {How =/= read, conn(Id, M1)} of
             {true, #conn{open = true} = C1} ->
                 put_conn(Id, C1#conn{writable = false, out_ended = true}, M1);
             _ -> M1
         end};
server(close, P, Id, [], _, M) ->
    %% Its own end is no news to who closes.
    Mail = maps:get(P, M#model.mail),
    {ok, close(Id, M#model{mail = (M#model.mail)#{P := lists:delete({Id, tcp_closed}, Mail)}})}.

%% Whether a recv may be asked for at all.
read(_, #conn{open = false}) -> {error, closed};
read(_, #conn{active = Active}) when Active =/= false -> {error, einval};
read(Len, #conn{packet = Packet}) when Len > 0, Packet =/= raw -> {error, einval};
read(_, _) -> ok.

%% recv without a time to wait: as one that waits and is answered, or not.
recv_now(Id, C, M) ->
    case settle(Id, put_conn(Id, C, M)) of
        #model{answers = [{self, Answer} | _]} = M1 -> {Answer, M1#model{answers = []}};
        #model{answers = []} -> {{error, timeout}, M}
    end.

sent(P, Id, #conn{out = Out, writers = Writers} = C, #model{virtual = true} = M)
  when byte_size(Out) - ?WINDOW > ?HIGH_WATERMARK ->
    {started, put_conn(Id, C#conn{writers = Writers ++ [P]}, M)};
sent(P, Id, C, M) ->
    {started, answer([P], ok, put_conn(Id, C, M))}.

frame(1, Bytes) when byte_size(Bytes) > 255 -> error;
frame(1, Bytes) -> <<(byte_size(Bytes)), Bytes/binary>>;
frame(2, Bytes) -> <<(byte_size(Bytes)):16, Bytes/binary>>;
frame(_, Bytes) -> Bytes.

%% {active, N} is added to a count, and to nothing else.
active(N, Was) when is_integer(N) ->
    case N + if is_integer(Was) -> Was; true -> 0 end of
        Sum when Sum > 32767 -> error;
        Sum when Sum =< 0 -> passive;
        Sum -> Sum
    end;
active(Mode, _) ->
    Mode.

close(Id, M) ->
    case conn(Id, M) of
        #conn{open = false} ->
            M;
        #conn{readers = Readers} = C ->
            Closed = C#conn{open = false, writable = false, out_ended = true, active = false,
                            in = <<>>, readers = []},
            answer([P || {P, _} <- Readers], {error, closed}, put_conn(Id, Closed, M))
    end.

without(P, #conn{readers = Readers, writers = Writers} = C) ->
    C#conn{readers = lists:keydelete(P, 1, Readers), writers = lists:delete(P, Writers)}.

%% ---- what arrived meets who wants it ----

settle(Id, M) ->
    settle(Id, conn(Id, M), M).

settle(_, #conn{open = false}, M) ->
    M;
settle(Id, #conn{readers = [{P, Len} | Readers], in = In} = C, M) ->
    case packet(C#conn.packet, Len, In) of
        {Data, Rest} ->
            settle(Id, answer([P], {ok, Data}, put_conn(Id, C#conn{in = Rest, readers = Readers}, M)));
        more when C#conn.ended =:= no ->
            M;
        more ->
            at_end_passive(Id, C, M)
    end;
settle(_, #conn{active = false}, M) ->
    M;
settle(Id, #conn{in = In} = C, M) ->
    case packet(C#conn.packet, 0, In) of
        {Data, Rest} ->
            settle(Id, counted(Id, tell(Id, {tcp, Data}, put_conn(Id, C#conn{in = Rest}, M))));
        more when C#conn.ended =:= no; C#conn.told ->
            M;
        more ->
            at_end_active(Id, C, M)
    end.

counted(Id, M) ->
    C = conn(Id, M),
    case C#conn.active of
        once -> put_conn(Id, C#conn{active = false}, M);
        1 -> tell(Id, tcp_passive, put_conn(Id, C#conn{active = false}, M));
        N when is_integer(N) -> put_conn(Id, C#conn{active = N - 1}, M);
        true -> M
    end.

at_end_passive(Id, #conn{readers = Readers} = C, M) ->
    {Error, C1} = end_error(C),
    M1 = answer([P || {P, _} <- Readers], {error, Error}, put_conn(Id, C1#conn{readers = [], in = <<>>}, M)),
    case C#conn.exit_on_close of
        true -> fail_writers(Id, conn(Id, M1), M1);
        false -> M1
    end.

at_end_active(Id, C, M) ->
    {Error, C1} = end_error(C),
    M1 = put_conn(Id, C1#conn{in = <<>>, told = true}, M),
    M2 = case Error of
             closed -> M1;
             _ -> tell(Id, {tcp_error, Error}, M1)
         end,
    M3 = tell(Id, tcp_closed, M2),
    case C#conn.exit_on_close of
        true -> close(Id, M3);
        false -> M3
    end.

%% A reset is told once to who asked for it, and is an end like any other after that.
end_error(#conn{ended = reset, show_econnreset = true} = C) -> {econnreset, C#conn{ended = fin}};
end_error(C) -> {closed, C}.

packet(_, _, <<>>) -> more;
packet(raw, 0, In) -> {In, <<>>};
packet(raw, Len, In) when Len =< byte_size(In) -> split_binary(In, Len);
packet(1, 0, <<N, Data:N/binary, Rest/binary>>) -> {Data, Rest};
packet(2, 0, <<N:16, Data:N/binary, Rest/binary>>) -> {Data, Rest};
packet(line, 0, In) ->
    case binary:match(In, <<"\n">>) of
        {At, 1} -> split_binary(In, At + 1);
        nomatch -> more
    end;
packet(_, _, _) -> more.

%% ---- helpers ----

conn(Id, #model{conns = Conns}) -> maps:get(Id, Conns, none).

put_conn(Id, C, #model{conns = Conns} = M) -> M#model{conns = Conns#{Id => C}}.

answer(Processes, Answer, #model{answers = Answers} = M) ->
    M#model{answers = lists:reverse([{P, Answer} || P <- Processes], Answers)}.

tell(Id, Message, #model{mail = Mail} = M) ->
    #conn{owner = P} = conn(Id, M),
    M#model{mail = Mail#{P := [{Id, Message} | maps:get(P, Mail)]}}.

%% controlling_process takes along what the caller has of this socket's messages.
move(P, _, P, M) -> M;
move(P, Id, To, #model{mail = Mail} = M) ->
    {Moved, Left} = lists:partition(fun({I, _}) -> I =:= Id end, maps:get(P, Mail)),
    M#model{mail = Mail#{P := Left, To := Moved ++ maps:get(To, Mail)}}.
