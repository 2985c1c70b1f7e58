%%% @doc The calls into the NIF (native/nif/src/nifs/); nothing but stubs.
%%%
%%% The library is loaded by {@link load/0} and not by `-on_load', so that a missing `.so' is a
%%% log line of whoever calls, and never keeps ejabberd from booting.
-module(megaphone_nif).

-export([load/0]).
%% links
-export([handshake_new/1, handshake/2, handshake_answer/4]).
-export([link_new/2, link_sender/2, link_resumable/1, link_may_rewind/2, link_rewind/2, feed/3,
         drain/1, ready/1, tick/2, link_error/3, goaway/4, ping/2, end_of_input/1, end_some/2, link_info/1, connections/1,
         lookup/2, set_max_buffered/1, memory/0]).
%% connections
-export([recv/2, recv_item/1, cancel_recv/2, unrecv/2, send/2, send_large/2, send_raw/2, send_timed_out/2,
         shutdown/3, close/1, close/2, set_draining/1, abort/2, hand_over/1, set_owner/3, watch/2, set_active/2,
         setopts/2, getopts/2, getstat/2, addresses/1, conn_id/1, conn_info/1]).
%% HTTP requests and WebSocket messages of a connection
-export([http_service/1, http_start/2, http_request/1, http_request_large/1, http_reply/3,
         http_reply_large/3, http_hold/3, http_detach/1,
         ws_start/3, ws_next/1, ws_send/2, ws_close/3]).
%% stanzas of an XML stream
-export([stream_start/3, stream_next/1, stream_restart/1]).
%% HTTP without a connection
-export([decode_packet/2, decode_head/2]).

-export_type([handshake/0, link/0, conn/0, close_reason/0, link_options/0, http_service/0,
              http_limits/0, http_request/0, piece/0]).

-type handshake() :: reference().
-type link() :: reference().
-type conn() :: reference().
-type token() :: pos_integer().
-type http_service() :: reference().
%% What a service puts up with; times in milliseconds, sizes in bytes. Lengths of the head are
%% bounded by limits.rs.
-type http_limits() ::
        #{key := term(),                         % of the news; a small integer
          head_timeout := pos_integer(),         % from a request's first byte to the end of its head
          body_timeout := pos_integer(),         % without so much as 1 kB more of a body
          idle_timeout := pos_integer(),         % between two requests
          send_timeout := pos_integer(),         % in which the client takes nothing of an answer
          max_body := pos_integer()}.            % of a body that is given whole
