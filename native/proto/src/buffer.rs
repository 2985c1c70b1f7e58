//! The inbound bytes of one connection.
//!
//! A million connections each have one, and nearly all of them are empty nearly all of the time. So
//! an empty buffer owns no memory at all, and a buffer that was large gives memory back as it is
//! read. `BytesMut` can do neither: once advanced, it hides the size of what it still pins. Here
//! the allocation is a plain `Vec`, and its size is known.

use crate::limits::BUFFER_SLACK;

/// Bytes that came in and were not read yet.
///
/// After every call `allocated() <= 2 * len() + BUFFER_SLACK` holds, and an empty buffer has
/// `allocated() == 0`. All calls are amortised O(bytes given or taken). The buffer has no limit of
/// its own: the link's credit bounds it.
#[derive(Debug, Default)]
pub struct Buffer {
    /// `bytes[start..]` is the content, the bytes before it were consumed.
    bytes: Vec<u8>,
    start: usize,
}

impl Buffer {
    /// An empty buffer. Allocates nothing.
    pub const fn new() -> Buffer {
        Buffer {
            bytes: Vec::new(),
            start: 0,
        }
    }

    /// How many bytes it holds.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The content, oldest byte first.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// How many bytes of memory it pins, read or not.
    pub fn allocated(&self) -> usize {
        self.bytes.capacity()
    }

    /// Adds bytes behind the content.
    pub fn push(&mut self, bytes: &[u8]) {
        if bytes.len() > self.bytes.capacity() - self.bytes.len() {
            self.make_room(bytes.len());
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Puts bytes before the content, as `gen_tcp:unrecv/2` does. O(content) unless they were read
    /// just before.
    pub fn push_front(&mut self, bytes: &[u8]) {
        if bytes.len() <= self.start {
            self.start -= bytes.len();
            self.bytes[self.start..][..bytes.len()].copy_from_slice(bytes);
        } else {
            let mut joined = Vec::with_capacity(bytes.len() + self.len());
            joined.extend_from_slice(bytes);
            joined.extend_from_slice(self.as_slice());
            *self = Buffer {
                bytes: joined,
                start: 0,
            };
        }
    }

    /// Drops the first `count` bytes (all of them, when there are fewer) and gives back memory that
    /// is no longer worth keeping.
    pub fn consume(&mut self, count: usize) {
        if count >= self.len() {
            return self.clear();
        }
        self.start += count;
        if self.allocated() > 2 * self.len() + BUFFER_SLACK {
            *self = Buffer {
                bytes: self.as_slice().to_vec(),
                start: 0,
            };
        }
    }

    /// Drops everything, memory too.
    pub fn clear(&mut self) {
        *self = Buffer::new();
    }

    /// Makes space for `more` bytes: by moving the content to the front when at least as much was
    /// consumed as is to be moved, else by an allocation half as large again as it needs to be, so
    /// that many small pushes stay linear. A first push gets exactly what it asks for, because it
    /// is often the only one.
    fn make_room(&mut self, more: usize) {
        let len = self.len();
        let needed = len + more;
        if needed <= self.bytes.capacity() && len <= self.start {
            self.bytes.drain(..self.start);
        } else {
            let spare = if len == 0 { 0 } else { needed / 2 };
            let mut grown = Vec::with_capacity(needed + spare);
            grown.extend_from_slice(self.as_slice());
            self.bytes = grown;
        }
        self.start = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    fn bounded(buffer: &Buffer) -> bool {
        let most = if buffer.is_empty() {
            0
        } else {
            2 * buffer.len() + BUFFER_SLACK
        };
        buffer.allocated() <= most
    }

    #[test]
    fn empty_owns_nothing() {
        let mut buffer = Buffer::new();
        assert_eq!((buffer.len(), buffer.allocated()), (0, 0));
        buffer.push(b"");
        buffer.push_front(b"");
        assert_eq!(buffer.allocated(), 0);
        buffer.push(b"hello");
        assert_eq!(buffer.allocated(), 5);
        buffer.consume(5);
        assert_eq!(buffer.allocated(), 0);
    }

    #[test]
    fn unread_bytes_come_first() {
        let mut buffer = Buffer::new();
        buffer.push(b"hello world");
        buffer.consume(6);
        buffer.push_front(b"bye ");
        assert_eq!(buffer.as_slice(), b"bye world");
        buffer.push_front(b"good-");
        assert_eq!(buffer.as_slice(), b"good-bye world");
    }

    #[test]
    fn a_large_read_is_given_back() {
        let mut buffer = Buffer::new();
        buffer.push(&[7; 65_536]);
        buffer.consume(65_535);
        assert_eq!(buffer.as_slice(), [7]);
        assert_eq!(buffer.allocated(), 1);
    }

    #[test]
    fn consuming_too_much_empties() {
        let mut buffer = Buffer::new();
        buffer.push(b"ab");
        buffer.consume(usize::MAX);
        assert!(buffer.is_empty());
    }

    /// Pushing byte by byte may copy each byte a constant number of times only: few different
    /// allocations.
    #[test]
    fn small_pushes_are_amortised() {
        let mut buffer = Buffer::new();
        let mut moves = 0;
        for _ in 0..100_000 {
            let before = buffer.allocated();
            buffer.push(b"x");
            moves += usize::from(buffer.allocated() != before);
        }
        assert!(moves < 40, "{moves} allocations");
    }

    proptest! {
        #[test]
        fn is_a_queue_within_its_bound(
            steps in prop::collection::vec((0u8..4, 0usize..5000), 1..60),
        ) {
            let (mut buffer, mut model) = (Buffer::new(), VecDeque::<u8>::new());
            for (at, (kind, size)) in steps.into_iter().enumerate() {
                let bytes: Vec<u8> = (0..size).map(|n| (n + at) as u8).collect();
                match kind {
                    0 => {
                        buffer.push(&bytes);
                        model.extend(&bytes);
                    }
                    1 => {
                        let few = &bytes[..size.min(20)];
                        buffer.push_front(few);
                        few.iter().rev().for_each(|&byte| model.push_front(byte));
                    }
                    _ => {
                        buffer.consume(size);
                        model.drain(..size.min(model.len()));
                    }
                }
                prop_assert_eq!(buffer.as_slice(), model.make_contiguous() as &[u8]);
                prop_assert!(bounded(&buffer), "{} pinned by {}", buffer.allocated(), buffer.len());
            }
        }
    }
}
