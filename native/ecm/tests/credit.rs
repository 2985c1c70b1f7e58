//! Credit both ways, and clients that stall.

mod support;

use std::io::Write;

use megaphone_proto::ConnectionId;
use megaphone_proto::control::{CloseReason, Control, ErrorCode};
use support::*;

const WINDOW: usize = 16_384;

/// The stream that the stalled client is sent: what stands at `from`.
fn pattern(from: usize, bytes: usize) -> Vec<u8> {
    (from..from + bytes)
        .map(|at| (at ^ (at / 251)) as u8)
        .collect()
}

#[test]
fn a_client_sends_no_more_than_its_credit() {
    let (ecm, _backend, mut node) = linked("");
    let mut client = ecm.tcp_client();
    let id = node.opened().id;
    let bytes = noise(1, 3 * WINDOW);
    client.write_all(&bytes).unwrap();
    let mut got = node.content(id, WINDOW);
    assert_eq!(got.len(), WINDOW);

    // Were there more, it would come before what another client sends.
    let mut other = ecm.tcp_client();
    let other_id = match node.next() {
        Got::Open(open) => open.id,
        unexpected => panic!("{unexpected:?}"),
    };
    other.write_all(b"now").unwrap();
    assert_eq!(node.content(other_id, 3), b"now");

    node.grant(id, 5);
    got.extend(node.content(id, 5));
    node.grant(id, 2 * WINDOW as u32);
    got.extend(node.content(id, 2 * WINDOW - 5));
    assert!(got == bytes);
}

#[test]
fn frames_are_no_longer_than_ejabberd_takes() {
    let backend = Backend::new();
    let ecm = Ecm::start(&config(&backend.address(), ""));
    // A frame that were longer would break the node's end of the link.
    let mut node = backend.accept_with(|config| {
        config.max_content = 4096;
        config.window = 1_000_000;
    });
    let mut client = ecm.tcp_client();
    let id = node.opened().id;
    let bytes = noise(2, 500_000);
    client.write_all(&bytes).unwrap();
    assert!(node.content(id, bytes.len()) == bytes);
}

#[test]
fn a_client_that_takes_all_at_once_is_granted_more_than_it_took() {
    let (ecm, _backend, mut node) = linked("");
    let mut client = ecm.tcp_client();
    let id = node.opened().id;
    node.send(id, &vec![1; WINDOW]);
    read_exact(&mut client, WINDOW);
    match node.next() {
        Got::Window(granted, bytes) => assert!(granted == id && bytes as usize > WINDOW),
        unexpected => panic!("{unexpected:?}"),
    }
}

#[test]
fn windows_do_not_grow_beyond_their_share_of_max_buffered() {
    let (ecm, _backend, mut node) = linked("max_buffered = 1048576");
    let mut client = ecm.tcp_client();
    let id = node.opened().id;
    for _ in 0..20 {
        node.send(id, &vec![1; WINDOW]);
        read_exact(&mut client, WINDOW);
        let mut granted = 0;
        while granted < WINDOW {
            match node.next() {
                Got::Window(_, bytes) => granted += bytes as usize,
                unexpected => panic!("{unexpected:?}"),
            }
        }
        assert_eq!(granted, WINDOW);
    }
}

#[test]
fn credit_comes_back_when_the_client_has_taken_half_a_window() {
    let (ecm, _backend, mut node) = linked("window = 4096");
    let mut client = ecm.tcp_client();
    let id = node.opened().id;
    node.send(id, &[1; 2047]);
    read_exact(&mut client, 2047);
    node.send(id, &[2]);
    assert_eq!(node.next(), Got::Window(id, 2048));
    read_exact(&mut client, 1);
}

