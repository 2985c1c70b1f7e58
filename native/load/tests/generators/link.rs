//! `link`, against the node's side of the same protocol.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::thread::{self, JoinHandle};

use megaphone_load::link::Report;
use megaphone_proto::conn::Conn;
use megaphone_proto::control::{CloseReason, Control};
use megaphone_proto::credit::NO_GROWTH;
use megaphone_proto::frame::{ConnectionId, put_frame};
use megaphone_proto::handshake::{Handshake, Identity, Step};
use megaphone_proto::{Event, Link, LinkConfig, Role};

use crate::{errors, load, report};

/// What the node does wrong.
#[derive(Clone, Copy, PartialEq)]
enum Wrong {
    Nothing,
    /// The tenth content has another first byte.
    Damage,
    /// The tenth content goes to the connection of the ninth.
    Misdeliver,
    /// The tenth content gets lost.
    Lose,
    /// The tenth content is answered with the connection's end.
    Reset,
}

/// The node's side of one link, which sends back what comes.
struct Node {
    stream: TcpStream,
    link: Link,
    wrong: Wrong,
    /// Each connection, and what waits for credit to be sent back.
    connections: HashMap<ConnectionId, (Conn, Vec<u8>)>,
    contents: usize,
    last: Option<ConnectionId>,
    out: Vec<u8>,
    seen: Seen,
}

/// What the node saw of a link, to its end.
#[derive(Debug, Default)]
struct Seen {
    opened: usize,
    services: Vec<String>,
    acknowledged: u64,
    goaway: bool,
}

/// Serves `links` links of the window given. Joining it gives what each saw.
fn serve(links: usize, window: u32, wrong: Wrong) -> (String, JoinHandle<Vec<Seen>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let node = thread::spawn(move || {
        let serve = |_| {
            let (stream, _) = listener.accept().unwrap();
            thread::spawn(move || Node::greet(stream, window, wrong).run())
        };
        let links: Vec<_> = (0..links).map(serve).collect();
        links.into_iter().map(|link| link.join().unwrap()).collect()
    });
    (address, node)
}

impl Node {
    fn greet(mut stream: TcpStream, window: u32, wrong: Wrong) -> Self {
        let mut config = LinkConfig::new(Role::Node, "node", "00".repeat(16));
        config.window = window;
        config.resume_timeout = 30;
        let mut handshake = Handshake::new(config);
        stream.set_nodelay(true).unwrap();
        let mut byte = [0];
        while handshake.next(&mut &byte[..0]).unwrap() != Some(Step::Up { version: 2 }) {
            stream.read_exact(&mut byte).unwrap();
            if handshake.next(&mut &byte[..]).unwrap() == Some(Step::Hello) {
                let identity = Identity {
                    link: "test".into(),
                    token: "abcd".into(),
                    resumed: None,
                };
                let hello = handshake.answer(identity);
                stream.write_all(&hello.to_frame()).unwrap();
            }
        }
        Self {
            stream,
            link: handshake.finish(),
            wrong,
            connections: HashMap::new(),
            contents: 0,
            last: None,
            out: Vec::new(),
            seen: Seen::default(),
        }
    }

    fn run(mut self) -> Seen {
        let mut buffer = vec![0; 4096];
        Control::Ping { word: "p".into() }.put(&mut self.out);
        loop {
            // One that ends without having read all resets the connection: what it said before
            // that is still to be read.
            let _ = self.stream.write_all(&self.out);
            self.out.clear();
            let bytes = match self.stream.read(&mut buffer) {
                Err(error) if error.kind() == ErrorKind::ConnectionReset => 0,
                read => read.unwrap(),
            };
            if bytes == 0 {
                self.link.end_of_input().unwrap();
                return self.seen;
            }
            let mut rest = &buffer[..bytes];
            while let Some(event) = self.link.next(&mut rest).unwrap() {
                self.event(event);
            }
            if let Some(ack) = self.link.ack() {
                ack.put(&mut self.out);
            }
        }
    }

    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Open(open) => {
                self.seen.opened += 1;
                self.seen.services.push(open.service);
                let connection = (self.link.new_conn(), Vec::new());
                assert!(self.connections.insert(open.id, connection).is_none());
            }
            Event::Content { id, bytes } => self.content(id, bytes),
            Event::Window { id, bytes } => {
                let (conn, _) = self.connections.get_mut(&id).unwrap();
                conn.granted(bytes).unwrap();
                self.send(id);
            }
            Event::Ack { bytes } => self.seen.acknowledged = bytes,
            Event::Goaway { .. } => self.seen.goaway = true,
            Event::Pong { word } => assert_eq!(word, "p"),
            other => panic!("{other:?}"),
        }
    }

    fn content(&mut self, id: ConnectionId, bytes: &[u8]) {
        let (conn, waiting) = self.connections.get_mut(&id).unwrap();
        conn.receive(bytes.len() as u32)
            .expect("an edge keeps within its credit");
        if let Some(bytes) = conn.release(bytes.len() as u32, &NO_GROWTH) {
            Control::Window { id, bytes }.put(&mut self.out);
        }
        waiting.extend_from_slice(bytes);
        self.contents += 1;
        if self.contents == 10 {
            match self.wrong {
                Wrong::Nothing => {}
                Wrong::Damage => waiting[0] ^= 1,
                Wrong::Lose => waiting.clear(),
                Wrong::Misdeliver => {
                    let bytes = std::mem::take(waiting);
                    let last = self.last.unwrap();
                    self.connections.get_mut(&last).unwrap().1.extend(bytes);
                    self.send(last);
                }
                Wrong::Reset => {
                    self.connections.remove(&id);
                    let reason = CloseReason::Overload;
                    Control::Reset { id, reason }.put(&mut self.out);
                    return;
                }
            }
        }
        self.last = Some(id);
        self.send(id);
    }

    fn send(&mut self, id: ConnectionId) {
        let (conn, waiting) = self.connections.get_mut(&id).unwrap();
        let bytes = conn.take_credit(waiting.len() as u32) as usize;
        if bytes > 0 {
            put_frame(id, &waiting[..bytes], &mut self.out);
            waiting.drain(..bytes);
        }
    }
}

