//! One link and the connections on it.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read};
use std::time::{Duration, Instant};

use bytes::{BufMut, BytesMut};
use hdrhistogram::Histogram;
use megaphone_proto::conn::{Conn, ConnError};
use megaphone_proto::control::{CloseReason, Control, Open};
use megaphone_proto::frame::{ConnectionId, put_frame};
use megaphone_proto::table::Table;
use megaphone_proto::{Event, Link, LinkError};
use mio::{Registry, Token};

use super::dial::Up;
use super::outgoing::Outgoing;
use super::peer::{Payload, Peer, address};
use super::stream::Stream;
use crate::fleet::Errors;
use crate::generator::record;

/// Bytes of content and messages that are written at a time: some hundreds of frames.
const CHUNK: usize = 64 * 1024;

/// Chunks that one link may write before it reads, and the other links have their turn.
const CHUNKS: usize = 4;

/// What all links have in common.
#[derive(Debug)]
pub struct Shared {
    /// The service that connections are opened on.
    pub service: String,
    /// What the frames of this round hold.
    pub payload: Payload,
    /// When the round began.
    pub begin: Instant,
    /// When a frame last came back.
    pub heard: Instant,
    /// Frames of this round that came back.
    pub answered: u64,
    /// How long each took.
    pub latency: Histogram<u64>,
    /// What went wrong.
    pub errors: Errors,
    /// What is read goes here first.
    pub buffer: Box<[u8]>,
}

impl Shared {
    fn micros(&self) -> u32 {
        self.begin.elapsed().as_micros() as u32
    }

    fn count(&mut self, kind: String) {
        *self.errors.entry(kind).or_default() += 1;
    }
}

/// Which connections a link has: every `step`th, from `first` on, below `end`.
#[derive(Debug, Clone, Copy)]
pub struct Share {
    /// The first one's number.
    pub first: usize,
    /// From one number to the next.
    pub step: usize,
    /// No number is so high.
    pub end: usize,
    /// How many may be under way at a time.
    pub opening: usize,
}

/// A link and its connections.
pub struct Edge {
    stream: Stream,
    protocol: Link,
    outgoing: Outgoing,
    /// A connection as it begins.
    fresh: Conn,
    max_content: u32,
    share: Share,
    peers: Table<Peer>,
    /// In the order that they were opened in.
    ids: Vec<ConnectionId>,
    /// The next of `ids` whose frame of this round is to be sent.
    next: usize,
    /// Those that have more to send, and credit again.
    again: VecDeque<ConnectionId>,
    /// Frames of this round that have not come back.
    waiting: usize,
    readable: bool,
    writable: bool,
}

impl Edge {
    /// A link that is up, with nobody on it.
    pub fn new(up: Up, share: Share, shared: &mut Shared) -> Result<Self, String> {
        let Up {
            stream,
            protocol,
            unread,
        } = up;
        let mut edge = Self {
            outgoing: Outgoing::new(protocol.resume_timeout() > 0),
            fresh: protocol.new_conn(),
            max_content: protocol.max_content_to_send(),
            stream,
            protocol,
            share,
            peers: Table::new(usize::MAX),
            ids: Vec::new(),
            next: 0,
            again: VecDeque::new(),
            waiting: 0,
            readable: true,
            writable: true,
        };
        edge.take_in(&unread, shared)?;
        Ok(edge)
    }

    /// See [`Stream::register`].
    pub fn register(&mut self, registry: &Registry, token: Token) -> std::io::Result<()> {
        self.stream.register(registry, token)
    }

    /// It may be read or written again.
    pub fn woken(&mut self, readable: bool, writable: bool) {
        self.readable |= readable;
        self.writable |= writable;
    }

    /// How many connections are open on it.
    pub fn open(&self) -> usize {
        self.peers.len()
    }

    /// Frames of this round that have not come back, those of connections that are not open yet
    /// included.
    pub fn waiting(&self) -> usize {
        self.waiting + self.unopened().count()
    }

    /// Whether the node acknowledged too little.
    pub fn overflowed(&self) -> bool {
        self.outgoing.overflowed()
    }

    /// Sends each connection its frame of a new round.
    pub fn begin_round(&mut self) {
        self.next = 0;
        self.waiting = self.peers.len();
    }

