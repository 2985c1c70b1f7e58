%% The canary: thousands of connections whose every byte says where it belongs, through a
%% real ECM and a service in this node, while a proxy cuts, freezes and delays the links
%% between the two. Nothing may be lost, doubled, reordered or given to another.
-module(canary_SUITE).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-export([suite/0, all/0, groups/0, init_per_testcase/2, end_per_testcase/2]).
-export([whole_links/1, broken_links/1, broken_links_anew/1, several_broken_nodes/1, secret_and_tls/1, soak/1]).

%% Found nothing when it was chosen; it is here so that two runs can be compared.
-define(SEED, 20_260_101).
-define(TIMEOUT, 10_000).

suite() -> [{timetrap, {minutes, 4}}].

all() -> [whole_links, broken_links, broken_links_anew, several_broken_nodes, secret_and_tls].

%% `make soak' asks for it.
groups() -> [{soak, [], [soak]}].

init_per_testcase(_Case, Config) ->
    Dir = e2e_ejabberd:temporary(),
    [{dir, Dir} | Config].

end_per_testcase(_Case, Config) ->
    Dir = ?config(dir, Config),
    _ = [file:copy(File, filename:join(?config(priv_dir, Config), filename:basename(File)))
         || File <- filelib:wildcard(filename:join(Dir, "*.log"))],
    file:del_dir_r(Dir).

%% Without a fault on the way: what fails here has nothing to do with resuming.
whole_links(Config) ->
    Report = flight(#{seed => ?SEED, clients => 500, seconds => 5, cuts => 0}, Config),
    ?assertEqual(0, canary:figure(cuts, Report)).

broken_links(Config) ->
    Report = broken(#{seed => ?SEED, clients => 1500, seconds => 20, cuts => 30}, Config),
    %% Of fewer faults with a seed of their own all may be cuts.
    ?assert(canary:figure(freezes, Report) > 0).

%% Another seed each time: printed, so that it can be run again (megaphone-canary --seed).
broken_links_anew(Config) ->
    broken(#{seed => fresh(), clients => 1500, seconds => 10, cuts => 15}, Config).

%% Two nodes' listeners, two links to each, a proxy before each.
several_broken_nodes(Config) ->
    broken(#{seed => fresh(), clients => 1000, seconds => 10, cuts => 15, nodes => 2, links => 2}, Config).

secret_and_tls(Config) ->
    broken(#{seed => fresh(), clients => 300, seconds => 8, cuts => 20, tls => true}, Config).

%% Rounds, each with a seed of its own: SEED, SEED + 1, ... (scripts/soak)
soak(Config) ->
    Seconds = list_to_integer(os:getenv("SOAK_SECONDS", "600")),
    First = case os:getenv("SEED", "") of "" -> fresh(); Given -> list_to_integer(Given) end,
    ct:timetrap({seconds, Seconds + 600}),
    rounds(First, erlang:monotonic_time(second) + Seconds, 1, Config).

rounds(Seed, Until, Round, Config) ->
    case Until - erlang:monotonic_time(second) of
        Left when Left < 10 ->
            say("~b rounds, nothing lost", [Round - 1]);
        Left ->
            Seconds = min(Left, 120),
            Shape = shape(Seed rem 4),
            say("round ~b: SEED=~b, ~b s, ~p", [Round, Seed, Seconds, Shape]),
            _ = broken(Shape#{seed => Seed, seconds => Seconds, cuts => Seconds}, Config),
            rounds(Seed + 1, Until, Round + 1, Config)
    end.

shape(0) -> #{clients => 4000, links => 1};
shape(1) -> #{clients => 3000, links => 4, bytes => 1_000_000};
shape(2) -> #{clients => 1000, links => 2, nodes => 2, bytes => 4_000_000};
shape(3) -> #{clients => 1000, links => 2, tls => true}.

%% ---- one flight ----

broken(Options, Config) ->
    Report = #{log := Log} = flight(Options, Config),
    ?assert(canary:figure(cuts, Report) > 0),
    %% It was not the proxy's kindness.
    ?assertNotEqual([], e2e_log:grep(Log, "link \\d+ resumed")),
    ?assertEqual([], e2e_log:grep(Log, "link \\d+ lost")),
    Report.

flight(#{seed := Seed, clients := Clients, seconds := Seconds, cuts := Cuts} = Options, Config) ->
    Security = security(Options, Config),
    Services = [canary:service(Security ++ [{heartbeat, 1000}, {resume_timeout, 30_000}])
                || _ <- lists:seq(1, maps:get(nodes, Options, 1))],
    Start = fun(Proxies, Port) ->
                    canary:start_ecm([backend(Proxy, Options, Config) || Proxy <- Proxies],
                                     #{dir => ?config(dir, Config), ports => [Port],
                                       top => [{links, integer_to_list(maps:get(links, Options, 1))}]})
            end,
    {#{status := Status} = Report, Ecm} =
        canary:fly([{"--seed", Seed}, {"--clients", Clients}, {"--seconds", Seconds}, {"--cuts", Cuts},
                    {"--bytes", maps:get(bytes, Options, 200_000)}],
                   [canary:service_port(Service) || Service <- Services], Start),
    ?assertEqual({Seed, 0}, {Seed, Status}),
    ?assert(canary:figure(finished, Report) > 0),
    ?assert(canary:figure(left, Report) > 0),
    _ = [ok = canary:idle(Service) || Service <- Services],
    ok = canary:stop_ecm(Ecm),
    _ = [ok = canary:stop(Service) || Service <- Services],
    Report.

backend(Proxy, Options, Config) ->
    ["[[backends]]\naddress = \"", Proxy, "\"\nconnect_timeout = \"2s\"\n"
     "reconnect_min = \"20ms\"\nreconnect_max = \"200ms\"\n",
     case Options of
         #{tls := true} ->
             ["secret_file = \"", secret_file(Config), "\"\n"
              "[backends.tls]\nca_file = \"", file(Config, "ca.pem"), "\"\nserver_name = \"localhost\"\n"];
         _ ->
             []
     end].

security(#{tls := true}, Config) ->
    Dir = ?config(dir, Config),
    #{server := Pem} = e2e_certs:make(Dir),
    Secret = base64:encode(crypto:strong_rand_bytes(24)),
    ok = file:write_file(secret_file(Config), [Secret, "\n"]),
    ok = file:change_mode(secret_file(Config), 8#600),
    [{secret, Secret}, {tls, [{certfile, Pem}, {keyfile, Pem}]}];
security(_, _) -> [].

secret_file(Config) -> file(Config, "secret").

file(Config, Name) -> filename:join(?config(dir, Config), Name).

fresh() -> rand:uniform(1 bsl 40).

say(Format, Arguments) -> io:format(user, Format ++ "~n", Arguments).
