//! What the generators `http`, `bulk` and `link` have in common: what a measured window costs, and
//! how a report is said.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::usage::Usage;

/// The longest latency that is told from a longer one, in microseconds: a minute.
const LATENCY_MAX: u64 = 60_000_000;

/// What a window took.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// How long it was, in seconds.
    pub seconds: f64,
    /// Processor seconds of the generator itself in it.
    pub generator_cpu: f64,
    /// Processor seconds of each `--server-pid` in it, in the order given, as the kernel counts
    /// them for other processes: to a hundredth of a second.
    pub server_cpu: Vec<f64>,
}

/// A window that has begun.
#[derive(Debug)]
pub struct Begun<'a> {
    pids: &'a [u32],
    at: Instant,
    own: f64,
    servers: Vec<f64>,
}

impl<'a> Begun<'a> {
    /// Begins a window now. Fails when one of `pids` is no process that may be looked at.
    pub fn now(pids: &'a [u32]) -> Result<Self, String> {
        Ok(Self {
            pids,
            servers: cpu_of(pids)?,
            own: own_cpu(),
            at: Instant::now(),
        })
    }

    /// When it began.
    pub fn at(&self) -> Instant {
        self.at
    }

    /// Ends it now. Fails as [`Begun::now`].
    pub fn end(self) -> Result<Window, String> {
        let seconds = self.at.elapsed().as_secs_f64();
        let generator_cpu = own_cpu() - self.own;
        let servers = cpu_of(self.pids)?;
        let used = |(now, before): (&f64, &f64)| now - before;
        Ok(Window {
            seconds,
            generator_cpu,
            server_cpu: servers.iter().zip(&self.servers).map(used).collect(),
        })
    }
}

fn cpu_of(pids: &[u32]) -> Result<Vec<f64>, String> {
    let cpu = |pid: &u32| match Usage::quick(*pid) {
        Ok(usage) => Ok(usage.cpu()),
        Err(error) => Err(format!("process {pid}: {error}")),
    };
    pids.iter().map(cpu).collect()
}

/// Processor seconds of all threads of this process so far.
fn own_cpu() -> f64 {
    clock::to_seconds(clock::cpu())
}

/// A histogram of microseconds, up to a minute, with three digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX, 3).expect("these bounds are good ones")
}

/// Counts a latency; one over a minute counts as a minute.
pub fn record(histogram: &mut Histogram<u64>, latency: Duration) {
    let micros = u64::try_from(latency.as_micros()).unwrap_or(LATENCY_MAX);
    histogram.saturating_record(micros.min(LATENCY_MAX));
}

/// Raises the limit of open files to what the system allows at most, and says what that is.
pub fn raise_descriptors() -> u64 {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    // What cannot be raised is found out when a descriptor is wanted.
    let _ = setrlimit(Resource::Nofile, raised);
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// The first address of `HOST:PORT`. Asks the system's resolver, and so may block.
pub fn resolve(address: &str) -> Result<SocketAddr, String> {
    let mut addresses = address
        .to_socket_addrs()
        .map_err(|error| format!("{address}: {error}"))?;
    addresses
        .next()
        .ok_or_else(|| format!("{address}: it has no address"))
}

/// A word for an error, to count it by.
pub fn kind(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "refused".into(),
        io::ErrorKind::ConnectionReset => "reset".into(),
        io::ErrorKind::BrokenPipe => "closed".into(),
        io::ErrorKind::TimedOut => "timeout".into(),
        other => other.to_string(),
    }
}

/// A time on the command line: `10s`, `1m 30s`, `500ms`.
pub fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| error.to_string())
}

/// Says a report on standard output: as one JSON object, or as it displays.
pub fn say<R: Serialize + std::fmt::Display>(report: &R, json: bool) -> Result<(), String> {
    if json {
        let line = serde_json::to_string(report).map_err(|error| error.to_string())?;
        println!("{line}");
    } else {
        println!("{report}");
    }
    Ok(())
}

/// The processor time of a window, as reports end with it: of a million of `count` things.
pub fn cpu_lines(window: &Window, count: u64, what: &str) -> String {
    let million = |cpu: f64| cpu * 1e6 / count.max(1) as f64;
    let mut lines = format!(
        "CPU       generator {:.2} s ({:.2} s per million {what})",
        window.generator_cpu,
        million(window.generator_cpu)
    );
    for (number, cpu) in window.server_cpu.iter().enumerate() {
        lines += &format!(
            "\n          server process {} {cpu:.2} s ({:.2} s per million {what})",
            number + 1,
            million(*cpu)
        );
    }
    lines
}

/// `a: 1, b: 2`, or `none`.
pub fn error_list(errors: &crate::fleet::Errors) -> String {
    if errors.is_empty() {
        return "none".into();
    }
    let each = errors
        .iter()
        .map(|(kind, count)| format!("{kind}: {count}"));
    each.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_says_what_the_generator_used_in_it() {
        let window = Begun::now(&[]).unwrap();
        let begun = window.at();
        let mut sum = 0u64;
        while begun.elapsed() < Duration::from_millis(20) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        let window = window.end().unwrap();
        assert!(window.seconds >= 0.02);
        assert!(window.generator_cpu > 0.0);
    }

    #[test]
    fn a_process_that_is_none_is_named() {
        let error = Begun::now(&[u32::MAX]).unwrap_err();
        assert!(error.starts_with("process 4294967295: "), "{error}");
    }

    #[test]
    fn latencies_over_a_minute_count_as_one() {
        let mut latencies = histogram();
        record(&mut latencies, Duration::from_secs(3600));
        record(&mut latencies, Duration::from_micros(5));
        assert_eq!(latencies.len(), 2);
        assert!(latencies.max() >= LATENCY_MAX);
    }
}