    /// To be called each second.
    pub fn tick(&mut self) {
        if let Some(ack) = self.protocol.ack_tick() {
            self.outgoing.say(&ack);
        }
    }

    /// Says that this side goes, for good.
    pub fn leave(&mut self) {
        self.outgoing.say(&Control::Goaway {
            reason: CloseReason::Shutdown,
            retry_after: None,
            within: None,
        });
    }

    /// Whether all that was to be written has been.
    pub fn is_written(&self) -> bool {
        self.outgoing.is_empty()
    }

    /// Reads and writes some. Says whether there may be more to do at once. The error is for a
    /// person; the link is of no use after it.
    pub fn turn(&mut self, shared: &mut Shared) -> Result<bool, String> {
        if self.readable {
            self.read(shared)?;
        }
        if self.writable {
            self.write(shared)?;
        }
        Ok(self.readable || self.writable && self.has_more())
    }

    fn read(&mut self, shared: &mut Shared) -> Result<(), String> {
        let mut buffer = std::mem::take(&mut shared.buffer);
        let read = self.stream.read(&mut buffer);
        let taken = match read {
            Ok(0) => Err("the node closed the link".into()),
            Ok(bytes) => {
                self.readable = bytes == buffer.len();
                self.take_in(&buffer[..bytes], shared)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.readable = false;
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(format!("reading from the link failed: {error}")),
        };
        shared.buffer = buffer;
        taken
    }

    fn take_in(&mut self, mut bytes: &[u8], shared: &mut Shared) -> Result<(), String> {
        let now = Instant::now();
        let text = |error: LinkError| format!("the node broke the protocol: {error}");
        while let Some(event) = self.protocol.next(&mut bytes).map_err(text)? {
            self.event(event, now, shared)?;
        }
        if let Some(ack) = self.protocol.ack() {
            self.outgoing.say(&ack);
        }
        Ok(())
    }

    fn event(&mut self, event: Event<'_>, now: Instant, shared: &mut Shared) -> Result<(), String> {
        let credit = |id, error: ConnError| format!("connection {id}: {error}");
        match event {
            Event::Content { id, bytes } => {
                self.content(id, bytes, now, shared)
                    .map_err(|error| credit(id, error))?;
            }
            Event::Window { id, bytes } => {
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.conn
                        .granted(bytes)
                        .map_err(|error| credit(id, error))?;
                    if peer.unsent > 0 {
                        self.again.push_back(id);
                    }
                }
            }
            Event::End { id } => {
                if self.gone(id, "ended".into(), shared) {
                    put_frame(id, &[], self.outgoing.messages());
                }
            }
            Event::Close { id, reason } => drop(self.gone(id, format!("closed: {reason}"), shared)),
            Event::Reset { id, reason } => drop(self.gone(id, format!("reset: {reason}"), shared)),
            Event::Ping { word } => self.outgoing.say(&Control::Pong { word }),
            Event::Ack { bytes } => {
                let text = |error: LinkError| error.to_string();
                self.outgoing.acknowledged(bytes).map_err(text)?;
            }
            Event::Goaway { reason, .. } => return Err(format!("the node says goaway: {reason}")),
            Event::PeerError { code, text } => {
                return Err(format!(
                    "the node says error {code}: {}",
                    text.escape_debug()
                ));
            }
            // Nobody asked, and only a node is told of an open.
            Event::Pong { .. } | Event::Open(_) => {}
        }
        Ok(())
    }

    fn content(
        &mut self,
        id: ConnectionId,
        bytes: &[u8],
        now: Instant,
        shared: &mut Shared,
    ) -> Result<(), ConnError> {
        let Some(peer) = self.peers.get_mut(&id) else {
            shared.count("for nobody".into());
            return Ok(());
        };
        peer.conn.receive(bytes.len() as u32)?;
        if let Some(grant) = peer.conn.release(bytes.len() as u32) {
            self.outgoing.say(&Control::Window { id, bytes: grant });
        }
        let expected = shared.payload.of(peer.number);
        let from = expected.len() - peer.missing as usize;
        if expected[from..].get(..bytes.len()) != Some(bytes) {
            shared.count("damaged".into());
            return Ok(());
        }
        peer.missing -= bytes.len() as u32;
        if peer.missing == 0 {
            peer.answered = shared.payload.round();
            self.waiting -= 1;
            let sent = shared.begin + Duration::from_micros(peer.sent_at.into());
            record(&mut shared.latency, now.saturating_duration_since(sent));
            shared.answered += 1;
            shared.heard = now;
        }
        Ok(())
    }

