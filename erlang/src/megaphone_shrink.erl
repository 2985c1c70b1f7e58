%%% @doc Makes a quiet process of ejabberd's as small as its state, and its state smaller.
%%%
%%% Runs in the process itself: `sys' calls {@link quiet/1} there, as for `sys:replace_state/2'. The
%%% process then hibernates, which leaves no stack and a heap without a free word, and goes on in its
%%% own loop (`enter_loop', a public call of `p1_server' and `p1_fsm') when the next message wakes it.
%%% To whoever talks to it nothing happens.
%%%
%%% Before that its state is put together anew from parts that it has in common with others:
%%%
%%% - what is equal in all sessions of a kind (names of hosts, options, a map's keys) is kept once in the
%%%   node, as a `persistent_term', which no process copies;
%%% - what is there more than once in the state itself (the user's name, address and JID) is kept once.
%%%
%%% A c2s process that was collected twice is left with 427 words of heap, with this about 150.
-module(megaphone_shrink).

%% megaphone_trim
-export([new/0, message/1, is_kind/1, is_ours/1, skeleton/2]).
%% sys
-export([quiet/1]).
%% proc_lib
-export([wake_server/4, wake_fsm/5]).

-export_type([shape/0]).

%% States with the same shape have parts in common.
-type shape() :: {module(), Keys :: non_neg_integer(),
                  undefined | {SockMod :: module(), Host :: term()}}.

%% Where p1_server and p1_fsm tell how many messages they took out of the mailbox and have not
%% handled: there must be none, they would be lost.
-define(QUEUED, '$internal_queue_len').
%% Which processes gave the two samples of a shape; a public table, {@link megaphone_trim}'s.
-define(SHAPES, ?MODULE).
%% Skeletons are never given back, so their number is bounded.
-define(MAX_SHAPES, 1024).
%% Binaries up to this size live in a process's heap, bytes.
-define(HEAP_BINARY, 64).

%%% megaphone_trim

-spec new() -> ok.
new() ->
    ?SHAPES = ets:new(?SHAPES, [named_table, public, {write_concurrency, true}]),
    ok.

%% @doc What makes a process shrink. The answer, where there is one, is for nobody.
-spec message(Nobody :: pid()) -> term().
message(Nobody) ->
    {system, {Nobody, make_ref()}, {replace_state, fun ?MODULE:quiet/1}}.

%% @doc Whether processes with this initial call can be made smaller.
-spec is_kind(module()) -> boolean().
is_kind(Module) ->
    lists:member(Module, [xmpp_stream_in, ejabberd_bosh, ejabberd_http_ws]).

%% @doc Whether the calling process, with a socket of this module, is not a stock listener's.
%% A BOSH session is no listener's: its requests may come over any.
-spec is_ours(module()) -> boolean().
is_ours(SockMod) ->
    lists:member(SockMod, [ejabberd_bosh, megaphone_ws, megaphone_c2s])
        orelse lists:member(megaphone_root, ancestors()).

%% @doc What two states have in common, `undefined' where they differ.
-spec skeleton(term(), term()) -> term().
skeleton(Same, Same) ->
    Same;
skeleton(A, B) when is_tuple(A), tuple_size(A) =:= tuple_size(B) ->
    list_to_tuple([skeleton(X, Y) || {X, Y} <- lists:zip(tuple_to_list(A), tuple_to_list(B))]);
skeleton(A, B) when is_map(A), is_map(B) ->
    maps:map(fun(Key, X) -> case B of #{Key := Y} -> skeleton(X, Y); #{} -> undefined end end, A);
skeleton([X | A], [Y | B]) ->
    [skeleton(X, Y) | skeleton(A, B)];
skeleton(_, _) ->
    undefined.

%%% sys, in the quiet process

%% @doc Does not return where the process can hibernate.
-spec quiet(Misc) -> Misc when Misc :: term().
quiet(State) ->
    try
        hibernate(get(?QUEUED), State)
    catch
        Class:Reason:Stack -> megaphone_trim:failed(Class, Reason, Stack)
    end,
    State.

%% p1_fsm gives all that it has.
hibernate(0, [_Name, StateName, Data, Module, infinity, Limits, _Queue, 0]) when is_atom(StateName) ->
    case is_wanted(Module) of
        true ->
            _ = erase(rand_seed),               % made anew where it is needed
            Small = share(Module, Data),
            ok = neighbours(Module),
            proc_lib:hibernate(?MODULE, wake_fsm, [Module, limits(Limits), StateName, Small, now_ms()]);
        false ->
            ok
    end;
%% p1_server gives its module's state, here xmpp_stream_in's. One with a time-out must stay awake.
hibernate(0, #{mod := ejabberd_c2s, stream_timeout := infinity, stream_state := established} = State) ->
    case is_wanted(sock_mod(State)) of
        true ->
            _ = erase(rand_seed),
            Options = ejabberd_config:fsm_limit_opts(max_queue()),
            Small = share(ejabberd_c2s, State),
            proc_lib:hibernate(?MODULE, wake_server, [xmpp_stream_in, Options, Small, now_ms()]);
        false ->
            ok
    end;
hibernate(_, _) ->
    megaphone_trim:awake(self()).

is_wanted(SockMod) ->
    megaphone_trim:stock() orelse is_ours(SockMod).

limits({limits, Max}) when is_integer(Max) -> [{max_queue, Max}];
limits(_) -> [].

max_queue() ->
    case get('$megaphone_max_queue') of
        undefined -> [];
        Max -> [{max_fsm_queue, Max}]
    end.

%% A stock WebSocket's third process, which reads from the socket.
neighbours(ejabberd_http_ws) ->
    case ancestors() of
        [Http | _] when is_pid(Http) -> megaphone_trim:collect(Http);
        _ -> ok
    end;
neighbours(_) ->
    ok.

sock_mod(#{socket := Socket}) when is_tuple(Socket) -> element(2, Socket);
sock_mod(_) -> undefined.

ancestors() ->
    case get('$ancestors') of
        undefined -> [];
        Ancestors -> Ancestors
    end.

%%% proc_lib, when a message has come

-spec wake_server(module(), [term()], term(), Since :: integer()) -> no_return().
wake_server(Module, Options, State, Since) ->
    ok = megaphone_trim:woken(now_ms() - Since),
    p1_server:enter_loop(Module, Options, State, self(), infinity).

-spec wake_fsm(module(), [term()], atom(), term(), Since :: integer()) -> no_return().
wake_fsm(Module, Options, StateName, Data, Since) ->
    ok = megaphone_trim:woken(now_ms() - Since),
    p1_fsm:enter_loop(Module, Options, StateName, Data, self(), infinity).

now_ms() ->
    erlang:monotonic_time(millisecond).

%%% parts in common

%% The same state, of fewer words. The ancestors are one of its parts.
share(Module, State) ->
    Whole = {State, ancestors()},
    Shape = shape(Module, State),
    Skeleton = case persistent_term:get({?MODULE, Shape}, undefined) of
                   undefined -> ok = sample(Shape, Whole), undefined;
                   Common -> Common
               end,
    {{Small, Ancestors}, _} = share(Skeleton, Whole, #{}),
    _ = put('$ancestors', Ancestors),
    Small.

shape(Module, #{} = State) ->
    {Module, erlang:phash2(maps:keys(State)), {sock_mod(State), maps:get(lserver, State, undefined)}};
shape(Module, State) ->
    {Module, tuple_size(State), undefined}.

sample(Shape, Whole) ->
    case ets:info(?SHAPES, size) < 2 * ?MAX_SHAPES andalso is_wanted(Shape, self()) of
        true -> megaphone_trim:sample({?MODULE, Shape}, Whole);
        false -> ok
    end.

%% Two users' states have in common what all have; one user's have the user in common.
is_wanted(Shape, Self) ->
    ets:insert_new(?SHAPES, {{Shape, 1}, Self})
        orelse (ets:lookup_element(?SHAPES, {Shape, 1}, 2) =/= Self
                andalso ets:insert_new(?SHAPES, {{Shape, 2}, Self})).

%% A term equal to the given one. What it has in common with the skeleton is the skeleton's, and
%% what comes twice is once there; `Seen' has what came.
share(Skeleton, Term, Seen) when Term =:= Skeleton ->
    {Skeleton, Seen};
share(Skeleton, Term, Seen) when is_tuple(Term); is_map(Term); is_binary(Term) ->
    case Seen of
        #{Term := Known} ->
            {Known, Seen};
        #{} ->
            {Small, Seen1} = parts(Skeleton, Term, Seen),
            {Small, Seen1#{Small => Small}}
    end;
share(Skeleton, [Head | Tail], Seen) ->
    {SkeletonHead, SkeletonTail} = case Skeleton of
                                       [H | T] -> {H, T};
                                       _ -> {undefined, undefined}
                                   end,
    {SmallHead, Seen1} = share(SkeletonHead, Head, Seen),
    {SmallTail, Seen2} = share(SkeletonTail, Tail, Seen1),
    {[SmallHead | SmallTail], Seen2};
share(_Skeleton, Term, Seen) ->
    {Term, Seen}.

%% A short binary is in the heap after this and keeps no longer one alive.
parts(_Skeleton, Binary, Seen) when is_binary(Binary) ->
    {case byte_size(Binary) =< ?HEAP_BINARY
         orelse binary:referenced_byte_size(Binary) > byte_size(Binary) of
         true -> binary:copy(Binary);
         false -> Binary
     end, Seen};
parts(Skeleton, Tuple, Seen) when is_tuple(Tuple) ->
    Skeletons = case is_tuple(Skeleton) andalso tuple_size(Skeleton) =:= tuple_size(Tuple) of
                    true -> tuple_to_list(Skeleton);
                    false -> lists:duplicate(tuple_size(Tuple), undefined)
                end,
    {Small, Seen1} = share(Skeletons, tuple_to_list(Tuple), Seen),
    {list_to_tuple(Small), Seen1};
parts(Skeleton, Map, Seen) when is_map(Map) ->
    %% Updated, the skeleton's map gives its keys and all branches where nothing differs.
    Start = case is_map(Skeleton) andalso maps:keys(Skeleton) =:= maps:keys(Map) of
                true -> Skeleton;
                false -> Map
            end,
    maps:fold(fun(Key, Value, {Small, SeenNow}) ->
                      case Start of
                          #{Key := Value} when Start =/= Map ->
                              {Small, SeenNow};
                          #{Key := SkeletonValue} ->
                              {Part, SeenNext} = share(SkeletonValue, Value, SeenNow),
                              {Small#{Key := Part}, SeenNext}
                      end
              end, {Start, Seen}, Map).
