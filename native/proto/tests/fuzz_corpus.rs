//! Every fuzz target with its committed corpus, and with some thousand changes of it, so that what
//! the targets check holds in each `cargo test`. The fuzzer itself is `make fuzz`.

#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use targets::{Choices, mix};

/// Changed inputs that each target gets.
const CHANGED: u64 = 2_000;
/// Bytes of an input, at most.
const INPUT_MAX: usize = 2_000;

/// Shows the input that a panic was with.
struct Input<'a>(&'a [u8]);

impl Drop for Input<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("with the input b\"{}\"", self.0.escape_ascii());
        }
    }
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(name);
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|f| f.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() >= 5, "{name} has no corpus");
    files
        .iter()
        .map(|file| std::fs::read(file).unwrap())
        .collect()
}

fn replay(name: &str, target: fn(&[u8])) {
    let corpus = corpus(name);
    let run = |input: &[u8]| {
        let _input = Input(input);
        target(input);
    };
    corpus.iter().for_each(|input| run(input));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    // The same changes each time, and fresh ones.
    for seed in [1, mix(now.as_nanos() as u64)] {
        let mut choices = Choices::Seeded(seed);
        for _ in 0..CHANGED / 2 {
            run(&changed(&corpus, &mut choices));
        }
    }
}

/// One of the corpus with a few changes, such as a fuzzer makes.
fn changed(corpus: &[Vec<u8>], choices: &mut Choices) -> Vec<u8> {
    let mut input = some(corpus, choices).to_vec();
    for _ in 0..=choices.below(4) {
        let at = choices.below(input.len() as u64 + 1) as usize;
        match choices.below(6) {
            0 => input.truncate(at),
            1 => input.insert(at, choices.below(256) as u8),
            2 => {
                let end = (at + choices.size(40) as usize).min(input.len());
                input.drain(at..end);
            }
            3 => {
                let other = some(corpus, choices);
                let from = choices.below(other.len() as u64 + 1) as usize;
                let to = (from + choices.size(100) as usize).min(other.len());
                input.splice(at..at, other[from..to].iter().copied());
            }
            _ => {
                if let Some(byte) = input.get_mut(at) {
                    *byte = choices.below(256) as u8;
                }
            }
        }
    }
    input.truncate(INPUT_MAX);
    input
}

fn some<'a>(corpus: &'a [Vec<u8>], choices: &mut Choices) -> &'a [u8] {
    &corpus[choices.below(corpus.len() as u64) as usize]
}

#[test]
fn frames() {
    replay("frames", targets::frames);
}

#[test]
fn control() {
    replay("control", targets::control);
}

#[test]
fn http_heads() {
    replay("http_heads", targets::http_heads);
}

#[test]
fn link_operations() {
    replay("link_operations", targets::link_operations);
}

#[test]
fn websocket() {
    replay("websocket", targets::websocket);
}

#[test]
fn http_requests() {
    replay("http_requests", targets::http_requests);
}
