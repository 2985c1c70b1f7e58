use std::collections::BTreeMap;

use clap::Parser;
use megaphone_proto::control::Open;

use super::super::{Args, server};
use super::*;
use crate::stand_in::http::OK;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

/// A link, and the edge's side of it.
struct Edge {
    node: NodeLink,
    runtime: tokio::runtime::Runtime,
    link: Option<Link>,
    /// To be sent.
    out: Vec<u8>,
    /// What came, by connection; an end is `$`.
    came: BTreeMap<u64, String>,
    windows: u32,
    resets: Vec<u64>,
}

const WINDOW: u32 = 100;

impl Edge {
    fn new(version: u32) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let server = {
            let _inside = runtime.enter();
            Arc::new(server(&Cli::parse_from(["stand-in"]).args))
        };
        let mut edge = Self {
            node: NodeLink::new(&server),
            runtime,
            link: None,
            out: Vec::new(),
            came: BTreeMap::new(),
            windows: 0,
            resets: Vec::new(),
        };
        let mut handshake = Handshake::new(LinkConfig {
            version,
            window: WINDOW,
            ..LinkConfig::new(Role::Edge, "edge", "00")
        });
        if let Some(hello) = handshake.hello() {
            hello.put(&mut edge.out);
        }
        let answer = edge.exchange_bytes();
        let up = handshake.next(&mut &answer[..]);
        assert_eq!(up, Ok(Some(Step::Up { version })));
        edge.link = Some(handshake.finish());
        edge
    }

    fn open(&mut self, id: u64, service: &str) {
        Control::Open(Open {
            id: ConnectionId::new(id),
            service: service.to_owned(),
            peer: "192.0.2.1:5".parse().unwrap(),
            local: "192.0.2.2:5".parse().unwrap(),
            tls: None,
        })
        .put(&mut self.out);
    }

    fn send(&mut self, id: u64, content: &str) {
        put_frame(ConnectionId::new(id), content.as_bytes(), &mut self.out);
    }

    fn grant(&mut self, id: u64, bytes: u32) {
        let id = ConnectionId::new(id);
        Control::Window { id, bytes }.put(&mut self.out);
    }

    /// Sends what is to be sent, in pieces of 7 bytes, and takes what comes back.
    fn exchange_bytes(&mut self) -> Vec<u8> {
        let _inside = self.runtime.enter();
        let mut answer = Vec::new();
        for piece in std::mem::take(&mut self.out).chunks(7) {
            self.node.hear(piece, &mut answer).unwrap();
        }
        answer
    }

    fn exchange(&mut self) {
        let answer = self.exchange_bytes();
        let (mut input, link) = (&answer[..], self.link.as_mut().unwrap());
        while let Some(event) = link.next(&mut input).unwrap() {
            match event {
                Event::Content { id, bytes } => {
                    let text = str::from_utf8(bytes).unwrap();
                    self.came.entry(id.get()).or_default().push_str(text);
                }
                Event::End { id } => self.came.entry(id.get()).or_default().push('$'),
                Event::Window { bytes, .. } => self.windows += bytes,
                Event::Reset { id, .. } => self.resets.push(id.get()),
                Event::Pong { word } => assert_eq!(word, "w"),
                other => panic!("{other:?}"),
            }
        }
    }

    fn came(&mut self, id: u64) -> String {
        self.came.remove(&id).unwrap_or_default()
    }
}

fn ok() -> &'static str {
    str::from_utf8(OK).unwrap()
}

const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";

#[test]
fn requests_are_answered_and_echoes_come_back() {
    let mut edge = Edge::new(2);
    edge.open(1, "http");
    edge.open(2, "echo");
    edge.send(1, GET);
    edge.send(2, "hello");
    Control::Ping { word: "w".into() }.put(&mut edge.out);
    edge.exchange();
    assert_eq!((edge.came(1), edge.came(2)), (ok().into(), "hello".into()));

    edge.send(
        1,
        "POST / HTTP/1.1\r\nContent-Length: 3\r\nConnection: close\r\n\r\nab",
    );
    edge.exchange();
    assert_eq!(edge.came(1), "");
    edge.grant(1, WINDOW);
    edge.send(1, "c");
    edge.send(2, "");
    edge.exchange();
    assert_eq!(
        (edge.came(1), edge.came(2)),
        (format!("{}$", ok()), "$".into())
    );
    let report = edge.node.server.report();
    assert_eq!((report.links, report.virtual_connections), (1, 2));
    assert_eq!(report.requests, 2);
}

#[test]
fn nothing_is_sent_without_credit_and_an_echo_takes_only_what_it_gave_back() {
    let mut edge = Edge::new(2);
    edge.open(1, "http");
    edge.open(2, "echo");
    edge.send(1, &GET.repeat(5));
    let much: String = ('a'..='z').cycle().take(16_384).collect();
    edge.send(2, &much);
    edge.send(2, "");
    edge.exchange();
    let (mut answers, mut echo) = (edge.came(1), edge.came(2));
    assert_eq!(
        (answers.len(), echo.len()),
        (WINDOW as usize, WINDOW as usize)
    );
    assert_eq!(edge.windows, 0);
    while echo.len() < much.len() {
        edge.grant(1, 7);
        edge.grant(2, 5000);
        edge.exchange();
        answers += &edge.came(1);
        echo += &edge.came(2);
    }
    assert_eq!(echo, format!("{much}$"));
    assert!(ok().repeat(5).starts_with(&answers) && answers.len() > WINDOW as usize);
}

#[test]
fn an_echo_that_gave_much_back_grants_as_much() {
    let mut edge = Edge::new(2);
    edge.open(2, "echo");
    edge.grant(2, 1 << 20);
    for _ in 0..10 {
        edge.send(2, &"x".repeat(8192));
        edge.exchange();
    }
    assert_eq!((edge.came(2).len(), edge.windows), (81_920, 81_920));
}

#[test]
fn nonsense_resets_its_connection_alone() {
    let mut edge = Edge::new(2);
    edge.open(1, "http");
    edge.open(2, "http");
    edge.open(3, "echo");
    edge.open(3, "echo");
    edge.send(1, "\x16\x03\x01");
    edge.send(2, GET);
    edge.exchange();
    assert_eq!(edge.resets, [3, 1]);
    assert_eq!(edge.came(2), ok());
    let mut broken = &b"nonsense that is no frame's head."[..];
    let heard = edge.node.hear(broken, &mut Vec::new());
    assert!(heard.is_err());
    broken = b"";
    assert!(edge.node.hear(broken, &mut Vec::new()).is_err());
}

#[test]
fn version_1_is_answered_too() {
    let mut edge = Edge::new(1);
    edge.send(1, GET);
    edge.send(2, &GET[..5]);
    edge.exchange();
    edge.send(1, "");
    edge.send(2, &GET[5..]);
    edge.exchange();
    assert_eq!(
        (edge.came(1), edge.came(2)),
        (format!("{}$", ok()), ok().into())
    );
}