%% A request as `#request{}' wants it. `Path' is decoded, split and normalized, `bad' where that
%% cannot be, or where ejabberd_http takes no such request (another method, a POST or PUT without a
%% body). `Query' is of the body where the method is POST: `[]' where that says that it is XML, or has
%% more than 64 kB. `Headers' are the last one first, with names as ejabberd_http
%% normalizes them. `Host' is in small letters, and not yet prepared. `Data' is the body of a POST.
%% `KeepAlive' is false also when the node wants the client to go.
-type http_request() ::
        {Method :: atom() | binary(), Version :: {1, 0 | 1}, RawPath :: binary() | other,
         Path :: [binary()] | bad, Query :: [{binary() | nokey, binary()}],
         Headers :: [{atom() | binary(), binary()}],
         Host :: {binary(), non_neg_integer() | undefined} | undefined | error,
         Lang :: binary(), Length :: non_neg_integer(), Data :: binary(),
         KeepAlive :: boolean(), Upgrade :: boolean(),
         Peer :: {inet:ip_address(), inet:port_number()}}.
-type close_reason() :: normal | client_closed | server_closed | idle | timeout | refused | limit
                      | protocol_error | overload | link_lost | shutdown | internal.
-type handshake_options() ::
        #{node := binary(), nonce := binary(), window := pos_integer(), max_frame := pos_integer(),
          allow_v1 := boolean(), resume_timeout := non_neg_integer(), secret := binary() | nil}.
-type link_options() ::
        #{name := binary(), window := pos_integer(), max_connections := pos_integer(),
          resume_buffer := non_neg_integer(), max_buffered := pos_integer(),
          idle_timeout := pos_integer() | nil, peer := term(), local := term()}.
-type news() :: {open, conn(), Service :: binary() | undefined, Id :: non_neg_integer()}
              | {request, conn(), Key :: term()}
              | {reset | refused, Id :: non_neg_integer(), Text :: binary()}
              | {pong, Word :: binary()}
              | {goaway, Reason :: binary(), RetryAfter :: non_neg_integer() | nil,
                 Within :: non_neg_integer() | nil}
              | {peer_error, Code :: binary(), Text :: binary()}.
%% What {@link stream_next/1} gives: the stream's start tag, a stanza, text between stanzas, the
%% stream's end tag, or why there will be no more.
-type piece() :: {header | stanza | text | finish, binary()}
               | {error, too_big | document_type | not_well_formed}.
-type active() :: boolean() | once | -32768..32767.
-type http_type() :: http | http_bin | httph | httph_bin.

%% @doc Loads the library once; later calls cost nothing. A library cannot be replaced while the
%% node runs: an upgrade needs a restart of the node.
-spec load() -> ok | {error, {load_failed | bad_lib | reload | upgrade | old_code | no_file,
                              string()}}.
load() ->
    case persistent_term:get(?MODULE, false) of
        true -> ok;
        false -> load(library())
    end.

load(Path) ->
    case filelib:is_regular(Path ++ ".so") of
        false ->
            {error, {no_file, Path ++ ".so"}};
        true ->
            case erlang:load_nif(Path, 0) of
                ok -> persistent_term:put(?MODULE, true);
                {error, {reload, _}} -> ok;
                {error, _} = Error -> Error
            end
    end.

%% Beside this module's ebin, however it came onto the code path.
library() ->
    Priv = case code:priv_dir(megaphone) of
               {error, bad_name} ->
                   Ebin = filename:dirname(code:which(?MODULE)),
                   filename:join(filename:dirname(Ebin), "priv");
               Dir ->
                   Dir
           end,
    filename:join(Priv, "megaphone_nif").

%% @doc The handshake of one dial. What is wrong with the options raises `badarg', and then the
%% stack trace has them in it, the secret too.
-spec handshake_new(handshake_options()) -> handshake().
handshake_new(_Options) -> not_loaded().

