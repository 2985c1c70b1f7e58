%% A connection that the NIF speaks WebSocket on: its owner here, its client at the link's far end.
-module(ws_pair).

-include_lib("stdlib/include/assert.hrl").
-include("websocket_frames.hrl").

-export([start/2, start_with_owner/1, options/1]).
%% The owner's side.
-export([ask/1, next/1, message/0, got/0, got/1, over/1, reply/2, close/3]).
%% The client's.
-export([send/2, synced/1, outcome/1, rest/1, read/1, failed/1, frame/2, raw_frame/2, close_frame/2]).

-import(link_case, [peer/1, open/1]).

-define(TIMEOUT, 10000).
-define(QUIET, 200).

start(Config, Options) ->
    {Id, {_, _, Conn}} = open(Config),
    ok = megaphone_nif:ws_start(Conn, self(), options(Options)),
    #{peer => peer(Config), id => Id, conn => Conn}.

%% The owner does nothing but remember.
start_with_owner(Config) ->
    {Id, {_, _, Conn}} = open(Config),
    Owner = spawn(fun() -> receive {what, To} -> receive Message -> To ! {self(), Message} end end end),
    ok = megaphone_nif:ws_start(Conn, Owner, options(#{})),
    {Owner, #{peer => peer(Config), id => Id, conn => Conn}}.

options(Options) ->
    maps:merge(#{max_message => 1000000, ping_interval => 0, timeout => 0}, Options).

ask(#{conn := Conn}) -> megaphone_nif:ws_next(Conn).

next(Ws) ->
    case ask(Ws) of
        {ok, Message} -> Message;
        wait -> message()
    end.

message() ->
    receive {'$megaphone_ws', Message} -> Message
    after ?TIMEOUT -> error(no_message)
    end.

%% What the owner got, if anything.
got() -> got(?QUIET).

got(Timeout) ->
    receive Message -> Message
    after Timeout -> nothing
    end.

%% It has been told, once, that it is over.
over(#{conn := Conn}) ->
    receive {tcp_closed, {'$inet', megaphone_socket, Conn}} -> ok
    after ?TIMEOUT -> error(not_told)
    end,
    ?assertEqual(nothing, got(20)).

reply(#{conn := Conn}, Message) -> megaphone_nif:ws_send(Conn, Message).

close(#{conn := Conn}, Code, Reason) -> megaphone_nif:ws_close(Conn, Code, iolist_to_binary(Reason)).

send(#{peer := Peer, id := Id}, Bytes) -> ok = link_peer:send(Peer, Id, Bytes).

%% All that could be sent has been seen.
synced(#{peer := Peer}) -> ok = link_peer:flush(Peer).

outcome(#{peer := Peer, id := Id}) -> link_peer:outcome(Peer, Id).

rest(#{peer := Peer, id := Id}) ->
    {Bytes, _} = link_peer:recv_rest(Peer, Id),
    Bytes.

%% The next frame that the client gets: no server masks.
read(#{peer := Peer, id := Id} = Ws) ->
    <<First, 0:1, Short:7>> = link_peer:recv(Peer, Id, 2),
    Size = case Short of
               126 -> <<Length:16>> = link_peer:recv(Peer, Id, 2), Length;
               127 -> <<Length:64>> = link_peer:recv(Peer, Id, 8), Length;
               _ -> Short
           end,
    {First, take(Ws, Size)}.

take(_Ws, 0) -> <<>>;
take(#{peer := Peer, id := Id}, Size) ->
    %% By the piece, for no more than a window comes on credit.
    Piece = link_peer:recv(Peer, Id, min(Size, 500)),
    <<Piece/binary, (take(#{peer => Peer, id => Id}, Size - byte_size(Piece)))/binary>>.

%% The WebSocket was failed: with this code, and for this reason.
failed(Ws) ->
    {?FIN + ?CLOSE, <<Code:16, Text/binary>>} = read(Ws),
    {close, _} = outcome(Ws),
    {Code, Text}.

frame(Opcode, Payload) -> raw_frame(?FIN + Opcode, Payload).

%% A client's frame.
raw_frame(First, Payload0) ->
    Payload = iolist_to_binary(Payload0),
    Length = case byte_size(Payload) of
                 Size when Size < 126 -> <<1:1, Size:7>>;
                 Size when Size < 65536 -> <<1:1, 126:7, Size:16>>;
                 Size -> <<1:1, 127:7, Size:64>>
             end,
    Key = binary:copy(<<?KEY>>, byte_size(Payload) div 4 + 1),
    Masked = crypto:exor(Payload, binary:part(Key, 0, byte_size(Payload))),
    <<First, Length/binary, ?KEY, Masked/binary>>.

close_frame(Code, Reason) -> frame(?CLOSE, [<<Code:16>>, Reason]).
