//! The node's side of a megaphone link (docs/protocol.md): every virtual connection is HTTP and
//! answered `ok`, or an echo where the service is named so.

use std::sync::Arc;
use std::time::Duration;

use megaphone_proto::conn::{Conn, ConnError, State};
use megaphone_proto::control::{CloseReason, Control};
use megaphone_proto::credit::NO_GROWTH;
use megaphone_proto::frame::{ConnectionId, put_frame};
use megaphone_proto::handshake::{Identity, Step};
use megaphone_proto::limits::{MAX_CONNECTIONS_DEFAULT, RESUME_TIMEOUT_DEFAULT};
use megaphone_proto::table::{OpenError, Table};
use megaphone_proto::{Event, Handshake, Link, LinkConfig, LinkError, Role};
use tokio::time::Instant;

use super::http::{self, OK};
use super::report::count;
use super::server::Server;
use super::wire::{Protocol, Wire, Wrong};

/// The service whose connections echo.
const ECHO: &str = "echo";

/// Bytes that may wait on a link: a kilobyte of answers to each of a million connections.
const LINK_WAITING_MAX: usize = 1 << 30;

/// Bytes of a request that is not whole.
const REQUEST_MAX: usize = 64 * 1024;

/// How often what came is acknowledged, at least (docs/protocol.md, "Resume"). No link is resumed
/// here, but an edge is to have the work of one that could be.
const ACK_INTERVAL: Duration = Duration::from_secs(1);

/// One link.
#[derive(Debug)]
pub struct NodeLink {
    server: Arc<Server>,
    phase: Phase,
    acknowledge_at: Instant,
}

#[derive(Debug)]
enum Phase {
    Greeting(Box<Handshake>),
    Up(Box<Up>),
}

impl NodeLink {
    /// A link on which nothing has come.
    pub fn new(server: &Arc<Server>) -> Self {
        let nonce = format!("{:032x}", fastrand::u128(..));
        let config = LinkConfig {
            resume_timeout: RESUME_TIMEOUT_DEFAULT,
            ..LinkConfig::new(Role::Node, "stand-in", nonce)
        };
        Self {
            server: Arc::clone(server),
            phase: Phase::Greeting(Box::new(Handshake::new(config))),
            acknowledge_at: Instant::now() + ACK_INTERVAL,
        }
    }

    fn hear(&mut self, mut input: &[u8], out: &mut Vec<u8>) -> Result<(), LinkError> {
        while let Phase::Greeting(handshake) = &mut self.phase {
            match handshake.next(&mut input)? {
                None => return Ok(()),
                Some(Step::Hello) => {
                    let identity = Identity {
                        link: self.server.fresh(),
                        token: format!("{:032x}", fastrand::u128(..)),
                        resumed: None,
                    };
                    handshake.answer(identity).put(out);
                }
                Some(Step::Up { .. }) => {
                    count(&self.server.counts.links);
                    let link = Handshake::clone(handshake).finish();
                    self.phase = Phase::Up(Box::new(Up {
                        server: Arc::clone(&self.server),
                        max_content: link.max_content_to_send() as usize,
                        link,
                        table: Table::new(MAX_CONNECTIONS_DEFAULT),
                    }));
                }
            }
        }
        match &mut self.phase {
            Phase::Up(up) => up.hear(input, out),
            Phase::Greeting(_) => Ok(()),
        }
    }

    fn hears_errors(&self) -> bool {
        match &self.phase {
            Phase::Greeting(handshake) => handshake.hears_errors(),
            Phase::Up(up) => up.link.hears_errors(),
        }
    }
}

impl Protocol for NodeLink {
    fn waiting_max(&self) -> usize {
        LINK_WAITING_MAX
    }

    fn take(&mut self, input: &mut [u8], wire: &Arc<Wire>) -> Result<usize, Wrong> {
        let mut out = Vec::new();
        let heard = self.hear(input, &mut out);
        if let Err(error) = &heard
            && self.hears_errors()
        {
            error.to_control().put(&mut out);
        }
        if let Phase::Up(up) = &mut self.phase
            && let Some(ack) = up.link.ack()
        {
            ack.put(&mut out);
        }
        wire.send(&out);
        heard.map(|()| input.len()).map_err(|_| Wrong)
    }

