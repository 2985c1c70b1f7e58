//! What a worker is busy with.

use std::collections::VecDeque;
use std::mem;

use crate::clock;
use crate::fleet::total;
use crate::pace::Pace;
use crate::tally::Tally;
use crate::wire::{Answer, LoginCount, Tick};
use crate::worker::crowd::{Crowd, Gone, SETTLE, Turn, Watch};

/// Users that leave at a time.
const LEAVE_AT_ONCE: u32 = 64;

/// An order that is being obeyed.
pub(super) trait Task: Watch {
    /// Does what is due now.
    fn step(&mut self, crowd: &mut Crowd);

    /// As [`Task::step`], but only what cannot wait until the events at hand have been looked at.
    fn hurry(&mut self, _crowd: &mut Crowd) {}

    /// When there is something to do at the latest, whatever else happens.
    fn next_due(&self) -> Option<u64>;

    /// The answer, once there is no more to do.
    fn answer(&mut self, crowd: &mut Crowd, now: u64) -> Option<Answer>;

    /// How far it is.
    fn tick(&mut self, crowd: &Crowd) -> Tick;

    /// Whether this is an order at all.
    fn works(&self) -> bool {
        true
    }

    /// Number of the first conversation of the next chatter, of a chatter.
    fn conversations(&self) -> Option<u32> {
        None
    }
}

/// Between two orders.
#[derive(Debug)]
pub(super) struct Idle;

impl Watch for Idle {
    fn logged_in(&mut self, _user: u32, _due: u64) {}
    fn message(&mut self, _user: u32, _body: &str) {}
    fn gone(&mut self, _user: u32, _gone: Gone) {}
}

impl Task for Idle {
    fn step(&mut self, _crowd: &mut Crowd) {}

    fn next_due(&self) -> Option<u64> {
        None
    }

    fn answer(&mut self, _crowd: &mut Crowd, _now: u64) -> Option<Answer> {
        None
    }

    fn tick(&mut self, _crowd: &Crowd) -> Tick {
        Tick::default()
    }

    fn works(&self) -> bool {
        false
    }
}

/// Users log in: at a rate, or a number at a time.
#[derive(Debug)]
pub(super) struct LogIn {
    /// Those to log in, the last first.
    todo: Vec<u32>,
    pace: Option<Pace>,
    at_once: u32,
    pending: u32,
    count: LoginCount,
    latency: Tally,
    recent: Tally,
}

impl LogIn {
    /// Those of the first `users` who are out. With a rate, the first at `start`.
    pub(super) fn new(
        crowd: &Crowd,
        users: u32,
        rate: Option<f64>,
        at_once: u32,
        start: u64,
    ) -> Self {
        let todo: Vec<u32> = (0..users)
            .rev()
            .filter(|user| crowd.is_out(*user))
            .collect();
        Self {
            pace: rate.map(|rate| Pace::new(start, rate, todo.len() as u64)),
            todo,
            at_once: at_once.max(1),
            pending: 0,
            count: LoginCount::default(),
            latency: Tally::default(),
            recent: Tally::default(),
        }
    }

    fn take_due(&mut self, now: u64) -> Option<u64> {
        match &mut self.pace {
            Some(pace) => pace.take(now),
            None => (self.pending < self.at_once).then_some(now),
        }
    }

    fn fail(&mut self, kind: String) {
        *self.count.errors.entry(kind).or_default() += 1;
        // One that waits until the patience is at its end is not to make the others look slow.
        if self.count.logged_in == 0 {
            self.count.end = clock::now();
        }
    }
}

impl Watch for LogIn {
    fn logged_in(&mut self, _user: u32, due: u64) {
        let now = clock::now();
        self.recent.record(due, now);
        self.count.logged_in += 1;
        self.count.end = now;
        self.pending -= 1;
    }

    fn message(&mut self, _user: u32, _body: &str) {}

    fn gone(&mut self, _user: u32, gone: Gone) {
        if let Gone::Failed(kind) = gone {
            self.pending -= 1;
            self.fail(kind);
        }
    }
}

