%% Certificate authorities for one test run: one that signed a server's certificate, one that
%% signed a client's, and one that signed a client's which nobody should know.
-module(e2e_certs).

-export([make/1]).

-include_lib("public_key/include/public_key.hrl").

%% Writes into a directory, as PEM: `server` (certificate and key, for the hosts of the test
%% server) and `ca`, whom it is signed by; `client` and `client_ca`; `stranger`.
-spec make(file:filename()) ->
          #{ca | server | client_ca | client | stranger := file:filename()}.
make(Dir) ->
    #{server_config := Server, client_config := Client} = chains(),
    #{client_config := Stranger} = chains(),
    maps:map(fun(Name, Entries) ->
                     File = filename:join(Dir, atom_to_list(Name) ++ ".pem"),
                     ok = file:write_file(File, public_key:pem_encode(Entries)),
                     ok = file:change_mode(File, 8#600), % an ECM insists, of keys
                     File
             end,
             %% Each side's chain is signed by the root that the other is told to trust.
             #{ca => authorities(Client), server => identity(Server),
               client_ca => authorities(Server), client => identity(Client),
               stranger => identity(Stranger)}).

chains() ->
    %% A key for each authority and all that it signs. RSA, because OTP 25 signs with elliptic
    %% curves in a way that rustls does not read (it adds the curve to the algorithm).
    Signing = [{key, public_key:generate_key({rsa, 2048, 65537})}, {digest, sha256}],
    Names = [{dNSName, "localhost"}, {dNSName, "anon.localhost"}],
    San = #'Extension'{extnID = ?'id-ce-subjectAltName', extnValue = Names, critical = false},
    public_key:pkix_test_data(
      #{server_chain => #{root => Signing, intermediates => [],
                          peer => [{extensions, [San]} | Signing]},
        client_chain => #{root => Signing, intermediates => [], peer => Signing}}).

authorities(Config) -> [certificate(Der) || Der <- proplists:get_value(cacerts, Config)].

identity(Config) ->
    {KeyType, Key} = proplists:get_value(key, Config),
    [certificate(proplists:get_value(cert, Config)), {KeyType, Key, not_encrypted}].

certificate(Der) -> {'Certificate', Der, not_encrypted}.
