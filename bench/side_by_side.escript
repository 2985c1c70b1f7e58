#!/usr/bin/env escript
%% -*- erlang -*-
%%! +sbwt none +sbwtdcpu none +sbwtdio none
%% megaphone beside the same written in plain Erlang, in one run, the sides alternating:
%%   1. frames decoded and delivered to the processes that wait for them
%%   2. a BOSH request head to terms
%% Prints one JSON object with the value of every run, in the order they were made:
%%   {"frames": [{"connections": 1,
%%                "megaphone": {"per_second": [...], "cpu_ns": [...]},   CPU of the whole node a frame
%%                "plain": {"per_second": [...], "cpu_ns": [...]}}, ...],
%%    "heads": [{"type": "http_bin", "megaphone": [...], "plain": [...]}, ...]}   ns a head
-mode(compile).

-define(CONTENT, 100).                          % bytes of a frame's content, about a stanza
-define(CHUNK, 65536).                          % bytes of one read from a link

main([Ebin | Args]) ->
    true = code:add_patha(Ebin),
    ok = megaphone_nif:load(),
    {Runs, Megabytes, Heads} = sizes(Args),
    Frames = [frames(Connections, Megabytes, Runs) || Connections <- [1, 64, 1000, 20_000]],
    AllHeads = [heads(Type, Heads, Runs) || Type <- [http_bin, http]],
    io:format("~s~n", [json(#{frames => Frames, heads => AllHeads})]);
main([]) ->
    io:format(standard_error, "usage: side_by_side.escript EBIN [quick] [runs=N]~n", []),
    halt(2).

%% How often, with how many megabytes of frames and how many heads.
sizes(Args) ->
    {Runs, Megabytes, Heads} = case lists:member("quick", Args) of
                                   true -> {3, 4, 10_000};
                                   false -> {11, 64, 200_000}
                               end,
    case [list_to_integer(N) || "runs=" ++ N <- Args] of
        [N] -> {N, Megabytes, Heads};
        [] -> {Runs, Megabytes, Heads}
    end.

%%% Frames

frames(Connections, Megabytes, Runs) ->
    Frames = (Megabytes bsl 20) div (32 + ?CONTENT),
    Chunks = chunks(Connections, Frames),
    Run = fun(Reader) -> fun() -> run(Reader, Connections, Frames, Chunks) end end,
    {Ours, Theirs} = alternate(Run(fun megaphone/3), Run(fun plain/3), Runs),
    Figures = fun(Values) ->
                      #{per_second => [Frames / Wall || {Wall, _} <- Values],
                        cpu_ns => [Cpu * 1.0e9 / Frames || {_, Cpu} <- Values]}
              end,
    #{connections => Connections, megaphone => Figures(Ours), plain => Figures(Theirs)}.

%% One stream of frames, connections in turn, cut where reads would cut it.
chunks(Connections, Frames) ->
    Content = binary:copy(<<"x">>, ?CONTENT),
    cut(iolist_to_binary([frame(1 + N rem Connections, Content)
                          || N <- lists:seq(0, Frames - 1)])).

cut(<<Chunk:?CHUNK/binary, Rest/binary>>) -> [binary:copy(Chunk) | cut(Rest)];
cut(Rest) -> [Rest].

frame(Id, Content) ->
    io_lib:format("~10..0b|~20..0b|~s", [32 + byte_size(Content), Id, Content]).

%% Seconds, of the clock and of CPU, from the first chunk to the last byte in its owner's hands.
%% Every connection has been opened and its owner waits.
run(Reader, Connections, Frames, Chunks) ->
    Self = self(),
    Total = Frames * ?CONTENT,
    Count = counters:new(1, []),
    %% More than one owner may see the count full: the answer is of this run only.
    Done = make_ref(),
    Owners = [spawn_link(fun() -> owner(Count, Total, Self, Done) end)
              || _ <- lists:seq(1, Connections)],
    Pid = spawn_link(fun() -> Reader(Self, Owners, Chunks) end),
    receive {ready, Pid} -> ok end,
    Cpu = cpu(),
    Start = erlang:monotonic_time(),
    Pid ! go,
    receive Done -> ok end,
    Time = erlang:monotonic_time() - Start,
    CpuEnd = cpu(),
    [ended(P) || P <- [Pid | Owners]],
    {erlang:convert_time_unit(Time, native, nanosecond) / 1.0e9, (CpuEnd - Cpu) / 1.0e3}.

%% Returns when it has: what it leaves is not for the next run to clear away.
ended(Pid) ->
    Ref = monitor(process, Pid),
    unlink(Pid),
    exit(Pid, kill),
    receive {'DOWN', Ref, process, Pid, _} -> ok end.

%% Milliseconds.
cpu() ->
    {Total, _SinceLast} = statistics(runtime),
    Total.

owner(Count, Total, Main, Done) ->
    receive
        {tcp, _Socket, Data} ->
            counters:add(Count, 1, byte_size(Data)),
            counters:get(Count, 1) >= Total andalso (Main ! Done),
            owner(Count, Total, Main, Done)
    end.

%% The receiver's own loop, without a socket under it. The opening frames carry one byte, which
%% the owners get before the clock runs.
megaphone(Main, Owners, Chunks) ->
    Handshake = megaphone_nif:handshake_new(#{node => <<"bench">>, nonce => <<"00">>,
                                              window => 1 bsl 30, max_frame => 65536,
                                              allow_v1 => true, resume_timeout => 0,
                                              secret => nil}),
    {up, 1, 0} = megaphone_nif:handshake(Handshake, iolist_to_binary(frame(1, <<"o">>))),
    Link = megaphone_nif:link_new(#{name => <<"bench">>, window => 1 bsl 30,
                                    max_connections => 1_000_000, resume_buffer => 0,
                                    max_buffered => 1 bsl 40, idle_timeout => nil,
                                    peer => undefined, local => undefined}, Handshake),
    open(Link, Owners, 1),
    Main ! {ready, self()},
    receive go -> ok end,
    [feed(Link, Chunk, 0) || Chunk <- Chunks],
    receive stop -> Link end.