%% @doc Takes in what came. `Used' is how many of its bytes; after `hello' call again with the rest,
%% once {@link handshake_answer/4} was sent. `LastWords' are for the peer, where it has ears.
-spec handshake(handshake(), binary()) ->
          more
        | {hello, #{name := binary(),
                    resume := {Link :: binary(), Token :: binary(), Received :: non_neg_integer()}
                            | nil},
           Used :: non_neg_integer()}
        | {up, Version :: 1..2, Used :: non_neg_integer()}
        | {error, Code :: binary(), Text :: binary(), LastWords :: binary()}.
handshake(_Handshake, _Chunk) -> not_loaded().

-spec handshake_answer(handshake(), Link :: binary(), Token :: binary(),
                       Resumed :: non_neg_integer() | nil) -> Frame :: binary().
handshake_answer(_Handshake, _Link, _Token, _Resumed) -> not_loaded().

%% @doc The link behind a handshake that is up, and used up by this. The caller is its receiver.
-spec link_new(link_options(), handshake()) -> link().
link_new(_Options, _Handshake) -> not_loaded().

-spec link_sender(link(), pid() | undefined) -> ok.
link_sender(_Link, _Sender) -> not_loaded().

%% @doc Seconds for which the link may be parked when its transport drops; 0: it is lost then.
-spec link_resumable(link()) -> non_neg_integer().
link_resumable(_Link) -> not_loaded().

%% @doc Whether a peer that has so many bytes of ours can be given all the others.
-spec link_may_rewind(link(), non_neg_integer()) -> boolean().
link_may_rewind(_Link, _Received) -> not_loaded().

%% @doc For a peer that has so many bytes of ours: what it lacks is drained again. The answer is
%% how many of its bytes we have. No sender may be draining.
-spec link_rewind(link(), non_neg_integer()) -> {ok, non_neg_integer()} | {error, einval}.
link_rewind(_Link, _Received) -> not_loaded().

%% @doc Bytes that this node may hold for all connections of all links.
-spec set_max_buffered(pos_integer()) -> ok.
set_max_buffered(_Bytes) -> not_loaded().

%% @doc Bytes that the library holds outside of the emulator's allocators.
-spec memory() -> non_neg_integer().
memory() -> not_loaded().

%% @doc Takes in `Chunk' from `Offset' on, as much as one call may. `more': call again from there.
%% `choked': do not read on before `$megaphone_resume' comes. `fatal': close the link.
-spec feed(link(), binary(), non_neg_integer()) ->
          {ok, [news()]} | {more, pos_integer(), [news()]} | {choked, [news()]}
              | {fatal, Code :: binary(), Text :: binary(), [news()]}.
feed(_Link, _Chunk, _Offset) -> not_loaded().

%% @doc What is to be written now: large frames are in it as they are, small ones copied together.
-spec drain(link()) -> iodata() | empty.
drain(_Link) -> not_loaded().

%% @doc Serves some of the connections that wait for it.
-spec ready(link()) -> {more | done, [news()]}.
ready(_Link) -> not_loaded().

%% @doc A second has passed since the last time: what is due is done, and the link's counts are told.
-spec tick(link(), Parked :: boolean()) ->
          {Lost :: non_neg_integer(), LastId :: non_neg_integer(),
           UnknownVerbs :: non_neg_integer(), BytesReceived :: non_neg_integer(),
           Swamped :: boolean(), Overflowed :: boolean()}.
tick(_Link, _Parked) -> not_loaded().

-spec ping(link(), Word :: binary()) -> ok.
ping(_Link, _Word) -> not_loaded().

-spec goaway(link(), close_reason(), RetryAfter :: non_neg_integer() | nil,
             Within :: non_neg_integer() | nil) -> ok.
goaway(_Link, _Reason, _RetryAfter, _Within) -> not_loaded().

-spec link_error(link(), Code :: binary(), Text :: binary()) -> ok.
link_error(_Link, _Code, _Text) -> not_loaded().

-spec end_of_input(link()) -> ok | {error, binary()}.
end_of_input(_Link) -> not_loaded().

-spec end_some(link(), close_reason()) -> more | done.
end_some(_Link, _Reason) -> not_loaded().

-spec link_info(link()) -> [{atom(), term()}].
link_info(_Link) -> not_loaded().

-spec connections(link()) -> [non_neg_integer()].
connections(_Link) -> not_loaded().

-spec lookup(link(), non_neg_integer()) -> {ok, conn()} | {error, closed}.
lookup(_Link, _Id) -> not_loaded().

-spec recv(conn(), non_neg_integer()) ->
          {ok, term()} | {wait, token()}
              | {error, closed | einval | enomem | emsgsize | econnreset}.
recv(_Conn, _Length) -> not_loaded().

-spec recv_item(conn()) ->
          {ok, term()} | {wait, token()} | {error, closed | einval | emsgsize | http_error}.
recv_item(_Conn) -> not_loaded().

-spec cancel_recv(conn(), token()) -> boolean().
cancel_recv(_Conn, _Token) -> not_loaded().

-spec unrecv(conn(), iodata()) -> ok | {error, closed}.
unrecv(_Conn, _Data) -> not_loaded().

-spec send(conn(), iodata()) ->
          ok | {wait, token(), timeout()} | {error, closed | emsgsize | einval | enobufs}.
send(_Conn, _Data) -> not_loaded().

-spec send_large(conn(), iodata()) ->
          ok | {wait, token(), timeout()} | {error, closed | emsgsize | einval | enobufs}.
send_large(_Conn, _Data) -> not_loaded().

-spec send_raw(conn(), iodata()) ->
          ok | {wait, token(), timeout()} | {error, closed | einval | enobufs}.
send_raw(_Conn, _Data) -> not_loaded().

-spec send_timed_out(conn(), token()) -> boolean().
send_timed_out(_Conn, _Token) -> not_loaded().

-spec shutdown(conn(), Read :: boolean(), Write :: boolean()) -> ok | {error, closed}.
shutdown(_Conn, _Read, _Write) -> not_loaded().

-spec close(conn()) -> ok.
close(_Conn) -> not_loaded().

%% @doc As close/1 by somebody else than the owner, who sees what it would see if the client had
%% closed: an active one `tcp_closed', blocked readers `{error, closed}'.
-spec close(conn(), close_reason()) -> ok.
close(_Conn, _Reason) -> not_loaded().

