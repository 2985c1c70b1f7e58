%%% @doc An answer that is a file, sent in pieces as the client takes them.
-module(megaphone_http_file).

%% megaphone_http_request
-export([reply/3]).

-include_lib("kernel/include/file.hrl").
-include_lib("kernel/include/logger.hrl").

%% Up to so many bytes head and file are one answer: what one piece of file:sendfile/5 is too.
-define(SMALL, 65_536).

%% @doc Answers with a file, and ends the request as `megaphone_nif:http_reply/3' does.
-spec reply(megaphone_nif:conn(), {100..599, megaphone_http_answer:headers(), file:filename_all()},
            megaphone_http_answer:style()) -> idle | next | closed.
reply(Conn, {Status, Headers, Name}, {_, _, IsHead, Then} = Style) ->
    case file:read_file_info(Name, [raw]) of
        {ok, #file_info{size = Size}} when IsHead ->
            megaphone_http_answer:send(Conn, head(Status, Headers, Size, Style), Then);
        {ok, #file_info{size = Size}} ->
            case file:open(Name, [raw, read, binary]) of
                {ok, Fd} ->
                    Ended = send(Conn, Fd, Name, Size, head(Status, Headers, Size, Style), Then),
                    _ = file:close(Fd),
                    Ended;
                {error, Reason} ->
                    missing(Conn, "open", Name, Reason, Style)
            end;
        {error, Reason} ->
            missing(Conn, "read info of", Name, Reason, Style)
    end.

head(Status, Headers, Size, Style) ->
    megaphone_http_answer:head(Status, <<>>, Headers, Size, Style).

send(Conn, _Fd, _Name, 0, Head, Then) ->
    megaphone_http_answer:send(Conn, Head, Then);
send(Conn, Fd, Name, Size, Head, Then) when Size =< ?SMALL ->
    case file:read(Fd, Size) of
        {ok, Data} when byte_size(Data) =:= Size ->
            megaphone_http_answer:send(Conn, [Head, Data], Then);
        Other ->
            broken(Conn, Name, Other)
    end;
send(Conn, Fd, Name, Size, Head, Then) ->
    Socket = megaphone_socket:socket(Conn),
    case gen_tcp:send(Socket, Head) of
        ok ->
            case file:sendfile(Fd, Socket, 0, Size, []) of
                {ok, Size} -> megaphone_http_answer:send(Conn, <<>>, Then);
                Other -> broken(Conn, Name, Other)
            end;
        {error, _} = Error ->
            broken(Conn, Name, Error)
    end.

%% The length that was promised cannot be kept.
broken(Conn, Name, Why) ->
    case Why of
        {error, Gone} when Gone =:= closed; Gone =:= timeout -> ok;
        {error, Reason} -> ?LOG_WARNING("Failed to read ~ts: ~ts", [Name, format(Reason)]);
        _ -> ?LOG_WARNING("Failed to read ~ts: it has become shorter meanwhile", [Name])
    end,
    megaphone_nif:abort(Conn, internal),
    closed.

missing(Conn, What, Name, Reason, {_, _, _, Then} = Style) ->
    Text = format(Reason),
    ?LOG_ERROR("Failed to ~ts ~ts: ~ts", [What, Name, Text]),
    megaphone_http_answer:send(Conn, megaphone_http_answer:head(404, Text, [], 0, Style), Then).

format(Reason) ->
    case file:format_error(Reason) of
        "unknown POSIX error" ++ _ -> atom_to_list(Reason);
        Text -> Text
    end.
