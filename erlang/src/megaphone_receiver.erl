%%% @doc Owns a link's socket: gives each chunk to the NIF, once, and does what the NIF cannot:
%%% hands opened connections to their services, says in the log what went wrong and whose fault
%%% it was, lets time pass, ends the connections with their link.
%%%
%%% Its {@link megaphone_sender} writes. The two are linked; whichever ends takes the other along,
%%% and whichever is left ends the connections.
-module(megaphone_receiver).
-behaviour(gen_server).

%% megaphone_links, megaphone_listener
-export([start_link/2, activate/1]).
%% megaphone
-export([info/1, link/1, links/0, create_table/0]).
%% megaphone_sender
-export([end_connections/2]).
%% gen_server
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-export_type([options/0, info/0]).

-include_lib("kernel/include/logger.hrl").

%% Links by the pid of their receiver, so that a connection is found without asking anybody.
-define(TABLE, megaphone_link_table).
%% Chunks of the link's socket between two looks at whether to read on. A version 1 link that
%% must stand still takes in at most so many more.
-define(ACTIVE, 16).
%% Bytes of a chunk: one read carries some hundreds of small frames.
-define(CHUNK, 131072).
%% How long the first frame may take, milliseconds (xmpp-proxy's 10 s for first bytes).
-define(HANDSHAKE_TIMEOUT, 10_000).
%% A second: the unit of `idle_timeout', of lingering and of what is said once and not each time.
-define(TICK, 1_000).
%% A silent version 2 link is pinged after so many seconds, and dropped after three times that.
-define(HEARTBEAT, 10).
%% How long the last words may take to be written, milliseconds.
-define(FLUSH_TIMEOUT, 2_000).
%% How long a link may take nothing of what we write, milliseconds.
-define(LINK_SEND_TIMEOUT, 30_000).

-type options() ::
        #{services := #{binary() => pid()},      % megaphone_service of each
          default := binary(),                   % that of version 1 connections
          name := binary(),                      % this node's, for the hello
          listener := binary(),                  % for the log
          window := pos_integer(),               % bytes
          max_frame := pos_integer(),            % bytes
          allow_v1 := boolean(),
          max_connections := pos_integer(),
          idle_timeout := timeout()}.            % milliseconds, version 1 only

-type info() :: #{link := binary(), listener := binary(), receiver := pid(),
                  peer_name := binary(), atom() => term()}.

-record(state, {link :: megaphone_nif:link(),
                name :: binary(),
                %% Name and address, for the log.
                who :: iodata(),
                socket :: gen_tcp:socket(),
                sender :: pid(),
                options :: options(),
                version :: undefined | 1 | 2,
                choked = false :: boolean(),
                %% Its peer has said that it goes.
                going = false :: boolean(),
                %% What `tick' said last: content lost, unknown verbs, bytes received.
                lost = 0 :: non_neg_integer(),
                unknown = 0 :: non_neg_integer(),
                received = 0 :: non_neg_integer(),
                silent = 0 :: non_neg_integer(),
                %% Kinds of warnings given since the last tick, with how many more there were.
                said = #{} :: #{kind() => non_neg_integer()}}).

-type kind() :: reset | overload | no_service.

%%% API

%% @doc Makes the table of links; its owner is the caller, for life.
-spec create_table() -> ok.
create_table() ->
    ?TABLE = ets:new(?TABLE, [named_table, public, {read_concurrency, true}]),
    ok.

%% @doc Starts the receiver of a link. It touches the socket only after it was made its owner and
%% then told so by {@link activate/1}.
-spec start_link(gen_tcp:socket(), options()) -> {ok, pid()} | {error, term()}.
start_link(Socket, Options) ->
    gen_server:start_link(?MODULE, {Socket, Options}, []).

-spec activate(pid()) -> ok.
activate(Pid) ->
    gen_server:cast(Pid, activate).

-spec info(pid()) -> info() | undefined.
info(Pid) ->
    try gen_server:call(Pid, info)
    catch exit:_ -> undefined
    end.

%% @doc The NIF's own handle of the link.
-spec link(pid()) -> {ok, megaphone_nif:link()} | {error, closed}.
link(Pid) ->
    case ets:lookup(?TABLE, Pid) of
        [{Pid, Link, _Name}] -> {ok, Link};
        [] -> {error, closed}
    end.

%% @doc The receivers of all links that are up.
-spec links() -> [{pid(), megaphone_nif:link(), Name :: binary()}].
links() ->
    case ets:whereis(?TABLE) of
        undefined -> [];
        Table -> ets:tab2list(Table)
    end.

%% @doc Ends all connections of a link that is lost.
-spec end_connections(megaphone_nif:link(), megaphone_nif:close_reason()) -> ok.
end_connections(Link, Reason) ->
    case megaphone_nif:end_some(Link, Reason) of
        more -> end_connections(Link, Reason);
        done -> ok
    end.

%%% gen_server

init({Socket, #{listener := Listener} = Options}) ->
    process_flag(trap_exit, true),
    Name = iolist_to_binary([Listener, $#, integer_to_list(erlang:unique_integer([positive]))]),
    Peer = address(inet:peername(Socket)),
    Link = megaphone_nif:link_new(link_options(Name, Socket, Options)),
    true = ets:insert(?TABLE, {self(), Link, Name}),
    erlang:send_after(?TICK, self(), tick),
    erlang:send_after(?HANDSHAKE_TIMEOUT, self(), handshake_timeout),
    {ok, #state{link = Link, name = Name, socket = Socket, options = Options,
                who = [Name, " (", format_address(Peer), ")"],
                sender = megaphone_sender:start_link(Link, Socket)}}.

link_options(Name, Socket, #{name := Node, idle_timeout := IdleTimeout} = Options) ->
    (maps:with([window, max_frame, allow_v1, max_connections], Options))
    #{name => Name,
      node => Node,
      nonce => binary:encode_hex(crypto:strong_rand_bytes(16)),
      idle_timeout => case IdleTimeout of
                          infinity -> nil;
                          Milliseconds -> (Milliseconds + 999) div 1000
                      end,
      peer => address(inet:peername(Socket)),
      local => address(inet:sockname(Socket))}.

address({ok, Address}) -> Address;
address({error, _}) -> undefined.

handle_cast(activate, #state{socket = Socket} = State) ->
    Options = [binary, {packet, raw}, {nodelay, true}, {keepalive, true}, {buffer, ?CHUNK},
               {send_timeout, ?LINK_SEND_TIMEOUT}, {send_timeout_close, true},
               {active, ?ACTIVE}],
    case inet:setopts(Socket, Options) of
        ok -> {noreply, State};
        {error, einval} ->                      % nodelay, on a Unix socket
            _ = inet:setopts(Socket, proplists:delete(nodelay, Options)),
            {noreply, State}
    end.

handle_call(info, _From, #state{link = Link, name = Name, options = Options} = State) ->
    #{listener := Listener} = Options,
    Info = maps:from_list(megaphone_nif:link_info(Link)),
    {reply, Info#{link => Name, listener => Listener,
                  receiver => self(), address => address(inet:peername(State#state.socket))},
     State}.

handle_info({tcp, _Socket, Chunk}, State) ->
    feed(Chunk, 0, State);
handle_info({tcp_passive, _Socket}, #state{choked = true} = State) ->
    {noreply, State};
handle_info({tcp_passive, _Socket}, State) ->
    {noreply, read_on(State)};
handle_info('$megaphone_resume', State) ->
    {noreply, read_on(State#state{choked = false})};
handle_info('$megaphone_ready', #state{link = Link} = State) ->
    case megaphone_nif:ready(Link) of
        more -> self() ! '$megaphone_ready';
        done -> ok
    end,
    {noreply, State};
handle_info(tick, State) ->
    erlang:send_after(?TICK, self(), tick),
    tick(State);
handle_info(handshake_timeout, #state{version = undefined} = State) ->
    lost("link ~ts: nothing came in ~b s, closed", [?HANDSHAKE_TIMEOUT div 1000], State);
handle_info(handshake_timeout, State) ->
    {noreply, State};
handle_info({tcp_closed, _Socket}, #state{link = Link} = State) ->
    case megaphone_nif:end_of_input(Link) of
        ok when State#state.going ->
            ?LOG_INFO("link ~ts: closed by its peer, as announced", [State#state.who]),
            {stop, {shutdown, link_lost}, State};
        ok -> lost("link ~ts: closed by its peer", [], State);
        {error, Text} -> lost("link ~ts: ~ts", [Text], State)
    end;
handle_info({tcp_error, _Socket, Reason}, State) ->
    lost("link ~ts: ~ts", [inet:format_error(Reason)], State);
handle_info({'EXIT', Sender, Reason}, #state{sender = Sender} = State) ->
    lost("link ~ts: cannot be written: ~tp", [Reason], State);
handle_info({'EXIT', _Parent, Reason}, State) ->
    {stop, Reason, State};
handle_info(_Other, State) ->
    {noreply, State}.

terminate(Reason, #state{link = Link, sender = Sender, socket = Socket}) ->
    ets:delete(?TABLE, self()),
    End = case Reason of
              shutdown -> shutdown;
              _ -> link_lost
          end,
    _ = case Reason of
            shutdown ->
                megaphone_nif:goaway(Link, shutdown),
                megaphone_sender:flush(Sender, ?FLUSH_TIMEOUT);
            _ ->
                ok
        end,
    gen_tcp:close(Socket),
    end_connections(Link, End).

%%% the way in

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

read_on(#state{socket = Socket} = State) ->
    _ = inet:setopts(Socket, [{active, ?ACTIVE}]),
    State.

news(News, State) ->
    lists:foldl(fun one/2, State, News).

one({open, Conn, Service, Id}, #state{options = #{default := Default}} = State) ->
    Name = case Service of
               undefined -> Default;
               _ -> Service
           end,
    open(Conn, Name, Id, State);
one({up, Version, Peer}, State) ->
    ?LOG_INFO("link ~ts: up, version ~b~ts", [State#state.who, Version, named(Peer)]),
    State#state{version = Version};
one({reset, Id, Text}, State) ->
    warn_once(reset, "link ~ts: connection ~20..0b: ~ts; the connection is reset", [Id, Text],
              State);
one({goaway, Reason}, State) ->
    ?LOG_INFO("link ~ts: its peer goes away: ~ts", [State#state.who, Reason]),
    State#state{going = true};
one({peer_error, Code, Text}, State) ->
    warn("link ~ts: its peer reports ~ts: ~ts", [Code, Text], State).

named(<<>>) -> "";
named(Peer) -> [", peer \"", printable(Peer), $"].

open(Conn, Name, Id, #state{options = #{services := Services}} = State) ->
    case Services of
        #{Name := Service} ->
            Socket = megaphone_socket:socket(Conn),
            %% In the queue the connection is the service's: it ends with it.
            _ = megaphone_nif:set_owner(Conn, Service, false),
            case megaphone_service:offer(Service, Socket) of
                ok ->
                    State;
                {error, overload} ->
                    megaphone_nif:abort(Conn, overload),
                    warn_once(overload, "link ~ts: connection ~20..0b: the accept queue of "
                              "service ~ts is full; the connection is refused", [Id, Name], State)
            end;
        _ ->
            megaphone_nif:abort(Conn, refused),
            warn_once(no_service, "link ~ts: connection ~20..0b: there is no service \"~ts\" "
                      "here; the connection is refused", [Id, printable(Name)], State)
    end.

%%% time

tick(#state{link = Link, lost = Lost0, unknown = Unknown0} = State) ->
    Now = erlang:monotonic_time(second) - erlang:convert_time_unit(
                                            erlang:system_info(start_time), native, second),
    {Lost, Last, Unknown, Received} = megaphone_nif:tick(Link, Now),
    _ = case Lost - Lost0 of
            0 -> State;
            New -> ?LOG_INFO("link ~ts: dropped the content of ~b frame(s) for connections "
                             "that are not open, the last one for connection ~20..0b",
                             [State#state.who, New, Last])
        end,
    _ = case Unknown - Unknown0 of
            0 -> State;
            Verbs -> ?LOG_INFO("link ~ts: ignored ~b control message(s) of an unknown kind",
                               [State#state.who, Verbs])
        end,
    _ = [?LOG_WARNING("link ~ts: ~b more connection(s) like that (~ts)",
                      [State#state.who, More, Kind])
         || {Kind, More} <- maps:to_list(State#state.said), More > 0],
    heartbeat(Received, State#state{lost = Lost, unknown = Unknown, said = #{}}).

heartbeat(Received, #state{version = 2, received = Received, silent = Silent} = State) ->
    case Silent + 1 of
        Seconds when Seconds >= 3 * ?HEARTBEAT ->
            lost("link ~ts: nothing came for ~b s, not even an answer to a ping", [Seconds], State);
        Seconds ->
            _ = Seconds rem ?HEARTBEAT =:= 0 andalso
                megaphone_nif:ping(State#state.link, integer_to_binary(Seconds)),
            {noreply, State#state{silent = Seconds}}
    end;
heartbeat(Received, State) ->
    {noreply, State#state{received = Received, silent = 0}}.

%%% the end

%% The peer broke the protocol: it is told, and the log tells us.
refuse_link(Code, Text, #state{link = Link, sender = Sender} = State) ->
    megaphone_nif:link_error(Link, Code, Text),
    _ = megaphone_sender:flush(Sender, ?FLUSH_TIMEOUT),
    _ = warn("link ~ts: ~ts (~ts); the link is closed", [Text, Code], State),
    {stop, {shutdown, {link, Code}}, State}.

lost(Format, Args, State) ->
    _ = warn(Format, Args, State),
    {stop, {shutdown, link_lost}, State}.

%% Whoever opens a hundred thousand bad connections gets a line a second, not a line each.
warn_once(Kind, Format, Args, #state{said = Said} = State) ->
    case Said of
        #{Kind := More} -> State#state{said = Said#{Kind := More + 1}};
        #{} -> warn(Format, Args, State#state{said = Said#{Kind => 0}})
    end.

warn(Format, Args, #state{who = Who} = State) ->
    ?LOG_WARNING(Format, [Who | Args]),
    State.

%% A peer's words may hold anything: what is no plain character shows as its code.
printable(Text) ->
    io_lib:format("~ts", [[escape(C) || C <- unicode:characters_to_list(Text)]]).

escape(C) when C >= 32, C < 127 -> C;
escape(C) -> io_lib:format("\\x{~.16b}", [C]).

format_address({{_, _, _, _} = Ip, Port}) -> io_lib:format("~s:~b", [inet:ntoa(Ip), Port]);
format_address({local, _}) -> "Unix socket";
format_address({Ip, Port}) -> io_lib:format("[~s]:~b", [inet:ntoa(Ip), Port]);
format_address(undefined) -> "gone".