/// Sends `stalled` as much as its credit allows, and passes words with
/// another client meanwhile, until no credit comes back for many of them: then
/// the kernel holds all it wants, and a whole window lies in the ECM. Returns
/// how much was sent.
fn fill(node: &mut Node, stalled: ConnectionId, ecm: &Ecm) -> usize {
    let mut other = ecm.tcp_client();
    let other_id = node.opened().id;
    let (mut credit, mut sent, mut rounds_without) = (WINDOW, 0, 0);
    while rounds_without < 200 {
        // More than a frame takes, once the window has grown.
        for piece in pattern(sent, credit).chunks(WINDOW) {
            node.send(stalled, piece);
        }
        sent += credit;
        credit = 0;
        other.write_all(b"ping").unwrap();
        loop {
            match node.next() {
                Got::Window(id, bytes) if id == stalled => credit += bytes as usize,
                Got::Window(..) => {}
                Got::Content(id, content) if id == other_id => {
                    assert_eq!(content, b"ping");
                    break;
                }
                unexpected => panic!("{unexpected:?}"),
            }
        }
        node.grant(other_id, 4);
        node.send(other_id, b"pong");
        assert_eq!(read_exact(&mut other, 4), b"pong");
        rounds_without = if credit == 0 { rounds_without + 1 } else { 0 };
    }
    sent
}

#[test]
fn a_stalled_client_delays_nobody() {
    let (ecm, _backend, mut node) = linked("");
    let mut stalled = ecm.tcp_client();
    let id = node.opened().id;
    let sent = fill(&mut node, id, &ecm);
    // It was only slow: nothing is lost when it reads at last, and credit
    // comes back.
    assert!(read_exact(&mut stalled, sent) == pattern(0, sent));
    loop {
        match node.next() {
            // The other client is gone.
            Got::End(other) if other != id => {}
            Got::Window(granted, bytes) if granted == id => {
                break assert!(bytes as usize >= WINDOW / 2);
            }
            unexpected => panic!("{unexpected:?}"),
        }
    }
}

#[test]
fn a_stalled_client_that_is_closed_is_given_up_after_a_while() {
    let (ecm, _backend, mut node) = linked("window = 8388608\nclose_timeout = \"200ms\"");
    let _stalled = ecm.tcp_client();
    let id = node.opened().id;
    // More than the kernel holds for both sockets.
    for _ in 0..128 {
        node.send(id, &[0; 65_536]);
    }
    node.say(&Control::Close {
        id,
        reason: CloseReason::ServerClosed,
    });
    ecm.line(&format!("connection {id} closed"));
}

#[test]
fn content_beyond_the_credit_closes_the_link() {
    let (ecm, backend, mut node) = linked("window = 1024");
    let _client = ecm.tcp_client();
    let id = node.opened().id;
    node.send(id, &[0; 1025]);
    let text = loop {
        match node.next() {
            Got::Error(ErrorCode::FlowControl, text) => break text,
            Got::Window(..) => {}
            other => panic!("{other:?}"),
        }
    };
    assert!(text.contains(&format!("connection {id}")), "{text}");
    assert_eq!(node.next(), Got::Eof);
    let closed = format!("connection {id} closed");
    let lines = ecm.lines(["link 1 ended: ", &closed]);
    assert!(lines[0].contains(&format!("connection {id}")), "{lines:?}");
    assert!(lines[1].ends_with("reason=link_lost"), "{lines:?}");
    drop(backend.accept());
}

#[test]
fn credit_past_its_end_closes_the_link() {
    let (ecm, _backend, mut node) = linked("");
    let _client = ecm.tcp_client();
    let id = node.opened().id;
    node.grant(id, 0x7fff_ffff);
    assert!(matches!(node.next(), Got::Error(ErrorCode::FlowControl, _)));
    assert_eq!(node.next(), Got::Eof);
    ecm.line("link 1 ended: ");
}

#[test]
fn in_version_1_a_stalled_client_holds_the_link_and_nothing_is_lost() {
    let backend = Backend::new();
    let ecm = Ecm::start(&config(&backend.address(), "protocol = 1"));
    let mut stalled = ecm.tcp_client();
    stalled.write_all(b"x").unwrap();
    let mut node = backend.accept_v1();
    let Got::Content(id, _) = node.next() else {
        panic!("no content")
    };
    // Far more than all buffers on the way hold.
    let bytes = noise(9, 32 * 1024 * 1024);
    let mut link = node.stream().try_clone().unwrap();
    let to_send = bytes.clone();
    let sending = std::thread::spawn(move || {
        for part in to_send.chunks(65_536) {
            let mut frame = Vec::new();
            megaphone_proto::frame::put_frame(id, part, &mut frame);
            link.write_all(&frame).unwrap();
        }
    });
    assert!(read_exact(&mut stalled, bytes.len()) == bytes);
    sending.join().unwrap();
}
