%% megaphone-load, the real program, against real ejabberds: its users log in and chat over every
%% transport, on ejabberd's own listeners (`stock`) and through megaphone and its ECM, and what it
%% reports is held against what there is. How it tells what a server does wrong is tested in
%% native/load/tests, against a server that does wrong on purpose.
-module(load_SUITE).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-export([suite/0, all/0, groups/0, init_per_group/2, end_per_group/2]).
-export([c2s/1, starttls/1, direct_tls/1, websocket/1, bosh/1, scram_sha_1/1, scram_sha_256/1, plain/1]).
-export([what_the_server_says/1, a_users_memory/1, wrong_password/1, unknown_host/1, refused_address/1,
         untrusted_certificate/1, wrong_cookie/1]).

-define(LOOPBACK, "127.0.0.1").
-define(USERS, 20).
-define(ACCOUNTS, 10).
%% A run takes two or three seconds; this is for a machine that is busy with others.
-define(TIMEOUT, 60_000).

suite() -> [{timetrap, {minutes, 2}}].

all() -> [{group, ejabberd_23_01}, {group, ejabberd_24_12}].

groups() ->
    [{ejabberd_23_01, [], [{group, stock}, {group, megaphone}, {group, server}]},
     {ejabberd_24_12, [], [{group, stock}, {group, megaphone}, {group, server}]},
     {stock, [], [{group, together}, bosh]},
     {megaphone, [], [{group, together}, bosh]},
     %% At a time: they wait more than they work.
     {together, [parallel], streams() ++ accounts()},
     {server, [], [what_the_server_says, a_users_memory, wrong_password, unknown_host, refused_address,
                   untrusted_certificate, wrong_cookie]}].

streams() -> [c2s, starttls, direct_tls, websocket].

accounts() -> [scram_sha_1, scram_sha_256, plain].

init_per_group(ejabberd_23_01, Config) -> start("23.01", Config);
init_per_group(ejabberd_24_12, Config) -> start("24.12", Config);
init_per_group(server, Config) -> [{ports, ?config(megaphone, Config)} | Config];
init_per_group(together, Config) -> Config;
init_per_group(Side, Config) -> [{ports, ?config(Side, Config)} | Config].

end_per_group(Group, Config) when Group =:= ejabberd_23_01; Group =:= ejabberd_24_12 ->
    e2e_ejabberd:stop(?config(node, Config)),
    e2e_ejabberd:keep_log(?config(dir, Config), ?config(priv_dir, Config));
end_per_group(_, _) -> ok.

start(Version, Config) ->
    Dir = e2e_ejabberd:temporary(),
    #{ca := Ca, server := Certificate, stranger := OtherCa} = e2e_certs:make(Dir),
    [Stock, Megaphone] = Sides = [maps:from_list([{Service, e2e_port:free()} || Service <- services()]) || _ <- "12"],
    NodePort = e2e_port:free(),
    Options = #{version => Version, dir => Dir, config => yaml(Dir, Certificate, Sides),
                node => {"load", {127, 0, 0, 1}, NodePort}},
    case e2e_ejabberd:start(Options) of
        {ok, Node} ->
            {ok, _} = e2e_ejabberd:wait_log(Node, "link .* up to", ?TIMEOUT),
            _ = [ok = e2e_ejabberd:call(Node, ejabberd_auth, try_register, [name(N), <<"localhost">>, password(N)])
                 || N <- lists:seq(1, ?ACCOUNTS)],
            [{node, Node}, {dir, Dir}, {ca, Ca}, {other_ca, OtherCa}, {node_port, NodePort}, {stock, Stock},
             {megaphone, Megaphone} | Config];
        {error, Reason} ->
            file:del_dir_r(Dir),
            ct:fail(Reason)
    end.

name(N) -> <<"user", (integer_to_binary(N))/binary>>.

password(N) -> <<"secret", (integer_to_binary(N))/binary>>.

%% ---- every way in ----

c2s(Config) -> anonymous(["xmpp://", at(c2s, Config)], 100, [], Config).

starttls(Config) -> anonymous(["xmpp://", at(c2s, Config)], 100, ["--starttls", "--insecure"], Config).

%% The certificate is verified, and is for the domain.
direct_tls(Config) -> anonymous(["xmpps://", at(c2s_tls, Config)], 100, [], Config).

