//! All arithmetic on credit: how much may be sent, how much must be taken, when to give back.
//!
//! Nothing here can wrap: what a peer says is checked, what the own side says is capped.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use thiserror::Error;

use crate::limits::{GROWN_WINDOW_MAX, GROWTH_MAX, MAX_WINDOW};

/// Stands for "no credit is kept" (version 1); over [`MAX_WINDOW`], so never a real amount.
const UNLIMITED: u32 = u32::MAX;

/// What this side may still send on a connection, in bytes of content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendCredit(u32);

impl SendCredit {
    /// The credit at a connection's start: the `window` that the peer named, in bytes.
    #[inline]
    pub fn new(initial: u32) -> Self {
        SendCredit(initial.min(MAX_WINDOW))
    }

    /// Version 1: nothing is counted, the link's own backpressure is all there is.
    #[inline]
    pub fn unlimited() -> Self {
        SendCredit(UNLIMITED)
    }

    /// Bytes that may be sent now; `u32::MAX` when unlimited.
    #[inline]
    pub fn available(&self) -> u32 {
        self.0
    }

    /// Uses up to `want` bytes of credit; the answer is how many may go.
    #[inline]
    pub fn take(&mut self, want: u32) -> u32 {
        if self.0 == UNLIMITED {
            return want;
        }
        let granted = want.min(self.0);
        self.0 -= granted;
        granted
    }

    /// The peer gave `n` more bytes.
    ///
    /// # Errors
    /// The sum would pass 2³¹−1: the peer has lost count, the link must be closed.
    #[inline]
    pub fn grant(&mut self, n: u32) -> Result<(), CreditError> {
        if self.0 == UNLIMITED {
            return Ok(());
        }
        match self.0.checked_add(n) {
            Some(sum) if sum <= MAX_WINDOW => {
                self.0 = sum;
                Ok(())
            }
            _ => Err(CreditError::Overflow {
                have: self.0,
                granted: n,
            }),
        }
    }
}

/// What the peer may still send on a connection, and what it is owed back, in bytes of content.
///
/// `left` + received and not yet released + `owed` is always `size`. A window grows while its
/// peer uses it up before the next grant can reach it, which is what holds a busy connection
/// back, and shrinks again to its `first` size when that has not happened for a while: no clock
/// is asked, and a connection that carries a stanza now and then never grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecvWindow {
    size: u32,
    left: u32,
    owed: u32,
    first: u32,
    /// The least that `left` was since the last grant.
    low: u32,
}

impl RecvWindow {
    /// A full window of `size` bytes, which this side promises to hold.
    #[inline]
    pub fn new(size: u32) -> Self {
        let size = size.min(MAX_WINDOW);
        RecvWindow {
            size,
            left: size,
            owed: 0,
            first: size,
            low: size,
        }
    }

    /// Version 1: nothing is counted and nothing given back.
    #[inline]
    pub fn unlimited() -> Self {
        RecvWindow {
            size: UNLIMITED,
            left: UNLIMITED,
            owed: 0,
            first: UNLIMITED,
            low: UNLIMITED,
        }
    }

    /// The peer sent `n` bytes.
    ///
    /// # Errors
    /// That was more than it may: the link must be closed. Nothing is counted then.
    #[inline]
    pub fn receive(&mut self, n: u32) -> Result<(), CreditError> {
        if self.size == UNLIMITED {
            return Ok(());
        }
        match self.left.checked_sub(n) {
            Some(left) => {
                self.left = left;
                self.low = self.low.min(left);
                Ok(())
            }
            None => Err(CreditError::Overrun {
                got: n,
                left: self.left,
            }),
        }
    }

    /// The reader took `n` bytes, or the caller lets it have more than a window at once.
    ///
    /// `Some(grant)` when at least half a window is owed: send it to the peer as `window`; it
    /// is counted as sent. Half, and not each time, for a grant is a frame of its own. More
    /// than was received is never given back, but for what the window grows by, within `growth`.
    #[inline]
    pub fn release(&mut self, n: u32, growth: &Growth) -> Option<u32> {
        if self.size == UNLIMITED {
            return None;
        }
        self.owed = self.owed.saturating_add(n).min(self.size - self.left);
        if self.owed < (self.size / 2).max(1) {
            return None;
        }
        self.resize(growth);
        let grant = std::mem::take(&mut self.owed);
        self.left += grant;
        self.low = self.left;
        (grant > 0).then_some(grant)
    }

    /// Bytes by which the window has grown: its owner gives them back to the [`Growth`] at the end.
    #[inline]
    pub fn grown(&self) -> u32 {
        self.size - self.first
    }

