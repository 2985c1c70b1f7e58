//! Which link a client gets, and how long it waits for one.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::balance::Balancer;
use crate::config::Config;
use crate::connection::Connection;
use crate::link::{Caller, Link};
use crate::log::Hits;
use crate::rate::Rate;
use crate::sync::lock;
use crate::tally::{Counters, Limit};

/// The links that are up or parked.
#[derive(Debug)]
pub struct Links {
    up: Mutex<Vec<Arc<Link>>>,
    balancer: Balancer,
    /// What was counted on links that are no more.
    ended: Counters,
    /// A link came up.
    changed: Notify,
    /// How many clients may wait at a time.
    max_waiting: usize,
    /// How many clients more may wait.
    waiting: Semaphore,
    /// How often one more could not.
    too_many: Hits,
    /// How long one may wait for a link, and then for its turn.
    wait: Duration,
    /// How fast connections are opened, and how often one more was too many.
    rate: Option<Rate>,
    too_fast: Hits,
    draining: CancellationToken,
}

/// Why a client got no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoLink {
    /// None came up, or had room, in time.
    #[error("no link is up that has room")]
    Down,
    /// As many wait for one as may.
    #[error("no link is up, and as many clients as may (max_waiting) wait for one")]
    TooManyWait,
    /// As many wait for their turn as may.
    #[error("as many clients as may (max_waiting) wait for their turn (open_rate)")]
    TooManyTurns,
    /// Its turn would not come in time.
    #[error("its turn (open_rate) would come after more than connect_wait")]
    TooFast,
    /// This program ends.
    #[error("shutdown")]
    Stopped,
}

impl Links {
    /// No link yet, and clients that wait as `config` says: none when
    /// `draining` is cancelled.
    pub fn new(config: &Config, draining: CancellationToken) -> Self {
        let max_waiting = config.max_waiting.as_usize();
        Self {
            up: Mutex::default(),
            balancer: Balancer::new(config),
            ended: Counters::new(),
            changed: Notify::new(),
            max_waiting,
            waiting: Semaphore::new(max_waiting),
            too_many: Hits::new(),
            wait: config.connect_wait.get(),
            rate: config.open_rate.map(|rate| Rate::per_second(rate.as_u32())),
            too_fast: Hits::new(),
            draining,
        }
    }

    /// A link has come up.
    pub fn add(&self, link: Arc<Link>) {
        lock(&self.up).push(link);
        self.changed();
    }

    /// A link takes new connections, which it did not before.
    pub fn changed(&self) {
        self.changed.notify_waiters();
    }

    /// A link is gone. One that is parked is not.
    pub fn remove(&self, link: &Link) {
        lock(&self.up).retain(|other| !std::ptr::eq(Arc::as_ptr(other), link));
        self.ended.add(link.counters());
    }

    /// Those that are up or parked.
    pub fn all(&self) -> Vec<Arc<Link>> {
        lock(&self.up).clone()
    }

    /// What was counted on all there ever were.
    pub fn counters(&self) -> Counters {
        let all = Counters::new();
        all.add(&self.ended);
        for link in self.all() {
            all.add(link.counters());
        }
        all
    }

    /// Opens a connection on one of the links, if that can be done without
    /// waiting.
    pub fn open(&self, caller: Caller<'_>) -> Option<Arc<Connection>> {
        if self.draining.is_cancelled() {
            return None;
        }
        let has_turn = |rate: &Rate| self.takes_any() && rate.turn_now();
        match self.rate.as_ref().is_none_or(has_turn) {
            true => self.try_open(caller),
            false => None,
        }
    }

    /// Opens a connection on one of the links, where it could not be opened
    /// at once: waits a while for a link to come up if there is none, or for
    /// the client's turn if too many come.
    ///
    /// # Errors
    /// There was none to be had.
    pub async fn wait_to_open(&self, caller: Caller<'_>) -> Result<Arc<Connection>, NoLink> {
        if self.draining.is_cancelled() {
            return Err(NoLink::Stopped);
        }
        let Ok(_place) = self.waiting.try_acquire() else {
            self.too_many.hit();
            return Err(match self.takes_any() {
                true => NoLink::TooManyTurns,
                false => NoLink::TooManyWait,
            });
        };
        let deadline = Instant::now() + self.wait;
        let mut has_turn = self.rate.is_none();
        loop {
            let changed = self.changed.notified();
            // A turn is kept until it is of use.
            if !has_turn && self.takes_any() {
                self.take_turn().await?;
                has_turn = true;
            }
            if has_turn && let Some(connection) = self.try_open(caller) {
                return Ok(connection);
            }
            tokio::select! {
                in_time = timeout_at(deadline, changed) => if in_time.is_err() {
                    // A link without room may have some by now.
                    return match has_turn {
                        true => self.try_open(caller).ok_or(NoLink::Down),
                        false => Err(NoLink::Down),
                    };
                },
                () = self.draining.cancelled() => return Err(NoLink::Stopped),
            }
        }
    }

    /// Waits until this client may be opened.
    async fn take_turn(&self) -> Result<(), NoLink> {
        let Some(rate) = self.rate.as_ref().filter(|rate| !rate.turn_now()) else {
            return Ok(());
        };
        if let Some(hits) = self.too_fast.hit() {
            let (rate, waiting) = (rate.number(), self.limit_waiting().now);
            warn!("open_rate={rate} reached: {waiting} clients wait, {hits} had to so far");
        }
        tokio::select! {
            had = rate.turn(self.wait) => had.then_some(()).ok_or(NoLink::TooFast),
            () = self.draining.cancelled() => Err(NoLink::Stopped),
        }
    }

    /// Whether a connection could be opened.
    fn takes_any(&self) -> bool {
        lock(&self.up).iter().any(|link| link.accepts())
    }

    fn try_open(&self, caller: Caller<'_>) -> Option<Arc<Connection>> {
        let mut links = self.all();
        self.balancer.sort(&mut links, caller.peer.ip());
        links.iter().find_map(|link| link.open(caller))
    }
}

/// What status lines show.
impl Links {
    /// Clients that wait.
    pub fn limit_waiting(&self) -> Limit {
        Limit {
            name: "max_waiting",
            now: self.max_waiting - self.waiting.available_permits(),
            max: self.max_waiting,
            hits: self.too_many.count(),
        }
    }

    /// How often a client had to wait for its turn, or would have had to for
    /// too long.
    pub fn too_fast(&self) -> u64 {
        self.too_fast.count()
    }
}
