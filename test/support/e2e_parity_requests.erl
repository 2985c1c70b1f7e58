%% How the parity suite's requests are written, and what of an answer is random.
-module(e2e_parity_requests).

-export([get/1, get/2, post/3, request/4, upgrade/2, alice/0, not_random/1]).
-compile({no_auto_import, [get/1]}).

get(Path) -> get(Path, []).

get(Path, Headers) -> request("GET", Path, Headers, none).

post(Path, Type, Body) -> request("POST", Path, ["Content-Type: ", Type, "\r\n"], Body).

request(Method, Path, Headers, none) -> [Method, " ", Path, " HTTP/1.1\r\nHost: localhost\r\n", Headers, "\r\n"];
request(Method, Path, Headers, Body) ->
    request(Method, Path, ["Content-Length: ", integer_to_list(iolist_size(Body)), "\r\n", Headers], none) ++ [Body].

alice() -> ["Authorization: Basic ", base64:encode("alice@localhost:alice-pw"), "\r\n"].

upgrade(Path, More) ->
    get(Path, ["Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
               "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", More]).

%% Without the values that no two answers share, and without the length that comes of them.
not_random(Answer) ->
    Without = lists:foldl(fun({Pattern, Instead}, Text) -> re:replace(Text, Pattern, Instead, [global, {return, binary}]) end,
                          Answer,
                          [{" (sid|authid|id)='[^']*'", " \\1='RANDOM'"},
                           {"access_token=[^&\"]*", "access_token=RANDOM"},
                           {"\"access_token\": ?\"[^\"]*\"", "\"access_token\":\"RANDOM\""}]),
    case Without of
        Answer -> Answer;
        _ -> re:replace(Without, "\r\nContent-Length: [0-9]+\r\n", "\r\nContent-Length: N\r\n", [{return, binary}])
    end.
