%% @doc What runs in ejabberd's listener process: from the options in
%% ejabberd.yml to a listener that takes links.
-module(megaphone_ejabberd).

%% megaphone
-export([tcp_init/2, start_greeter/3]).
%% proc_lib
-export([watch/2]).

-export_type([state/0]).

-include_lib("kernel/include/logger.hrl").

%% What ejabberd keeps and gives to start/3. A list, because ejabberd may put
%% `sock_peer_name' in front of it and looks for `request_handlers' in it.
-type state() :: [{megaphone, megaphone_link:ref() | refused} | {atom(), term()}].

%% @doc Starts what a listener needs, in ejabberd's listener process.
%%
%% Returns what `start/3' gets for each link. On a Unix socket it does not
%% return but accepts links itself: ejabberd 24.12's own loop crashes on a
%% client without an address, which every Unix client is, and an ECM of ours
%% must be told from anybody else.
-spec tcp_init(gen_tcp:socket(), [{atom(), term()}]) -> state().
tcp_init(ListenSocket, Opts) ->
    {ok, Address} = inet:sockname(ListenSocket),
    Port = configured_port(Address),
    Name = megaphone_address:format(case Port of
                                        <<"unix:", Path/binary>> -> {local, Path};
                                        _ -> Address
                                    end),
    Ref = case start(Address, Port, Name, Opts) of
              {ok, Started} ->
                  Started;
              {error, Sentences} ->
                  ?LOG_ERROR("megaphone listener ~ts refuses all links: ~ts",
                             [Name, lists:join("; ", Sentences)]),
                  refused
          end,
    case Address of
        {local, _} -> megaphone_link_acceptor:loop(ListenSocket, Ref, Opts);
        {_, _} -> [{megaphone, Ref}]
    end.

%% @doc Starts the greeter of a dial that ejabberd has accepted; ejabberd
%% closes the socket where that fails.
-spec start_greeter(linked | alone, gen_tcp:socket(), state()) ->
          {ok, pid()} | {error, closed | refused}.
start_greeter(How, Socket, State) ->
    case proplists:get_value(megaphone, State) of
        refused -> {error, refused};
        Ref -> megaphone_greeter:start(How, Socket, Ref)
    end.

start(Address, Port, Name, Opts) ->
    case {megaphone_listener:prepare(), megaphone_options:listener(Opts, Port)} of
        {ok, {ok, Values}} ->
            log_without_default(Name, proplists:get_value(version_1, Opts, true), Values),
            case megaphone_access:new(Address, Values) of
                {ok, Access} ->
                    Config = config(Address, Port, Name, Values),
                    start_supervised(Address, Config#{access => Access});
                {error, Error} ->
                    {error, [megaphone_access:format_error(Error)]}
            end;
        {ok, {error, Sentences}} ->
            {error, Sentences};
        {{error, Sentence}, _} ->
            {error, [Sentence]}
    end.

log_without_default(Name, true, #{version_1 := false}) ->
    ?LOG_INFO("megaphone listener ~ts takes no version-1 links: 'default_service' does not "
              "say which service is theirs", [Name]);
log_without_default(_, _, _) ->
    ok.

start_supervised(Address, Config) ->
    case megaphone_listener:start(Address, Config) of
        {ok, #{tree := Tree}} = Started ->
            Owner = self(),
            _ = proc_lib:spawn(?MODULE, watch, [Tree, Owner]),
            Started;
        {error, Reason} ->
            {error, [format("cannot start: ~tp", [Reason])]}
    end.

%% @doc Ends ejabberd's listener process with its tree, so that ejabberd's
%% supervisor starts both again. That does so unless the reason is `shutdown',
%% which is any supervisor's reason, whatever it ended for: a link would not do.
-spec watch(Tree :: pid(), Owner :: pid()) -> ok.
watch(Tree, Owner) ->
    TreeRef = monitor(process, Tree),
    OwnerRef = monitor(process, Owner),
    receive
        {'DOWN', OwnerRef, process, _, _} ->
            ok;
        {'DOWN', TreeRef, process, _, _} ->
            true = exit(Owner, case megaphone_app:is_stopping() of
                                   true -> shutdown;
                                   false -> listener_failed
                               end),
            ok
    end.

config(Address, Port, Name, #{services := Services} = Values) ->
    Config = #{owner => self(), name => Name, address => Address,
               services => Services,
               accept_queue => maps:get(accept_queue, Values),
               acceptors => maps:get(acceptors, Values),
               max_handshakes => maps:get(max_handshakes, Values),
               link => megaphone_options:link(Values)},
    case Values of
        #{ecm := #{} = Ecm} -> Config#{ecm => ecm(Ecm, Services, Port)};
        #{} -> Config
    end.

ecm(#{listeners := Listeners} = Ecm, Services, <<"unix:", Path/binary>>) ->
    Socket = socket_file(Path),
    %% Nobody else on the machine has business here. The directory is the
    %% administrator's, unless megaphone_options made it.
    case file:change_mode(Socket, 8#600) of
        ok -> ok;
        {error, Reason} -> ?LOG_WARNING("cannot restrict ~ts to its owner: ~ts",
                                        [Socket, file:format_error(Reason)])
    end,
    Ecm#{socket => Socket, owner => self(),
         listeners := [maps:merge(#{kind => kind(maps:get(Name, Services))}, Listener)
                       || #{service := Name} = Listener <- Listeners]}.

%% Whom the ECM may tell in HTTP that there is no service now. With TLS inside
%% the connection it has no words that the client would understand.
kind(#{module := Module, opts := Opts})
  when Module =:= ejabberd_http; Module =:= megaphone_http ->
    case proplists:get_bool(tls, Opts) of
        true -> tcp;
        false -> http
    end;
kind(#{}) ->
    tcp.

%% ejabberd since 25 takes a relative path as one in Mnesia's directory.
socket_file(Path) ->
    case file:read_link_info(Path) of
        {ok, _} -> filename:absname(Path);
        {error, _} -> filename:absname(Path, mnesia_dir())
    end.

mnesia_dir() ->
    try unicode:characters_to_binary(mnesia:system_info(directory))
    catch _:_ -> <<".">>
    end.

%% A Unix socket's own name may be one that ejabberd (24.12) moved the file away
%% from, so ask ejabberd's supervisor what this listener was configured as.
configured_port({local, Path}) ->
    Self = self(),
    case [Port || {{Port, _, tcp}, Pid, _, _}
                      <- supervisor:which_children(ejabberd_listener), Pid =:= Self] of
        [<<"unix:", _/binary>> = Port | _] -> Port;
        _ -> <<"unix:", Path/binary>>
    end;
configured_port({_, Port}) ->
    Port.

format(Format, Args) ->
    lists:flatten(io_lib:format(Format, Args)).
