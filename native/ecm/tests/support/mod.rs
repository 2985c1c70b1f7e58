//! What the tests drive: the real binary on one side, and a backend that
//! speaks the link protocol with megaphone-proto on the other.
//!
//! Everything waits for an event (a log line, a frame, a byte) and fails
//! after [`PATIENCE`]; nothing sleeps.

#![allow(dead_code, reason = "each test file uses its own part of it")]

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use megaphone_proto::control::{CloseReason, Control, ErrorCode, Open};
use megaphone_proto::frame::put_frame;
use megaphone_proto::handshake::{Handshake, Identity, Step};
use megaphone_proto::{ConnectionId, Event, Link, LinkConfig, Role};
use rustix::process::{Pid, Signal, kill_process};

/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What the backend calls each link, and the token that it gives it.
const LINK: &str = "link-7";
const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const NONCE: &str = "00112233445566778899aabbccddeeff";

/// A running ECM. Killed when dropped.
pub struct Ecm {
    child: Child,
    stdin: Option<ChildStdin>,
    log: Receiver<String>,
    /// Where its listeners are, in the order of the configuration.
    pub listeners: Vec<SocketAddr>,
}

/// `config` for a backend at `address`, with one `http` and one `tcp`
/// listener, both on free ports, and a log of everything.
pub fn config(address: &str, lines: &str) -> String {
    format!(
        "{lines}\n[backend]\naddress = \"{address}\"\nreconnect_min = \"10ms\"\nreconnect_max = \"50ms\"\n\
         [[listeners]]\nlisten = \"127.0.0.1:0\"\nservice = \"web\"\nkind = \"http\"\n\
         [[listeners]]\nlisten = \"127.0.0.1:0\"\nservice = \"c2s\"\n\
         [log]\nlevel = \"debug\"\nformat = \"plain\"\n"
    )
}

/// The binary under test.
pub fn binary() -> Command {
    Command::new(env!("CARGO_BIN_EXE_megaphone-ecm"))
}

/// A file of its own that holds `text`, gone when dropped.
pub fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

impl Ecm {
    /// Starts it with `config` in a file, and waits for its listeners.
    pub fn start(config: &str) -> Self {
        let file = file(config);
        let mut command = binary();
        command
            .arg("--config")
            .arg(file.path())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = lines(child.stderr.take().unwrap());
        let mut ecm = Self {
            child,
            stdin: None,
            log,
            listeners: Vec::new(),
        };
        ecm.wait_for_listeners(config);
        ecm
    }

    /// Starts it as a port program.
    pub fn start_port(config: &str) -> Self {
        let mut command = binary();
        command
            .arg("--port-program")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = lines(child.stdout.take().unwrap());
        let mut stdin = child.stdin.take().unwrap();
        stdin
            .write_all(&(config.len() as u32).to_be_bytes())
            .unwrap();
        stdin.write_all(config.as_bytes()).unwrap();
        let mut ecm = Self {
            child,
            stdin: Some(stdin),
            log,
            listeners: Vec::new(),
        };
        ecm.wait_for_listeners(config);
        ecm
    }

    fn wait_for_listeners(&mut self, config: &str) {
        let services = config
            .lines()
            .filter_map(|line| line.strip_prefix("service = \""));
        let mut lines = Vec::new();
        let wanted: Vec<_> = services
            .map(|s| format!(" service={}", s.trim_end_matches('"')))
            .collect();
        while lines.len() < wanted.len() {
            lines.push(self.line("listening on "));
        }
        for service in wanted {
            let line = lines
                .iter()
                .find(|line| line.ends_with(&service))
                .expect("each service once");
            let address = line.trim_end_matches(&service).rsplit_once(' ').unwrap().1;
            self.listeners.push(address.parse().unwrap());
        }
    }

    /// A client of the `http` listener.
    pub fn web_client(&self) -> TcpStream {
        client(self.listeners[0])
    }

