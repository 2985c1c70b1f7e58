//! Links that are not there, break, come back or are more than one.

mod support;

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::time::Instant;

use megaphone_proto::control::{CloseReason, Control, ErrorCode};
use support::*;

const REFUSED: &str = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\n";

#[test]
fn without_a_backend_http_is_answered_503_and_tcp_is_closed() {
    let nobody = Nobody::new();
    let ecm = Ecm::start(&config(&nobody.address(), "connect_wait = \"50ms\""));
    let mut client = ecm.web_client();
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    let answer = String::from_utf8(read_to_end(&mut client)).unwrap();
    assert!(answer.starts_with(REFUSED), "{answer}");
    assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
    assert_eq!(read_to_end(&mut ecm.tcp_client()), b"");
    let line = ecm.line(" refused: ");
    assert!(line.starts_with("warn client 127.0.0.1:"), "{line}");
}

#[test]
fn a_client_that_comes_early_waits_for_the_link() {
    let backend = Backend::new();
    let ecm = Ecm::start(&config(&backend.address(), "connect_wait = \"30s\""));
    let mut client = ecm.web_client();
    client.write_all(b"early").unwrap();
    let mut node = backend.accept();
    let id = node.opened().id;
    assert_eq!(node.content(id, 5), b"early");
}

#[test]
fn no_more_clients_wait_than_may() {
    let nobody = Nobody::new();
    let lines = "connect_wait = \"30s\"\nmax_waiting = 0";
    let ecm = Ecm::start(&config(&nobody.address(), lines));
    let began = Instant::now();
    assert!(read_to_end(&mut ecm.web_client()).starts_with(REFUSED.as_bytes()));
    assert!(began.elapsed().as_secs() < 30);
    ecm.line("as many clients as may (max_waiting) wait for one");
}

