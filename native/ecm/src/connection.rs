//! One client and its connection: its socket on one side, its place on a link
//! on the other.
//!
//! ```text
//!   link's reader ──► deliver, flush, peer_ended, granted, finish ─┐
//!                                                                  ├─ Connection ─► outbox
//!   watch ──► ready ──────────────────────────────────────────────┤      └───────► socket
//!   link's writer ──► room_came ───────────────────────────────────┘
//! ```
//!
//! There may be a million clients, most of them silent, and this is all that
//! there is of one: no task, and no buffer while nothing waits for it. Nobody
//! waits here either. What comes for a client is written where it comes, and
//! what its socket does not take is kept until it does; what a client says is
//! read when there is room and credit for it (see `connection/`). What waits
//! for a client is bounded by its window; in version 1, which has none, by
//! the reader (see `reader.rs`). What waits for all is bounded by the
//! [`Budget`].
//!
//! [`Budget`]: crate::budget::Budget

mod down;
mod up;

use std::net::{SocketAddr, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard};

use megaphone_proto::buffer::Buffer;
use megaphone_proto::conn::{Conn, ConnError, State};
use megaphone_proto::control::{CloseReason, Control};
use megaphone_proto::frame::ConnectionId;
use tracing::{debug, warn};

use crate::answers::Answers;
use crate::config::Kind;
use crate::limits::Place;
use crate::link::Link;
use crate::outbox::Batch;
use crate::sync::lock;
use crate::watch::{Seat, Watch};

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

/// One client's connection.
#[derive(Debug)]
pub struct Connection {
    id: ConnectionId,
    link: Arc<Link>,
    shared: Mutex<Shared>,
}

#[derive(Debug)]
struct Shared {
    conn: Conn,
    /// Where the last content sent went.
    last: Batch,
    /// Bytes that came for the client and were not written to it.
    waiting: Buffer,
    /// How many of them the client was offered, and the budget knows of.
    offered: u32,
    /// Until it is done with, and not before it is attached.
    client: Option<Client>,
    /// How the client is told that there is no service.
    kind: Kind,
    answers: Answers,
    ending: Option<Ending>,
    marks: Marks,
}

/// What happened, and still counts.
#[derive(Debug, Default)]
struct Marks {
    /// The client was told that ejabberd ended its half.
    end_told: bool,
    /// ejabberd sent something, once.
    answered: bool,
    /// The client has sent something since the last answer began.
    asks: bool,
    /// The client ended its half.
    client_ended: bool,
    /// There is something to read from the client, or may be.
    readable: bool,
    /// The client's end or failure was seen; it shows when all before is read.
    gone: bool,
    /// Not read, for want of credit.
    no_credit: bool,
    /// Waits for room in the outbox.
    no_room: bool,
    /// The client's socket is full.
    full: bool,
    /// It was full once, and is watched for when it is not.
    full_watched: bool,
    /// The reader is to flush it.
    to_flush: bool,
}

/// The client itself.
#[derive(Debug)]
pub struct Client {
    /// Its socket, which does not block.
    pub socket: TcpStream,
    /// Its place among all clients, for as long as it is there.
    pub place: Place,
    /// Who watches its socket, and where it sits there.
    pub watch: Arc<Watch>,
    seat: Seat,
    /// Its address, where the log is to have it.
    peer: Option<Box<SocketAddr>>,
}

impl Client {
    /// A client with `socket`, whose address is `peer`.
    pub fn new(socket: TcpStream, peer: SocketAddr, place: Place, watch: Arc<Watch>) -> Self {
        let logged = tracing::enabled!(tracing::Level::DEBUG);
        Self {
            socket,
            place,
            watch,
            seat: Seat::NONE,
            peer: logged.then(|| Box::new(peer)),
        }
    }
}