    /// When a grant is due: `owed` is at least half of `size`. Between two grants a peer that is
    /// never held back uses half a window, and little more.
    fn resize(&mut self, growth: &Growth) {
        let crowded = u64::from(self.grown() / 2) > growth.share();
        if self.low < self.size / 4 && !crowded {
            let more = self.size.min(GROWN_WINDOW_MAX.saturating_sub(self.size));
            if more > 0 && growth.take(more, self.grown()) {
                self.size += more;
                self.owed += more;
            }
        } else if self.size > self.first && (crowded || self.low >= self.size / 8 * 3) {
            // Withheld from what is owed: credit that was given cannot be taken back.
            let less = (self.size / 2).min(self.size - self.first).min(self.owed);
            growth.give(less);
            self.size -= less;
            self.owed -= less;
        }
    }
}

/// A window grows by no more than one part in so many of what is left to grow by.
const SHARES: u64 = 64;

/// Bytes that all windows of a program may grow by together: windows are promises, and this is
/// what bounds them beyond their first size. May be shared among threads.
#[derive(Debug)]
pub struct Growth {
    max: AtomicU64,
    taken: AtomicU64,
}

/// For windows that stay as they begin.
pub static NO_GROWTH: Growth = Growth::new(0);

impl Growth {
    /// For a program that may hold `max_buffered` bytes for its connections: windows may grow by
    /// a quarter of that in all, [`GROWTH_MAX`] at most.
    pub const fn new(max_buffered: u64) -> Self {
        Growth {
            max: AtomicU64::new(Self::within(max_buffered)),
            taken: AtomicU64::new(0),
        }
    }

    /// As in [`Growth::new`]. What is over the new bound stays until it is given back.
    pub fn set_max_buffered(&self, max_buffered: u64) {
        self.max.store(Self::within(max_buffered), Relaxed);
    }

    const fn within(max_buffered: u64) -> u64 {
        if max_buffered / 4 < GROWTH_MAX {
            max_buffered / 4
        } else {
            GROWTH_MAX
        }
    }

    /// Gives back what a window had grown by.
    #[inline]
    pub fn give(&self, bytes: u32) {
        if bytes > 0 {
            self.taken.fetch_sub(u64::from(bytes), Relaxed);
        }
    }

    /// Bytes that one window may have grown by: a share of what is left for the others, so that
    /// those that are busy get about the same, whoever came first.
    fn share(&self) -> u64 {
        let (max, taken) = (self.max.load(Relaxed), self.taken.load(Relaxed));
        max.saturating_sub(taken) / SHARES
    }

    /// Takes `bytes` for a window that has grown by `grown` already.
    fn take(&self, bytes: u32, grown: u32) -> bool {
        let bytes = u64::from(bytes);
        let fits = bytes + u64::from(grown) <= self.share();
        if fits {
            // Two at a time may pass the bound together, by what each may take at most.
            self.taken.fetch_add(bytes, Relaxed);
        }
        fits
    }
}

