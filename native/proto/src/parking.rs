//! How one consumer of a queue sleeps and is woken once: no push is missed, and no push but the
//! first after it went to sleep wakes it.
//!
//! ```text
//!   producer: push, wake ──► true? tell the consumer
//!   consumer: empty? park(look again) ──► None: sleep until told
//! ```
//!
//! Both sides swap the one flag, so one swap comes first. Is it the producer's, then the consumer,
//! which looks after its own, sees the push; is it the consumer's, then the producer sees it parked.

// std's, or loom's where tests/parking.rs includes this file.
use crate::atomic::{AtomicBool, Ordering::AcqRel};

/// Whether the consumer sleeps.
#[derive(Debug)]
pub struct Parking {
    parked: AtomicBool,
}

impl Default for Parking {
    fn default() -> Self {
        Parking::new()
    }
}

impl Parking {
    /// A consumer that is awake.
    pub fn new() -> Self {
        Parking {
            parked: AtomicBool::new(false),
        }
    }

    /// For a producer, after its push: `true` when the consumer sleeps, and it is for this
    /// producer to tell it.
    #[inline]
    pub fn wake(&self) -> bool {
        self.parked.swap(false, AcqRel)
    }

    /// For the consumer that found nothing: it sleeps from here on, unless `look` finds what has
    /// just come, and then it is awake still.
    pub fn park<T>(&self, look: impl FnOnce() -> Option<T>) -> Option<T> {
        self.parked.swap(true, AcqRel);
        let late = look();
        if late.is_some() {
            // A producer may have woken it meanwhile: then one message comes for nothing.
            self.parked.swap(false, AcqRel);
        }
        late
    }
}
