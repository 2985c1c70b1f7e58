//! Bytes as fast as they go, through one connection or many, and how fairly they are shared.

mod drive;
mod flow;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub(crate) use flow::{PERIOD, TURN, pattern};

use crate::fleet::Errors;
use crate::generator::{Window, cpu_lines, duration, error_list, raise_descriptors, say};

/// Descriptors that are needed beside the connections.
const OTHER_DESCRIPTORS: u64 = 32;

/// See `megaphone-load bulk --help`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
What answers is bench/bench_bulk.erl, as a listener of ejabberd's own or as a service of megaphone:
the first byte of a connection says `u`, and the server counts what follows up to the client's end
and answers with the count; or `d`, and it sends until the client closes, byte number N being N
modulo 251. One thread gives each connection that can move 64 KiB its turn.

Bytes count when the kernel takes or gives them, in the window after the warm-up: by then what lies
between is full, and what goes in is what comes out. Up, all bytes must have arrived at the end
(that is in errors if not); down, each read's ends are looked at. With more than 16 connections the
kernel's buffers for them are held to 64 MiB or so each way, or it would take seconds to fill them.
Reported are MB/s (10^6 bytes), the share of each connection and Jain's index of fairness: 1 when
all have the same, 1/N when one has all.

  megaphone-load bulk 127.0.0.1:5290 --connections 1000 --direction up --for 5s")]
pub struct Args {
    /// Where bench_bulk listens: HOST:PORT
    pub address: String,
    /// Connections
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub connections: usize,
    /// Whether to send (up) or to be sent (down)
    #[arg(long, value_enum)]
    pub direction: Direction,
    /// How long to measure (500ms, 10s, 1m)
    #[arg(long = "for", value_name = "T", default_value = "5s", value_parser = duration)]
    pub time: Duration,
    /// How long to go before that, unmeasured
    #[arg(long, value_name = "T", default_value = "1s", value_parser = duration)]
    pub warm_up: Duration,
    /// How long a connection may take to open, and all that was sent to arrive in the end
    #[arg(long, value_name = "T", default_value = "30s", value_parser = duration)]
    pub patience: Duration,
    /// Say this process's processor time, too (may stand several times)
    #[arg(long = "server-pid", value_name = "PID")]
    pub server_pids: Vec<u32>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Where the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// To the server.
    Up,
    /// From it.
    Down,
}

/// What came of moving bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Where they went.
    pub direction: Direction,
    /// Over how many connections.
    pub connections: usize,
    /// The window and what it cost.
    pub window: Window,
    /// Bytes that moved in it.
    pub bytes: u64,
    /// The same in 10^6 bytes a second.
    pub megabytes_per_second: f64,
    /// How they were shared.
    pub shares: Shares,
    /// What went wrong, by kind: `damaged` reads, counts that are not what was sent (`lost`).
    pub errors: Errors,
}

/// How bytes were shared among connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Shares {
    /// Jain's index: the square of the sum over N times the sum of squares. 1 is equal shares.
    pub jain: f64,
    /// Bytes of the connection with the fewest.
    pub min: u64,
    /// Bytes of the one in the middle.
    pub median: u64,
    /// Bytes of the connection with the most.
    pub max: u64,
}

impl Shares {
    /// Of the bytes of each connection, in any order.
    pub fn of(mut bytes: Vec<u64>) -> Self {
        bytes.sort_unstable();
        let (Some(&min), Some(&max)) = (bytes.first(), bytes.last()) else {
            return Self::default();
        };
        let sum: f64 = bytes.iter().map(|bytes| *bytes as f64).sum();
        let squares: f64 = bytes.iter().map(|bytes| (*bytes as f64).powi(2)).sum();
        let jain = match squares {
            0.0 => 0.0,
            _ => sum * sum / (bytes.len() as f64 * squares),
        };
        Self {
            jain,
            min,
            median: bytes[bytes.len() / 2],
            max,
        }
    }
}

/// Runs it to its end. The error is for a person.
pub fn run(args: &Args) -> Result<(), String> {
    let most = raise_descriptors().saturating_sub(OTHER_DESCRIPTORS);
    let connections = args.connections;
    if connections == 0 || connections as u64 > most {
        return Err(format!(
            "{connections} connections: 1 to {most} are possible here (ulimit -n)"
        ));
    }
    let report = drive::run(args)?;
    say(&report, args.json)?;
    match report.errors.is_empty() {
        true => Ok(()),
        false => Err("some of the bytes, or connections, were lost or damaged".into()),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (direction, shares) = (self.direction, &self.shares);
        let direction = match direction {
            Direction::Up => "up",
            Direction::Down => "down",
        };
        let (count, seconds) = (self.connections, self.window.seconds);
        let rate = self.megabytes_per_second;
        writeln!(
            f,
            "{direction:<9} {rate:.1} MB/s over {count} connections, {} bytes in {seconds:.2} s",
            self.bytes
        )?;
        writeln!(
            f,
            "shares    Jain's index {:.3}; least {}, median {}, most {} bytes",
            shares.jain, shares.min, shares.median, shares.max
        )?;
        writeln!(
            f,
            "{}",
            cpu_lines(&self.window, self.bytes / 1_000_000, "MB")
        )?;
        write!(f, "errors    {}", error_list(&self.errors))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jains_index_is_one_when_all_have_the_same_and_1_of_n_when_one_has_all() {
        let equal = Shares::of(vec![7; 10]);
        assert_eq!((equal.min, equal.median, equal.max), (7, 7, 7));
        assert!((equal.jain - 1.0).abs() < 1e-9);
        let one = Shares::of(vec![0, 0, 0, 9]);
        assert!((one.jain - 0.25).abs() < 1e-9);
        assert_eq!((one.min, one.median, one.max), (0, 0, 9));
        assert_eq!(Shares::of(vec![0, 0]).jain, 0.0);
        assert_eq!(Shares::of(vec![]), Shares::default());
    }
}