%% @doc The next HTTP response on this connection gets a `Connection: close'.
-spec set_draining(conn()) -> ok.
set_draining(_Conn) -> not_loaded().

-spec abort(conn(), close_reason()) -> ok.
abort(_Conn, _Reason) -> not_loaded().

-spec hand_over(conn()) -> {ok, active()} | {error, closed | not_owner}.
hand_over(_Conn) -> not_loaded().

-spec set_owner(conn(), pid(), active()) -> ok | {error, einval | badarg}.
set_owner(_Conn, _Pid, _Active) -> not_loaded().

-spec watch(conn(), pid()) -> {ok, token()} | {error, closed}.
watch(_Conn, _Pid) -> not_loaded().

-spec set_active(conn(), active()) -> ok | {error, einval}.
set_active(_Conn, _Active) -> not_loaded().

-spec setopts(conn(), [{atom(), term()}]) -> ok | {error, einval}.
setopts(_Conn, _Options) -> not_loaded().

-spec getopts(conn(), [atom()]) -> {ok, [{atom(), term()}]} | {error, einval}.
getopts(_Conn, _Names) -> not_loaded().

-spec getstat(conn(), [atom()]) -> {ok, [{atom(), non_neg_integer()}]} | {error, einval}.
getstat(_Conn, _Names) -> not_loaded().

-spec addresses(conn()) -> {ok, {Peer, Local}} | {error, einval}
              when Peer :: {inet:ip_address(), inet:port_number()},
                   Local :: {inet:ip_address(), inet:port_number()}.
addresses(_Conn) -> not_loaded().

-spec conn_id(conn()) -> non_neg_integer().
conn_id(_Conn) -> not_loaded().

-spec conn_info(conn()) -> [{atom(), term()}].
conn_info(_Conn) -> not_loaded().

%% @doc What connections of one service share.
-spec http_service(http_limits()) -> http_service().
http_service(_Limits) -> not_loaded().

%% @doc Makes a connection that was just opened speak HTTP/1: its requests are collected here, and
%% the link's receiver is told of each ({@link feed/3}). `request': one is there already.
-spec http_start(conn(), http_service()) -> ok | request | {error, closed}.
http_start(_Conn, _Service) -> not_loaded().

%% @doc The request that was told. Its handler is the caller, from now on the connection's owner:
%% if it dies before it has answered, the client gets a 500 and the connection closes.
%% The body of a `PUT' is not in it: it is read with {@link recv/2}, `{error, closed}' behind its
%% end. A request that came whole is given though its client has gone. `large': ask
%% {@link http_request_large/1}, on a dirty scheduler.
-spec http_request(conn()) -> {ok, http_request()} | large | {error, closed}.
http_request(_Conn) -> not_loaded().

-spec http_request_large(conn()) -> {ok, http_request()} | {error, closed}.
http_request_large(_Conn) -> not_loaded().

%% @doc Sends the (rest of the) answer and ends the request; any process may. It never blocks: what
%% the client does not take waits here, up to `send_timeout' without progress. `next': another
%% request is there, for the caller to serve. With `close' the connection closes behind it.
-spec http_reply(conn(), iodata(), keep | close) -> idle | next | closed.
http_reply(_Conn, _Data, _Then) -> not_loaded().

%% @doc The same for more than 256 kB, whose copy would take a scheduler too long.
-spec http_reply_large(conn(), iodata(), keep | close) -> idle | next | closed.
http_reply_large(_Conn, _Data, _Then) -> not_loaded().

%% @doc Lets go of the request without an answer: it comes later, from any process. The watcher
%% gets `{'$megaphone_gone', Token}' when the client goes before that.
-spec http_hold(conn(), Watcher :: pid(), Token :: non_neg_integer()) -> ok | {error, closed}.
http_hold(_Conn, _Watcher, _Token) -> not_loaded().

