%% What megaphone answers otherwise than ejabberd_http on purpose: {Name, Steps, what stock does, what
%% megaphone does}, as statuses and the connection's end. The same table, with reasons, is docs/parity.md.
-module(e2e_parity_differences).

-export([all/0]).

all() -> [].