    fn deadline(&self) -> Option<Instant> {
        Some(self.acknowledge_at)
    }

    fn lapse(&mut self, wire: &Arc<Wire>) {
        if let Phase::Up(up) = &mut self.phase
            && let Some(ack) = up.link.ack_tick()
        {
            wire.send(&ack.to_frame());
        }
        self.acknowledge_at = Instant::now() + ACK_INTERVAL;
    }
}

/// A link that is up.
#[derive(Debug)]
struct Up {
    server: Arc<Server>,
    link: Link,
    table: Table<Client>,
    /// The largest frame's content, in bytes.
    max_content: usize,
}

/// One virtual connection. Kept small: there may be a million.
#[derive(Debug)]
struct Client {
    conn: Conn,
    echo: bool,
    /// What a quiet connection has not.
    rest: Option<Box<Rest>>,
}

#[derive(Debug, Default)]
struct Rest {
    /// The beginning of a request.
    request: Vec<u8>,
    /// What waits for credit.
    answer: Vec<u8>,
    /// Nothing is to be said after that.
    ending: bool,
}

/// What is to be done about a connection.
enum Then {
    GoOn,
    /// Both directions have ended.
    Forget,
    /// The client does what it must not.
    Reset,
}

impl Up {
    fn hear(&mut self, mut input: &[u8], out: &mut Vec<u8>) -> Result<(), LinkError> {
        while let Some(event) = self.link.next(&mut input)? {
            match event {
                Event::Open(open) => self.open(open.id, open.service == ECHO, out),
                Event::Content { id, bytes } => self.content(id, bytes, out)?,
                Event::End { id } => self.ended(id, out),
                Event::Window { id, bytes } => {
                    let max = self.max_content;
                    if let Some(client) = self.table.get_mut(&id) {
                        let granted = client.conn.granted(bytes);
                        granted.map_err(|error| credit(id, error))?;
                        let then = client.flush(id, max, out);
                        self.then(id, then, out);
                    }
                }
                Event::Close { id, .. } | Event::Reset { id, .. } => drop(self.table.remove(id)),
                Event::Ping { word } => Control::Pong { word }.put(out),
                // The link goes on until its transport ends.
                Event::Goaway { .. } | Event::PeerError { .. } => {}
                Event::Pong { .. } | Event::Ack { .. } => {}
            }
        }
        Ok(())
    }

    fn open(&mut self, id: ConnectionId, echo: bool, out: &mut Vec<u8>) {
        let client = Client {
            conn: self.link.new_conn(),
            echo,
            rest: None,
        };
        match self.table.open(id, client) {
            Ok(()) => count(&self.server.counts.virtual_connections),
            Err(OpenError::Duplicate) => self.then(id, Then::Reset, out),
            Err(OpenError::Buried) => {}
            Err(OpenError::Full { .. }) => {
                let reason = CloseReason::Limit;
                Control::Close { id, reason }.put(out);
            }
        }
    }

    fn content(
        &mut self,
        id: ConnectionId,
        bytes: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), LinkError> {
        if self.link.version() == 1 && self.table.may_open(id).is_ok() {
            self.open(id, false, out);
        }
        let Some(client) = self.table.get_mut(&id) else {
            return Ok(());
        };
        let then = match client.conn.receive(bytes.len() as u32) {
            Ok(()) if client.echo => {
                client.put(id, bytes, self.max_content, out);
                Then::GoOn
            }
            Ok(()) => {
                if let Some(bytes) = client.conn.release(bytes.len() as u32, &NO_GROWTH) {
                    Control::Window { id, bytes }.put(out);
                }
                client.requests(id, bytes, self.max_content, &self.server, out)
            }
            Err(ConnError::AfterEnd) => Then::Reset,
            Err(error) => return Err(credit(id, error)),
        };
        self.then(id, then, out);
        Ok(())
    }

