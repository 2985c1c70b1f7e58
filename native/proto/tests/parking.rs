//! The sleeping consumer of a queue under [loom](https://docs.rs/loom): every order that threads
//! and memory may take. A wake-up that is lost shows as a deadlock.
//!
//! The queue has nothing but relaxed atomics, weaker than any real one: what orders its memory is
//! the flag alone.

/// Where the file below looks for its atomics.
mod atomic {
    pub use loom::sync::atomic::{AtomicBool, Ordering};
}

#[path = "../src/parking.rs"]
mod parking;

use loom::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use loom::sync::{Arc, Notify};
use loom::thread;
use parking::Parking;

/// As the NIF uses it: an outbox with its sender process, a list of ready connections with its
/// receiver process.
struct Shared {
    /// One place for each producer: how much it pushed that was not popped.
    queue: Vec<AtomicUsize>,
    parking: Parking,
    /// The consumer's mailbox.
    mailbox: Notify,
    told: AtomicUsize,
}

impl Shared {
    fn new(producers: usize) -> Arc<Shared> {
        Arc::new(Shared {
            queue: (0..producers).map(|_| AtomicUsize::new(0)).collect(),
            parking: Parking::new(),
            mailbox: Notify::new(),
            told: AtomicUsize::new(0),
        })
    }

    fn push(&self, place: usize) {
        self.queue[place].fetch_add(1, Relaxed);
        if self.parking.wake() {
            self.told.fetch_add(1, Relaxed);
            self.mailbox.notify();
        }
    }

    /// All that one place holds. A load may see what is old; only the flag orders it.
    fn pop(&self) -> Option<usize> {
        let found = self.queue.iter().find(|place| place.load(Relaxed) > 0)?;
        Some(found.swap(0, Relaxed))
    }

    /// Takes until it has `all`.
    fn consume(&self, all: usize) {
        let mut got = 0;
        while got < all {
            match self.pop().or_else(|| self.parking.park(|| self.pop())) {
                Some(n) => got += n,
                None => self.mailbox.wait(),
            }
        }
        assert_eq!(got, all);
    }
}

/// Each producer pushes `each` times while one consumer takes. `switches`: how often a thread may
/// be interrupted in one execution, or any number of times.
fn check(producers: usize, each: usize, switches: Option<usize>) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = switches;
    model.check(move || {
        let shared = Shared::new(producers);
        let threads: Vec<_> = (0..producers)
            .map(|place| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || (0..each).for_each(|_| shared.push(place)))
            })
            .collect();
        shared.consume(producers * each);
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
        assert_eq!(shared.pop(), None);
    });
}

#[test]
fn one_producer_never_leaves_its_consumer_asleep() {
    check(1, 1, None);
    check(1, 2, Some(3));
}

#[test]
fn nor_do_two() {
    check(2, 1, Some(2));
}

/// A consumer that sleeps is told once, whoever pushes meanwhile.
#[test]
fn only_the_first_push_tells() {
    loom::model(|| {
        let shared = Shared::new(2);
        assert!(shared.parking.park(|| shared.pop()).is_none());
        let other = Arc::clone(&shared);
        let thread = thread::spawn(move || other.push(0));
        shared.push(1);
        thread.join().unwrap();
        assert_eq!(shared.told.load(Relaxed), 1);
    });
}
