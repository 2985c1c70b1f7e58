%%% @doc What the log says of a link: who it is, in each line, and of what happens to a hundred
%%% thousand of its connections a line a second, not a line each.
-module(megaphone_link_log).

%% megaphone_receiver
-export([new/2, info/3, warn/3, warn_once/4, tick/1, printable/1]).

-export_type([t/0]).

-include_lib("kernel/include/logger.hrl").

-type kind() :: reset | refused | overload | no_service.

-record(log, {%% Name and address.
              who :: iodata(),
              %% Kinds of warnings given since the last tick, with how many more there were.
              said = #{} :: #{kind() => non_neg_integer()}}).

-opaque t() :: #log{}.

%% @doc The log of the link `Name', whose peer is at `Address'.
-spec new(Name :: binary(), megaphone_address:address() | undefined) -> t().
new(Name, Address) ->
    #log{who = [Name, " (", address(Address), ")"]}.

address(undefined) -> "gone";
address({local, _}) -> "Unix socket";
address(Address) -> megaphone_address:format(Address).

-spec info(string(), [term()], t()) -> ok.
info(Format, Args, #log{who = Who}) ->
    ?LOG_INFO("link ~ts: " ++ Format, [Who | Args]).

-spec warn(string(), [term()], t()) -> ok.
warn(Format, Args, #log{who = Who}) ->
    ?LOG_WARNING("link ~ts: " ++ Format, [Who | Args]).

%% @doc Says it, or only counts it when something of its kind was said in this second.
-spec warn_once(kind(), string(), [term()], t()) -> t().
warn_once(Kind, Format, Args, #log{said = Said} = Log) ->
    case Said of
        #{Kind := More} ->
            Log#log{said = Said#{Kind := More + 1}};
        #{} ->
            warn(Format, Args, Log),
            Log#log{said = Said#{Kind => 0}}
    end.

%% @doc A second has passed: says what was only counted.
-spec tick(t()) -> t().
tick(#log{said = Said} = Log) ->
    _ = [warn("~b more connection(s) like that (~ts)", [More, Kind], Log)
         || {Kind, More} <- maps:to_list(Said), More > 0],
    Log#log{said = #{}}.

%% @doc A peer's words may hold anything: what is no plain character shows as its code.
-spec printable(binary()) -> iodata().
printable(Text) ->
    [escape(C) || C <- unicode:characters_to_list(Text)].

escape(C) when C >= 32, C < 127 -> C;
escape(C) -> io_lib:format("\\x{~.16b}", [C]).