    /// A client of the `tcp` listener.
    pub fn tcp_client(&self) -> TcpStream {
        client(self.listeners[1])
    }

    /// Waits for a log line that contains `part`, skipping others.
    pub fn line(&self, part: &str) -> String {
        self.lines([part]).remove(0)
    }

    /// Waits for a log line for each of `parts`, which may come in any order,
    /// skipping others.
    pub fn lines<const N: usize>(&self, parts: [&str; N]) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut found = [const { None }; N];
        let mut skipped = Vec::new();
        while found.iter().any(Option::is_none) {
            let patience = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.log.recv_timeout(patience) else {
                panic!("no log line with {parts:?} after\n{}", skipped.join("\n"));
            };
            let matches = |n: &usize| found[*n].is_none() && line.contains(parts[*n]);
            match (0..N).find(matches) {
                Some(n) => found[n] = Some(line),
                None => skipped.push(line),
            }
        }
        found.into_iter().flatten().collect()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid() as i32).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Sends SIGUSR1 and waits for the line of all.
    pub fn status(&self) -> String {
        self.signal(Signal::USR1);
        self.line("info status ")
    }

    /// Asks for its status until that has `part`.
    pub fn wait_for_status(&self, part: &str) {
        while !self.status().contains(part) {}
    }

    /// What `connect` makes, with the ECM stopped meanwhile: it sees all that
    /// at once, however slow this test is.
    pub fn at_once<T>(&self, connect: impl FnOnce() -> T) -> T {
        self.signal(Signal::STOP);
        let connected = connect();
        self.signal(Signal::CONT);
        connected
    }

    /// Closes its stdin.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Waits until it has ended, and returns its status.
    pub fn exit_code(&mut self) -> Option<i32> {
        // Its log ends when it does.
        while let Ok(line) = self.log.recv_timeout(PATIENCE) {
            drop(line);
        }
        self.child.wait().unwrap().code()
    }
}

impl Drop for Ecm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            // With --nocapture, or when the test fails.
            println!("ecm: {line}");
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// A client at `address`, impatient like all here.
pub fn client(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Reads until the end of the stream.
pub fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    all
}

/// Reads exactly `bytes`.
pub fn read_exact(stream: &mut impl Read, bytes: usize) -> Vec<u8> {
    let mut all = vec![0; bytes];
    stream.read_exact(&mut all).unwrap();
    all
}

/// A listener for links, as ejabberd has one.
pub struct Backend {
    listener: TcpListener,
}

impl Backend {
    /// One on a free port.
    pub fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        // accept(2) is as patient as that, see socket(7).
        let socket = socket2::SockRef::from(&listener);
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { listener }
    }

    /// `IP:PORT`.
    pub fn address(&self) -> String {
        self.listener.local_addr().unwrap().to_string()
    }

    /// Takes the next link and answers its hello, as a backend that resumes
    /// no links.
    pub fn accept(&self) -> Node {
        self.accept_with(|_| {})
    }

    /// As [`Backend::accept`], having changed what the backend says.
    pub fn accept_with(&self, change: impl FnOnce(&mut LinkConfig)) -> Node {
        let mut config = LinkConfig::new(Role::Node, "test-node", NONCE);
        change(&mut config);
        let mut greeting = Greeting::new(self.accept_raw(), config);
        assert_eq!(greeting.step(), Step::Hello);
        greeting.answer(None);
        greeting.up(2)
    }

    /// As [`Backend::accept`], of a link that the backend keeps for 60 s.
    pub fn accept_kept(&self) -> Node {
        self.accept_with(|config| config.resume_timeout = 60)
    }

    /// Takes the next link, which must be `node`'s that was cut, and goes on
    /// with it where the node is.
    pub fn resume(&self, node: &mut Node) {
        let mut greeting = self.asked_for(node);
        greeting.answer(Some(node.protocol.received()));
        node.go_on(greeting);
    }

    /// Takes the next link, which must ask for `node`'s that was cut.
    pub fn asked_for(&self, node: &Node) -> Greeting {
        let mut greeting = Greeting::new(self.accept_raw(), node.config.clone());
        assert_eq!(greeting.step(), Step::Hello);
        let hello = greeting.handshake.peer().unwrap();
        assert_eq!(hello.resume.as_deref(), Some(LINK));
        assert_eq!(hello.token.as_deref(), Some(TOKEN));
        greeting
    }

    /// Takes the next link, which speaks version 1. It is for a client to say
    /// something before: that is what such a link begins with.
    pub fn accept_v1(&self) -> Node {
        let config = LinkConfig::new(Role::Node, "test-node", NONCE);
        Greeting::new(self.accept_raw(), config).up(1)
    }

    /// Takes the next connection.
    pub fn accept_raw(&self) -> TcpStream {
        let (stream, _) = self.listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }
}

