//! A timer that is exact to microseconds, which epoll's own time-out (in milliseconds) is not.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

/// Wakes a poll at a given time.
#[derive(Debug)]
pub(super) struct Alarm {
    timer: OwnedFd,
    set: Option<u64>,
}

impl Alarm {
    /// Not set.
    pub(super) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        registry.register(&mut SourceFd(&timer.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Self { timer, set: None })
    }

    /// It has rung: even the same time is to be set anew.
    pub(super) fn rang(&mut self) {
        self.set = None;
    }

    /// Sets it to a time in monotonic nanoseconds, at once if that has passed; `None`: never.
    pub(super) fn set(&mut self, time: Option<u64>) -> io::Result<()> {
        if self.set == time {
            return Ok(());
        }
        self.set = time;
        let zero = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let value = match time {
            None => zero,
            // A time of 0 would stop the timer.
            Some(time) => Timespec {
                tv_sec: (time / 1_000_000_000) as i64,
                tv_nsec: ((time % 1_000_000_000) as i64).max(1),
            },
        };
        timerfd_settime(
            &self.timer,
            TimerfdTimerFlags::ABSTIME,
            &Itimerspec {
                it_interval: zero,
                it_value: value,
            },
        )?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use mio::{Events, Poll};

    use super::*;
    use crate::clock;

    #[test]
    fn it_rings_when_it_is_time_and_again() {
        let mut poll = Poll::new().expect("a poll");
        let mut alarm = Alarm::new(poll.registry(), Token(7)).expect("an alarm");
        let mut events = Events::with_capacity(4);
        for _ in 0..2 {
            // The second time is in the past: it rings at once.
            let time = clock::now() + 3_000_000;
            for _ in 0..2 {
                alarm.set(Some(time)).expect("set");
                poll.poll(&mut events, None).expect("a ring");
                assert_eq!(
                    events.iter().next().map(|event| event.token()),
                    Some(Token(7))
                );
                assert!(clock::now() >= time);
                alarm.rang();
            }
        }
    }

    #[test]
    fn one_that_is_not_set_does_not_ring() {
        let mut poll = Poll::new().expect("a poll");
        let mut alarm = Alarm::new(poll.registry(), Token(7)).expect("an alarm");
        alarm.set(Some(clock::now() + 20_000_000)).expect("set");
        alarm.set(None).expect("not set");
        let mut events = Events::with_capacity(4);
        let time = std::time::Duration::from_millis(40);
        poll.poll(&mut events, Some(time)).expect("a poll");
        assert!(events.is_empty());
    }
}
