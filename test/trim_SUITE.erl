%% mod_megaphone: processes of users who are quiet become small, and nobody notices. On ejabberd's own
%% listeners, where a process of each kind is to be had.
-module(trim_SUITE).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-export([suite/0, all/0, groups/0, init_per_group/2, end_per_group/2, init_per_testcase/2, end_per_testcase/2]).
-export([quiet_users_become_small/1, they_chat_as_before/1, no_message_is_lost/1, a_busy_one_is_left_alone/1,
         a_login_is_over_soon/1, stock_users_only_if_asked/1, off_and_on/1]).

suite() -> [{timetrap, {minutes, 1}}].

all() -> [{group, ejabberd_23_01}, {group, ejabberd_24_12}].

groups() ->
    Cases = [quiet_users_become_small, they_chat_as_before, no_message_is_lost, a_busy_one_is_left_alone,
             a_login_is_over_soon, stock_users_only_if_asked, off_and_on],
    [{ejabberd_23_01, [], Cases}, {ejabberd_24_12, [], Cases}].

%% Bytes that a process may have when it is quiet, with all that it has; ejabberd's have 3,900, 4,000
%% and 3,000 after `ejabberdctl gc`, and much more before it.
-define(SMALL, #{xmpp_stream_in => 2_900, ejabberd_bosh => 3_200, ejabberd_http_ws => 2_000}).
-define(USERS, [{bosh, <<"alice">>}, {bosh, <<"bob">>}, {websocket, <<"alice">>}, {websocket, <<"bob">>},
                {c2s, <<"alice">>}, {c2s, <<"bob">>}]).
-define(WAIT, 20_000).

init_per_group(Ejabberd, Config) ->
    {ok, _} = application:ensure_all_started(ssl),
    Dir = e2e_ejabberd:temporary(),
    #{ca := Ca, server := Certificate} = e2e_certs:make(Dir),
    Stock = e2e_config:ports(),
    Yaml = e2e_config:yaml(#{dir => Dir, certificate => Certificate, stock => Stock,
                             modules => "  mod_megaphone: {trim_idle: 1, trim_stock: true}\n"}),
    {ok, Node} = e2e_ejabberd:start(#{version => version(Ejabberd), dir => Dir, config => Yaml}),
    [{node, Node}, {dir, Dir}, {ports, Stock#{ca => Ca}} | Config].

end_per_group(_Ejabberd, Config) ->
    ok = e2e_ejabberd:stop(?config(node, Config)),
    e2e_ejabberd:keep_log(?config(dir, Config), ?config(priv_dir, Config)).

version(ejabberd_23_01) -> "23.01";
version(ejabberd_24_12) -> "24.12".

init_per_testcase(_Case, Config) ->
    Users = [{Transport, e2e_user:listen(e2e_user:login(Transport, Name, ?config(ports, Config)))}
             || {Transport, Name} <- ?USERS],
    [{users, Users} | Config].

end_per_testcase(_Case, Config) ->
    [e2e_user:close(User) || {_, User} <- ?config(users, Config)],
    ok = e2e_ejabberd:call(?config(node, Config), e2e_inside, end_users, []),
    Mark = "trim_idle: a process cannot be made smaller",
    ?assertEqual([], e2e_ejabberd:grep_log(?config(node, Config), Mark)),
    ok = set(#{trim_idle => 1_000, trim_rate => 10_000, trim_stock => true}, Config).

quiet_users_become_small(Config) ->
    _ = all_small(Config),
    %% What they have in common is known by now: those who were the examples shrink once more.
    Users = chat(?config(users, Config), <<"once">>),
    Sizes = all_small(Config),
    [?assert(Size =< maps:get(Kind, ?SMALL), {Kind, Size}) || {Kind, Size} <- Sizes],
    [e2e_user:close(User) || {_, User} <- Users],
    ok.

%% Woken again and again, and small in between.
they_chat_as_before(Config) ->
    lists:foldl(fun(Round, Users) ->
                        _ = all_small(Config),
                        chat(Users, integer_to_binary(Round))
                end, ?config(users, Config), lists:seq(1, 4)),
    ok.

%% Told to shrink all the time while much comes: each message arrives, once and in order.
no_message_is_lost(Config) ->
    Node = ?config(node, Config),
    [{websocket, A}, {websocket, B}] = [User || {websocket, _} = User <- ?config(users, Config)],
    Texts = [integer_to_binary(N) || N <- lists:seq(1, 4_000)],
    Nag = e2e_ejabberd:call(Node, e2e_inside, shrink_all_the_time, []),
    lists:foldl(fun(Text, User) -> e2e_user:say(User, e2e_user:jid(B), Text) end, A, Texts),
    lists:foldl(fun(Text, User) -> {Text, Next} = e2e_user:hear(User), Next end, B, Texts),
    Told = e2e_ejabberd:call(Node, e2e_inside, stop_shrinking, [Nag]),
    ct:pal("told ~b times", [Told]),
    ?assert(Told > 50).

%% One that has something to do within the time stays as it is.
a_busy_one_is_left_alone(Config) ->
    [{websocket, A}, {websocket, B}] = [User || {websocket, _} = User <- ?config(users, Config)],
    {A1, B1} = e2e_user:chat(A, B, <<"first">>),
    #{awake := Awake} = lists:foldl(fun(N, _) ->
                                            {_, _} = e2e_user:chat(A1, B1, integer_to_binary(N)),
                                            timer:sleep(200),
                                            info(Config)
                                    end, none, lists:seq(1, 15)),
    ?assert(Awake >= 2).

%% Who is new does not wait for all of trim_idle, who is woken soon after that does.
a_login_is_over_soon(Config) ->
    %% None who hears of them and is woken by it.
    [e2e_user:close(User) || {_, User} <- ?config(users, Config)],
    ok = e2e_ejabberd:call(?config(node, Config), e2e_inside, end_users, []),
    ok = none_awake(Config),
    ok = set(#{trim_idle => 20_000, trim_rate => 10_000, trim_stock => true}, Config),
    [A, B] = [e2e_user:listen(e2e_user:login(bosh, Name, ?config(ports, Config))) || Name <- [<<"alice">>, <<"bob">>]],
    Began = erlang:monotonic_time(millisecond),
    ok = none_awake(Config),
    ?assert(erlang:monotonic_time(millisecond) - Began < 18_000),
    {A1, B1} = e2e_user:chat(A, B, <<"woken">>),
    timer:sleep(4_000),
    #{awake := Awake} = info(Config),
    ?assert(Awake >= 4),
    [e2e_user:close(User) || User <- [A1, B1]],
    ok.

%% A BOSH session is no listener's.
stock_users_only_if_asked(Config) ->
    _ = all_small(Config),
    ok = set(#{trim_idle => 1_000, trim_rate => 10_000, trim_stock => false}, Config),
    _ = chat(?config(users, Config), <<"awake">>),
    ok = none_awake(Config),
    ?assertEqual([ejabberd_bosh, ejabberd_bosh, xmpp_stream_in, xmpp_stream_in],
                 lists:sort([Kind || {Kind, _, true} <- processes_of_users(Config)])).

%% Processes that were there before are found.
off_and_on(Config) ->
    ok = set(#{trim_idle => infinity}, Config),
    _ = chat(?config(users, Config), <<"awake">>),
    timer:sleep(2_500),
    ?assertEqual([], [Kind || {Kind, _, true} <- processes_of_users(Config)]),
    ok = set(#{trim_idle => 1_000, trim_rate => 10_000, trim_stock => true}, Config),
    %% They are looked for by a process of its own.
    ok = poll:until(fun() -> maps:get(awake, info(Config)) >= 10 end),
    _ = all_small(Config),
    ok.

%% ---- Parts ----

%% The sizes of all users' processes, when the last one hibernates.
all_small(Config) -> all_small(Config, erlang:monotonic_time(millisecond) + ?WAIT).

%% One that was told to shrink counts as not awake, and may not have come to it.
all_small(Config, Until) ->
    ok = none_awake(Config),
    Users = processes_of_users(Config),
    case [Kind || {Kind, _, false} <- Users] of
        [] ->
            [{Kind, Size} || {Kind, Size, true} <- Users];
        Awake ->
            ?assert(erlang:monotonic_time(millisecond) < Until, Awake),
            all_small(Config, Until)
    end.

%% To ask a process where it stands is something for it to do: nobody is asked before.
none_awake(Config) -> poll:until(fun() -> maps:get(awake, info(Config)) =:= 0 end).

processes_of_users(Config) ->
    e2e_ejabberd:call(?config(node, Config), e2e_inside, processes_of_users, []).

info(Config) -> e2e_ejabberd:call(?config(node, Config), megaphone_trim, info, []).

%% As `reload_config` does, for each host.
set(Options, Config) ->
    [ok = e2e_ejabberd:call(?config(node, Config), mod_megaphone, reload, [Host, Options, #{}])
     || Host <- [<<"localhost">>, <<"anon.localhost">>]],
    ok.

%% The users of each transport with each other.
chat([{T, A}, {T, B} | Others], Text) ->
    {A1, B1} = e2e_user:chat(A, B, Text),
    [{T, e2e_user:listen(A1)}, {T, e2e_user:listen(B1)} | chat(Others, Text)];
chat([], _Text) ->
    [].
