//! A stand-in for a server: what generator and kernel cost by themselves, and every fault that the tool must see.

/// See `megaphone-load stand-in --help`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs it to its end. The error is for a person.
pub fn run(_args: &Args) -> Result<(), String> {
    todo!()
}
