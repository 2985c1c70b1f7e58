//! Takes in what comes over one link.
//!
//! The reader waits for the link alone. A client that does not take its
//! bytes holds nothing up in version 2: what it may be sent is in its
//! window. Version 1 has no windows: there the reader holds while one client
//! has more than [`Reader::v1_queue_max`] to take, and TCP holds ejabberd.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use megaphone_proto::conn::ConnError;
use megaphone_proto::control::{CloseReason, ErrorCode};
use megaphone_proto::frame::ConnectionId;
use megaphone_proto::{Event, LinkError};
use tokio::io::AsyncReadExt;
use tokio::task::yield_now;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::connection::{Connection, Ending};
use crate::dial::Input;
use crate::link::Link;

/// Bytes read from a link at a time.
const READ_SIZE: usize = 128 * 1024;

/// Clients that are written to before others have their turn, which may take
/// half a millisecond.
const FLUSHED: usize = 64;

/// Clients for whom there is room in the list of those to be written to.
const TO_FLUSH_KEPT: usize = 1024;

/// How often what came is acknowledged, at least (docs/protocol.md,
/// "Resume").
const ACK_INTERVAL: Duration = Duration::from_secs(1);

/// A `retry_after` longer than that, in seconds, is cut to it: an hour is
/// long enough to be sent away for.
const RETRY_AFTER_MAX: u32 = 3600;

/// Why a link ended. Each is the end of the sentence "link 1 ended: ".
#[derive(Debug, thiserror::Error)]
pub enum LinkEnd {
    /// The stream ended where it may.
    #[error("closed by ejabberd")]
    Closed,
    /// ejabberd broke the protocol.
    #[error("{0}")]
    Protocol(#[from] LinkError),
    /// ejabberd said why it closes.
    #[error("ejabberd says error code={code} text={text:?}")]
    Told {
        /// Why, for programs.
        code: ErrorCode,
        /// Why, for people.
        text: String,
    },
    /// The stream broke.
    #[error("reading failed: {0}")]
    Read(io::Error),
    /// The stream broke.
    #[error("writing failed: {0}")]
    Write(io::Error),
    /// The other end did not even answer a ping.
    #[error("nothing was received for three heartbeat intervals")]
    Silent,
    /// ejabberd had said goaway.
    #[error("ejabberd wants no more connections on it, and the last one is gone")]
    Drained,
    /// This program ends.
    #[error("shutdown")]
    Stopped,
}

impl LinkEnd {
    /// Whether only the transport is gone, and not what both sides know of
    /// the link: then it may go on over another.
    pub fn is_drop(&self) -> bool {
        matches!(
            self,
            Self::Closed
                | Self::Read(_)
                | Self::Write(_)
                | Self::Silent
                | Self::Protocol(LinkError::Truncated { .. })
        )
    }
}

/// Takes in what comes over one transport of a link.
pub struct Reader {
    input: Input,
    protocol: megaphone_proto::Link,
    buffer: Box<[u8]>,
    /// What of the buffer was read and not yet taken in.
    unread: std::ops::Range<usize>,
    /// Version 1: bytes that may wait for one client before the link is no
    /// longer read.
    v1_queue_max: usize,
    acks: Interval,
    /// Those that content came for, which is not written yet.
    to_flush: Vec<Arc<Connection>>,
}

impl Reader {
    /// A reader of `unread`, at most [`READ_SIZE`] bytes, and what follows in
    /// `input`, which `protocol` has not seen yet.
    pub fn new(
        input: Input,
        unread: &[u8],
        protocol: megaphone_proto::Link,
        v1_queue_max: usize,
    ) -> Self {
        let mut buffer = vec![0; READ_SIZE];
        buffer[..unread.len()].copy_from_slice(unread);
        let mut acks = interval(ACK_INTERVAL);
        acks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            input,
            protocol,
            buffer: buffer.into(),
            unread: 0..unread.len(),
            v1_queue_max,
            acks,
            to_flush: Vec::new(),
        }
    }

    /// Takes in what comes until the transport ends, or is taken away: then
    /// there is no end. The protocol can go on where this left it.
    pub async fn run(
        mut self,
        link: Arc<Link>,
        take_away: CancellationToken,
    ) -> (Option<LinkEnd>, megaphone_proto::Link) {
        let end = loop {
            if let Err(end) = self.take_in(&link).await {
                break Some(end);
            }
            tokio::select! {
                biased;
                () = take_away.cancelled() => break None,
                filled = self.fill(&link) => if let Err(end) = filled {
                    break Some(end);
                }
            }
        };
        link.counters()
            .set_unknown_verbs(self.protocol.unknown_verbs());
        (end, self.protocol)
    }

    /// Takes in what was read.
    async fn take_in(&mut self, link: &Link) -> Result<(), LinkEnd> {
        let handled = self.handle_all(link).await;
        self.flush().await;
        handled?;
        self.unread = 0..0;
        if let Some(ack) = self.protocol.ack() {
            link.outbox().ack(ack);
        }
        link.counters()
            .set_unknown_verbs(self.protocol.unknown_verbs());
        Ok(())
    }

    /// Does what all events say that were read.
    async fn handle_all(&mut self, link: &Link) -> Result<(), LinkEnd> {
        let mut rest = &self.buffer[self.unread.clone()];
        while let Some(event) = self.protocol.next(&mut rest)? {
            handle(link, event, &mut self.to_flush)?;
            if link.is_v1()
                && let Some(full) = self.to_flush.pop()
            {
                full.flush();
                while full.unwritten() > self.v1_queue_max {
                    link.moved().await;
                }
            }
        }
        Ok(())
    }

