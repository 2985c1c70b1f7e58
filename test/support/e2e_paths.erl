%% Where the things that the end-to-end suites start are found in a checkout.
-module(e2e_paths).

-export([root/0, ejabberd/1, installed/0, clients/0, node_modules/0, python/0, app_ebin/0, ecm/0, canary/0, load/0]).

%% The top of the checkout: rebar3 runs the suites from copies below _build, so
%% the way there is up from this module's own beam.
-spec root() -> file:filename().
root() ->
    up(filename:dirname(filename:absname(code:which(?MODULE)))).

%% Where `scripts/ejabberd VERSION` has unpacked Debian's packages.
-spec ejabberd(Version :: string()) -> file:filename().
ejabberd(Version) -> filename:join([root(), "_build", "ejabberd", Version]).

%% What `scripts/clients` has installed.
-spec installed() -> file:filename().
installed() -> filename:join([root(), "_build", "clients"]).

%% The clients' scripts, seen from a folder where node finds their packages.
-spec clients() -> file:filename().
clients() -> filename:join(installed(), "scripts").

-spec node_modules() -> file:filename().
node_modules() -> filename:join(installed(), "node_modules").

-spec python() -> file:filename().
python() -> filename:join([installed(), "venv", "bin", "python"]).

-spec app_ebin() -> file:filename().
app_ebin() -> filename:join(code:lib_dir(megaphone), "ebin").

-spec ecm() -> file:filename().
ecm() -> filename:join([code:lib_dir(megaphone), "priv", "megaphone-ecm"]).

-spec canary() -> file:filename().
canary() -> filename:join([code:lib_dir(megaphone), "priv", "megaphone-canary"]).

-spec load() -> file:filename().
load() -> filename:join([code:lib_dir(megaphone), "priv", "megaphone-load"]).

up("/") -> error(checkout_not_found);
up(Dir) ->
    Marks = ["Cargo.toml", "scripts", "test"],
    case lists:all(fun(Name) -> filelib:is_file(filename:join(Dir, Name)) end, Marks) of
        true -> Dir;
        false -> up(filename:dirname(Dir))
    end.
