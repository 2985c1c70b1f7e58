//! Where a run's decisions come from: a seed, or the bytes of a fuzzer.

/// A source of decisions. The same source decides the same every time.
pub enum Choices {
    /// Endless, from a seed.
    Seeded(u64),
    /// What a fuzzer gives; the run is over when it is used up.
    #[allow(dead_code, reason = "by fuzzers only")]
    Given(std::vec::IntoIter<u8>),
}

impl Choices {
    #[allow(dead_code, reason = "by fuzzers only")]
    pub fn given(bytes: Vec<u8>) -> Choices {
        Choices::Given(bytes.into_iter())
    }

    /// Is there nothing left to decide with?
    pub fn used_up(&self) -> bool {
        matches!(self, Choices::Given(bytes) if bytes.len() == 0)
    }

    /// A number from 0 up to and without `n`, which is not 0.
    pub fn below(&mut self, n: u64) -> u64 {
        match self {
            Choices::Seeded(state) => {
                *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                mix(*state) % n
            }
            Choices::Given(bytes) => {
                // As many bytes as the choice needs, so that a fuzzer's changes stay small.
                let size = if n <= 1 << 8 { 1 } else { 3 };
                let number = bytes
                    .take(size)
                    .fold(0, |sum, byte| sum << 8 | u64::from(byte));
                number % n
            }
        }
    }

    /// True once in `n` times.
    pub fn once_in(&mut self, n: u64) -> bool {
        // A source that is used up says no.
        self.below(n) == n - 1
    }

    /// Up to `max`; small ones are as likely as large ones.
    pub fn size(&mut self, max: u64) -> u64 {
        let bits = self.below(u64::from(max.ilog2()) + 2);
        self.below(1 << bits).min(max)
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, among: &[T]) -> Option<T> {
        match among.len() as u64 {
            0 => None,
            n => Some(among[self.below(n) as usize]),
        }
    }
}

/// A number that looks like chance and is not (SplitMix64).
pub fn mix(number: u64) -> u64 {
    let z = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}
