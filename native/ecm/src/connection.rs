//! One client's connection as the link and the client's task share it.
//!
//! ```text
//!   link reader ──► deliver, peer_ended, granted, finish ─┐
//!                                                         ├─ Connection ─► outbox
//!   client task ──► fetch, written, send, end, abandon ───┘
//! ```
//!
//! The link's reader never waits here: it puts bytes down and wakes the
//! task. What it can put down is bounded by the connection's window; in
//! version 1, which has none, by the reader itself (see `reader.rs`). What
//! all connections hold together is bounded by the [`Budget`].
//!
//! [`Budget`]: crate::budget::Budget

use std::sync::{Arc, Mutex, MutexGuard};

use megaphone_proto::conn::{Conn, ConnError, State};
use megaphone_proto::control::{CloseReason, Control};
use megaphone_proto::frame::ConnectionId;
use tokio::sync::Notify;

use crate::link::Link;
use crate::outbox::{Batch, Room};
use crate::sync::lock;

/// How a connection was ended, other than by both sides ending their half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// What came before is still to be delivered.
    Close(CloseReason),
    /// Nothing is to be delivered any more.
    Reset(CloseReason),
}

impl Ending {
    /// Why.
    pub fn reason(self) -> CloseReason {
        match self {
            Self::Close(reason) | Self::Reset(reason) => reason,
        }
    }
}

/// Why content was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotTaken {
    /// It should not have been sent.
    Wrong(ConnError),
    /// All clients together hold as much as they may.
    NoRoom,
}

/// What there is to do towards the client.
#[derive(Debug, PartialEq, Eq)]
pub enum Fetched {
    /// Bytes to write.
    Bytes,
    /// ejabberd has ended its half, and all before was fetched. Said once.
    PeerEnded,
    /// The connection is gone from the link. There may be bytes to write,
    /// the last ones.
    Finished(Ending),
    /// Nothing now.
    Nothing,
}

/// One client's connection.
#[derive(Debug)]
pub struct Connection {
    id: ConnectionId,
    link: Arc<Link>,
    shared: Mutex<Shared>,
    /// Something for [`Connection::fetch`] has come.
    brought: Notify,
    /// There may be credit to send again.
    granted: Notify,
}

#[derive(Debug)]
struct Shared {
    conn: Conn,
    /// Bytes that the client's task has not fetched.
    queue: Vec<u8>,
    /// Bytes delivered and not yet written to the client: the queue and what
    /// the task holds. They are taken from the budget.
    unwritten: usize,
    /// Where the last content sent went.
    last: Batch,
    ending: Option<Ending>,
    /// The task was told that ejabberd ended its half.
    end_fetched: bool,
    /// ejabberd sent something, once.
    answered: bool,
}

impl Connection {
    /// A connection that was just opened on `link`.
    pub fn new(id: ConnectionId, link: Arc<Link>, conn: Conn) -> Self {
        let shared = Shared {
            conn,
            queue: Vec::new(),
            unwritten: 0,
            last: Batch::NONE,
            ending: None,
            end_fetched: false,
            answered: false,
        };
        Self {
            id,
            link,
            shared: Mutex::new(shared),
            brought: Notify::new(),
            granted: Notify::new(),
        }
    }

    /// Its id on the link.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// The link it is on.
    pub fn link(&self) -> &Arc<Link> {
        &self.link
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        lock(&self.shared)
    }
}

/// For the link's reader.
impl Connection {
    /// Takes content for the client.
    ///
    /// # Errors
    /// As [`Conn::receive`], or there is no room for it.
    pub fn deliver(&self, content: &[u8]) -> Result<(), NotTaken> {
        let mut shared = self.shared();
        shared
            .conn
            .receive(u32::try_from(content.len()).unwrap_or(u32::MAX))
            .map_err(NotTaken::Wrong)?;
        if !self.link.budget().take(content.len()) {
            return Err(NotTaken::NoRoom);
        }
        shared.queue.extend_from_slice(content);
        shared.unwritten += content.len();
        shared.answered = true;
        drop(shared);
        self.brought.notify_one();
        Ok(())
    }

    /// Takes ejabberd's end of its half.
    ///
    /// # Errors
    /// As [`Conn::peer_ended`].
    pub fn peer_ended(&self) -> Result<State, ConnError> {
        let state = self.shared().conn.peer_ended()?;
        self.brought.notify_one();
        Ok(state)
    }

    /// Takes credit for `bytes` more.
    ///
    /// # Errors
    /// As [`Conn::granted`].
    pub fn granted(&self, bytes: u32) -> Result<(), ConnError> {
        self.shared().conn.granted(bytes)?;
        self.granted.notify_one();
        Ok(())
    }

    /// Ends it, which is then gone from the link.
    pub fn finish(&self, ending: Ending) {
        let mut shared = self.shared();
        let dropped = shared.finish(ending);
        drop(shared);
        self.link.budget().give(dropped);
        self.brought.notify_one();
    }

    /// As [`Connection::finish`], and says `message` to ejabberd, behind
    /// whatever was sent.
    pub fn finish_saying(&self, ending: Ending, message: &Control) {
        let last = self.shared().last;
        self.link.outbox().behind(last, message);
        self.finish(ending);
    }

