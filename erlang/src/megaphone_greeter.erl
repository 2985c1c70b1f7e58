%% @doc Meets whoever dials: TLS, then the handshake of the protocol, and only then is there a
%% link. One process a dial, which ends when the link's receiver has the transport.
%%
%% Up to then the peer is a stranger. It has one deadline for all of it, of what it sends there is
%% one small chunk here at a time, and of the answer it hears nothing before its time where
%% others failed from its address ({@link megaphone_dials}). The kernel's receive buffer stays as
%% it is: to set it would end its tuning by itself for the link's whole life.
-module(megaphone_greeter).

%% megaphone_link
-export([start/3, activate/1]).
%% proc_lib
-export([init/3]).

%% How long all of it may take, milliseconds (xmpp-proxy's 10 s for first bytes).
-define(HANDSHAKE_TIMEOUT, 10_000).
%% Who looks whether the port is open needs no longer, milliseconds; who holds a place for longer
%% and says nothing keeps others out.
-define(LOOK_MAX, 1_000).
%% Bytes of a chunk: as much as the longest message has.
-define(CHUNK, 4096).

-record(state, {ref :: megaphone_link:ref(),
                transport :: megaphone_transport:t(),
                handshake :: undefined | megaphone_nif:handshake(),
                name :: binary(),               % the link's
                token :: binary(),
                log :: megaphone_link_log:t(),
                %% When we began to listen to the peer, and whether something has come.
                began :: undefined | integer(),
                heard = false :: boolean(),
                %% The receiver of the link that goes on.
                resumes :: undefined | pid(),
                deadline :: integer()}).

%% @doc Starts the greeter of a dial, linked to the caller (what ejabberd's supervisor wants) or
%% not. It touches the socket only after it was made its owner and then told so by
%% {@link activate/1}.
%%
%% `refused': by address or number; megaphone_dials has said so in the log.
-spec start(linked | alone, gen_tcp:socket(), megaphone_link:ref()) ->
          {ok, pid()} | {error, refused | closed}.
start(linked, Socket, Ref) -> proc_lib:start_link(?MODULE, init, [self(), Socket, Ref]);
start(alone, Socket, Ref) -> proc_lib:start(?MODULE, init, [self(), Socket, Ref]).

-spec activate(pid()) -> ok.
activate(Pid) ->
    Pid ! {?MODULE, go},
    ok.

%% @private
-spec init(pid(), gen_tcp:socket(), megaphone_link:ref()) -> no_return().
init(Parent, Socket, #{dials := Dials} = Ref) ->
    case inet:peername(Socket) of
        {ok, Peer} ->
            case enter(Dials, Peer) of
                {ok, Delay} ->
                    proc_lib:init_ack(Parent, {ok, self()}),
                    begin_after(Delay, new(Peer, Socket, Ref));
                {error, closed} ->
                    refuse(Parent, closed);
                {error, _} ->
                    refuse(Parent, refused)
            end;
        {error, _} ->
            refuse(Parent, closed)
    end.

%% Where the node stops, ejabberd's listener may stand a moment longer than what is behind it.
enter(Dials, Peer) ->
    case megaphone_app:is_stopping() of
        true -> {error, closed};
        false -> megaphone_dials:enter(Dials, Peer)
    end.

-spec refuse(pid(), refused | closed) -> no_return().
refuse(Parent, Reason) ->
    proc_lib:init_ack(Parent, {error, Reason}),
    exit(normal).

new(Peer, Socket, #{name := Listener} = Ref) ->
    Name = iolist_to_binary([Listener, $#, integer_to_list(erlang:unique_integer([positive]))]),
    #state{ref = Ref, transport = {tcp, Socket}, name = Name,
           token = binary:encode_hex(crypto:strong_rand_bytes(16)),
           log = megaphone_link_log:new(Name, Peer),
           deadline = now_ms() + ?HANDSHAKE_TIMEOUT}.

begin_after(Delay, State) ->
    receive {?MODULE, go} -> ok
    after left(State) -> exit(normal)           % the socket is not ours
    end,
    receive after Delay -> ok end,
    greet(secure(tame(State#state{began = now_ms()}))).

%% What it sends comes in small pieces, and only when asked for.
tame(#state{transport = Transport} = State) ->
    case megaphone_transport:setopts(Transport, [binary, {packet, raw}, {active, false},
                                                 {buffer, ?CHUNK},
                                                 {send_timeout, ?HANDSHAKE_TIMEOUT}]) of
        ok -> State;
        {error, _} -> closed(State)
    end.

%%% TLS

secure(#state{ref = #{access := Access}, transport = {tcp, Socket}} = State) ->
    case megaphone_access:tls(Access) of
        none -> State;
        {ok, Options} ->
            case megaphone_transport:tls(Socket, Options, left(State)) of
                {ok, Transport} -> State#state{transport = Transport};
                {error, closed} -> closed(State);
                {error, timeout} -> too_late(State);
                {error, Reason} -> failed("the TLS handshake failed: ~ts; the link is closed",
                                          [tls_error(Reason)], State)
            end
    end.

%% An alert's name says it (RFC 8446, 6.2), the sentences around it are for ssl's own authors.
tls_error({tls_alert, {Alert, _}}) ->
    string:replace(atom_to_list(Alert), "_", " ", all);
tls_error(Reason) ->
    lists:join(" ", string:lexemes(ssl:format_error({error, Reason}), "\r\n")).

%%% the protocol's handshake

greet(#state{ref = Ref} = State) ->
    read(State#state{handshake = handshake(Ref)}).

%% The NIF's own error would show its argument, and with it the secret.
handshake(#{link := Link, node := Node, access := Access}) ->
    Options = (maps:with([window, max_frame, allow_v1], Link))
        #{node => Node,
          nonce => binary:encode_hex(crypto:strong_rand_bytes(16)),
          resume_timeout => seconds(maps:get(resume_timeout, Link)),
          secret => megaphone_access:secret(Access)},
    try megaphone_nif:handshake_new(Options)
    catch error:_ -> exit(handshake_options)
    end.

seconds(Milliseconds) -> (Milliseconds + 999) div 1000.

read(#state{transport = Transport} = State) ->
    case megaphone_transport:setopts(Transport, [{active, once}]) of
        ok -> wait(State);
        {error, _} -> closed(State)
    end.

wait(#state{transport = Transport} = State) ->
    receive
        Message ->
            case megaphone_transport:message(Transport, Message) of
                {data, Chunk} -> shake(Chunk, State#state{heard = true});
                closed -> closed(State);
                {error, Reason} -> failed("~ts", [inet:format_error(Reason)], State);
                _ -> wait(State)
            end
    after left(State) ->
            too_late(State)
    end.

shake(Chunk, #state{handshake = Handshake} = State) ->
    case megaphone_nif:handshake(Handshake, Chunk) of
        more ->
            read(State);
        {hello, #{resume := Resume}, Used} ->
            shake(rest(Chunk, Used), answer(resume(Resume, State)));
        {up, Version, Used} ->
            hand_over(Version, rest(Chunk, Used), State);
        {error, Code, Text, LastWords} ->
            _ = [megaphone_transport:send(State#state.transport, LastWords)
                 || LastWords =/= <<>>],
            failed("~ts (~ts); the link is closed", [Text, Code], State)
    end.

rest(Chunk, Used) ->
    <<_:Used/binary, Rest/binary>> = Chunk,
    Rest.

%% Where we know the link it goes on; what was sent on its old transport is taken back here.
resume(nil, State) ->
    {nil, State};
resume({Name, Token, Received}, #state{ref = Ref} = State) ->
    maybe_resumed(
      case megaphone_link_table:resumes(Name, Token) of
          {ok, Pid} ->
              case megaphone_link:is_ours(Pid, Ref) andalso
                  megaphone_receiver:detach(Pid, Received) of
                  {ok, Resumed} -> {Resumed, Pid};
                  false -> unknown;
                  {error, Reason} -> Reason
              end;
          error ->
              unknown
      end, Name, Token, State).

maybe_resumed({Resumed, Pid}, Name, Token, State) ->
    {Resumed, State#state{resumes = Pid, name = Name, token = Token}};
maybe_resumed(unknown, _Name, _Token, #state{log = Log} = State) ->
    megaphone_link_log:info("a fresh one: the link that its peer would go on with is not known "
                            "here", [], Log),
    {nil, State};
maybe_resumed(Reason, Name, _Token, #state{log = Log} = State) ->
    megaphone_link_log:warn("a fresh one: link ~ts cannot go on: ~tp", [Name, Reason], Log),
    {nil, State}.

answer({Resumed, #state{handshake = Handshake, name = Name, token = Token} = State}) ->
    Frame = megaphone_nif:handshake_answer(Handshake, Name, Token, Resumed),
    case megaphone_transport:send(State#state.transport, Frame) of
        ok -> State;
        {error, _} -> closed(State)
    end.

%%% from here on it is a link

-spec hand_over(1 | 2, binary(), #state{}) -> no_return().
hand_over(Version, Rest, #state{resumes = undefined, ref = Ref} = State) ->
    Link = #{handshake => State#state.handshake, version => Version, name => State#state.name,
             token => State#state.token, transport => State#state.transport, rest => Rest},
    case megaphone_link:start_receiver(Link, Ref) of
        {ok, Pid} ->
            passed(Pid, fun() -> megaphone_receiver:activate(Pid) end, State);
        {error, Reason} ->
            megaphone_link_log:warn("cannot be started: ~tp", [Reason], State#state.log),
            close(State)
    end;
hand_over(_Version, Rest, #state{resumes = Pid, transport = Transport} = State) ->
    passed(Pid, fun() -> megaphone_receiver:attach(Pid, Transport, Rest) end, State).

-spec passed(pid(), fun(() -> ok | {error, closed}), #state{}) -> no_return().
passed(Pid, Begin, #state{ref = #{dials := Dials}, transport = Transport} = State) ->
    megaphone_dials:passed(Dials),
    case megaphone_transport:controlling_process(Transport, Pid) of
        ok ->
            case Begin() of
                ok -> exit(normal);
                %% Its peer has dialled once more meanwhile, or its time was up.
                {error, closed} -> close(State)
            end;
        {error, Reason} ->
            megaphone_link_log:warn("~tp", [Reason], State#state.log),
            _ = State#state.resumes =:= undefined andalso exit(Pid, shutdown),
            close(State)
    end.

%%% the other ends

-spec closed(#state{}) -> no_return().
closed(#state{heard = Heard, began = Began, log = Log} = State) ->
    case Heard orelse now_ms() - Began > ?LOOK_MAX of
        true ->
            failed("closed by its peer in the handshake", [], State);
        false ->
            megaphone_link_log:warn("closed by its peer, which has said nothing", [], Log),
            close(State)
    end.

-spec too_late(#state{}) -> no_return().
too_late(State) ->
    failed("its handshake took more than ~b s, closed", [?HANDSHAKE_TIMEOUT div 1000], State).

-spec failed(string(), [term()], #state{}) -> no_return().
failed(Format, Args, #state{log = Log, ref = #{dials := Dials}} = State) ->
    megaphone_link_log:warn(Format, Args, Log),
    megaphone_dials:failed(Dials),
    close(State).

-spec close(#state{}) -> no_return().
close(#state{transport = Transport}) ->
    megaphone_transport:close(Transport),
    exit(normal).

left(#state{deadline = Deadline}) ->
    max(0, Deadline - now_ms()).

now_ms() -> erlang:monotonic_time(millisecond).
