%%% @doc Owns a link, from the first byte after its handshake: gives each chunk of its transport to
%%% the NIF, once, and does what the NIF cannot: hands opened connections to their services, says
%%% in the log what went wrong and whose fault it was, lets time pass.
%%%
%%% ```
%%%   up ──── the transport drops ────► parked ──── not resumed in time ────► gone
%%%    ▲                                  │
%%%    └──── its peer dials again ────────┘
%%% '''
%%%
%%% While it is parked its connections stay as they are: their readers wait, their writers fill what
%%% credit they have. A link of which one side keeps nothing (version 1, or `resume_timeout' 0) goes
%%% from up to gone. Its {@link megaphone_sender} writes; its {@link megaphone_ender} ends the
%%% connections when it is gone.
-module(megaphone_receiver).
-behaviour(gen_server).

%% megaphone_links
-export([start_link/1]).
%% megaphone_greeter
-export([activate/1, detach/2, attach/3]).
%% megaphone_listener
-export([lost/1]).
%% megaphone
-export([info/1]).
%% gen_server
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-export_type([options/0, info/0]).

%% Chunks of the link's socket between two looks at whether to read on. A version 1 link that
%% must stand still takes in at most so many more.
-define(ACTIVE, 16).
%% Bytes of a chunk: one read carries some hundreds of small frames, or a few large ones. A read
%% costs a turn of the emulator's poll set besides; more than this the emulator would map anew for
%% each (its single blocks begin at 512 KiB).
-define(CHUNK, 262144).
%% A second: the unit of `idle_timeout', of lingering and of what is said once and not each time.
-define(TICK, 1_000).
%% How long the last words may take to be written, milliseconds.
-define(FLUSH_TIMEOUT, 2_000).
%% When the peer of a link that ends with its listener may try again, seconds: not while the
%% listener still stands, on its way down.
-define(RETRY_AFTER, 1).
%% How long a link may take nothing of what we write, milliseconds.
-define(LINK_SEND_TIMEOUT, 30_000).

-type options() ::
        #{handshake := megaphone_nif:handshake(),
          version := 1 | 2,
          transport := megaphone_transport:t(),
          rest := binary(),                      % what came behind the handshake
          name := binary(),                      % the link's, for people
          token := binary(),                     % what its peer resumes it with
          listener := binary(),                  % for the log
          %% The megaphone_service of each, or what the NIF serves it with.
          services := #{binary() => pid() | megaphone_http_service:handle()},
          default := binary(),                   % that of version 1 connections
          window := pos_integer(),               % bytes
          max_connections := pos_integer(),
          resume_buffer := pos_integer(),        % bytes
          max_buffered := pos_integer(),         % bytes
          heartbeat := pos_integer(),            % milliseconds
          idle_timeout := timeout(),             % milliseconds, version 1 only
          atom() => term()}.

-type info() :: #{link := binary(), listener := binary(), receiver := pid(),
                  state := up | parked, resumable := boolean(), resumes := non_neg_integer(),
                  rtt := megaphone_heartbeat:rtt() | undefined,
                  atom() => term()}.

-record(state, {link :: megaphone_nif:link(),
                name :: binary(),
                log :: undefined | megaphone_link_log:t(),
                %% Neither while the link is parked.
                transport :: undefined | megaphone_transport:t(),
                sender :: undefined | pid(),
                parked :: undefined | #{timer := reference(), since := integer(),
                                        %% Who may bring the next transport.
                                        detacher := pid() | undefined},
                options :: options(),
                choked = false :: boolean(),
                %% Its peer has said that it goes, or is known to be gone.
                going = false :: boolean(),
                final = false :: boolean(),
                resumes = 0 :: non_neg_integer(),
                %% What `tick' said last: content lost, unknown verbs, whether it cannot be
                %% resumed any more.
                lost = 0 :: non_neg_integer(),
                unknown = 0 :: non_neg_integer(),
                overflowed = false :: boolean(),
                heartbeat :: undefined | megaphone_heartbeat:t()}).

%%% API

