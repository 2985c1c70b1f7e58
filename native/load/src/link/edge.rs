//! One link and the connections on it.

mod incoming;

use std::collections::VecDeque;
use std::io::{ErrorKind, Read};

use bytes::{BufMut, BytesMut};
use megaphone_proto::Link;
use megaphone_proto::conn::Conn;
use megaphone_proto::control::{CloseReason, Control, Open};
use megaphone_proto::frame::{ConnectionId, put_frame};
use megaphone_proto::table::Table;
use mio::{Registry, Token};

use super::dial::Up;
use super::outgoing::Outgoing;
use super::peer::{Peer, address};
use super::shared::Shared;
use super::stream::Stream;

/// Bytes of content and messages that are written at a time: some hundreds of frames.
const CHUNK: usize = 64 * 1024;

/// Chunks that one link may write before it reads, and the other links have their turn.
const CHUNKS: usize = 4;

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
        while peer.unsent > 0 {
            let from = (shared.payload.len() - peer.unsent) as usize;
            let bytes = peer.conn.take_credit(peer.unsent.min(self.max_content));
            if bytes == 0 {
                return;
            }
            let range = from..from + bytes as usize;
            put_frame(id, shared.payload.part(peer.number, range), chunk);
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
