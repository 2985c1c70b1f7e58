//! What all clients together may make this program hold.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use megaphone_proto::credit::Growth;
use tracing::warn;

use crate::log::Hits;

/// `max_buffered`: bytes that came for clients and were not written to them
/// yet. Windows are promises to each client alone, and a million of them are
/// more than any machine has; this is what holds when too many are called in.
#[derive(Debug)]
pub struct Budget {
    max: u64,
    held: AtomicU64,
    hits: Hits,
    growth: Growth,
}

impl Budget {
    /// Room for `max` bytes.
    pub fn new(max: u64) -> Self {
        Self {
            max,
            held: AtomicU64::new(0),
            hits: Hits::new(),
            growth: Growth::new(max),
        }
    }

    /// Whether `bytes` more may be held, which then are. Where not, that is
    /// counted and logged; the client they came for is to be given up.
    #[must_use]
    pub fn take(&self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        let fits = |held: u64| held.checked_add(bytes).filter(|held| *held <= self.max);
        let fitted = self.held.fetch_update(Relaxed, Relaxed, fits).is_ok();
        if !fitted && let Some(hits) = self.hits.hit() {
            let max = self.max;
            warn!("max_buffered={max} reached: {hits} clients were reset so far");
        }
        fitted
    }

    /// What clients' windows may grow by.
    pub fn growth(&self) -> &Growth {
        &self.growth
    }

    /// `bytes` that were taken are not held any more.
    pub fn give(&self, bytes: usize) {
        let before = self.held.fetch_sub(bytes as u64, Relaxed);
        debug_assert!(before >= bytes as u64, "{before} held, {bytes} given back");
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (held, hits) = (self.held.load(Relaxed), self.hits.count());
        write!(f, "max_buffered={held}/{}:{hits}", self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_taken_than_there_is_and_what_is_given_back_can_be_taken() {
        let budget = Budget::new(10);
        assert!(budget.take(9));
        assert!(budget.take(1));
        assert!(!budget.take(1));
        budget.give(4);
        assert!(!budget.take(5));
        assert!(!budget.take(usize::MAX));
        assert!(budget.take(4));
        assert_eq!(budget.to_string(), "max_buffered=10/10:3");
    }
}
