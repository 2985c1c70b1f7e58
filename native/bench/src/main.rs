//! `megaphone-bench`: what `make bench` runs.

fn main() {}
