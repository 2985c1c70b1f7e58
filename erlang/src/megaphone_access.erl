%% @doc Who may dial a listener: its secret, its TLS, the addresses that it allows. Read and
%% checked when the listener starts.
-module(megaphone_access).

%% megaphone_ejabberd, megaphone_listen
-export([new/2]).
%% megaphone_dials
-export([is_allowed/2, is_authenticated/1]).
%% megaphone_greeter
-export([secret/1, tls/1]).
%% megaphone_options
-export([check_secret_file/1, check_tls/1, subnet/1, is_local/1]).
%% megaphone, megaphone_options
-export([format_error/1]).

-export_type([access/0, error/0, link_tls/0, subnet/0]).

-include_lib("kernel/include/file.hrl").

%% As the other end and native/proto have it, in bytes: what is shorter could be guessed, what is
%% longer is some other file.
-define(SECRET_MIN, 16).
-define(SECRET_MAX, 1024).
%% The longest message of a TLS handshake that a stranger may send, in bytes: two certificates
%% have about 4 kB, and ssl would take 256.
-define(TLS_HANDSHAKE_MAX, 65536).

%% Secret and TLS options (a private key may stand there) are in funs, so that no crash report
%% and no look at a process's state shows them.
-type access() :: #{secret => fun(() -> binary()),
                    tls => fun(() -> [ssl:tls_server_option()]),
                    verified => boolean(),      % peers show a certificate of our CA
                    allowed := all | [subnet()]}.

-type link_tls() :: #{certfile := file:name_all(), keyfile => file:name_all(),
                      cafile => file:name_all(), verify => boolean()}.

%% The address as an integer without its last bits, how many these are, and of how many.
-opaque subnet() :: {Prefix :: non_neg_integer(), Shift :: 0..128, Bits :: 32 | 128}.

-type error() :: {secret, {short, Bytes :: non_neg_integer()} | long}
               | {secret_file, file:name_all(),
                  {short, Bytes :: non_neg_integer()} | long
                  | {mode, Mode :: non_neg_integer(), Cure :: string()} | file:posix()}
               | {link_tls, Option :: atom(), file:name_all(),
                  no_certificate | no_key | encrypted_key | file:posix()}
               | {link_tls, no_cafile}
               | {bad_subnet, term()}
               | no_authentication.

%% @doc What the options of a listener on `Address' say: `secret' or `secret_file', `link_tls' (a
%% map, ejabberd's) or `tls' (options of ssl, an Erlang program's), `allowed_ips'.
%%
%% `no_authentication': other hosts can reach it, and nobody would have to prove anything.
-spec new(megaphone_address:address(),
          #{secret => binary(), secret_file => file:name_all() | undefined,
            link_tls => link_tls() | undefined, tls => [ssl:tls_server_option()],
            allowed_ips => all | [term()], atom() => term()}) ->
          {ok, access()} | {error, error()}.
new(Address, Options) ->
    try
        Access = maps:merge(#{allowed => allowed(Options)},
                            maps:merge(own_secret(Options), own_tls(Options))),
        is_local(Address) orelse is_authenticated(Access) orelse throw(no_authentication),
        {ok, Access}
    catch
        throw:Error -> {error, Error}
    end.

