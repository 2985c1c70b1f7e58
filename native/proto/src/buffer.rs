//! The inbound bytes of one connection.
//!
//! A million connections each have one, and nearly all of them are empty nearly all of the time. So
//! an empty buffer is one null pointer of 8 bytes and owns no memory at all, and a buffer that was
//! large gives memory back as it is read. `BytesMut` can do neither: once advanced, it hides the
//! size of what it still pins. A `Vec` takes 24 bytes where it is empty too.
//!
//! ```text
//!   ┌─────┬──────────┬──────────┬─────────┐
//!   │Head │ consumed │ content  │  spare  │   one allocation
//!   └─────┴──────────┴──────────┴─────────┘
//!          0          start      end       capacity
//! ```

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use crate::limits::BUFFER_SLACK;

/// Bytes that are still doubled where more room is needed.
const SMALL: usize = 1024;

/// What stands before the bytes. `start <= end <= capacity`, and the bytes to `end` are written.
#[derive(Clone, Copy)]
struct Head {
    capacity: u32,
    start: u32,
    end: u32,
}

/// Bytes that came in and were not read yet.
///
/// After every call `allocated() <= 2 * len() + BUFFER_SLACK` holds, and an empty buffer has
/// `allocated() == 0`. All calls are amortised O(bytes given or taken). The buffer has no limit of
/// its own but 4 GiB, where it panics: the link's credit bounds it.
#[derive(Default)]
pub struct Buffer(Option<NonNull<Head>>);

// SAFETY: a buffer owns its allocation alone, and a shared one is only read.
#[allow(unsafe_code)]
unsafe impl Send for Buffer {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for Buffer {}

impl Buffer {
    /// An empty buffer. Allocates nothing.
    pub const fn new() -> Buffer {
        Buffer(None)
    }

    /// How many bytes it holds.
    #[inline]
    pub fn len(&self) -> usize {
        let head = self.head();
        (head.end - head.start) as usize
    }

    /// Whether it holds none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The content, oldest byte first.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        let Some(block) = self.0 else { return &[] };
        let start = self.head().start as usize;
        // SAFETY: `start..end` lies in the block and is written (see `Head`).
        #[allow(unsafe_code)]
        unsafe {
            std::slice::from_raw_parts(bytes_of(block).add(start), self.len())
        }
    }

    /// How many bytes of memory it pins, read or not.
    pub fn allocated(&self) -> usize {
        self.head().capacity as usize
    }

    /// Where its memory begins, to ask for it ahead.
    #[inline]
    pub fn block(&self) -> *const u8 {
        self.0
            .map_or(std::ptr::null(), |block| block.as_ptr().cast())
    }

    /// Where the next byte goes, to ask for that memory ahead.
    #[inline]
    pub fn end(&self) -> *const u8 {
        let end = self.head().end as usize;
        self.0
            .map_or(std::ptr::null(), |block| bytes_of(block).wrapping_add(end))
    }

    /// Adds bytes behind the content.
    #[inline]
    pub fn push(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        self.append(bytes);
    }

    /// Makes room for `more` bytes, which the caller is about to push.
    #[inline]
    pub fn reserve(&mut self, more: usize) {
        let head = self.head();
        if more > (head.capacity - head.end) as usize {
            self.make_room(more);
        }
    }

    /// Puts bytes before the content, as `gen_tcp:unrecv/2` does. O(content) unless they were read
    /// just before.
    pub fn push_front(&mut self, bytes: &[u8]) {
        let head = self.head();
        if bytes.len() <= head.start as usize {
            let Some(block) = self.0 else { return };
            let start = head.start - bytes.len() as u32;
            // SAFETY: `start..head.start` lies in the block, and nobody else has it.
            #[allow(unsafe_code)]
            unsafe {
                bytes_of(block)
                    .add(start as usize)
                    .copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            }
            self.set_head(Head { start, ..head });
        } else {
            let mut joined = Buffer::with_capacity(bytes.len() + self.len());
            joined.append(bytes);
            joined.append(self.as_slice());
            *self = joined;
        }
    }

    /// Drops the first `count` bytes (all of them, when there are fewer) and gives back memory that
    /// is no longer worth keeping.
    pub fn consume(&mut self, count: usize) {
        let len = self.len();
        if count >= len {
            return self.clear();
        }
        let head = self.head();
        let start = head.start + count as u32;
        self.set_head(Head { start, ..head });
        if self.allocated() > 2 * (len - count) + BUFFER_SLACK {
            self.move_to(len - count);
        }
    }

