%%% @doc Whole HTTP requests from a virtual socket, read item by item.
-module(megaphone_request).

%% megaphone
-export([recv/2]).

%% @doc The next whole request of a passive socket. `Timeout' is for all of it; after an error, a
%% time-out too, what was read of the request is gone, and the connection is good for closing only.
-spec recv(megaphone_socket:socket(), timeout()) ->
          {ok, {Request :: tuple(), Headers :: [tuple()], Body :: binary()}}
              | {error, closed | timeout | einval | emsgsize | http_error
                        | {http_error, string()}}.
recv(Socket, Timeout) ->
    Deadline = deadline(Timeout),
    case recv_until(Socket, Deadline) of
        {ok, {http_request, _, _, _} = Request} -> recv_headers(Socket, Deadline, Request, []);
        {ok, {http_error, _} = Error} -> {error, Error};
        {error, _} = Error -> Error
    end.

recv_headers(Socket, Deadline, Request, Headers) ->
    case recv_until(Socket, Deadline) of
        {ok, {http_header, _, _, _, _} = Header} ->
            recv_headers(Socket, Deadline, Request, [Header | Headers]);
        {ok, http_eoh} ->
            recv_body(Socket, Deadline, Request, lists:reverse(Headers));
        {ok, {http_error, _} = Error} ->
            {error, Error};
        {error, _} = Error ->
            Error
    end.

recv_body(Socket, Deadline, Request, Headers) ->
    case has_body(Headers) of
        false ->
            {ok, {Request, Headers, <<>>}};
        true ->
            case recv_until(Socket, Deadline) of
                {ok, Body} -> {ok, {Request, Headers, Body}};
                {error, _} = Error -> Error
            end
    end.

%% The NIF has refused what is not clear (docs/http.md), so one header says it.
has_body([{http_header, _, 'Content-Length', _, Length} | _]) ->
    [C || C <- Length, C =/= $0, C =/= $\s] =/= [];
has_body([{http_header, _, 'Transfer-Encoding', _, _} | _]) ->
    true;
has_body([_ | Headers]) ->
    has_body(Headers);
has_body([]) ->
    false.

recv_until(Socket, infinity) ->
    megaphone_socket:recv_http(Socket, infinity);
recv_until(Socket, Deadline) ->
    megaphone_socket:recv_http(Socket, max(0, Deadline - erlang:monotonic_time(millisecond))).

deadline(infinity) -> infinity;
deadline(Timeout) -> erlang:monotonic_time(millisecond) + Timeout.
