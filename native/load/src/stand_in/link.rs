//! The node's side of a megaphone link (docs/protocol.md): every virtual connection is HTTP and
//! answered `ok`, or an echo where the service is named so.

use std::sync::Arc;
use std::time::Duration;

use megaphone_proto::conn::{ConnError, State};
use megaphone_proto::control::{CloseReason, Control};
use megaphone_proto::frame::{ConnectionId, put_frame};
use megaphone_proto::handshake::{Identity, Step};
use megaphone_proto::limits::{MAX_CONNECTIONS_DEFAULT, RESUME_TIMEOUT_DEFAULT};
use megaphone_proto::table::{OpenError, Table};
use megaphone_proto::{Event, Handshake, Link, LinkConfig, LinkError, Role};
use tokio::time::Instant;

use super::report::count;
use super::server::Server;
use super::wire::{Protocol, Wire, Wrong};

mod client;

use client::{Client, Then};

/// The service whose connections echo.
const ECHO: &str = "echo";

/// Bytes that may wait on a link: a kilobyte of answers to each of a million connections.
const LINK_WAITING_MAX: usize = 1 << 30;

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
        let client = Client::new(self.link.new_conn(), echo);
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
            Ok(()) => client.take(id, bytes, self.max_content, &self.server, out),
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
            Ok(_) => client.end(id, self.max_content, out),
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

/// The peer has lost count.
fn credit(id: ConnectionId, error: ConnError) -> LinkError {
    match error {
        ConnError::Credit(error) => LinkError::Credit { id, error },
        ConnError::AfterEnd => LinkError::ControlEnd,
    }
}

#[cfg(test)]
mod tests;
