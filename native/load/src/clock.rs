//! The time.

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Nanoseconds of the system's monotonic clock, which all processes share.
pub fn now() -> u64 {
    nanoseconds(clock_gettime(ClockId::Monotonic))
}

/// Nanoseconds that this process has run on a processor.
pub fn cpu() -> u64 {
    nanoseconds(clock_gettime(ClockId::ProcessCPUTime))
}

fn nanoseconds(time: Timespec) -> u64 {
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Seconds as nanoseconds.
pub fn from_seconds(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

/// Nanoseconds as seconds.
pub fn to_seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}
