//! What a client's byte stream becomes on a link, and back.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;

use megaphone_proto::ConnectionId;
use megaphone_proto::control::{CloseReason, Control};
use support::*;

#[test]
fn an_open_names_service_and_addresses() {
    let (ecm, _backend, mut node) = linked("name = \"edge-9\"\nwindow = 4096\nmax_frame = 8192");
    assert_eq!(node.peer().name, "edge-9");
    assert_eq!((node.peer().window, node.peer().max_frame), (4096, 8192));
    for (service, address) in [("web", ecm.listeners[0]), ("c2s", ecm.listeners[1])] {
        let client = client(address);
        let open = node.opened();
        assert_eq!(open.service, service);
        assert_eq!(open.peer, client.local_addr().unwrap());
        assert_eq!(open.local, client.peer_addr().unwrap());
        assert_eq!(open.tls, None);
        assert!(!open.id.is_control());
        let (id, peer) = (open.id, open.peer);
        ecm.line(&format!(
            "connection {id} open link=1 service={service} peer={peer}"
        ));
        drop(client);
        assert_eq!(node.next(), Got::End(id));
    }
}

/// Bytes of content that a frame may have.
const FRAME: usize = 65_536;

#[test]
fn bytes_of_any_number_come_whole_both_ways() {
    let (ecm, _backend, mut node) = linked("");
    let client = ecm.tcp_client();
    let id = node.opened().id;
    let mut credit = 16_384;
    for (seed, size) in [1, 2, 31, 32, 33, 1000, 8192, 20_000, 70_000, 300_001]
        .into_iter()
        .enumerate()
    {
        let bytes = noise(seed as u64, size);
        let mut writer = client.try_clone().unwrap();
        let to_write = bytes.clone();
        let writing = std::thread::spawn(move || writer.write_all(&to_write).unwrap());
        let mut reader = client.try_clone().unwrap();
        let reading = std::thread::spawn(move || read_exact(&mut reader, size));
        // Echo piece by piece, within the windows of both sides.
        let mut left = size;
        let mut back = Vec::new();
        while left > 0 || !back.is_empty() {
            let now = back.len().min(credit).min(FRAME);
            if now > 0 {
                node.send(id, &back[..now]);
                back.drain(..now);
                credit -= now;
                continue;
            }
            match node.next() {
                Got::Content(from, content) => {
                    assert_eq!(from, id);
                    node.grant(id, content.len() as u32);
                    left -= content.len();
                    back.extend(content);
                }
                Got::Window(_, bytes) => credit += bytes as usize,
                other => panic!("{other:?}"),
            }
        }
        writing.join().unwrap();
        assert_eq!(reading.join().unwrap(), bytes, "{size} bytes");
    }
}

#[test]
fn a_client_may_end_its_half_and_still_be_answered() {
    let (ecm, _backend, mut node) = linked("");
    let mut client = ecm.tcp_client();
    let id = node.opened().id;
    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(node.content(id, 8), b"question");
    assert_eq!(node.next(), Got::End(id));
    node.send(id, b"answer");
    node.send(id, b"");
    assert_eq!(read_to_end(&mut client), b"answer");
    ecm.line(&format!("connection {id} closed"));
}

#[test]
fn ejabberd_may_end_its_half_and_still_be_told_more() {
    let (ecm, _backend, mut node) = linked("");
    let mut client = ecm.tcp_client();
    let id = node.opened().id;
    node.send(id, b"all I have");
    node.send(id, b"");
    assert_eq!(read_to_end(&mut client), b"all I have");
    client.write_all(b"but I go on").unwrap();
    assert_eq!(node.content(id, 11), b"but I go on");
    drop(client);
    assert_eq!(node.next(), Got::End(id));
    ecm.line(&format!("connection {id} closed"));
}