/// A port that nobody listens on, and that nobody else gets meanwhile.
pub struct Nobody {
    bound: socket2::Socket,
}

impl Nobody {
    pub fn new() -> Self {
        let bound = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let bound = bound.unwrap();
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        bound.bind(&any.into()).unwrap();
        Self { bound }
    }

    /// `IP:PORT`.
    pub fn address(&self) -> String {
        let address = self.bound.local_addr().unwrap();
        address.as_socket().unwrap().to_string()
    }
}

/// The beginning of ejabberd's end of one link.
pub struct Greeting {
    stream: TcpStream,
    /// What was said.
    pub handshake: Handshake,
    config: LinkConfig,
    unread: Vec<u8>,
}

/// ejabberd's end of one link, over all its transports.
pub struct Node {
    stream: TcpStream,
    protocol: Link,
    config: LinkConfig,
    peer: Option<megaphone_proto::control::Hello>,
    unread: Vec<u8>,
    /// All frames that were sent since the handshake.
    sent: Vec<u8>,
    /// Pings that came.
    pub pings: usize,
    /// Whether they are answered.
    pub alive: bool,
    /// Acknowledgements that came.
    pub acks: Vec<u64>,
}

/// An [`Event`] that owns what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Got {
    Content(ConnectionId, Vec<u8>),
    End(ConnectionId),
    Open(Box<Open>),
    Window(ConnectionId, u32),
    Close(ConnectionId, CloseReason),
    Reset(ConnectionId, CloseReason),
    Goaway(CloseReason),
    Error(ErrorCode, String),
    /// The link's stream has ended.
    Eof,
}

impl Greeting {
    fn new(stream: TcpStream, config: LinkConfig) -> Self {
        Self {
            stream,
            handshake: Handshake::new(config.clone()),
            config,
            unread: Vec::new(),
        }
    }

    /// The next step of the handshake.
    pub fn step(&mut self) -> Step {
        loop {
            let mut input = self.unread.as_slice();
            let step = self.handshake.next(&mut input).unwrap();
            let used = self.unread.len() - input.len();
            self.unread.drain(..used);
            if let Some(step) = step {
                return step;
            }
            let more = read_some(&mut self.stream);
            assert!(!more.is_empty(), "the link ended in its handshake");
            self.unread.extend(more);
        }
    }

    /// Answers the hello, saying how many bytes of the old link it has.
    pub fn answer(&mut self, resumed: Option<u64>) {
        let identity = Identity {
            link: LINK.to_owned(),
            token: TOKEN.to_owned(),
            resumed,
        };
        let hello = self.handshake.answer(identity).to_frame();
        self.stream.write_all(&hello).unwrap();
    }

    /// Waits for the end of the handshake.
    pub fn up(mut self, version: u32) -> Node {
        assert_eq!(self.step(), Step::Up { version });
        Node {
            stream: self.stream,
            peer: self.handshake.peer().cloned(),
            protocol: self.handshake.finish(),
            config: self.config,
            unread: self.unread,
            sent: Vec::new(),
            pings: 0,
            alive: false,
            acks: Vec::new(),
        }
    }
}

