//! A synthetic edge: a million virtual connections on a node's links.

/// See `megaphone-load link --help`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs it to its end. The error is for a person.
pub fn run(_args: &Args) -> Result<(), String> {
    todo!()
}
