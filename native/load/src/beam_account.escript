#!/usr/bin/env escript
%%! +S 1 +A 1 +sbwt none -start_epmd false -setcookie none
%% Asks an Erlang node for its own account of its memory; beam.rs writes this to a file and runs it.
%%
%% Standard input: three lines, the node's name, its cookie, and `true` where every process
%% is to collect its garbage before. Standard output: the account as JSON; or, with exit code 1,
%% what went wrong.
%%
%% This file is a module as well: it is compiled, loaded into the node for as long as the account
%% takes, and removed. account/1 and what it calls run there; the rest runs here.
-module(megaphone_load_account).
-export([main/1, account/1]).

main([]) ->
    logger:set_primary_config(level, none),
    [Name, Cookie, Collect] = [string:trim(io:get_line(""), trailing, "\n") || _ <- "123"],
    try json(ask(Name, Cookie, Collect =:= "true")) of
        Json -> io:put_chars([Json, $\n])
    catch
        throw:Message -> stop(Message);
        error:{erpc, Reason} -> stop(["the node did not answer: " | io_lib:format("~tp", [Reason])])
    end.

stop(Message) ->
    io:put_chars([Message, $\n]),
    halt(1).

%%% Here: reaching the node

ask(Name, Cookie, Collect) ->
    Node = list_to_atom(Name),
    connect(Node, list_to_atom(Cookie), host(Name)),
    {ok, Module, Beam} = compile:forms(forms(), [binary, deterministic]),
    case erpc:call(Node, code, load_binary, [Module, atom_to_list(Module), Beam]) of
        {module, Module} ->
            try
                erpc:call(Node, Module, account, [Collect])
            after
                erpc:call(Node, code, delete, [Module]),
                erpc:call(Node, code, purge, [Module])
            end;
        {error, Reason} ->
            throw(io_lib:format("~ts does not take a module compiled by Erlang/OTP ~ts (~tp): have the node's own erl on the PATH",
                                [Name, erlang:system_info(otp_release), Reason]))
    end.

host(Name) ->
    case string:split(Name, "@") of
        [[_ | _], [_ | _] = Host] -> Host;
        _ -> throw([Name, " is not the name of a node, which is like ejabberd@localhost"])
    end.

%% Hidden, under a name that the node gives and takes back.
connect(Node, Cookie, Host) ->
    Domain = case lists:any(fun(C) -> C =:= $. orelse C =:= $: end, Host) of
                 true -> longnames;
                 false -> shortnames
             end,
    {ok, _} = net_kernel:start(list_to_atom("undefined@" ++ Host),
                               #{name_domain => Domain, dist_listen => false, hidden => true}),
    erlang:set_cookie(Node, Cookie),
    case net_kernel:connect_node(Node) of
        true -> ok;
        _ -> throw(unreachable(atom_to_list(Node), Host))
    end.

unreachable(Name, Host) ->
    [Short, _] = string:split(Name, "@"),
    case erl_epmd:port_please(Short, Host) of
        {port, Port, _Version} ->
            case gen_tcp:connect(Host, Port, [], 5_000) of
                {ok, Socket} ->
                    gen_tcp:close(Socket),
                    [Name, " takes no connection from here: most likely the cookie is another"];
                {error, Reason} ->
                    io_lib:format("~ts cannot be reached at ~ts, port ~b: ~ts", [Name, Host, Port, inet:format_error(Reason)])
            end;
        _ ->
            ["there is no node ", Name, ": no epmd on ", Host, " knows it (a node without epmd needs its port)"]
    end.

%% This file as forms. Its first line is none of Erlang's.
forms() ->
    {ok, Text} = file:read_file(escript:script_name()),
    [_, Source] = binary:split(Text, <<"\n">>),
    {ok, Tokens, _} = erl_scan:string(unicode:characters_to_list(Source)),
    parse(Tokens).

parse([]) ->
    [];
parse(Tokens) ->
    {Form, [Dot | Rest]} = lists:splitwith(fun(Token) -> element(1, Token) =/= dot end, Tokens),
    {ok, Parsed} = erl_parse:parse_form(Form ++ [Dot]),
    [Parsed | parse(Rest)].

json(Map) when is_map(Map) ->
    ["{", lists:join(",", [[$", escape(Key), "\":", json(Value)] || {Key, Value} <- maps:to_list(Map)]), "}"];
json(Number) when is_integer(Number) ->
    integer_to_list(Number).

%% A name may be any atom.
escape(Atom) ->
    [case C of
         $" -> "\\\"";
         $\\ -> "\\\\";
         _ when C < $\s -> io_lib:format("\\u~4.16.0b", [C]);
         _ -> C
     end || C <- atom_to_list(Atom)].

%%% There: the account

%% What is asked for first sees least of what the asking itself takes.
account(Collect) ->
    Pids = lists:delete(self(), erlang:processes()),
    [begin collect(Pids), collect(Pids), settle(erlang:memory(processes), 0) end || Collect],
    Memory = maps:from_list(erlang:memory()),
    Allocators = allocators(),
    #{memory => Memory, allocators => Allocators, processes => by_type(Pids, #{}),
      nifs => nifs(), ports => length(erlang:ports()), descriptors => descriptors()}.

