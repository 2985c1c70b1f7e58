%% Who may dial: secret and TLS (what a stranger can cost is strangers_SUITE). The far end is link_peer,
%% which shares no code with the product, and in the last group a real megaphone-ecm.
-module(secure_SUITE).
-include("support/dial_cases.hrl").

all() ->
    [{group, secret}, {group, tls}, {group, listeners}, {group, resume},
     {group, ecm}, {group, ejabberd_23_01}, {group, ejabberd_24_12}].

groups() ->
    Ejabberd = [secret_in_ejabberd, reachable_ejabberd_does_not_start],
    [{secret, [], [right_secret, wrong_secret, other_messages_before_auth, nothing_before_auth,
                   proofs_are_for_one_link_and_side, nonce_too_short, version_1_has_no_secret,
                   byte_by_byte, secret_is_nowhere_to_be_seen]},
     {tls, [], [right_certificate, wrong_certificates, tls_and_secret, any_certificate]},
     {listeners, [], [reachable_needs_authentication, secret_files, tls_files, bad_options]},
     {resume, [], [resume_needs_the_token, only_links_of_the_same_listener]},
     {ecm, [], [ecm_with_secret, ecm_with_certificates]},
     {ejabberd_23_01, [], Ejabberd},
     {ejabberd_24_12, [], Ejabberd}].

init_per_group(ejabberd_23_01, Config) -> [{version, "23.01"} | Config];
init_per_group(ejabberd_24_12, Config) -> [{version, "24.12"} | Config];
init_per_group(_Group, Config) -> Config.

end_per_group(_Group, _Config) -> ok.

%% ---- secret ----

