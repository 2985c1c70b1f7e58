//! `megaphone-load users`: logs in, holds, chatters, and says how it went.

mod format;
mod progress;
mod report;
mod server;
mod steps;
mod text;

use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::account::{Accounts, Mechanism};
use crate::fleet;
use crate::generator::duration;
use crate::target::Target;

pub use report::{Generator, Report, Step};
pub use server::{Cost, Memory};

const AFTER_HELP: &str = "\
What happens, for each number of users that --users names:
  1. Users log in until there are so many: at --rate logins a second, or as fast as the server
     answers, 64 at a time.
  2. They are held for --hold. What the server's memory is then is read (--server-pid,
     --erlang-node).
  3. Random pairs chatter for --for, at --chatter messages a second over all users. The rate is
     kept whatever the server does, and latency counts from when a message should have been sent.
     Each message is checked to arrive once, whole and in order. Meanwhile --churn users a second
     log out and in anew.
At the end all log out.

A worker process holds as many users as the hard limit of open files allows (ulimit -Hn), and
there are as many workers as that takes. From one source address to one address of the server about
28,000 connections are possible: for more give --sources, or several URLs.

Exit status: 0 if all went well; 1 if a login failed, a user fell out, or a message was lost,
doubled, out of order or damaged; or if the load could not be done at all.

Examples:
  1,000 anonymous users over BOSH, 100 logins a second, who chatter for a minute:
    megaphone-load users http://localhost:5280/bosh --users 1000 --rate 100 --chatter 500 --for 1m
  Accounts user1 ... user500 with passwords secret1 ... secret500 over STARTTLS:
    megaphone-load users xmpp://xmpp.example.org --starttls --users 500 \\
        --accounts user% --password secret% --chatter 100
  What a user costs the server: 1,000 and 10,000 of them, held for a minute each:
    megaphone-load users ws://localhost:5280/ws --users 1000,10000 --hold 60s \\
        --server-pid $(pidof beam.smp) --json report.json";

/// See `megaphone-load users --help`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Where to log in: xmpp://HOST[:PORT] (or xmpps:// for direct TLS), ws://HOST[:PORT]/PATH
    /// (wss://), or for BOSH http://HOST[:PORT]/PATH (https://). Several that differ in host and
    /// port only are taken in turn
    #[arg(required = true, value_name = "URL")]
    pub urls: Vec<String>,
    /// The XMPP domain [default: the URL's host]
    #[arg(long)]
    pub domain: Option<String>,

    /// How many users; several numbers are steps, one after the other, each larger than the last
    #[arg(long, value_name = "N[,N...]", value_delimiter = ',', default_value = "100",
          value_parser = clap::value_parser!(u32).range(1..10_000_000), help_heading = "Load")]
    pub users: Vec<u32>,
    /// Logins a second [default: as fast as the server answers, 64 at a time]
    #[arg(long, value_name = "PER SECOND", value_parser = rate, help_heading = "Load")]
    pub rate: Option<f64>,
    /// How long all are held before they chatter: 30s, 5m, 1h
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = duration,
          help_heading = "Load")]
    pub hold: Duration,
    /// Messages a second, over all users [default: none]
    #[arg(long, value_name = "PER SECOND", value_parser = rate, help_heading = "Load")]
    pub chatter: Option<f64>,
    /// How long they chatter
    #[arg(long = "for", value_name = "TIME", default_value = "10s", value_parser = duration,
          help_heading = "Load")]
    pub time: Duration,
    /// Users a second that log out and in anew while they chatter [default: none]
    #[arg(long, value_name = "PER SECOND", value_parser = rate, help_heading = "Load")]
    pub churn: Option<f64>,
    /// Bytes of a message's text; one shorter than 80 or so can be longer, for what it says of itself
    #[arg(long, value_name = "BYTES", default_value_t = 128,
          value_parser = clap::value_parser!(u32).range(0..=60_000), help_heading = "Load")]
    pub body: u32,
    /// How long a login may take, and a message to arrive after the last was sent
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration,
          help_heading = "Load")]
    pub patience: Duration,
    /// What random pairs are drawn by: the same number, the same pairs [default: another each time]
    #[arg(long, value_name = "NUMBER", help_heading = "Load")]
    pub seed: Option<u64>,

    /// Names of accounts, with % for the user's number (from 1; %%%% for 0001), instead of
    /// anonymous users
    #[arg(
        long,
        value_name = "PATTERN",
        requires = "password",
        help_heading = "Users"
    )]
    pub accounts: Option<String>,
    /// Their passwords, with % or the same for all
    #[arg(
        long,
        value_name = "PATTERN",
        requires = "accounts",
        help_heading = "Users"
    )]
    pub password: Option<String>,
    /// What they authenticate with: PLAIN, SCRAM-SHA-1 or SCRAM-SHA-256
    #[arg(
        long,
        value_name = "MECHANISM",
        default_value = "SCRAM-SHA-1",
        help_heading = "Users"
    )]
    pub mechanism: Mechanism,

    /// Addresses of this machine to connect from, in turn: 127.0.0.2,127.0.0.3
    #[arg(
        long,
        value_name = "ADDRESS[,ADDRESS...]",
        value_delimiter = ',',
        help_heading = "Connections"
    )]
    pub sources: Vec<IpAddr>,
    /// Begin TLS with STARTTLS (xmpp:// only)
    #[arg(long, help_heading = "Connections")]
    pub starttls: bool,
    /// Take any certificate
    #[arg(long, help_heading = "Connections")]
    pub insecure: bool,
    /// Worker processes [default: as many as the limit of open files asks for]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..1000),
          help_heading = "Connections")]
    pub workers: Option<u32>,

    /// Read processor time and memory (RSS, PSS) of this process; several are added up. It must
    /// be on this machine, and yours
    #[arg(long = "server-pid", value_name = "PID", help_heading = "The server")]
    pub server_pids: Vec<u32>,
    /// Ask this Erlang node for its own account of its memory. There must be an erl on the PATH
    #[arg(long, value_name = "NAME@HOST", help_heading = "The server")]
    pub erlang_node: Option<String>,
    /// The node's cookie. Other users can see a command line: better have it in the environment's
    /// ERLANG_COOKIE [default: that, or ~/.erlang.cookie]
    #[arg(
        long,
        value_name = "COOKIE",
        requires = "erlang_node",
        help_heading = "The server"
    )]
    pub erlang_cookie: Option<String>,
    /// The port it listens on for other nodes, if there is no epmd
    #[arg(
        long,
        value_name = "PORT",
        requires = "erlang_node",
        help_heading = "The server"
    )]
    pub erlang_port: Option<u16>,
    /// After that, have every process of the node collect its garbage, and read all anew. Later
    /// steps begin so much smaller
    #[arg(long, requires = "erlang_node", help_heading = "The server")]
    pub collect: bool,

    /// Write everything that was measured to this file; - is standard output, and the readable
    /// report is on standard error then
    #[arg(long, value_name = "FILE", help_heading = "Report")]
    pub json: Option<PathBuf>,
    /// No progress lines
    #[arg(long, short, help_heading = "Report")]
    pub quiet: bool,
}

