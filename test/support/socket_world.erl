%% Carries out the commands of socket_model: real processes, real sockets. The world is in
%% the process dictionary of whoever runs the commands, as proper_statem passes no state.
-module(socket_world).

-export([start/3, stop/0, do/2, agree/1]).
%% Its processes.
-export([hand/0]).

-define(TIMEOUT, 15_000).

-record(world, {config :: list(),
                %% {Client, Socket}
                conns = #{} :: #{pos_integer() => {term(), term()}},
                hands = #{} :: #{pos_integer() => pid()},
                %% Calls that hands are at.
                tasks = #{} :: #{pos_integer() => reference()},
                difference = "" :: iodata()}).

%% Window: what a virtual socket's client lets come before it takes any of it.
start(Group, Processes, Window) ->
    {ok, L} = case Group of
                  tcp -> gen_tcp:listen(0, [binary, {active, false}, {ip, {127, 0, 0, 1}}]);
                  link -> megaphone:listen(0, [{ip, {127, 0, 0, 1}}])
              end,
    {ok, Port} = inet:port(L),
    Far = case Group of
              tcp -> {tcp, L, Port};
              link -> {link, L, link_peer:connect(Port, #{window => Window})}
          end,
    put(?MODULE, #world{config = [{pair, Group}, {far, Far}],
                        hands = maps:from_list([{P, new_hand()} || P <- Processes])}),
    ok.

%% What was wrong, if anything was.
stop() ->
    #world{config = Config, hands = Hands, difference = Difference} = erase(?MODULE),
    _ = [exit(Pid, kill) || Pid <- maps:values(Hands)],
    socket_pair:end_case(Config),
    %% Answers that a failed comparison did not wait for.
    flush(),
    Difference.

flush() ->
    receive {Ref, _} when is_reference(Ref) -> flush()
    after 0 -> ok
    end.

%%% the commands

%% Debian's PropEr (1.2) cannot report an exception on this OTP, so none gets to it.
do(Name, Args) ->
    try command(Name, Args)
    catch Class:Reason:Stack -> {Class, Reason, Stack}
    end.

command(open, [Id, P, Packet, ExitOnClose, Show]) -> open(Id, P, Packet, ExitOnClose, Show);
command(kill, [P]) -> kill(P);
command(forget_mail, [P]) -> run(P, fun forget/0);
command(client_take, [_Id]) -> ok;              % agree/1 does: it knows how much there must be
command(client_send, [Id, Bytes]) -> heard(Id, socket_pair:send(client(Id), Bytes));
command(client_finish, [Id]) -> heard(Id, socket_pair:finish(client(Id)));
command(client_reset, [Id]) -> heard(Id, socket_pair:reset(client(Id)));
command(client_leave, [Id]) -> heard(Id, socket_pair:close(client(Id)));
command(Name, [P, Id | Args]) -> server(Name, P, socket(Id), Args).

server(recv, P, S, [Length]) -> run(P, fun() -> gen_tcp:recv(S, Length, 0) end);
server(start_recv, P, S, [Length]) -> start_call(P, fun() -> gen_tcp:recv(S, Length) end);
server(start_send, P, S, [Data]) ->
    Bytes = socket_model:bytes(Data),
    start_call(P, fun() -> sent(gen_tcp:send(S, Bytes)) end);
server(set_active, P, S, [Active]) -> run(P, fun() -> inet:setopts(S, [{active, Active}]) end);
server(set_packet, P, S, [Packet]) -> run(P, fun() -> inet:setopts(S, [{packet, Packet}]) end);
server(get_active, P, S, []) -> active(run(P, fun() -> inet:getopts(S, [active]) end));
server(controlling_process, P, S, [To]) ->
    Pid = hand(To),
    run(P, fun() -> gen_tcp:controlling_process(S, Pid) end);
server(shutdown, P, S, [How]) -> run(P, fun() -> gen_tcp:shutdown(S, How) end);
server(close, P, S, []) -> run(P, fun() -> gen_tcp:close(S) end).

active({ok, [{active, Active}]}) -> {ok, Active};
active(Error) -> Error.

open(Id, P, Packet, ExitOnClose, Show) ->
    #world{config = Config, conns = Conns} = World = world(),
    Client = socket_pair:connect(Config),
    Listener = socket_pair:listener(Config),
    Options = [{packet, Packet}, {exit_on_close, ExitOnClose}, {show_econnreset, Show}],
    {ok, Socket} = run(P, fun() ->
                                  {ok, S} = gen_tcp:accept(Listener, ?TIMEOUT),
                                  ok = inet:setopts(S, Options),
                                  {ok, S}
                          end),
    put(?MODULE, World#world{conns = Conns#{Id => {Client, Socket}}}),
    ok.

%% show_econnreset shows in gen_tcp:send too, even after a shutdown (docs/messages.md).
sent({error, econnreset}) -> {error, closed};
sent(Result) -> Result.

kill(P) ->
    #world{hands = Hands, tasks = Tasks} = World = world(),
    #{P := Pid} = Hands,
    Ref = monitor(process, Pid),
    exit(Pid, kill),
    receive {'DOWN', Ref, process, Pid, _} -> ok end,
    put(?MODULE, World#world{hands = Hands#{P := new_hand()}, tasks = maps:remove(P, Tasks)}),
    ok.

forget() ->
    receive
        {tcp, _, _} -> forget();
        {tcp_error, _, _} -> forget();
        {tcp_passive, _} -> forget();
        {tcp_closed, _} -> forget()
    after 0 -> ok
    end.

%%% comparing

%% Whether the world is as the model says; what differs is kept for stop/0. What is to come
%% is waited for.
agree(#{result := {Expected, Result}, answers := Answers, mail := Mail, closed := Closed,
        refused := Refused, taken := Taken}) ->
    try
        same("result", Expected, plain(Result)),
        [await_refused(client(Id)) || Id <- Refused],
        await_taken(Taken),
        [same({"answer to", P}, Answer, plain(await_answer(P))) || {P, Answer} <- Answers],
        [await_closed(Id) || Id <- Closed],
        [await_mail(P, M) || {P, M} <- maps:to_list(Mail)],
        [same({"no answer yet to", P}, none, early(P)) || P <- maps:keys((world())#world.tasks)],
        true
    catch
        throw:{differs, What, Model, World} ->
            differs("~tp~n  the model: ~tp~n  the world: ~tp", [What, Model, World]);
        Class:Reason:Stack ->
            differs("~tp", [{Class, Reason, Stack}])
    end.

differs(Format, Args) ->
    put(?MODULE, (world())#world{difference = io_lib:format(Format, Args)}),
    false.

same(_, Same, Same) -> ok;
same(What, Model, World) -> throw({differs, What, Model, World}).

%% gen_tcp says so of a socket that it has closed itself (docs/messages.md).
plain({error, enotconn}) -> {error, closed};
plain(Result) -> Result.

await_answer(P) ->
    #world{tasks = Tasks} = World = world(),
    case Tasks of
        #{P := Ref} ->
            put(?MODULE, World#world{tasks = maps:remove(P, Tasks)}),
            receive {Ref, Answer} -> Answer
            after ?TIMEOUT -> {none, process_info(hand(P), current_stacktrace)}
            end;
        #{} ->
            nothing_asked
    end.

early(P) ->
    #world{tasks = #{P := Ref}} = world(),
    receive {Ref, Answer} -> Answer
    after 0 -> none
    end.

await_taken(none) -> ok;
await_taken({Id, Bytes, Ended}) ->
    Client = client(Id),
    same({"taken by client", Id}, Bytes, socket_pair:recv(Client, byte_size(Bytes))),
    same({"behind that", Id}, <<>>, case Ended of
                                        true -> socket_pair:rest(Client);
                                        false -> <<>>
                                    end),
    case Client of
        {link, Peer, _} -> link_peer:flush(Peer);   % what it gave back has come
        {tcp, _} -> ok
    end.

%% What was sent to a client that is gone is refused, and that is known on this side.
await_refused({link, Peer, Number}) ->
    _ = link_peer:outcome(Peer, Number),        % or closed from here meanwhile
    link_peer:flush(Peer);
await_refused({tcp, _}) ->
    ok.

await_closed(Id) ->
    S = socket(Id),
    until(fun() -> inet:getopts(S, [active]) end, {error, einval}, {"closed", Id}).

await_mail(P, Mail) ->
    Pid = hand(P),
    Names = maps:from_list([{S, Id} || {Id, {_, S}} <- maps:to_list((world())#world.conns)]),
    until(fun() ->
                  {messages, Messages} = process_info(Pid, messages),
                  [named(M, Names) || M <- Messages, is_tuple(M), is_map_key(element(2, M), Names)]
          end, Mail, {"mailbox of", P}).

named({Tag, S}, Names) -> {maps:get(S, Names), Tag};
named({Tag, S, What}, Names) -> {maps:get(S, Names), {Tag, What}}.

until(Look, Wanted, What) -> until(Look, Wanted, What, erlang:monotonic_time(millisecond) + ?TIMEOUT).

until(Look, Wanted, What, Deadline) ->
    case Look() of
        Wanted ->
            ok;
        Other ->
            case erlang:monotonic_time(millisecond) < Deadline of
                true -> erlang:yield(), until(Look, Wanted, What, Deadline);
                false -> throw({differs, What, Wanted, Other})
            end
    end.

%%% helpers

world() -> get(?MODULE).
client(Id) -> element(1, maps:get(Id, (world())#world.conns)).
socket(Id) -> element(2, maps:get(Id, (world())#world.conns)).
hand(P) -> maps:get(P, (world())#world.hands).

%% What the client did has been seen by the socket: on loopback TCP it has when it was done.
heard(Id, ok) ->
    case client(Id) of
        {link, Peer, _} -> link_peer:flush(Peer);
        {tcp, _} -> ok
    end.

new_hand() -> spawn(fun hand/0).

hand() ->
    receive
        {do, F, Pid, Ref} -> Pid ! {Ref, F()}, ?MODULE:hand()
    end.

run(P, F) ->
    Ref = make_ref(),
    hand(P) ! {do, F, self(), Ref},
    receive {Ref, Result} -> Result
    after ?TIMEOUT -> {no_answer, process_info(hand(P), current_stacktrace)}
    end.

%% Lets a hand do something that may block. Returns when it has done it, or waits.
start_call(P, F) ->
    #world{tasks = Tasks} = World = world(),
    Ref = make_ref(),
    Pid = hand(P),
    Pid ! {do, F, self(), Ref},
    put(?MODULE, World#world{tasks = Tasks#{P => Ref}}),
    done_or_waiting(Pid, Ref).

done_or_waiting(Pid, Ref) ->
    {messages, Messages} = process_info(self(), messages),
    case lists:keymember(Ref, 1, Messages) of
        true -> started;
        false ->
            case process_info(Pid, [status, current_function]) of
                [{status, waiting}, {current_function, {M, _, _}}] when M =/= ?MODULE -> started;
                _ -> erlang:yield(), done_or_waiting(Pid, Ref)
            end
    end.
