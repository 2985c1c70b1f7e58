%% Two ends of one connection, the same to every case in each group:
%%
%%   tcp        real gen_tcp on both sides: the oracle
%%   link       a virtual socket, its client played by link_peer frame by frame
%%   megaphone  a virtual socket, its client a real TCP client of a real megaphone-ecm
%%
%% The server side is a socket that gen_tcp:accept/1 gave; the client side is what
%% send/2, recv/2 and the rest below take.
-module(socket_pair).

%% For the suites.
-export([groups/2, init_group/2, end_group/2, init_case/1, end_case/1]).
%% For the cases.
-export([open/1, open/2, connect/1, listen/2, listener/1, group/1, virtual/1]).
-export([send/2, recv/2, rest/1, finish/1, close/1, reset/1, address/1, socket/1]).
-export([in_process/1, until_waiting/1, result/1, result/2, nothing/1, collect/2, flush/1,
         assert_closed/1]).

-define(TIMEOUT, 10000).
%% How long "no message comes" is believed to be true for ever.
-define(SILENCE, 60).
-define(LOOPBACK, {127, 0, 0, 1}).

%% ---- for the suites ----

groups(Names, Cases) -> [{Name, [], Cases} || Name <- Names].

init_group(tcp, Config) -> [{pair, tcp} | Config];
init_group(Name, Config) when Name =:= link; Name =:= megaphone ->
    {ok, _} = application:ensure_all_started(megaphone),
    case Name =:= megaphone andalso not filelib:is_regular(e2e_paths:ecm()) of
        true -> {skip, {not_built, e2e_paths:ecm()}};
        false -> [{pair, Name} | Config]
    end.

end_group(_, _Config) -> ok.

%% Each case has its own listener and its own link, so that what one leaves behind
%% no other can find.
init_case(Config) -> listen(Config, []).

%% When the case died so did its peer or edge: they watch it.
end_case(Config) ->
    [case Far of
         {tcp, L, _} -> gen_tcp:close(L);
         {link, L, Peer} -> catch link_peer:stop(Peer), gen_tcp:close(L);
         {megaphone, L, Edge} -> catch edge:stop(Edge), gen_tcp:close(L)
     end || {far, Far} <- Config],
    ok.

%% From here on open/1 and connect/1 use a new listener with these options.
listen(Config, Options) -> [{far, far(group(Config), Options)} | Config].

