//! All arithmetic on credit: how much may be sent, how much must be taken, when to give back.
//!
//! Nothing here can wrap: what a peer says is checked, what the own side says is capped.

use thiserror::Error;

use crate::limits::MAX_WINDOW;

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
/// `left` + received and not yet released + `owed` is always `size`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecvWindow {
    size: u32,
    left: u32,
    owed: u32,
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
        }
    }

    /// Version 1: nothing is counted and nothing given back.
    #[inline]
    pub fn unlimited() -> Self {
        RecvWindow {
            size: UNLIMITED,
            left: UNLIMITED,
            owed: 0,
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
    /// than was received is never given back.
    #[inline]
    pub fn release(&mut self, n: u32) -> Option<u32> {
        if self.size == UNLIMITED {
            return None;
        }
        self.owed = self.owed.saturating_add(n).min(self.size - self.left);
        if self.owed < (self.size / 2).max(1) {
            return None;
        }
        let grant = std::mem::take(&mut self.owed);
        self.left += grant;
        Some(grant)
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
        assert_eq!(window.release(4), None);
        assert_eq!(window.release(1), Some(5));
        assert_eq!(window.release(5), Some(5));
        assert_eq!(window.receive(10), Ok(()));
    }

    #[test]
    fn no_more_is_given_back_than_was_received() {
        let mut window = RecvWindow::new(10);
        window.receive(6).unwrap();
        assert_eq!(window.release(u32::MAX), Some(6));
        assert_eq!(window.release(u32::MAX), None);
        assert_eq!(window, RecvWindow::new(10));
    }

    #[test]
    fn windows_of_0_and_1_byte_do_not_grant_for_ever() {
        let mut none = RecvWindow::new(0);
        assert!(none.receive(1).is_err());
        assert_eq!(none.release(1), None);
        let mut one = RecvWindow::new(1);
        one.receive(1).unwrap();
        assert_eq!(one.release(1), Some(1));
    }

    #[test]
    fn version_1_counts_nothing() {
        let mut credit = SendCredit::unlimited();
        assert_eq!(credit.take(u32::MAX), u32::MAX);
        assert_eq!(credit.grant(u32::MAX), Ok(()));
        assert_eq!(credit.available(), u32::MAX);
        let mut window = RecvWindow::unlimited();
        assert_eq!(window.receive(u32::MAX), Ok(()));
        assert_eq!(window.release(u32::MAX), None);
    }
}
