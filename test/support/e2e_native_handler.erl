%% A request handler inside the ejabberd under test, and what a test asks of that node about
%% megaphone_http.
-module(e2e_native_handler).

-export([process/2]).
-export([processes/0, session_of/1, timers/1, kill_session/1, wait_held/1, held/0]).

-define(TIMEOUT, 10_000).

process([<<"crash">>], _Request) -> error(on_purpose);
process([<<"killed">>], _Request) -> exit(self(), kill), timer:sleep(?TIMEOUT);
process([<<"slow">>, Milliseconds], _Request) -> timer:sleep(binary_to_integer(Milliseconds)), <<"slow">>;
process([<<"file">>, Name], _Request) -> {200, [], {file, filename:join("/tmp", Name)}};
process([<<"upload">>], Request) -> upload(e2e_echo_handler:fields(Request));
process([<<"self">>], _Request) -> pid_to_list(self());
process(Path, Request) -> e2e_peer_handler:process(Path, Request).

%% Reads in pieces, slower than the client sends: the most that the NIF held meanwhile.
upload(#{length := Length, data := Data, sockmod := SockMod, socket := Socket}) ->
    {Hash, Most} = upload(Length - byte_size(Data), SockMod, Socket, crypto:hash_update(crypto:hash_init(sha256), Data), 0),
    [binary:encode_hex(crypto:hash_final(Hash)), " ", integer_to_list(Most)].

upload(0, _SockMod, _Socket, Hash, Most) -> {Hash, Most};
upload(Left, SockMod, Socket, Hash, Most) ->
    {ok, Data} = SockMod:recv(Socket, min(Left, 65536), ?TIMEOUT),
    timer:sleep(2),
    upload(Left - byte_size(Data), SockMod, Socket, crypto:hash_update(Hash, Data), max(Most, megaphone:memory())).

%% Processes there are of requests.
processes() ->
    length([Pid || Pid <- erlang:processes(),
                   {current_stacktrace, Stack} <- [process_info(Pid, current_stacktrace)],
                   lists:keymember(megaphone_http_request, 1, Stack)]).

session_of(Sid) ->
    {ok, Pid} = mod_bosh:find_session(Sid),
    Pid.

%% Whether a BOSH session waits for an answer's end, and for its client to come back: the fields
%% `wait_timer` and `inactivity_timer` of both ejabberds.
timers(Sid) ->
    case mod_bosh:find_session(Sid) of
        {ok, Pid} ->
            [_Name, _StateName, State | _] = sys:get_state(Pid),
            {is_running(element(10, State)), is_running(element(9, State))};
        error -> gone
    end.

is_running(undefined) -> false;
is_running(Timer) -> erlang:read_timer(Timer) =/= false.

kill_session(Sid) -> exit(session_of(Sid), kill).

held() -> ets:info(megaphone_bosh_responder, size).

%% Waits until so many requests are held.
wait_held(Number) -> poll:until(fun held/0, Number).
