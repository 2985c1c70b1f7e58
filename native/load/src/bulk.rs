//! Bytes as fast as they go, through one connection or many, and how fairly they are shared.

/// See `megaphone-load bulk --help`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs it to its end. The error is for a person.
pub fn run(_args: &Args) -> Result<(), String> {
    todo!()
}
