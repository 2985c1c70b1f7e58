%% The least that an HTTP request can ask of ejabberd: a handler of ejabberd_http that answers every
%% request with 200 and `ok'. What a request costs then is listener, parser and socket.
%% In a node it must be in the code path; see docs/benchmarks.md for the configuration.
-module(bench_handler).

%% ejabberd_http
-export([process/2]).

-spec process(Path :: [binary()], Request :: tuple()) -> {200, [{binary(), binary()}], binary()}.
process(_Path, _Request) ->
    {200, [{<<"Content-Type">>, <<"text/plain">>}], <<"ok">>}.
