%% A version 2 link without sockets and without megaphone's processes: the caller is its receiver,
%% feeds it what the edge would send, and drains what the edge would get. Nothing happens but by
%% these calls, time included.
%%
%%   Link = nif_link:new(#{}),
%%   Conn = nif_link:open(Link, 7),
%%   News = nif_link:feed(Link, 7, <<"GET / HTTP/1.1\r\n...">>),
%%   <<"HTTP/1.1 200 ", _/binary>> = nif_link:sent(Link, 7),
%%   closed = nif_link:state(Link, 7).
-module(nif_link).

-export([new/1, open/2, feed/3, finish/2, close/2, reset/2, grant/3, ready/1, tick/2]).
-export([sent/2, told/1]).

-record(link, {ref :: megaphone_nif:link()}).

%% Options: window (what we may send, 65536), peer_window (what it may send, 65536), max_buffered.
new(Options) ->
    ok = megaphone_nif:load(),
    Window = maps:get(window, Options, 65536),
    Handshake = megaphone_nif:handshake_new(#{node => <<"test">>, nonce => <<"00">>, window => Window,
                                              max_frame => 65536, allow_v1 => true, resume_timeout => 0,
                                              secret => nil}),
    Hello = frame(0, io_lib:format("hello version=2 name=test window=~b max_frame=65536 nonce=00\n",
                                   [maps:get(peer_window, Options, 65536)])),
    {hello, _, _} = megaphone_nif:handshake(Handshake, Hello),
    _ = megaphone_nif:handshake_answer(Handshake, <<"test">>, <<"token">>, nil),
    {up, 2, 0} = megaphone_nif:handshake(Handshake, <<>>),
    Link = megaphone_nif:link_new(#{name => <<"test">>, window => Window, max_connections => 1000,
                                    resume_buffer => 0, idle_timeout => nil,
                                    max_buffered => maps:get(max_buffered, Options, 1 bsl 30),
                                    peer => {{127, 0, 0, 1}, 1}, local => {{127, 0, 0, 1}, 2}}, Handshake),
    put({told, Link}, []),
    #link{ref = Link}.

open(Link, Id) ->
    Open = io_lib:format("open ~b service=http peer=192.0.2.1:40000 local=192.0.2.2:443\n", [Id]),
    [{open, Conn, <<"http">>, Id}] = feed(Link, 0, Open),
    Conn.

%% The news of some content (or a control message, for connection 0).
feed(#link{ref = Link}, Id, Content) ->
    feed_all(Link, << <<(frame(Id, Part))/binary>> || Part <- parts(iolist_to_binary(Content)) >>, 0).

%% As an edge does: no frame longer than it may be.
parts(<<Part:60000/binary, Rest/binary>>) when Rest =/= <<>> -> [Part | parts(Rest)];
parts(Part) -> [Part].

feed_all(Link, Chunk, Offset) ->
    case megaphone_nif:feed(Link, Chunk, Offset) of
        {ok, News} -> News;
        {more, Next, News} -> News ++ feed_all(Link, Chunk, Next)
    end.

%% The client ends its direction, as most do when they go.
finish(#link{ref = Link}, Id) -> feed_all(Link, frame(Id, <<>>), 0).

close(Link, Id) -> feed(Link, 0, io_lib:format("close ~b reason=client_closed\n", [Id])).

reset(Link, Id) -> feed(Link, 0, io_lib:format("reset ~b reason=client_closed\n", [Id])).

%% The client has taken so many bytes.
grant(Link, Id, Bytes) -> feed(Link, 0, io_lib:format("window ~b ~b\n", [Id, Bytes])).

%% What has been put off is done now.
ready(#link{ref = Link} = L) ->
    receive '$megaphone_ready' -> ok after 0 -> ok end,
    case megaphone_nif:ready(Link) of
        {done, News} -> News;
        {more, News} -> News ++ ready(L)
    end.

%% So many seconds pass.
tick(#link{ref = Link} = L, Seconds) ->
    lists:append([begin
                      _ = megaphone_nif:tick(Link, false),
                      ready(L)
                  end || _ <- lists:seq(1, Seconds)]).

%% What was sent to a client since it was last asked for; with an `eof' behind it where the
%% connection was closed, a `reset' where it was broken off.
sent(#link{ref = Link} = L, Id) ->
    Frames = frames(drain(Link), L),
    {Mine, Others} = lists:partition(fun({Of, _}) -> Of =:= Id end, get({told, Link}) ++ Frames),
    put({told, Link}, Others),
    Bytes = << <<Content/binary>> || {_, Content} <- Mine, is_binary(Content), Content =/= <<>> >>,
    case [End || {_, End} <- Mine, is_atom(End)] of
        [] -> Bytes;
        [End | _] -> {Bytes, End}
    end.

%% Control messages that are not about an end.
told(#link{ref = Link} = L) ->
    Frames = get({told, Link}) ++ frames(drain(Link), L),
    {Mine, Others} = lists:partition(fun({Of, _}) -> Of =:= 0 end, Frames),
    put({told, Link}, Others),
    [Line || {0, Line} <- Mine].

drain(Link) ->
    receive '$megaphone_drain' -> ok after 0 -> ok end,
    case megaphone_nif:drain(Link) of
        empty -> <<>>;
        Bytes -> <<(iolist_to_binary(Bytes))/binary, (drain(Link))/binary>>
    end.

frames(<<>>, _) ->
    [];
frames(<<Length:10/binary, $|, Id:20/binary, $|, Rest/binary>>, L) ->
    Size = binary_to_integer(Length) - 32,
    <<Content:Size/binary, More/binary>> = Rest,
    [frame_of(binary_to_integer(Id), Content) | frames(More, L)].

frame_of(0, Line) ->
    case re:run(Line, "^(close|reset) (\\d+) ", [{capture, all_but_first, binary}]) of
        {match, [<<"close">>, Id]} -> {binary_to_integer(Id), eof};
        {match, [<<"reset">>, Id]} -> {binary_to_integer(Id), reset};
        nomatch -> {0, Line}
    end;
frame_of(Id, Content) ->
    {Id, Content}.

frame(Id, Content) ->
    iolist_to_binary(io_lib:format("~10..0b|~20..0b|~s", [32 + iolist_size(Content), Id, Content])).
