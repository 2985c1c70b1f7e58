%% @doc The options of the listener `module: megaphone': their types, their
%% defaults, and what is made of them.
%%
%% ejabberd checks a listener's options one at a time, with the validator that
%% {@link type/1} gives for each. What concerns two of them together is checked
%% in {@link megaphone_conflicts}.
-module(megaphone_options).

%% megaphone
-export([defaults/0, type/1]).
%% megaphone_ejabberd
-export([listener/2]).
%% megaphone_ejabberd, megaphone_listen
-export([link/1]).
%% megaphone_ecm_options
-export([name/0, window/0, max_frame/0, resume_buffer/0, max_buffered/0, at_most/1, at_most_or_0/1, fail/2]).
%% megaphone_listen
-export([default/1]).
%% megaphone_conflicts
-export([http_defaults/0]).

-export_type([values/0]).

-type values() :: #{atom() => term()}.

%% The longest `sun_path' of unix(7), in bytes: 108 with the NUL.
-define(UNIX_PATH_MAX, 107).
%% As the ECM and the control channel's `open' line take it, in bytes.
-define(NAME_RE, "^[A-Za-z0-9._-]{1,128}$").
%% A window is credit, which the protocol counts up to 2^31-1.
-define(WINDOW_MAX, 16#7fffffff).
%% Any control message must fit into a frame (docs/protocol.md); and a frame is one piece of work
%% on both sides, as the ECM's own limit has it.
-define(FRAME_MIN, 4096).
-define(FRAME_MAX, 16 * 1024 * 1024).
%% As the ECM takes them, in bytes: what may come between two acknowledgements, and 1 GiB; 1 MiB,
%% as less would end connections that are only busy, and 1 TiB, more than machines have.
-define(ACK_EVERY, 16#10000).
-define(RESUME_BUFFER_MAX, 16#40000000).
-define(BUFFERED_MIN, 16#100000).
-define(BUFFERED_MAX, 16#10000000000).
%% A service runs with this name where none is named.
-define(HTTP, <<"http">>).

%% Options that are the listener's own: a service has no port to have them on.
-define(LISTENER_ONLY, [port, ip, transport, backlog, accept_interval,
                        unix_socket, use_proxy_protocol]).

%%% Types and defaults

%% @doc What ejabberd's `listen_options/0' is to answer: our own, and those of
%% `megaphone_http', which may stand on the listener itself where there are no
%% `services'.
-spec defaults() -> [{atom(), term()}].
defaults() ->
    megaphone_conflicts:judge_last(),
    own_defaults() ++ http_defaults().

%% @doc The default of an option of ours, for who listens without ejabberd too.
-spec default(atom()) -> term().
default(Option) ->
    proplists:get_value(Option, own_defaults()).

own_defaults() ->
    [{services, #{}},
     {default_service, undefined},
     {version_1, true},
     {idle_timeout, 300000},                    % ms, of version 1's connections
     {window, 16384},                           % bytes a connection
     {max_frame, 65536},                        % bytes of content
     {max_connections, 1000000},                % a link
     {accept_queue, 1024},                      % connections a service
     {acceptors, 4},                            % processes a service
     {heartbeat, 10000},                        % ms
     {resume_timeout, 30000},                   % ms, 0: never
     {resume_buffer, 16#1000000},               % bytes a link
     {max_buffered, 16#10000000},               % bytes a link
     {secret_file, undefined},
     {link_tls, undefined},
     {allowed_ips, all},
     {max_handshakes, 64},                      % dials at a time
     {ecm, undefined}].

%% @doc Options that may stand on the listener where there are no `services': those of
%% megaphone_http, but for `idle_timeout', which means another one there.
-spec http_defaults() -> [{atom(), term()}].
http_defaults() ->
    try lists:keydelete(idle_timeout, 1, megaphone_http:listen_options())
    catch error:undef -> []                     % outside of ejabberd
    end.

%% @doc The validator of an option, as ejabberd's `listen_opt_type/1'.
%% @see econf
-spec type(atom()) -> fun((term()) -> term()).
type(Option) ->
    econf:and_then(own_type(Option), fun(Value) -> megaphone_conflicts:note(Option, Value) end).

own_type(transport) ->
    econf:enum([tcp]);
own_type(port) ->
    econf:either(econf:int(0, 65535),
                 econf:and_then(econf:binary("^unix:.+"), fun unix_port/1));
own_type(services) ->
    econf:map(name(), fun service/1, [unique, {return, map}]);
own_type(default_service) ->
    name();
own_type(version_1) ->
    econf:bool();
own_type(idle_timeout) ->
    econf:timeout(second, infinity);
own_type(window) ->
    window();
own_type(max_frame) ->
    max_frame();
own_type(max_connections) ->
    econf:pos_int();
own_type(accept_queue) ->
    econf:int(1, 1000000);
own_type(acceptors) ->
    econf:int(1, 1024);
own_type(heartbeat) ->
    at_most(3600);
own_type(resume_timeout) ->
    at_most_or_0(3600);
own_type(resume_buffer) ->
    resume_buffer();
own_type(max_buffered) ->
    max_buffered();
own_type(secret_file) ->
    econf:and_then(econf:binary(), checked(fun megaphone_access:check_secret_file/1));
own_type(link_tls) ->
    econf:and_then(
      econf:options(#{certfile => econf:binary(), keyfile => econf:binary(),
                      cafile => econf:binary(), verify => econf:bool()},
                    [{required, [certfile]}, {return, map}, unique]),
      checked(fun megaphone_access:check_tls/1));
own_type(allowed_ips) ->
    econf:non_empty(
      econf:list_or_single(
        econf:and_then(econf:binary(), checked(fun megaphone_access:subnet/1))));
own_type(max_handshakes) ->
    econf:int(1, 65536);
own_type(ecm) ->
    megaphone_ecm_options:type();
own_type(Option) ->
    module_type(megaphone_http, Option).

%% @doc Names of services and of ECMs.
-spec name() -> fun((term()) -> binary()).
name() ->
    econf:binary(?NAME_RE).

%% @doc Bytes of credit for each connection.
-spec window() -> fun((term()) -> pos_integer()).
window() ->
    econf:int(1024, ?WINDOW_MAX).

%% @doc Bytes of content of a frame.
-spec max_frame() -> fun((term()) -> pos_integer()).
max_frame() ->
    econf:int(?FRAME_MIN, ?FRAME_MAX).

%% @doc Bytes that are kept of what the other end has not acknowledged.
-spec resume_buffer() -> fun((term()) -> pos_integer()).
resume_buffer() ->
    econf:int(?ACK_EVERY, ?RESUME_BUFFER_MAX).

%% @doc Bytes that are held for whoever does not read.
-spec max_buffered() -> fun((term()) -> pos_integer()).
max_buffered() ->
    econf:int(?BUFFERED_MIN, ?BUFFERED_MAX).

%% @doc A time in milliseconds, of one second to `Seconds'.
-spec at_most(pos_integer()) -> fun((term()) -> pos_integer()).
at_most(Seconds) ->
    econf:and_then(
      econf:timeout(second),
      fun(Ms) when Ms =< Seconds * 1000 -> Ms;
         (_) -> fail("at most ~b seconds", [Seconds])
      end).

%% @doc The same, or 0, in whole seconds: hellos know no other.
-spec at_most_or_0(pos_integer()) -> fun((term()) -> non_neg_integer()).
at_most_or_0(Seconds) ->
    Time = econf:and_then(at_most(Seconds),
                          fun(Ms) when Ms rem 1000 =:= 0 -> Ms;
                             (_) -> fail("a whole number of seconds", [])
                          end),
    fun(0) -> 0;
       (Given) -> Time(Given)
    end.

%% The value stays as it was given: what it stands for is read when the listener starts, and
%% shall not be in ejabberd's configuration.
checked(Check) ->
    fun(Value) ->
            case Check(Value) of
                {error, Error} -> fail("~ts", [megaphone_access:format_error(Error)]);
                _ -> Value
            end
    end.

%% ejabberd falls back to its own types for common options like `tls'.
module_type(Module, Option) ->
    try Module:listen_opt_type(Option)
    catch _:_ -> ejabberd_listener:listen_opt_type(Option)
    end.

%% ejabberd opens the socket before we are asked again, so what it needs is
%% made and checked here.
unix_port(<<"unix:", Path/binary>> = Port) ->
    byte_size(Path) =< ?UNIX_PATH_MAX
        orelse fail("the path of a Unix socket has at most ~b bytes, '~ts' has ~b",
                    [?UNIX_PATH_MAX, Path, byte_size(Path)]),
    Dir = filename:dirname(Path),
    case filelib:is_dir(Dir) orelse make_private(Dir) of
        true -> Port;
        ok -> Port;
        {error, Reason} ->
            fail("cannot make the directory '~ts': ~ts", [Dir, file:format_error(Reason)])
    end.

make_private(Dir) ->
    maybe_ok([fun() -> filelib:ensure_dir(Dir) end,
              fun() -> file:make_dir(Dir) end,
              fun() -> file:change_mode(Dir, 8#700) end]).

maybe_ok([Step | Steps]) ->
    case Step() of
        ok -> maybe_ok(Steps);
        {error, _} = Error -> Error
    end;
maybe_ok([]) ->
    ok.

%%% One service: as ejabberd_listener checks a listener, with `module' first

service(Given) ->
    Known = econf:options(#{module => ejabberd_listener:listen_opt_type(module),
                            '_' => econf:any()},
                          [{required, [module]}]),
    case proplists:get_value(module, Known(Given)) of
        megaphone ->
            fail("a service of megaphone cannot be megaphone", []);
        Module ->
            (service_options(Module))(Given)
    end.

service_options(Module) ->
    Options = [module, supervisor, send_timeout | Module:listen_options()],
    Types = maps:from_list([{Option, module_type(Module, Option)}
                            || Option <- proplists:get_keys(Options)]),
    econf:options(Types, [{required, [O || O <- Options, is_atom(O),
                                           not lists:member(O, [supervisor, send_timeout])]},
                          {disallowed, ?LISTENER_ONLY},
                          {return, map}, unique]).

%%% From what ejabberd hands to tcp_init/2

%% @doc The listener's configuration, from the options that differ from their
%% defaults (what ejabberd hands to `tcp_init/2') and the port as configured.
-spec listener([{atom(), term()}], inet:port_number() | binary()) ->
          {ok, values()} | {error, [string()]}.
listener(Given, Port) ->
    Own = maps:from_list(own_defaults()),
    {Ours, Others} = lists:partition(fun({Option, _}) -> is_map_key(Option, Own) end, Given),
    Values = maps:merge(Own, maps:from_list(Ours)),
    Services = services(Values, Others),
    case megaphone_conflicts:find(Values#{port => Port, services := Services}) of
        [] -> {ok, default_service(Values#{services := Services})};
        Sentences -> {error, Sentences}
    end.

%% @doc What a link of this listener is run with: the part of
%% `megaphone_receiver''s configuration that options decide.
-spec link(values()) -> map().
link(#{default_service := Default, version_1 := Allow} = Values) ->
    (maps:with([window, max_frame, max_connections, idle_timeout, heartbeat, resume_timeout,
                resume_buffer, max_buffered], Values))
        #{default => Default, allow_v1 => Allow}.

services(#{services := None}, Http) when map_size(None) =:= 0 ->
    #{?HTTP => #{module => megaphone_http, supervisor => true,
                 send_timeout => send_timeout(),
                 opts => Http}};
services(#{services := Services}, _) ->
    maps:map(fun(_Name, Service) -> service_config(Service) end, Services).

service_config(#{module := Module} = Service) ->
    Common = [{supervisor, true}, {send_timeout, send_timeout()}],
    #{module => Module,
      supervisor => maps:get(supervisor, Service, true),
      send_timeout => maps:get(send_timeout, Service, send_timeout()),
      opts => without_defaults(maps:remove(module, Service),
                               Module:listen_options() ++ Common)}.

%% ejabberd does not tell a module about options that equal their default, and
%% modules rely on that.
without_defaults(Options, Defaults) ->
    [{Option, Value} || {Option, Value} <- maps:to_list(Options),
                        {Option, Value} =/= lists:keyfind(Option, 1, Defaults)].

%% ejabberd's own default, in milliseconds.
send_timeout() ->
    try proplists:get_value(send_timeout, ejabberd_listener:listen_options(), 15000)
    catch error:undef -> 15000
    end.

%% Version 1 has no way to name a service, so one must stand for all.
default_service(#{default_service := Name} = Values) when is_binary(Name) ->
    Values;
default_service(#{services := #{?HTTP := _}} = Values) ->
    Values#{default_service := ?HTTP};
default_service(#{services := Services} = Values) ->
    case lists:sort(maps:keys(Services)) of
        [Only] -> Values#{default_service := Only};
        [First | _] -> Values#{default_service := First, version_1 := false}
    end.

%% @doc Makes a sentence the reason why a configuration is refused.
-spec fail(string(), [term()]) -> no_return().
fail(Format, Args) ->
    econf:fail({invalid_syntax, format(Format, Args)}).

format(Format, Args) ->
    lists:flatten(io_lib:format(Format, Args)).
