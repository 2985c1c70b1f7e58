%% @doc The options of the listener `module: megaphone': their types, their
%% defaults, and what is made of them.
%%
%% ejabberd checks a listener's options one at a time, with the validator that
%% {@link type/1} gives for each. What concerns two of them together is checked
%% here in {@link conflicts/1}.
-module(megaphone_options).

%% megaphone
-export([defaults/0, type/1]).
%% megaphone_ejabberd
-export([listener/2, link/1]).
%% megaphone_ecm_options
-export([name/0, window/0, max_frame/0, fail/2]).
%% megaphone_listen
-export([default/1]).
%% tests
-export([conflicts/1]).

-export_type([values/0]).

-type values() :: #{atom() => term()}.

%% The longest `sun_path' of unix(7), in bytes: 108 with the NUL.
-define(UNIX_PATH_MAX, 107).
%% As the ECM and the control channel's `open' line take it, in bytes.
-define(NAME_RE, "^[A-Za-z0-9._-]{1,128}$").
%% A window is credit, which the protocol counts up to 2^31-1.
-define(WINDOW_MAX, 16#7fffffff).
%% A frame is one piece of work on both sides, as the ECM's own limit has it.
-define(FRAME_MAX, 16 * 1024 * 1024).
%% A service runs with this name where none is named.
-define(HTTP, <<"http">>).

%% Options that are the listener's own: a service has no port to have them on.
-define(LISTENER_ONLY, [port, ip, transport, backlog, accept_interval,
                        unix_socket, use_proxy_protocol]).

%%% Types and defaults

%% @doc What ejabberd's `listen_options/0' is to answer: our own, and those of
%% `ejabberd_http', which may stand on the listener itself where there are no
%% `services'.
-spec defaults() -> [{atom(), term()}].
defaults() ->
    forget_notes(),
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
     {ecm, undefined}].

http_defaults() ->
    try ejabberd_http:listen_options()
    catch error:undef -> []                     % outside of ejabberd
    end.

%% @doc The validator of an option, as ejabberd's `listen_opt_type/1'.
%% @see econf
-spec type(atom()) -> fun((term()) -> term()).
type(Option) ->
    econf:and_then(own_type(Option), fun(Value) -> note(Option, Value) end).

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
own_type(ecm) ->
    megaphone_ecm_options:type();
own_type(Option) ->
    module_type(ejabberd_http, Option).

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
    econf:int(1024, ?FRAME_MAX).

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

%%% What concerns several options

%% The values seen since ejabberd began to check this listener, which it does
%% with a call of listen_options/0. There is no other way to say at boot or at
%% `reload_config', where a wrong configuration can still be refused, that two
%% options do not go together.
-define(NOTES, megaphone_listener_options).

note(Option, Value) ->
    Notes = (case get(?NOTES) of undefined -> #{}; Map -> Map end)#{Option => Value},
    put(?NOTES, Notes),
    case conflicts(Notes) of
        [] -> Value;
        [Sentence | _] -> fail("~ts", [Sentence])
    end.

forget_notes() ->
    _ = erase(?NOTES),
    ok.

%% @doc What is wrong with these options together, a sentence each. Options
%% that are not there are not judged.
-spec conflicts(values()) -> [string()].
conflicts(Values) ->
    lists:append([Check(Values) || Check <- [fun ecm_without_unix/1,
                                             fun proxy_on_unix/1,
                                             fun http_beside_services/1,
                                             fun unknown_default/1,
                                             fun unknown_ecm_service/1]]).

ecm_without_unix(#{ecm := #{}, port := Port}) when is_integer(Port) ->
    [format("'ecm' needs a Unix socket that only the ECM can open: "
            "'port' must be \"unix:PATH\", not ~b", [Port])];
ecm_without_unix(_) ->
    [].

%% We accept links there ourselves, and a Unix client has no address to hide.
proxy_on_unix(#{use_proxy_protocol := true, port := <<"unix:", _/binary>>}) ->
    ["'use_proxy_protocol' is of no use on a Unix socket"];
proxy_on_unix(_) ->
    [].

http_beside_services(#{services := Services} = Values) when Services =/= #{} ->
    [format("'~ts' stands beside 'services': move it into the service it is meant for",
            [Option])
     || {Option, Default} <- http_defaults(),
        maps:get(Option, Values, Default) =/= Default];
http_beside_services(_) ->
    [].

unknown_default(#{services := Services, default_service := Name})
  when is_binary(Name), not is_map_key(Name, Services), Services =/= #{} ->
    [format("'default_service' is '~ts', and the services are ~ts",
            [Name, names(Services)])];
unknown_default(_) ->
    [].

unknown_ecm_service(#{services := Services, ecm := #{listeners := Listeners}})
  when Services =/= #{} ->
    [format("'ecm' has a listener for the service '~ts', and the services are ~ts",
            [Name, names(Services)])
     || #{service := Name} <- Listeners, not is_map_key(Name, Services)];
unknown_ecm_service(_) ->
    [].

names(Services) ->
    lists:join(", ", lists:sort(maps:keys(Services))).

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
    case conflicts(Values#{port => Port, services := Services}) of
        [] -> {ok, default_service(Values#{services := Services})};
        Sentences -> {error, Sentences}
    end.

%% @doc What a link of this listener is run with: the part of
%% `megaphone_receiver''s configuration that options decide.
-spec link(values()) -> map().
link(#{default_service := Default, version_1 := Allow} = Values) ->
    (maps:with([window, max_frame, max_connections, idle_timeout], Values))
        #{default => Default, allow_v1 => Allow}.

services(#{services := None}, Http) when map_size(None) =:= 0 ->
    #{?HTTP => #{module => ejabberd_http, supervisor => true,
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