#[test]
fn close_delivers_what_came_before_and_reset_does_not_wait() {
    let (ecm, _backend, mut node) = linked("");
    let mut client = ecm.tcp_client();
    let id = node.opened().id;
    let last = noise(3, 16_384);
    // Something unread at the close must not cost the client its answer.
    client.write_all(b"never read").unwrap();
    node.content(id, 10);
    node.send(id, &last);
    node.say(&Control::Close {
        id,
        reason: CloseReason::ServerClosed,
    });
    client.write_all(b"too late").unwrap();
    assert_eq!(read_to_end(&mut client), last);
    drop(client);
    ecm.line(&format!("connection {id} closed"));

    let mut client = ecm.tcp_client();
    let id = node.opened().id;
    node.say(&Control::Reset {
        id,
        reason: CloseReason::Idle,
    });
    let error = client.read(&mut [0; 16]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(
        ecm.line(&format!("connection {id} closed"))
            .ends_with("reason=idle")
    );
}

#[test]
fn a_client_that_is_reset_resets_its_connection() {
    let (ecm, _backend, mut node) = linked("");
    let client = ecm.tcp_client();
    let id = node.opened().id;
    socket2::SockRef::from(&client)
        .set_linger(Some(std::time::Duration::ZERO))
        .unwrap();
    drop(client);
    assert_eq!(node.next(), Got::Reset(id, CloseReason::ClientClosed));
    ecm.line(&format!("connection {id} closed"));
    // Also one that had ended its half, and cannot be read from any more.
    let client = ecm.tcp_client();
    let id = node.opened().id;
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(node.next(), Got::End(id));
    socket2::SockRef::from(&client)
        .set_linger(Some(std::time::Duration::ZERO))
        .unwrap();
    drop(client);
    assert_eq!(node.next(), Got::Reset(id, CloseReason::ClientClosed));
}

#[test]
fn frames_for_ids_that_are_gone_reach_nobody() {
    let (ecm, _backend, mut node) = linked("");
    let mut gone = ecm.tcp_client();
    let id = node.opened().id;
    node.say(&Control::Close {
        id,
        reason: CloseReason::Normal,
    });
    read_to_end(&mut gone);
    let mut other = ecm.tcp_client();
    let other_id = node.opened().id;
    assert_ne!(id, other_id);
    node.send(id, b"late");
    node.send(id, b"");
    node.grant(id, 5);
    node.say(&Control::Close {
        id,
        reason: CloseReason::Normal,
    });
    node.send(ConnectionId::new(24), b"never opened");
    node.stream()
        .write_all(b"0000000045|00000000000000000000|frobnicate 1\n")
        .unwrap();
    node.send(other_id, b"mine");
    assert_eq!(read_exact(&mut other, 4), b"mine");
    drop(node);
    let line = ecm.line("link 1 ended: closed by ejabberd");
    assert!(
        line.contains("connections=2 bytes_in=0 bytes_out=4 unknown_ids=5 unknown_verbs=1"),
        "{line}"
    );
}

#[test]
fn content_after_the_end_resets_that_connection_only() {
    let (ecm, _backend, mut node) = linked("");
    let mut bad = ecm.tcp_client();
    let id = node.opened().id;
    let mut good = ecm.tcp_client();
    let good_id = node.opened().id;
    node.send(id, b"");
    node.send(id, b"more");
    assert_eq!(node.next(), Got::Reset(id, CloseReason::ProtocolError));
    ecm.line(&format!(
        "link 1 connection {id}: content or a second end after the end"
    ));
    let mut rest = Vec::new();
    let _ = bad.read_to_end(&mut rest);
    assert_eq!(rest, b"");
    node.send(good_id, b"fine");
    assert_eq!(read_exact(&mut good, 4), b"fine");
}

#[test]
fn version_1_is_frames_and_nothing_else() {
    let backend = Backend::new();
    let ecm = Ecm::start(&config(&backend.address(), "protocol = 1"));
    assert!(ecm.line("link 1 up to ").ends_with("version=1"));
    let mut client = ecm.tcp_client();
    client.write_all(b"<body>whatever</body>").unwrap();
    let mut node = backend.accept_v1();
    let Got::Content(id, content) = node.next() else {
        panic!("no content")
    };
    assert_eq!(content, b"<body>whatever</body>");
    node.send(id, b"so what");
    assert_eq!(read_exact(&mut client, 7), b"so what");
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(node.next(), Got::End(id));
    node.send(id, b"bye");
    node.send(id, b"");
    assert_eq!(read_to_end(&mut client), b"bye");
    ecm.line(&format!("connection {id} closed"));

    // One that says nothing is never opened; one that vanishes is ended.
    drop(ecm.tcp_client());
    let mut client = ecm.tcp_client();
    client.write_all(b"x").unwrap();
    let Got::Content(id, _) = node.next() else {
        panic!("no content")
    };
    socket2::SockRef::from(&client)
        .set_linger(Some(std::time::Duration::ZERO))
        .unwrap();
    drop(client);
    assert_eq!(node.next(), Got::End(id));
}

#[test]
fn in_version_1_a_client_that_stays_after_the_end_is_given_up() {
    let backend = Backend::new();
    let ecm = Ecm::start(&config(
        &backend.address(),
        "protocol = 1\nclose_timeout = \"100ms\"",
    ));
    let mut client = ecm.tcp_client();
    client.write_all(b"x").unwrap();
    let mut node = backend.accept_v1();
    let Got::Content(id, _) = node.next() else {
        panic!("no content")
    };
    node.send(id, b"");
    assert_eq!(node.next(), Got::End(id));
    assert!(
        ecm.line(&format!("connection {id} closed"))
            .ends_with("reason=timeout")
    );
}
