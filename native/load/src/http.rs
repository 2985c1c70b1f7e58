//! HTTP requests over kept-alive connections: requests a second, processor time, latency.

mod answer;
mod connection;
mod drive;
mod idle;
mod plan;
mod pool;
mod url;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::fleet::Errors;
use crate::generator::{Window, cpu_lines, duration, error_list, raise_descriptors, say};
use crate::summary::Summary;

use self::url::Url;

/// Descriptors that are needed beside the connections.
const OTHER_DESCRIPTORS: u64 = 32;

/// See `megaphone-load http --help`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Without --rate each connection sends its next request as soon as the last is answered (a closed
loop): that shows how many requests a server can do. With --rate requests fall due at that rate,
whether the server keeps up or not (an open loop), and latency counts from when a request was due:
one that waits for a free connection, behind slow ones, has waited. Requests are GET; answers need a
Content-Length, and count when their status is 200 to 299. A connection that ends is opened again
after a tenth of a second. One thread does all this.

The report has, of the window after the warm-up: requests answered, a second; latency percentiles in
microseconds; processor seconds of the generator and of each --server-pid; errors by kind.

  megaphone-load http http://127.0.0.1:5280/ok --connections 64 --for 10s
  megaphone-load http http://127.0.0.1:5280/ok --connections 1000 --rate 5000 --json
  megaphone-load http http://127.0.0.1:5280/ --idle 10000 --warm < some-pipe")]
pub struct Args {
    /// What to ask for: http://HOST[:PORT][/PATH]
    pub url: String,
    /// Connections, kept alive
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub connections: usize,
    /// Requests that fall due in a second, over all connections
    #[arg(long, value_name = "R")]
    pub rate: Option<f64>,
    /// How long to measure (500ms, 10s, 1m)
    #[arg(long = "for", value_name = "T", default_value = "10s", value_parser = duration)]
    pub time: Duration,
    /// How long to load before that, unmeasured
    #[arg(long, value_name = "T", default_value = "1s", value_parser = duration)]
    pub warm_up: Duration,
    /// How long all connections may take to open, and what was due at the end to be answered
    #[arg(long, value_name = "T", default_value = "10s", value_parser = duration)]
    pub patience: Duration,
    /// Send nothing: open N connections, report, and hold them until standard input ends
    #[arg(long, value_name = "N", conflicts_with_all = ["connections", "rate"])]
    pub idle: Option<usize>,
    /// With --idle: each connection has one request answered first
    #[arg(long, requires = "idle")]
    pub warm: bool,
    /// Say this process's processor time, too (may stand several times)
    #[arg(long = "server-pid", value_name = "PID")]
    pub server_pids: Vec<u32>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// What came of requests.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What was asked for.
    pub url: String,
    /// Connections that were kept open.
    pub connections: usize,
    /// Requests a second that fell due; nothing for as fast as answered.
    pub rate: Option<f64>,
    /// The window and what it cost.
    pub window: Window,
    /// Requests that were answered with a status of 200 to 299: in the window without a rate, with
    /// one all that were due in it, whenever that was.
    pub answered: u64,
    /// The same in a second.
    pub per_second: f64,
    /// From when a request was due to the end of its answer; without a rate, from when it was sent.
    pub latency: Summary,
    /// Requests sent over a millisecond after they were due although a connection was free: the
    /// generator's own fault.
    pub late: u64,
    /// Requests that were due when no connection was free, and waited for one.
    pub queued: u64,
    /// What went wrong since all connections were open, by kind.
    pub errors: Errors,
}

/// What came of opening connections that are then idle.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Idle {
    /// Connections that are held now.
    pub held: usize,
    /// From the first that was opened to the last, its first answer included where there is one.
    pub seconds: f64,
    /// Those that could not be opened, or were not answered, by kind.
    pub errors: Errors,
}

/// Runs it to its end. The error is for a person.
pub fn run(args: &Args) -> Result<(), String> {
    let url: Url = args.url.parse()?;
    let connections = args.idle.unwrap_or(args.connections);
    let most = raise_descriptors().saturating_sub(OTHER_DESCRIPTORS);
    if connections == 0 || connections as u64 > most {
        return Err(format!(
            "{connections} connections: 1 to {most} are possible here (ulimit -n)"
        ));
    }
    if args
        .rate
        .is_some_and(|rate| !rate.is_finite() || rate <= 0.0)
    {
        return Err("--rate is a number over 0".into());
    }
    match args.idle {
        Some(connections) => idle::run(args, &url, connections),
        None => {
            let report = drive::run(args, &url)?;
            say(&report, args.json)?;
            let none = || "no request was answered".to_owned();
            (report.answered > 0).then_some(()).ok_or_else(none)
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            latency, window, ..
        } = self;
        let rate = match self.rate {
            Some(rate) => format!("{rate} requests a second due"),
            None => "as fast as answered".into(),
        };
        writeln!(f, "{}: {} connections, {rate}", self.url, self.connections)?;
        let (answered, seconds) = (self.answered, window.seconds);
        let per_second = self.per_second;
        writeln!(
            f,
            "answered  {answered} in {seconds:.2} s, {per_second:.0} a second"
        )?;
        writeln!(
            f,
            "latency   p50 {} µs, p90 {} µs, p99 {} µs, p99.9 {} µs, longest {} µs",
            latency.p50, latency.p90, latency.p99, latency.p999, latency.max
        )?;
        if self.rate.is_some() {
            writeln!(
                f,
                "waited    {} for a free connection; {} were sent late by the generator's fault",
                self.queued, self.late
            )?;
        }
        writeln!(f, "{}", cpu_lines(window, answered, "requests"))?;
        write!(f, "errors    {}", error_list(&self.errors))
    }
}

impl fmt::Display for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "held      {} connections, after {:.2} s",
            self.held, self.seconds
        )?;
        write!(f, "errors    {}", error_list(&self.errors))
    }
}
