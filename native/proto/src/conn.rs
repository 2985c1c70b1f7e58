//! The two directions of one connection, and the credit of each.
//!
//! ```text
//!                        ┌──────┐
//!          peer_ended ┌──┤ Open ├──┐ we_ended
//!                     ▼  └──┬───┘  ▼
//!            ┌───────────┐  │  ┌─────────┐
//!            │ PeerEnded │  │  │ WeEnded │
//!            └────────┬──┘  │  └──┬──────┘
//!            we_ended │     │     │ peer_ended
//!                     ▼     ▼     ▼
//!                   ┌───────────────┐
//!                   │    Closed     │   close() leads here from anywhere
//!                   └───────────────┘
//! ```

use thiserror::Error;

use crate::credit::{CreditError, Growth, RecvWindow, SendCredit};

/// Which directions of a connection are still open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Both sides may send.
    Open,
    /// The peer sends nothing more; we still may.
    PeerEnded,
    /// We send nothing more; the peer still may.
    WeEnded,
    /// Neither may. The id is gone from the link.
    Closed,
}

/// One connection as the link sees it. Kept small: there are a million of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conn {
    send: SendCredit,
    recv: RecvWindow,
    state: State,
}

impl Conn {
    /// An open connection with the credit that the two hellos (or version 1) give it.
    pub fn new(send: SendCredit, recv: RecvWindow) -> Self {
        Conn {
            send,
            recv,
            state: State::Open,
        }
    }

    /// Which directions are open.
    #[inline]
    pub fn state(&self) -> State {
        self.state
    }

    /// May this side still send content?
    #[inline]
    pub fn may_send(&self) -> bool {
        matches!(self.state, State::Open | State::PeerEnded)
    }

    /// May the peer still send content?
    #[inline]
    pub fn may_receive(&self) -> bool {
        matches!(self.state, State::Open | State::WeEnded)
    }

    /// The peer sent `n` bytes of content.
    ///
    /// # Errors
    /// It had ended its direction (reset this connection), or had not the credit (close the
    /// link).
    #[inline]
    pub fn receive(&mut self, n: u32) -> Result<(), ConnError> {
        if !self.may_receive() {
            return Err(ConnError::AfterEnd);
        }
        Ok(self.recv.receive(n)?)
    }

    /// The peer ended its direction with an empty frame. The answer is the state after that.
    ///
    /// # Errors
    /// It had ended before: reset this connection.
    pub fn peer_ended(&mut self) -> Result<State, ConnError> {
        self.state = match self.state {
            State::Open => State::PeerEnded,
            State::WeEnded => State::Closed,
            State::PeerEnded | State::Closed => return Err(ConnError::AfterEnd),
        };
        Ok(self.state)
    }

    /// We end our direction: send an empty frame if we had not before. The answer is the state
    /// after that.
    pub fn we_ended(&mut self) -> State {
        self.state = match self.state {
            State::Open => State::WeEnded,
            State::PeerEnded => State::Closed,
            ended => ended,
        };
        self.state
    }

    /// Ends both directions, for a `close` or `reset` from either side or a lost link.
    pub fn close(&mut self) {
        self.state = State::Closed;
    }

    /// Uses up to `want` bytes of credit; the answer is how many may go, none after our end.
    #[inline]
    pub fn take_credit(&mut self, want: u32) -> u32 {
        if self.may_send() {
            self.send.take(want)
        } else {
            0
        }
    }

    /// Bytes that may be sent now, none after our end; `u32::MAX` in version 1.
    #[inline]
    pub fn credit(&self) -> u32 {
        if self.may_send() {
            self.send.available()
        } else {
            0
        }
    }

    /// The peer's `window`: `n` more bytes may be sent.
    ///
    /// # Errors
    /// The credit would pass 2³¹−1: close the link.
    #[inline]
    pub fn granted(&mut self, n: u32) -> Result<(), ConnError> {
        Ok(self.send.grant(n)?)
    }

    /// The reader took `n` bytes. `Some(grant)` is to be sent to the peer as `window`; a peer
    /// that has ended its direction needs none. The window may grow within `growth`.
    #[inline]
    pub fn release(&mut self, n: u32, growth: &Growth) -> Option<u32> {
        if self.may_receive() {
            self.recv.release(n, growth)
        } else {
            None
        }
    }

    /// As [`RecvWindow::grown`].
    #[inline]
    pub fn grown(&self) -> u32 {
        self.recv.grown()
    }
}

/// What a peer did wrong on one connection; the variant says what must be closed for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ConnError {
    /// Close this connection, with `reset` and `protocol_error` where the version has it.
    #[error("content or a second end after the end of the stream")]
    AfterEnd,
    /// Close the link: the peer's count of credit cannot be trusted any more.
    #[error(transparent)]
    Credit(#[from] CreditError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credit::NO_GROWTH;

    fn conn() -> Conn {
        Conn::new(SendCredit::new(10), RecvWindow::new(10))
    }

    #[test]
    fn a_million_of_them_fit() {
        assert!(size_of::<Conn>() <= 32);
    }

    #[test]
    fn the_peer_ends_first() {
        let mut conn = conn();
        assert_eq!(conn.peer_ended(), Ok(State::PeerEnded));
        assert!(conn.may_send() && !conn.may_receive());
        assert_eq!(conn.receive(1), Err(ConnError::AfterEnd));
        assert_eq!(conn.peer_ended(), Err(ConnError::AfterEnd));
        assert_eq!(conn.take_credit(3), 3);
        assert_eq!(conn.we_ended(), State::Closed);
        assert_eq!(conn.take_credit(3), 0);
    }

    #[test]
    fn we_end_first() {
        let mut conn = conn();
        assert_eq!(conn.we_ended(), State::WeEnded);
        assert_eq!(conn.we_ended(), State::WeEnded);
        assert!(!conn.may_send() && conn.may_receive());
        assert_eq!((conn.take_credit(3), conn.credit()), (0, 0));
        assert_eq!(conn.receive(10), Ok(()));
        assert_eq!(conn.release(10, &NO_GROWTH), Some(10));
        assert_eq!(conn.peer_ended(), Ok(State::Closed));
        assert_eq!(conn.we_ended(), State::Closed);
    }

    #[test]
    fn close_ends_both_from_every_state() {
        for before in [State::Open, State::PeerEnded, State::WeEnded, State::Closed] {
            let mut conn = Conn {
                state: before,
                ..conn()
            };
            conn.close();
            assert_eq!(conn.state(), State::Closed);
            assert!(!conn.may_send() && !conn.may_receive());
            assert_eq!(conn.receive(0), Err(ConnError::AfterEnd));
        }
    }

    #[test]
    fn credit_errors_are_the_links() {
        let mut conn = conn();
        let overrun = conn.receive(11).unwrap_err();
        assert_eq!(overrun.to_string(), "sent 11 bytes with a credit of 10");
        assert!(matches!(
            conn.granted(u32::MAX),
            Err(ConnError::Credit(CreditError::Overflow { .. }))
        ));
        assert_eq!(
            ConnError::AfterEnd.to_string(),
            "content or a second end after the end of the stream"
        );
    }

    #[test]
    fn a_peer_that_ended_gets_no_more_credit() {
        let mut conn = conn();
        conn.receive(10).unwrap();
        conn.peer_ended().unwrap();
        assert_eq!(conn.release(10, &NO_GROWTH), None);
    }
}
