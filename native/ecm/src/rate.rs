//! How fast clients are given to ejabberd.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

/// What may come at once after a quiet while: as much as in one second.
const BURST: Duration = Duration::from_secs(1);

/// A token bucket with a queue before it, first come first served. Who leaves
/// the queue takes no turn with it: in a storm many give up while they wait.
#[derive(Debug)]
pub struct Rate {
    number: u32,
    interval: Duration,
    /// When the bucket would be full again, if nothing more came (the "generic
    /// cell rate algorithm", ITU-T I.371): no timer has to fill it. Who has
    /// the lock is next; tokio's is a fair one.
    full: Mutex<Instant>,
    queue: AtomicUsize,
}

/// A place in the queue.
struct Queued<'a>(&'a AtomicUsize);

impl Rate {
    /// So many in each second.
    pub fn per_second(number: u32) -> Self {
        Self {
            number,
            interval: Duration::from_secs(1) / number,
            full: Mutex::new(Instant::now()),
            queue: AtomicUsize::new(0),
        }
    }

    /// What it was made with.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Takes a turn, if there is one now and nobody waits for it.
    pub fn turn_now(&self) -> bool {
        let Ok(mut full) = self.full.try_lock() else {
            return false;
        };
        let (after, at) = self.next(*full);
        let now = at <= Instant::now();
        if now {
            *full = after;
        }
        now
    }

    /// Waits for a turn. `false`, and at once: it would take longer than
    /// `patience`.
    pub async fn turn(&self, patience: Duration) -> bool {
        let queued = Queued(&self.queue);
        let ahead = queued.0.fetch_add(1, Relaxed);
        let ahead = u32::try_from(ahead).unwrap_or(u32::MAX);
        if self.interval.saturating_mul(ahead) > patience {
            return false;
        }
        let mut full = self.full.lock().await;
        sleep_until(self.next(*full).1).await;
        *full = self.next(*full).0;
        true
    }

    /// When the bucket would be full after the next turn, and when that turn
    /// may be.
    fn next(&self, full: Instant) -> (Instant, Instant) {
        let after = full.max(Instant::now()) + self.interval;
        (after, after - BURST)
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::time::advance;

    const DAY: Duration = Duration::from_secs(86_400);

    #[tokio::test(start_paused = true)]
    async fn one_second_s_worth_goes_at_once_and_then_one_in_each_interval() {
        let rate = Rate::per_second(10);
        let began = Instant::now();
        for _ in 0..10 {
            assert!(rate.turn_now());
        }
        assert!(!rate.turn_now());
        for turn in 1..=5 {
            assert!(rate.turn(DAY).await);
            assert_eq!(began.elapsed().as_millis().div_ceil(100), turn);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_while_saves_no_more_than_the_burst() {
        let rate = Rate::per_second(2);
        advance(DAY).await;
        assert_eq!((0..10).filter(|_| rate.turn_now()).count(), 2);
    }

    /// How long each of `waiting` had to wait, after the burst.
    async fn waits<const N: usize>(rate: &Arc<Rate>, patience: [Duration; N]) -> [Option<u64>; N] {
        while rate.turn_now() {}
        let began = Instant::now();
        let mut waiting = Vec::new();
        for patience in patience {
            let rate = Arc::clone(rate);
            waiting.push(tokio::spawn(async move {
                let had = rate.turn(patience).await;
                had.then(|| began.elapsed().as_millis().div_ceil(100) as u64)
            }));
            tokio::task::yield_now().await;
        }
        let mut waits = [None; N];
        for (wait, waiting) in waits.iter_mut().zip(waiting) {
            *wait = waiting.await.unwrap();
        }
        waits
    }

    #[tokio::test(start_paused = true)]
    async fn who_would_wait_too_long_hears_it_at_once_and_takes_no_turn() {
        let rate = Arc::new(Rate::per_second(10));
        let little = Duration::from_millis(150);
        assert_eq!(
            waits(&rate, [DAY, DAY, little, DAY]).await,
            [Some(1), Some(2), None, Some(3)]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_takes_no_turn() {
        let rate = Rate::per_second(10);
        while rate.turn_now() {}
        let began = Instant::now();
        let gave_up = tokio::time::timeout(Duration::from_millis(50), rate.turn(DAY)).await;
        assert!(gave_up.is_err());
        assert!(rate.turn(DAY).await);
        assert_eq!(began.elapsed().as_millis().div_ceil(100), 1);
    }
}
