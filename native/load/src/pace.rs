//! When things are due: at a rate, whatever becomes of those before (an open loop).

/// Events that are due at a steady rate. Times are monotonic nanoseconds.
#[derive(Debug, Clone)]
pub struct Pace {
    start: u64,
    interval: f64,
    done: u64,
    count: u64,
}

impl Pace {
    /// `count` events, the first at `start`, `rate` a second. Of a rate that is not above zero
    /// comes nothing.
    pub fn new(start: u64, rate: f64, count: u64) -> Self {
        let going = rate.is_finite() && rate > 0.0;
        Self {
            start,
            interval: if going { 1e9 / rate } else { 0.0 },
            done: 0,
            count: if going { count } else { 0 },
        }
    }

    /// When the next is due; `None` after the last.
    pub fn next_due(&self) -> Option<u64> {
        let due = || self.start + (self.done as f64 * self.interval) as u64;
        (self.done < self.count).then(due)
    }

    /// If one is due at `now`, takes it and says when it was due.
    pub fn take(&mut self, now: u64) -> Option<u64> {
        let due = self.next_due().filter(|due| *due <= now)?;
        self.done += 1;
        Some(due)
    }
}

/// The part of `total` that worker `worker` of `workers` has when they take turns.
pub fn share(total: u64, worker: u64, workers: u64) -> u64 {
    total / workers + u64::from(worker < total % workers)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However late it is asked, each is due when the rate says, and none is left out.
        #[test]
        fn due_times_come_from_the_rate_alone(
            rate in 0.1f64..1e6,
            count in 0u64..500,
            steps in prop::collection::vec(0u64..1_000_000_000_000, 0..50),
        ) {
            let start = 1_000_000;
            let mut pace = Pace::new(start, rate, count);
            let mut now = start;
            let mut due = Vec::new();
            for step in steps {
                while let Some(time) = pace.take(now) {
                    prop_assert!(time <= now);
                    due.push(time);
                }
                prop_assert!(pace.next_due().is_none_or(|next| next > now));
                now += step;
            }
            while let Some(time) = pace.take(u64::MAX) {
                due.push(time);
            }
            prop_assert_eq!(due.len() as u64, count);
            for (number, time) in due.iter().enumerate() {
                prop_assert_eq!(*time, start + (number as f64 * 1e9 / rate) as u64);
            }
        }

        #[test]
        fn shares_add_up(total in 0u64..1_000_000, workers in 1u64..100) {
            let shares: Vec<u64> = (0..workers).map(|worker| share(total, worker, workers)).collect();
            prop_assert_eq!(shares.iter().sum::<u64>(), total);
            prop_assert!(shares[0] - shares[workers as usize - 1] <= 1);
        }
    }

    #[test]
    fn no_rate_no_events() {
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(Pace::new(0, rate, 10).next_due(), None);
        }
    }
}