    /// The node ended a connection. Says whether it was open.
    fn gone(&mut self, id: ConnectionId, kind: String, shared: &mut Shared) -> bool {
        let Some(peer) = self.peers.remove(id) else {
            return false;
        };
        if peer.answered < shared.payload.round() {
            self.waiting -= 1;
        }
        shared.count(kind);
        true
    }

    fn write(&mut self, shared: &mut Shared) -> Result<(), String> {
        for _ in 0..CHUNKS {
            if !self.outgoing.is_writing() {
                let chunk = self.fill(shared);
                if chunk.is_empty() {
                    return Ok(());
                }
                self.outgoing.begin(chunk.freeze());
            }
            let text = |error| format!("writing to the link failed: {error}");
            self.writable = self.outgoing.write(&mut self.stream).map_err(text)?;
            if !self.writable {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The next that is to be written: messages, and as much content as there is and fits.
    fn fill(&mut self, shared: &mut Shared) -> BytesMut {
        let mut chunk = self.outgoing.take_messages();
        let now = shared.micros();
        while chunk.len() < CHUNK {
            let id = self.again.pop_front();
            let Some(id) = id.or_else(|| self.begin_next(now, &mut chunk, shared)) else {
                break;
            };
            self.put(id, &mut chunk, shared);
        }
        chunk
    }

    /// The next connection whose frame of this round is due, which is opened for that in the
    /// first.
    fn begin_next(
        &mut self,
        now: u32,
        chunk: &mut impl BufMut,
        shared: &Shared,
    ) -> Option<ConnectionId> {
        if self.next == self.ids.len() {
            self.open_next(chunk, shared)?;
        }
        let id = self.ids[self.next];
        self.next += 1;
        // One that is gone has nothing to send, and its id is not found.
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.unsent = shared.payload.len();
            peer.missing = shared.payload.len();
            peer.sent_at = now;
        }
        Some(id)
    }

    fn open_next(&mut self, chunk: &mut impl BufMut, shared: &Shared) -> Option<()> {
        let number = self.unopened().next()?;
        if self.waiting >= self.share.opening {
            return None;
        }
        let id = fresh_id(&self.peers);
        let peer = Peer {
            conn: self.fresh,
            number: number as u32,
            unsent: 0,
            missing: 0,
            sent_at: 0,
            answered: 0,
        };
        self.peers.open(id, peer).ok()?;
        self.ids.push(id);
        self.waiting += 1;
        let open = Open {
            id,
            service: shared.service.clone(),
            peer: address(number),
            local: address(0),
            tls: None,
        };
        Control::Open(open).put(chunk);
        Some(())
    }

    /// Numbers of the connections that are not opened yet.
    fn unopened(&self) -> impl ExactSizeIterator<Item = usize> + use<> {
        let Share {
            first, step, end, ..
        } = self.share;
        (first + self.ids.len() * step..end.max(first)).step_by(step)
    }

    /// Sends of a connection's frame what its credit allows.
    fn put(&mut self, id: ConnectionId, chunk: &mut impl BufMut, shared: &mut Shared) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let content = shared.payload.of(peer.number);
        while peer.unsent > 0 {
            let from = content.len() - peer.unsent as usize;
            let bytes = peer.conn.take_credit(peer.unsent.min(self.max_content));
            if bytes == 0 {
                return;
            }
            put_frame(id, &content[from..from + bytes as usize], chunk);
            peer.unsent -= bytes;
        }
    }

    fn has_more(&self) -> bool {
        let may_open = self.waiting < self.share.opening && self.unopened().len() > 0;
        let content = !self.again.is_empty() || self.next < self.ids.len() || may_open;
        content || !self.outgoing.is_empty()
    }
}

/// Ids are random, as an edge's are, and none is used twice while it is open.
fn fresh_id(peers: &Table<Peer>) -> ConnectionId {
    loop {
        let id = ConnectionId::new(fastrand::u64(1..));
        if peers.get(&id).is_none() {
            return id;
        }
    }
}
