//! What a chat message says: who sent it when, in which conversation, and a padding that follows
//! from it, so that whoever gets it sees whether it is whole.
//!
//! ```text
//! <conversation> <sequence> <due> <from> <to> <check> <padding>
//! ```
//!
//! All numbers are decimal but the check, which is eight hexadecimal digits that follow from the
//! numbers before it. All of it is printable ASCII that needs no escaping in XML.

use std::fmt::Write;

/// What a message's body says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Number of the conversation: one sender, one receiver.
    pub conversation: u32,
    /// Which message of the conversation, from 0.
    pub sequence: u32,
    /// When it should have been sent: monotonic nanoseconds.
    pub due: u64,
    /// Who sends.
    pub from: u32,
    /// To whom.
    pub to: u32,
}

/// What a padding is made of: 64 characters, one for six bits.
const ALPHABET: &[u8; 64] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-";

impl Stamp {
    /// Makes `body` the message's text: `size` bytes, or more where the stamp alone is longer.
    pub fn write(&self, size: usize, body: &mut String) {
        body.clear();
        let hash = self.hash();
        let check = hash >> 32;
        let Self {
            conversation,
            sequence,
            due,
            from,
            to,
        } = self;
        // Writing to a `String` cannot fail.
        let _ = write!(
            body,
            "{conversation} {sequence} {due} {from} {to} {check:08x} "
        );
        let mut bits = hash;
        while body.len() < size {
            bits = mix(bits);
            for character in 0..10.min(size - body.len()) {
                body.push(char::from(
                    ALPHABET[(bits >> (6 * character)) as usize & 63],
                ));
            }
        }
    }

    /// Reads the stamp at a body's start. `None` if that is none, or is not what was written.
    pub fn read(body: &str) -> Option<Self> {
        let mut fields = body.splitn(7, ' ');
        let stamp = Self {
            conversation: fields.next()?.parse().ok()?,
            sequence: fields.next()?.parse().ok()?,
            due: fields.next()?.parse().ok()?,
            from: fields.next()?.parse().ok()?,
            to: fields.next()?.parse().ok()?,
        };
        let check = u64::from_str_radix(fields.next()?, 16).ok()?;
        (check == stamp.hash() >> 32).then_some(stamp)
    }

    fn hash(&self) -> u64 {
        let names = u64::from(self.from) << 32 | u64::from(self.to);
        let place = u64::from(self.conversation) << 32 | u64::from(self.sequence);
        mix(mix(mix(names) ^ place) ^ self.due)
    }
}

/// One step of splitmix64: every bit of the result depends on every bit of `bits`.
fn mix(bits: u64) -> u64 {
    let mut z = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_stamp_is_read_as_it_was_written(
            (conversation, sequence, due, from, to, size) in
                any::<(u32, u32, u64, u32, u32, u8)>()
        ) {
            let stamp = Stamp { conversation, sequence, due, from, to };
            let mut body = String::new();
            stamp.write(size.into(), &mut body);
            prop_assert_eq!(Stamp::read(&body), Some(stamp));
            prop_assert!(body.len() == usize::from(size) || body.ends_with(' '));
            prop_assert!(body.bytes().all(|byte| matches!(byte, b' '..=b'~')));
            prop_assert!(!body.contains(['<', '>', '&', '"', '\'']));
        }

        /// No damage of one byte goes unseen: the stamp is not read, or the text is another than
        /// the stamp's.
        #[test]
        fn a_damaged_byte_is_seen(sequence: u32, due: u64, place: prop::sample::Index, by in 1u8..) {
            let stamp = Stamp { conversation: 7, sequence, due, from: 1, to: 2 };
            let mut body = String::new();
            stamp.write(120, &mut body);
            let mut bytes = body.clone().into_bytes();
            let place = place.index(bytes.len());
            bytes[place] = (bytes[place] ^ by) & 0x7f;
            let damaged = String::from_utf8(bytes).expect("ASCII");
            if damaged != body && let Some(read) = Stamp::read(&damaged) {
                let mut whole = String::new();
                read.write(120, &mut whole);
                prop_assert_ne!(whole, damaged);
            }
        }
    }

    #[test]
    fn what_is_no_stamp_is_not_read() {
        for body in [
            "",
            "hello",
            "1 2 3 4 5 6",
            "1 2 3 4 5 zzzzzzzz ",
            "-1 2 3 4 5 0 ",
        ] {
            assert_eq!(Stamp::read(body), None, "{body:?}");
        }
    }
}