    /// Has written what came, and lets others have their turn between.
    async fn flush(&mut self) {
        for (number, connection) in self.to_flush.drain(..).enumerate() {
            connection.flush();
            if number % FLUSHED == FLUSHED - 1 {
                yield_now().await;
            }
        }
        self.to_flush.shrink_to(TO_FLUSH_KEPT);
    }

    /// Waits until more is read, and acknowledges in the meantime what came
    /// before.
    async fn fill(&mut self, link: &Link) -> Result<(), LinkEnd> {
        let read = loop {
            tokio::select! {
                biased;
                read = self.input.read(&mut self.buffer) => break read,
                _ = self.acks.tick() => if let Some(ack) = self.protocol.ack_tick() {
                    link.outbox().ack(ack);
                }
            }
        };
        match read {
            Ok(0) => {
                self.protocol.end_of_input()?;
                Err(LinkEnd::Closed)
            }
            Ok(bytes) => {
                link.pulse().hear();
                self.unread = 0..bytes;
                Ok(())
            }
            Err(error) => Err(LinkEnd::Read(error)),
        }
    }
}

/// Does what one event says. A connection that was given content is added to
/// `to_flush`.
fn handle(
    link: &Link,
    event: Event<'_>,
    to_flush: &mut Vec<Arc<Connection>>,
) -> Result<(), LinkEnd> {
    match event {
        Event::Content { id, bytes } => content(link, id, bytes, to_flush)?,
        Event::End { id } => end(link, id),
        Event::Window { id, bytes } => window(link, id, bytes)?,
        Event::Close { id, reason } => finish(link, id, Ending::Close(reason)),
        Event::Reset { id, reason } => finish(link, id, Ending::Reset(reason)),
        Event::Ping { word } => link.outbox().pong(word),
        Event::Goaway {
            reason,
            retry_after,
            within,
        } => goaway(link, reason, retry_after, within),
        Event::PeerError { code, text } => return Err(LinkEnd::Told { code, text }),
        Event::Pong { word } => link.pulse().answered(&word),
        Event::Ack { bytes } => link.acknowledged(bytes)?,
        // What only the handshake or the other side can use.
        Event::Open(_) => {}
    }
    Ok(())
}

fn content(
    link: &Link,
    id: ConnectionId,
    bytes: &[u8],
    to_flush: &mut Vec<Arc<Connection>>,
) -> Result<(), LinkEnd> {
    let Some(connection) = find(link, id, "content") else {
        return Ok(());
    };
    match connection.deliver(bytes, to_flush) {
        Ok(()) => link.counters().count_out(bytes.len()),
        Err(ConnError::Credit(error)) => return Err(LinkError::Credit { id, error }.into()),
        Err(ConnError::AfterEnd) => break_off(link, &connection),
    }
    Ok(())
}

fn end(link: &Link, id: ConnectionId) {
    let Some(connection) = find(link, id, "an end") else {
        return;
    };
    if connection.peer_ended().is_err() {
        break_off(link, &connection);
    }
}

fn window(link: &Link, id: ConnectionId, bytes: u32) -> Result<(), LinkEnd> {
    let Some(connection) = find(link, id, "a window") else {
        return Ok(());
    };
    match connection.granted(bytes) {
        Err(ConnError::Credit(error)) => Err(LinkError::Credit { id, error }.into()),
        Ok(()) | Err(ConnError::AfterEnd) => Ok(()),
    }
}

fn finish(link: &Link, id: ConnectionId, ending: Ending) {
    match link.forget(id, ending.reason()) {
        Some(connection) => connection.finish(ending),
        None => unknown(link, id, "a close"),
    }
}

fn goaway(link: &Link, reason: CloseReason, retry_after: Option<u32>, within: Option<u32>) {
    if let Some(seconds) = retry_after {
        link.set_retry_after(seconds.min(RETRY_AFTER_MAX));
    }
    if reason == CloseReason::Shutdown {
        link.leave();
    }
    link.stop_accepting();
    // What it says is so by now, and the link's end comes after it.
    let number = link.number();
    let within = within.map(|seconds| format!(" within={seconds}"));
    info!(
        "link {number} takes no new connections: ejabberd says goaway reason={reason}{}",
        within.unwrap_or_default()
    );
    link.end_if_drained();
}

/// ejabberd broke the rules of one connection, which ends for it.
fn break_off(link: &Link, connection: &Arc<Connection>) {
    let (number, id) = (link.number(), connection.id());
    warn!(
        "link {number} connection {id}: content or a second end after the end; the connection is reset"
    );
    connection.abandon(CloseReason::ProtocolError);
}

fn find(link: &Link, id: ConnectionId, what: &str) -> Option<Arc<Connection>> {
    let found = link.get(id);
    if found.is_none() {
        unknown(link, id, what);
    }
    found
}

/// A frame that crossed our end of a connection on the wire, as a rule: so
/// it is dropped, counted, and only mentioned to who asks for everything.
fn unknown(link: &Link, id: ConnectionId, what: &str) {
    link.counters().count_unknown_id();
    debug!(
        "link {} connection {id}: {what} for a connection that is not open; dropped",
        link.number()
    );
}
