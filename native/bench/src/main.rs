//! `megaphone-bench`: what `make bench` runs, by scripts/bench.

use std::process::ExitCode;

fn main() -> ExitCode {
    match megaphone_bench::cli::run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("scripts/bench: {error}");
            ExitCode::FAILURE
        }
    }
}
