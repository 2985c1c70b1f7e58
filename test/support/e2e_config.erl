%% ejabberd.yml for the end-to-end suites: the same services behind ejabberd's own
%% listeners (the oracle) and behind megaphone.
-module(e2e_config).

-export([yaml/1, ports/0]).
-export_type([ports/0]).

-type ports() :: #{http := inet:port_number(), c2s := inet:port_number(), mqtt := inet:port_number()}.
-type options() :: #{front := stock | megaphone, ports := ports(),
                     dir := file:filename(),       % the link's Unix socket is made here
                     certificate := file:filename(),
                     link_port => inet:port_number(), % a second, open link listener
                     listen => iodata()}.            % instead of all listeners below

-spec ports() -> ports().
ports() -> #{http => e2e_port:free(), c2s => e2e_port:free(), mqtt => e2e_port:free()}.

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
     "access_rules: {configure: {allow: admin}}\n"
     "listen:\n", listen(Options),
     "modules:\n"
     "  mod_blocking: {}\n" % Converse.js opens no chat without it
     "  mod_bosh: {}\n"
     "  mod_carboncopy: {}\n"
     "  mod_conversejs:\n"
     "    conversejs_resources: \"", converse(), "\"\n"
     %% mod_conversejs itself does not serve Converse's emoji.json and sounds.
     "    conversejs_options: {assets_path: /files/node_modules/converse.js/dist/}\n"
     "    websocket_url: \"ws://@HOST@:", port(http, Options), "/ws\"\n"
     "    bosh_service_url: \"http://@HOST@:", port(http, Options), "/bosh\"\n"
     "  mod_disco: {}\n"
     "  mod_http_fileserver: {docroot: \"", e2e_paths:installed(), "\"}\n"
     "  mod_mqtt: {}\n"
     "  mod_ping: {}\n"
     "  mod_privacy: {}\n"
     "  mod_roster: {}\n"
     "  mod_vcard: {}\n"].

listen(#{listen := Listen}) ->
    Listen;
listen(#{front := stock} = Options) ->
    [["  - {port: ", port(Service, Options), ", ip: \"127.0.0.1\", ", options(Service), "}\n"]
     || Service <- [http, c2s, mqtt]];
listen(#{front := megaphone, dir := Dir} = Options) ->
    ["  - port: \"unix:", Dir, "/link.sock\"\n",
     megaphone(),
     "    ecm:\n"
     "      listeners:\n",
     [["        - {listen: \"127.0.0.1:", port(Service, Options), "\", service: ",
       atom_to_list(Service), ", kind: ", kind(Service), "}\n"] || Service <- [http, c2s, mqtt]],
     case Options of
         #{link_port := LinkPort} ->
             ["  - port: ", integer_to_list(LinkPort), "\n    ip: \"127.0.0.1\"\n", megaphone()];
         _ ->
             []
     end].

megaphone() ->
    ["    module: megaphone\n"
     "    services:\n",
     [["      ", atom_to_list(Service), ": {", options(Service), "}\n"] || Service <- [http, c2s, mqtt]]].

options(http) ->
    "module: ejabberd_http, request_handlers: {/bosh: mod_bosh, /ws: ejabberd_http_ws, "
    "/admin: ejabberd_web_admin, /conversejs: mod_conversejs, /files: mod_http_fileserver, "
    "/peer: e2e_peer_handler}";
options(c2s) ->
    "module: ejabberd_c2s, starttls: true, starttls_required: true";
options(mqtt) ->
    "module: mod_mqtt".

kind(http) -> "http";
kind(_) -> "tcp".

port(Service, #{ports := Ports}) -> integer_to_list(maps:get(Service, Ports)).

converse() -> filename:join([e2e_paths:node_modules(), "converse.js", "dist"]).
