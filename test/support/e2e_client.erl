%% The real clients: each runs to its end and says whether everything it expected
%% came to pass. Their scripts are in test/clients.
-module(e2e_client).

-export([strophe/2, stanza/1, xmppjs/1, c2s/2, mqtt/1, mqtt/2, converse/4, sent_away/2]).

%% Longer than any script gives itself, so that it is the script that says what was missing.
-define(TIMEOUT, 90_000).

-spec strophe(Service :: iodata(), Mode :: password | anonymous) -> ok | {error, term()}.
strophe(Service, Mode) ->
    node("strophe.mjs", [{"--service", Service}, {"--mode", atom_to_list(Mode)}]).

%% stanza.js; the service is ws: or http:.
-spec stanza(Service :: iodata()) -> ok | {error, term()}.
stanza(Service) -> node("stanza.mjs", [{"--service", Service}]).

%% @xmpp/client; the service is ws: or xmpp:.
-spec xmppjs(Service :: iodata()) -> ok | {error, term()}.
xmppjs(Service) -> node("xmppjs.mjs", [{"--service", Service}]).

-spec c2s(inet:port_number(), Ca :: file:filename()) -> ok | {error, term()}.
c2s(Port, Ca) -> python("c2s.py", [{"--port", integer_to_list(Port)}, {"--ca", Ca}]).

-spec mqtt(inet:port_number()) -> ok | {error, term()}.
mqtt(Port) -> mqtt(Port, "").

%% Over WebSocket where there is a path.
-spec mqtt(inet:port_number(), Path :: string()) -> ok | {error, term()}.
mqtt(Port, Path) -> python("mqtt.py", [{"--port", integer_to_list(Port)}, {"--path", Path}]).

%% A failure leaves pictures of the pages in the directory.
-spec converse(Page :: iodata(), bosh | websocket, Pictures :: file:filename(), Name :: string()) ->
          ok | {error, term()}.
converse(Page, Transport, Pictures, Name) ->
    node("converse.mjs", [{"--page", Page}, {"--transport", atom_to_list(Transport)},
                          {"--chromium", os:find_executable("chromium")},
                          {"--pictures", Pictures}, {"--name", Name}]).

%% alice logs in and is sent away with system-shutdown: `ok`.
-spec sent_away(strophe, Service :: iodata()) -> ok | {error, term()};
               (slixmpp, {inet:port_number(), Ca :: file:filename()}) -> ok | {error, term()}.
sent_away(strophe, Service) -> node("goodbye.mjs", [{"--service", Service}]);
sent_away(slixmpp, {Port, Ca}) -> python("goodbye.py", [{"--port", integer_to_list(Port)}, {"--ca", Ca}]).

%% Scripts are found where node sees their packages, and must not be followed to
%% where they really are.
node(Script, Options) ->
    run("node", ["--preserve-symlinks", "--preserve-symlinks-main", script(Script) | words(Options)]).

python(Script, Options) -> run(e2e_paths:python(), ["-B", script(Script) | words(Options)]).

run(Program, Arguments) ->
    case e2e_process:run(Program, Arguments, [], ?TIMEOUT) of
        {ok, 0, _Lines} -> ok;
        {ok, Status, Lines} -> {error, {exit, Status, text(Lines)}};
        {error, {timeout, Lines}} -> {error, {timeout, text(Lines)}}
    end.

script(Name) -> filename:join(e2e_paths:clients(), Name).

words(Options) -> lists:append([[Name, lists:flatten(Value)] || {Name, Value} <- Options]).

text(Lines) -> unicode:characters_to_list(lists:join($\n, Lines)).