right_secret(_Config) ->
    {L, Port} = listen([{secret, <<?SECRET/binary, "\r\n">>}]),
    Peer = link_peer:connect(Port, #{secret => ?SECRET}),
    works(L, Peer),
    ?assertMatch(#{passed := 1, failed := 0, now := 0}, settled_dials(L)).

wrong_secret(Config) ->
    {_L, Port} = listen([{secret, ?SECRET}]),
    Peer = stranger(Port),
    #{<<"nonce">> := Nonce, <<"proof">> := _} = say_hello(Peer, #{}),
    refuses(Config, Peer, link_peer:auth_line(<<"a secret of somebody else">>, Nonce, nonce()),
            "auth", "the proof is wrong: the peer has another secret").

%% Nothing but the proof is taken, nothing is opened and nothing answered.
other_messages_before_auth(Config) ->
    [begin
         {L, Port} = listen([{secret, ?SECRET}]),
         Peer = stranger(Port),
         _ = say_hello(Peer, #{}),
         refuses(Config, Peer, link_peer:line(Line), Code, Sentence),
         ?assertEqual({error, timeout}, gen_tcp:accept(L, 0)),
         ?assertEqual([], links(L)),
         ok = gen_tcp:close(L)
     end || {Line, Code, Sentence} <-
                [{"ping x", "auth", "before the auth that is due"},
                 {"open 7 service=default peer=192.0.2.7:1 local=192.0.2.1:2", "auth", "before the auth"},
                 {"window 7 100", "auth", "before the auth"},
                 {"close 7 reason=normal", "auth", "before the auth"},
                 {"reset 7 reason=normal", "auth", "before the auth"},
                 {"goaway reason=shutdown", "auth", "before the auth"},
                 {"ack 0", "auth", "before the auth"},
                 {"error code=internal text=x", "auth", "before the auth"},
                 {"hello version=2 name=a nonce=00112233445566778899aabbccddeeff window=16384 "
                  "max_frame=65536", "auth", "before the auth"},
                 {"auth", "protocol_error", "auth"},
                 {"auth proof=", "protocol_error", "auth"},
                 {"auth proof=00", "auth", "the proof is wrong"}]].

nothing_before_auth(Config) ->
    [begin
         {L, Port} = listen([{secret, ?SECRET}]),
         Peer = stranger(Port),
         _ = say_hello(Peer, #{}),
         ok = link_peer:raw(Peer, Bytes),
         ?assertMatch(<<"error code=", _/binary>>, link_peer:wait_line(Peer, "^error ")),
         ?assertEqual(closed, link_peer:link_outcome(Peer)),
         _ = wait(?config(log, Config), [address(Peer), "link is closed"]),
         ?assertEqual([], links(L)),
         ok = gen_tcp:close(L)
     end || Bytes <- [link_peer:frame(7, "data"), link_peer:frame(7, ""), link_peer:frame(0, ""),
                      link_peer:frame(0, "auth proof=00\nping x\n"), binary:copy(<<"no frame">>, 8)]].

%% Neither what we have said ourselves nor what another link has heard proves anything.
proofs_are_for_one_link_and_side(Config) ->
    {_L, Port} = listen([{secret, ?SECRET}]),
    Reflected = stranger(Port),
    #{<<"proof">> := Ours} = say_hello(Reflected, #{}),
    refuses(Config, Reflected, link_peer:line(["auth proof=", Ours]), "auth", "the proof is wrong"),
    First = stranger(Port),
    #{<<"nonce">> := Nonce} = say_hello(First, #{}),
    Auth = link_peer:auth_line(?SECRET, Nonce, nonce()),
    ok = link_peer:raw(First, link_peer:frame(0, Auth)),
    ok = link_peer:flush(First),
    Replayed = stranger(Port),
    _ = say_hello(Replayed, #{}),
    refuses(Config, Replayed, Auth, "auth", "the proof is wrong").

nonce_too_short(Config) ->
    {_L, Port} = listen([{secret, ?SECRET}]),
    Peer = stranger(Port),
    Nonce = lists:duplicate(30, $a),
    refuses(Config, Peer, link_peer:hello_line(#{nonce => Nonce}), "auth",
            "a nonce of 30 hex digits").

version_1_has_no_secret(Config) ->
    {L, Port} = listen([{secret, ?SECRET}, {version_1, true}]),
    Peer = link_peer:connect(Port, #{version => 1}),
    ok = link_peer:send(Peer, 7, "hello"),
    ?assertEqual(closed, link_peer:link_outcome(Peer)),
    _ = wait(?config(log, Config), [address(Peer), "version 1 link, which is not allowed here"]),
    ?assertEqual({error, timeout}, gen_tcp:accept(L, 0)).

byte_by_byte(_Config) ->
    {L, Port} = listen([{secret, ?SECRET}]),
    Peer = stranger(Port),
    Drip = fun(Frame) -> [ok = link_peer:raw(Peer, <<B>>) || <<B>> <= iolist_to_binary(Frame)] end,
    Drip(link_peer:frame(0, link_peer:hello_line(#{}))),
    <<"hello ", _/binary>> = link_peer:wait_line(Peer, "^hello "),
    #{<<"nonce">> := Nonce} = link_peer:hello(Peer),
    Drip(link_peer:frame(0, link_peer:auth_line(?SECRET, Nonce, nonce()))),
    works(L, Peer).

%% Not in a log, in any process's state, in what is said of a crash, in the operating system's
%% list of processes.
secret_is_nowhere_to_be_seen(Config) ->
    File = write(Config, "secret", [?SECRET, "\n"], 8#600),
    #{server := Server} = ?config(certificates, Config),
    {L, Port} = listen([{secret_file, File}]),
    {L2, Port2} = listen([{secret, ?SECRET}]),
    {ok, Key} = file:read_file(Server),
    [{_, Der, _} = Entry, {KeyType, KeyDer, _}] = public_key:pem_decode(Key),
    {L3, _} = listen([{tls, [{cert, Der}, {key, {KeyType, KeyDer}}]}, {secret, ?SECRET}]),
    'Certificate' = element(1, Entry),
    Right = link_peer:connect(Port, #{secret => ?SECRET}),
    works(L, Right),
    Wrong = stranger(Port2),
    _ = say_hello(Wrong, #{}),
    refuses(Config, Wrong, link_peer:line("auth proof=00"), "auth", "the proof is wrong"),
    Waiting = stranger(Port2),
    _ = say_hello(Waiting, #{}),
    %% A greeter that crashes on its options, as it would on a bug of ours.
    Crashed = crash_greeter(L2),
    _ = wait(?config(log, Config), [pid_to_list(Crashed), "handshake_options"]),
    Seen = [{Pid, look_at(Pid)} || Pid <- processes(), is_of_megaphone(Pid)],
    ?assert(length(Seen) > 10),
    [?assertEqual({What, nomatch}, {What, binary:match(Text, Words)})
     || Words <- [?SECRET, binary:part(KeyDer, 0, 20)],
        {What, Text} <- [{log, iolist_to_binary(
                                 [[T, $\n] || {_, T} <- log_capture:lines(?config(log, Config))])},
                         {listeners, shown(megaphone:listeners())},
                         {processes, unicode:characters_to_binary(os:cmd("ps axww -o args"))}
                         | [{Pid, Shown} || {Pid, Shown} <- Seen]]],
    [ok = gen_tcp:close(Listen) || Listen <- [L, L2, L3]].

%% All that one process may tell of another.
look_at(Pid) ->
    Info = [erlang:process_info(Pid, What)
            || What <- [dictionary, messages, current_stacktrace, links, initial_call]],
    State = case proc_lib:initial_call(Pid) of
                {_, init, [_]} -> {sys:get_state(Pid), sys:get_status(Pid)};
                {supervisor, _, _} -> {sys:get_state(Pid), sys:get_status(Pid)};
                _ -> no_gen_server
            end,
    iolist_to_binary([shown(Info), shown(State)]).

%% As the shell, the log and a careless term_to_binary would have it.
shown(Term) ->
    unicode:characters_to_binary(io_lib:format("~p~w~0tp", [Term, Term, Term])).

is_of_megaphone(Pid) ->
    case proc_lib:initial_call(Pid) of
        {supervisor, {megaphone_listener_sup, _}, _} -> true;
        {supervisor, _, _} -> false;
        {Module, _, _} when is_atom(Module) ->
            lists:prefix("megaphone", atom_to_list(Module));
        _ -> false
    end.

crash_greeter(L) ->
    Tree = tree(L),
    {ok, Guard} = megaphone_listener_sup:child(Tree, guard),
    #{link := Link} = Ref = megaphone_link:ref(Tree, gen_server:call(Guard, config)),
    {ok, Listen} = gen_tcp:listen(0, [{ip, ?LOOPBACK}]),
    {ok, Port} = inet:port(Listen),
    {ok, _} = gen_tcp:connect(?LOOPBACK, Port, []),
    {ok, Socket} = gen_tcp:accept(Listen, ?TIMEOUT),
    {ok, Pid} = megaphone_greeter:start(alone, Socket, Ref#{link := Link#{window := none}}),
    ok = gen_tcp:controlling_process(Socket, Pid),
    megaphone_greeter:activate(Pid),
    Pid.

%% ---- TLS ----

right_certificate(Config) ->
    {L, Port} = listen([{tls, server(Config, verify_peer)}]),
    Peer = link_peer:connect(Port, #{tls => client(Config, client)}),
    {Id, Socket} = works(L, Peer),
    %% Much of it, both ways, through more than one record.
    Bytes = crypto:strong_rand_bytes(300_000),
    ok = link_peer:send(Peer, Id, Bytes),
    ?assertEqual({ok, Bytes}, gen_tcp:recv(Socket, byte_size(Bytes), ?TIMEOUT)),
    Sender = socket_pair:in_process(fun() -> gen_tcp:send(Socket, Bytes) end),
    ?assertEqual(Bytes, link_peer:recv(Peer, Id, byte_size(Bytes))),
    ?assertEqual(ok, socket_pair:result(Sender)),
    [#{address := {?LOOPBACK, _}}] = [Info || {_, Info} <- links(L)],
    ok = link_peer:stop(Peer),
    ?assertEqual({error, closed}, gen_tcp:recv(Socket, 0, ?TIMEOUT)),
    [begin
         {Only, OnlyPort} = listen([{tls, [{versions, [Version]} | server(Config, verify_peer)]}]),
         works(Only, link_peer:connect(OnlyPort, #{tls => client(Config, client)})),
         ok = gen_tcp:close(Only)
     end || Version <- ['tlsv1.2', 'tlsv1.3']].

wrong_certificates(Config) ->
    {L, Port} = listen([{tls, server(Config, verify_peer)}]),
    [begin
         {ok, Sock} = gen_tcp:connect(?LOOPBACK, Port, [{active, false}, binary]),
         {ok, {_, Source}} = inet:sockname(Sock),
         Do(Sock),
         {warning, _} = wait(?config(log, Config),
                             ["127\\.0\\.0\\.1:" ++ integer_to_list(Source),
                              "the TLS handshake failed: " ++ Words ++ "; the link is closed"]),
         gen_tcp:close(Sock)
     end || {Do, Words} <-
                [{fun(Sock) -> shakes_hands(Sock, client(Config, stranger)) end, "unknown ca"},
                 {fun(Sock) -> shakes_hands(Sock, client(Config, none)) end,
                  "(certificate required|handshake failure)"},
                 {fun(Sock) -> ok = gen_tcp:send(Sock, link_peer:frame(0, link_peer:hello_line(#{})))
                  end, "[a-z ]+"},
                 {fun(Sock) -> ok = gen_tcp:send(Sock, binary:copy(<<22, 3, 1, 255, 255>>, 1000)) end,
                  "[a-z ]+"}]],
    ?assertEqual([], links(L)),
    ?assertMatch(#{failed := 4, passed := 0}, settled_dials(L)),
    works(L, link_peer:connect(Port, #{tls => client(Config, client)})).

%% In TLS 1.3 the client is done before the server has looked at its certificate.
shakes_hands(Sock, Options) ->
    case ssl:connect(Sock, Options, ?TIMEOUT) of
        {ok, Tls} -> ?assertMatch({error, _}, ssl:recv(Tls, 0, ?TIMEOUT));
        {error, _} -> ok
    end.

tls_and_secret(Config) ->
    {L, Port} = listen([{tls, server(Config, verify_peer)}, {secret, ?SECRET}]),
    works(L, link_peer:connect(Port, #{tls => client(Config, client), secret => ?SECRET})),
    Peer = link_peer:connect(Port, #{tls => client(Config, client), handshake => false}),
    _ = say_hello(Peer, #{}),
    refuses(Config, Peer, link_peer:line("ping x"), "auth", "before the auth").

%% Without `verify' TLS only hides what is said.
any_certificate(Config) ->
    {L, Port} = listen([{tls, server(Config, verify_none)}]),
    works(L, link_peer:connect(Port, #{tls => client(Config, none)})).

%% ---- listeners ----

reachable_needs_authentication(Config) ->
    Tls = fun(Verify) -> [{tls, server(Config, Verify)}] end,
    [begin
         ?assertEqual({error, no_authentication}, megaphone:listen(0, Ip ++ More)),
         {error, Text} = wait(?config(log, Config), ["does not start", "other hosts can reach it"]),
         ?assertMatch({match, _}, re:run(Text, "add 'secret_file', or 'link_tls' with 'cafile'"))
     end || Ip <- [[{ip, any}], [{ip, {0, 0, 0, 0}}], [inet6, {ip, any}]],
            More <- [[], [{allowed_ips, ["127.0.0.1"]}], Tls(verify_none)]],
    [begin
         {ok, L} = megaphone:listen(0, [{ip, any} | More]),
         ok = gen_tcp:close(L)
     end || More <- [[{secret, ?SECRET}], Tls(verify_peer)]],
    ?assertMatch("other hosts can reach it" ++ _, megaphone:format_error(no_authentication)).

secret_files(Config) ->
    Name = fun(File) -> "'secret_file' " ++ File end,
    [begin
         File = write(Config, "wrong", Content, Mode),
         {error, Reason} = megaphone:listen(0, [{secret_file, File}]),
         Text = megaphone:format_error(Reason),
         [?assertMatch({_, {match, _}}, {Text, re:run(Text, Words)})
          || Words <- [Name(File), Sentence]],
         ok = file:delete(File)
     end || {Content, Mode, Sentence} <-
                [{?SECRET, 8#604, "can be read by others \\(mode 0604\\): `chmod go= "},
                 {?SECRET, 8#640, "can be read by others \\(mode 0640\\)"},
                 {"fifteen bytes..\n", 8#600, "has 15 bytes, and at least 16 are needed"},
                 {"", 8#600, "has 0 bytes"},
                 {lists:duplicate(1025, $x), 8#600, "has more than 1024 bytes"}]],
    {error, Missing} = megaphone:listen(0, [{secret_file, "/no/such"}]),
    ?assertEqual("'secret_file' /no/such cannot be read: no such file or directory",
                 megaphone:format_error(Missing)),
    {error, Short} = megaphone:listen(0, [{secret, <<"short">>}]),
    ?assertMatch("the secret has 5 bytes" ++ _, megaphone:format_error(Short)).

tls_files(Config) ->
    #{ca := Ca, server := Server} = ?config(certificates, Config),
    None = write(Config, "none.pem", "nothing", 8#644),
    [begin
         {error, Error} = megaphone_access:check_tls(Options),
         ?assertEqual(Sentence, megaphone_access:format_error(Error))
     end || {Options, Sentence} <-
                [{#{certfile => None}, "'certfile' " ++ None ++ " holds no certificate in PEM"},
                 {#{certfile => Server, keyfile => Ca},
                  "'keyfile' " ++ Ca ++ " holds no private key in PEM: 'keyfile' names the file that does"},
                 {#{certfile => Server, cafile => None},
                  "'cafile' " ++ None ++ " holds no certificate in PEM"}]].

bad_options(_Config) ->
    [?assertExit(badarg, megaphone:listen(0, [Option]))
     || Option <- [{secret, "text"}, {secret, 5}, {secret_file, 5}, {tls, []}, {allowed_ips, []},
                   {max_handshakes, 0}, {heartbeat, 999}, {resume_timeout, -1},
                   {resume_buffer, 0}, {max_buffered, none}]],
    {error, {bad_subnet, "10.0.0.0/33"} = Error} = megaphone:listen(0, [{allowed_ips, ["10.0.0.0/33"]}]),
    ?assertEqual("'10.0.0.0/33' is not an IP address or a network, such as \"10.0.0.1\" or "
                 "\"10.0.0.0/8\"", megaphone:format_error(Error)).

%% ---- resuming ----

%% Who has the token goes on; who has not gets a link of its own, and the other's is untouched.
resume_needs_the_token(Config) ->
    {L, Port} = listen([{secret, ?SECRET}]),
    Options = #{secret => ?SECRET, resume_timeout => 30},
    Peer = link_peer:connect(Port, Options),
    {Id, Socket} = works(L, Peer),
    #{<<"link">> := Name, <<"token">> := Token} = link_peer:hello(Peer),
    ?assertEqual(32, byte_size(Token)),
    Received = link_peer:received(Peer),
    [begin
         Other = link_peer:connect(Port, Options#{resume => Resume}),
         #{<<"link">> := Fresh} = Hello = link_peer:hello(Other),
         ?assertNotEqual(Name, Fresh),
         ?assertNot(is_map_key(<<"resumed">>, Hello)),
         works(L, Other)
     end || Resume <- [{Name, lists:duplicate(32, $0), 0}, {"other#1", Token, 0},
                       {Name, binary:part(Token, 0, 30), 0}]],
    works(Peer, Id, Socket),
    %% With the token but without the secret: it cannot be spoken on.
    Thief = stranger(Port),
    Now = link_peer:received(Peer),
    _ = say_hello(Thief, #{resume_timeout => 30, resume => {Name, Token, Now}}),
    refuses(Config, Thief, link_peer:line("ping x"), "auth", "before the auth"),
    Again = link_peer:connect(Port, Options#{resume => {Name, Token, Now}}),
    ?assertMatch(#{<<"link">> := Name, <<"token">> := Token, <<"resumed">> := _},
                 link_peer:hello(Again)),
    ?assert(Now > Received),
    ok = gen_tcp:send(Socket, "still here"),
    ?assertEqual(<<"still here">>, link_peer:recv(Again, Id, 10)),
    ?assertEqual([], [Text || {_, Text} <- log_capture:lines(?config(log, Config)),
                              binary:match(Text, Token) =/= nomatch]).

only_links_of_the_same_listener(_Config) ->
    Options = #{resume_timeout => 30},
    {L, Port} = listen([]),
    {_Other, OtherPort} = listen([]),
    Peer = link_peer:connect(Port, Options),
    {Id, Socket} = works(L, Peer),
    #{<<"link">> := Name, <<"token">> := Token} = link_peer:hello(Peer),
    Elsewhere = link_peer:connect(OtherPort, Options#{resume => {Name, Token, 0}}),
    ?assertNot(is_map_key(<<"resumed">>, link_peer:hello(Elsewhere))),
    works(Peer, Id, Socket).

%% ---- the real ECM ----

ecm_with_secret(Config) ->
    File = write(Config, "ecm_secret", [?SECRET, "\n"], 8#600),
    {L, Port} = listen([{secret, ?SECRET}]),
    Ecm = edge:start({Port, ["secret_file = \"", File, "\"\n"]}),
    served(L, Ecm),
    ok = edge:stop(Ecm),
    Wrong = write(Config, "wrong_secret", "some other secret of theirs", 8#600),
    [begin
         Process = ecm(Config, Port, Toml),
         {ok, _, _} = e2e_process:wait_line(Process, Says, ?TIMEOUT),
         ok = e2e_process:stop(Process),
         %% No link came of it.
         ?assertMatch(#{passed := 1}, dials(L))
     end || {Toml, Says} <- [{["secret_file = \"", Wrong, "\"\n"], "link 1 .*secret"},
                             {"", "link 1 "}]].

ecm_with_certificates(Config) ->
    #{ca := Ca, client := Client, stranger := Stranger} = ?config(certificates, Config),
    {L, Port} = listen([{tls, server(Config, verify_peer)}]),
    Tls = fun(File) ->
                  ["[backend.tls]\nca_file = \"", Ca, "\"\nserver_name = \"localhost\"\n",
                   [["cert_file = \"", File, "\"\nkey_file = \"", File, "\"\n"] || File =/= none]]
          end,
    Ecm = edge:start({Port, Tls(Client)}),
    served(L, Ecm),
    ok = edge:stop(Ecm),
    [begin
         Process = ecm(Config, Port, Tls(File)),
         {warning, _} = wait(?config(log, Config), ["127\\.0\\.0\\.1:", "the TLS handshake failed: ", Says]),
         {ok, _, _} = e2e_process:wait_line(Process, "link 1 ", ?TIMEOUT),
         ok = e2e_process:stop(Process)
     end || {File, Says} <- [{Stranger, "unknown ca"}, {none, "certificate required"}]],
    Plain = ecm(Config, Port, ""),
    {ok, _, _} = e2e_process:wait_line(Plain, "link 1 ", ?TIMEOUT),
    ok = e2e_process:stop(Plain),
    ?assertMatch(#{passed := 1}, dials(L)).

served(L, Ecm) ->
    {ok, Client} = gen_tcp:connect(?LOOPBACK, edge:port(Ecm), [binary, {active, false}]),
    {ok, Socket} = gen_tcp:accept(L, ?TIMEOUT),
    ok = gen_tcp:send(Client, "up"),
    ?assertEqual({ok, <<"up">>}, gen_tcp:recv(Socket, 2, ?TIMEOUT)),
    ok = gen_tcp:send(Socket, "down"),
    ?assertEqual({ok, <<"down">>}, gen_tcp:recv(Client, 4, ?TIMEOUT)),
    ok = gen_tcp:close(Client).

%% One whose link does not come up.
ecm(Config, Port, Backend) ->
    File = write(Config, "ecm.toml",
                 ["[backend]\naddress = \"127.0.0.1:", integer_to_list(Port), "\"\n", Backend,
                  "[[listeners]]\nlisten = \"127.0.0.1:0\"\nservice = \"default\"\nkind = \"tcp\"\n"],
                 8#600),
    e2e_process:start(e2e_paths:ecm(), ["--config", File], []).

%% ---- ejabberd ----

secret_in_ejabberd(Config) ->
    Dir = e2e_ejabberd:temporary(),
    Secret = filename:join(Dir, "secret"),
    ok = file:write_file(Secret, ?SECRET),
    ok = file:change_mode(Secret, 8#600),
    #{client_ca := Ca, server := Server} = ?config(certificates, Config),
    [Plain, Tls] = Ports = [e2e_port:free(), e2e_port:free()],
    {ok, Node} = e2e_ejabberd:start(
                   #{version => ?config(version, Config), dir => Dir,
                     config => ["hosts: [localhost]\nloglevel: debug\nlisten:\n",
                                listener(Plain, ["secret_file: ", Secret, ", max_handshakes: 5"]),
                                listener(Tls, ["secret_file: ", Secret, ", link_tls: {certfile: ", Server,
                                               ", cafile: ", Ca, "}"])]}),
    Options = #{Plain => #{secret => ?SECRET},
                Tls => #{secret => ?SECRET, tls => client(Config, client)}},
    [begin
         Peer = link_peer:connect(Port, maps:get(Port, Options)),
         ok = link_peer:open(Peer, 1, <<"http">>),
         ok = link_peer:send(Peer, 1, <<"GET /peer HTTP/1.1\r\nHost: localhost\r\n\r\n">>),
         ?assertMatch(<<"HTTP/1.1 200", _/binary>>, link_peer:recv_some(Peer, 1)),
         Wrong = link_peer:connect(Port, maps:without([secret], (maps:get(Port, Options))#{handshake => false})),
         _ = say_hello(Wrong, #{}),
         ok = link_peer:raw(Wrong, link_peer:frame(0, link_peer:line("auth proof=00"))),
         <<"error code=auth ", _/binary>> = link_peer:wait_line(Wrong, "^error "),
         {ok, _} = e2e_ejabberd:wait_log(Node, address(Wrong) ++ ".*the proof is wrong", ?TIMEOUT)
     end || Port <- Ports],
    ?assertMatch([#{dials := #{passed := 1, failed := 1}}, #{dials := #{passed := 1, failed := 1}}],
                 e2e_ejabberd:call(Node, megaphone, listeners, [])),
    ?assertEqual([], e2e_ejabberd:grep_log(Node, ?SECRET)),
    ok = e2e_ejabberd:stop(Node),
    ok = e2e_ejabberd:keep_log(Dir, ?config(priv_dir, Config)).

listener(Port, Options) ->
    ["  - {port: ", integer_to_list(Port), ", ip: \"127.0.0.1\", module: megaphone, ", Options,
     ", request_handlers: {/peer: e2e_peer_handler}}\n"].

reachable_ejabberd_does_not_start(Config) ->
    Dir = e2e_ejabberd:temporary(),
    Port = integer_to_list(e2e_port:free()),
    {error, {_, Log}} = e2e_ejabberd:start(
                          #{version => ?config(version, Config), dir => Dir,
                            config => ["hosts: [localhost]\nloglevel: info\nlisten:\n"
                                       "  - {port: ", Port, ", module: megaphone}\n"]}),
    ?assertMatch({match, _}, re:run(Log, ["megaphone listener 0\\.0\\.0\\.0:", Port, ": other hosts can "
                                          "reach it.*add 'secret_file'"])),
    ok = e2e_ejabberd:keep_log(Dir, ?config(priv_dir, Config)).

%% ---- helpers ----

nonce() -> "00112233445566778899aabbccddeeff".

works(Peer, Id, Socket) -> link_case:works(Peer, Id, Socket).

%% This control message ends the dial: its peer is told, and the log says it with its address.
refuses(Config, Peer, Line, Code, Sentence) ->
    ok = link_peer:raw(Peer, link_peer:frame(0, Line)),
    ?assertMatch({match, _}, re:run(link_peer:wait_line(Peer, "^error "), ["^error code=", Code, " text="])),
    ?assertEqual(closed, link_peer:link_outcome(Peer)),
    {warning, _} = wait(?config(log, Config), [address(Peer), Sentence, "\\(" ++ Code ++ "\\); the link is closed"]).

client(Config, Who) ->
    #{ca := Ca} = Files = ?config(certificates, Config),
    [binary, {active, false}, {verify, verify_peer}, {cacertfile, Ca}, {log_level, none},
     {server_name_indication, "localhost"}
     | case Files of
           #{Who := File} -> [{certfile, File}, {keyfile, File}];
           _ -> []
       end].

write(Config, Name, Content, Mode) ->
    File = filename:join(?config(dir, Config), Name),
    ok = file:write_file(File, Content),
    ok = file:change_mode(File, Mode),
    File.

links(L) ->
    Ours = megaphone_listener:links(tree(L)),
    [Both || {Pid, _} = Both <- megaphone:links(), lists:member(Pid, Ours)].
