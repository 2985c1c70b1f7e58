//! Whoever does not read slows down whoever writes, end to end, and nobody
//! else.

mod support;

use std::io::{ErrorKind, Write};
use std::net::TcpStream;

use support::*;

/// Rounds of words with another client after which what did not move is
/// taken to stand still: each is a round through the whole ECM.
const ROUNDS: usize = 200;

/// Passes a word with `client` and back, with credit for both.
fn pass_word(client: &mut TcpStream, node: &mut Node, id: megaphone_proto::ConnectionId) {
    client.write_all(b"ping").unwrap();
    assert_eq!(node.content(id, 4), b"ping");
    node.grant(id, 4);
    node.send(id, b"pong");
    assert_eq!(read_exact(client, 4), b"pong");
}

/// Writes of `bytes`, from `sent`, all that the kernel takes now.
fn write_some(client: &mut TcpStream, bytes: &[u8], sent: usize) -> usize {
    match client.write(&bytes[sent..]) {
        Ok(written) => sent + written,
        Err(error) if error.kind() == ErrorKind::WouldBlock => sent,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_node_that_does_not_read_closes_the_client_s_tcp_window() {
    let (ecm, _backend, mut node) = linked("");
    let mut writer = ecm.tcp_client();
    let id = node.opened().id;
    let mut other = ecm.tcp_client();
    let other_id = node.opened().id;
    let bytes = noise(1, 24 * 1024 * 1024);

    // Nothing is granted: soon the kernel takes no more from the client.
    writer.set_nonblocking(true).unwrap();
    let mut sent = write_some(&mut writer, &bytes, 0);
    let mut got = node.content(id, 16_384);
    let mut still = 0;
    while still < ROUNDS {
        pass_word(&mut other, &mut node, other_id);
        let now = write_some(&mut writer, &bytes, sent);
        still = if now == sent { still + 1 } else { 0 };
        sent = now;
    }
    assert!(sent < bytes.len(), "the kernel holds all of it");

    // All of it comes when the node reads, and what was held was not lost.
    writer.set_nonblocking(false).unwrap();
    let rest = bytes[sent..].to_vec();
    let writing = std::thread::spawn(move || {
        writer.write_all(&rest).unwrap();
        writer
    });
    node.grant(id, 16_384);
    while got.len() < bytes.len() {
        let more = node.content(id, 1);
        node.grant(id, more.len() as u32);
        got.extend(more);
    }
    assert!(got == bytes);
    drop(writing.join().unwrap());

    // It is counted where an administrator looks.
    drop(node);
    let line = ecm.line("link 1 ended: ");
    assert!(line.contains(" no_credit="), "{line}");
    assert!(!line.contains(" no_credit=0 "), "{line}");
}