%% @doc Starts the receiver of a link whose handshake is done. It reads only after it was made the
%% transport's owner and then told so by {@link activate/1}.
-spec start_link(options()) -> {ok, pid()} | {error, term()}.
start_link(Options) ->
    gen_server:start_link(?MODULE, Options, []).

-spec activate(pid()) -> ok.
activate(Pid) ->
    gen_server:cast(Pid, activate).

%% @doc Parks a link, if it is not parked yet, for a peer that has dialled again and has so many
%% bytes of ours; the answer is how many of its bytes we have. The caller, and nobody who called
%% before, may then {@link attach/3}.
-spec detach(pid(), Received :: non_neg_integer()) ->
          {ok, non_neg_integer()} | {error, closed | forgotten}.
detach(Pid, Received) ->
    call(Pid, {detach, Received}).

%% @doc Gives a parked link its next transport, whose owner it has just been made, and what came on
%% it behind the handshake.
-spec attach(pid(), megaphone_transport:t(), Rest :: binary()) -> ok | {error, closed}.
attach(Pid, Transport, Rest) ->
    call(Pid, {attach, Transport, Rest}).

call(Pid, Request) ->
    try gen_server:call(Pid, Request)
    catch exit:_ -> {error, closed}
    end.

%% @doc The link's peer is gone for good: nobody will resume it.
-spec lost(pid()) -> ok.
lost(Pid) ->
    gen_server:cast(Pid, lost).

-spec info(pid()) -> info() | undefined.
info(Pid) ->
    try gen_server:call(Pid, info)
    catch exit:_ -> undefined
    end.

%%% gen_server

init(#{name := Name, token := Token, transport := Transport, handshake := Handshake} = Options) ->
    process_flag(trap_exit, true),
    Link = megaphone_nif:link_new(link_options(Options), Handshake),
    ok = megaphone_link_table:insert(Link, Name, Token),
    _ = megaphone_ender:start(Link),
    erlang:send_after(?TICK, self(), tick),
    {ok, on(Transport, #state{link = Link, name = Name,
                              options = maps:without([handshake, token, transport], Options)})}.

link_options(#{transport := Transport, idle_timeout := IdleTimeout} = Options) ->
    (maps:with([name, window, max_connections, resume_buffer, max_buffered], Options))
        #{idle_timeout => case IdleTimeout of
                              infinity -> nil;
                              Milliseconds -> (Milliseconds + 999) div 1000
                          end,
          peer => address(megaphone_transport:peername(Transport)),
          local => address(megaphone_transport:sockname(Transport))}.

address({ok, Address}) -> Address;
address({error, _}) -> undefined.

%% What is new with each transport.
on(Transport, #state{link = Link, name = Name, options = #{heartbeat := Heartbeat}} = State) ->
    State#state{transport = Transport, parked = undefined,
                sender = megaphone_sender:start_link(Link, Transport),
                heartbeat = megaphone_heartbeat:new(max(1, Heartbeat div ?TICK)),
                log = megaphone_link_log:new(Name, address(megaphone_transport:peername(Transport)))}.

