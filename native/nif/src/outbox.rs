//! What waits to be written to a link: frames pushed from any scheduler, drained by the link's
//! one sender process, which is woken only when it is parked.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};

use bytes::{Bytes, BytesMut};
use crossbeam_queue::SegQueue;
use megaphone_proto::LinkError;
use megaphone_proto::control::Control;
use megaphone_proto::frame::{ConnectionId, put_head};
use megaphone_proto::limits::HEAD_LEN;
use megaphone_proto::parking::Parking;
use megaphone_proto::retained::Retained;
use rustler::{Env, LocalPid, OwnedBinary};

use crate::atoms;
use crate::limits::Hits;
use crate::sync::lock;

/// Bytes of connections' data that may wait for a link; over it every `send` keeps its bytes with
/// its connection, and blocks as on a busy port. 4 MiB is some 30 ms of a 1 Gbit/s link.
pub const DATA_HIGH: usize = 4 << 20;
/// Once no more than this waits, connections held back by [`DATA_HIGH`] go on.
pub const DATA_LOW: usize = 1 << 20;
/// Bytes that may wait in all, control messages included. Only a peer that asks (opens, pings)
/// and does not read the answers gets a link here, or one that is parked while very many
/// connections end; the link is then closed.
pub const ALL_MAX: usize = 16 << 20;

/// Bytes of a frame from which on it is written from where it is. To refer to one costs about as
/// much as to copy 4 KiB.
const WHOLE_MIN: usize = 8 << 10;

/// The queue between the connections of a link and its sender.
pub struct Outbox {
    /// Pings, windows and the like: overtake data, as the protocol page asks.
    urgent: SegQueue<Bytes>,
    /// Data, ends, closes and resets: in the order they were pushed.
    ordered: SegQueue<Bytes>,
    queued: AtomicUsize,
    parking: Parking,
    /// Nobody while the link is parked.
    sender: Mutex<Option<LocalPid>>,
    written: Mutex<Written>,
    /// How often data found no room.
    pub full: Hits,
}

/// What the sender was given.
struct Written {
    /// As far as the peer may not have it.
    retained: Retained,
    /// What a resumed link has to write again, before all else.
    again: VecDeque<Bytes>,
}

impl Outbox {
    /// An empty outbox that keeps up to `resume_buffer` unacknowledged bytes; 0 keeps none.
    pub fn new(resume_buffer: usize) -> Self {
        let written = Written {
            retained: Retained::new(resume_buffer),
            again: VecDeque::new(),
        };
        Outbox {
            urgent: SegQueue::new(),
            ordered: SegQueue::new(),
            queued: AtomicUsize::new(0),
            parking: Parking::new(),
            sender: Mutex::new(None),
            written: Mutex::new(written),
            full: Hits::default(),
        }
    }

    /// Names the process that drains, or nobody. A new one must drain at once, for what came while
    /// there was none.
    pub fn set_sender(&self, sender: Option<LocalPid>) {
        *lock(&self.sender) = sender;
    }

    /// The peer has so many bytes.
    ///
    /// # Errors
    /// It cannot: the link must be closed.
    pub fn acknowledge(&self, received: u64) -> Result<(), LinkError> {
        self.written().retained.acknowledge(received)
    }

    /// The link goes on for a peer that has so many bytes: what it lacks is drained again first.
    /// `false`: it cannot. No sender may be draining.
    pub fn rewind(&self, received: u64) -> bool {
        let mut written = self.written();
        let Some(lacking) = written.retained.rewind(received) else {
            return false;
        };
        // Takes the place of what an earlier resumption left, which is in it.
        written.again = lacking;
        true
    }

    /// Whether a peer that has so many bytes can be given all the others.
    pub fn may_rewind(&self, received: u64) -> bool {
        self.written().retained.may_rewind(received)
    }

    /// Whether the peer can be given all that it may lack.
    pub fn may_resume(&self) -> bool {
        self.written().retained.may_resume()
    }

    /// Whether it no longer can, because that was too much.
    pub fn overflowed(&self) -> bool {
        self.written().retained.overflowed()
    }

    /// Bytes written that the peer may lack.
    pub fn retained(&self) -> usize {
        self.written().retained.bytes()
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        lock(&self.written)
    }

