%% A request handler for ejabberd_http that tells who ejabberd believes is asking.
%% It runs inside the ejabberd under test.
-module(e2e_peer_handler).

-export([process/2]).

%% `#request{}` differs from one ejabberd to the next and its header file is not in the
%% packages; the client's address is the one field that looks like an address and a port.
process(_Path, Request) ->
    [{Ip, Port} | _] = [Peer || {Address, _} = Peer <- tuple_to_list(Request), is_address(Address)],
    {200, [{<<"Content-Type">>, <<"text/plain">>}],
     iolist_to_binary([inet:ntoa(Ip), " ", integer_to_list(Port)])}.

is_address(Address) -> is_tuple(Address) andalso inet:ntoa(Address) =/= {error, einval}.
