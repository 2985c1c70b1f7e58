#!/usr/bin/env escript
%% -*- erlang -*-
%%! +sbwt none +sbwtdcpu none +sbwtdio none +P 1000000
%% What a connection of a version 2 link takes, and what a frame into one of very many costs. No sockets and no
%% ejabberd: the NIF is fed as a receiver feeds it.
%%
%%   1. bytes of an idle connection: as it is opened, as one of megaphone_http's between two requests, once it has
%%      an owner, and once it has carried a request and its answer as a socket; by where they are (the NIF's own count, the BEAM's binaries, its processes and the rest)
%%   2. frames of 100 bytes decoded and buffered into connections that nobody reads, on one scheduler
%%
%% Prints one JSON object: {"bytes": [{"state": "open", "nif": N, "binary": N, "processes": N, "ets": N,
%% "system": N, "total": N}, ...], "frames": [{"connections": N, "per_second": [N, ...],
%% "cpu_ns": [N, ...]}, ...]}, the last being the whole node's processor time for a frame
-mode(compile).

-define(CONTENT, 100).                          % bytes of a frame's content, about a stanza
-define(CHUNK, 262144).                         % bytes of one read from a link, as megaphone_receiver asks for
-define(WINDOW, 1 bsl 20).

main([Ebin | Args]) ->
    true = code:add_patha(Ebin),
    ok = megaphone_nif:load(),
    N = number("n=", Args, 100_000),
    Runs = number("runs=", Args, 5),
    Bytes = case lists:member("frames", Args) of
                true -> [];
                false -> in_its_own(fun() -> bytes(N) end)
            end,
    Frames = case lists:member("bytes", Args) of
                 true -> [];
                 false -> [in_its_own(fun() -> frames(C, Runs) end) || C <- lists:usort([1, 1_000, N]), C =< N,
                     not lists:member("large", Args) orelse C =:= N]
             end,
    io:format("~s~n", [json(#{bytes => Bytes, frames => Frames})]);
main([]) ->
    io:format(standard_error, "usage: connection.escript EBIN [bytes | frames] [n=100000] [runs=N]~n", []),
    halt(2).

number(Key, Args, Default) ->
    case [list_to_integer(Value) || Arg <- Args, {match, [Value]} <- [re:run(Arg, "^" ++ Key ++ "(\\d+)$",
                                                                             [{capture, all_but_first, list}])]] of
        [Number] -> Number;
        [] -> Default
    end.

%% What a process leaves behind is gone with it.
in_its_own(Fun) ->
    {Pid, Ref} = spawn_monitor(fun() -> exit({done, Fun()}) end),
    receive
        {'DOWN', Ref, process, Pid, {done, Result}} -> Result;
        {'DOWN', Ref, process, Pid, Reason} -> exit(Reason)
    end.

%%% The link

link_up(Window) ->
    Handshake = megaphone_nif:handshake_new(#{node => <<"bench">>, nonce => <<"00">>, window => Window,
                                              max_frame => 65536, allow_v1 => true, resume_timeout => 0,
                                              secret => nil}),
    Hello = frame(0, io_lib:format("hello version=2 name=bench window=~b max_frame=65536 nonce=00\n", [Window])),
    {hello, _, Used} = megaphone_nif:handshake(Handshake, iolist_to_binary(Hello)),
    Used = iolist_size(Hello),
    _ = megaphone_nif:handshake_answer(Handshake, <<"bench">>, <<"token">>, nil),
    {up, 2, 0} = megaphone_nif:handshake(Handshake, <<>>),
    megaphone_nif:link_new(#{name => <<"bench">>, window => Window, max_connections => 1_000_000,
                             resume_buffer => 0, max_buffered => 1 bsl 40, idle_timeout => nil,
                             peer => {{127, 0, 0, 1}, 1}, local => {{127, 0, 0, 1}, 2}}, Handshake).

%% The connections, in the order of their ids. They are kept by the link: the caller's list need not live.
open(Link, N) ->
    lists:append([open(Link, First, min(First + 999, N)) || First <- lists:seq(1, N, 1000)]).

open(Link, First, Last) ->
    Opens = [frame(0, io_lib:format("open ~b service=http peer=192.0.2.1:~b local=192.0.2.2:443\n",
                                    [Id, 1024 + Id rem 60_000])) || Id <- lists:seq(First, Last)],
    [Conn || {open, Conn, _, _} <- feed(Link, iolist_to_binary(Opens), 0)].

frame(Id, Content) ->
    io_lib:format("~10..0b|~20..0b|~s", [32 + iolist_size(Content), Id, Content]).

feed(Link, Chunk, Offset) ->
    case megaphone_nif:feed(Link, Chunk, Offset) of
        {ok, News} -> News;
        {more, Next, News} -> News ++ feed(Link, Chunk, Next)
    end.

drain(Link) ->
    case megaphone_nif:drain(Link) of
        empty -> ok;
        _ -> drain(Link)
    end.

%%% Bytes

bytes(N) ->
    in_its_own(fun() -> http_bytes(N) end) ++ in_its_own(fun() -> socket_bytes(N) end).

http_bytes(N) ->
    {Link, Ids, Start} = opened(N),
    Open = memory(),
    Service = megaphone_nif:http_service(#{key => 1, head_timeout => 10_000, body_timeout => 30_000,
                                           idle_timeout => 300_000, send_timeout => 15_000, max_body => 1 bsl 20}),
    each(Link, Ids, fun(Conn) -> ok = megaphone_nif:http_start(Conn, Service) end),
    [per(State, Start, Memory, N) || {State, Memory} <- [{open, Open}, {http, memory()}]].