impl Connection {
    /// A connection that was just opened on `link`, for a client that is not
    /// attached yet.
    pub fn new(id: ConnectionId, link: Arc<Link>, conn: Conn) -> Self {
        let shared = Shared {
            conn,
            last: Batch::NONE,
            waiting: Buffer::default(),
            offered: 0,
            client: None,
            kind: Kind::default(),
            answers: Answers::default(),
            ending: None,
            marks: Marks::default(),
        };
        Self {
            id,
            link,
            shared: Mutex::new(shared),
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

    /// Attaches the client that it was opened for, who is told as `kind` says
    /// that there is no service.
    pub fn attach(self: &Arc<Self>, mut client: Client, kind: Kind) {
        let mut shared = self.shared();
        shared.kind = kind;
        match client.watch.take(self, &client.socket) {
            Ok(seat) => {
                client.seat = seat;
                shared.client = Some(client);
                shared.follow_waiting();
                self.bring(shared);
            }
            Err(error) => {
                drop(shared);
                warn!(
                    "connection {}: its socket cannot be watched: {error}",
                    self.id
                );
                self.abandon(CloseReason::Internal);
            }
        }
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        lock(&self.shared)
    }
}

/// For the link.
impl Connection {
    /// Takes ejabberd's end of its half.
    ///
    /// # Errors
    /// As [`Conn::peer_ended`].
    pub fn peer_ended(self: &Arc<Self>) -> Result<(), ConnError> {
        let mut shared = self.shared();
        if shared.conn.peer_ended()? == State::Closed {
            // The link has counted it when the log says that it is closed.
            drop(shared);
            self.link.forget(self.id, CloseReason::Normal);
            shared = self.shared();
        }
        self.bring(shared);
        Ok(())
    }

    /// Takes credit for `bytes` more.
    ///
    /// # Errors
    /// As [`Conn::granted`].
    pub fn granted(self: &Arc<Self>, bytes: u32) -> Result<(), ConnError> {
        let mut shared = self.shared();
        shared.conn.granted(bytes)?;
        if std::mem::take(&mut shared.marks.no_credit) {
            drop(shared);
            self.credit_came();
        }
        Ok(())
    }

    /// Ends it, which is then gone from the link.
    pub fn finish(self: &Arc<Self>, ending: Ending) {
        let mut shared = self.shared();
        self.end_for_good(&mut shared, ending);
        self.bring(shared);
    }

    /// As [`Connection::finish`], and says `message` to ejabberd, behind
    /// whatever was sent.
    pub fn finish_saying(self: &Arc<Self>, ending: Ending, message: &Control) {
        let last = self.shared().last;
        self.link.outbox().behind(last, message);
        self.finish(ending);
    }

    /// Bytes that came for the client and were not written to it. 0 once it is
    /// gone.
    pub fn unwritten(&self) -> usize {
        let shared = self.shared();
        match shared.ending {
            Some(_) => 0,
            None => shared.waiting.len(),
        }
    }

    /// Whether its client ended its half, or is gone.
    #[cfg(test)]
    pub fn client_has_ended(&self) -> bool {
        self.shared().marks.client_ended
    }

    /// Whether it is gone from the link.
    #[cfg(test)]
    pub fn is_finished(&self) -> bool {
        self.shared().conn.state() == State::Closed
    }
}

/// How it ends.
impl Connection {
    /// Sends the end of the client's half.
    pub fn end(self: &Arc<Self>) {
        let mut shared = self.shared();
        if shared.conn.state() == State::Closed {
            return;
        }
        let reason = if self.link.is_v1() && shared.last == Batch::NONE {
            // An empty frame would open it at ejabberd, to say nothing.
            let reason = CloseReason::ClientClosed;
            self.end_for_good(&mut shared, Ending::Close(reason));
            reason
        } else {
            shared.conn.we_ended();
            self.link.outbox().end(self.id, shared.last);
            CloseReason::Normal
        };
        let finished = shared.conn.state() == State::Closed;
        drop(shared);
        if finished {
            self.link.forget(self.id, reason);
            self.bring(self.shared());
        }
    }

    /// Gives the connection up, for `reason`, if it is not gone already:
    /// ejabberd is told, and nothing it sends is wanted any more.
    pub fn abandon(self: &Arc<Self>, reason: CloseReason) {
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
        self.end_for_good(&mut shared, Ending::Reset(reason));
        drop(shared);
        self.link.forget(self.id, reason);
        self.bring(self.shared());
    }

    /// Should its client's turn fail, it is the end of that one only, and
    /// ejabberd must hear of it.
    fn guarded(self: &Arc<Self>, turn: impl FnOnce()) {
        if catch_unwind(AssertUnwindSafe(turn)).is_err() {
            self.abandon(CloseReason::Internal);
        }
    }

    /// The client's socket is of no use any more.
    fn fail(self: &Arc<Self>, error: &std::io::Error) {
        debug!(
            "connection {}: the client's socket failed: {error}",
            self.id
        );
        self.abandon(CloseReason::ClientClosed);
    }

    fn end_for_good(&self, shared: &mut Shared, ending: Ending) {
        if shared.conn.state() == State::Closed {
            return;
        }
        shared.conn.close();
        shared.ending = Some(ending);
        if let Ending::Reset(_) = ending {
            if shared.offered > 0 {
                // Some of that may have been written, and the rest never is.
                shared.answers = Answers::Unknown;
            }
            shared.waiting.clear();
            let offered = std::mem::take(&mut shared.offered);
            self.link.budget().give(offered as usize);
        }
    }
}

/// What a client that is gone was not written is held no more.
impl Drop for Connection {
    fn drop(&mut self) {
        let shared = self.shared();
        let budget = self.link.budget();
        budget.give(shared.offered as usize);
        budget.growth().give(shared.conn.grown());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// There may be a million of them.
    #[test]
    fn a_client_is_small() {
        let counts = 2 * size_of::<usize>();
        let bytes = counts + size_of::<Connection>();
        assert!(bytes <= SIZE_MAX, "{bytes}");
    }

    /// Bytes that a connection takes with its client, as an allocation.
    const SIZE_MAX: usize = 144;
}
