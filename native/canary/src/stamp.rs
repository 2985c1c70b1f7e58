//! What every byte says: which connection it belongs to, and its position there.

/// The byte at a position is one of the eight of a number that is scrambled from the seed,
/// the connection and the position. A single byte in the wrong place passes as the right
/// one in 1 of 256 cases; the next ones then tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    key: u64,
}

/// Bytes that must agree before a place is believed to be where they came from.
const SIGNATURE: usize = 8;

impl Stamp {
    /// The stream of one connection of the run with this seed.
    pub fn new(seed: u64, connection: u64) -> Self {
        Self {
            key: mix(seed ^ mix(connection)),
        }
    }

    /// The byte at `position`.
    pub fn byte(self, position: u64) -> u8 {
        let word = mix(self.key.wrapping_add(position >> 3)).to_le_bytes();
        word[(position & 7) as usize]
    }

    /// Writes what belongs at `position` and after it.
    pub fn fill(self, position: u64, into: &mut [u8]) {
        for (at, byte) in (position..).zip(into) {
            *byte = self.byte(at);
        }
    }

    /// The index of the first byte that does not belong where it is.
    pub fn first_wrong(self, position: u64, bytes: &[u8]) -> Option<usize> {
        (position..)
            .zip(bytes)
            .position(|(at, byte)| *byte != self.byte(at))
    }

    /// Where in the first `length` bytes of this stream `bytes` are found, nearest to `near` first.
    pub fn find(self, bytes: &[u8], near: u64, length: u64) -> Option<u64> {
        let bytes = bytes.get(..SIGNATURE)?;
        let last = length.checked_sub(SIGNATURE as u64)?;
        let farthest = near.max(last.saturating_sub(near));
        (0..=farthest)
            .flat_map(|distance| [near.checked_sub(distance), near.checked_add(distance)])
            .flatten()
            .filter(|start| *start <= last)
            .find(|start| self.first_wrong(*start, bytes).is_none())
    }
}

/// splitmix64's last steps: each bit of the result depends on each of `number`.
/// <https://prng.di.unimi.it/splitmix64.c>
pub fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(connection: u64, length: usize) -> (Stamp, Vec<u8>) {
        let stamp = Stamp::new(7, connection);
        let mut bytes = vec![0; length];
        stamp.fill(0, &mut bytes);
        (stamp, bytes)
    }

    #[test]
    fn a_stream_is_the_same_however_it_is_cut() {
        let (stamp, bytes) = stream(1, 1000);
        for at in 0..1000 {
            assert_eq!(stamp.first_wrong(at as u64, &bytes[at..]), None);
        }
    }

    #[test]
    fn another_byte_is_seen_where_it_is() {
        let (stamp, mut bytes) = stream(1, 1000);
        bytes[777] ^= 1;
        assert_eq!(stamp.first_wrong(0, &bytes), Some(777));
        assert_eq!(stamp.first_wrong(778, &bytes[778..]), None);
    }

    #[test]
    fn other_connections_and_other_seeds_have_other_bytes() {
        let (_, bytes) = stream(1, 64);
        assert!(Stamp::new(7, 2).first_wrong(0, &bytes).is_some());
        assert!(Stamp::new(8, 1).first_wrong(0, &bytes).is_some());
    }

    #[test]
    fn bytes_are_found_where_they_belong() {
        let (stamp, bytes) = stream(1, 1000);
        assert_eq!(stamp.find(&bytes[501..], 500, 1000), Some(501));
        assert_eq!(stamp.find(&bytes[3..], 999, 1000), Some(3));
        assert_eq!(stamp.find(&bytes[501..], 500, 502), None);
        assert_eq!(stamp.find(b"12345678", 0, 1000), None);
        assert_eq!(stamp.find(b"1234567", 0, 1000), None);
    }
}
