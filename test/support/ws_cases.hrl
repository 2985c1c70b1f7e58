%% What the suites about WebSocket in the NIF have in common.
-compile([export_all, nowarn_export_all]).
-include_lib("stdlib/include/assert.hrl").
-include("websocket_frames.hrl").

-import(link_case, [peer/1, open/1, open/2, undisturbed/1]).
-import(ws_pair, [start/2, start_with_owner/1, options/1, ask/1, next/1, message/0, got/0, got/1, over/1, reply/2,
                  close/3, send/2, synced/1, outcome/1, rest/1, read/1, failed/1, frame/2, raw_frame/2,
                  close_frame/2]).

-define(TIMEOUT, 10000).
-define(QUIET, 200).

suite() -> [{timetrap, {seconds, 60}}].

init_per_suite(Config) ->
    {ok, _} = application:ensure_all_started(megaphone),
    Config.

end_per_suite(_Config) -> ok.

end_per_testcase(_, Config) -> link_case:stop(Config).
