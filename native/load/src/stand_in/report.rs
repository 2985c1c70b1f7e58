//! What the stand-in did, for whoever compares it with what the tool saw.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::{Deserialize, Serialize};

use super::wire::lock;

/// What a stand-in did, printed as JSON when its standard input ends.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// TCP connections that were accepted.
    pub connections: u64,
    /// Users that logged in: a resource was bound.
    pub logins: u64,
    /// Logins that were refused, on purpose or for a wrong password, by SASL's condition.
    pub refused: BTreeMap<String, u64>,
    /// Messages with a body that users sent.
    pub messages: u64,
    /// Messages with a body that users were sent, the doubled twice.
    pub delivered: u64,
    /// Messages that were dropped on purpose.
    pub lost: u64,
    /// Messages that were sent twice on purpose.
    pub doubled: u64,
    /// Messages that were sent on purpose after the one that came behind them.
    pub swapped: u64,
    /// Messages in whose body one character was changed on purpose.
    pub damaged: u64,
    /// Messages that somebody else was sent on purpose.
    pub misdelivered: u64,
    /// Messages that were held back for `--delay`.
    pub delayed: u64,
    /// Messages to nobody who is here; the sender was told so.
    pub bounced: u64,
    /// Pings to users (`--ping`): XEP-0199's, and over WebSocket its own.
    pub pings: u64,
    /// Those that were answered well.
    pub pongs: u64,
    /// Times that reading stopped for `--stall`.
    pub stalls: u64,
    /// HTTP requests that were answered, BOSH's too, on TCP and on virtual connections.
    pub requests: u64,
    /// Links that came up.
    pub links: u64,
    /// Virtual connections that were opened on them.
    pub virtual_connections: u64,
}

/// The [`Report`] while it grows.
#[derive(Debug, Default)]
#[allow(missing_docs, reason = "each is the report's field of its name")]
pub struct Counts {
    pub connections: AtomicU64,
    pub logins: AtomicU64,
    pub refused: Mutex<BTreeMap<String, u64>>,
    pub messages: AtomicU64,
    pub delivered: AtomicU64,
    pub lost: AtomicU64,
    pub doubled: AtomicU64,
    pub swapped: AtomicU64,
    pub damaged: AtomicU64,
    pub misdelivered: AtomicU64,
    pub delayed: AtomicU64,
    pub bounced: AtomicU64,
    pub pings: AtomicU64,
    pub pongs: AtomicU64,
    pub requests: AtomicU64,
    pub links: AtomicU64,
    pub virtual_connections: AtomicU64,
}

impl Counts {
    /// One more login was refused.
    pub fn refused(&self, condition: &str) {
        *lock(&self.refused).entry(condition.to_owned()).or_default() += 1;
    }

    /// What was counted so far.
    pub fn report(&self, stalls: u64) -> Report {
        Report {
            connections: self.connections.load(Relaxed),
            logins: self.logins.load(Relaxed),
            refused: lock(&self.refused).clone(),
            messages: self.messages.load(Relaxed),
            delivered: self.delivered.load(Relaxed),
            lost: self.lost.load(Relaxed),
            doubled: self.doubled.load(Relaxed),
            swapped: self.swapped.load(Relaxed),
            damaged: self.damaged.load(Relaxed),
            misdelivered: self.misdelivered.load(Relaxed),
            delayed: self.delayed.load(Relaxed),
            bounced: self.bounced.load(Relaxed),
            pings: self.pings.load(Relaxed),
            pongs: self.pongs.load(Relaxed),
            stalls,
            requests: self.requests.load(Relaxed),
            links: self.links.load(Relaxed),
            virtual_connections: self.virtual_connections.load(Relaxed),
        }
    }
}

/// One more.
pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}