/// Runs it to its end. The error is for a person.
pub fn run(args: &Args) -> Result<(), String> {
    if args.users.windows(2).any(|pair| pair[0] >= pair[1]) {
        return Err("--users: each number is to be larger than the last".into());
    }
    let report = steps::run(args, &options(args)?)?;
    let to_stdout = args
        .json
        .as_deref()
        .is_some_and(|file| file.as_os_str() == "-");
    let text = format!("{report}");
    let told = match to_stdout {
        true => io::stderr().write_all(text.as_bytes()),
        false => io::stdout().write_all(text.as_bytes()),
    };
    told.map_err(|error| format!("the report: {error}"))?;
    if let Some(file) = &args.json {
        let mut json = serde_json::to_string_pretty(&report).map_err(|error| error.to_string())?;
        json.push('\n');
        match to_stdout {
            true => io::stdout().write_all(json.as_bytes()),
            false => fs::write(file, json),
        }
        .map_err(|error| format!("{}: {error}", file.display()))?;
    }
    report.verdict()
}

fn options(args: &Args) -> Result<fleet::Options, String> {
    let accounts = match (&args.accounts, &args.password) {
        (Some(user), Some(password)) => Accounts::Pattern {
            user: user.clone(),
            password: password.clone(),
            mechanism: args.mechanism,
        },
        _ => Accounts::Anonymous,
    };
    Ok(fleet::Options {
        target: Target::parse(
            &args.urls,
            args.domain.as_deref(),
            args.starttls,
            args.insecure,
        )?,
        accounts,
        sources: args.sources.clone(),
        users: args.users.iter().copied().max().unwrap_or(0),
        body: args.body as usize,
        patience: args.patience,
        seed: args.seed.unwrap_or_else(|| fastrand::u64(..1 << 48)),
        program: std::env::current_exe().map_err(|error| format!("this program: {error}"))?,
    })
}

/// A number a second.
fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
        Ok(_) => Err("a rate is more than 0".into()),
        Err(error) => Err(error.to_string()),
    }
}