%% A link, its connections, and what there was before them.
opened(N) ->
    Link = link_up(65_536),
    _ = open(Link, 1, 1),                       % what the first one takes, the link's own, is not counted
    Start = memory(),
    lists:foreach(fun(First) -> open(Link, First, min(First + 999, N + 1)) end, lists:seq(2, N + 1, 1000)),
    {Link, lists:seq(2, N + 1), Start}.

socket_bytes(N) ->
    {Link, Ids, Start} = opened(N),
    each(Link, Ids, fun(Conn) -> ok = megaphone_nif:set_owner(Conn, self(), false) end),
    Owned = memory(),
    each(Link, Ids, fun(Conn) -> used(Link, Conn) end),
    Used = memory(),
    _ = in_its_own(fun() -> [forget(Link, Id) || Id <- Ids], ok end),
    Gone = memory(),
    [per(State, Start, Memory, N) || {State, Memory} <- [{owned, Owned}, {used, Used}, {gone, Gone}]].

%% One at a time, so that no list of a hundred thousand references is counted too.
each(Link, Ids, Fun) ->
    lists:foreach(fun(Id) -> {ok, Conn} = megaphone_nif:lookup(Link, Id), Fun(Conn) end, Ids).

%% A request comes and is answered.
used(Link, Conn) ->
    Id = megaphone_nif:conn_id(Conn),
    [] = feed(Link, iolist_to_binary(frame(Id, binary:copy(<<"q">>, 500))), 0),
    {ok, <<_:500/binary>>} = megaphone_nif:recv(Conn, 0),
    ok = megaphone_nif:send(Conn, binary:copy(<<"a">>, 500)),
    drain(Link).

forget(Link, Id) ->
    {ok, Conn} = megaphone_nif:lookup(Link, Id),
    ok = megaphone_nif:close(Conn),
    drain(Link).

memory() ->
    erlang:garbage_collect(),
    timer:sleep(200),                           % schedulers give back what others freed
    erlang:garbage_collect(),
    maps:from_list([{nif, megaphone_nif:memory()} | erlang:memory()]).

per(State, Start, Now, N) ->
    Of = fun(Key) -> (maps:get(Key, Now) - maps:get(Key, Start)) / N end,
    #{state => State, nif => Of(nif), binary => Of(binary), ets => Of(ets),
      %% The caller's heap is garbage collected, and nothing of it is a connection's but the monitors.
      processes => Of(processes), other => Of(system) - Of(binary) - Of(ets),
      total => Of(nif) + Of(total)}.

%%% Frames

%% Chunks of frames, connections in turn by a step that has nothing to do with their place in memory, until each
%% has had some; then all are emptied, and so on.
frames(N, Runs) ->
    Link = link_up(?WINDOW),
    _ = open(Link, N),
    %% Of each connection in all the chunks: 4, and so many more that they fill some chunks.
    Each = max(4, 4 * ?CHUNK div (N * (32 + ?CONTENT))),
    Content = binary:copy(<<"x">>, ?CONTENT),
    Ids = spread(N),
    Chunks = chunks([frame(Id, Content) || _ <- lists:seq(1, Each), Id <- Ids]),
    Count = N * Each,
    Times = max(1, 400_000 div Count),
    {PerSecond, Cpu} = lists:unzip([run(Link, Ids, Chunks, Count, Times) || _ <- lists:seq(0, Runs)]),
    #{connections => N, per_second => PerSecond, cpu_ns => Cpu}.

spread(N) ->
    Step = lists:last([S || S <- [1, 7, 101, 1009, 10_007], S =< N, N rem S =/= 0 orelse S =:= 1]),
    [1 + (I * Step) rem N || I <- lists:seq(0, N - 1)].

chunks(Frames) ->
    cut(iolist_to_binary(Frames)).

cut(<<Chunk:?CHUNK/binary, Rest/binary>>) -> [binary:copy(Chunk) | cut(Rest)];
cut(<<>>) -> [];
cut(Rest) -> [binary:copy(Rest)].

run(Link, Ids, Chunks, Count, Times) ->
    erlang:garbage_collect(),
    Each = Count div length(Ids) * ?CONTENT,
    {Time, Cpu} = lists:unzip([begin
                                   Fed = fed(Link, Chunks),
                                   empty(Link, Ids, Each),
                                   Fed
                               end || _ <- lists:seq(1, Times)]),
    Total = Count * Times,
    {Total / (erlang:convert_time_unit(lists:sum(Time), native, nanosecond) / 1.0e9), lists:sum(Cpu) * 1.0e6 / Total}.

%% How long it took, and how many milliseconds of processor time.
fed(Link, Chunks) ->
    {Cpu, _} = statistics(runtime),
    Start = erlang:monotonic_time(),
    [feed(Link, Chunk, 0) || Chunk <- Chunks],
    Time = erlang:monotonic_time() - Start,
    {CpuEnd, _} = statistics(runtime),
    {Time, CpuEnd - Cpu}.

empty(Link, Ids, Bytes) ->
    each(Link, Ids, fun(Conn) -> {ok, Data} = megaphone_nif:recv(Conn, 0), Bytes = byte_size(Data) end),
    drain(Link).

%%% Output

json(Map) when is_map(Map) ->
    [${, lists:join($,, [[json(Key), $:, json(Value)] || {Key, Value} <- maps:to_list(Map)]), $}];
json(List) when is_list(List) -> [$[, lists:join($,, [json(Value) || Value <- List]), $]];
json(Atom) when is_atom(Atom) -> [$", atom_to_list(Atom), $"];
json(Float) when is_float(Float) -> io_lib:format("~.1f", [Float]);
json(Integer) -> integer_to_list(Integer).
