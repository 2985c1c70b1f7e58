//! One virtual connection: what it is owed and what it owes.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;

use megaphone_proto::conn::Conn;

/// Bytes, the least of a frame's content: which connection and which round.
pub const PAYLOAD_MIN: usize = STAMP;

/// Bytes, the most of it: more says nothing that this does not.
pub const PAYLOAD_MAX: usize = 1024 * 1024;

const STAMP: usize = 16;

/// The first of the addresses for measuring (RFC 2544), of which there are 2¹⁷.
const FIRST_ADDRESS: u32 = u32::from_be_bytes([198, 18, 0, 0]);

/// Clients of one address, and the least port that they have.
const PORTS: usize = 60_000;
const FIRST_PORT: u16 = 1024;

/// A connection. There may be a million, so it is small.
#[derive(Debug)]
pub struct Peer {
    /// Its credit.
    pub conn: Conn,
    /// Which it is of all.
    pub number: u32,
    /// Bytes of the round's frame that wait for credit.
    pub unsent: u32,
    /// Bytes of it that have not come back.
    pub missing: u32,
    /// When it was handed to the link, in microseconds of the round.
    pub sent_at: u32,
    /// The last round whose frame came back; 0 before the first, which is number 1.
    pub answered: u32,
}

/// What is in the frames of a round.
#[derive(Debug)]
pub struct Payload {
    bytes: Vec<u8>,
    round: u32,
}

impl Payload {
    /// Content of `len` bytes, before the first round.
    pub fn new(len: usize) -> Self {
        Self {
            bytes: vec![0; len],
            round: 0,
        }
    }

    /// The next round's differs from this one's.
    pub fn next_round(&mut self) {
        self.round += 1;
    }

    /// Which round this is: 1 is the opening.
    pub fn round(&self) -> u32 {
        self.round
    }

    /// Its length.
    pub fn len(&self) -> u32 {
        self.bytes.len() as u32
    }

    /// Bytes `range` of the content for connection `number` in this round: no other has the same.
    /// Takes time for these bytes alone.
    pub fn part(&mut self, number: u32, range: Range<usize>) -> &[u8] {
        let stamp = (u128::from(number) << 64 | u128::from(self.round)).to_be_bytes();
        let whole = range.start / STAMP * STAMP..range.end;
        for part in self.bytes[whole].chunks_mut(STAMP) {
            part.copy_from_slice(&stamp[..part.len()]);
        }
        &self.bytes[range]
    }
}

/// The address that client `number` is said to have.
pub fn address(number: usize) -> SocketAddr {
    let ip = Ipv4Addr::from_bits(FIRST_ADDRESS + (number / PORTS) as u32 % (1 << 17));
    let port = FIRST_PORT + (number % PORTS) as u16;
    SocketAddr::new(ip.into(), port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_contents_are_alike() {
        let mut payload = Payload::new(50);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..3 {
            for number in [0, 1, 255, 256, u32::MAX] {
                assert!(seen.insert(payload.part(number, 0..50).to_vec()));
            }
            payload.next_round();
        }
        assert!(seen.iter().all(|content| content.len() == 50));
    }

    #[test]
    fn a_part_is_the_same_as_in_the_whole() {
        let whole = Payload::new(50).part(7, 0..50).to_vec();
        for (from, to) in [(0, 1), (15, 17), (20, 50), (33, 33), (50, 50)] {
            let mut payload = Payload::new(50);
            assert_eq!(payload.part(7, from..to), &whole[from..to]);
        }
    }

    #[test]
    fn clients_have_addresses_of_their_own() {
        let text = |number| address(number).to_string();
        assert_eq!(text(0), "198.18.0.0:1024");
        assert_eq!(text(59_999), "198.18.0.0:61023");
        assert_eq!(text(1_000_000), "198.18.0.16:41024");
    }

    #[test]
    fn a_million_of_them_fit() {
        assert!(size_of::<Peer>() <= 48, "{}", size_of::<Peer>());
    }
}
