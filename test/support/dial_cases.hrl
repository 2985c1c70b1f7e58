%% What the suites about dials have in common.
-compile([export_all, nowarn_export_all]).
-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-import(log_capture, [wait/2]).
-import(dial_case, [listen/1, stranger/1, say_hello/2, works/2, address/1, server/2, tree/1, dials/1,
                    settled_dials/1]).

-define(TIMEOUT, 10_000).
-define(SECRET, <<"a secret of the suite's own">>).
-define(LOOPBACK, {127, 0, 0, 1}).

suite() -> [{timetrap, {minutes, 2}}].

init_per_suite(Config) ->
    {ok, _} = application:ensure_all_started(megaphone),
    Dir = e2e_ejabberd:temporary(),
    [{dir, Dir}, {certificates, e2e_certs:make(Dir)} | Config].

end_per_suite(Config) ->
    file:del_dir_r(?config(dir, Config)).

init_per_testcase(_Case, Config) -> [{log, log_capture:start()} | Config].

end_per_testcase(_Case, Config) -> log_capture:stop(?config(log, Config)).
