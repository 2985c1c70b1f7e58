//! Which link a client gets, and how long it waits for one.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::connection::Connection;
use crate::link::{Caller, Link};
use crate::sync::lock;

/// The links that are up or parked.
#[derive(Debug)]
pub struct Links {
    up: Mutex<Vec<Arc<Link>>>,
    /// A link came up.
    changed: Notify,
    /// How many clients more may wait for one.
    waiting: Semaphore,
    /// How long one may.
    wait: Duration,
    stop: CancellationToken,
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
    /// This program ends.
    #[error("shutdown")]
    Stopped,
}

impl Links {
    /// No link yet. Of the clients that come in the meantime `max_waiting`
    /// wait for up to `wait`, and none when `stop` is called.
    pub fn new(max_waiting: usize, wait: Duration, stop: CancellationToken) -> Self {
        Self {
            up: Mutex::default(),
            changed: Notify::new(),
            waiting: Semaphore::new(max_waiting),
            wait,
            stop,
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
    }

    /// Opens a connection on the link that has the fewest, waiting a while
    /// for one to come up if there is none.
    ///
    /// # Errors
    /// There was none to be had.
    pub async fn open(&self, caller: Caller<'_>) -> Result<Arc<Connection>, NoLink> {
        if self.stop.is_cancelled() {
            return Err(NoLink::Stopped);
        }
        match self.try_open(caller) {
            Some(connection) => Ok(connection),
            // In a box, so that a client's task keeps no room for it.
            None => Box::pin(self.wait_to_open(caller)).await,
        }
    }

    async fn wait_to_open(&self, caller: Caller<'_>) -> Result<Arc<Connection>, NoLink> {
        let _place = self
            .waiting
            .try_acquire()
            .map_err(|_| NoLink::TooManyWait)?;
        let deadline = Instant::now() + self.wait;
        loop {
            let changed = self.changed.notified();
            if let Some(connection) = self.try_open(caller) {
                return Ok(connection);
            }
            tokio::select! {
                in_time = timeout_at(deadline, changed) => if in_time.is_err() {
                    // A link without room may have some by now.
                    return self.try_open(caller).ok_or(NoLink::Down);
                },
                () = self.stop.cancelled() => return Err(NoLink::Stopped),
            }
        }
    }

    fn try_open(&self, caller: Caller<'_>) -> Option<Arc<Connection>> {
        let mut links = lock(&self.up).clone();
        links.sort_by_key(|link| link.load());
        links.iter().find_map(|link| link.open(caller))
    }
}
