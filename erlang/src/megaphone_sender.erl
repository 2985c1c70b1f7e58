%%% @doc Writes what gathers in a link's outbox. Sleeps while there is nothing; is woken once by
%%% the first frame, and then writes all that has come meanwhile in one go.
-module(megaphone_sender).

%% megaphone_receiver
-export([start_link/2, flush/2]).
%% proc_lib
-export([init/3]).

%% @doc Starts the sender of a link, on behalf of its receiver. `Socket' may be written by any
%% process; its send_timeout decides how long a peer may take nothing.
-spec start_link(megaphone_nif:link(), gen_tcp:socket()) -> pid().
start_link(Link, Socket) ->
    Pid = proc_lib:spawn_link(?MODULE, init, [self(), Link, Socket]),
    ok = megaphone_nif:link_sender(Link, Pid),
    Pid ! '$megaphone_drain',
    Pid.

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
-spec init(pid(), megaphone_nif:link(), gen_tcp:socket()) -> no_return().
init(Receiver, Link, Socket) ->
    process_flag(trap_exit, true),
    loop(Receiver, Link, Socket).

loop(Receiver, Link, Socket) ->
    receive
        '$megaphone_drain' ->
            write(Receiver, Link, Socket),
            loop(Receiver, Link, Socket);
        {flush, From, Ref} ->
            write(Receiver, Link, Socket),
            From ! {flushed, Ref},
            loop(Receiver, Link, Socket);
        {'EXIT', Receiver, Reason} ->
            stop(Reason, Link)
    end.

%% `empty' parks: the next frame sends '$megaphone_drain'.
write(Receiver, Link, Socket) ->
    case megaphone_nif:drain(Link) of
        empty ->
            ok;
        Bytes ->
            case gen_tcp:send(Socket, Bytes) of
                ok -> write(Receiver, Link, Socket);
                {error, Reason} -> failed(Receiver, Link, Reason)
            end
    end.

%% Where the receiver lives it learns of it, and ends the link in good order.
-spec failed(pid(), megaphone_nif:link(), term()) -> no_return().
failed(Receiver, Link, Reason) ->
    receive
        {'EXIT', Receiver, Why} -> stop(Why, Link)
    after 0 ->
            exit({shutdown, {link_write, Reason}})
    end.

%% A receiver that was killed could end nothing: no user may be left on a link that is gone.
-spec stop(term(), megaphone_nif:link()) -> no_return().
stop(Reason, Link) ->
    megaphone_receiver:end_connections(Link, link_lost),
    exit(Reason).
