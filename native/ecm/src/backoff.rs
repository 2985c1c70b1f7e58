//! How long to wait before a link is dialled again.

use std::time::Duration;

/// Pauses that double from the shortest to the longest, each cut by up to a
/// half at random, so that a thousand ECMs do not dial in step.
#[derive(Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    /// Pauses from `min` to `max`.
    pub fn new(min: Duration, max: Duration) -> Self {
        Self {
            min,
            max,
            next: min,
        }
    }

    /// The next pause. `random` is any number, each as likely as another.
    pub fn pause(&mut self, random: u64) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(self.max);
        let share = (random >> 32) as f64 / f64::from(u32::MAX);
        whole.mul_f64(1.0 - share / 2.0)
    }

    /// The shortest of them.
    pub fn min(&self) -> Duration {
        self.min
    }

    /// Begins with the shortest again.
    pub fn reset(&mut self) {
        self.next = self.min;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_again() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(350));
        let pauses: Vec<_> = (0..4).map(|_| backoff.pause(0).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 350, 350]);
        backoff.reset();
        assert_eq!(backoff.pause(0).as_millis(), 100);
    }

    #[test]
    fn chance_cuts_a_pause_by_a_half_at_most() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(100));
        assert_eq!(backoff.pause(u64::MAX).as_millis(), 50);
        let middle = backoff.pause(u64::MAX / 2).as_millis();
        assert!((70..80).contains(&middle), "{middle}");
    }
}
