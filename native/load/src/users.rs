//! `megaphone-load users`: logs in, holds, chatters, and says how it went.

/// See `megaphone-load users --help`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs it to its end. The error is for a person.
pub fn run(_args: &Args) -> Result<(), String> {
    todo!()
}
