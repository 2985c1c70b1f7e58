%% @doc The `ecm:' section of a listener's options: the edge that we run ourselves.
%% What may stand there is what the ECM's own configuration takes.
-module(megaphone_ecm_options).

%% megaphone_options
-export([type/0]).

%% @doc The validator of the section; the defaults it fills in are those that the
%% ECM cannot know.
-spec type() -> fun((term()) -> map()).
type() ->
    econf:and_then(
      econf:options(
        #{command => econf:file(),
          name => megaphone_options:name(),
          links => econf:int(1, 64),
          window => megaphone_options:window(),
          max_frame => megaphone_options:max_frame(),
          max_clients => econf:int(1, 100000000),
          max_waiting => econf:int(0, 1000000),
          workers => econf:int(1, 1024),
          max_buffered => megaphone_options:max_buffered(),
          open_rate => econf:int(1, 1000000),
          connect_wait => megaphone_options:at_most(60),
          heartbeat => megaphone_options:at_most(3600),
          close_timeout => megaphone_options:at_most(3600),
          resume_timeout => megaphone_options:at_most_or_0(3600),
          resume_buffer => megaphone_options:resume_buffer(),
          drain_time => megaphone_options:at_most_or_0(3600),
          log_level => econf:enum([error, warn, info, debug]),
          listeners => econf:non_empty(econf:list(ecm_listener()))},
        [{required, [listeners]}, {return, map}, unique]),
      fun(Ecm) -> maps:merge(#{name => <<"ecm">>, log_level => info}, Ecm) end).

%% An address as in the ECM's TOML (`listen'), or as ejabberd has it (`port' and
%% `ip'). The kind is the service's unless it is said.
ecm_listener() ->
    econf:and_then(
      econf:options(
        #{listen => econf:and_then(econf:binary(), fun listen_address/1),
          port => econf:int(0, 65535),
          ip => econf:ip(),
          backlog => econf:int(1, 65535),
          send_buffer => econf:int(4096, 16#3fffffff),
          kind => econf:enum([http, tcp]),
          service => megaphone_options:name()},
        [{return, map}, unique]),
      fun(Listener) -> maps:merge(#{service => <<"http">>}, placed(Listener)) end).

placed(#{listen := _} = Listener) when is_map_key(port, Listener); is_map_key(ip, Listener) ->
    megaphone_options:fail("'listen' stands beside 'port' or 'ip': give one of them", []);
placed(#{listen := {Ip, Port}} = Listener) ->
    (maps:remove(listen, Listener))#{ip => Ip, port => Port};
placed(#{port := _} = Listener) ->
    maps:merge(#{ip => {0, 0, 0, 0}}, Listener);
placed(#{}) ->
    megaphone_options:fail("where to listen is missing: give 'listen' or 'port'", []).

listen_address(Text) ->
    try
        [Host, Port] = string:split(Text, ":", trailing),
        {ok, Ip} = inet:parse_strict_address(bare(binary_to_list(Host))),
        Number = binary_to_integer(Port),
        true = Number >= 0 andalso Number =< 65535,
        {Ip, Number}
    catch
        error:_ ->
            megaphone_options:fail("'~ts' is not an IP address and a port, such as \"0.0.0.0:5280\" or "
                 "\"[::]:5280\"", [Text])
    end.

bare("[" ++ Rest) ->
    $] = lists:last(Rest),
    lists:droplast(Rest);
bare(Ip4) ->
    false = lists:member($:, Ip4),              % IPv6 stands in brackets
    Ip4.
