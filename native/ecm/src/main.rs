//! The megaphone edge connection manager: holds the clients' sockets, and
//! carries them all to ejabberd over a few links.
//!
//! ```text
//!   clients ─► listener ─► watch ─► connection ─► outbox ─► writer ─► link
//!   clients ◄────────────────────── connection ◄─────────── reader ◄─ link
//! ```
//!
//! What each task waits for: a listener for clients, a watch for the sockets
//! of those it has, a reader and a writer for their link, a keeper for the end
//! of its link. A client has a task only while it waits for a link, or is told
//! the last. Nobody waits for another client.

mod answers;
mod app;
mod backend;
mod backoff;
mod balance;
mod budget;
mod cli;
mod config;
mod connection;
mod credentials;
mod dial;
mod drain;
mod farewell;
mod greet;
mod ids;
mod keeper;
mod limits;
mod link;
mod links;
mod listener;
mod log;
mod outbox;
mod parked;
mod port;
mod pulse;
mod rate;
mod reader;
mod session;
mod status;
mod summary;
mod sync;
mod tally;
mod tls;
mod totals;
mod unix;
mod values;
mod watch;
mod welcome;
mod wrong;

use std::process::ExitCode;

use clap::Parser;
use tracing::error;

use crate::cli::Cli;
use crate::config::{Config, Format, Level};
use crate::log::Target;
use crate::wrong::ConfigError;

/// It failed while running.
const FAILED: u8 = 1;

/// The configuration is wrong. clap uses the same for the command line.
const WRONG_CONFIG: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.check {
        return check(&cli);
    }
    match load(&cli) {
        Ok(config) => run(&cli, config),
        Err(error) => {
            // In the shape of the lines that the owner of a port reads.
            let _log = cli
                .port_program
                .then(|| log::start(Target::Stdout, Level::Info, Format::Plain));
            match cli.port_program {
                true => error!("{error}"),
                false => eprintln!("megaphone-ecm: {error}"),
            }
            ExitCode::from(WRONG_CONFIG)
        }
    }
}

fn load(cli: &Cli) -> Result<Config, ConfigError> {
    match &cli.config {
        Some(file) => Config::load(file),
        None => port::read_config(&mut std::io::stdin().lock()),
    }
}

fn check(cli: &Cli) -> ExitCode {
    match load(cli) {
        Ok(config) => {
            print!("{}", summary::Summary(&config));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("megaphone-ecm: {error}");
            ExitCode::from(WRONG_CONFIG)
        }
    }
}

fn run(cli: &Cli, config: Config) -> ExitCode {
    let _log = match cli.port_program {
        true => log::start(Target::Stdout, config.log.level, Format::Plain),
        false => log::start(Target::Stderr, config.log.level, config.log.format),
    };
    let ran = match cli.port_program {
        true => port::die_with_owner().map_err(app::RunError::Start),
        false => Ok(()),
    };
    match ran.and_then(|()| app::run(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error}");
            ExitCode::from(FAILED)
        }
    }
}
