%% One ejabberd with every handler of HTTP behind listeners of its own (the oracle) and behind
%% megaphone, with the same options.
-module(e2e_parity).

-export([start/2, stop/2, front/0, ports/1]).
-export_type([world/0]).

%% `plain`: nothing but handlers; `custom`: with custom_headers, default_host and a tag.
-type ports() :: #{plain := inet:port_number(), custom := inet:port_number()}.
-type world() :: #{node := e2e_ejabberd:ejabberd(), dir := file:filename(), stock := ports(), ours := ports()}.

%% The module under test. With E2E_FRONT=ejabberd_http the suites test themselves: nothing differs
%% then but what a case did wrong.
-spec front() -> string().
front() -> os:getenv("E2E_FRONT", "megaphone_http").

-spec ports(world()) -> #{stock | ours := ports()}.
ports(World) -> maps:with([stock, ours], World).

%% `more`: options of the `plain` service under test, in YAML's flow style with a comma in front.
-spec start(Version :: string(), #{more => iodata()}) -> world().
start(Version, Options) ->
    Dir = e2e_ejabberd:temporary(),
    #{server := Certificate} = e2e_certs:make(Dir),
    [Stock, Ours] = [#{plain => e2e_port:free(), custom => e2e_port:free()} || _ <- [stock, ours]],
    ok = file:make_dir(filename:join(Dir, "files")),
    ok = files(filename:join(Dir, "files")),
    {ok, Node} = e2e_ejabberd:start(#{version => Version, dir => Dir,
                                      config => yaml(Dir, Certificate, Stock, Ours, maps:get(more, Options, ""))}),
    _ = [{ok, _} = e2e_ejabberd:wait_log(Node, ["listening on 127\\.0\\.0\\.1:", integer_to_list(Port)], 20_000)
         || Port <- maps:values(Ours)],
    #{node => Node, dir => Dir, stock => Stock, ours => Ours}.

-spec stop(world(), Into :: file:filename()) -> ok.
stop(#{node := Node, dir := Dir}, Into) ->
    ok = e2e_ejabberd:stop(Node),
    e2e_ejabberd:keep_log(Dir, Into).

%% What mod_http_fileserver serves.
files(Dir) ->
    ok = file:make_dir(filename:join(Dir, "dir")),
    ok = file:make_dir(filename:join(Dir, "empty_dir")),
    maps:foreach(fun(Name, Content) -> ok = file:write_file(filename:join(Dir, Name), Content) end,
                 #{"index.html" => "<p>index</p>", "dir/index.html" => "<p>inner</p>", "a b.txt" => "a space",
                   "empty.txt" => "", "ü.txt"  => "umlaut", "large.bin" => binary:copy(<<"0123456789">>, 200_000),
                   "noext" => "no extension", "page.xhtml" => "<html/>", "s.unknownsuffix" => "?"}).

yaml(Dir, Certificate, Stock, Ours, More) ->
    ["hosts: [localhost, other.localhost]\n"
     "loglevel: info\n"
     "certfiles: [\"", Certificate, "\"]\n"
     "trusted_proxies: [\"127.0.0.1\", \"10.0.0.0/8\"]\n"
     "websocket_origin: [\"https://good.example\"]\n"
     "acl: {admin: {user: [alice@localhost]}}\n"
     "access_rules: {configure: {allow: admin}}\n"
     "oauth_access: all\n"
     "api_permissions:\n"
     "  open:\n"
     "    who: {ip: 127.0.0.0/8}\n"
     "    what: [status, registered_vhosts, user_sessions_info]\n"
     "  admins:\n"
     "    from: [mod_http_api]\n"
     "    who: {access: {allow: {acl: admin}}, oauth: {scope: \"ejabberd:admin\", access: {allow: {acl: admin}}}}\n"
     "    what: \"*\"\n"
     "listen:\n",
     [["  - {port: ", integer_to_list(maps:get(Kind, Stock)), ", ip: \"127.0.0.1\", module: ejabberd_http, ",
       options(Kind), "}\n"] || Kind <- [plain, custom]],
     "  - port: \"unix:", Dir, "/link.sock\"\n"
     "    module: megaphone\n"
     "    services:\n",
     [["      ", atom_to_list(Kind), ": {module: ", front(), ", ", options(Kind),
       [More || Kind =:= plain], "}\n"] || Kind <- [plain, custom]],
     "    ecm:\n"
     "      listeners:\n",
     [["        - {listen: \"127.0.0.1:", integer_to_list(maps:get(Kind, Ours)), "\", service: ",
       atom_to_list(Kind), "}\n"] || Kind <- [plain, custom]],
     "modules:\n"
     "  mod_bosh: {max_inactivity: 5}\n"
     "  mod_conversejs:\n"
     "    conversejs_resources: \"", filename:join([e2e_paths:node_modules(), "converse.js", "dist"]), "\"\n"
     "    websocket_url: \"ws://@HOST@:1/ws\"\n"
     "    bosh_service_url: \"http://@HOST@:1/bosh\"\n"
     "  mod_disco: {}\n"
     "  mod_host_meta:\n"
     "    websocket_url: \"wss://@HOST@:1/ws\"\n"
     "    bosh_service_url: \"https://@HOST@:1/bosh\"\n"
     "  mod_http_api: {}\n"
     "  mod_http_fileserver:\n"
     "    docroot: \"", Dir, "/files\"\n"
     "    directory_indices: [index.html]\n"
     "    custom_headers: {X-Files: served}\n"
     "    content_types: {.xhtml: application/xhtml+xml}\n"
     "    default_content_type: application/x-any\n"
     "  mod_http_upload:\n"
     "    docroot: \"", Dir, "/upload\"\n"
     "    put_url: \"http://@HOST@/upload\"\n"
     "    access: all\n"
     "    max_size: 100000000\n"
     "    custom_headers: {X-Upload: yes}\n"
     "  mod_mqtt: {}\n"
     "  mod_register: {ip_access: all}\n"
     "  mod_register_web: {}\n"
     "  mod_roster: {}\n"].

options(plain) -> handlers();
options(custom) ->
    [handlers(), ", default_host: other.localhost, tag: \"a tag\", "
     "custom_headers: {X-Custom: \"of the listener\", X-Version: \"@VERSION@\", Access-Control-Allow-Origin: \"*\"}"].

handlers() ->
    "request_handlers: {/bosh: mod_bosh, /ws: ejabberd_http_ws, /mqtt: mod_mqtt, /api: mod_http_api, "
    "/upload: mod_http_upload, /admin: ejabberd_web_admin, /conversejs: mod_conversejs, /files: mod_http_fileserver, "
    "/captcha: ejabberd_captcha, /.well-known/host-meta: mod_host_meta, /.well-known/host-meta.json: mod_host_meta, "
    "/oauth: ejabberd_oauth, /register: mod_register_web, /peer: e2e_peer_handler, /echo: e2e_echo_handler, "
    "/echo/deep/er: e2e_peer_handler, /handoff: e2e_handoff_handler}".
