%% @doc Options of a listener that do not go together.
%%
%% ejabberd checks them one at a time, in the order they stand in. So each is
%% remembered here and judged with those before it, and with all of them when the
%% listener's last one is known.
-module(megaphone_conflicts).

%% megaphone_options
-export([note/2, judge_last/0, find/1]).

%% The values seen since ejabberd began to check this listener, which it does
%% with a call of listen_options/0, and the listener's place in `listen'. There is
%% no other way to say at boot or at `reload_config', where a wrong configuration
%% can still be refused, that two options do not go together.
-define(NOTES, megaphone_listener_options).

%% @doc Remembers an option's value, and gives it back where it goes with those before it.
-spec note(atom(), Value) -> Value.
note(Option, Value) ->
    Values = (case get(?NOTES) of undefined -> #{}; {_, Map} -> Map end)#{Option => Value},
    put(?NOTES, {place(), Values}),
    case find(Values) of
        [] -> Value;
        [Sentence | _] -> megaphone_options:fail("~ts", [Sentence])
    end.

%% @doc To be called when ejabberd asks for the options' defaults.
%%
%% All options of a listener are known when the next one's turn comes, and of the
%% last when ejabberd, having checked all, asks for the defaults to fill in. What
%% was noted at the same place or a later one is of a reload that was refused.
-spec judge_last() -> ok.
judge_last() ->
    case {erase(?NOTES), place()} of
        {{Last, Values}, Now} when Now =:= undefined; Now > Last ->
            _ = [megaphone_options:fail("~ts", [Sentence]) || Sentence <- unauthenticated(Values)],
            ok;
        _ ->
            ok
    end.

%% ejabberd's own note of where it is in the configuration, as `[window, 1, listen]'.
place() ->
    case get(yconf_ctx) of
        Path when is_list(Path) -> hd([Place || Place <- Path, is_integer(Place)] ++ [undefined]);
        _ -> undefined
    end.

unauthenticated(#{port := Port} = Values) when is_integer(Port) ->
    Address = {maps:get(ip, Values, {0, 0, 0, 0}), Port},
    case megaphone_access:is_local(Address) orelse asks(Values) of
        true -> [];
        false -> [format("megaphone listener ~ts: ~ts",
                         [megaphone_address:format(Address),
                          megaphone_access:format_error(no_authentication)])]
    end;
unauthenticated(_) ->
    [].

asks(#{secret_file := _}) -> true;
asks(#{link_tls := Tls}) -> maps:get(verify, Tls, true);
asks(_) -> false.

%% @doc What is wrong with these options together, a sentence each. Options
%% that are not there are not judged.
-spec find(megaphone_options:values()) -> [string()].
find(Values) ->
    lists:append([Check(Values) || Check <- [fun ecm_without_unix/1,
                                             fun proxy_on_unix/1,
                                             fun stranger_beside_ecm/1,
                                             fun network_on_unix/1,
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

%% Nobody but the ECM that we run can dial there.
stranger_beside_ecm(#{ecm := #{}} = Values) ->
    [format("'~ts' is of no use beside 'ecm': only the ECM that is started here may connect",
            [Option])
     || Option <- [secret_file, link_tls], maps:get(Option, Values, undefined) =/= undefined];
stranger_beside_ecm(_) ->
    [].

network_on_unix(#{port := <<"unix:", _/binary>>} = Values) ->
    [format("'~ts' is of no use on a Unix socket: who may open it is for the file's mode to say, "
            "and a secret tells who they are", [Option])
     || {Option, None} <- [{allowed_ips, all}, {link_tls, undefined}],
        maps:get(Option, Values, None) =/= None];
network_on_unix(_) ->
    [].

http_beside_services(#{services := Services} = Values) when Services =/= #{} ->
    [format("'~ts' stands beside 'services': move it into the service it is meant for",
            [Option])
     || {Option, Default} <- megaphone_options:http_defaults(),
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

format(Format, Args) ->
    lists:flatten(io_lib:format(Format, Args)).
