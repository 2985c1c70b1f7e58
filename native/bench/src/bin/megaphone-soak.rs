//! `megaphone-soak`: the chatter part of `make soak`, by scripts/soak.

use std::process::ExitCode;

fn main() -> ExitCode {
    match megaphone_bench::soak::run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("scripts/soak: {error}");
            ExitCode::FAILURE
        }
    }
}
