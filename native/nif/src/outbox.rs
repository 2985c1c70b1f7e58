//! What waits to be written to a link: frames pushed from any scheduler, drained by the link's
//! one sender process, which is woken only when it is parked.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};
use crossbeam_queue::SegQueue;
use megaphone_proto::control::Control;
use megaphone_proto::frame::{ConnectionId, put_frame};
use megaphone_proto::limits::HEAD_LEN;
use rustler::{Env, LocalPid, OwnedBinary};

use crate::atoms;

/// Bytes of connections' data that may wait for a link; over it every `send` keeps its bytes with
/// its connection, and blocks as on a busy port. 4 MiB is some 30 ms of a 1 Gbit/s link.
pub const DATA_HIGH: usize = 4 << 20;
/// Once no more than this waits, connections held back by [`DATA_HIGH`] go on.
pub const DATA_LOW: usize = 1 << 20;
/// Bytes that may wait in all, control messages included. Only a peer that asks (opens, pings)
/// and does not read the answers gets a link here; the link is then closed.
pub const ALL_MAX: usize = 16 << 20;

/// The queue between the connections of a link and its sender.
#[derive(Default)]
pub struct Outbox {
    /// Pings, windows and the like: overtake data, as the protocol page asks.
    urgent: SegQueue<Bytes>,
    /// Data, ends, closes and resets: in the order they were pushed.
    ordered: SegQueue<Bytes>,
    queued: AtomicUsize,
    parked: AtomicBool,
    sender: OnceLock<LocalPid>,
}

impl Outbox {
    /// Names the process that drains. Called once, before the first push that must be seen.
    pub fn set_sender(&self, sender: LocalPid) {
        let _ = self.sender.set(sender);
    }

    /// Bytes waiting.
    pub fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
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
        let mut frame = BytesMut::with_capacity(HEAD_LEN + content.len());
        put_frame(id, content, &mut frame);
        self.push(env, &self.ordered, frame.freeze());
    }

    fn push(&self, env: Env, lane: &SegQueue<Bytes>, frame: Bytes) {
        self.queued.fetch_add(frame.len(), Ordering::Relaxed);
        lane.push(frame);
        // Pairs with the swap in `park`: either the sender sees this frame, or we see it parked.
        if self.parked.swap(false, Ordering::SeqCst)
            && let Some(sender) = self.sender.get()
        {
            // A sender that died takes its link with it; there is nobody else to tell.
            let _ = env.send(sender, atoms::drain());
        }
    }

    /// Takes up to about `max` bytes (whole frames, at least one) out in one binary; `None` when
    /// nothing waits, and then the sender is parked: the next push wakes it.
    pub fn drain(&self, max: usize) -> Option<OwnedBinary> {
        let mut frames = Vec::new();
        let mut total = 0;
        while total < max {
            // Only an outbox found empty parks: a sender with bytes in hand comes back anyway.
            let late = || frames.is_empty().then(|| self.park()).flatten();
            let Some(frame) = self.pop().or_else(late) else {
                break;
            };
            total += frame.len();
            frames.push(frame);
        }
        if frames.is_empty() {
            return None;
        }
        self.queued.fetch_sub(total, Ordering::Relaxed);
        let mut out = OwnedBinary::new(total);
        let mut rest = out.as_mut_slice();
        for frame in frames {
            let (head, tail) = rest.split_at_mut(frame.len());
            head.copy_from_slice(&frame);
            rest = tail;
        }
        Some(out)
    }

    fn pop(&self) -> Option<Bytes> {
        self.urgent.pop().or_else(|| self.ordered.pop())
    }

    /// Says that the sender goes to sleep, unless something came in just then.
    fn park(&self) -> Option<Bytes> {
        self.parked.store(true, Ordering::SeqCst);
        let late = self.pop();
        if late.is_some() {
            self.parked.store(false, Ordering::SeqCst);
        }
        late
    }
}

fn encode(control: &Control) -> Bytes {
    Bytes::from(control.to_frame())
}
