%% The client's side of SCRAM-SHA-1, RFC 5802.
-module(e2e_scram).

-export([first/1, final/4, proves/2]).

%% The client's first message, without channel binding, and its part that later
%% messages are computed from.
-spec first(User :: binary()) -> {Message :: binary(), Bare :: binary()}.
first(User) ->
    Nonce = base64:encode(crypto:strong_rand_bytes(18)),
    Bare = <<"n=", User/binary, ",r=", Nonce/binary>>,
    {<<"n,,", Bare/binary>>, Bare}.

%% The client's final message, and the signature that the server must answer with.
-spec final(Bare :: binary(), ServerFirst :: binary(), Password :: binary(), binary()) ->
          {Message :: binary(), ServerSignature :: binary()}.
final(Bare, ServerFirst, Password, GsHeader) ->
    [<<"r=", Nonce/binary>>, <<"s=", Salt/binary>>, <<"i=", Count/binary>> | _] =
        binary:split(ServerFirst, <<",">>, [global]),
    Binding = base64:encode(GsHeader),
    WithoutProof = <<"c=", Binding/binary, ",r=", Nonce/binary>>,
    AuthMessage = <<Bare/binary, ",", ServerFirst/binary, ",", WithoutProof/binary>>,
    Salted = crypto:pbkdf2_hmac(sha, Password, base64:decode(Salt), binary_to_integer(Count), 20),
    ClientKey = hmac(Salted, <<"Client Key">>),
    Signature = hmac(crypto:hash(sha, ClientKey), AuthMessage),
    Proof = base64:encode(crypto:exor(ClientKey, Signature)),
    {<<WithoutProof/binary, ",p=", Proof/binary>>, hmac(hmac(Salted, <<"Server Key">>), AuthMessage)}.

%% Has the server shown that it knows the password too?
-spec proves(ServerFinal :: binary(), ServerSignature :: binary()) -> boolean().
proves(<<"v=", Signature/binary>>, Expected) -> base64:decode(Signature) =:= Expected.

hmac(Key, Data) -> crypto:mac(hmac, sha, Key, Data).
