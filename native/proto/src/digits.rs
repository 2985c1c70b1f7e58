//! Decimal digits of a fixed width, eight at a time in one machine word.

use crate::limits::HEAD_LEN;

const ZEROS: u64 = 0x3030_3030_3030_3030;

/// Eight ASCII digits in one word, the first in the lowest byte, as differences from `0`.
#[derive(Clone, Copy)]
pub(crate) struct Digits(u64);

impl Digits {
    #[inline]
    pub(crate) fn eight(bytes: &[u8; HEAD_LEN], at: usize) -> Digits {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[at..at + 8]);
        Digits(u64::from_le_bytes(word) ^ ZEROS)
    }

    /// Four digits, behind four zeros.
    #[inline]
    pub(crate) fn four(bytes: &[u8; HEAD_LEN], at: usize) -> Digits {
        let mut word = [b'0'; 8];
        word[4..].copy_from_slice(&bytes[at..at + 4]);
        Digits(u64::from_le_bytes(word) ^ ZEROS)
    }

    /// Not 0 when a byte is no digit: then it has its high bit set, or gets it by adding what
    /// takes 10 there and not 9.
    #[inline]
    pub(crate) fn wrong(self) -> u64 {
        (self.0 | self.0.wrapping_add(0x7676_7676_7676_7676)) & 0x8080_8080_8080_8080
    }

    /// The number they stand for, when none is wrong: neighbours are joined to lanes of two,
    /// four and eight digits, by one multiplication each.
    #[inline]
    pub(crate) fn number(self) -> u64 {
        let pairs = (self.0.wrapping_mul((10 << 8) + 1) >> 8) & 0x00ff_00ff_00ff_00ff;
        let fours = (pairs.wrapping_mul((100 << 16) + 1) >> 16) & 0x0000_ffff_0000_ffff;
        fours.wrapping_mul((10_000 << 32) + 1) >> 32
    }
}

/// The inverse of [`Digits::number`]: eight zero-padded digits of a number below 10⁸.
#[inline]
pub(crate) fn put_digits8(number: u64) -> [u8; 8] {
    debug_assert!(number < 100_000_000);
    // Each step splits every lane in two by a reciprocal that is exact for the lane's range.
    let fours = (number / 10_000) | ((number % 10_000) << 32);
    let hundreds = ((fours * 10_486) >> 20) & 0x0000_007f_0000_007f;
    let pairs = hundreds | ((fours - hundreds * 100) << 16);
    let tens = ((pairs * 103) >> 10) & 0x000f_000f_000f_000f;
    let ones = tens | ((pairs - tens * 10) << 8);
    (ones + ZEROS).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digits(text: &[u8; 8]) -> Digits {
        let mut bytes = [b'x'; HEAD_LEN];
        bytes[..8].copy_from_slice(text);
        Digits::eight(&bytes, 0)
    }

    #[test]
    fn eight_digits_there_and_back() {
        // Each half takes each of its values, alone and with the other.
        for half in 0..10_000 {
            for number in [half, half * 10_000, half * 10_001] {
                let text = put_digits8(number);
                assert_eq!(text, format!("{number:08}").as_bytes());
                assert_eq!(digits(&text).number(), number);
            }
        }
    }

    #[test]
    fn each_byte_that_is_no_digit_is_found_in_each_place() {
        for at in 0..8 {
            for byte in 0..=255 {
                for others in [b'0', b'9'] {
                    let mut text = [others; 8];
                    text[at] = byte;
                    let right = digits(&text).wrong() == 0;
                    assert_eq!(right, byte.is_ascii_digit(), "{byte} at {at}");
                }
            }
        }
    }
}
