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
    for some in connections.chunks(at_a_time(connections.len())) {
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

/// How many of so many connections end at a time.
fn at_a_time(connections: usize) -> usize {
    connections.div_ceil(ENDINGS_MAX).max(ENDINGS_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::tests::{link, open};
    use megaphone_proto::control::CloseReason;

    const LOST: Ending = Ending::Reset(CloseReason::LinkLost);

    fn ended(connections: &[Arc<Connection>]) -> usize {
        let ended = connections.iter().filter(|one| one.is_finished());
        ended.count()
    }

    #[tokio::test(start_paused = true)]
    async fn clients_of_a_lost_link_end_some_at_a_time() {
        let link = link(0);
        let connections: Vec<_> = (0..ENDINGS_MIN * 3 + 1).map(|_| open(&link)).collect();
        end_all(&link, LOST, CancellationToken::new());
        assert_eq!(link.load(), 0);
        for some in 1..=4 {
            tokio::task::yield_now().await;
            let expected = connections.len().min(some * ENDINGS_MIN);
            assert_eq!(ended(&connections), expected);
            tokio::time::advance(ENDINGS_EVERY).await;
        }
    }

    #[test]
    fn however_many_they_are_it_takes_half_a_minute_at_most() {
        for connections in [0_usize, 1, 64, 192_000, 192_001, 1_000_000, 100_000_000] {
            let times = connections.div_ceil(at_a_time(connections)) as u32;
            assert!(times * ENDINGS_EVERY <= Duration::from_secs(30));
        }
        assert_eq!(at_a_time(1_000_000), 334);
    }

    #[tokio::test(start_paused = true)]
    async fn a_program_that_ends_waits_for_none_of_them() {
        let link = link(0);
        let connections: Vec<_> = (0..1000).map(|_| open(&link)).collect();
        let (stop, began) = (CancellationToken::new(), Instant::now());
        stop.cancel();
        spread(connections.clone(), LOST, stop).await;
        assert_eq!(ended(&connections), 1000);
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
