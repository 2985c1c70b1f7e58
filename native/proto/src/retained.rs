//! What was written to a link and may have to be written again: all that the peer has not
//! acknowledged, under a bound.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};

use crate::error::LinkError;

/// The bytes of one direction since the handshake, as far as the peer may lack them.
///
/// ```text
///   0         start              at              sent
///   ├───────────┼─────────────────┼────────────────┤
///    peer has it       kept, until acknowledged
///                                  written on an earlier transport, not yet on this one
/// ```
///
/// Winding back forgets nothing: a transport may break while it repeats, and a dial that was
/// given up may come late, with a `received` that is no longer true.
///
/// A `Retained` that has forgotten something it might need cannot be resumed from, for good;
/// it then only counts.
#[derive(Debug)]
pub struct Retained {
    /// In the order written; the first begins at `start`.
    chunks: VecDeque<Bytes>,
    start: u64,
    at: u64,
    sent: u64,
    max: usize,
    resumable: bool,
}

impl Retained {
    /// Keeps at most `max` bytes; 0 keeps none, for links that are not resumed.
    pub fn new(max: usize) -> Self {
        Retained {
            chunks: VecDeque::new(),
            start: 0,
            at: 0,
            sent: 0,
            max,
            resumable: max > 0,
        }
    }

    /// `bytes` are handed to the transport now, behind all that were before: what was wound back
    /// once more, and then what is new.
    pub fn push(&mut self, mut bytes: Bytes) {
        let again = (self.sent - self.at).min(bytes.len() as u64);
        self.at += bytes.len() as u64;
        bytes.advance(again as usize);
        self.sent += bytes.len() as u64;
        if self.resumable && !bytes.is_empty() {
            self.chunks.push_back(bytes);
            if self.bytes() > self.max {
                self.give_up();
            }
        }
    }

    /// The peer has `received` bytes since the handshake. Fewer than it had is old news, from
    /// before a link was resumed.
    ///
    /// # Errors
    /// More than it was sent: the link must be closed.
    pub fn acknowledge(&mut self, received: u64) -> Result<(), LinkError> {
        if received > self.sent {
            let sent = self.sent;
            return Err(LinkError::AckBeyond { received, sent });
        }
        if self.resumable {
            self.forget_to(received);
        }
        Ok(())
    }

    /// Could the link go on for a peer that has `received` bytes? No, when what the peer lacks is
    /// not here any more, or the peer is mistaken.
    pub fn may_rewind(&self, received: u64) -> bool {
        self.resumable && (self.start..=self.sent).contains(&received)
    }

    /// The link goes on, on another transport, for a peer that has `received` bytes: what is to be
    /// written again before anything new, in this order, and pushed again as it is. It takes the
    /// place of what an earlier call gave and was not written yet. `None`: not
    /// [`Retained::may_rewind`].
    pub fn rewind(&mut self, received: u64) -> Option<VecDeque<Bytes>> {
        if !self.may_rewind(received) {
            return None;
        }
        self.forget_to(received);
        self.at = received;
        Some(self.chunks.clone())
    }

    /// Whether the link could be resumed, as far as this direction is concerned.
    pub fn may_resume(&self) -> bool {
        self.resumable
    }

    /// Whether the bound was passed.
    pub fn overflowed(&self) -> bool {
        self.max > 0 && !self.resumable
    }

    /// Bytes that are kept.
    pub fn bytes(&self) -> usize {
        if self.resumable {
            (self.sent - self.start) as usize
        } else {
            0
        }
    }

    /// Bytes written since the handshake.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Keeps nothing from now on: the link will not be resumed.
    pub fn give_up(&mut self) {
        self.resumable = false;
        self.chunks = VecDeque::new();
    }

    fn forget_to(&mut self, received: u64) {
        while self.start < received
            && let Some(first) = self.chunks.front_mut()
        {
            let known = received - self.start;
            if known < first.len() as u64 {
                first.advance(known as usize);
                self.start = received;
            } else {
                self.start += first.len() as u64;
                self.chunks.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(max: usize) -> Retained {
        let mut retained = Retained::new(max);
        for chunk in ["abc", "", "defg", "h"] {
            retained.push(Bytes::from(chunk));
        }
        retained
    }

    fn again(retained: &mut Retained, received: u64) -> Option<String> {
        let chunks = retained.rewind(received)?;
        Some(chunks.iter().map(|c| str::from_utf8(c).unwrap()).collect())
    }

    #[test]
    fn what_the_peer_lacks_is_written_again_from_any_byte() {
        for received in 0..=8 {
            let mut retained = filled(8);
            let expected = &"abcdefgh"[received as usize..];
            assert_eq!(again(&mut retained, received).unwrap(), expected);
            retained.push(Bytes::from(expected));
            assert_eq!((retained.sent(), retained.bytes()), (8, expected.len()));
        }
    }

    /// The transport breaks after any byte of what is repeated, and the peer has any of them.
    #[test]
    fn a_repetition_may_break_off_and_be_repeated() {
        for written in 0..=10 {
            for received in 3..=8.max(written) {
                let mut retained = filled(10);
                assert_eq!(again(&mut retained, 3).unwrap(), "defgh");
                // A piece may reach from what is repeated into what is new.
                retained.push(Bytes::from(&"abcdefghij"[3..3.max(written)]));
                let sent = 8.max(written);
                assert_eq!(retained.sent(), sent as u64);
                let expected = &"abcdefghij"[received..sent];
                assert_eq!(again(&mut retained, received as u64).unwrap(), expected);
            }
        }
    }

    /// A dial that was given up comes late: what it says was true once.
    #[test]
    fn an_old_dial_costs_nothing() {
        let mut retained = filled(8);
        assert_eq!(again(&mut retained, 1).unwrap(), "bcdefgh");
        assert_eq!(again(&mut retained, 5).unwrap(), "fgh");
        assert!(!retained.may_rewind(4) && retained.rewind(4).is_none());
        assert_eq!(again(&mut retained, 8).unwrap(), "");
        retained.acknowledge(8).unwrap();
    }

    #[test]
    fn what_is_acknowledged_is_forgotten() {
        for received in 0..=8 {
            let mut retained = filled(8);
            retained.acknowledge(received).unwrap();
            assert_eq!(retained.bytes() as u64, 8 - received);
            // Old news changes nothing.
            retained.acknowledge(received.saturating_sub(1)).unwrap();
            assert_eq!(retained.bytes() as u64, 8 - received);
            if received > 0 {
                assert!(retained.rewind(received - 1).is_none());
            }
            assert_eq!(
                again(&mut retained, received).unwrap(),
                "abcdefgh"[received as usize..]
            );
        }
    }

    #[test]
    fn a_peer_cannot_have_more_than_was_sent() {
        let mut retained = filled(8);
        let error = retained.acknowledge(9).unwrap_err();
        assert_eq!(
            error.to_string(),
            "ack of 9 bytes, of which only 8 were sent"
        );
        assert!(!retained.may_rewind(9) && retained.rewind(9).is_none());
        assert!(Retained::new(0).acknowledge(1).is_err());
    }

    #[test]
    fn over_its_bound_it_gives_up_for_good() {
        let mut retained = filled(7);
        assert!(retained.overflowed() && !retained.may_resume());
        assert_eq!((retained.bytes(), retained.sent()), (0, 8));
        assert!(retained.rewind(8).is_none());
        retained.acknowledge(8).unwrap();
        assert!(!retained.may_resume());
        assert!(!filled(8).overflowed());
        let none = filled(0);
        assert!(!none.may_resume() && !none.overflowed() && none.sent() == 8);
    }
}
