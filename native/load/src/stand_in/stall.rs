//! A server that stops reading now and then, as one does that collects its garbage.

use std::sync::OnceLock;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Nothing is read for the last `time` of each `every`, counted from the first message or request.
#[derive(Debug)]
pub struct Stall {
    time: Duration,
    every: Duration,
    started: OnceLock<Instant>,
}

impl Stall {
    /// Nothing has come yet.
    pub fn new(time: Duration, every: Duration) -> Self {
        Self {
            time,
            every: every.max(time + Duration::from_millis(1)),
            started: OnceLock::new(),
        }
    }

    /// A message or request came: the first begins the count.
    pub fn begin(&self) {
        self.started.get_or_init(Instant::now);
    }

    /// Waits for the end of a stall. Who wakes late, in the next one, is not held again.
    pub async fn passed(&self) {
        if let Some(left) = self.left() {
            sleep(left).await;
        }
    }

    /// Stalls that have begun.
    pub fn count(&self) -> u64 {
        let elapsed = self.started.get().map(Instant::elapsed);
        elapsed.map_or(0, |elapsed| self.begun_after(elapsed))
    }

    /// How long the stall of now goes on.
    fn left(&self) -> Option<Duration> {
        self.left_after(self.started.get()?.elapsed())
    }

    fn left_after(&self, elapsed: Duration) -> Option<Duration> {
        let into = (elapsed.as_nanos() % self.every.as_nanos()) as u64;
        let into = Duration::from_nanos(into);
        (into >= self.every - self.time).then(|| self.every - into)
    }

    fn begun_after(&self, elapsed: Duration) -> u64 {
        ((elapsed + self.time).as_nanos() / self.every.as_nanos()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_the_end_of_each_period() {
        let millis = Duration::from_millis;
        let stall = Stall::new(millis(500), millis(2000));
        for (elapsed, left, begun) in [
            (0, None, 0),
            (1499, None, 0),
            (1500, Some(500), 1),
            (1999, Some(1), 1),
            (2000, None, 1),
            (3500, Some(500), 2),
        ] {
            let elapsed = millis(elapsed);
            assert_eq!(stall.left_after(elapsed), left.map(millis), "{elapsed:?}");
            assert_eq!(stall.begun_after(elapsed), begun, "{elapsed:?}");
        }
        // It begins with what comes first.
        assert_eq!((stall.left(), stall.count()), (None, 0));
    }

    #[tokio::test]
    async fn who_waits_for_its_end_waits_so_long() {
        let millis = Duration::from_millis;
        let stall = Stall::new(millis(50), millis(51));
        let begin = Instant::now();
        stall.begin();
        while stall.left().is_none() {
            tokio::task::yield_now().await;
        }
        stall.passed().await;
        assert!(begin.elapsed() >= millis(51));
    }
}
