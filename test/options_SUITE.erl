%% The options of `module: megaphone', checked by the ejabberd_listener of each ejabberd
%% that is supported. The nodes only have ejabberd's code: nothing of it runs.
-module(options_SUITE).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-export([suite/0, all/0, groups/0, init_per_group/2, end_per_group/2]).
-export([services_are_checked_by_their_modules/1, options_that_do_not_go_together/1,
         own_options/1, who_may_dial/1, reachable_needs_authentication/1, ecm_section/1,
         ecm_takes_what_is_written/1, next_listener_starts_afresh/1, unix_directory_is_made/1,
         services_get_what_a_listener_gets/1, default_service/1]).
%% Called in the node.
-export([check_all/1, configured/2]).

suite() -> [{timetrap, {minutes, 1}}].

all() -> [{group, ejabberd_23_01}, {group, ejabberd_24_12}].

groups() ->
    Cases = [services_are_checked_by_their_modules, options_that_do_not_go_together,
             own_options, who_may_dial, reachable_needs_authentication, ecm_section, ecm_takes_what_is_written, next_listener_starts_afresh, unix_directory_is_made,
             services_get_what_a_listener_gets, default_service],
    [{ejabberd_23_01, [], Cases}, {ejabberd_24_12, [], Cases}].

init_per_group(ejabberd_23_01, Config) -> init_version("23.01", Config);
init_per_group(ejabberd_24_12, Config) -> init_version("24.12", Config).

init_version(Version, Config) ->
    Libraries = filename:join(e2e_paths:ejabberd(Version), "lib"),
    {ok, Node, _} = peer:start(#{connection => standard_io,
                                 args => ["-pa", e2e_paths:app_ebin(),
                                          filename:dirname(code:which(?MODULE))],
                                 env => [{"ERL_LIBS", Libraries}]}),
    {ok, _} = peer:call(Node, application, ensure_all_started, [fast_yaml]),
    [{node, Node}, {version, Version} | Config].

end_per_group(_Group, Config) -> peer:stop(?config(node, Config)).

%% ---- one option, one sentence ----

services_are_checked_by_their_modules(Config) ->
    expect(Config,
           [{"services: {http: {module: ejabberd_http, tls: 7}}",
             "services->http->tls: Expected string, got integer instead"},
            {"services: {http: {module: ejabberd_http, request_handlers: {/bosh: mod_nobosh}}}",
             "services->http->request_handlers->/bosh: Unknown module: mod_nobosh"},
            {"services: {http: {module: ejabberd_http, request_handler: 5}}",
             "services->http: Unknown option: request_handler. Did you mean request_handlers?"},
            {"services: {c2s: {module: ejabberd_c2s, tls: true, tls: true}}",
             "services->c2s: Duplicated option: tls"},
            {"services: {mqtt: {module: mod_mqtt, max_fsm_queue: -1}}",
             "services->mqtt->max_fsm_queue: Expected positive integer, got: -1"},
            {"services: {http: {request_handlers: {}}}",
             "services->http: Missing required option: module"},
            {"services: {http: {module: nope}}", "services->http->module: Unknown module: nope"},
            {"services: {http: {module: mod_bosh}}",
             "services->http->module: Module 'mod_bosh' doesn't export function start_link/3"},
            {"services: {http: {module: megaphone}}",
             "services->http: a service of megaphone cannot be megaphone"},
            {"services: {'a b': {module: ejabberd_c2s}}", "services: String 'a b' doesn't match"}
            | [{["services: {http: {module: ejabberd_http, ", Option, ": 1}}"],
                ["services->http: Option '", Option, "' is not allowed in this context"]}
               || Option <- ["port", "ip", "transport", "backlog", "accept_interval",
                             "unix_socket", "use_proxy_protocol"]]]).

options_that_do_not_go_together(Config) ->
    Ecm = "ecm: {listeners: [{port: 1, service: c3s}]}",
    Services = "services: {c2s: {module: ejabberd_c2s}}",
    NoUnix = "'ecm' needs a Unix socket that only the ECM can open: 'port' must be "
             "\"unix:PATH\", not 6280",
    expect(Config,
           [{"ecm: {listeners: [{port: 1}]}", ["ecm: ", NoUnix]},
            {{raw, "- {module: megaphone, ecm: {listeners: [{port: 1}]}, port: 6280}"},
             ["port: ", NoUnix]},
            {["request_handlers: {/bosh: mod_bosh}, ", Services],
             "services: 'request_handlers' stands beside 'services': move it into the service"},
            {[Services, ", tls: true"], "tls: 'tls' stands beside 'services'"},
            {["default_service: x, ", Services],
             "services: 'default_service' is 'x', and the services are c2s"},
            {[Services, ", default_service: x"],
             "default_service: 'default_service' is 'x', and the services are c2s"},
            {{raw, ["- {port: \"unix:/tmp/x\", module: megaphone, ", Ecm, ", ", Services, "}"]},
             "services: 'ecm' has a listener for the service 'c3s', and the services are c2s"},
            {{raw, "- {port: \"unix:/tmp/x\", module: megaphone, use_proxy_protocol: true}"},
             "use_proxy_protocol: 'use_proxy_protocol' is of no use on a Unix socket"}]).

own_options(Config) ->
    expect(Config,
           [{"transport: udp", "transport: Unexpected value: udp"},
            {"window: 1023", "window: Expected integer from 1024 to 2147483647, got: 1023"},
            {"window: 1024", ok},
            {"max_frame: 16777216", ok},
            {"max_frame: 16777217", "max_frame: Expected integer from 4096 to 16777216"},
            {"max_frame: 4095", "max_frame: Expected integer from 4096 to 16777216, got: 4095"},
            {"max_frame: 4096", ok},
            {"max_connections: 0", "max_connections: Expected positive integer, got: 0"},
            {"accept_queue: 0", "accept_queue: Expected integer from 1 to 1000000, got: 0"},
            {"acceptors: 0", "acceptors: Expected integer from 1 to 1024, got: 0"},
            {"version_1: 7", "version_1: Expected string, got integer instead"},
            {"idle_timeout: 0", "idle_timeout: Expected positive integer or 'infinity', got: 0"},
            {"idle_timeout: infinity", ok},
            {"heartbeat: 1", ok},
            {"heartbeat: 500 ms", "heartbeat: Timeout must not be shorter than one second"},
            {"heartbeat: 2 h", "heartbeat: at most 3600 seconds"},
            {"resume_timeout: 0", ok},
            {"resume_timeout: 30 s", ok},
            {"resume_timeout: 1500 ms", "resume_timeout: a whole number of seconds"},
            {"resume_timeout: 3601", "resume_timeout: at most 3600 seconds"},
            {"resume_buffer: 65535",
             "resume_buffer: Expected integer from 65536 to 1073741824, got: 65535"},
            {"max_buffered: 1048575",
             "max_buffered: Expected integer from 1048576 to 1099511627776, got: 1048575"},
            {"max_handshakes: 0", "max_handshakes: Expected integer from 1 to 65536, got: 0"},
            {"no_such: 1", "Unknown option: no_such"},
            {{raw, "- {port: 66666, module: megaphone}"}, "port: "},
            {{raw, ["- {port: \"unix:/", lists:duplicate(106, $a), "\", module: megaphone}"]}, ok},
            {{raw, ["- {port: \"unix:/", lists:duplicate(107, $a), "\", module: megaphone}"]},
             "port: the path of a Unix socket has at most 107 bytes"},
            {{raw, "- {port: \"unix:/proc/none/x\", module: megaphone}"},
             "port: cannot make the directory '/proc/none': no such file or directory"}]).

who_may_dial(Config) ->
    Dir = e2e_ejabberd:temporary(),
    #{ca := Ca, server := Server} = e2e_certs:make(Dir),
    Secret = fun(Name, Content, Mode) ->
                     File = filename:join(Dir, Name),
                     ok = file:write_file(File, Content),
                     ok = file:change_mode(File, Mode),
                     File
             end,
    Good = Secret("good", "sixteen bytes it\n", 8#600),
    Open = Secret("open", "sixteen bytes it\n", 8#640),
    Short = Secret("short", "fifteen bytes..\n", 8#400),
    Long = Secret("long", lists:duplicate(1025, $x), 8#600),
    expect(Config,
           [{["secret_file: ", Good], ok},
            {["secret_file: ", Open], ["secret_file: 'secret_file' ", Open, " can be read by others "
                                       "(mode 0640): `chmod go= ", Open, "`"]},
            {["secret_file: ", Short], "has 15 bytes, and at least 16 are needed: "
                                       "`openssl rand -hex 32` makes a good one"},
            {["secret_file: ", Long], "has more than 1024 bytes: is it the right file?"},
            {["secret_file: ", Dir], " can be read by others"},
            {"secret_file: /no/such",
             "'secret_file' /no/such cannot be read: no such file or directory"},
            {["link_tls: {certfile: ", Server, ", cafile: ", Ca, "}"], ok},
            {["link_tls: {certfile: ", Server, ", verify: false}"], ok},
            {["link_tls: {certfile: ", Server, "}"],
             "link_tls: 'link_tls' verifies the ECM's certificate, and 'cafile' does not say"},
            {["link_tls: {cafile: ", Ca, "}"], "link_tls: Missing required option: certfile"},
            {["link_tls: {certfile: ", Ca, ", cafile: ", Ca, "}"],
             ["'keyfile' ", Ca, " holds no private key in PEM"]},
            {["link_tls: {certfile: ", Good, ", cafile: ", Ca, "}"],
             ["'certfile' ", Good, " holds no certificate in PEM"]},
            {["link_tls: {certfile: ", Server, ", cafile: /no/such}"],
             "'cafile' /no/such cannot be read: no such file or directory"},
            {"allowed_ips: 10.0.0.0/8", ok},
            {"allowed_ips: [127.0.0.1, \"::1\", \"2001:db8::/32\"]", ok},
            {"allowed_ips: []", "allowed_ips: Empty list is not allowed"},
            {"allowed_ips: [10.0.0.0/33]",
             "'10.0.0.0/33' is not an IP address or a network, such as \"10.0.0.1\" or"},
            {"allowed_ips: [edge.example.net]", "'edge.example.net' is not an IP address"},
            {{raw, ["- {port: \"unix:/tmp/x\", module: megaphone, secret_file: ", Good,
                    ", ecm: {listeners: [{port: 1}]}}"]},
             "ecm: 'secret_file' is of no use beside 'ecm'"},
            {{raw, "- {port: \"unix:/tmp/x\", module: megaphone, allowed_ips: 127.0.0.1}"},
             "allowed_ips: 'allowed_ips' is of no use on a Unix socket"},
            {{raw, ["- {port: \"unix:/tmp/x\", module: megaphone, link_tls: {certfile: ", Server,
                    ", verify: false}}"]}, "link_tls: 'link_tls' is of no use on a Unix socket"}]),
    ok = file:del_dir_r(Dir).

%% Whichever place the listener has among others, and whichever its options among themselves.
reachable_needs_authentication(Config) ->
    Dir = e2e_ejabberd:temporary(),
    #{ca := Ca, server := Server} = e2e_certs:make(Dir),
    Secret = filename:join(Dir, "secret"),
    ok = file:write_file(Secret, "sixteen bytes it"),
    ok = file:change_mode(Secret, 8#600),
    Verified = ["link_tls: {certfile: ", Server, ", cafile: ", Ca, "}"],
    Refused = "megaphone listener 0.0.0.0:6280: other hosts can reach it, and it asks nobody who "
              "they are: add 'secret_file', or 'link_tls' with 'cafile', or let it listen on this "
              "machine only (ip \"127.0.0.1\")",
    Here = "- {port: 6281, ip: \"127.0.0.1\", module: megaphone}\n",
    Other = "- {port: 5222, module: ejabberd_c2s}\n",
    Bare = "- {port: 6280, module: megaphone}\n",
    expect(Config,
           [{{raw, Bare}, Refused},
            {{raw, [Other, Bare]}, Refused},
            {{raw, [Bare, Other]}, Refused},
            {{raw, [Here, Bare]}, Refused},
            {{raw, [Bare, Here]}, Refused},
            {{raw, "- {ip: \"::\", module: megaphone, port: 6280}"}, "listener [::]:6280: other"},
            {{raw, "- {ip: 192.0.2.1, module: megaphone, port: 6280}"}, "listener 192.0.2.1:6280"},
            {{raw, ["- {port: 6280, module: megaphone, allowed_ips: 10.0.0.1}"]}, Refused},
            {{raw, ["- {port: 6280, module: megaphone, link_tls: {certfile: ", Server,
                    ", verify: false}}"]}, Refused},
            {{raw, ["- {port: 6280, module: megaphone, secret_file: ", Secret, "}"]}, ok},
            {{raw, ["- {secret_file: ", Secret, ", port: 6280, module: megaphone}"]}, ok},
            {{raw, ["- {port: 6280, module: megaphone, ", Verified, "}"]}, ok},
            {{raw, ["- {port: 6280, ip: 127.1.2.3, module: megaphone}"]}, ok},
            {{raw, ["- {port: 6280, ip: \"::1\", module: megaphone}"]}, ok},
            %% What a refused reload has left is not the next one's.
            {{raw, ["- {port: 6280, module: megaphone, secret_fil: ", Secret, "}"]},
             "Unknown option: secret_fil. Did you mean secret_file?"},
            {{raw, ["- {port: 6280, module: megaphone, secret_file: ", Secret, "}"]}, ok}]),
    ok = file:del_dir_r(Dir).

ecm_section(Config) ->
    expect(Config,
           [{ecm(Text), Expected}
            || {Text, Expected} <-
                   [{"listeners: []", "ecm->listeners: Empty list is not allowed"},
                    {"name: e", "ecm: Missing required option: listeners"},
                    {"listeners: [{service: http}]",
                     "ecm->listeners->1: where to listen is missing: give 'listen' or 'port'"},
                    {"listeners: [{port: 1}, {listen: \"127.0.0.1:1\", port: 2}]",
                     "ecm->listeners->2: 'listen' stands beside 'port' or 'ip'"},
                    {"listeners: [{listen: \"example.net:1\"}]",
                     "ecm->listeners->1->listen: 'example.net:1' is not an IP address and a "
                     "port, such as \"0.0.0.0:5280\" or \"[::]:5280\""},
                    {"listeners: [{listen: \"::1:5280\"}]", "is not an IP address and a port"},
                    {"listeners: [{listen: \"127.0.0.1:65536\"}]", "is not an IP address and a port"},
                    {"listeners: [{listen: \"[::1]:65535\"}]", ok},
                    {"listeners: [{port: 1, kind: udp}]",
                     "ecm->listeners->1->kind: Unexpected value: udp"},
                    {"connect_wait: 60, listeners: [{port: 1}]", ok},
                    {"connect_wait: 61, listeners: [{port: 1}]",
                     "ecm->connect_wait: at most 60 seconds"},
                    {"links: 65, listeners: [{port: 1}]",
                     "ecm->links: Expected integer from 1 to 64, got: 65"},
                    {"resume_timeout: 0, open_rate: 500, drain_time: 5, max_buffered: 1048576, "
                     "resume_buffer: 65536, listeners: [{port: 1}]", ok},
                    {"open_rate: 0, listeners: [{port: 1}]",
                     "ecm->open_rate: Expected integer from 1 to 1000000, got: 0"},
                    {"resume_timeout: 100 ms, listeners: [{port: 1}]",
                     "ecm->resume_timeout: Timeout must not be shorter than one second"},
                    {"command: /no/such, listeners: [{port: 1}]",
                     "ecm->command: Failed to read file '/no/such'"},
                    {"listen: 1, listeners: [{port: 1}]", "ecm: Unknown option: listen"}]]).

ecm(Text) -> {raw, ["- {port: \"unix:/tmp/x\", module: megaphone, ecm: {", Text, "}}"]}.

%% Each option of the section, with the value at its bound, is one that the ECM knows and allows.
ecm_takes_what_is_written(Config) ->
    Dir = e2e_ejabberd:temporary(),
    File = filename:join(Dir, "ecm.toml"),
    [begin
         {ok, #{ecm := #{listeners := Listeners} = Ecm}} =
             call(Config, configured, [yaml(ecm(Text)), <<"unix:/tmp/x">>]),
         Toml = megaphone_toml:ecm(Ecm#{listeners := [L#{kind => http} || L <- Listeners]},
                                   <<"/tmp/x">>),
         ok = file:write_file(File, Toml),
         Said = os:cmd(e2e_paths:ecm() ++ " --check --config " ++ File ++ " && echo understood"),
         ?assertEqual({Said, "understood\n"},
                      {Said, lists:nthtail(max(0, length(Said) - 11), Said)})
     end || Text <- ["listeners: [{port: 5280}]",
                     "name: e.1, log_level: debug, links: 64, window: 1024, max_frame: 16777216, "
                     "max_clients: 1, max_waiting: 0, workers: 1024, connect_wait: 60, "
                     "heartbeat: 1 h, close_timeout: 1, resume_timeout: 0, resume_buffer: 65536, "
                     "max_buffered: 1048576, open_rate: 1, drain_time: 0, "
                     "listeners: [{port: 5280, ip: \"::1\", backlog: 65535, send_buffer: 4096}]",
                     "links: 1, window: 2147483647, max_frame: 4096, max_clients: 100000000, "
                     "max_waiting: 1000000, workers: 1, connect_wait: 1, heartbeat: 1, "
                     "close_timeout: 1 h, resume_timeout: 1 h, resume_buffer: 1073741824, "
                     "max_buffered: 1099511627776, open_rate: 1000000, drain_time: 1 h, "
                     "listeners: [{listen: \"0.0.0.0:1\", backlog: 1}]"]],
    ok = file:del_dir_r(Dir).

%% What was noted of one listener is forgotten at the next, and at the next reload.
next_listener_starts_afresh(Config) ->
    Unix = "- {port: \"unix:/tmp/x\", module: megaphone, ecm: {listeners: [{port: 1}]}}\n",
    Tcp = "- {port: 6280, ip: \"::1\", module: megaphone, request_handlers: {/bosh: mod_bosh}}\n",
    Services = "- {port: 6281, ip: \"127.0.0.1\", module: megaphone, "
               "services: {c2s: {module: ejabberd_c2s}}}\n",
    Texts = [[Tcp, Unix, Services], [Services, Unix, Tcp], [Unix, Services, Tcp]],
    ?assertEqual([ok, ok, ok], call(Config, check_all, [[unicode:characters_to_binary(T) || T <- Texts]])).

unix_directory_is_made(Config) ->
    Top = e2e_ejabberd:temporary(),
    Dir = filename:join([Top, "a", "b"]),
    expect(Config, [{{raw, ["- {port: \"unix:", Dir, "/s\", module: megaphone}"]}, ok}]),
    {ok, Info} = file:read_file_info(Dir),
    ?assertEqual(8#700, element(8, Info) band 8#777),
    ok = file:del_dir_r(Top).

%% ---- what becomes of them ----

services_get_what_a_listener_gets(Config) ->
    %% ejabberd removes options that equal their default, and modules rely on that.
    #{services := #{<<"c2s">> := C2s, <<"http">> := Http}} =
        listener(Config, "services: {"
                 "c2s: {module: ejabberd_c2s, access: all, starttls: true, "
                 "max_fsm_queue: 10000, max_stanza_size: 65536, send_timeout: 3}, "
                 "http: {module: ejabberd_http, tag: \"\", supervisor: false, "
                 "request_handlers: {/bosh: mod_bosh}}}"),
    ?assertMatch(#{module := ejabberd_c2s, supervisor := true, send_timeout := 3000}, C2s),
    ?assertEqual([{max_stanza_size, 65536}, {send_timeout, 3000}, {starttls, true}],
                 lists:sort(maps:get(opts, C2s))),
    ?assertMatch(#{module := ejabberd_http, supervisor := false, send_timeout := 15000}, Http),
    ?assertEqual([{request_handlers, [{[<<"bosh">>], mod_bosh}]}, {supervisor, false}],
                 lists:sort(maps:get(opts, Http))),
    %% Without services, the listener's own.
    #{services := Alone} = listener(Config, "request_handlers: {/bosh: mod_bosh}, tls: false"),
    ?assertEqual(#{<<"http">> => #{module => megaphone_http, supervisor => true,
                                   send_timeout => 15000,
                                   opts => [{ip, {127, 0, 0, 1}},
                                            {request_handlers, [{[<<"bosh">>], mod_bosh}]}]}},
                 Alone).

default_service(Config) ->
    [?assertMatch({Text, #{default_service := Name, version_1 := Allow}},
                  {Text, listener(Config, Text)})
     || {Text, Name, Allow} <-
            [{"window: 2048", <<"http">>, true},
             {"version_1: false", <<"http">>, false},
             {"services: {c2s: {module: ejabberd_c2s}}", <<"c2s">>, true},
             {"services: {c2s: {module: ejabberd_c2s}, http: {module: ejabberd_http}}",
              <<"http">>, true},
             {"services: {c2s: {module: ejabberd_c2s}, mqtt: {module: mod_mqtt}}, "
              "default_service: mqtt", <<"mqtt">>, true},
             %% Nothing says which: version 1 is not taken.
             {"services: {c2s: {module: ejabberd_c2s}, mqtt: {module: mod_mqtt}}",
              <<"c2s">>, false}]].

%% ---- in the test's node ----

expect(Config, Cases) ->
    Texts = [yaml(Case) || {Case, _} <- Cases],
    Answers = call(Config, check_all, [Texts]),
    [?assertEqual({Text, match}, {Text, match(Answer, Expected)})
     || {Text, Answer, {_, Expected}} <- lists:zip3(Texts, Answers, Cases)].

match(ok, ok) -> match;
match(Sentence, Expected) when is_list(Sentence), Expected =/= ok ->
    case string:find(Sentence, Expected) of
        nomatch -> {Sentence, Expected};
        _ -> match
    end;
match(Answer, Expected) -> {Answer, Expected}.

listener(Config, Text) ->
    {ok, Values} = call(Config, configured, [yaml(Text), 6280]),
    Values.

yaml({raw, Text}) -> unicode:characters_to_binary(Text);
yaml(Text) -> unicode:characters_to_binary(["- {port: 6280, ip: \"127.0.0.1\", module: megaphone, ",
                                            Text, "}"]).

call(Config, Function, Args) -> peer:call(?config(node, Config), ?MODULE, Function, Args).

%% ---- in the node that has ejabberd's code ----

%% ok, or what the administrator reads.
check(Text) ->
    case validate(Text) of
        {ok, _} -> ok;
        {error, Reason, Where} -> lists:flatten(econf:format_error(Reason, Where))
    end.

check_all(Texts) -> [check(Text) || Text <- Texts].

%% As ejabberd_listener hands options to tcp_init/2.
configured(Text, Port) ->
    {ok, [{_EndPoint, megaphone, Options}]} = validate(Text),
    Defaults = megaphone:listen_options() ++ ejabberd_listener:listen_options(),
    Given = [Option || {Key, Value} = Option <- maps:to_list(Options),
                       proplists:get_value(Key, Defaults) =/= Value],
    megaphone_options:listener(Given, Port).

validate(Text) ->
    {ok, [Yaml]} = fast_yaml:decode(Text, [plain_as_atom]),
    econf:validate(ejabberd_listener:validator(), Yaml).