websocket(Config) -> anonymous(["ws://", at(http, Config), "/ws"], 100, [], Config).

%% By itself, and fewer messages: where a machine is so busy that two requests overtake each other on their
%% way, ejabberd_bosh keeps the second for as long as nothing comes for the user (docs/load.md).
bosh(Config) -> anonymous(["http://", at(http, Config), "/bosh"], 20, ["--hold", "500ms"], Config).

scram_sha_1(Config) -> registered(["xmpp://", at(c2s, Config)], "SCRAM-SHA-1", Config).

scram_sha_256(Config) -> registered(["ws://", at(http, Config), "/ws"], "SCRAM-SHA-256", Config).

plain(Config) -> registered(["xmpp://", at(c2s, Config)], "PLAIN", Config).

%% Users log in, chat, leave and come back.
anonymous(Url, Rate, Options, Config) ->
    Report = load(Url, ["--domain", "anon.localhost", "--users", integer_to_list(?USERS),
                        "--chatter", integer_to_list(Rate), "--for", "1s", "--churn", "10" | Options], Config),
    #{<<"chatter">> := Chatter} = all_went_well(?USERS, Rate, Report),
    ?assertMatch(#{<<"joined">> := Joined, <<"left">> := Left} when Joined >= 2 andalso Left >= 2, Chatter).

registered(Url, Mechanism, Config) ->
    Report = load(Url, ["--domain", "localhost", "--users", integer_to_list(?ACCOUNTS), "--accounts", "user%",
                        "--password", "secret%", "--mechanism", Mechanism, "--chatter", "100", "--for", "1s"], Config),
    ?assertEqual(iolist_to_binary(["user% (", Mechanism, ")"]), maps:get(<<"accounts">>, Report)),
    all_went_well(?ACCOUNTS, 100, Report).

%% All logged in, and what they said was heard. The only step of the report.
all_went_well(Users, Rate, #{<<"steps">> := [Step]} = Report) ->
    ?assertMatch(#{<<"faults">> := 0}, Report),
    #{<<"logins">> := Logins, <<"hold">> := Hold, <<"chatter">> := Chatter} = Step,
    ?assertMatch(#{<<"tried">> := Users, <<"logged_in">> := Users, <<"errors">> := None,
                   <<"latency">> := #{<<"count">> := Users}} when None =:= #{}, Logins),
    ?assertMatch(#{<<"online">> := Users}, Hold),
    #{<<"sent">> := Sent, <<"arrived">> := Arrived, <<"latency">> := Latency} = Chatter,
    %% It was for one second.
    ?assert(Sent > Rate div 2 andalso Sent =< Rate * 11 div 10, Sent),
    ?assertEqual(Sent, Arrived),
    ?assertEqual(#{}, maps:filter(fun(Key, Value) -> lists:member(Key, faults()) andalso Value =/= 0 end, Chatter)),
    #{<<"count">> := Arrived, <<"p50">> := P50, <<"p99">> := P99, <<"max">> := Max} = Latency,
    %% Microseconds.
    ?assert(10 < P50 andalso P50 =< P99 andalso P99 =< Max andalso Max < ?TIMEOUT * 1000, Latency),
    %% A message has its body at least.
    #{<<"read">> := Read, <<"written">> := Written} = Chatter,
    ?assert(min(Read, Written) > Sent * 128, {Read, Written}),
    ?assert(Read + Written < Sent * 10_000, {Read, Written}),
    Step.

faults() -> [<<"lost">>, <<"doubled">>, <<"disordered">>, <<"damaged">>, <<"unsent">>].

%% ---- what is told of the server ----

what_the_server_says(Config) ->
    Node = ?config(node, Config),
    #{os_pid := OsPid} = Node,
    #{<<"steps">> := [Step]} =
        load(["ws://", at(http, Config), "/ws"],
             ["--domain", "anon.localhost", "--users", "30", "--chatter", "100", "--for", "1s",
              "--server-pid", integer_to_list(OsPid), "--collect" | erlang_node(Config)], Config),
    #{<<"login_cost">> := LoginCost, <<"chatter_cost">> := ChatterCost, <<"memory">> := Memory,
      <<"collected">> := Collected, <<"generator">> := Generator} = Step,
    %% It worked, on two processors or so.
    [?assert(Cpu > 0 andalso Cpu < Seconds * erlang:system_info(logical_processors), Cost)
     || #{<<"server_cpu">> := Cpu, <<"seconds">> := Seconds} = Cost <- [LoginCost, ChatterCost]],
    #{<<"rss">> := Rss, <<"pss">> := Pss, <<"account">> := Account} = Memory,
    %% A node with ejabberd has some 50 to 200 MB.
    ?assert(Rss > 30_000_000 andalso Rss < 1_000_000_000, Rss),
    ?assert(Pss > Rss div 2 andalso Pss =< Rss, {Pss, Rss}),
    ?assertMatch(#{<<"workers">> := 1, <<"rss">> := Own} when Own > 1_000_000, Generator),
    #{<<"memory">> := #{<<"total">> := Total, <<"processes">> := Processes, <<"system">> := System},
      <<"allocated">> := Allocated, <<"used">> := Used, <<"nifs">> := #{<<"megaphone">> := Nif},
      <<"processes">> := Types, <<"ports">> := Ports, <<"descriptors">> := Descriptors} = Account,
    ?assertEqual(Total, Processes + System),
    ?assert(Used =< Allocated andalso Used > Total div 2 andalso Allocated < Rss * 2, Account),
    ?assert(Nif > 10_000 andalso Nif < 100_000_000, Nif),
    %% Each user is three processes, and no port of its own behind megaphone. Some of another
    %% case's users may still be about.
    [?assertMatch({Type, #{<<"count">> := Count, <<"memory">> := Bytes}}
                    when Count >= 30 andalso Count < 60 andalso Bytes > 30 * 1000,
                  {Type, maps:get(Type, Types, none)})
     || Type <- [<<"ejabberd_c2s">>, <<"ejabberd_http_ws">>, <<"ejabberd_http">>]],
    ?assertMatch(#{<<"megaphone_receiver">> := #{<<"count">> := 1}}, Types),
    ?assert(Ports > 5 andalso Ports < 40, Ports),
    ?assert(Descriptors > 5 andalso Descriptors < 100, Descriptors),
    #{<<"account">> := #{<<"memory">> := #{<<"processes">> := Fewer}}} = Collected,
    ?assert(Fewer < Processes, {Processes, Fewer}),
    %% The tool has left nothing in the node, and nobody on it.
    ?assertEqual(false, e2e_ejabberd:call(Node, code, is_loaded, [megaphone_load_account])),
    ?assertEqual([], e2e_ejabberd:call(Node, erlang, nodes, [connected])).

%% Two steps give a slope; a user is some kilobytes.
a_users_memory(Config) ->
    #{<<"steps">> := [Few, Many], <<"memory_per_user">> := Slope} =
        load(["ws://", at(http, Config), "/ws"],
             ["--domain", "anon.localhost", "--users", "10,200", "--rate", "500" | erlang_node(Config)], Config),
    ?assertMatch({#{<<"online">> := 10}, #{<<"online">> := 200}}, {Few, Many}),
    #{<<"allocated">> := Allocated, <<"used">> := Used, <<"rss">> := Rss} = Slope,
    ?assertEqual(null, Rss),
    ?assert(Used > 5_000 andalso Used < 500_000, Slope),
    ?assert(Allocated > 0 andalso Allocated < 1_000_000, Slope).

erlang_node(Config) ->
    ["--erlang-node", "load@" ?LOOPBACK, "--erlang-port", integer_to_list(?config(node_port, Config))].

%% ---- what goes wrong is said ----

wrong_password(Config) ->
    Text = fails(["ws://", at(http, Config), "/ws"],
                 ["--domain", "localhost", "--users", "3", "--accounts", "user%", "--password", "wrong"], Config),
    said("not-authorized", Text),
    said("3 faults", Text).

unknown_host(Config) ->
    said("host-unknown", fails(["xmpp://", at(c2s, Config)], ["--domain", "nowhere.invalid", "--users", "2"], Config)).

refused_address(Config) ->
    Url = ["xmpp://" ?LOOPBACK ":", integer_to_list(e2e_port:free())],
    said("connect: ECONNREFUSED", fails(Url, ["--domain", "localhost", "--users", "2"], Config)).

%% It is signed by an authority that the tool was not told of.
untrusted_certificate(Config) ->
    Untrusting = lists:keystore(ca, 1, Config, {ca, ?config(other_ca, Config)}),
    said("certificate", fails(["xmpps://", at(c2s_tls, Config)], ["--domain", "anon.localhost", "--users", "2"], Untrusting)).

wrong_cookie(Config) ->
    said("cookie", fails(["xmpp://", at(c2s, Config)],
                         ["--domain", "anon.localhost", "--users", "1", "--erlang-cookie", "another" | erlang_node(Config)],
                         Config)).

said(Words, Text) -> ?assertMatch({_, {match, _}}, {Text, re:run(Text, Words)}).

%% ---- running it ----

%% Runs it to a good end: what it reports.
load(Url, Options, Config) ->
    Json = filename:join(?config(dir, Config), integer_to_list(erlang:unique_integer([positive])) ++ ".json"),
    Run = fun() -> run(Url, ["--json", Json | Options], Config) end,
    {Status, Text} = not_hung(Run(), Run, ?config(ports, Config) =:= ?config(stock, Config)),
    ?assertEqual({0, Text}, {Status, Text}),
    {ok, Report} = file:read_file(Json),
    %% Erlang/OTP 25 has no JSON; ejabberd brings some.
    e2e_ejabberd:call(?config(node, Config), jiffy, decode, [Report, [return_maps]]).

%% ejabberd's own listener can lose a client's first frame (docs/load.md): it is asked once more.
not_hung({1, Text} = Failed, Run, true) ->
    case re:run(Text, "timed out: logging in") of
        {match, _} -> Run();
        nomatch -> Failed
    end;
not_hung(Done, _Run, _Stock) ->
    Done.

%% Runs it to a bad end: what it says.
fails(Url, Options, Config) ->
    {Status, Text} = run(Url, Options, Config),
    ?assertEqual({1, Text}, {Status, Text}),
    ?assertEqual(nomatch, re:run(Text, "panicked")),
    Text.

run(Url, Options, Config) ->
    Environment = [{"SSL_CERT_FILE", ?config(ca, Config)}, {"SSL_CERT_DIR", false},
                   {"ERLANG_COOKIE", binary_to_list(cookie(Config))}],
    Arguments = ["users", lists:flatten(Url), "--patience", "20s" | Options],
    {ok, Status, Lines} = e2e_process:run(e2e_paths:load(), Arguments, Environment, ?TIMEOUT),
    Text = unicode:characters_to_binary(lists:join($\n, Lines)),
    ct:log("megaphone-load ~ts~n~ts", [lists:join(" ", Arguments), Text]),
    {Status, Text}.

cookie(Config) -> atom_to_binary(e2e_ejabberd:call(?config(node, Config), erlang, get_cookie, [])).

at(Service, Config) -> [?LOOPBACK ":", integer_to_list(maps:get(Service, ?config(ports, Config)))].

%% ---- ejabberd ----

services() -> [http, c2s, c2s_tls].

yaml(Dir, Certificate, [Stock, Megaphone]) ->
    ["hosts: [localhost, anon.localhost]\n"
     "loglevel: info\n"
     "certfiles: [\"", Certificate, "\"]\n"
     "auth_password_format: plain\n" % so that each mechanism is offered
     "host_config: {anon.localhost: {auth_method: [anonymous], anonymous_protocol: sasl_anon}}\n"
     "modules: {mod_bosh: {}, mod_ping: {}, mod_roster: {}}\n"
     "listen:\n",
     [["  - {port: ", integer_to_list(maps:get(Service, Stock)), ", ip: \"" ?LOOPBACK "\", backlog: 128, ", options(Service), "}\n"]
      || Service <- services()],
     "  - port: \"unix:", Dir, "/link.sock\"\n"
     "    module: megaphone\n"
     "    services:\n",
     [["      ", atom_to_list(Service), ": {", options(Service), "}\n"] || Service <- services()],
     "    ecm:\n"
     "      listeners:\n",
     [["        - {listen: \"" ?LOOPBACK ":", integer_to_list(maps:get(Service, Megaphone)), "\", service: ",
       atom_to_list(Service), "}\n"] || Service <- services()]].

options(http) -> "module: ejabberd_http, request_handlers: {/bosh: mod_bosh, /ws: ejabberd_http_ws}";
options(c2s) -> "module: ejabberd_c2s, starttls: true";
options(c2s_tls) -> "module: ejabberd_c2s, tls: true".