%% Many at a time: one after the other would wait for the scheduler each time.
collect(Pids) ->
    {Now, Later} = lists:split(min(1_000, length(Pids)), Pids),
    Requested = [async || Pid <- Now, erlang:garbage_collect(Pid, [{async, Pid}]) =:= async],
    [receive {garbage_collect, _, _} -> ok end || _ <- Requested],
    Later =/= [] andalso collect(Later).

%% What one scheduler frees of another's memory is freed only when the other comes to it, which may
%% take a busy machine a while: three looks in a row must find no less.
settle(_, 3) ->
    ok;
settle(Bytes, Looks) ->
    receive after 20 -> ok end,
    case erlang:memory(processes) of
        Fewer when Fewer < Bytes -> settle(Fewer, 0);
        _ -> settle(Bytes, Looks + 1)
    end.

%% Of each allocator, all its instances together: what it has from the system, and what of that is in use.
allocators() ->
    Names = erlang:system_info(alloc_util_allocators),
    maps:from_list([{Name, #{allocated => sum(Instances, fun allocated/1), used => sum(Instances, fun used/1)}}
                    || Name <- Names, Instances <- [erlang:system_info({allocator_sizes, Name})], is_list(Instances)]).

%% Carriers of one block, of many, and those that wait in a pool for an instance to take them up.
sum(Instances, Size) ->
    lists:sum([Size(Carriers) || {instance, _, Kinds} <- Instances,
                                 {Kind, Carriers} <- Kinds, lists:member(Kind, [sbcs, mbcs, mbcs_pool])]).

allocated(Carriers) -> lists:sum([element(2, Size) || Size <- Carriers, element(1, Size) =:= carriers_size]).

used(Carriers) ->
    lists:sum([element(2, Size) || {blocks, Types} <- Carriers, {_, Sizes} <- Types,
                                   Size <- Sizes, element(1, Size) =:= size])
        + lists:sum([element(2, Size) || Size <- Carriers, element(1, Size) =:= blocks_size]).

by_type([], Types) ->
    Types;
by_type([Pid | Pids], Types) ->
    case process_info(Pid, [memory, registered_name, initial_call, current_function, dictionary]) of
        [{memory, Bytes} | Facts] ->
            Type = type(maps:from_list(Facts)),
            Known = maps:get(Type, Types, #{count => 0, memory => 0}),
            #{count := Count, memory := Memory} = Known,
            by_type(Pids, Types#{Type => Known#{count := Count + 1, memory := Memory + Bytes}});
        undefined ->
            by_type(Pids, Types)
    end.

%% The module whose callbacks a behaviour runs, which proc_lib has left in the dictionary; without
%% proc_lib what it was spawned with, or its name.
type(#{dictionary := Dictionary} = Facts) ->
    case lists:keyfind('$initial_call', 1, Dictionary) of
        {_, {Module, Function, _}} -> behaved(Module, Function, Dictionary);
        _ -> spawned(Facts)
    end.

%% The streams of ejabberd say only that they are streams. A supervisor of theirs bears the name
%% of what they are for; below megaphone, ejabberd_bosh and ejabberd_http_ws it is always the same.
behaved(xmpp_stream_in, _, Dictionary) ->
    case supervisor(Dictionary) of
        ejabberd_s2s_in_sup -> ejabberd_s2s_in;
        ejabberd_service_sup -> ejabberd_service;
        _ -> ejabberd_c2s
    end;
behaved(xmpp_stream_out, _, _) -> ejabberd_s2s_out;
behaved(supervisor_bridge, _, _) -> supervisor;
behaved(Module, _, _) -> Module.

supervisor(Dictionary) ->
    case lists:keyfind('$ancestors', 1, Dictionary) of
        {_, [Parent | _]} -> Parent;
        _ -> none
    end.

spawned(#{registered_name := Name}) when is_atom(Name) -> Name;
spawned(#{initial_call := {Module, _, _}}) when Module =/= erlang -> Module;
spawned(#{current_function := {Module, _, _}}) -> Module;
spawned(_) -> other.

%% NIFs that count what they hold outside of the allocators above.
nifs() ->
    case erlang:function_exported(megaphone, memory, 0) of
        true -> #{megaphone => megaphone:memory()};
        false -> #{}
    end.

descriptors() ->
    case file:list_dir("/proc/self/fd") of
        {ok, Names} -> length(Names);
        {error, _} -> 0
    end.