/// A peer that lost count of credit; the link it is on must be closed (`flow_control`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CreditError {
    /// More content than there was credit for.
    #[error("sent {got} bytes with a credit of {left}")]
    Overrun {
        /// Bytes that came.
        got: u32,
        /// Bytes that were allowed.
        left: u32,
    },
    /// A grant that takes the credit past 2³¹−1.
    #[error("granted {granted} bytes on top of {have}, over the limit of 2147483647")]
    Overflow {
        /// Bytes of credit before.
        have: u32,
        /// Bytes the peer granted.
        granted: u32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sending_uses_credit_up_and_a_grant_gives_it_back() {
        let mut credit = SendCredit::new(10);
        assert_eq!(credit.take(4), 4);
        assert_eq!(credit.available(), 6);
        assert_eq!(credit.take(100), 6);
        assert_eq!(credit.take(1), 0);
        assert_eq!(credit.grant(3), Ok(()));
        assert_eq!(credit.available(), 3);
    }

    #[test]
    fn a_grant_up_to_the_limit_holds_and_one_more_does_not() {
        let mut credit = SendCredit::new(10);
        assert_eq!(credit.grant(MAX_WINDOW - 10), Ok(()));
        let error = credit.grant(1).unwrap_err();
        assert_eq!(
            error.to_string(),
            "granted 1 bytes on top of 2147483647, over the limit of 2147483647"
        );
        assert_eq!(credit.available(), MAX_WINDOW);
        assert!(credit.grant(u32::MAX).is_err());
    }

    #[test]
    fn a_window_takes_its_size_and_not_one_byte_more() {
        let mut window = RecvWindow::new(10);
        assert_eq!(window.receive(10), Ok(()));
        assert_eq!(window.receive(0), Ok(()));
        let error = window.receive(1).unwrap_err();
        assert_eq!(error.to_string(), "sent 1 bytes with a credit of 0");
    }

    #[test]
    fn grants_go_out_at_half_a_window() {
        let mut window = RecvWindow::new(10);
        window.receive(10).unwrap();
        assert_eq!(window.release(4, &NO_GROWTH), None);
        assert_eq!(window.release(1, &NO_GROWTH), Some(5));
        assert_eq!(window.release(5, &NO_GROWTH), Some(5));
        assert_eq!(window.receive(10), Ok(()));
    }

    #[test]
    fn no_more_is_given_back_than_was_received() {
        let mut window = RecvWindow::new(10);
        window.receive(6).unwrap();
        assert_eq!(window.release(u32::MAX, &NO_GROWTH), Some(6));
        assert_eq!(window.release(u32::MAX, &NO_GROWTH), None);
        assert_eq!(window, RecvWindow::new(10));
    }

    #[test]
    fn windows_of_0_and_1_byte_do_not_grant_for_ever() {
        let mut none = RecvWindow::new(0);
        assert!(none.receive(1).is_err());
        assert_eq!(none.release(1, &NO_GROWTH), None);
        let mut one = RecvWindow::new(1);
        one.receive(1).unwrap();
        assert_eq!(one.release(1, &NO_GROWTH), Some(1));
    }

    /// A peer that sends as much as it may, always.
    fn busy(window: &mut RecvWindow, growth: &Growth) {
        let all = window.left;
        window.receive(all).unwrap();
        window.release(all, growth);
    }

    #[test]
    fn a_window_that_is_used_up_before_each_grant_grows_to_the_bound() {
        let growth = Growth::new(u64::MAX);
        let mut window = RecvWindow::new(16_384);
        for size in [32_768, 65_536, 131_072, 262_144, 524_288, 524_288] {
            busy(&mut window, &growth);
            assert_eq!((window.size, window.left), (size, size));
        }
        assert_eq!(window.grown(), GROWN_WINDOW_MAX - 16_384);
        assert_eq!(growth.taken.load(Relaxed), u64::from(window.grown()));
    }

    #[test]
    fn all_windows_together_grow_by_no_more_than_the_budget() {
        let growth = Growth::new(4 * SHARES * 16_384);
        let (mut first, mut second) = (RecvWindow::new(16_384), RecvWindow::new(16_384));
        busy(&mut first, &growth);
        busy(&mut second, &growth);
        busy(&mut first, &growth);
        assert_eq!((first.size, second.size), (32_768, 16_384));
        growth.give(first.grown());
        busy(&mut second, &growth);
        assert_eq!(second.size, 32_768);
    }

    #[test]
    fn a_thousand_busy_windows_grow_alike_whoever_came_first() {
        let growth = Growth::new(1 << 30);
        let mut windows = vec![RecvWindow::new(16_384); 1_000];
        for first in [500, 1_000] {
            for _ in 0..20 {
                for window in &mut windows[..first] {
                    busy(window, &growth);
                }
            }
        }
        let sizes = windows.iter().map(|window| window.size);
        let (least, most) = (sizes.clone().min().unwrap(), sizes.max().unwrap());
        assert!(least * 4 >= most && most > 16_384, "{least} to {most}");
        assert!(growth.taken.load(Relaxed) <= GROWTH_MAX);
    }

    #[test]
    fn a_quiet_connection_never_grows_and_one_that_grew_shrinks_again() {
        let growth = Growth::new(u64::MAX);
        let mut window = RecvWindow::new(16_384);
        let quiet = |window: &mut RecvWindow| {
            for _ in 0..1_000 {
                window.receive(300).unwrap();
                window.release(300, &growth);
            }
        };
        quiet(&mut window);
        assert_eq!(window.size, 16_384);
        for _ in 0..3 {
            busy(&mut window, &growth);
        }
        assert_eq!(window.size, 131_072);
        quiet(&mut window);
        assert_eq!((window.size, window.grown()), (16_384, 0));
        assert_eq!(growth.taken.load(Relaxed), 0);
        assert_eq!(window.left + window.owed, 16_384);
    }

    #[test]
    fn version_1_counts_nothing() {
        let mut credit = SendCredit::unlimited();
        assert_eq!(credit.take(u32::MAX), u32::MAX);
        assert_eq!(credit.grant(u32::MAX), Ok(()));
        assert_eq!(credit.available(), u32::MAX);
        let mut window = RecvWindow::unlimited();
        assert_eq!(window.receive(u32::MAX), Ok(()));
        assert_eq!(window.release(u32::MAX, &NO_GROWTH), None);
    }
}
