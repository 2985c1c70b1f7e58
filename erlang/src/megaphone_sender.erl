%%% @doc Writes what gathers in a link's outbox to its transport. Sleeps while there is nothing;
%%% is woken once by the first frame, and then writes all that has come meanwhile in one go.
%%%
%%% It lives as long as the transport: a link that is parked has none.
-module(megaphone_sender).

%% megaphone_receiver
-export([start_link/2, stop/2, flush/2]).
%% proc_lib
-export([init/3]).

%% @doc Starts the sender of a link on a transport, on behalf of its receiver. The transport's
%% send_timeout decides how long a peer may take nothing.
-spec start_link(megaphone_nif:link(), megaphone_transport:t()) -> pid().
start_link(Link, Transport) ->
    Pid = proc_lib:spawn_link(?MODULE, init, [self(), Link, Transport]),
    ok = megaphone_nif:link_sender(Link, Pid),
    Pid ! '$megaphone_drain',
    Pid.

%% @doc Ends a sender, which may be in the middle of a write, and returns when it is gone. For its
%% receiver only.
-spec stop(megaphone_nif:link(), pid()) -> ok.
stop(Link, Pid) ->
    ok = megaphone_nif:link_sender(Link, undefined),
    exit(Pid, kill),
    receive {'EXIT', Pid, _} -> ok end.

%% @doc Waits until all that is in the outbox now is written, at most so many milliseconds. Called
%% before a link is closed, so that the last words reach the peer.
-spec flush(pid(), timeout()) -> ok | {error, timeout | closed}.
flush(Pid, Timeout) ->
    MRef = erlang:monitor(process, Pid),
    Pid ! {flush, self(), MRef},
    receive
        {flushed, MRef} ->
            erlang:demonitor(MRef, [flush]),
            ok;
        {'DOWN', MRef, process, Pid, _} ->
            {error, closed}
    after Timeout ->
            erlang:demonitor(MRef, [flush]),
            {error, timeout}
    end.

%% @private
-spec init(pid(), megaphone_nif:link(), megaphone_transport:t()) -> no_return().
init(Receiver, Link, Transport) ->
    process_flag(trap_exit, true),
    loop(Receiver, Link, Transport).

loop(Receiver, Link, Transport) ->
    receive
        '$megaphone_drain' ->
            write(Link, Transport),
            loop(Receiver, Link, Transport);
        {flush, From, Ref} ->
            write(Link, Transport),
            From ! {flushed, Ref},
            loop(Receiver, Link, Transport);
        {'EXIT', Receiver, Reason} ->
            exit(Reason)
    end.

%% `empty' parks: the next frame sends '$megaphone_drain'.
write(Link, Transport) ->
    case megaphone_nif:drain(Link) of
        empty ->
            ok;
        Bytes ->
            case megaphone_transport:send(Transport, Bytes) of
                ok -> write(Link, Transport);
                {error, Reason} -> exit({shutdown, {link_write, Reason}})
            end
    end.