fn link(address: &str, options: &[&str]) -> (Report, bool) {
    let args = ["link", address, "--json"];
    report(&load(&args).args(options).output().unwrap())
}

#[test]
fn every_connection_is_opened_once_and_has_its_frames_back() {
    let (address, node) = serve(3, 16_384, Wrong::Nothing);
    let options = ["--connections", "1000", "--links", "3", "--rounds", "2"];
    let (report, well) = link(&address, &options);
    assert!(well && report.errors.is_empty(), "{report:?}");
    assert_eq!(report.opened, 1000);
    assert_eq!(report.rounds.len(), 2);
    for round in &report.rounds {
        assert_eq!((round.answered, round.latency.count), (1000, 1000));
    }
    let seen = node.join().unwrap();
    let opened: Vec<_> = seen.iter().map(|seen| seen.opened).collect();
    assert_eq!(opened, [334, 333, 333]);
    assert!(seen.iter().all(|seen| seen.goaway), "{seen:?}");
    // 333 connections' frames are over 64 KiB, after which an acknowledgement is due.
    assert!(seen.iter().all(|seen| seen.acknowledged >= 65_536));
    let services = seen.iter().flat_map(|seen| &seen.services);
    assert!(services.into_iter().all(|service| service == "echo"));
}

#[test]
fn frames_over_the_credit_wait_for_more() {
    // The node fails where it is sent more than it allowed.
    let (address, node) = serve(1, 1024, Wrong::Nothing);
    let options = ["--connections", "20", "--rounds", "2"];
    let payload = ["--payload", "50000", "--window", "2048"];
    let (report, well) = link(&address, &[&options[..], &payload].concat());
    assert!(well && report.rounds[1].answered == 20, "{report:?}");
    assert_eq!(node.join().unwrap()[0].opened, 20);
}

/// The errors when the node does one thing wrong to one of twenty frames in the opening.
fn one_wrong(wrong: Wrong) -> Vec<(String, u64)> {
    let (address, _node) = serve(1, 16_384, wrong);
    let options = ["--connections", "20", "--rounds", "0"];
    let patience = ["--patience", "300ms"];
    let (report, well) = link(&address, &[&options[..], &patience].concat());
    assert!(!well, "{report:?}");
    report.errors.into_iter().collect()
}

#[test]
fn what_the_node_does_wrong_is_found() {
    let error = |kind: &str| (kind.to_owned(), 1);
    assert_eq!(
        one_wrong(Wrong::Damage),
        [error("damaged"), error("unanswered")]
    );
    assert_eq!(
        one_wrong(Wrong::Misdeliver),
        [error("damaged"), error("unanswered")]
    );
    assert_eq!(one_wrong(Wrong::Lose), [error("unanswered")]);
    assert_eq!(one_wrong(Wrong::Reset), [error("reset: overload")]);
}

#[test]
fn it_says_where_it_stands_and_waits() {
    let (address, node) = serve(1, 16_384, Wrong::Nothing);
    let mut command = load(&["link", &address, "--json", "--pause"]);
    command.args(["--connections", "5", "--rounds", "1"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    assert_eq!(next(), "open");
    assert!(child.try_wait().unwrap().is_none());
    input.write_all(b"go\n").unwrap();
    assert_eq!(next(), "done");
    // The end of its input is as good as a line.
    drop(input);
    let report: Report = serde_json::from_str(&next()).unwrap();
    assert_eq!(report.rounds[0].answered, 5);
    assert!(child.wait().unwrap().success());
    assert!(node.join().unwrap()[0].goaway);
}

#[test]
fn who_does_not_speak_the_protocol_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
        let _ = stream.read(&mut [0]);
    });
    let output = load(&["link", &address]).output().unwrap();
    let text = errors(&output);
    assert!(!output.status.success());
    assert!(text.contains("the handshake failed: frame head"), "{text}");
}
