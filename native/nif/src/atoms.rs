//! Every atom the NIF makes, in one place.

rustler::atoms! {
    ok, error, wait, more, done, empty, undefined, infinity, choked, closed,
    // error reasons, as `inet` says them
    einval, emsgsize, enobufs, enomem, econnreset, badarg, not_owner,
    // sockets and their messages
    inet = "$inet", megaphone_socket, tcp, http, tcp_closed, tcp_error, tcp_passive,
    // between the NIF and the processes that wait on it
    reply = "$megaphone_reply", drain = "$megaphone_drain", ready = "$megaphone_ready",
    resume = "$megaphone_resume",
    // what `feed` and `tick` report to the receiver
    up, hello, open, goaway, peer_error, reset, fatal, pong,
    // options
    active, once, mode, list, binary, packet, raw, line, http_bin, httph, httph_bin, buffer,
    packet_size, header, deliver, term, line_delimiter, send_timeout, send_timeout_close,
    exit_on_close, show_econnreset, high_watermark, low_watermark, true_ = "true", false_ = "false",
    nodelay, keepalive, delay_send, reuseaddr, dontroute, recbuf, sndbuf, priority, tos, tclass,
    ttl, high_msgq_watermark, low_msgq_watermark, linger, recvtos, recvtclass, recvttl,
    // statistics
    recv_avg, recv_cnt, recv_dvi, recv_max, recv_oct, send_avg, send_cnt, send_max, send_oct,
    send_pend,
    // HTTP
    http_request, http_header, http_eoh, http_error, abs_path, absolute_uri = "absoluteURI",
    scheme, https, star = "*",
    // XML streams
    stream_message = "$megaphone_stream", stanza, text, finish, too_big, document_type,
    not_well_formed,
    // requests of connections that speak HTTP
    request, refused, bad, nokey, other, keep, idle, next, large, held, collecting, answering,
    front, websocket, stream,
    gone = "$megaphone_gone",
    // info
    id, link, state, reason, owner, peer, local, version, name, connections, received,
    sent, queued, waiting, peer_name, unknown_verbs, dropped, retained, limits, max, now, hits,
    data_queue, control_queue, resume_buffer, link_buffered, node_buffered, max_connections,
    // WebSocket
    ws_message = "$megaphone_ws", max_message, ping_interval, timeout, reply_in_kind,
    // states
    peer_closed, we_closed, lingering,
}
