//! How fast clients are given to ejabberd.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::sync::lock;

/// What may come at once after a quiet while: as much as in one second.
const BURST: Duration = Duration::from_secs(1);

/// A token bucket, kept as the time at which it would be full again (the
/// "generic cell rate algorithm", ITU-T I.371): no timer fills it.
#[derive(Debug)]
pub struct Rate {
    number: u32,
    interval: Duration,
    full: Mutex<Instant>,
}

impl Rate {
    /// So many in each second.
    pub fn per_second(number: u32) -> Self {
        Self {
            number,
            interval: Duration::from_secs(1) / number,
            full: Mutex::new(Instant::now()),
        }
    }

    /// What it was made with.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Takes the next turn. Returns how long it is until then; `None`, and
    /// takes none, where that is more than `patience`.
    pub fn turn(&self, now: Instant, patience: Duration) -> Option<Duration> {
        let mut full = lock(&self.full);
        let after = (*full).max(now) + self.interval;
        let wait = after.duration_since(now).saturating_sub(BURST);
        if wait > patience {
            return None;
        }
        *full = after;
        Some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    #[test]
    fn one_second_s_worth_goes_at_once_and_then_one_in_each_interval() {
        let rate = Rate::per_second(10);
        let now = Instant::now();
        for _ in 0..10 {
            assert_eq!(rate.turn(now, Duration::ZERO), Some(Duration::ZERO));
        }
        assert_eq!(rate.turn(now, Duration::ZERO), None);
        assert_eq!(rate.turn(now, Duration::MAX), Some(100 * MILLISECOND));
        assert_eq!(rate.turn(now, Duration::MAX), Some(200 * MILLISECOND));
        assert_eq!(rate.turn(now, 299 * MILLISECOND), None);
        assert_eq!(
            rate.turn(now + 100 * MILLISECOND, Duration::MAX),
            Some(200 * MILLISECOND)
        );
    }

    #[test]
    fn a_quiet_while_saves_no_more_than_the_burst() {
        let rate = Rate::per_second(2);
        let later = Instant::now() + Duration::from_secs(3600);
        let at_once = (0..10).filter(|_| rate.turn(later, Duration::ZERO).is_some());
        assert_eq!(at_once.count(), 2);
    }
}