%% @doc Makes the connection a plain socket of the calling handler, for good; what is behind the
%% request's head can be received.
-spec http_detach(conn()) -> ok | {error, closed}.
http_detach(_Conn) -> not_loaded().

%% @doc From now on the connection speaks WebSocket (RFC 6455) with its client, and is the owner's:
%% the 101 has been sent. Times in milliseconds, 0 is never, as seconds rounded up. A silent client
%% is pinged after `ping_interval', given up after another one, or after `timeout'. With
%% `reply_in_kind' a message goes out as text or binary as the last one came. `send_timeout': as
%% {@link inet:setopts/2}, with `send_timeout_close'. When it is over the owner gets
%% `{tcp_closed, Socket}', once.
-spec ws_start(conn(), Owner :: pid(), #{max_message := pos_integer(),
                                         ping_interval := non_neg_integer(),
                                         timeout := non_neg_integer(),
                                         send_timeout => pos_integer(),
                                         reply_in_kind => boolean()}) -> ok | {error, closed}.
ws_start(_Conn, _Owner, _Options) -> not_loaded().

%% @doc The next message, text or binary. `wait': the owner gets `{'$megaphone_ws', Message}' when
%% it has come. Nothing more than the window is read from the client until somebody asks.
-spec ws_next(conn()) -> {ok, binary()} | wait | closed.
ws_next(_Conn) -> not_loaded().

%% @doc Sends a text message, as {@link send/2} sends bytes.
-spec ws_send(conn(), iodata()) ->
          ok | {wait, token(), timeout()} | {error, closed | einval | enobufs}.
ws_send(_Conn, _Data) -> not_loaded().

%% @doc Sends a Close frame and closes when the client has answered, or has not for 5 s.
-spec ws_close(conn(), Code :: 1000..4999, Reason :: binary()) -> ok.
ws_close(_Conn, _Code, _Reason) -> not_loaded().

%% @doc From now on the connection's bytes are an XML stream (RFC 6120), cut into pieces of at most
%% `MaxStanza' bytes for `Owner'. When it is over the owner gets `{tcp_closed, Socket}', once.
-spec stream_start(conn(), Owner :: pid(), MaxStanza :: pos_integer()) -> ok | {error, closed}.
stream_start(_Conn, _Owner, _MaxStanza) -> not_loaded().

%% @doc The next piece. `wait': the owner gets `{'$megaphone_stream', Piece}' when it is whole.
%% Nothing more than the window is read from the client until somebody asks.
-spec stream_next(conn()) -> {ok, piece()} | wait | closed.
stream_next(_Conn) -> not_loaded().

%% @doc The client is to begin the stream again, as it does behind SASL: a header comes next.
-spec stream_restart(conn()) -> ok.
stream_restart(_Conn) -> not_loaded().

%% @doc As `erlang:decode_packet(Type, Bin, [])', with the differences that docs/http.md lists.
-spec decode_packet(http_type(), binary()) ->
          {ok, term(), Rest :: binary()} | {more, undefined}.
decode_packet(_Type, _Bin) -> not_loaded().

%% @doc A whole request head in one call.
-spec decode_head(http_type(), binary()) ->
          {ok, [term()], Rest :: binary()} | more | {error, {http_error, term()}}.
decode_head(_Type, _Bin) -> not_loaded().

%% To dialyzer nif_error/1 may return anything, as the functions it stands for do.
-spec not_loaded() -> term().
not_loaded() ->
    erlang:nif_error({not_loaded, ?MODULE}).