%% @doc Does a peer have to prove who it is?
-spec is_authenticated(access()) -> boolean().
is_authenticated(#{secret := _}) -> true;
is_authenticated(#{verified := Verified}) -> Verified;
is_authenticated(#{}) -> false.

%% @doc Can no other host reach this address?
-spec is_local(megaphone_address:address()) -> boolean().
is_local({local, _}) -> true;
is_local({{127, _, _, _}, _}) -> true;
is_local({{0, 0, 0, 0, 0, 0, 0, 1}, _}) -> true;
is_local({{0, 0, 0, 0, 0, 16#ffff, High, _}, _}) -> High bsr 8 =:= 127;
is_local({_, _}) -> false.

%% @doc May a peer with this address dial? One on a Unix socket has none.
-spec is_allowed(megaphone_address:address(), access()) -> boolean().
is_allowed(_, #{allowed := all}) -> true;
is_allowed({local, _}, #{}) -> true;
is_allowed({Ip, _Port}, #{allowed := Subnets}) ->
    {Number, Bits} = number(Ip),
    lists:any(fun({Prefix, Shift, Of}) -> Of =:= Bits andalso Number bsr Shift =:= Prefix end,
              Subnets).

-spec secret(access()) -> binary() | nil.
secret(#{secret := Secret}) -> Secret();
secret(#{}) -> nil.

-spec tls(access()) -> {ok, [ssl:tls_server_option()]} | none.
tls(#{tls := Options}) -> {ok, Options()};
tls(#{}) -> none.

%%% The secret

own_secret(#{secret := Secret}) ->
    checked_secret(Secret, fun(Problem) -> {secret, Problem} end);
own_secret(#{secret_file := File}) when File =/= undefined ->
    case check_secret_file(File) of
        {ok, Secret} -> #{secret => Secret};
        {error, Error} -> throw(Error)
    end;
own_secret(#{}) ->
    #{}.

%% @doc Is the file a secret that nobody else can read?
%%
%% As ssh has it with private keys: our own file is refused where anybody else may read it. One
%% that is another user's (root's, say) is given to us through our group, but not to everybody.
-spec check_secret_file(file:name_all()) -> {ok, fun(() -> binary())} | {error, error()}.
check_secret_file(File) ->
    Wrong = fun(Problem) -> {secret_file, File, Problem} end,
    try
        ok = private(File, Wrong),
        Content = posix(file:read_file(File), Wrong),
        #{secret := Secret} = checked_secret(Content, Wrong),
        {ok, Secret}
    catch
        throw:Error -> {error, Error}
    end.

private(File, Wrong) ->
    #file_info{mode = Mode, uid = Owner} = posix(file:read_file_info(File), Wrong),
    {ok, #file_info{uid = Self}} = file:read_file_info("/proc/self"),
    {Forbidden, Cure} = case Owner of
                            Self -> {8#077, "go="};
                            _ -> {8#027, "g-w,o="}
                        end,
    Mode band Forbidden =:= 0 orelse throw(Wrong({mode, Mode band 8#777, Cure})),
    ok.

%% The end of the line is an editor's, not the secret's.
checked_secret(Content, Wrong) ->
    Secret = string:trim(Content, trailing, "\r\n"),
    case byte_size(Secret) of
        Size when Size < ?SECRET_MIN -> throw(Wrong({short, Size}));
        Size when Size > ?SECRET_MAX -> throw(Wrong(long));
        _ -> #{secret => fun() -> Secret end}
    end.

posix({ok, Value}, _) -> Value;
posix({error, Reason}, Wrong) -> throw(Wrong(Reason)).

%%% TLS

own_tls(#{tls := Options}) ->
    Verified = proplists:get_value(verify, Options) =:= verify_peer,
    Ours = [{fail_if_no_peer_cert, true} || Verified],
    Rest = [Option || Option <- Options, not is_tuple(Option)
                          orelse not lists:keymember(element(1, Option), 1, Ours)],
    Defaults = [Default || {Key, _} = Default <- tls_defaults(),
                           not proplists:is_defined(Key, Options)],
    #{verified => Verified, tls => fun() -> Ours ++ Rest ++ Defaults end};
own_tls(#{link_tls := #{} = Given}) ->
    case check_tls(Given) of
        {ok, Options, Verified} ->
            #{verified => Verified, tls => fun() -> Options end};
        {error, Error} ->
            throw(Error)
    end;
own_tls(#{}) ->
    #{}.

tls_defaults() ->
    [{versions, ['tlsv1.3', 'tlsv1.2']},
     {max_handshake_size, ?TLS_HANDSHAKE_MAX},
     %% What went wrong is a line of the listener's own, with the peer's address.
     {log_level, none}].

%% @doc ssl's options for a listener's `link_tls': the files are there and hold what they should.
-spec check_tls(link_tls()) ->
          {ok, [ssl:tls_server_option()], Verified :: boolean()} | {error, error()}.
check_tls(#{certfile := CertFile} = Given) ->
    KeyFile = maps:get(keyfile, Given, CertFile),
    Verify = maps:get(verify, Given, true),
    try
        ok = holds(certfile, CertFile, no_certificate),
        ok = holds(keyfile, KeyFile, no_key),
        Ca = ca(Verify, Given),
        {ok, [{certfile, CertFile}, {keyfile, KeyFile} | Ca] ++ tls_defaults(), Verify}
    catch
        throw:Error -> {error, Error}
    end.

ca(false, _) ->
    [{verify, verify_none}];
ca(true, #{cafile := CaFile}) ->
    ok = holds(cafile, CaFile, no_certificate),
    [{verify, verify_peer}, {fail_if_no_peer_cert, true}, {cacertfile, CaFile}];
ca(true, #{}) ->
    throw({link_tls, no_cafile}).

holds(Option, File, Missing) ->
    Wrong = fun(Problem) -> {link_tls, Option, File, Problem} end,
    Pem = posix(file:read_file(File), Wrong),
    Entries = try public_key:pem_decode(Pem)
              catch _:_ -> []
              end,
    case [Cipher || {Type, _, Cipher} <- Entries, is_wanted(Missing, Type)] of
        [not_encrypted | _] -> ok;
        [_ | _] -> throw(Wrong(encrypted_key));
        [] -> throw(Wrong(Missing))
    end.

is_wanted(no_certificate, Type) -> Type =:= 'Certificate';
is_wanted(no_key, Type) ->
    lists:member(Type, ['PrivateKeyInfo', 'RSAPrivateKey', 'ECPrivateKey', 'DSAPrivateKey']).

%%% Addresses

allowed(#{allowed_ips := [_ | _] = Given}) ->
    [case subnet(One) of
         {ok, Subnet} -> Subnet;
         {error, Error} -> throw(Error)
     end || One <- Given];
allowed(#{}) ->
    all.

%% @doc An address, or all that begin like one: `"10.0.0.1"', `"10.0.0.0/8"', `"2001:db8::/32"',
%% or terms, `{10, 0, 0, 1}' and `{{10, 0, 0, 0}, 8}'.
-spec subnet(unicode:chardata() | inet:ip_address() | {inet:ip_address(), 0..128}) ->
          {ok, subnet()} | {error, error()}.
subnet(Given) ->
    try {ok, parse_subnet(Given)}
    catch error:_ -> {error, {bad_subnet, Given}}
    end.

parse_subnet(Text) when is_binary(Text); is_list(Text) ->
    case string:split(unicode:characters_to_list(Text), "/") of
        [Ip, Length] -> parse_subnet({ip(Ip), list_to_integer(Length)});
        [Ip] -> parse_subnet(ip(Ip))
    end;
parse_subnet({Ip, Length}) when is_tuple(Ip), is_integer(Length), Length >= 0 ->
    Of = case tuple_size(Ip) of 4 -> 32; 8 -> 128 end,
    true = Length =< Of,
    %% ::ffff:10.0.0.0/104 is 10.0.0.0/8.
    {Number, Bits} = number(Ip),
    Shift = min(Of - Length, Bits),
    {Number bsr Shift, Shift, Bits};
parse_subnet(Ip) ->
    parse_subnet({Ip, case tuple_size(Ip) of 4 -> 32; 8 -> 128 end}).

ip(Text) ->
    {ok, Ip} = inet:parse_strict_address(Text),
    Ip.

%% An IPv4 client of an IPv6 socket is an IPv4 client.
number({0, 0, 0, 0, 0, 16#ffff, High, Low}) ->
    {High bsl 16 bor Low, 32};
number({A, B, C, D}) ->
    <<Number:32>> = <<A, B, C, D>>,
    {Number, 32};
number(Ip6) ->
    <<Number:128>> = << <<Word:16>> || Word <- tuple_to_list(Ip6) >>,
    {Number, 128}.

%%% Sentences

-spec format_error(error()) -> string().
format_error({secret, Problem}) ->
    text("the secret ~ts", [secret_problem(Problem)]);
format_error({secret_file, File, {mode, Mode, Cure}}) ->
    text("'secret_file' ~ts can be read by others (mode ~4.8.0b): `chmod ~s ~ts`",
         [File, Mode, Cure, File]);
format_error({secret_file, File, Posix}) when is_atom(Posix), Posix =/= long ->
    text("'secret_file' ~ts cannot be read: ~ts", [File, file:format_error(Posix)]);
format_error({secret_file, File, Problem}) ->
    text("the secret in 'secret_file' ~ts ~ts", [File, secret_problem(Problem)]);
format_error({link_tls, no_cafile}) ->
    "'link_tls' verifies the ECM's certificate, and 'cafile' does not say who signs these: give "
    "it, or 'verify: false' to let in whoever comes";
format_error({link_tls, Option, File, no_certificate}) ->
    text("'~ts' ~ts holds no certificate in PEM", [Option, File]);
format_error({link_tls, Option, File, no_key}) ->
    text("'~ts' ~ts holds no private key in PEM: 'keyfile' names the file that does",
         [Option, File]);
format_error({link_tls, Option, File, encrypted_key}) ->
    text("the private key in '~ts' ~ts has a password, which nobody is there to give",
         [Option, File]);
format_error({link_tls, Option, File, Posix}) ->
    text("'~ts' ~ts cannot be read: ~ts", [Option, File, file:format_error(Posix)]);
format_error({bad_subnet, Given}) ->
    text("'~ts' is not an IP address or a network, such as \"10.0.0.1\" or \"10.0.0.0/8\"",
         [try unicode:characters_to_list(Given) of
              Text when is_list(Text) -> Text;
              _ -> text("~tp", [Given])
          catch error:_ -> text("~tp", [Given])
          end]);
format_error(no_authentication) ->
    "other hosts can reach it, and it asks nobody who they are: add 'secret_file', or 'link_tls' "
    "with 'cafile', or let it listen on this machine only (ip \"127.0.0.1\")".

secret_problem({short, Size}) ->
    text("has ~b bytes, and at least ~b are needed: `openssl rand -hex 32` makes a good one",
         [Size, ?SECRET_MIN]);
secret_problem(long) ->
    text("has more than ~b bytes: is it the right file?", [?SECRET_MAX]).

text(Format, Args) ->
    lists:flatten(io_lib:format(Format, Args)).
