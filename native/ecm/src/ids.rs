//! Connection ids: unguessable from outside, never zero, never twice.

use megaphone_proto::frame::ConnectionId;

/// Rounds of the permutation. Four make a strong one of any good round
/// function (Luby and Rackoff, 1988); an id is no secret, so this is enough.
const ROUNDS: usize = 4;

/// The ids of one link: a random permutation of 64-bit numbers, gone through
/// from a random start. Numbers drawn one by one would repeat sooner or
/// later (a link that lives for a year sees billions of clients); a
/// permutation cannot.
#[derive(Debug)]
pub struct Ids {
    next: u64,
    keys: [u64; ROUNDS],
}

impl Ids {
    /// A new sequence. Fails where the system has no random numbers.
    pub fn new() -> Result<Self, getrandom::Error> {
        let mut keys = [0; ROUNDS];
        for key in &mut keys {
            *key = getrandom::u64()?;
        }
        Ok(Self {
            next: getrandom::u64()?,
            keys,
        })
    }

    /// The next id.
    pub fn next(&mut self) -> ConnectionId {
        loop {
            let number = permute(self.next, &self.keys);
            self.next = self.next.wrapping_add(1);
            if number != 0 {
                return ConnectionId::new(number);
            }
        }
    }
}

/// A Feistel network on two halves of 32 bits: whatever [`mix`] is, no two
/// numbers come out alike.
fn permute(number: u64, keys: &[u64; ROUNDS]) -> u64 {
    let (mut left, mut right) = ((number >> 32) as u32, number as u32);
    for key in keys {
        (left, right) = (right, left ^ mix(right, *key));
    }
    (u64::from(left) << 32) | u64::from(right)
}

/// A half and a key to 32 bits that look like neither: the finish of
/// SplitMix64.
fn mix(half: u32, key: u64) -> u32 {
    let mut z = key ^ (u64::from(half).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn unpermute(number: u64, keys: &[u64; ROUNDS]) -> u64 {
        let (mut left, mut right) = ((number >> 32) as u32, number as u32);
        for key in keys.iter().rev() {
            (left, right) = (right ^ mix(left, *key), left);
        }
        (u64::from(left) << 32) | u64::from(right)
    }

    #[test]
    fn the_permutation_can_be_undone_so_no_id_comes_twice() {
        let ids = Ids::new().unwrap();
        for number in [0, 1, 2, u64::MAX, 1 << 32, 0xffff_ffff, ids.next] {
            assert_eq!(unpermute(permute(number, &ids.keys), &ids.keys), number);
        }
    }

    #[test]
    fn ids_are_distinct_and_spread() {
        let mut ids = Ids::new().unwrap();
        let seen: HashSet<u64> = (0..100_000).map(|_| ids.next().get()).collect();
        assert_eq!(seen.len(), 100_000);
        assert!(!seen.contains(&0));
        let upper_half = seen.iter().filter(|id| **id > u64::MAX / 2).count();
        assert!((45_000..55_000).contains(&upper_half), "{upper_half}");
    }
}
