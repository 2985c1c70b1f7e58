//! How it ends: client by client, by ejabberd as long as that does it.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use megaphone_proto::ConnectionId;
use megaphone_proto::control::{CloseReason, Control};
use rustix::process::{Pid, Signal, kill_process};
use support::*;

fn close(id: ConnectionId) -> Control {
    Control::Close {
        id,
        reason: CloseReason::Shutdown,
    }
}

#[test]
fn ejabberd_is_asked_to_end_its_clients_and_has_drain_time_for_it() {
    let (mut ecm, _backend, mut node) = linked("drain_time = \"1h\"");
    let clients: Vec<_> = (0..3)
        .map(|_| (ecm.tcp_client(), node.opened().id))
        .collect();
    let began = Instant::now();
    ecm.terminate();
    ecm.line("info SIGTERM: 3 clients may stay for 1h");
    let goaway = Control::Goaway {
        reason: CloseReason::Shutdown,
        retry_after: None,
        within: Some(3600),
    }
    .to_frame();
    assert_eq!(read_exact(node.stream(), goaway.len()), goaway);
    // Nobody new comes in.
    let refused = TcpStream::connect(ecm.listeners[1]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    // Those who are there go on until they are told.
    for (mut client, id) in clients {
        client.write_all(b"still").unwrap();
        assert_eq!(node.content(id, 5), b"still");
        node.send(id, b"<system-shutdown/>");
        node.say(&close(id));
        assert_eq!(read_to_end(&mut client), b"<system-shutdown/>");
    }
    assert_eq!(ecm.exit_code(), Some(0));
    assert_eq!(node.next(), Got::Eof);
    assert!(began.elapsed() < PATIENCE);
}

/// A client of the `http` listener that has sent a request, and the node has
/// answered with `answer`.
fn asked(ecm: &Ecm, node: &mut Node, answer: &[u8]) -> TcpStream {
    let mut client = ecm.web_client();
    let id = node.opened().id;
    let request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    client.write_all(request).unwrap();
    node.content(id, request.len());
    if !answer.is_empty() {
        node.send(id, answer);
        assert_eq!(read_exact(&mut client, answer.len()), answer);
    }
    client
}

#[test]
fn who_is_left_is_closed_and_http_that_waits_is_answered_503() {
    let (mut ecm, _backend, mut node) = linked("drain_time = \"100ms\"");
    const WHOLE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    const CUT: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok";
    const UPGRADED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";
    let more = |mut client: TcpStream, node: &mut Node| {
        client.write_all(b"more").unwrap();
        while !matches!(node.next(), Got::Content(_, content) if content == b"more") {}
        client
    };
    let never_answered = asked(&ecm, &mut node, b"");
    let asks_again = asked(&ecm, &mut node, WHOLE);
    let asks_again = more(asks_again, &mut node);
    // An answer of ours would be one to nothing, in the middle of another, or
    // in a WebSocket.
    let asks_nothing = asked(&ecm, &mut node, WHOLE);
    let in_the_middle = asked(&ecm, &mut node, CUT);
    let in_the_middle = more(in_the_middle, &mut node);
    let web_socket = asked(&ecm, &mut node, UPGRADED);
    let web_socket = more(web_socket, &mut node);
    let xmpp = ecm.tcp_client();
    let xmpp_id = node.opened().id;

    ecm.terminate();
    ecm.line("warn drain_time=100ms is over: closing the 6 clients that are left");
    for mut client in [never_answered, asks_again] {
        let answer = String::from_utf8(read_to_end(&mut client)).unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"),
            "{answer}"
        );
        assert!(answer.contains("\r\nRetry-After: 5\r\n"), "{answer}");
        assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
    }
    for mut client in [asks_nothing, in_the_middle, web_socket, xmpp] {
        assert_eq!(read_to_end(&mut client), b"");
    }
    // ejabberd is told of each.
    let mut closed = Vec::new();
    loop {
        match node.next() {
            Got::Close(id, CloseReason::Shutdown) => closed.push(id),
            Got::Goaway(CloseReason::Shutdown) | Got::Window(..) => {}
            Got::Eof => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(closed.len(), 6);
    assert!(closed.contains(&xmpp_id));
    assert_eq!(ecm.exit_code(), Some(0));
}

#[test]
fn in_version_1_clients_are_closed_spread_over_drain_time() {
    let backend = Backend::new();
    let text = config(&backend.address(), "protocol = 1\ndrain_time = \"1s\"");
    let mut ecm = Ecm::start(&text);
    let mut clients: Vec<_> = (0..10).map(|_| ecm.tcp_client()).collect();
    for client in &mut clients {
        client.write_all(b"x").unwrap();
    }
    let mut node = backend.accept_v1();
    for _ in &clients {
        assert!(matches!(node.next(), Got::Content(..)));
    }
    let began = Instant::now();
    ecm.terminate();
    for before in 0..10 {
        assert!(matches!(node.next(), Got::End(_)));
        let after = began.elapsed();
        assert!(after >= before * Duration::from_millis(100), "{after:?}");
    }
    for mut client in clients {
        assert_eq!(read_to_end(&mut client), b"");
    }
    assert_eq!(ecm.exit_code(), Some(0));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let (mut ecm, _backend, mut node) = linked("drain_time = \"1h\"");
    let mut client = ecm.tcp_client();
    node.opened();
    ecm.terminate();
    ecm.line("info SIGTERM: 1 clients may stay for 1h");
    let pid = Pid::from_raw(ecm.pid() as i32).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    ecm.line("info SIGINT again: ended with 1 clients");
    assert_eq!(ecm.exit_code(), Some(0));
    let _ = client.read(&mut [0]);
    while node.next() != Got::Eof {}
}

#[test]
fn who_waits_for_a_link_is_refused_when_it_ends() {
    let nobody = Nobody::new();
    let lines = "connect_wait = \"1m\"\ndrain_time = \"1h\"";
    let mut ecm = Ecm::start(&config(&nobody.address(), lines));
    let mut client = ecm.web_client();
    ecm.line("link 1 cannot come up: ");
    ecm.wait_for_status(" max_waiting=1/");
    ecm.terminate();
    let answer = String::from_utf8(read_to_end(&mut client)).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert_eq!(ecm.exit_code(), Some(0));
}

#[test]
fn clients_of_a_parked_link_are_closed_when_it_ends() {
    let backend = Backend::new();
    let mut ecm = Ecm::start(&config(&backend.address(), "drain_time = \"1h\""));
    let mut node = backend.accept_kept();
    ecm.line("link 1 up to ");
    let mut client = ecm.tcp_client();
    node.opened();
    node.cut();
    ecm.line("link 1 parked: ");
    ecm.terminate();
    assert_eq!(read_to_end(&mut client), b"");
    assert!(ecm.line(" closed peer=").ends_with("reason=shutdown"));
    assert_eq!(ecm.exit_code(), Some(0));
}