impl Node {
    /// The stream itself.
    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// What the ECM said of itself.
    pub fn peer(&self) -> &megaphone_proto::control::Hello {
        self.peer.as_ref().unwrap()
    }

    /// Bytes of the ECM's frames that it has.
    pub fn received(&self) -> u64 {
        self.protocol.received()
    }

    /// Cuts the transport. What came and was not asked for by
    /// [`Node::next`] is lost with it.
    pub fn cut(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
        self.unread.clear();
    }

    /// Cuts the transport so that the ECM sees a reset.
    pub fn reset(&mut self) {
        let socket = socket2::SockRef::from(&self.stream);
        socket.set_linger(Some(Duration::ZERO)).unwrap();
        // Something has to stand in its place until the next.
        let nowhere = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        self.stream = TcpStream::connect(nowhere.local_addr().unwrap()).unwrap();
        self.unread.clear();
    }

    /// Goes on over another transport: sends again what the ECM lacks.
    pub fn go_on(&mut self, mut greeting: Greeting) {
        let received = greeting.handshake.peer().unwrap().received.unwrap();
        assert_eq!(greeting.step(), Step::Up { version: 2 });
        let again = &self.sent[received as usize..];
        greeting.stream.write_all(again).unwrap();
        self.stream = greeting.stream;
        self.unread = greeting.unread;
    }

    /// The next event that is no ping, pong or ack.
    pub fn next(&mut self) -> Got {
        loop {
            match self.try_next() {
                Some(got) => return got,
                None => match read_some(&mut self.stream) {
                    more if more.is_empty() => return Got::Eof,
                    more => self.unread.extend(more),
                },
            }
        }
    }

    /// The next of the events that were read already.
    fn try_next(&mut self) -> Option<Got> {
        loop {
            let mut input = self.unread.as_slice();
            let event = self.protocol.next(&mut input).unwrap();
            let mut pong = None;
            let got = match event {
                None => None,
                Some(Event::Ping { word }) => {
                    self.pings += 1;
                    pong = Some(Control::Pong { word });
                    None
                }
                Some(Event::Ack { bytes }) => {
                    self.acks.push(bytes);
                    None
                }
                Some(event) => Got::from_event(event),
            };
            let used = self.unread.len() - input.len();
            self.unread.drain(..used);
            if let Some(pong) = pong.filter(|_| self.alive) {
                self.say(&pong);
            }
            if got.is_some() || self.unread.is_empty() {
                return got;
            }
        }
    }

    /// Takes in exactly `bytes` of what comes, and returns what that was.
    pub fn take(&mut self, bytes: usize) -> Vec<Got> {
        let known = bytes.min(self.unread.len());
        let rest = self.unread.split_off(known);
        let more = read_exact(&mut self.stream, bytes - known);
        self.unread.extend(more);
        let taken = std::iter::from_fn(|| self.try_next()).collect();
        self.unread = rest;
        taken
    }

    /// Waits for another ping, skipping acknowledgements and pongs.
    pub fn pinged(&mut self) {
        let pings = self.pings;
        loop {
            assert_eq!(self.try_next(), None);
            if self.pings > pings {
                return;
            }
            let more = read_some(&mut self.stream);
            assert!(!more.is_empty(), "the link ended");
            self.unread.extend(more);
        }
    }

    /// Waits for an acknowledgement of at least `bytes`, skipping all else.
    pub fn acked(&mut self, bytes: u64) {
        loop {
            while self.try_next().is_some() {}
            if self.acks.last().is_some_and(|acked| *acked >= bytes) {
                return;
            }
            let more = read_some(&mut self.stream);
            assert!(!more.is_empty(), "the link ended");
            self.unread.extend(more);
        }
    }