    /// Bytes waiting.
    pub fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    /// Whether it has drained so far that those who wait for room are called. For who has just
    /// put itself among them: either this says so, or the sender sees it there. (Both change the
    /// one counter, so one of them is first.)
    pub fn is_roomy(&self) -> bool {
        self.queued.fetch_add(0, Ordering::AcqRel) <= DATA_LOW
    }

    /// How many bytes of data may be pushed now.
    pub fn room(&self) -> usize {
        DATA_HIGH.saturating_sub(self.queued())
    }

    /// Pushes a control message that may overtake data.
    pub fn push_urgent(&self, env: Env, control: &Control) {
        self.push(env, &self.urgent, encode(control));
    }

    /// Pushes a control message that must stay behind what was pushed before it.
    pub fn push_control(&self, env: Env, control: &Control) {
        self.push(env, &self.ordered, encode(control));
    }

    /// Pushes one frame of a connection; with no content it is the end of that direction.
    pub fn push_frame(&self, env: Env, id: ConnectionId, content: &[u8]) {
        self.push_parts(env, id, content.len(), &[content]);
    }

    /// Pushes one frame with `parts` of `length` bytes in all.
    pub fn push_parts(&self, env: Env, id: ConnectionId, length: usize, parts: &[&[u8]]) {
        let mut frame = BytesMut::with_capacity(HEAD_LEN + length);
        put_head(id, length, &mut frame);
        for part in parts {
            frame.extend_from_slice(part);
        }
        self.push(env, &self.ordered, frame.freeze());
    }

    fn push(&self, env: Env, lane: &SegQueue<Bytes>, frame: Bytes) {
        self.queued.fetch_add(frame.len(), Ordering::Relaxed);
        lane.push(frame);
        if self.parking.wake()
            && let Some(sender) = *lock(&self.sender)
        {
            // A sender that died parks its link; there is nobody else to tell.
            let _ = env.send(&sender, atoms::drain());
        }
    }

    /// Takes up to about `max` bytes (whole frames, at least one) out; nothing when nothing waits,
    /// and then the sender is parked: the next push wakes it.
    pub fn drain(&self, max: usize) -> Vec<Piece> {
        let mut written = self.written();
        let mut frames = Vec::new();
        let mut total = 0;
        while total < max {
            let Some(bytes) = written.again.pop_front() else {
                break;
            };
            total += bytes.len();
            frames.push(bytes);
        }
        let again = total;
        while total < max {
            // Only an outbox found empty parks: a sender with bytes in hand comes back anyway.
            let late = || {
                let empty = frames.is_empty();
                empty.then(|| self.parking.park(|| self.pop())).flatten()
            };
            let Some(frame) = self.pop().or_else(late) else {
                break;
            };
            total += frame.len();
            frames.push(frame);
        }
        self.queued.fetch_sub(total - again, Ordering::AcqRel);
        let pieces = pieces(&frames);
        for frame in frames {
            written.retained.push(frame);
        }
        pieces
    }

    fn pop(&self) -> Option<Bytes> {
        self.urgent.pop().or_else(|| self.ordered.pop())
    }
}

/// What the sender writes.
pub enum Piece {
    /// Small frames, one behind the other.
    Copied(OwnedBinary),
    /// A large one as it is.
    Whole(Bytes),
}

impl Piece {
    /// Bytes.
    pub fn len(&self) -> usize {
        match self {
            Piece::Copied(bytes) => bytes.len(),
            Piece::Whole(bytes) => bytes.len(),
        }
    }
}

/// Frames as they are to be written: the small ones copied together, for each piece costs
/// something, the large ones as they are.
fn pieces(frames: &[Bytes]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for run in frames.chunk_by(|one, next| one.len() < WHOLE_MIN && next.len() < WHOLE_MIN) {
        if let [frame] = run
            && frame.len() >= WHOLE_MIN
        {
            pieces.push(Piece::Whole(frame.clone()));
            continue;
        }
        let mut out = OwnedBinary::new(run.iter().map(Bytes::len).sum());
        let mut rest = out.as_mut_slice();
        for frame in run {
            let (head, tail) = rest.split_at_mut(frame.len());
            head.copy_from_slice(frame);
            rest = tail;
        }
        pieces.push(Piece::Copied(out));
    }
    pieces
}

fn encode(control: &Control) -> Bytes {
    Bytes::from(control.to_frame())
}
