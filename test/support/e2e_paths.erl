%% Where the things that the end-to-end suites start are found in a checkout.
-module(e2e_paths).

-export([root/0, ejabberd/1, clients/0, node_modules/0, python/0, app_ebin/0]).

%% The top of the checkout: rebar3 runs the suites from copies below _build, so
%% the way there is up from this module's own beam.
-spec root() -> file:filename().
root() ->
    up(filename:dirname(filename:absname(code:which(?MODULE)))).

%% Where `scripts/ejabberd VERSION` has unpacked Debian's packages.
-spec ejabberd(Version :: string()) -> file:filename().
ejabberd(Version) -> filename:join([root(), "_build", "ejabberd", Version]).

-spec clients() -> file:filename().
clients() -> filename:join([root(), "test", "clients"]).

%% What `scripts/clients` has installed.
-spec node_modules() -> file:filename().
node_modules() -> filename:join([root(), "_build", "clients", "node_modules"]).

-spec python() -> file:filename().
python() -> filename:join([root(), "_build", "clients", "venv", "bin", "python"]).

-spec app_ebin() -> file:filename().
app_ebin() -> filename:join(code:lib_dir(megaphone), "ebin").

up("/") -> error(checkout_not_found);
up(Dir) ->
    Marks = ["Cargo.toml", "scripts", "test"],
    case lists:all(fun(Name) -> filelib:is_file(filename:join(Dir, Name)) end, Marks) of
        true -> Dir;
        false -> up(filename:dirname(Dir))
    end.