    fn ended(&mut self, id: ConnectionId, out: &mut Vec<u8>) {
        self.table.unbury(id);
        let Some(client) = self.table.get_mut(&id) else {
            return;
        };
        let then = match client.conn.peer_ended() {
            Ok(State::Closed) => Then::Forget,
            Ok(_) => {
                client.rest.get_or_insert_default().ending = true;
                client.flush(id, self.max_content, out)
            }
            Err(_) => Then::Reset,
        };
        self.then(id, then, out);
    }

    fn then(&mut self, id: ConnectionId, then: Then, out: &mut Vec<u8>) {
        match then {
            Then::GoOn => {}
            Then::Forget => drop(self.table.remove(id)),
            Then::Reset => {
                let client = self.table.remove(id);
                if self.link.version() == 1 {
                    put_frame(id, b"", out);
                    if client.is_some_and(|client| client.conn.may_receive()) {
                        self.table.bury(id);
                    }
                } else {
                    let reason = CloseReason::ProtocolError;
                    Control::Reset { id, reason }.put(out);
                }
            }
        }
    }
}

impl Client {
    /// Answers the requests that are whole now.
    fn requests(
        &mut self,
        id: ConnectionId,
        bytes: &[u8],
        max: usize,
        server: &Server,
        out: &mut Vec<u8>,
    ) -> Then {
        let begun = self.rest.as_deref_mut().map(|rest| &mut rest.request);
        let begun = begun.map(std::mem::take).filter(|begun| !begun.is_empty());
        let joined = begun.map(|begun| [&begun, bytes].concat());
        let mut input = joined.as_deref().unwrap_or(bytes);
        loop {
            match http::request(input) {
                Ok(Some(request)) => {
                    input = &input[request.bytes..];
                    count(&server.counts.requests);
                    self.put(id, OK, max, out);
                    if request.close {
                        self.rest.get_or_insert_default().ending = true;
                        return self.flush(id, max, out);
                    }
                }
                Ok(None) if input.len() <= REQUEST_MAX => break,
                Ok(None) | Err(Wrong) => return Then::Reset,
            }
        }
        if !input.is_empty() {
            self.rest.get_or_insert_default().request = input.to_vec();
        }
        Then::GoOn
    }

    /// Sends `bytes` behind all else, as far as there is credit; the rest waits.
    fn put(&mut self, id: ConnectionId, bytes: &[u8], max: usize, out: &mut Vec<u8>) {
        let waits = self
            .rest
            .as_ref()
            .is_some_and(|rest| !rest.answer.is_empty());
        let now = if waits {
            0
        } else {
            self.send(id, bytes, max, out)
        };
        if now < bytes.len() {
            let rest = self.rest.get_or_insert_default();
            rest.answer.extend_from_slice(&bytes[now..]);
        }
    }

    /// Sends what waits, as far as there is credit, and then the end where that is due.
    fn flush(&mut self, id: ConnectionId, max: usize, out: &mut Vec<u8>) -> Then {
        let Some(mut rest) = self.rest.take() else {
            return Then::GoOn;
        };
        let now = self.send(id, &rest.answer, max, out);
        rest.answer.drain(..now);
        let all = rest.answer.is_empty();
        let ended = all && rest.ending && self.conn.may_send();
        if !all || !rest.request.is_empty() || rest.ending {
            self.rest = Some(rest);
        }
        if !ended {
            return Then::GoOn;
        }
        put_frame(id, b"", out);
        match self.conn.we_ended() {
            State::Closed => Then::Forget,
            _ => Then::GoOn,
        }
    }

    /// Sends as much of `bytes` as there is credit for. What is echoed is taken only then.
    fn send(&mut self, id: ConnectionId, bytes: &[u8], max: usize, out: &mut Vec<u8>) -> usize {
        let want = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let now = self.conn.take_credit(want);
        for content in bytes[..now as usize].chunks(max) {
            put_frame(id, content, out);
        }
        if self.echo
            && let Some(bytes) = self.conn.release(now, &NO_GROWTH)
        {
            Control::Window { id, bytes }.put(out);
        }
        now as usize
    }
}

/// The peer has lost count.
fn credit(id: ConnectionId, error: ConnError) -> LinkError {
    match error {
        ConnError::Credit(error) => LinkError::Credit { id, error },
        ConnError::AfterEnd => LinkError::ControlEnd,
    }
}

#[cfg(test)]
mod tests;
