//! A link without a transport, and how the connections of one that is lost
//! end.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use megaphone_proto::Resume;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::connection::{Connection, Ending};
use crate::link::Link;
use crate::session::{Key, Session};

/// Connections of a lost link that end at a time, at least: so few that
/// neither ejabberd, to which their clients come again at once, nor this
/// program feels it as one blow.
const ENDINGS_MIN: usize = 64;

/// The pause between two such times.
const ENDINGS_EVERY: Duration = Duration::from_millis(10);

/// How many such times there are at most: all is over within 30 seconds. Of a
/// million connections 334 end at a time.
const ENDINGS_MAX: usize = 3000;

/// A link that dropped and may go on.
pub struct Parked {
    link: Arc<Link>,
    protocol: megaphone_proto::Link,
    key: Key,
    since: Instant,
}

/// Why a parked link is not waited for any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Given {
    /// Too late.
    #[error("not resumed within {} s", .0.as_secs())]
    Up(Duration),
    /// It takes no new connections, and the last one is gone.
    #[error("no connection is left on it")]
    Empty,
    /// ejabberd has a fresh one instead.
    #[error("ejabberd does not know it any more")]
    Unknown,
    /// The two sides do not agree on what was sent.
    #[error("ejabberd has {0} bytes of it, and cannot be sent what is behind them")]
    Apart(u64),
}

impl Parked {
    /// `link`, which has just dropped with `protocol` there.
    pub fn new(link: Arc<Link>, protocol: megaphone_proto::Link, key: Key) -> Self {
        Self {
            link,
            protocol,
            key,
            since: Instant::now(),
        }
    }

    /// The link.
    pub fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// How long it is parked.
    pub fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// How long it is kept from when it was parked.
    pub fn timeout(&self) -> Duration {
        self.key.timeout
    }

    /// Bytes of ejabberd's frames that came on it.
    pub fn received(&self) -> u64 {
        self.protocol.received()
    }

    /// How ejabberd is asked for it.
    pub fn asked_for(&self) -> Resume {
        Resume {
            link: self.key.link.clone(),
            token: self.key.token.clone(),
            received: self.received(),
        }
    }

    /// Waits until there is no use in it any more.
    pub async fn given_up(&self) -> Given {
        let timeout = self.key.timeout;
        tokio::select! {
            () = sleep_until(self.since + timeout) => Given::Up(timeout),
            () = self.link.drained() => Given::Empty,
        }
    }

    /// Goes on where ejabberd has `bytes` of what was sent. Also returns what
    /// is to be written again.
    ///
    /// # Errors
    /// It cannot go on from there.
    pub fn resume(self: Box<Self>, bytes: u64) -> Result<(Session, VecDeque<Bytes>), Box<Self>> {
        let Some(again) = self.link.resume(bytes) else {
            return Err(self);
        };
        let session = Session {
            link: self.link,
            protocol: self.protocol,
            key: Some(self.key),
        };
        Ok((session, again))
    }
}

/// Ends all connections of a link that is no more: client by client, spread
/// over a while; at once where `stop` is cancelled.
pub fn end_all(link: &Link, ending: Ending, stop: CancellationToken) {
    link.stop_accepting();
    let connections = link.take_some(usize::MAX, ending.reason());
    link.outbox().finish(None);
    tokio::spawn(spread(connections, ending, stop));
}

async fn spread(connections: Vec<Arc<Connection>>, ending: Ending, stop: CancellationToken) {
    let at_a_time = connections.len().div_ceil(ENDINGS_MAX).max(ENDINGS_MIN);
    for some in connections.chunks(at_a_time) {
        for connection in some {
            connection.finish(ending);
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = sleep(ENDINGS_EVERY) => {}
        }
    }
}
