//! Takes in what comes over one link.
//!
//! The reader waits for the link alone. A client that does not take its
//! bytes holds nothing up in version 2: what it may be sent is in its
//! window. Version 1 has no windows: there the reader holds while one client
//! has more than [`Reader::v1_queue_max`] to take, and TCP holds ejabberd.

use std::io;
use std::sync::Arc;

use megaphone_proto::conn::{ConnError, State};
use megaphone_proto::control::{CloseReason, Control, ErrorCode};
use megaphone_proto::frame::ConnectionId;
use megaphone_proto::{Event, LinkError};
use tokio::io::AsyncReadExt;
use tracing::{debug, info, warn};

use crate::connection::{Connection, Ending};
use crate::dial::Input;
use crate::link::Link;

/// Bytes read from a link at a time.
const READ_SIZE: usize = 128 * 1024;

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

/// Takes in what comes over one link.
pub struct Reader {
    input: Input,
    protocol: megaphone_proto::Link,
    buffer: Box<[u8]>,
    /// What of the buffer was read and not yet taken in.
    unread: std::ops::Range<usize>,
    /// Version 1: bytes that may wait for one client before the link is no
    /// longer read.
    v1_queue_max: usize,
}

impl Reader {
    /// A reader of `input` by the rules of `protocol`.
    pub fn new(input: Input, protocol: megaphone_proto::Link, v1_queue_max: usize) -> Self {
        Self {
            input,
            protocol,
            buffer: vec![0; READ_SIZE].into(),
            unread: 0..0,
            v1_queue_max,
        }
    }

    /// What is known of the link by its handshake.
    pub fn protocol(&self) -> &megaphone_proto::Link {
        &self.protocol
    }

    /// Waits until the link is up, which in version 1 it is at once.
    ///
    /// # Errors
    /// It ended before.
    pub async fn handshake(&mut self) -> Result<u32, LinkEnd> {
        loop {
            let mut rest = &self.buffer[self.unread.clone()];
            let event = self.protocol.next(&mut rest)?;
            self.unread.start = self.unread.end - rest.len();
            match event {
                Some(Event::Up { version }) => return Ok(version),
                Some(_) => {}
                None => self.fill().await?,
            }
        }
    }

    /// Takes in what comes until the link ends.
    pub async fn run(&mut self, link: &Link) -> LinkEnd {
        loop {
            if let Err(end) = self.take_in(link).await {
                link.set_unknown_verbs(self.protocol.unknown_verbs());
                return end;
            }
            if let Err(end) = self.fill().await {
                return end;
            }
        }
    }

    /// Takes in what was read.
    async fn take_in(&mut self, link: &Link) -> Result<(), LinkEnd> {
        let mut rest = &self.buffer[self.unread.clone()];
        while let Some(event) = self.protocol.next(&mut rest)? {
            let Some(full) = handle(link, event)? else {
                continue;
            };
            while full.unwritten() > self.v1_queue_max && link.is_v1() {
                link.moved().await;
            }
        }
        self.unread = 0..0;
        link.set_unknown_verbs(self.protocol.unknown_verbs());
        Ok(())
    }

    async fn fill(&mut self) -> Result<(), LinkEnd> {
        match self.input.read(&mut self.buffer).await {
            Ok(0) => {
                self.protocol.end_of_input()?;
                Err(LinkEnd::Closed)
            }
            Ok(bytes) => {
                self.unread = 0..bytes;
                Ok(())
            }
            Err(error) => Err(LinkEnd::Read(error)),
        }
    }
}

/// Does what one event says. Returns the connection that was given content.
fn handle(link: &Link, event: Event<'_>) -> Result<Option<Arc<Connection>>, LinkEnd> {
    link.count_received();
    match event {
        Event::Content { id, bytes } => return content(link, id, bytes),
        Event::End { id } => end(link, id),
        Event::Window { id, bytes } => window(link, id, bytes)?,
        Event::Close { id, reason } => finish(link, id, Ending::Close(reason)),
        Event::Reset { id, reason } => finish(link, id, Ending::Reset(reason)),
        Event::Ping { word } => link.outbox().pong(word),
        Event::Goaway {
            reason,
            retry_after,
            ..
        } => goaway(link, reason, retry_after),
        Event::PeerError { code, text } => return Err(LinkEnd::Told { code, text }),
        // An answer to our ping, and what only a later version or the other
        // side can use.
        Event::Pong { .. } | Event::Ack { .. } | Event::Up { .. } | Event::Open(_) => {}
    }
    Ok(None)
}

fn content(
    link: &Link,
    id: ConnectionId,
    bytes: &[u8],
) -> Result<Option<Arc<Connection>>, LinkEnd> {
    let Some(connection) = find(link, id, "content") else {
        return Ok(None);
    };
    match connection.deliver(bytes) {
        Ok(_) => {
            link.count_out(bytes.len());
            Ok(Some(connection))
        }
        Err(ConnError::Credit(error)) => Err(LinkError::Credit { id, error }.into()),
        Err(ConnError::AfterEnd) => {
            break_off(link, &connection);
            Ok(None)
        }
    }
}

fn end(link: &Link, id: ConnectionId) {
    let Some(connection) = find(link, id, "an end") else {
        return;
    };
    match connection.peer_ended() {
        Ok(State::Closed) => drop(link.forget(id)),
        Ok(_) => {}
        Err(_) => break_off(link, &connection),
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
    match link.forget(id) {
        Some(connection) => connection.finish(ending),
        None => unknown(link, id, "a close"),
    }
}

fn goaway(link: &Link, reason: CloseReason, retry_after: Option<u32>) {
    let number = link.number();
    info!("link {number} takes no new connections: ejabberd says goaway reason={reason}");
    if let Some(seconds) = retry_after {
        link.set_retry_after(seconds.min(RETRY_AFTER_MAX));
    }
    link.stop_accepting();
}

/// ejabberd broke the rules of one connection, which ends for it.
fn break_off(link: &Link, connection: &Connection) {
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
    link.count_unknown_id();
    debug!(
        "link {} connection {id}: {what} for a connection that is not open; dropped",
        link.number()
    );
}

/// The last message on a link that ends for `end`, where there is one.
pub fn last_words(end: &LinkEnd, protocol_hears: bool) -> Option<Control> {
    if !protocol_hears {
        return None;
    }
    match end {
        LinkEnd::Protocol(error) => Some(error.to_control()),
        LinkEnd::Silent => Some(Control::Error {
            code: ErrorCode::Timeout,
            text: end.to_string(),
        }),
        _ => None,
    }
}
