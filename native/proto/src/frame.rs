//! Bytes to frames and back.
//!
//! [`Head`] is the pure pair of 32 bytes and their meaning; [`Decoder`] finds the heads in a
//! stream that comes in pieces of any size and hands on content as it comes. The frame is
//! drawn in docs/protocol.md.

use std::fmt;

use bytes::BufMut;
use thiserror::Error;

use crate::digits::{Digits, put_digits8};
use crate::limits::HEAD_LEN;

/// The name of one virtual connection on one link.
///
/// Displays as the 20 zero-padded digits that stand on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(u64);

impl ConnectionId {
    /// Id 0, the control channel of a version 2 link. Never a client.
    pub const CONTROL: ConnectionId = ConnectionId(0);

    /// The id with this number; every number is one.
    #[inline]
    pub const fn new(number: u64) -> Self {
        ConnectionId(number)
    }

    /// The number itself.
    #[inline]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Is this the control channel, and so no client's connection?
    #[inline]
    pub const fn is_control(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:020}", self.0)
    }
}

/// What the first 32 bytes of a frame say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The connection that the frame belongs to.
    pub id: ConnectionId,
    /// Bytes of content that follow: the length on the wire without the head's own 32.
    pub content: u32,
}

impl Head {
    /// Reads a head, and refuses content of more than `max_content` bytes.
    ///
    /// # Errors
    /// A byte that is not the digit or the `|` that must stand there, a length below 32 or over
    /// the limit, an id over 2⁶⁴−1. The link cannot be used any further.
    #[inline]
    pub fn parse(bytes: &[u8; HEAD_LEN], max_content: u32) -> Result<Head, FrameError> {
        match Self::parse_common(bytes) {
            Some(head) if head.content <= max_content => Ok(head),
            _ => Self::parse_any(bytes, max_content),
        }
    }

    /// Reads the heads that there are many of. `None` says nothing, only that a closer look is
    /// needed: the head may be wrong, or one of the rare ones whose length has more than eight
    /// digits or whose id begins with 1844.
    #[inline]
    fn parse_common(bytes: &[u8; HEAD_LEN]) -> Option<Head> {
        let length = Digits::eight(bytes, 2);
        let (id_high, id_mid, id_low) = (
            Digits::four(bytes, 11),
            Digits::eight(bytes, 15),
            Digits::eight(bytes, 23),
        );
        let wrong = length.wrong() | id_high.wrong() | id_mid.wrong() | id_low.wrong();
        let rest = [bytes[0], bytes[1], bytes[10], bytes[31]];
        if wrong != 0 || rest != *b"00||" || id_high.number() >= 1844 {
            return None;
        }
        let content = length.number().checked_sub(HEAD_LEN as u64)? as u32;
        let id = id_high.number() * 10_000_000_000_000_000
            + id_mid.number() * 100_000_000
            + id_low.number();
        Some(Head {
            id: ConnectionId(id),
            content,
        })
    }

    /// Reads any head, one byte and one rule at a time.
    #[cold]
    fn parse_any(bytes: &[u8; HEAD_LEN], max_content: u32) -> Result<Head, FrameError> {
        let wrong = |problem| FrameError {
            problem,
            head: *bytes,
        };
        for (at, byte) in bytes.iter().enumerate() {
            match at {
                10 | 31 if *byte != b'|' => return Err(wrong(FrameProblem::BadSeparator { at })),
                10 | 31 => {}
                _ if !byte.is_ascii_digit() => return Err(wrong(FrameProblem::BadDigit { at })),
                _ => {}
            }
        }
        let number = |field: &[u8]| {
            let mut digits = field.iter().map(|digit| u64::from(digit - b'0'));
            digits.try_fold(0u64, |sum, digit| sum.checked_mul(10)?.checked_add(digit))
        };
        let length = number(&bytes[..10]).unwrap_or(u64::MAX);
        let max = u64::from(max_content) + HEAD_LEN as u64;
        if length < HEAD_LEN as u64 {
            return Err(wrong(FrameProblem::TooShort { length }));
        }
        if length > max {
            return Err(wrong(FrameProblem::TooLong { length, max }));
        }
        let id = number(&bytes[11..31]).ok_or(wrong(FrameProblem::IdTooLarge))?;
        Ok(Head {
            id: ConnectionId(id),
            content: (length - HEAD_LEN as u64) as u32,
        })
    }

    /// The 32 bytes that stand for this head on the wire.
    #[inline]
    pub fn encode(self) -> [u8; HEAD_LEN] {
        let length = u64::from(self.content) + HEAD_LEN as u64;
        let id = self.id.0;
        let mut bytes = [b'|'; HEAD_LEN];
        bytes[..2].copy_from_slice(&put_digits8(length / 100_000_000)[6..]);
        bytes[2..10].copy_from_slice(&put_digits8(length % 100_000_000));
        bytes[11..15].copy_from_slice(&put_digits8(id / 10_000_000_000_000_000)[4..]);
        bytes[15..23].copy_from_slice(&put_digits8(id / 100_000_000 % 100_000_000));
        bytes[23..31].copy_from_slice(&put_digits8(id % 100_000_000));
        bytes
    }
}

/// Writes a whole frame; empty content says that this direction of the stream ends.
///
/// The caller has cut `content` to what the peer takes in one frame, which is never over 4 GiB.
#[inline]
pub fn put_frame(id: ConnectionId, content: &[u8], out: &mut impl BufMut) {
    put_head(id, content.len(), out);
    out.put_slice(content);
}

/// Writes the head of one frame, for `content` bytes that the caller puts behind it.
#[inline]
pub fn put_head(id: ConnectionId, content: usize, out: &mut impl BufMut) {
    debug_assert!(u32::try_from(content).is_ok());
    let head = Head {
        id,
        content: content as u32,
    };
    out.put_slice(&head.encode());
}

