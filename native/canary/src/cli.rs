//! The command line.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use clap::{ArgGroup, Parser};

/// What `--help` ends with.
const AFTER_HELP: &str = "\
Put it around an ECM, whose backend is the proxy's port and whose service echoes
(test/canary_SUITE.erl does so; `make soak` runs that for as long as you like):

    megaphone-canary --node 127.0.0.1:6280 --ecm 127.0.0.1:5299 --clients 2000 --seconds 60

It says `proxy 127.0.0.1:PORT for 127.0.0.1:6280` first; start the ECM then: the clients
wait for it. Without --node there is no proxy and nothing is broken; without --ecm there
is only the proxy. The clients dial from 127.0.0.1 and need a port each.

The same seed gives the same sizes, pauses, ends and faults, in the same order; when each
comes depends on the machine.

The last line is the report as JSON. Exit status: 0 nothing was lost, 1 something was (the
report says the first: which connection, which position), 2 the command line is wrong.";

/// Thousands of clients whose every byte says which connection it belongs to and which
/// position it has there, and a proxy that breaks the links below them. The service
/// echoes; a client checks that what comes back is its own stream, whole and in order.
#[derive(Debug, Clone, Parser)]
#[command(name = "megaphone-canary", version, after_help = AFTER_HELP)]
#[command(group(ArgGroup::new("what").required(true).multiple(true).args(["ecm", "node"])))]
pub struct Cli {
    /// Where the clients dial: a listener of the ECM whose service echoes.
    #[arg(long, value_name = "ADDRESS")]
    pub ecm: Option<SocketAddr>,

    /// Where links go. For each there is a proxy, on a free port of 127.0.0.1.
    #[arg(long, value_name = "ADDRESS")]
    pub node: Vec<SocketAddr>,

    /// Runs what ran before again. Printed first; taken at random when it is not given.
    #[arg(long)]
    pub seed: Option<u64>,

    /// Connections at a time. Each that ends is followed by another.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub clients: u32,

    /// How long new bytes are sent and links are broken. What is under way then is finished.
    #[arg(long, value_name = "S", default_value = "20", value_parser = seconds)]
    pub seconds: Duration,

    /// The most bytes that a connection sends. Most send far fewer.
    #[arg(long, default_value_t = 262_144, value_parser = clap::value_parser!(u64).range(1..))]
    pub bytes: u64,

    /// The mean pause between two writes of a client.
    #[arg(long, value_name = "MS", default_value = "100", value_parser = milliseconds)]
    pub pause: Duration,

    /// How often each proxy breaks something in the whole time: a cut, a freeze.
    #[arg(long, default_value_t = 20)]
    pub cuts: u32,

    /// The longest that a proxy freezes a link or refuses dials at a stretch.
    #[arg(long, value_name = "MS", default_value = "4000", value_parser = milliseconds)]
    pub outage: Duration,

    /// How long a client waits for the next byte that is its due before it calls that a fault.
    #[arg(long, value_name = "S", default_value = "45", value_parser = seconds)]
    pub patience: Duration,

    /// Connections that end before a byte came back are counted as refused, and are no fault.
    #[arg(long)]
    pub may_refuse: bool,

    /// Each client sends 64 bytes, waits for them, pauses, and again, on one connection:
    /// for latencies. They and --seconds are counted from when all are connected.
    #[arg(long, requires = "ecm")]
    pub ping_pong: bool,
}

/// Seconds: more than a year are a mistake.
const SECONDS: RangeInclusive<f64> = 0.0..=31_536_000.0;

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(number) if SECONDS.contains(&number) => Ok(Duration::from_secs_f64(number)),
        _ => Err("seconds, such as 20 or 0.5".to_owned()),
    }
}

fn milliseconds(text: &str) -> Result<Duration, String> {
    match text.parse::<u32>() {
        Ok(number) => Ok(Duration::from_millis(number.into())),
        Err(_) => Err("milliseconds, such as 100".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn there_must_be_something_to_do() {
        assert!(Cli::try_parse_from(["megaphone-canary"]).is_err());
        assert!(Cli::try_parse_from(["megaphone-canary", "--node", "nowhere"]).is_err());
        assert!(
            Cli::try_parse_from([
                "megaphone-canary",
                "--ecm",
                "127.0.0.1:1",
                "--seconds",
                "-1"
            ])
            .is_err()
        );
        let cli = Cli::try_parse_from([
            "megaphone-canary",
            "--ecm",
            "127.0.0.1:1",
            "--seconds",
            "0.5",
        ])
        .unwrap();
        assert_eq!(cli.seconds, Duration::from_millis(500));
    }
}