    /// Bytes delivered and not yet written to the client. 0 once it is gone.
    pub fn unwritten(&self) -> usize {
        let shared = self.shared();
        if shared.ending.is_some() {
            0
        } else {
            shared.unwritten
        }
    }
}

/// For the client's task.
impl Connection {
    /// What is to be done, with more bytes to write added to `bytes`.
    pub fn fetch(&self, bytes: &mut Vec<u8>) -> Fetched {
        let mut shared = self.shared();
        let more = !shared.queue.is_empty();
        if bytes.is_empty() {
            *bytes = std::mem::take(&mut shared.queue);
        } else {
            bytes.append(&mut shared.queue);
        }
        if shared.conn.state() == State::Closed {
            let both_ended = Ending::Close(CloseReason::Normal);
            return Fetched::Finished(shared.ending.unwrap_or(both_ended));
        }
        if more {
            return Fetched::Bytes;
        }
        if !shared.conn.may_receive() && !shared.end_fetched {
            shared.end_fetched = true;
            return Fetched::PeerEnded;
        }
        Fetched::Nothing
    }

    /// Waits until [`Connection::fetch`] may have something new.
    pub async fn brought(&self) {
        self.brought.notified().await;
    }

    /// Whether it is gone from the link.
    pub fn is_finished(&self) -> bool {
        self.shared().conn.state() == State::Closed
    }

    /// Whether ejabberd ever sent anything on it.
    pub fn was_answered(&self) -> bool {
        self.shared().answered
    }

    /// Notes that `bytes` were written to the client, and gives credit back
    /// for them when it is time.
    pub fn written(&self, bytes: usize) {
        let mut shared = self.shared();
        let known = bytes.min(shared.unwritten);
        shared.unwritten -= known;
        let grant = shared.conn.release(
            u32::try_from(bytes).unwrap_or(u32::MAX),
            self.link.budget().growth(),
        );
        drop(shared);
        self.link.budget().give(known);
        if let Some(bytes) = grant {
            self.link
                .outbox()
                .urgent(&Control::Window { id: self.id, bytes });
        }
        self.link.client_moved();
    }

    /// What may be sent now, in bytes.
    pub fn credit(&self) -> u32 {
        self.shared().conn.credit()
    }

    /// Waits until there is credit, and returns it: bytes, never 0.
    pub async fn wait_for_credit(&self) -> u32 {
        loop {
            match self.credit() {
                0 => self.granted.notified().await,
                credit => return credit,
            }
        }
    }

    /// Sends what the client sent: no more than [`Connection::credit`]
    /// said, into `room` for it. Dropped if the connection is gone.
    pub fn send(&self, content: &[u8], room: Room<'_>) {
        let mut shared = self.shared();
        let taken = shared
            .conn
            .take_credit(u32::try_from(content.len()).unwrap_or(u32::MAX))
            as usize;
        debug_assert!(taken == content.len() || shared.conn.state() == State::Closed);
        if taken > 0 {
            shared.last = self.link.outbox().content(self.id, &content[..taken], room);
            drop(shared);
            self.link.counters().count_in(taken);
        }
    }

    /// Sends the end of the client's half.
    pub fn end(&self) {
        let mut shared = self.shared();
        if shared.conn.state() == State::Closed {
            return;
        }
        let reason = if self.link.is_v1() && shared.last == Batch::NONE {
            // An empty frame would open it at ejabberd, to say nothing.
            shared.finish(Ending::Close(CloseReason::ClientClosed));
            CloseReason::ClientClosed
        } else {
            shared.conn.we_ended();
            self.link.outbox().end(self.id, shared.last);
            CloseReason::Normal
        };
        let finished = shared.conn.state() == State::Closed;
        drop(shared);
        if finished {
            self.link.forget(self.id, reason);
            self.brought.notify_one();
        }
    }

    /// Gives the connection up, for `reason`, if it is not gone already:
    /// ejabberd is told, and nothing it sends is wanted any more.
    pub fn abandon(&self, reason: CloseReason) {
        let mut shared = self.shared();
        if shared.conn.state() == State::Closed {
            return;
        }
        if !self.link.is_v1() {
            self.link.outbox().behind(
                shared.last,
                &Control::Reset {
                    id: self.id,
                    reason,
                },
            );
        } else if shared.conn.may_send() && shared.last != Batch::NONE {
            self.link.outbox().end(self.id, shared.last);
        }
        let dropped = shared.finish(Ending::Reset(reason));
        drop(shared);
        self.link.budget().give(dropped);
        self.link.forget(self.id, reason);
        self.brought.notify_one();
    }
}

/// What a client that is gone was not written is held no more.
impl Drop for Connection {
    fn drop(&mut self) {
        let shared = self.shared();
        let budget = self.link.budget();
        budget.give(shared.unwritten);
        budget.growth().give(shared.conn.grown());
    }
}

impl Shared {
    /// Returns how many bytes will never be written now, and are dropped.
    fn finish(&mut self, ending: Ending) -> usize {
        if self.conn.state() == State::Closed {
            return 0;
        }
        self.conn.close();
        self.ending = Some(ending);
        match ending {
            Ending::Close(_) => 0,
            Ending::Reset(_) => {
                let dropped = std::mem::take(&mut self.queue).len();
                self.unwritten -= dropped;
                dropped
            }
        }
    }
}