impl Task for LogIn {
    fn step(&mut self, crowd: &mut Crowd) {
        while !self.todo.is_empty() {
            let Some(due) = self.take_due(clock::now()) else {
                break;
            };
            let Some(user) = self.todo.pop() else { break };
            self.count.tried += 1;
            if self.count.begin == 0 {
                self.count.begin = due;
            }
            match crowd.join(user, due) {
                Ok(()) => self.pending += 1,
                Err(kind) => self.fail(kind),
            }
        }
    }

    fn hurry(&mut self, crowd: &mut Crowd) {
        if self.pace.is_some() {
            self.step(crowd);
        }
    }

    fn next_due(&self) -> Option<u64> {
        self.pace.as_ref()?.next_due()
    }

    fn answer(&mut self, _crowd: &mut Crowd, _now: u64) -> Option<Answer> {
        if self.pending > 0 || !self.todo.is_empty() {
            return None;
        }
        self.latency.add(&self.recent);
        self.count.latency = self.latency.encode();
        Some(Answer::Logins(mem::take(&mut self.count)))
    }

    fn tick(&mut self, crowd: &Crowd) -> Tick {
        let latency = self.recent.encode();
        self.latency.add(&self.recent);
        self.recent.clear();
        Tick {
            online: crowd.online(),
            failed: total(&self.count.errors),
            latency,
            ..Tick::default()
        }
    }
}

/// Users log out.
#[derive(Debug)]
pub(super) struct LogOut {
    todo: VecDeque<u32>,
    pending: u32,
    /// When to try again those who cannot leave yet.
    again: Option<u64>,
}

impl LogOut {
    /// All but the first `users`.
    pub(super) fn new(crowd: &Crowd, users: u32) -> Self {
        Self {
            todo: (users..crowd.places())
                .filter(|user| crowd.is_in(*user))
                .collect(),
            pending: 0,
            again: None,
        }
    }
}

impl Watch for LogOut {
    fn logged_in(&mut self, _user: u32, _due: u64) {}

    fn message(&mut self, _user: u32, _body: &str) {}

    fn gone(&mut self, _user: u32, gone: Gone) {
        // One who falls out before it was told to leave is in `todo` still.
        if gone == Gone::Left {
            self.pending -= 1;
        }
    }
}

impl Task for LogOut {
    fn step(&mut self, crowd: &mut Crowd) {
        let now = clock::now();
        self.again = None;
        for _ in 0..self.todo.len() {
            if self.pending >= LEAVE_AT_ONCE {
                break;
            }
            let Some(user) = self.todo.pop_front() else {
                break;
            };
            if crowd.is_in(user) && crowd.turn(user, now) == Turn::TooSoon {
                self.todo.push_back(user);
                self.again = Some(now + SETTLE);
            } else if crowd.is_in(user) {
                self.pending += 1;
                crowd.leave(user, self);
            }
        }
    }

    fn next_due(&self) -> Option<u64> {
        self.again
    }

    fn answer(&mut self, _crowd: &mut Crowd, _now: u64) -> Option<Answer> {
        (self.pending == 0 && self.todo.is_empty()).then_some(Answer::Done)
    }

    fn tick(&mut self, crowd: &Crowd) -> Tick {
        Tick {
            online: crowd.online(),
            ..Tick::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_end_with_the_last_that_ended_well() {
        let mut task = LogIn {
            todo: Vec::new(),
            pace: None,
            at_once: 64,
            pending: 3,
            count: LoginCount::default(),
            latency: Tally::default(),
            recent: Tally::default(),
        };
        let failed = || Gone::Failed("timed out: logging in".to_owned());
        task.gone(2, failed());
        let failure = task.count.end;
        assert!(failure > 0);
        task.logged_in(0, failure);
        let success = task.count.end;
        assert!(success > failure);
        task.gone(1, failed());
        assert_eq!(task.count.end, success);
        assert_eq!((task.pending, total(&task.count.errors)), (0, 2));
    }
}
