//! `megaphone-load`: the command line.

use std::process::ExitCode;

use clap::Parser;
use megaphone_load::cli::{Cli, Command};
use megaphone_load::{bulk, http, link, stand_in, users, worker};

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Users(args) => users::run(&args),
        Command::Http(args) => http::run(&args),
        Command::Bulk(args) => bulk::run(&args),
        Command::Link(args) => link::run(&args),
        Command::StandIn(args) => stand_in::run(&args),
        Command::Worker => worker::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("megaphone-load: {message}");
            ExitCode::FAILURE
        }
    }
}