    /// Drops everything, memory too.
    pub fn clear(&mut self) {
        *self = Buffer::new();
    }

    /// Makes space for `more` bytes: by moving the content to the front when at least as much was
    /// consumed as is to be moved, else by an allocation half as large again as it needs to be, so
    /// that many small pushes stay linear; twice as large while that is little, for the memory of
    /// very many buffers is in no cache. A first push gets exactly what it asks for, because it is
    /// often the only one.
    fn make_room(&mut self, more: usize) {
        let len = self.len();
        let needed = len + more;
        let head = self.head();
        if let Some(block) = self.0
            && needed <= head.capacity as usize
            && len <= head.start as usize
        {
            // SAFETY: `len <= start`: both parts lie in the block, one behind the other.
            #[allow(unsafe_code)]
            unsafe {
                let bytes = bytes_of(block);
                bytes.copy_from_nonoverlapping(bytes.add(head.start as usize), len);
            }
            self.set_head(Head {
                start: 0,
                end: len as u32,
                ..head
            });
        } else {
            let spare = match len {
                0 => 0,
                _ => (needed / 2).max(needed.min(SMALL)),
            };
            self.move_to(needed + spare);
        }
    }

    /// Moves the content into an allocation of that many bytes.
    fn move_to(&mut self, capacity: usize) {
        let mut moved = Buffer::with_capacity(capacity);
        moved.append(self.as_slice());
        *self = moved;
    }

    /// An allocation of `capacity` bytes, none written; none at all for 0.
    fn with_capacity(capacity: usize) -> Buffer {
        if capacity == 0 {
            return Buffer::new();
        }
        let layout = layout(capacity);
        // SAFETY: the layout has room for a `Head` at least.
        #[allow(unsafe_code)]
        let block = unsafe { alloc(layout) }.cast::<Head>();
        let Some(block) = NonNull::new(block) else {
            handle_alloc_error(layout)
        };
        let mut buffer = Buffer(Some(block));
        buffer.set_head(Head {
            // `layout` has seen that it fits.
            capacity: capacity as u32,
            start: 0,
            end: 0,
        });
        buffer
    }

    /// Adds bytes for which there is room.
    #[inline]
    fn append(&mut self, bytes: &[u8]) {
        let Some(block) = self.0 else { return };
        let head = self.head();
        assert!(bytes.len() <= (head.capacity - head.end) as usize);
        // SAFETY: so many bytes behind `end` lie in the block, as was just seen.
        #[allow(unsafe_code)]
        unsafe {
            bytes_of(block)
                .add(head.end as usize)
                .copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
        let end = head.end + bytes.len() as u32;
        self.set_head(Head { end, ..head });
    }

    #[inline]
    fn head(&self) -> Head {
        match self.0 {
            // SAFETY: every block begins with its head.
            #[allow(unsafe_code)]
            Some(block) => unsafe { block.read() },
            None => Head {
                capacity: 0,
                start: 0,
                end: 0,
            },
        }
    }

    #[inline]
    fn set_head(&mut self, head: Head) {
        if let Some(block) = self.0 {
            // SAFETY: every block begins with its head.
            #[allow(unsafe_code)]
            unsafe {
                block.write(head);
            }
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(block) = self.0 {
            let layout = layout(self.allocated());
            // SAFETY: `with_capacity` made the block with this very layout.
            #[allow(unsafe_code)]
            unsafe {
                dealloc(block.as_ptr().cast(), layout);
            }
        }
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({} bytes in {})", self.len(), self.allocated())
    }
}

/// Of a block with room for `capacity` bytes.
///
/// # Panics
/// That is over 4 GiB.
fn layout(capacity: usize) -> Layout {
    assert!(u32::try_from(capacity).is_ok(), "a buffer of over 4 GiB");
    let head = Layout::new::<Head>();
    let bytes = Layout::from_size_align(size_of::<Head>() + capacity, head.align());
    bytes.expect("4 GiB fit a layout")
}

/// The bytes behind a head.
#[inline]
fn bytes_of(block: NonNull<Head>) -> *mut u8 {
    block.as_ptr().wrapping_add(1).cast()
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
    fn room_is_made_once_for_many_pushes() {
        let mut buffer = Buffer::new();
        buffer.reserve(500);
        assert_eq!(buffer.allocated(), 500);
        let block = buffer.block();
        (0..5).for_each(|_| buffer.push(&[7; 100]));
        assert_eq!((buffer.allocated(), buffer.block()), (500, block));
        assert_eq!(buffer.end().addr() - buffer.as_slice().as_ptr().addr(), 500);
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