handle_cast(activate, #state{options = #{rest := Rest, version := Version} = Options} = State) ->
    Peer = maps:get(peer_name, maps:from_list(megaphone_nif:link_info(State#state.link))),
    info("up, version ~b~ts", [Version, named(Peer)], State),
    begin_reading(Rest, State#state{options = maps:remove(rest, Options)});
handle_cast(lost, #state{parked = undefined} = State) ->
    {noreply, State#state{final = true}};
handle_cast(lost, State) ->
    gone("its peer is gone for good", [], State).

handle_call(info, _From, #state{link = Link, name = Name, options = Options} = State) ->
    #{listener := Listener} = Options,
    Info = maps:from_list(megaphone_nif:link_info(Link)),
    {reply, Info#{link => Name, listener => Listener, receiver => self(),
                  state => case State#state.parked of
                               undefined -> up;
                               #{} -> parked
                           end,
                  address => case State#state.transport of
                                 undefined -> undefined;
                                 Transport -> address(megaphone_transport:peername(Transport))
                             end,
                  rtt => megaphone_heartbeat:rtt(State#state.heartbeat), resumes => State#state.resumes,
                  resumable => resume_timeout(State) > 0},
     State};
handle_call({detach, Received}, {Pid, _Tag}, State) ->
    detach(Received, Pid, State);
handle_call({attach, Transport, Rest}, {Pid, _Tag} = From,
            #state{parked = #{detacher := Pid} = Parked} = State) ->
    #{timer := Timer, since := Since} = Parked,
    _ = erlang:cancel_timer(Timer),
    Again = maps:get(retained, maps:from_list(megaphone_nif:link_info(State#state.link))),
    Resumed = on(Transport, State#state{resumes = State#state.resumes + 1}),
    info("resumed after ~b ms, ~b byte(s) are sent again",
         [erlang:monotonic_time(millisecond) - Since, Again], Resumed),
    gen_server:reply(From, ok),
    begin_reading(Rest, Resumed);
handle_call({attach, _Transport, _Rest}, _From, State) ->
    {reply, {error, closed}, State}.

handle_info('$megaphone_resume', #state{transport = undefined} = State) ->
    {noreply, State#state{choked = false}};
handle_info('$megaphone_resume', State) ->
    {noreply, read_on(State#state{choked = false})};
handle_info('$megaphone_ready', #state{link = Link} = State) ->
    {More, News} = megaphone_nif:ready(Link),
    _ = More =:= more andalso (self() ! '$megaphone_ready'),
    {noreply, news(News, State)};
handle_info(tick, State) ->
    erlang:send_after(?TICK, self(), tick),
    tick(State);
handle_info({timeout, Timer, parked}, #state{parked = #{timer := Timer}} = State) ->
    gone("was not resumed in time", [], State);
handle_info({'EXIT', Sender, Reason}, #state{sender = Sender} = State) ->
    dropped("cannot be written: ~tp", [Reason], State#state{sender = undefined});
handle_info({'EXIT', Port, _Reason}, State) when is_port(Port) ->
    {noreply, State};                           % a transport that was given up
handle_info({'EXIT', _Listener, Reason}, State) ->
    {stop, Reason, State};
handle_info(Message, #state{transport = Transport} = State) ->
    case megaphone_transport:message(Transport, Message) of
        {data, Chunk} -> feed(Chunk, 0, State);
        passive when State#state.choked -> {noreply, State};
        passive -> {noreply, read_on(State)};
        closed -> closed(State);
        {error, Reason} -> dropped("~ts", [inet:format_error(Reason)], State);
        other -> {noreply, State}
    end.

%% Told that the node stops, or the listener: so is the peer, in good order.
terminate(shutdown, #state{link = Link, sender = Sender, transport = Transport})
  when Transport =/= undefined ->
    ok = megaphone_link_table:delete(),
    megaphone_nif:goaway(Link, shutdown, ?RETRY_AFTER, nil),
    case megaphone_sender:flush(Sender, ?FLUSH_TIMEOUT) of
        ok -> megaphone_transport:close(Transport);
        {error, _} -> megaphone_transport:abort(Transport)
    end;
terminate(_Reason, #state{transport = Transport}) ->
    ok = megaphone_link_table:delete(),
    _ = Transport =/= undefined andalso megaphone_transport:close(Transport),
    ok.

%%% the way in

begin_reading(Rest, #state{transport = Transport} = State) ->
    Options = [binary, {packet, raw}, {nodelay, true}, {keepalive, true}, {buffer, ?CHUNK},
               {send_timeout, ?LINK_SEND_TIMEOUT}, {send_timeout_close, true}],
    _ = case megaphone_transport:setopts(Transport, Options) of
            ok -> ok;
            {error, _} ->                       % nodelay, on a Unix socket
                megaphone_transport:setopts(Transport, proplists:delete(nodelay, Options))
        end,
    case feed(Rest, 0, State) of
        {noreply, #state{choked = false} = Fed} -> {noreply, read_on(Fed)};
        Other -> Other
    end.

feed(Chunk, Offset, #state{link = Link} = State) ->
    case megaphone_nif:feed(Link, Chunk, Offset) of
        {ok, []} ->
            {noreply, State};
        {ok, News} ->
            {noreply, news(News, State)};
        {more, Next, News} ->
            feed(Chunk, Next, news(News, State));
        {choked, News} ->
            {noreply, news(News, State#state{choked = true})};
        {fatal, Code, Text, News} ->
            refuse_link(Code, Text, news(News, State))
    end.

read_on(#state{transport = Transport} = State) ->
    case megaphone_transport:setopts(Transport, [{active, ?ACTIVE}]) of
        ok -> State;
        %% It closed before this, and nothing else will say so.
        {error, _} -> self() ! closed_message(Transport), State
    end.

closed_message({tcp, Socket}) -> {tcp_closed, Socket};
closed_message({tls, Socket}) -> {ssl_closed, Socket}.

closed(#state{going = true, final = true} = State) ->
    info("closed by its peer, as announced", [], State),
    {stop, {shutdown, peer_shutdown}, State};
closed(#state{link = Link} = State) ->
    case megaphone_nif:end_of_input(Link) of
        ok -> dropped("closed by its peer", [], State);
        {error, Text} -> dropped("~ts", [Text], State)
    end.

news(News, State) ->
    lists:foldl(fun one/2, State, News).

one({open, Conn, Service, Id}, #state{options = #{default := Default}} = State) ->
    Name = case Service of
               undefined -> Default;
               _ -> Service
           end,
    open(Conn, Name, Id, State);
one({request, Conn, Key}, State) ->
    _ = megaphone_http_request:start(Conn, Key),
    State;
one({reset, Id, Text}, State) ->
    warn_once(reset, "connection ~20..0b: ~ts; the connection is reset", [Id, Text], State);
one({refused, Id, Text}, State) ->
    warn_once(refused, "connection ~20..0b: ~ts", [Id, Text], State);
one({pong, Word}, #state{heartbeat = Heartbeat} = State) ->
    State#state{heartbeat = megaphone_heartbeat:pong(Word, Heartbeat)};
one({goaway, Reason, _RetryAfter, Within}, State) ->
    info("its peer goes away: ~ts", [Reason], State),
    _ = is_integer(Within) andalso megaphone_drain:link(self(), Within),
    State#state{going = true, final = State#state.final orelse Reason =:= <<"shutdown">>};
one({peer_error, Code, Text}, State) ->
    warn("its peer reports ~ts: ~ts", [Code, Text], State#state{final = true}).

named(<<>>) -> "";
named(Peer) -> [", peer \"", megaphone_link_log:printable(Peer), $"].

open(Conn, Name, Id, #state{options = #{services := Services}} = State) ->
    case Services of
        #{Name := {http, Key, Http}} ->
            megaphone_http_request:adopt(Conn, Key, Http, Name),
            State;
        #{Name := Service} ->
            Socket = megaphone_socket:socket(Conn),
            %% In the queue the connection is the service's: it ends with it.
            _ = megaphone_nif:set_owner(Conn, Service, false),
            case megaphone_service:offer(Service, Socket) of
                ok ->
                    State;
                {error, overload} ->
                    megaphone_nif:abort(Conn, overload),
                    warn_once(overload, "connection ~20..0b: the accept queue of "
                              "service ~ts is full; the connection is refused", [Id, Name], State)
            end;
        _ ->
            megaphone_nif:abort(Conn, refused),
            warn_once(no_service, "connection ~20..0b: there is no service \"~ts\" here; the "
                      "connection is refused", [Id, megaphone_link_log:printable(Name)], State)
    end.

%%% time

tick(#state{link = Link, parked = Parked, lost = Lost0, unknown = Unknown0} = State) ->
    {Lost, Last, Unknown, Received, Swamped, Overflowed} =
        megaphone_nif:tick(Link, Parked =/= undefined),
    _ = Lost > Lost0 andalso
        info("dropped the content of ~b frame(s) for connections that are not open, the last one "
             "for connection ~20..0b", [Lost - Lost0, Last], State),
    _ = Unknown > Unknown0 andalso
        info("ignored ~b control message(s) of an unknown kind", [Unknown - Unknown0], State),
    _ = Overflowed andalso not State#state.overflowed andalso
        warn("its peer acknowledges too little (resume_buffer); it cannot be resumed any more",
             [], State),
    Next = State#state{lost = Lost, unknown = Unknown, overflowed = Overflowed,
                       log = megaphone_link_log:tick(State#state.log)},
    case Swamped of
        true when Parked =/= undefined ->
            gone("too much waits for a peer that is not there", [], Next);
        _ ->
            heartbeat(Received, Next)
    end.

%% Version 1 has no word for it.
heartbeat(_Received, #state{parked = Parked, options = #{version := Version}} = State)
  when Parked =/= undefined; Version =:= 1 ->
    {noreply, State};
heartbeat(Received, #state{link = Link, heartbeat = Heartbeat} = State) ->
    {Due, Next} = megaphone_heartbeat:tick(Received, Heartbeat),
    Beaten = State#state{heartbeat = Next},
    case Due of
        ok ->
            {noreply, Beaten};
        {ping, Word} ->
            megaphone_nif:ping(Link, Word),
            {noreply, Beaten};
        {silent, Seconds} ->
            dropped("nothing came for ~b s, not even an answer to a ping", [Seconds], Beaten)
    end.

%%% parked

%% A dial that cannot be served leaves the link as it is: it may be an old one that comes late.
detach(_Received, _Pid, #state{final = true} = State) ->
    {reply, {error, closed}, State};
detach(Received, Pid, #state{link = Link} = State) ->
    case megaphone_nif:link_may_rewind(Link, Received) of
        true ->
            #state{parked = Parked} = Next = parked(State),
            {ok, _} = Ours = megaphone_nif:link_rewind(Link, Received),
            {reply, Ours, Next#state{parked = Parked#{detacher := Pid}}};
        false ->
            {reply, {error, forgotten}, State}
    end.

parked(#state{parked = undefined} = State) ->
    park(resume_timeout(State), "its peer dials again", [], State);
parked(State) ->
    State.

%% The transport is of no use any more.
dropped(Format, Args, State) ->
    case resume_timeout(State) of
        0 -> gone(Format, Args, State);
        Seconds -> {noreply, park(Seconds, Format, Args, State)}
    end.

%% Seconds for which the link may be parked.
resume_timeout(#state{final = true}) -> 0;
resume_timeout(#state{link = Link}) -> megaphone_nif:link_resumable(Link).

park(Seconds, Format, Args, #state{link = Link, sender = Sender, transport = Transport} = State) ->
    _ = Sender =/= undefined andalso megaphone_sender:stop(Link, Sender),
    megaphone_transport:abort(Transport),
    #{connections := Number} = maps:from_list(megaphone_nif:link_info(Link)),
    _ = warn(Format ++ "; parked with ~b connection(s), for ~b s at most",
             Args ++ [Number, Seconds], State),
    State#state{transport = undefined, sender = undefined, choked = false,
                parked = #{timer => erlang:start_timer(Seconds * 1000, self(), parked),
                           since => erlang:monotonic_time(millisecond),
                           detacher => undefined}}.

%%% the end

%% The peer broke the protocol: it is told, and the log tells us.
refuse_link(Code, Text, #state{link = Link, sender = Sender} = State) ->
    megaphone_nif:link_error(Link, Code, Text),
    _ = megaphone_sender:flush(Sender, ?FLUSH_TIMEOUT),
    _ = warn("~ts (~ts); the link is closed", [Text, Code], State),
    {stop, {shutdown, {link, Code}}, State}.

gone(Format, Args, State) ->
    _ = warn(Format, Args, State),
    {stop, {shutdown, link_lost}, State}.

%%% the log

info(Format, Args, #state{log = Log}) ->
    megaphone_link_log:info(Format, Args, Log).

warn(Format, Args, #state{log = Log} = State) ->
    megaphone_link_log:warn(Format, Args, Log),
    State.

warn_once(Kind, Format, Args, #state{log = Log} = State) ->
    State#state{log = megaphone_link_log:warn_once(Kind, Format, Args, Log)}.
