//! HTTP requests over kept-alive connections: requests a second, processor time, latency.

/// See `megaphone-load http --help`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs it to its end. The error is for a person.
pub fn run(_args: &Args) -> Result<(), String> {
    todo!()
}
