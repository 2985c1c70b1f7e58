%% A certificate authority for one test run, and a server certificate signed by it.
-module(e2e_certs).

-export([make/1]).

-include_lib("public_key/include/public_key.hrl").

%% Writes `ca.pem` and `server.pem` (certificate and key) for the hosts of the
%% test server into a directory.
-spec make(file:filename()) -> #{ca := file:filename(), server := file:filename()}.
make(Dir) ->
    Signing = [{key, {namedCurve, secp256r1}}, {digest, sha256}],
    Names = [{dNSName, "localhost"}, {dNSName, "anon.localhost"}],
    San = #'Extension'{extnID = ?'id-ce-subjectAltName', extnValue = Names, critical = false},
    #{server_config := Server, client_config := Client} =
        public_key:pkix_test_data(
          #{server_chain => #{root => Signing, intermediates => [],
                              peer => [{extensions, [San]} | Signing]},
            client_chain => #{root => Signing, intermediates => [], peer => Signing}}),
    {KeyType, KeyDer} = proplists:get_value(key, Server),
    Files = #{ca => filename:join(Dir, "ca.pem"), server => filename:join(Dir, "server.pem")},
    %% What the client side is told to trust is the root of the server's chain.
    write(maps:get(ca, Files), [certificate(Der) || Der <- proplists:get_value(cacerts, Client)]),
    write(maps:get(server, Files), [certificate(proplists:get_value(cert, Server)),
                                    {KeyType, KeyDer, not_encrypted}]),
    Files.

certificate(Der) -> {'Certificate', Der, not_encrypted}.

write(File, Entries) -> ok = file:write_file(File, public_key:pem_encode(Entries)).
