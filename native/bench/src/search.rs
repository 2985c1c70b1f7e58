//! The search for the load that saturates a server.

use serde::{Deserialize, Serialize};

/// Where to look, and how closely.
#[derive(Debug, Clone, Copy)]
pub struct Search {
    /// The first rate that is tried.
    pub start: f64,
    /// No rate above this is tried.
    pub ceiling: f64,
    /// What the rate is multiplied by while the server holds it; more than 1.
    pub factor: f64,
    /// How often the gap between what held and what did not is halved afterwards.
    pub halvings: u32,
}

/// What was tried, in order, and what came of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// The highest rate that held; 0 when none did.
    pub rate: f64,
    /// Whether the search ended because it may go no higher, and not at the server's limit.
    pub ceiling: bool,
    /// Each rate that was tried.
    pub tries: Vec<Try>,
}

/// One rate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Try {
    /// Messages a second.
    pub rate: f64,
    /// Whether the server kept up.
    pub held: bool,
}

/// How often the first rate is divided before the search gives up.
const DESCENTS: u32 = 4;

impl Search {
    /// Looks for the highest rate for which `holds` says yes: upward by the factor (downward, where
    /// already the first does not hold), then by halving. An error of `holds` ends it.
    pub fn run<E>(&self, mut holds: impl FnMut(f64) -> Result<bool, E>) -> Result<Found, E> {
        let mut found = Found::default();
        let mut attempt = |rate: f64, found: &mut Found| -> Result<bool, E> {
            let held = holds(rate)?;
            found.tries.push(Try { rate, held });
            if held {
                found.rate = found.rate.max(rate);
            }
            Ok(held)
        };
        let mut rate = self.start.min(self.ceiling);
        let fails = if attempt(rate, &mut found)? {
            loop {
                if rate >= self.ceiling {
                    found.ceiling = true;
                    return Ok(found);
                }
                rate = (rate * self.factor).min(self.ceiling);
                if !attempt(rate, &mut found)? {
                    break rate;
                }
            }
        } else {
            let mut fails = rate;
            for _ in 0..DESCENTS {
                rate /= self.factor;
                if attempt(rate, &mut found)? {
                    break;
                }
                fails = rate;
            }
            if found.rate == 0.0 {
                return Ok(found);
            }
            fails
        };
        let (mut low, mut high) = (found.rate, fails);
        for _ in 0..self.halvings {
            let middle = f64::midpoint(low, high);
            if attempt(middle, &mut found)? {
                low = middle;
            } else {
                high = middle;
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEARCH: Search = Search {
        start: 500.0,
        ceiling: 64_000.0,
        factor: 2.0,
        halvings: 4,
    };

    fn limit(at: f64) -> Found {
        SEARCH.run(|rate| Ok::<_, ()>(rate <= at)).unwrap()
    }

    #[test]
    fn finds_a_limit_to_within_a_sixteenth_of_the_gap() {
        for at in [500.0, 777.0, 1_000.0, 5_300.0, 31_999.0] {
            let found = limit(at);
            assert!(
                found.rate <= at && found.rate > at * 0.93,
                "{at}: {found:?}"
            );
            assert!(!found.ceiling);
        }
    }

    #[test]
    fn a_limit_below_the_start_is_found_downward() {
        let found = limit(100.0);
        assert!(found.rate <= 100.0 && found.rate > 90.0, "{found:?}");
    }

    #[test]
    fn a_server_that_holds_nothing_has_no_rate() {
        let found = limit(0.0);
        assert_eq!(found.rate, 0.0);
        assert_eq!(found.tries.len(), 1 + DESCENTS as usize);
    }

    #[test]
    fn a_server_without_a_limit_ends_at_the_ceiling() {
        let found = limit(f64::INFINITY);
        assert_eq!((found.rate, found.ceiling), (64_000.0, true));
        assert!(found.tries.iter().all(|one| one.held));
    }

    #[test]
    fn says_what_it_tried_in_order() {
        let rates: Vec<f64> = limit(1_500.0).tries.iter().map(|one| one.rate).collect();
        assert_eq!(
            rates,
            [500.0, 1_000.0, 2_000.0, 1_500.0, 1_750.0, 1_625.0, 1_562.5]
        );
    }

    #[test]
    fn an_error_ends_it() {
        let mut calls = 0;
        let result = SEARCH.run(|_| {
            calls += 1;
            if calls == 3 { Err("gone") } else { Ok(true) }
        });
        assert_eq!((result, calls), (Err("gone"), 3));
    }
}
