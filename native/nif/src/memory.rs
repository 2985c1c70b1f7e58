//! How much memory the Rust side holds: the emulator's own figures do not have it, since it comes
//! from the system's allocator.
//!
//! Every scheduler allocates all the time, so each thread counts for itself, on a cache line that
//! nobody else writes, and only who asks reads them all. It costs a nanosecond or two.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering::Relaxed};

/// Threads that have a count each; the emulator's schedulers, dirty ones included, are never so
/// many on the machines of today. All others share one more, which is slower and no less right.
const OWNED: usize = 255;

/// Bytes, of two cache lines: processors fetch them in pairs.
#[repr(align(128))]
struct Shard(AtomicI64);

/// What threads have allocated, less what they have freed. One of them may be negative: who frees
/// need not be who allocated.
static HELD: [Shard; OWNED + 1] = [const { Shard(AtomicI64::new(0)) }; OWNED + 1];

/// The count of the next thread that allocates for the first time.
static NEXT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    // Without a destructor, so that it can be used as long as the thread allocates.
    static MINE: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Bytes that the Rust side holds, with the head that `malloc` puts before each piece.
pub fn held() -> u64 {
    let sum: i64 = HELD.iter().map(|shard| shard.0.load(Relaxed)).sum();
    // What is freed on one shard while another has been read already is seen on one side only.
    u64::try_from(sum).unwrap_or(0)
}

fn count(bytes: i64) {
    let mine = MINE.get();
    let mine = if mine <= OWNED { mine } else { join() };
    let shard = &HELD[mine].0;
    if mine < OWNED {
        // Nobody else writes here, so what was read is still there: no locked instruction.
        shard.store(shard.load(Relaxed).wrapping_add(bytes), Relaxed);
    } else {
        shard.fetch_add(bytes, Relaxed);
    }
}

#[cold]
fn join() -> usize {
    let mine = NEXT.fetch_add(1, Relaxed).min(OWNED);
    MINE.set(mine);
    mine
}

/// What glibc takes for it: a head of 8 bytes, all in steps of 16, and 32 at least.
fn taken(size: usize) -> i64 {
    let size = size.saturating_add(8).next_multiple_of(16).max(32);
    size as i64
}

/// The system's allocator, counted.
struct Counted;

#[global_allocator]
static ALLOCATOR: Counted = Counted;

// SAFETY: every call is passed to `System` as it came and its answer handed back as it is, so what
// holds for `System` holds here. Counting neither allocates nor panics: the index is at most
// `OWNED`, and the thread-local has no destructor and no lazy start.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is the same.
        let block = unsafe { System.alloc(layout) };
        counted(block, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is the same.
        let block = unsafe { System.alloc_zeroed(layout) };
        counted(block, layout.size())
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(-taken(layout.size()));
        // SAFETY: the caller's promise is the same, and `block` came from `System`.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise is the same, and `block` came from `System`.
        let moved = unsafe { System.realloc(block, layout, size) };
        if !moved.is_null() {
            count(taken(size) - taken(layout.size()));
        }
        moved
    }
}

fn counted(block: *mut u8, size: usize) -> *mut u8 {
    if !block.is_null() {
        count(taken(size));
    }
    block
}