    /// The next event, which must be an `open`, but for content and credit
    /// that crossed a close.
    pub fn opened(&mut self) -> Open {
        loop {
            match self.next() {
                Got::Open(open) => return *open,
                Got::Content(..) | Got::Window(..) => {}
                other => panic!("{other:?} and not an open"),
            }
        }
    }

    /// Collects content of `id` until it has `bytes` of it.
    pub fn content(&mut self, id: ConnectionId, bytes: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while all.len() < bytes {
            match self.next() {
                Got::Content(from, content) if from == id => all.extend(content),
                Got::Window(..) => {}
                other => panic!(
                    "{other:?} and not content of {id}, after {} bytes",
                    all.len()
                ),
            }
        }
        all
    }

    /// Sends a control message.
    pub fn say(&mut self, message: &Control) {
        let frame = message.to_frame();
        self.send_part(&frame, frame.len());
    }

    /// Sends one frame.
    pub fn send(&mut self, id: ConnectionId, content: &[u8]) {
        let frame = frame(id, content);
        self.send_part(&frame, frame.len());
    }

    /// Sends the beginning of `frame`. The rest is what it sends first over
    /// its next transport, and so is all of it where this one is dead already.
    pub fn send_part(&mut self, frame: &[u8], bytes: usize) {
        self.sent.extend(frame);
        let _ = self.stream.write_all(&frame[..bytes]);
    }

    /// Bytes of frames that it has sent, or would have.
    pub fn sent(&self) -> u64 {
        self.sent.len() as u64
    }

    /// Acknowledges all that came.
    pub fn ack(&mut self) {
        let bytes = self.received();
        self.say(&Control::Ack { bytes });
    }

    /// Grants credit.
    pub fn grant(&mut self, id: ConnectionId, bytes: u32) {
        self.say(&Control::Window { id, bytes });
    }
}

impl Got {
    fn from_event(event: Event<'_>) -> Option<Self> {
        Some(match event {
            Event::Content { id, bytes } => Self::Content(id, bytes.to_vec()),
            Event::End { id } => Self::End(id),
            Event::Open(open) => Self::Open(open),
            Event::Window { id, bytes } => Self::Window(id, bytes),
            Event::Close { id, reason } => Self::Close(id, reason),
            Event::Reset { id, reason } => Self::Reset(id, reason),
            Event::Goaway { reason, .. } => Self::Goaway(reason),
            Event::PeerError { code, text } => Self::Error(code, text),
            Event::Ping { .. } | Event::Pong { .. } | Event::Ack { .. } => {
                return None;
            }
        })
    }
}

/// One frame.
pub fn frame(id: ConnectionId, content: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    put_frame(id, content, &mut frame);
    frame
}

/// What can be read now, or next; nothing at the end of the stream, however
/// it ended.
fn read_some(stream: &mut TcpStream) -> Vec<u8> {
    let mut buffer = vec![0; 65_536];
    match stream.read(&mut buffer) {
        Ok(bytes) => buffer.truncate(bytes),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => buffer.clear(),
        Err(error) => panic!("nothing came over the link: {error}"),
    }
    buffer
}

/// An ECM with one link to a backend, and the backend's end of it.
pub fn linked(lines: &str) -> (Ecm, Backend, Node) {
    let backend = Backend::new();
    let ecm = Ecm::start(&config(&backend.address(), lines));
    let node = backend.accept();
    ecm.line("link 1 up to ");
    (ecm, backend, node)
}

/// As [`linked`], by a link that the backend keeps when it drops.
pub fn kept(lines: &str) -> (Ecm, Backend, Node) {
    let backend = Backend::new();
    let ecm = Ecm::start(&config(&backend.address(), lines));
    let node = backend.accept_kept();
    ecm.line("link 1 up to ");
    (ecm, backend, node)
}

/// Bytes that depend on `seed`, to see that they come whole and in order.
pub fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..bytes).map(|_| next()).collect()
}
