//! When requests are due: at a rate alone, whatever the server does.

use std::time::{Duration, Instant};

/// How late a request may be sent before the generator is to blame for it.
const PUNCTUAL: Duration = Duration::from_millis(1);

/// The requests of an open loop.
#[derive(Debug)]
pub struct Plan {
    begin: Instant,
    rate: f64,
    /// Number of the next, from 0.
    next: u64,
    count: u64,
    /// No connection was free when the next request was due.
    queueing: bool,
    /// Requests sent late although a connection was free.
    pub late: u64,
    /// Requests for which no connection was free when they were due.
    pub queued: u64,
}

impl Plan {
    /// Requests at `rate` a second from `begin` for `time`.
    pub fn new(begin: Instant, rate: f64, time: Duration) -> Self {
        Self {
            begin,
            rate,
            next: 0,
            count: (rate * time.as_secs_f64()).round() as u64,
            queueing: false,
            late: 0,
            queued: 0,
        }
    }

    /// When the next request is due; `None` after the last.
    pub fn due(&self) -> Option<Instant> {
        let seconds = self.next as f64 / self.rate;
        (self.next < self.count).then(|| self.begin + Duration::from_secs_f64(seconds))
    }

    /// The next request is sent.
    pub fn sent(&mut self, now: Instant) {
        if let Some(due) = self.due() {
            if self.queueing {
                self.queued += 1;
            } else if now.saturating_duration_since(due) > PUNCTUAL {
                self.late += 1;
            }
        }
        self.next += 1;
        // Another one that has been waiting meanwhile waited for the same reason.
        self.queueing &= self.due().is_some_and(|due| due <= now);
    }

    /// A request is due and cannot be sent, for there is no free connection.
    pub fn stuck(&mut self) {
        self.queueing = true;
    }

    /// Requests that will never be sent.
    pub fn left(&self) -> u64 {
        self.count - self.next.min(self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_times_come_from_the_rate_alone() {
        let begin = Instant::now();
        let mut plan = Plan::new(begin, 1000.0, Duration::from_millis(3));
        for number in 0..3 {
            assert_eq!(plan.due(), Some(begin + Duration::from_millis(number)));
            plan.sent(begin + Duration::from_secs(1));
        }
        assert_eq!((plan.due(), plan.left(), plan.late), (None, 0, 3));
    }

    #[test]
    fn what_waited_for_a_connection_is_the_servers_fault() {
        let begin = Instant::now();
        let mut plan = Plan::new(begin, 1000.0, Duration::from_millis(10));
        plan.sent(begin);
        plan.stuck();
        let now = begin + Duration::from_millis(5);
        for _ in 1..=5 {
            plan.sent(now);
        }
        assert_eq!((plan.queued, plan.late), (5, 0));
        // All that was due is sent; the next is not, and comes late.
        plan.sent(begin + Duration::from_millis(8));
        assert_eq!((plan.queued, plan.late, plan.left()), (5, 1, 3));
    }
}
