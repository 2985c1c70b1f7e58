%% @doc Addresses as ejabberd's log has them.
-module(megaphone_address).

-export([format/1, hide/1]).
-export_type([address/0]).

-type address() :: {inet:ip_address(), inet:port_number()} | {local, binary()}.

%% @doc `127.0.0.1:5280', `[::1]:5280', `unix:/run/megaphone.sock'.
-spec format(address()) -> string().
format({local, Path}) ->
    text("unix:~ts", [Path]);
format({Ip, Port}) when tuple_size(Ip) =:= 8 ->
    text("[~ts]:~b", [inet:ntoa(Ip), Port]);
format({Ip, Port}) ->
    text("~ts:~b", [inet:ntoa(Ip), Port]).

%% @doc A client's address as ejabberd's `hide_sensitive_log_data' wants it.
-spec hide(string()) -> iodata().
hide(Address) ->
    try ejabberd_config:may_hide_data(Address)
    catch _:_ -> Address                        % outside of ejabberd
    end.

text(Format, Args) ->
    lists:flatten(io_lib:format(Format, Args)).
