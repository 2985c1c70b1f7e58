%%% @doc Records of the ejabberd that runs, by the names of their fields.
%%%
%%% Handlers get ejabberd's own `#request{}', and sessions its `#body{}', of whatever version is
%%% installed. Its headers are in no package, but its compiled modules say what their records are
%%% like. One that was stripped of that (`debug_info') is taken for what 23.01 to 24.12 have.
-module(megaphone_records).

%% megaphone_http_service
-export([request/0, bosh/0]).
%% megaphone_http_request
-export([make_request/2]).

-export_type([request_layout/0, fields/0, bosh_layout/0]).

%% `usual': the one that is made without a detour. Else a record of defaults, and where in it the
%% fields of {@link fields()} are, in their order.
-type request_layout() :: usual | {tuple(), [pos_integer()]}.
%% What a request sets, in the order of ?SET.
-type fields() :: {Method :: atom(), Path :: [binary()], RawPath :: binary(),
                   Query :: [{binary() | nokey, binary()}], Auth :: term(), Lang :: binary(),
                   Data :: binary(), Ip :: {inet:ip_address(), inet:port_number()},
                   Host :: binary(), Port :: inet:port_number(), Opts :: list(), Tp :: http,
                   Headers :: [{atom() | binary(), binary()}], Length :: non_neg_integer(),
                   SockMod :: gen_tcp, Socket :: megaphone_socket:socket()}.
%% Where a BOSH session keeps what its client's leave concerns.
-type bosh_layout() :: #{wait_timer := pos_integer(), prev_rid := pos_integer(),
                         receivers := pos_integer()}.

-define(REQUEST, [method, path, raw_path, q, us, auth, lang, data, ip, host, port, opts, tp,
                  headers, length, sockmod, socket]).
-define(SET, [method, path, raw_path, q, auth, lang, data, ip, host, port, opts, tp,
              headers, length, sockmod, socket]).
-define(NO_US, {<<>>, <<>>}).
-define(BODY, [http_reason, attrs, els, size]).
-define(BOSH_STATE, [host, sid, el_ibuf, el_obuf, shaper_state, c2s_pid, xmpp_ver,
                     inactivity_timer, wait_timer, wait_timeout, inactivity_timeout, prev_rid,
                     prev_key, prev_poll, max_concat, responses, receivers, shaped_receivers, ip,
                     max_requests]).

%% @doc The layout of `#request{}'; the fields that it lacks, where we cannot make one.
-spec request() -> {ok, request_layout()} | {error, Missing :: [atom()]}.
request() ->
    case record(ejabberd_http, request) of
        unknown ->
            {ok, usual};
        {ok, Fields} ->
            Names = [Name || {Name, _} <- Fields],
            case ?SET -- Names of
                [] when Names =:= ?REQUEST ->
                    {ok, usual};
                [] ->
                    Defaults = [Default || {_, Default} <- Fields],
                    {ok, {list_to_tuple([request | Defaults]), [place(F, Names) || F <- ?SET]}};
                Missing ->
                    {error, Missing}
            end
    end.

%% @doc The layout of BOSH sessions; `error' where they are not as we know them.
-spec bosh() -> {ok, bosh_layout()} | error.
bosh() ->
    case {names(ejabberd_bosh, body, ?BODY), names(ejabberd_bosh, state, ?BOSH_STATE)} of
        {?BODY, State} ->
            case [F || F <- [wait_timer, prev_rid, receivers], not lists:member(F, State)] of
                [] -> {ok, maps:from_list([{F, place(F, State)}
                                           || F <- [wait_timer, prev_rid, receivers]])};
                _ -> error
            end;
        _ ->
            error
    end.

%% @doc A `#request{}'.
-spec make_request(request_layout(), fields()) -> tuple().
make_request(usual, {Method, Path, RawPath, Query, Auth, Lang, Data, Ip, Host, Port, Opts, Tp,
                     Headers, Length, SockMod, Socket}) ->
    {request, Method, Path, RawPath, Query, ?NO_US, Auth, Lang, Data, Ip, Host, Port, Opts, Tp,
     Headers, Length, SockMod, Socket};
make_request({Defaults, Places}, Values) ->
    lists:foldl(fun({Place, Value}, Record) -> setelement(Place, Record, Value) end,
                Defaults, lists:zip(Places, tuple_to_list(Values))).

%%% what a module was compiled with

names(Module, Record, Usual) ->
    case record(Module, Record) of
        unknown -> Usual;
        {ok, Fields} -> [Name || {Name, _} <- Fields]
    end.

%% The first element is the record's name.
place(Field, Names) ->
    length(lists:takewhile(fun(Name) -> Name =/= Field end, Names)) + 2.

record(Module, Record) ->
    case code:get_object_code(Module) of
        {Module, Beam, _} ->
            case beam_lib:chunks(Beam, [abstract_code]) of
                {ok, {_, [{abstract_code, {_, Forms}}]}} ->
                    case [Fields || {attribute, _, record, {Name, Fields}} <- Forms,
                                    Name =:= Record] of
                        [Fields | _] -> {ok, [field(Field) || Field <- Fields]};
                        [] -> unknown
                    end;
                _ ->
                    unknown
            end;
        error ->
            unknown
    end.

field({typed_record_field, Field, _Type}) ->
    field(Field);
field({record_field, _, {atom, _, Name}}) ->
    {Name, undefined};
field({record_field, _, {atom, _, Name}, Default}) ->
    {value, Value, _} = erl_eval:expr(Default, []),
    {Name, Value}.
