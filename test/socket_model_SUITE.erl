%% Random sequences of commands on sockets, against a model of gen_tcp (support/socket_model):
%% opening, sending, receiving with and without waiting, active modes, hand-over, half closes,
%% closes from either side, resets and the death of owners.
%%
%% `tcp' holds the model to the kernel's sockets, `link' holds virtual sockets to the model. A
%% sequence that fails is made shorter and printed, with the seed that gives it again.
%%
%%   SOCKET_MODEL_TESTS=N   sequences in each case (default 300; a soak takes more)
%%   SOCKET_MODEL_SEED=A,B,C
-module(socket_model_SUITE).
-compile([export_all, nowarn_export_all]).

suite() -> [{timetrap, {hours, 12}}].
all() -> [tcp, link].

init_per_suite(Config) ->
    {ok, _} = application:ensure_all_started(megaphone),
    #{level := Level} = logger:get_primary_config(),
    ok = logger:set_primary_config(level, warning),     % a link comes up for each sequence
    [{level, Level} | Config].

end_per_suite(Config) -> logger:set_primary_config(level, proplists:get_value(level, Config)).

tcp(_Config) -> check(tcp).
link(_Config) -> check(link).

check(Group) ->
    Seed = seed(),
    Tests = list_to_integer(os:getenv("SOCKET_MODEL_TESTS", "300")),
    {A, B, C} = Seed,
    io:format("SOCKET_MODEL_SEED=~b,~b,~b SOCKET_MODEL_TESTS=~b~n", [A, B, C, Tests]),
    Print = fun(Format, Args) -> io:format(Format, Args) end,
    true = proper:quickcheck(socket_model:property(Group, Seed),
                             [{numtests, Tests}, {max_size, 60}, {on_output, Print}, nocolors]).

seed() ->
    case os:getenv("SOCKET_MODEL_SEED") of
        false -> {rand:uniform(1 bsl 30), rand:uniform(1 bsl 30), rand:uniform(1 bsl 30)};
        Text -> list_to_tuple([list_to_integer(N) || N <- string:split(Text, ",", all)])
    end.
