//! What `send` took and the link could not take yet: a port's driver queue.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};
use rustler::LocalPid;

/// Bytes, and the processes blocked until most of them are gone.
#[derive(Default)]
pub struct Pending {
    queue: VecDeque<Bytes>,
    bytes: usize,
    /// Blocked in `send`, with the tokens they wait under.
    pub senders: Vec<(LocalPid, u64)>,
    /// The end of our direction follows the bytes (`shutdown`).
    pub then_end: bool,
    /// Waits in the link's list for room in the outbox.
    pub stalled: bool,
}

impl Pending {
    /// Bytes waiting.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends bytes.
    pub fn push(&mut self, bytes: Bytes) {
        self.bytes += bytes.len();
        if !bytes.is_empty() {
            self.queue.push_back(bytes);
        }
    }

    /// The next piece, if any.
    pub fn front(&self) -> Option<&Bytes> {
        self.queue.front()
    }

    /// Drops `n` bytes of the next piece.
    pub fn advance(&mut self, n: usize) {
        if let Some(front) = self.queue.front_mut() {
            front.advance(n);
            self.bytes -= n;
            if front.is_empty() {
                self.queue.pop_front();
            }
        }
    }
}
