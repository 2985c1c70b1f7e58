%%% @doc ejabberd's module `mod_megaphone': options of a host that are no listener's.
%%%
%%% What it sets is done by megaphone's own processes. It needs no listener of megaphone's: with
%%% `trim_stock' it is of use on any ejabberd.
-module(mod_megaphone).
%% -behaviour(gen_mod), which is ejabberd's.

%% gen_mod
-export([start/2, stop/1, reload/3, depends/2, mod_options/1, mod_opt_type/1, mod_doc/0]).

-spec start(binary(), map()) -> ok | {error, term()}.
start(Host, Options) ->
    case application:ensure_all_started(megaphone) of
        {ok, _} -> set(Host, Options);
        {error, _} = Error -> Error
    end.

-spec stop(binary()) -> ok.
stop(Host) ->
    megaphone_trim:disable(Host).

-spec reload(binary(), NewOptions :: map(), OldOptions :: map()) -> ok.
reload(Host, Options, _OldOptions) ->
    set(Host, Options).

set(Host, #{trim_idle := infinity}) ->
    megaphone_trim:disable(Host);
set(Host, #{trim_idle := Idle, trim_rate := Rate, trim_stock := Stock}) ->
    megaphone_trim:enable(Host, #{idle => Idle, rate => Rate, stock => Stock}).

-spec depends(binary(), map()) -> [].
depends(_Host, _Options) ->
    [].

-spec mod_options(binary()) -> [{atom(), term()}].
mod_options(_Host) ->
    [{trim_idle, timer:seconds(10)},
     {trim_rate, 10_000},
     {trim_stock, false}].

-spec mod_opt_type(atom()) -> term().
mod_opt_type(trim_idle) ->
    econf:either(econf:and_then(econf:enum([false]), fun(false) -> infinity end),
                 econf:timeout(second, infinity));
mod_opt_type(trim_rate) ->
    econf:pos_int();
mod_opt_type(trim_stock) ->
    econf:bool().

-spec mod_doc() -> map().
mod_doc() ->
    #{desc => <<"Makes the processes of quiet users small, see megaphone's docs/operating.md.">>,
      opts => [{trim_idle,
                #{value => "timeout() | false",
                  desc => <<"After how long without anything to do a session's processes give back "
                            "the memory that they do not need. The default is '10' seconds.">>}},
               {trim_rate,
                #{value => "pos_integer()",
                  desc => <<"How many processes are looked at in a second, at most. "
                            "The default is '10000'.">>}},
               {trim_stock,
                #{value => "true | false",
                  desc => <<"Whether users of ejabberd's own listeners are meant too. "
                            "The default is 'false'.">>}}],
      example => ["modules:", "  mod_megaphone:", "    trim_idle: 10", "    trim_stock: true"]}.
