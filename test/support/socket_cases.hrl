%% What each suite of socket cases has in common: the suite lists its cases in
%% cases/0, and each of them runs in every group of socket_pair.
-compile([export_all, nowarn_export_all]).
-include_lib("stdlib/include/assert.hrl").
-import(socket_pair, [open/1, open/2, connect/1, listener/1, virtual/1,
                      in_process/1, until_waiting/1, result/1, nothing/1, collect/2, assert_closed/1]).

-define(TIMEOUT, 10000).
%% "Nothing comes within this": long for a loopback, short for a test.
-define(SOON, 60).

%% A suite may have fewer.
-ifndef(GROUPS).
-define(GROUPS, [tcp, link, megaphone]).
-endif.

suite() -> [{timetrap, {seconds, 60}}].
all() -> [{group, Group} || {Group, _, _} <- groups()].
groups() -> socket_pair:groups(?GROUPS, cases()).
init_per_group(Name, Config) -> socket_pair:init_group(Name, Config).
end_per_group(Name, Config) -> socket_pair:end_group(Name, Config).
init_per_testcase(_Case, Config) -> socket_pair:init_case(Config).
end_per_testcase(_Case, Config) -> socket_pair:end_case(Config).
