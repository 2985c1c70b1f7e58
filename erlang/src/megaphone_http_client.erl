%%% @doc Who asks: the address behind trusted proxies, and what they call themselves.
-module(megaphone_http_client).

%% megaphone_http_request
-export([address/2, auth/1]).

-type headers() :: [{atom() | binary(), binary()}].
-type address() :: {inet:ip_address(), inet:port_number()}.

%% @doc The client's address: where `X-Forwarded-For' names some and all of those who added to it
%% are `trusted_proxies', the first one's. `error': that is no address.
-spec address(address(), headers()) -> address() | error.
address(Peer, Headers) ->
    case lists:keyfind('X-Forwarded-For', 1, Headers) of
        false -> Peer;
        {_, Forwarded} -> forwarded(Peer, binary:split(Forwarded, [<<",">>, <<" ">>],
                                                       [global, trim_all]))
    end.

forwarded(Peer, []) ->
    Peer;
forwarded({Ip, Port} = Peer, [Client | Proxies]) ->
    case are_trusted(Proxies ++ [misc:ip_to_list(Ip)], ejabberd_option:trusted_proxies()) of
        true ->
            case inet:parse_address(binary_to_list(Client)) of
                {ok, ClientIp} -> {ClientIp, Port};
                {error, einval} -> error
            end;
        false ->
            Peer
    end.

are_trusted(_Proxies, all) ->
    true;
are_trusted(Proxies, Masks) ->
    lists:all(fun(Proxy) -> is_trusted(inet:parse_address(binary_to_list(Proxy)), Masks) end,
              Proxies).

is_trusted({ok, Ip}, Masks) ->
    lists:any(fun({Mask, Bits}) -> misc:match_ip_mask(Ip, Mask, Bits) end, Masks);
is_trusted({error, einval}, _Masks) ->
    false.

%% @doc What `Authorization' says (RFC 7617, RFC 6750), as handlers know it from `#request.auth'.
-spec auth(headers()) ->
          {User :: binary(), Password :: binary()} | {oauth, Token :: binary(), []}
        | invalid | undefined.
auth(Headers) ->
    case lists:keyfind('Authorization', 1, Headers) of
        false -> undefined;
        {_, <<"Basic ", Encoded/binary>>} -> basic(Encoded);
        {_, <<"Bearer ", Token/binary>>} -> {oauth, trim(Token), []};
        {_, _} -> invalid
    end.

basic(Encoded) ->
    try binary:split(base64:decode(Encoded), <<":">>) of
        [User, Password] -> {User, unicode:characters_to_binary(Password, utf8)};
        [_] -> invalid
    catch
        error:_ -> invalid
    end.

%% Spaces only, as ejabberd_http does it.
trim(Text) ->
    iolist_to_binary(string:trim(Text, both, " ")).
