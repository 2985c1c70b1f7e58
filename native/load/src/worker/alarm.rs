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

    /// Sets it to a time in monotonic nanoseconds, at once if that has passed; `None`: never.
    pub(super) fn set(&mut self, time: Option<u64>) -> io::Result<()> {
        // One that has rung is to be set anew, even to the same time.
        if self.set == time && time.is_none() {
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