/// One step through a stream of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// The next bytes of a connection, never none. One frame may come as several pieces.
    Content {
        /// Whose bytes.
        id: ConnectionId,
        /// The bytes, borrowed from the input.
        bytes: &'a [u8],
    },
    /// An empty frame: the peer sends nothing more on this connection.
    End {
        /// Whose stream.
        id: ConnectionId,
    },
}

/// Takes a stream of frames apart, however it was cut, keeping at most one partial head.
#[derive(Clone, Debug)]
pub struct Decoder {
    max_content: u32,
    /// Bytes of the current frame's content that are still to come.
    left: u32,
    id: ConnectionId,
    /// A head that the input ended in, `have` bytes of it.
    head: [u8; HEAD_LEN],
    have: usize,
}

impl Decoder {
    /// A decoder at the start of a stream that refuses frames of more than `max_content` bytes
    /// of content.
    pub fn new(max_content: u32) -> Self {
        Decoder {
            max_content,
            left: 0,
            id: ConnectionId::CONTROL,
            head: [0; HEAD_LEN],
            have: 0,
        }
    }

    /// The next piece out of `input`, which is advanced past it; `None` says that the input is
    /// used up and more is needed. Takes constant time, whatever the input's size.
    ///
    /// # Errors
    /// A head broke a rule. The stream cannot be understood any further: every later call gives
    /// the same error.
    #[inline(always)]
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Piece<'a>>, FrameError> {
        // The common frame is all there, and leaves no trace here.
        if !self.mid_frame()
            && let Some((head, rest)) = input.split_first_chunk()
            && let Some(Head { id, content }) = Head::parse_common(head)
            && content <= self.max_content
            && let Some((bytes, rest)) = rest.split_at_checked(content as usize)
        {
            *input = rest;
            return Ok(Some(if content == 0 {
                Piece::End { id }
            } else {
                Piece::Content { id, bytes }
            }));
        }
        self.next_part(input)
    }

    /// As [`Decoder::next`], for what the input has only a part of, and what is wrong.
    #[inline(never)]
    fn next_part<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Piece<'a>>, FrameError> {
        if self.left == 0 {
            let Some(head) = self.gather(input)? else {
                return Ok(None);
            };
            if head.content == 0 {
                return Ok(Some(Piece::End { id: head.id }));
            }
            (self.id, self.left) = (head.id, head.content);
        }
        if input.is_empty() {
            return Ok(None);
        }
        let n = input.len().min(self.left as usize);
        let (bytes, rest) = input.split_at(n);
        *input = rest;
        self.left -= n as u32;
        Ok(Some(Piece::Content { id: self.id, bytes }))
    }

    /// Would the stream be cut inside a head or a frame if it ended here?
    #[inline]
    pub fn mid_frame(&self) -> bool {
        self.have > 0 || self.left > 0
    }

    /// Bytes of a head that has begun and is not complete.
    pub(crate) fn head_bytes(&self) -> usize {
        self.have
    }

    /// The frame that the stream stands in, and the bytes of content it still lacks.
    pub(crate) fn current(&self) -> Option<(ConnectionId, u32)> {
        (self.left > 0).then_some((self.id, self.left))
    }

    /// Takes back the last `n` bytes of the piece just given; the caller winds `input` back.
    pub(crate) fn give_back(&mut self, n: usize) {
        self.left += n as u32;
    }

    /// Collects a head that is cut by the input's end, or was by the last one's.
    fn gather(&mut self, input: &mut &[u8]) -> Result<Option<Head>, FrameError> {
        let n = input.len().min(HEAD_LEN - self.have);
        let (bytes, rest) = input.split_at(n);
        self.head[self.have..self.have + n].copy_from_slice(bytes);
        self.have += n;
        *input = rest;
        if self.have < HEAD_LEN {
            return Ok(None);
        }
        // On an error the bad head stays, and is found again by every later call.
        let head = Head::parse(&self.head, self.max_content)?;
        self.have = 0;
        Ok(Some(head))
    }
}

/// A head broke a rule; the link it came on must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("frame head \"{}\": {problem}", head.escape_ascii())]
pub struct FrameError {
    /// What is wrong with it.
    pub problem: FrameProblem,
    /// The head as it came.
    pub head: [u8; HEAD_LEN],
}

/// What is wrong with a frame's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameProblem {
    /// A byte where a digit must stand is none.
    #[error("not a digit at offset {at}")]
    BadDigit {
        /// Offset in the head, from 0.
        at: usize,
    },
    /// A byte where `|` must stand is another.
    #[error("no '|' at offset {at}")]
    BadSeparator {
        /// Offset in the head, from 0.
        at: usize,
    },
    /// The length does not even cover the head.
    #[error("length {length} is below the 32 of the head itself")]
    TooShort {
        /// Bytes, as the head says.
        length: u64,
    },
    /// The length is over what this side takes.
    #[error("length {length} is over the limit of {max}")]
    TooLong {
        /// Bytes, as the head says.
        length: u64,
        /// Bytes, the head's 32 included.
        max: u64,
    },
    /// The connection id does not fit 64 bits.
    #[error("connection id is over 18446744073709551615")]
    IdTooLarge,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fast_and_the_slow_way_say_the_same_of_every_byte_in_every_place() {
        let good = b"0000065568|18439999999999999999|";
        for at in 0..HEAD_LEN {
            for byte in 0..=255 {
                let mut head = *good;
                head[at] = byte;
                let slow = Head::parse_any(&head, 65_536);
                assert_eq!(Head::parse(&head, 65_536), slow, "{byte} at {at}");
            }
        }
    }
}