#[test]
fn what_ejabberd_refuses_is_503_for_http() {
    let (ecm, _backend, mut node) = linked("");
    for reason in [CloseReason::Refused, CloseReason::Overload] {
        let mut client = ecm.web_client();
        let id = node.opened().id;
        node.say(&Control::Reset { id, reason });
        let answer = read_to_end(&mut client);
        assert!(answer.starts_with(REFUSED.as_bytes()));
    }
    // One that was answered already cannot be answered again.
    let mut client = ecm.web_client();
    let id = node.opened().id;
    node.send(id, b"HTTP/1.1 200 OK\r\n");
    read_exact(&mut client, 17);
    node.say(&Control::Reset {
        id,
        reason: CloseReason::Overload,
    });
    assert_eq!(
        client.read(&mut [0]).unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
}

#[test]
fn a_backend_that_dies_is_dialled_again() {
    let (ecm, backend, mut node) = linked("");
    let mut client = ecm.tcp_client();
    let id = node.opened().id;
    drop(node);
    assert_eq!(
        client.read(&mut [0]).unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    let closed = format!("connection {id} closed");
    let lines = ecm.lines(["link 1 ended: closed by ejabberd", &closed]);
    assert!(lines[1].ends_with("reason=link_lost"));
    let mut node = backend.accept();
    let mut client = ecm.tcp_client();
    let again = node.opened().id;
    node.send(again, b"back");
    assert_eq!(read_exact(&mut client, 4), b"back");
}

#[test]
fn garbage_closes_the_link_with_a_line_and_it_is_dialled_again() {
    let bad: [(&[u8], ErrorCode); 9] = [
        (
            b"HTTP/1.1 400 Bad Request\r\nServer: not ejabberd\r\n\r\n",
            ErrorCode::FrameError,
        ),
        (
            b"0000000035x00000000000000000001|abc",
            ErrorCode::FrameError,
        ),
        (b"0000000000|00000000000000000001|", ErrorCode::FrameError),
        (b"0000000031|00000000000000000001|", ErrorCode::FrameError),
        (b"9999999999|00000000000000000001|", ErrorCode::FrameError),
        (b"0000000032|18446744073709551616|", ErrorCode::FrameError),
        (
            b"0000000042|00000000000000000000|close nix\n",
            ErrorCode::ProtocolError,
        ),
        (
            b"0000000036|00000000000000000000|\xff\x00\x01\n",
            ErrorCode::ProtocolError,
        ),
        (
            b"0000000032|00000000000000000000|",
            ErrorCode::ProtocolError,
        ),
    ];
    let backend = Backend::new();
    let ecm = Ecm::start(&config(&backend.address(), ""));
    for (bytes, expected) in bad {
        let mut node = backend.accept();
        ecm.line("link 1 up to ");
        let mut client = ecm.tcp_client();
        let id = node.opened().id;
        node.stream().write_all(bytes).unwrap();
        let shown = bytes.escape_ascii();
        match node.next() {
            Got::Error(code, text) => assert_eq!(code, expected, "{shown}: {text}"),
            other => panic!("{shown}: {other:?}"),
        }
        assert_eq!(node.next(), Got::Eof, "{shown}");
        assert!(client.read(&mut [0]).is_err());
        ecm.lines(["warn link 1 ended: ", &format!("connection {id} closed")]);
    }
    drop(backend.accept());
}

#[test]
fn a_link_that_is_cut_inside_a_frame_says_so() {
    let (ecm, _backend, mut node) = linked("");
    node.stream().write_all(b"0000000100|0000000000").unwrap();
    drop(node);
    ecm.line("link 1 ended: the link ended inside a frame head, after 21 of 32 bytes");
}

#[test]
fn an_answer_that_is_no_hello_is_said_to_be_one() {
    let backend = Backend::new();
    let ecm = Ecm::start(&config(&backend.address(), ""));
    let mut stream = backend.accept_raw();
    stream
        .write_all(b"0000000035|00000000000000000007|abc")
        .unwrap();
    ecm.line("link 1 cannot come up: the handshake failed: frame on connection 00000000000000000007 before the hello");
    drop(backend.accept());
    ecm.line("link 1 up to ");
}

#[test]
fn a_backend_that_never_answers_is_left() {
    let backend = Backend::new();
    let lines = config(&backend.address(), "");
    let ecm = Ecm::start(&lines.replace(
        "reconnect_min",
        "connect_timeout = \"100ms\"\nreconnect_min",
    ));
    let _silent = backend.accept_raw();
    ecm.line("link 1 cannot come up: no link after connect_timeout=100ms, ejabberd did not answer the hello");
    drop(backend.accept());
}

#[test]
fn an_error_of_ejabberd_is_logged() {
    let (ecm, _backend, mut node) = linked("");
    node.say(&Control::Error {
        code: ErrorCode::Limit,
        text: "too many opens\nor so".to_owned(),
    });
    ecm.line("link 1 ended: ejabberd says error code=limit text=\"too many opens\\nor so\"");
}

#[test]
fn a_link_that_falls_silent_is_dropped() {
    let (ecm, backend, mut node) = linked("heartbeat = \"100ms\"");
    let mut pings = 0;
    loop {
        match node.next() {
            Got::Error(ErrorCode::Timeout, _) => break,
            Got::Eof => panic!("it just closed"),
            _ => pings += 1,
        }
    }
    assert_eq!(pings, 0);
    // Two, unless this machine is slow.
    assert!(node.pings > 0);
    ecm.line("link 1 ended: nothing was received for three heartbeat intervals");
    drop(backend.accept());
}

#[test]
fn a_ping_is_answered() {
    let (_ecm, _backend, mut node) = linked("");
    let word = "a-word-of-mine";
    node.say(&Control::Ping {
        word: word.to_owned(),
    });
    let pong = Control::Pong {
        word: word.to_owned(),
    }
    .to_frame();
    assert_eq!(read_exact(node.stream(), pong.len()), pong);
}

#[test]
fn clients_are_spread_over_the_links() {
    let backend = Backend::new();
    let ecm = Ecm::start(&config(&backend.address(), "links = 2"));
    let (mut one, mut two) = (backend.accept(), backend.accept());
    ecm.lines(["link 1 up to ", "link 2 up to "]);
    let mut clients = HashMap::new();
    for _ in 0..6 {
        let client = ecm.tcp_client();
        let line = ecm.line(" open link=");
        clients.insert(line.split(' ').nth(2).unwrap().to_owned(), client);
    }
    let ids_of = |node: &mut Node| -> Vec<_> { (0..3).map(|_| node.opened().id).collect() };
    let (of_one, of_two) = (ids_of(&mut one), ids_of(&mut two));

    // A link's end is the end of its own clients, and of no others.
    drop(one);
    for id in of_one {
        let client = clients.get_mut(&id.to_string()).unwrap();
        assert_eq!(
            client.read(&mut [0]).unwrap_err().kind(),
            ErrorKind::ConnectionReset
        );
    }
    for id in of_two {
        two.send(id, b"still here");
        assert_eq!(
            read_exact(clients.get_mut(&id.to_string()).unwrap(), 10),
            b"still here"
        );
    }
    let mut one = backend.accept();
    ecm.line(" up to ");
    let _client = ecm.tcp_client();
    one.opened();
}

#[test]
fn after_goaway_nobody_new_comes_and_who_is_there_stays() {
    let (ecm, backend, mut node) = linked("connect_wait = \"100ms\"");
    let mut client = ecm.tcp_client();
    let id = node.opened().id;
    node.say(&Control::Goaway {
        reason: CloseReason::Shutdown,
        retry_after: None,
        within: None,
    });
    ecm.line("link 1 takes no new connections: ejabberd says goaway reason=shutdown");
    assert_eq!(read_to_end(&mut ecm.tcp_client()), b"");
    node.send(id, b"stay");
    assert_eq!(read_exact(&mut client, 4), b"stay");
    // The last one gone, the link is replaced.
    drop(client);
    assert_eq!(node.next(), Got::End(id));
    node.send(id, b"");
    ecm.line("link 1 ended: ejabberd wants no more connections on it");
    assert_eq!(node.next(), Got::Eof);
    drop(backend.accept());
}

#[test]
fn goaway_may_say_how_long_to_stay_away() {
    let (ecm, _backend, mut node) = linked("");
    let reason = CloseReason::Overload;
    node.say(&Control::Goaway {
        reason,
        retry_after: Some(99_999),
        within: None,
    });
    assert_eq!(node.next(), Got::Eof);
    assert!(
        ecm.line("link 1 ended: ")
            .ends_with("; next try in 3600000 ms")
    );
}

#[test]
fn a_link_may_be_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("megaphone.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let address = format!("unix:{}", path.display());
    let ecm = Ecm::start(&config(&address, "protocol = 1"));
    let (mut link, _) = listener.accept().unwrap();
    ecm.line(&format!("link 1 up to {address} version=1"));
    ecm.tcp_client()
        .write_all(b"<body>whatever</body>")
        .unwrap();
    let frame = read_exact(&mut link, 53);
    assert_eq!(frame[..11], *b"0000000053|");
    assert_eq!(frame[31..], *b"|<body>whatever</body>");
}