far(Group, Options) ->
    Listen = [binary, {active, false}, {ip, ?LOOPBACK}] ++ Options,
    {ok, L} = case Group of
                  tcp -> gen_tcp:listen(0, Listen);
                  _ -> megaphone:listen(0, Listen)
              end,
    {ok, Port} = inet:port(L),
    case Group of
        tcp -> {tcp, L, Port};
        link -> {link, L, link_peer:connect(Port, #{window => 65536})};
        megaphone -> {megaphone, L, edge:start(Port)}
    end.

%% ---- for the cases ----

open(Config) -> open(Config, []).

%% {Client, Server}, with these options set on the server's side.
open(Config, Options) ->
    Client = connect(Config),
    {ok, Server} = gen_tcp:accept(listener(Config), ?TIMEOUT),
    ok = inet:setopts(Server, Options),
    {Client, Server}.

connect(Config) ->
    case proplists:get_value(far, Config) of
        {tcp, _, Port} -> dial(Port);
        {megaphone, _, Edge} -> dial(edge:port(Edge));
        {link, _, Peer} ->
            Id = erlang:unique_integer([positive]),
            ok = link_peer:open(Peer, Id, <<"default">>),
            {link, Peer, Id}
    end.

dial(Port) ->
    {ok, S} = gen_tcp:connect(?LOOPBACK, Port, [binary, {active, false}, {nodelay, true},
                                                {exit_on_close, false}]),
    {tcp, S}.

listener(Config) -> element(2, proplists:get_value(far, Config)).
group(Config) -> proplists:get_value(pair, Config).
virtual(Config) -> group(Config) =/= tcp.

send({tcp, S}, Data) -> gen_tcp:send(S, Data);
send({link, Peer, Id}, Data) -> link_peer:send(Peer, Id, Data).

%% Exactly N bytes, or {error, closed}.
recv({tcp, _}, 0) -> <<>>;
recv({tcp, S}, N) ->
    case gen_tcp:recv(S, N, ?TIMEOUT) of
        {ok, Bytes} -> Bytes;
        Error -> Error
    end;
recv({link, Peer, Id}, N) ->
    case link_peer:recv(Peer, Id, N) of
        Bytes when is_binary(Bytes) -> Bytes;
        _ -> {error, closed}
    end.

%% All bytes up to the server's end of the stream.
rest({tcp, S}) -> rest(S, []);
rest({link, Peer, Id}) -> element(1, link_peer:recv_rest(Peer, Id)).

rest(S, Acc) ->
    case gen_tcp:recv(S, 0, ?TIMEOUT) of
        {ok, Bytes} -> rest(S, [Acc, Bytes]);
        {error, closed} -> iolist_to_binary(Acc);
        {error, Why} -> error({rest, Why, iolist_size(Acc)})
    end.

%% The client's FIN; it still receives.
finish({tcp, S}) -> gen_tcp:shutdown(S, write);
finish({link, Peer, Id}) -> link_peer:finish(Peer, Id).

%% The client's close(2).
close({tcp, S}) -> gen_tcp:close(S);
close({link, Peer, Id}) -> link_peer:leave(Peer, Id).

%% The client's RST.
reset({tcp, S}) ->
    ok = inet:setopts(S, [{linger, {true, 0}}]),
    gen_tcp:close(S);
reset({link, Peer, Id}) -> link_peer:reset(Peer, Id, "client_closed").

%% The client's own address.
address({tcp, S}) -> {ok, Address} = inet:sockname(S), Address;
address({link, _, _}) -> {{192, 0, 2, 7}, 40000}.

%% The client's real socket, for what only a real one can do.
socket({tcp, S}) -> S.

%% ---- processes and messages ----

%% Runs F in a process of its own; result/1 waits for what it gave.
in_process(F) ->
    Self = self(),
    Ref = make_ref(),
    {Pid, Monitor} = spawn_monitor(fun() -> Self ! {Ref, F()} end),
    {Pid, Ref, Monitor}.

%% It has come as far as waiting in a call for a message.
until_waiting({Pid, _, _}) ->
    poll:until(fun() ->
                       case process_info(Pid, [status, current_stacktrace]) of
                           [{status, waiting}, {current_stacktrace, [{Module, _, _, _} | _]}] ->
                               Module =/= ?MODULE andalso not is_suite(Module);
                           [_, _] ->
                               false;
                           undefined ->
                               error(died)
                       end
               end).

is_suite(Module) -> lists:suffix("_SUITE", atom_to_list(Module)).

result(Process) -> result(Process, ?TIMEOUT).

result({Pid, Ref, Monitor}, Timeout) ->
    receive
        {Ref, Result} -> demonitor(Monitor, [flush]), Result;
        {'DOWN', Monitor, process, Pid, Why} -> error({died, Why})
    after Timeout ->
        error({no_result, process_info(Pid, [current_stacktrace, messages])})
    end.

%% No message of this socket is here or comes.
nothing(S) ->
    receive
        {Tag, S} -> error({unexpected, Tag});
        {Tag, S, What} -> error({unexpected, Tag, What})
    after ?SILENCE -> ok
    end.

%% The data of {tcp, S, Data} messages until there are N bytes.
collect(S, N) -> collect(S, N, <<>>).

collect(_, N, Acc) when byte_size(Acc) >= N -> Acc;
collect(S, N, Acc) ->
    receive
        {tcp, S, Data} -> collect(S, N, <<Acc/binary, Data/binary>>)
    after ?TIMEOUT ->
        error({missing, N - byte_size(Acc), process_info(self(), messages)})
    end.

%% What is in the mailbox of this socket's messages, without waiting.
flush(S) ->
    receive
        {Tag, S} -> [Tag | flush(S)];
        {Tag, S, What} -> [{Tag, What} | flush(S)]
    after 0 -> []
    end.

%% gen_tcp's inet backend says enotconn where a socket that it closed itself, after an
%% error, is used again; its socket backend and megaphone say closed.
assert_closed({error, closed}) -> ok;
assert_closed({error, enotconn}) -> ok;
assert_closed(Other) -> error({not_closed, Other}).
