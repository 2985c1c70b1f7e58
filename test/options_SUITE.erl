%% The options of `module: megaphone', checked by the ejabberd_listener of each ejabberd
%% that is supported. The nodes only have ejabberd's code: nothing of it runs.
-module(options_SUITE).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-export([suite/0, all/0, groups/0, init_per_group/2, end_per_group/2]).
-export([services_are_checked_by_their_modules/1, options_that_do_not_go_together/1,
         own_options/1, ecm_section/1, next_listener_starts_afresh/1, unix_directory_is_made/1,
         services_get_what_a_listener_gets/1, default_service/1]).
%% Called in the node.
-export([check_all/1, configured/2]).

suite() -> [{timetrap, {minutes, 1}}].

all() -> [{group, ejabberd_23_01}, {group, ejabberd_24_12}].

groups() ->
    Cases = [services_are_checked_by_their_modules, options_that_do_not_go_together,
             own_options, ecm_section, next_listener_starts_afresh, unix_directory_is_made,
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
            {"max_frame: 16777217", "max_frame: Expected integer from 1024 to 16777216"},
            {"max_connections: 0", "max_connections: Expected positive integer, got: 0"},
            {"accept_queue: 0", "accept_queue: Expected integer from 1 to 1000000, got: 0"},
            {"acceptors: 0", "acceptors: Expected integer from 1 to 1024, got: 0"},
            {"version_1: 7", "version_1: Expected string, got integer instead"},
            {"idle_timeout: 0", "idle_timeout: Expected positive integer or 'infinity', got: 0"},
            {"idle_timeout: infinity", ok},
            {"no_such: 1", "Unknown option: no_such"},
            {{raw, "- {port: 66666, module: megaphone}"}, "port: "},
            {{raw, ["- {port: \"unix:/", lists:duplicate(106, $a), "\", module: megaphone}"]}, ok},
            {{raw, ["- {port: \"unix:/", lists:duplicate(107, $a), "\", module: megaphone}"]},
             "port: the path of a Unix socket has at most 107 bytes"},
            {{raw, "- {port: \"unix:/proc/none/x\", module: megaphone}"},
             "port: cannot make the directory '/proc/none': no such file or directory"}]).

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
                    {"command: /no/such, listeners: [{port: 1}]",
                     "ecm->command: Failed to read file '/no/such'"},
                    {"listen: 1, listeners: [{port: 1}]", "ecm: Unknown option: listen"}]]).

ecm(Text) -> {raw, ["- {port: \"unix:/tmp/x\", module: megaphone, ecm: {", Text, "}}"]}.

%% What was noted of one listener is forgotten at the next, and at the next reload.
next_listener_starts_afresh(Config) ->
    Unix = "- {port: \"unix:/tmp/x\", module: megaphone, ecm: {listeners: [{port: 1}]}}\n",
    Tcp = "- {port: 6280, module: megaphone, request_handlers: {/bosh: mod_bosh}}\n",
    Services = "- {port: 6281, module: megaphone, services: {c2s: {module: ejabberd_c2s}}}\n",
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
    ?assertEqual(#{<<"http">> => #{module => ejabberd_http, supervisor => true,
                                   send_timeout => 15000,
                                   opts => [{request_handlers, [{[<<"bosh">>], mod_bosh}]}]}},
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
yaml(Text) -> unicode:characters_to_binary(["- {port: 6280, module: megaphone, ", Text, "}"]).

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
