//! What connections may hold together, and how often each bound was hit.
//!
//! A connection's own bound is its window. A million windows are a promise that no machine keeps,
//! so what is held is counted for each link and for the node; over a bound the one connection that
//! would add to it is reset with `overload`, never the link.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use megaphone_proto::credit::Growth;

/// Bytes that may be held for connections of a node, unless configured otherwise.
const NODE_MAX_DEFAULT: i64 = 1 << 30;

/// What windows of the node's connections grow by.
pub static GROWTH: Growth = Growth::new(NODE_MAX_DEFAULT as u64);

/// A link tells the node's count of changes by so many bytes, and not of each frame: the node's
/// bound is exact to that, times the number of links.
const STEP: i64 = 64 << 10;

static NODE: Bound = Bound {
    now: AtomicI64::new(0),
    max: AtomicI64::new(NODE_MAX_DEFAULT),
    hits: Hits(AtomicU64::new(0)),
};

/// How often a bound was hit.
#[derive(Default)]
pub struct Hits(AtomicU64);

impl Hits {
    /// Counts one.
    pub fn add(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// How many there were.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

struct Bound {
    now: AtomicI64,
    max: AtomicI64,
    hits: Hits,
}

impl Bound {
    fn is_over(&self) -> bool {
        let over = self.now.load(Relaxed) > self.max.load(Relaxed);
        if over {
            self.hits.add();
        }
        over
    }
}

/// A bound as `info` shows it.
pub struct Shown {
    /// Bytes now.
    pub now: u64,
    /// Bytes at most.
    pub max: u64,
    /// How often it was hit.
    pub hits: u64,
}

impl From<&Bound> for Shown {
    fn from(bound: &Bound) -> Self {
        let number = |value: &AtomicI64| value.load(Relaxed).max(0) as u64;
        Shown {
            now: number(&bound.now),
            max: number(&bound.max),
            hits: bound.hits.get(),
        }
    }
}

/// Bytes held for the connections of one link: arrived and not taken, or given to `send` and
/// waiting for credit.
pub struct Held {
    link: Bound,
    /// What the node's count knows of it.
    told: AtomicI64,
}

impl Held {
    /// Nothing, of at most `max` bytes.
    pub fn new(max: u64) -> Self {
        let link = Bound {
            now: AtomicI64::new(0),
            max: AtomicI64::new(i64::try_from(max).unwrap_or(i64::MAX)),
            hits: Hits::default(),
        };
        Held {
            link,
            told: AtomicI64::new(0),
        }
    }

    /// One connection holds so many bytes more, or fewer.
    pub fn change(&self, by: i64) {
        let now = self.link.now.fetch_add(by, Relaxed) + by;
        let told = self.told.load(Relaxed);
        if (now - told).abs() >= STEP
            && self
                .told
                .compare_exchange(told, now, Relaxed, Relaxed)
                .is_ok()
        {
            NODE.now.fetch_add(now - told, Relaxed);
        }
    }

    /// Whether a connection that holds something must go. Counts it.
    pub fn is_over(&self) -> bool {
        self.link.is_over() || NODE.is_over()
    }

    /// The link's own.
    pub fn shown(&self) -> Shown {
        Shown::from(&self.link)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        NODE.now.fetch_sub(*self.told.get_mut(), Relaxed);
    }
}

/// The node's, over all links.
pub fn node() -> Shown {
    Shown::from(&NODE)
}

/// Sets how many bytes a node may hold for all its connections.
pub fn set_node_max(bytes: u64) {
    let max = i64::try_from(bytes).unwrap_or(i64::MAX);
    NODE.max.store(max, Relaxed);
    GROWTH.set_max_buffered(bytes);
}
