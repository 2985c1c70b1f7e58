//! A synthetic edge: a million virtual connections on a node's links.

mod bulk;
mod dial;
mod drive;
mod edge;
mod outgoing;
mod peer;
mod prompt;
mod shared;
mod stream;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use megaphone_proto::limits::{DEFAULT_WINDOW, RESUME_TIMEOUT_DEFAULT};
use serde::{Deserialize, Serialize};

use crate::bulk::Direction;
use crate::fleet::Errors;
use crate::generator::{Window, cpu_lines, duration, error_list, raise_descriptors, say};
use crate::summary::Summary;

/// See `megaphone-load link --help`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Speaks docs/protocol.md, version 2, as an edge does: hello, credit, acknowledgements, answers to
pings; what is not acknowledged is kept, as for a resume. The service must send back what it is
sent, as bench/bench_echo.erl does. A connection is open when its first frame has come back; so many
as --opening are under way at a time, for a node refuses more than its accept_queue. Then in each
round one frame goes to every connection and must come back, whole, on its own connection; the node
decides how fast. One thread does all this. Clients' addresses are those of 198.18.0.0/15.

The report has the times until all were open and of each round, latencies from when a frame was
handed to the link to when it was back, in microseconds, and processor time. With --pause, `open` is
printed when all are open, and the rounds wait for a line on standard input; `done` after them, and
the end waits for another. The end of standard input stands for all of them.

With --bulk there are no rounds: bytes go as fast as they do, over one link, as `megaphone-load bulk`
has it, which describes the report. The service is to be bench/bench_bulk.erl. Windows are the
node's upwards; downwards --window is each connection's.

The node's listener must let it: max_connections (a link, 1,000,000 by default), accept_queue over
--opening, +P over the number of connections.

  megaphone-load link 127.0.0.1:6280 --service echo --connections 1000000 --links 4 --rounds 3
  megaphone-load link 127.0.0.1:6280 --service bulk --connections 16 --bulk up --for 5s")]
pub struct Args {
    /// Where the node listens for links: HOST:PORT or unix:/PATH
    pub address: String,
    /// Service that the connections are opened on; it must send back what comes
    #[arg(long, value_name = "NAME", default_value = "echo")]
    pub service: String,
    /// Connections, over all links
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub connections: usize,
    /// Links
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub links: usize,
    /// Rounds
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub rounds: usize,
    /// Bytes of a frame's content, 16 at least
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    pub payload: usize,
    /// Connections that are being opened at a time, over all links
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub opening: usize,
    /// Bytes that the node may send on a connection before it must wait
    #[arg(long, value_name = "BYTES", default_value_t = DEFAULT_WINDOW)]
    pub window: u32,
    /// How long a link would be kept if it dropped, in seconds; 0: nothing is kept or acknowledged
    #[arg(long, value_name = "SECONDS", default_value_t = RESUME_TIMEOUT_DEFAULT)]
    pub resume_timeout: u32,
    /// A file with the secret that the node's listener asks for
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// The longest that nothing may come while something is waited for
    #[arg(long, value_name = "T", default_value = "30s", value_parser = duration)]
    pub patience: Duration,
    /// Move bytes as fast as they go instead, to the node or from it
    #[arg(long, value_enum, value_name = "DIRECTION")]
    pub bulk: Option<Direction>,
    /// How long to measure with --bulk
    #[arg(long = "for", value_name = "T", default_value = "5s", value_parser = duration)]
    pub time: Duration,
    /// How long to go before that, unmeasured
    #[arg(long, value_name = "T", default_value = "1s", value_parser = duration)]
    pub warm_up: Duration,
    /// Say `open` and `done`, and go on with a line on standard input each
    #[arg(long)]
    pub pause: bool,
    /// Say this process's processor time, too (may stand several times)
    #[arg(long = "server-pid", value_name = "PID")]
    pub server_pids: Vec<u32>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// What came of virtual connections.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Connections that were wanted.
    pub connections: usize,
    /// Links that they were spread over.
    pub links: usize,
    /// Bytes of content of each frame.
    pub payload: usize,
    /// Connections that were open after the opening: their first frame had come back.
    pub opened: usize,
    /// From the first `open` to the last first frame that came back.
    pub open: Window,
    /// From a connection's `open` to its first frame's return.
    pub open_latency: Summary,
    /// Each round.
    pub rounds: Vec<Round>,
    /// Processor seconds of the generator over the opening and all rounds.
    pub generator_cpu: f64,
    /// Whether the node acknowledged too little for the link to be resumed, had it dropped.
    pub overflowed: bool,
    /// What went wrong, by kind: `damaged` frames, connections that the node ended (`closed: WHY`,
    /// `reset: WHY`, `ended`), frames that did not come back (`unanswered`).
    pub errors: Errors,
}

/// One frame to each connection and one back.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// From the first frame that went out to the last that came back.
    pub window: Window,
    /// Frames that came back whole on their own connection.
    pub answered: u64,
    /// From when a frame was handed to the link to its return.
    pub latency: Summary,
}

/// Runs it to its end. The error is for a person.
pub fn run(args: &Args) -> Result<(), String> {
    if args.connections == 0 || args.links == 0 || args.opening == 0 {
        return Err("--connections, --links and --opening are at least 1".into());
    }
    if !(peer::PAYLOAD_MIN..=peer::PAYLOAD_MAX).contains(&args.payload) {
        return Err("--payload is 16 to 1048576".into());
    }
    raise_descriptors();
    if let Some(direction) = args.bulk {
        let report = bulk::run(args, direction)?;
        say(&report, args.json)?;
        return match report.errors.is_empty() {
            true => Ok(()),
            false => Err("some of the bytes were lost or damaged".into()),
        };
    }
    let report = drive::run(args)?;
    say(&report, args.json)?;
    match report.errors.is_empty() {
        true => Ok(()),
        false => Err("not all frames came back as they were sent".into()),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (wanted, links) = (self.connections, self.links);
        let (opened, seconds) = (self.opened, self.open.seconds);
        let rate = opened as f64 / seconds.max(f64::MIN_POSITIVE);
        writeln!(
            f,
            "opened    {opened} of {wanted} connections over {links} links in {seconds:.2} s, {rate:.0} a second"
        )?;
        writeln!(f, "          {}", Latency(&self.open_latency))?;
        writeln!(f, "{}", cpu_lines(&self.open, opened as u64, "connections"))?;
        for (number, round) in self.rounds.iter().enumerate() {
            let (answered, seconds) = (round.answered, round.window.seconds);
            let rate = answered as f64 / seconds.max(f64::MIN_POSITIVE);
            writeln!(
                f,
                "round {:<3} {answered} frames of {} bytes there and back in {seconds:.2} s, {rate:.0} a second",
                number + 1,
                self.payload
            )?;
            writeln!(f, "          {}", Latency(&round.latency))?;
            writeln!(f, "{}", cpu_lines(&round.window, answered, "frames"))?;
        }
        if self.overflowed {
            writeln!(f, "resume    not possible: too little was acknowledged")?;
        }
        write!(f, "errors    {}", error_list(&self.errors))
    }
}

struct Latency<'a>(&'a Summary);

impl fmt::Display for Latency<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { p50, p99, max, .. } = self.0;
        write!(f, "latency p50 {p50} µs, p99 {p99} µs, longest {max} µs")
    }
}
