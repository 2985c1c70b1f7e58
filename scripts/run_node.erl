%% The node's side of `make run`: accounts to log in with, and an end when the script
%% that started the node is gone.
-module(run_node).

-export([start/0]).

-define(HOST, <<"localhost">>).

%% For `erl -s ejabberd -s run_node`: called once ejabberd has started.
-spec start() -> ok.
start() ->
    _ = spawn(fun stop_at_end_of_input/0),
    {ok, [Accounts]} = init:get_argument(account),
    Users = [account(Account) || Account <- Accounts],
    [befriend(User, Other) || User <- Users, Other <- Users, User =/= Other],
    io:format("run: accounts are ready~n").

account(NameAndPassword) ->
    [Name, Password] = string:split(NameAndPassword, ":"),
    User = list_to_binary(Name),
    ok = ejabberd_auth:try_register(User, ?HOST, list_to_binary(Password)),
    User.

%% Each stands in the other's contact list, so that a chat is one click away.
befriend(User, Other) ->
    _ = mod_admin_extra:add_rosteritem(User, ?HOST, Other, ?HOST, Other, <<"megaphone">>, <<"both">>),
    ok.

%% The script holds the other end of this pipe: killed with -9, it closes it all the same.
stop_at_end_of_input() ->
    Input = open_port({fd, 0, 1}, [in, eof]),
    receive
        {Input, eof} -> init:stop()
    end.
