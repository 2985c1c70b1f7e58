//! What all links of a measurement have in common.

use std::time::Instant;

use hdrhistogram::Histogram;

use super::peer::Payload;
use crate::fleet::Errors;

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
    /// Microseconds since the round began.
    pub fn micros(&self) -> u32 {
        self.begin.elapsed().as_micros() as u32
    }

    /// Counts something that went wrong.
    pub fn count(&mut self, kind: String) {
        *self.errors.entry(kind).or_default() += 1;
    }
}
