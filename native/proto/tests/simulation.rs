//! The canary in simulation: both ends of a link under virtual time, in worlds that differ by
//! their seed. Nothing is lost, doubled, reordered or delivered to another connection, whatever
//! breaks; `world/` has the rules.

mod world;

use std::time::{SystemTime, UNIX_EPOCH};

use world::choice::{Choices, mix};
use world::{Tally, World};

/// Says which seed a panic was in.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let seed = self.0;
            eprintln!(
                "seed {seed}. With all that happened: MEGAPHONE_SEED={seed} cargo test -p megaphone-proto --test simulation one_seed"
            );
        }
    }
}

fn run(seeds: impl Iterator<Item = u64>, trace: bool) -> Tally {
    let mut tally = Tally::default();
    for seed in seeds {
        let _seed = Seed(seed);
        tally += World::run(Choices::Seeded(seed), trace);
    }
    tally
}

#[test]
fn a_fixed_set_of_seeds() {
    let tally = run(1..=2_000, false);
    println!("{tally:?}");
    // All that may happen did, and often.
    assert!(tally.connections > 10_000 && tally.bytes > 10_000_000);
    assert!(tally.resumed > 2_000 && tally.refused > 200);
    assert!(tally.overflowed > 200 && tally.expired > 200 && tally.silent > 200);
    // A dial that comes late, for a link that has gone on or is over.
    assert!(tally.late > 0 && tally.old > 0);
}

#[test]
fn fresh_seeds() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let first = mix(now.as_nanos() as u64);
    println!(
        "{:?}",
        run((0..1_000).map(|n| first.wrapping_add(n)), false)
    );
}

/// Runs `MEGAPHONE_SEED` again, and tells all that happens.
#[test]
fn one_seed() {
    if let Ok(seed) = std::env::var("MEGAPHONE_SEED") {
        let seed = seed.parse().expect("MEGAPHONE_SEED is a number");
        run(std::iter::once(seed), true);
    }
}
