//! Memory asked for before it is needed, so that many misses are waited for at once.

/// Bytes of a line of the processor's cache.
const LINE: usize = 64;

/// Asks for an object of `T` and the line before it, where the emulator keeps a resource's count of
/// references.
#[inline]
pub fn resource<T>(object: *const T) {
    let first = object.cast::<u8>().wrapping_sub(LINE);
    for at in (0..size_of::<T>() + LINE).step_by(LINE) {
        line(first.wrapping_add(at));
    }
}

/// Asks for what is at `at`.
#[inline]
#[cfg(target_arch = "x86_64")]
pub fn line<T>(at: *const T) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a hint, of any address, that never faults; SSE is part of every x86_64.
    #[allow(unsafe_code)]
    unsafe {
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }
}

/// Asks for nothing: the hint is known for one processor only.
#[inline]
#[cfg(not(target_arch = "x86_64"))]
pub fn line<T>(_at: *const T) {}
