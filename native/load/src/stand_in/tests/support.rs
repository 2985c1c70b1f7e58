//! A stand-in in this process, and a client that says and hears text.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use tokio::runtime::{Builder, Runtime};

use super::super::report::Report;
use super::super::server::Server;
use super::super::{Args, start};

/// For what must come: only a test that fails waits so long.
pub const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

/// A stand-in that serves as long as this lives.
pub struct StandIn {
    _runtime: Runtime,
    server: Arc<Server>,
    pub address: SocketAddr,
}

impl StandIn {
    /// With one listener, and these arguments else.
    pub fn start(transport: &str, more: &[&str]) -> Self {
        let listener = format!("--{transport}=127.0.0.1:0");
        let words = ["stand-in", &listener].into_iter();
        let cli = Cli::parse_from(words.chain(more.iter().copied()));
        let mut runtime = Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
        let (server, listeners) = {
            let _inside = runtime.enter();
            start(&cli.args).unwrap()
        };
        assert_eq!(listeners[0].0, transport);
        Self {
            server,
            address: listeners[0].1,
            _runtime: runtime,
        }
    }

    pub fn report(&self) -> Report {
        self.server.report()
    }
}

/// A connection that carries text.
pub struct Client {
    pub socket: TcpStream,
    heard: String,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        Self {
            socket,
            heard: String::new(),
        }
    }

    pub fn say(&mut self, text: &str) {
        self.socket.write_all(text.as_bytes()).unwrap();
    }

    /// Waits until `end` has come; the answer is all up to and with it.
    pub fn hear(&mut self, end: &str) -> String {
        loop {
            if let Some(at) = self.heard.find(end) {
                let rest = self.heard.split_off(at + end.len());
                return std::mem::replace(&mut self.heard, rest);
            }
            assert!(self.read() > 0, "closed before {end:?}: {:?}", self.heard);
        }
    }

    /// Waits until the server closes; the answer is what came before.
    pub fn hear_end(&mut self) -> String {
        while self.read() > 0 {}
        std::mem::take(&mut self.heard)
    }

    /// An HTTP response's body.
    pub fn hear_http(&mut self) -> String {
        let head = self.hear("\r\n\r\n");
        let (_, length) = head.split_once("Content-Length: ").unwrap();
        let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
        while self.heard.len() < length {
            assert!(self.read() > 0);
        }
        let rest = self.heard.split_off(length);
        std::mem::replace(&mut self.heard, rest)
    }

    fn read(&mut self) -> usize {
        let mut buffer = [0; 4096];
        let read = self
            .socket
            .read(&mut buffer)
            .expect("something within the patience");
        let text = str::from_utf8(&buffer[..read]).unwrap();
        self.heard.push_str(text);
        read
    }
}

/// The text between two others.
pub fn between<'a>(text: &'a str, before: &str, behind: &str) -> &'a str {
    let start = text.find(before).expect(text) + before.len();
    let length = text[start..].find(behind).expect(text);
    &text[start..start + length]
}
