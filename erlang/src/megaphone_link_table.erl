%%% @doc Which links there are, so that a link and its connections are found without asking anybody.
-module(megaphone_link_table).

%% megaphone_root
-export([create/0]).
%% megaphone_receiver
-export([insert/3, delete/0]).
%% megaphone_greeter
-export([resumes/2]).
%% megaphone, megaphone_socket, megaphone_drain
-export([all/0, handle/1]).

-export_type([entry/0]).

%% A link is named by the pid of its receiver.
-type entry() :: {Link :: pid(), megaphone_nif:link(), Name :: binary()}.

%% @doc Makes the table; its owner is the caller, for life.
-spec create() -> ok.
create() ->
    ?MODULE = ets:new(?MODULE, [named_table, public, {read_concurrency, true}]),
    ok.

%% @doc Puts the caller's link in.
-spec insert(megaphone_nif:link(), Name :: binary(), Token :: binary()) -> ok.
insert(Handle, Name, Token) ->
    true = ets:insert(?MODULE, {self(), Handle, Name, Token}),
    ok.

%% @doc Takes the caller's link out.
-spec delete() -> ok.
delete() ->
    true = ets:delete(?MODULE, self()),
    ok.

%% @doc The link of this name, for a peer that has its token.
-spec resumes(Name :: binary(), Token :: binary()) -> {ok, Link :: pid()} | error.
resumes(Name, Token) ->
    case ets:match(?MODULE, {'$1', '_', Name, '$2'}) of
        [[Link, Ours]] when byte_size(Ours) =:= byte_size(Token) ->
            case crypto:hash_equals(Ours, Token) of
                true -> {ok, Link};
                false -> error
            end;
        _ ->
            error
    end.

%% @doc All links, up or parked; none where the application does not run.
-spec all() -> [entry()].
all() ->
    case ets:whereis(?MODULE) of
        undefined -> [];
        Table -> ets:select(Table, [{{'$1', '$2', '$3', '_'}, [], [{{'$1', '$2', '$3'}}]}])
    end.

%% @doc The NIF's own handle of a link.
-spec handle(Link :: pid()) -> {ok, megaphone_nif:link()} | {error, closed}.
handle(Link) ->
    case ets:lookup(?MODULE, Link) of
        [{Link, Handle, _Name, _Token}] -> {ok, Handle};
        [] -> {error, closed}
    end.