open(_Link, [], _Id) ->
    ok;
open(Link, [Owner | Owners], Id) ->
    {ok, News} = megaphone_nif:feed(Link, iolist_to_binary(frame(Id, <<"o">>)), 0),
    [Conn] = [Conn || {open, Conn, _, _} <- News],
    {ok, <<"o">>} = megaphone_nif:recv(Conn, 0),
    ok = megaphone_nif:set_owner(Conn, Owner, true),
    open(Link, Owners, Id + 1).

feed(Link, Chunk, Offset) ->
    case megaphone_nif:feed(Link, Chunk, Offset) of
        {ok, []} -> ok;
        {more, Next, []} -> feed(Link, Chunk, Next)
    end.

%% What one would write in Erlang: match the head, look the owner up, send. The copy is what
%% megaphone does too: without it an idle owner of 100 bytes keeps the whole chunk.
plain(Main, Owners, Chunks) ->
    Table = maps:from_list(lists:zip(lists:seq(1, length(Owners)), Owners)),
    Main ! {ready, self()},
    receive go -> ok end,
    lists:foldl(fun(Chunk, Left) -> split(<<Left/binary, Chunk/binary>>, Table) end,
                <<>>, Chunks),
    receive stop -> ok end.

split(<<Length:10/binary, $|, Id:20/binary, $|, Rest/binary>> = All, Table) ->
    Size = binary_to_integer(Length) - 32,
    case Rest of
        <<Content:Size/binary, Left/binary>> ->
            Number = binary_to_integer(Id),
            #{Number := Owner} = Table,
            Owner ! {tcp, {socket, Number}, binary:copy(Content)},
            split(Left, Table);
        _ ->
            All
    end;
split(Left, _Table) ->
    Left.

%%% Heads

heads(Type, Count, Runs) ->
    Head = head(),
    {ok, Items, <<>>} = megaphone_nif:decode_head(Type, Head),
    {Items, <<>>} = decode_loop(Type, Head),
    Each = fun(Decode) -> fun() -> nanoseconds(Decode, Type, Head, Count) end end,
    {Ours, Theirs} = alternate(Each(fun megaphone_nif:decode_head/2),
                               Each(fun decode_loop/2), Runs),
    #{type => Type, megaphone => Ours, plain => Theirs}.

%% In a process of its own, as a connection has, so that the garbage is counted in.
nanoseconds(Decode, Type, Head, Count) ->
    Self = self(),
    spawn_link(fun() ->
                       Start = erlang:monotonic_time(),
                       repeat(Decode, Type, Head, Count),
                       Self ! {took, erlang:monotonic_time() - Start}
               end),
    receive
        {took, Time} -> erlang:convert_time_unit(Time, native, nanosecond) / Count
    end.

repeat(_Decode, _Type, _Head, 0) ->
    ok;
repeat(Decode, Type, Head, Count) ->
    _ = Decode(Type, Head),
    repeat(Decode, Type, Head, Count - 1).

decode_loop(Type, Head) ->
    {ok, Request, Rest} = erlang:decode_packet(Type, Head, []),
    decode_loop(Type, Rest, [Request]).

decode_loop(Type, Bin, Items) ->
    case erlang:decode_packet(header_type(Type), Bin, []) of
        {ok, http_eoh, Rest} -> {lists:reverse(Items), Rest};
        {ok, Item, Rest} -> decode_loop(Type, Rest, [Item | Items])
    end.

header_type(http) -> httph;
header_type(http_bin) -> httph_bin.

%% What a browser sends for a BOSH request.
head() ->
    <<"POST /bosh HTTP/1.1\r\n"
      "Host: chat.example.org\r\n"
      "Connection: keep-alive\r\n"
      "Content-Length: 212\r\n"
      "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n"
      "Content-Type: text/xml; charset=utf-8\r\n"
      "Accept: */*\r\n"
      "Origin: https://chat.example.org\r\n"
      "Accept-Encoding: gzip, deflate, br\r\n"
      "Accept-Language: en-US,en;q=0.5\r\n"
      "\r\n">>.

%%% Both

%% Each side in turn, and each first as often as second (A B, B A), so that what disturbs the
%% machine disturbs both.
alternate(Ours, Theirs, Runs) ->
    _ = {Ours(), Theirs()},                     % warm
    lists:unzip([pair(N rem 2, Ours, Theirs) || N <- lists:seq(1, Runs)]).

pair(1, Ours, Theirs) ->
    First = Ours(),
    {First, Theirs()};
pair(0, Ours, Theirs) ->
    First = Theirs(),
    {Ours(), First}.

%% OTP 25 has no JSON of its own, and there is little to say.
json(Map) when is_map(Map) ->
    [${, lists:join($,, [[json(Key), $:, json(Value)] || {Key, Value} <- maps:to_list(Map)]), $}];
json(List) when is_list(List) -> [$[, lists:join($,, [json(Value) || Value <- List]), $]];
json(Atom) when is_atom(Atom) -> [$", atom_to_list(Atom), $"];
json(Float) when is_float(Float) -> io_lib:format("~.3f", [Float]);
json(Integer) -> integer_to_list(Integer).
