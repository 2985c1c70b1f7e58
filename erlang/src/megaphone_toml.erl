%% @doc Writes the ECM's configuration. Only what that needs of TOML: tables,
%% arrays of tables, strings, integers.
%% @reference <a href="https://toml.io/en/v1.0.0">TOML v1.0.0</a>
-module(megaphone_toml).

%% megaphone_edge
-export([ecm/2]).

%% @doc The configuration of an ECM that dials the Unix socket `Path', from the
%% checked `ecm:' section of a listener's options.
-spec ecm(megaphone_edge:config(), Path :: binary()) -> binary().
ecm(#{listeners := Listeners} = Ecm, Path) ->
    iolist_to_binary(
      [[entry(Key, Value) || {Key, Value} <- lists:sort(maps:to_list(top(Ecm)))],
       "\n[backend]\n", entry(address, <<"unix:", Path/binary>>),
       "\n[log]\n", entry(level, maps:get(log_level, Ecm)),
       [["\n[[listeners]]\n", listener(Listener)] || Listener <- Listeners]]).

top(Ecm) ->
    Numbers = maps:with([links, window, max_frame, max_clients, max_waiting, workers,
                         max_buffered, resume_buffer, open_rate], Ecm),
    Times = maps:with([connect_wait, heartbeat, close_timeout, resume_timeout, drain_time], Ecm),
    maps:merge(Numbers#{name => maps:get(name, Ecm)},
               maps:map(fun(_, Ms) -> iolist_to_binary(io_lib:format("~bms", [Ms])) end,
                        Times)).

listener(#{ip := Ip, port := Port, service := Service, kind := Kind} = Listener) ->
    [entry(listen, address(Ip, Port)),
     entry(service, Service),
     entry(kind, Kind),
     [entry(Key, Value) || Key <- [backlog, send_buffer], #{Key := Value} <- [Listener]]].

address(Ip, Port) ->
    Text = case inet:ntoa(Ip) of
               Ip6 when tuple_size(Ip) =:= 8 -> ["[", Ip6, "]"];
               Ip4 -> Ip4
           end,
    iolist_to_binary([Text, $:, integer_to_list(Port)]).

entry(Key, Value) ->
    [atom_to_list(Key), " = ", value(Value), $\n].

value(Value) when is_integer(Value) -> integer_to_list(Value);
value(Value) when is_atom(Value) -> value(atom_to_binary(Value));
value(Value) when is_binary(Value) -> [$", [escape(C) || <<C/utf8>> <= Value], $"].

escape($") -> "\\\"";
escape($\\) -> "\\\\";
escape(C) when C < 16#20; C =:= 16#7f -> io_lib:format("\\u~4.16.0B", [C]);
escape(C) -> <<C/utf8>>.
