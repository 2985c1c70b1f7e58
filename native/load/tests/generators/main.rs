//! The generators as programs, each against a small server that does right, or one thing wrong.

mod bulk;
mod http;
mod link;

use std::process::{Command, Output};

use serde::de::DeserializeOwned;

/// The program, with what is to follow `megaphone-load`.
fn load(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_megaphone-load"));
    command.args(args);
    command
}

/// What a run printed last, as a report, and whether it ended well.
fn report<R: DeserializeOwned>(output: &Output) -> (R, bool) {
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or_default();
    let report = serde_json::from_str(last)
        .unwrap_or_else(|error| panic!("{error}: {text:?} {:?}", errors(output)));
    (report, output.status.success())
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn every_generator_says_how_it_is_used() {
    for generator in ["http", "bulk", "link"] {
        let output = load(&[generator, "--help"]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let example = format!("  megaphone-load {generator} ");
        assert!(output.status.success() && text.contains(&example), "{text}");
    }
}
