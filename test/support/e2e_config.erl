%% ejabberd.yml for the end-to-end suites: the same services behind ejabberd's own
%% listeners (the oracle) and behind megaphone.
-module(e2e_config).

-export([yaml/1, ports/0]).
-export_type([options/0, ports/0]).

-type ports() :: #{http := inet:port_number(), c2s := inet:port_number(), mqtt := inet:port_number()}.
-type options() :: #{dir := file:filename(),            % the link's Unix socket is made here
                     certificate := file:filename(),
                     stock => ports(),                  % ejabberd's own listeners
                     edge => ports(),                   % megaphone's, with an ECM of its own in front
                     link => inet:port_number(),        % a link listener for anybody's ECM
                     services => iodata(),              % of megaphone's, instead of the usual three
                     listener => iodata(),              % more options of megaphone's listeners, 4 spaces in front
                     modules => iodata(),               % more modules, 2 spaces in front
                     top => iodata()}.                  % more at the top level

%% Free ports, one for each service.
-spec ports() -> ports().
ports() -> maps:from_list([{Service, e2e_port:free()} || Service <- services()]).

-spec yaml(options()) -> iodata().
yaml(Options) ->
    ["hosts: [localhost, anon.localhost]\n"
     "loglevel: info\n"
     "certfiles: [\"", maps:get(certificate, Options), "\"]\n"
     "auth_password_format: scram\n"
     %% With these gone, a client that logs in with a password has done SCRAM.
     "disable_sasl_mechanisms: [PLAIN, DIGEST-MD5, X-OAUTH2]\n"
     "host_config:\n"
     "  anon.localhost:\n"
     "    auth_method: [anonymous]\n"
     "    anonymous_protocol: sasl_anon\n"
     "    disable_sasl_mechanisms: [PLAIN, DIGEST-MD5, X-OAUTH2]\n"
     "acl: {admin: {user: [alice@localhost]}}\n"
     "access_rules: {configure: {allow: admin}}\n",
     maps:get(top, Options, ""),
     "listen:\n", listen(Options),
     "modules:\n"
     "  mod_blocking: {}\n" % Converse.js opens no chat without it
     "  mod_bosh: {}\n"
     "  mod_carboncopy: {}\n"
     "  mod_conversejs:\n"
     "    conversejs_resources: \"", converse(), "\"\n"
     %% mod_conversejs itself does not serve Converse's emoji.json and sounds.
     "    conversejs_options: {assets_path: /files/node_modules/converse.js/dist/}\n"
     "    websocket_url: \"ws://@HOST@:", chat_port(Options), "/ws\"\n"
     "    bosh_service_url: \"http://@HOST@:", chat_port(Options), "/bosh\"\n"
     "  mod_disco: {}\n"
     "  mod_http_fileserver: {docroot: \"", e2e_paths:installed(), "\"}\n"
     "  mod_mqtt: {}\n"
     "  mod_ping: {}\n"
     "  mod_privacy: {}\n"
     "  mod_roster: {}\n"
     "  mod_vcard: {}\n",
     maps:get(modules, Options, "")].

listen(Options) -> [stock(Options), edge(Options), link_listener(Options)].

stock(#{stock := Ports}) ->
    [["  - {port: ", port(Service, Ports), ", ip: \"127.0.0.1\", ", options(Service), "}\n"]
     || Service <- services()];
stock(_) -> [].

edge(#{edge := Ports, dir := Dir} = Options) ->
    ["  - port: \"unix:", Dir, "/link.sock\"\n", megaphone(Options),
     "    ecm:\n"
     "      listeners:\n",
     [["        - {listen: \"127.0.0.1:", port(Service, Ports), "\", service: ",
       atom_to_list(Service), "}\n"] || Service <- services()]];
edge(_) -> [].

link_listener(#{link := Port} = Options) ->
    ["  - port: ", integer_to_list(Port), "\n    ip: \"127.0.0.1\"\n", megaphone(Options)];
link_listener(_) -> [].

megaphone(Options) ->
    ["    module: megaphone\n", maps:get(listener, Options, ""),
     "    services:\n",
     case Options of
         #{services := Services} -> Services;
         _ -> [["      ", atom_to_list(Service), ": {", service(Service), "}\n"] || Service <- services()]
     end].

%% ejabberd's own HTTP module behind megaphone too, with E2E_FRONT=ejabberd_http.
service(http) -> string:replace(options(http), "ejabberd_http,", os:getenv("E2E_FRONT", "megaphone_http") ++ ",");
service(Service) -> options(Service).

services() -> [http, c2s, mqtt].

options(http) ->
    "module: ejabberd_http, request_handlers: {/bosh: mod_bosh, /ws: ejabberd_http_ws, "
    "/admin: ejabberd_web_admin, /conversejs: mod_conversejs, /files: mod_http_fileserver, "
    "/peer: e2e_peer_handler}";
options(c2s) ->
    "module: ejabberd_c2s, starttls: true, starttls_required: true";
options(mqtt) ->
    "module: mod_mqtt".

%% Where a page that mod_conversejs made sends its user.
chat_port(#{edge := Ports}) -> port(http, Ports);
chat_port(#{stock := Ports}) -> port(http, Ports);
chat_port(_) -> "0".

port(Service, Ports) -> integer_to_list(maps:get(Service, Ports)).

converse() -> filename:join([e2e_paths:node_modules(), "converse.js", "dist"]).
