//! Latencies, in HdrHistograms that travel from a worker to the fleet.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};

use crate::summary::Summary;

/// The longest latency that is told from longer ones, in microseconds.
pub const LONGEST: u64 = 60_000_000;

/// Latencies in microseconds, 1 µs to 60 s, to three digits.
#[derive(Debug, Clone)]
pub struct Tally(Histogram<u64>);

impl Default for Tally {
    fn default() -> Self {
        // These bounds are constants that a histogram takes.
        #[allow(clippy::expect_used)]
        Self(Histogram::new_with_bounds(1, LONGEST, 3).expect("bounds of a histogram"))
    }
}

impl Tally {
    /// Counts what was due at `due` and happened at `now`, both in nanoseconds.
    pub fn record(&mut self, due: u64, now: u64) {
        self.0
            .saturating_record((now.saturating_sub(due) / 1000).max(1));
    }

    /// Adds another's.
    pub fn add(&mut self, other: &Self) {
        // Cannot fail: both have the same bounds.
        let _ = self.0.add(&other.0);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.0.reset();
    }

    /// What it says.
    pub fn summary(&self) -> Summary {
        Summary::from(&self.0)
    }

    /// As text: HdrHistogram's V2 format in base64.
    pub fn encode(&self) -> String {
        let mut bytes = Vec::new();
        // Writing to a vector cannot fail, nor do counts overflow the format.
        let _ = V2Serializer::new().serialize(&self.0, &mut bytes);
        STANDARD.encode(bytes)
    }

    /// From such a text; the error is for a person.
    pub fn decode(text: &str) -> Result<Self, String> {
        let bytes = STANDARD.decode(text).map_err(|error| error.to_string())?;
        let histogram = Deserializer::new()
            .deserialize::<u64, _>(&mut bytes.as_slice())
            .map_err(|error| error.to_string())?;
        let mut tally = Self::default();
        tally.0.add(histogram).map_err(|error| error.to_string())?;
        Ok(tally)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_tally_travels(latencies in prop::collection::vec(0u64..100_000_000_000, 0..100)) {
            let mut tally = Tally::default();
            for latency in &latencies {
                tally.record(5, 5 + latency);
            }
            let back = Tally::decode(&tally.encode()).expect("what was encoded");
            prop_assert_eq!(back.summary(), tally.summary());
            prop_assert_eq!(back.summary().count, latencies.len() as u64);
            let mut sum = back.clone();
            sum.add(&tally);
            prop_assert_eq!(sum.summary().count, 2 * latencies.len() as u64);
            prop_assert_eq!(sum.summary().p99, tally.summary().p99);
        }
    }

    #[test]
    fn what_happens_before_it_is_due_takes_no_time() {
        let mut tally = Tally::default();
        tally.record(2_000_000, 1_000_000);
        assert_eq!(tally.summary().max, 1);
        tally.record(0, u64::MAX);
        assert!(tally.summary().max >= LONGEST);
    }

    #[test]
    fn what_is_no_tally_is_refused() {
        assert!(Tally::decode("?").is_err());
        assert!(Tally::decode("AAAA").is_err());
    }
}
