//! A count of bytes, kept small: there are two for each of a million connections.

use std::ops::AddAssign;

/// Bytes, up to one terabyte (2⁴⁰−1), where it stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total([u8; 5]);

impl Total {
    /// The most that is counted.
    pub const MAX: u64 = (1 << 40) - 1;

    /// How many.
    #[inline]
    pub fn get(self) -> u64 {
        let [a, b, c, d, e] = self.0;
        u64::from_le_bytes([a, b, c, d, e, 0, 0, 0])
    }
}

impl AddAssign<u64> for Total {
    #[inline]
    fn add_assign(&mut self, bytes: u64) {
        let sum = self.get().saturating_add(bytes).min(Self::MAX);
        let [a, b, c, d, e, ..] = sum.to_le_bytes();
        self.0 = [a, b, c, d, e];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_to_a_terabyte_and_stays_there() {
        let mut total = Total::default();
        total += 0x01_0203_0405;
        total += 1;
        assert_eq!(total.get(), 0x01_0203_0406);
        total += Total::MAX - total.get();
        assert_eq!(total.get(), Total::MAX);
        total += u64::MAX;
        assert_eq!(total.get(), Total::MAX);
    }
}
