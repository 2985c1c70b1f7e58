//! One virtual connection: what its owner, its readers, its writers and the link share.
//!
//! ```text
//!            close/1, owner's death, exit_on_close
//!   Open ───────────────┬──── bytes still to go ────► Lingering ──┐ gone out, or given up
//!     │                 └──── nothing to go ──────────────────────┤
//!     └── close, reset or loss of the link from the far side ─────┴──► Closed(reason)
//! ```
//! The two directions of the stream are [`Flow`]'s business; here is what the Erlang socket sees.
//! Lock order: a connection's state, then the link's table or owners. Nothing locks the other way
//! round. A link's feed locks several connections at once; nobody else may wait for one while it
//! holds another.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use megaphone_proto::addresses::Addresses;
use megaphone_proto::conn::Conn as Flow;
use megaphone_proto::control::CloseReason;
use megaphone_proto::frame::ConnectionId;
use megaphone_proto::total::Total;
use megaphone_proto::wheel::Watch;
use rustler::{Encoder, Env, LocalPid, Resource, ResourceArc, Term};

use crate::atoms;
use crate::front::Front;
use crate::inbox::Inbox;
use crate::limits;
use crate::link::Link;
use crate::options::Active;
use crate::pending::Pending;
use crate::socket::Lazy;
use crate::sync::lock;

/// Bytes that a connection may hold whatever the others do: a request that has not come whole is
/// no reason to end its client.
const HELD_ANYWAY: u32 = 1024;

/// The resource behind `{'$inet', megaphone_socket, Ref}`.
pub struct Conn {
    /// Its number on the link.
    pub id: ConnectionId,
    /// The link it came over.
    pub link: Arc<Link>,
    /// The client, as the edge saw it, and what it connected to; for version 1 the link's own.
    pub addresses: Addresses,
    state: Mutex<State>,
}

/// Where a connection's life stands for its Erlang socket.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// In use.
    Open,
    /// Closed here; bytes that `send` took still wait for credit.
    Lingering(CloseReason),
    /// Over, for this reason.
    Closed(CloseReason),
}

/// All that changes; behind the connection's lock.
pub struct State {
    /// Both directions and their credit.
    pub flow: Flow,
    /// Coarse link time (seconds) of the last byte from the client, for `idle_timeout`.
    pub heard: u32,
    /// Where its life stands.
    pub phase: Phase,
    /// What arrived and who waits for it.
    pub inbox: Inbox,
    /// What `send` took and the credit did not; most connections have none.
    pub pending: Option<Box<Pending>>,
    /// Who gets active messages, and whose death closes the connection, where it is `owned`.
    owner: LocalPid,
    owned: bool,
    /// What only a process that uses it as a socket needs.
    pub socket: Lazy,
    /// Bytes that went through, for `info`.
    pub traffic: Traffic,
    /// Milliseconds a blocked `send` waits; `u32::MAX` is for ever.
    send_timeout: u32,
    /// Whether the connection closes when that is over.
    pub send_timeout_close: bool,
    /// The client was told to go, or is about to be. The next HTTP response says that it is the
    /// last one.
    pub draining: bool,
    /// Who its bytes go to, if not to readers.
    pub front: Front,
    /// The look at it that is coming, if any.
    pub watch: Watch,
    /// Bytes held here, as its link's count knows them.
    counted: u32,
}

/// Bytes of a connection, both ways.
#[derive(Default)]
pub struct Traffic {
    /// Those that reached a reader.
    pub received: Total,
    /// Those given to `send`.
    pub sent: Total,
}

impl State {
    /// Who gets active messages.
    pub fn owner(&self) -> Option<LocalPid> {
        self.owned.then_some(self.owner)
    }

    /// Milliseconds a blocked `send` waits; `None` is for ever.
    pub fn send_timeout(&self) -> Option<u32> {
        (self.send_timeout != u32::MAX).then_some(self.send_timeout)
    }

    /// Sets how long a `send` may block, and whether the connection closes then.
    pub fn set_send_timeout(&mut self, milliseconds: Option<u32>, close: bool) {
        self.send_timeout = milliseconds.unwrap_or(u32::MAX);
        self.send_timeout_close = close;
    }

    /// Counts a packet that reached a reader.
    pub fn count_received(&mut self, bytes: usize) {
        self.traffic.received += bytes as u64;
        if let Front::Plain = self.front {
            self.socket.received.add(bytes);
        }
    }

    /// Counts a packet given to `send`.
    pub fn count_sent(&mut self, bytes: usize) {
        self.traffic.sent += bytes as u64;
        if let Front::Plain = self.front {
            self.socket.sent.add(bytes);
        }
    }
}

#[rustler::resource_impl]
impl Resource for Conn {}

impl Conn {
    /// A connection just opened; nobody owns it yet.
    pub fn new(
        id: ConnectionId,
        link: Arc<Link>,
        (peer, local): (SocketAddr, SocketAddr),
        flow: Flow,
    ) -> Self {
        let heard = link.now();
        let owner = link.receiver;
        Conn {
            id,
            link,
            addresses: Addresses::new(peer, local),
            state: Mutex::new(State {
                flow,
                heard,
                phase: Phase::Open,
                inbox: Inbox::default(),
                pending: None,
                owner,
                owned: false,
                socket: Lazy::default(),
                traffic: Traffic::default(),
                send_timeout: u32::MAX,
                send_timeout_close: false,
                draining: false,
                front: Front::Plain,
                watch: Watch::default(),
                counted: 0,
            }),
        }
    }

    /// Takes the lock. `this` is the same connection as a resource, for the messages that carry
    /// the socket and for what is remembered for later; a connection off the wire may lack it.
    pub fn lock<'c, 'e>(
        &'c self,
        env: Env<'e>,
        this: Option<&'c ResourceArc<Conn>>,
    ) -> Held<'c, 'e> {
        Held {
            env,
            conn: self,
            this,
            state: lock(&self.state),
        }
    }
}

/// A socket that nobody has any more may have held what nobody read.
impl Drop for Conn {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.link.held.change(-i64::from(state.counted));
        limits::GROWTH.give(state.flow.grown());
    }
}

/// Takes the lock of a connection that is at hand as a resource.
pub fn hold<'c, 'e>(conn: &'c ResourceArc<Conn>, env: Env<'e>) -> Held<'c, 'e> {
    conn.lock(env, Some(conn))
}

/// A connection under its lock, with the environment to tell processes of it.
pub struct Held<'c, 'e> {
    /// Of the NIF call or callback that runs.
    pub env: Env<'e>,
    /// Whose state it is.
    pub conn: &'c Conn,
    this: Option<&'c ResourceArc<Conn>>,
    state: MutexGuard<'c, State>,
}

impl Drop for Held<'_, '_> {
    fn drop(&mut self) {
        self.count_held();
    }
}

impl std::ops::Deref for Held<'_, '_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl std::ops::DerefMut for Held<'_, '_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl<'e> Held<'_, 'e> {
    /// Tells the link's count how many bytes this connection holds; returns how many.
    pub fn count_held(&mut self) -> u32 {
        let pending = self.pending.as_ref().map_or(0, |pending| pending.bytes());
        let held = self.inbox.buffer.len() + self.front_held() + pending;
        let held = u32::try_from(held).unwrap_or(u32::MAX);
        if held != self.counted {
            let change = i64::from(held) - i64::from(self.counted);
            self.conn.link.held.change(change);
            self.counted = held;
        }
        held
    }

    /// Whether this connection is one too many that holds so much.
    pub fn holds_too_much(&mut self) -> bool {
        self.count_held() > HELD_ANYWAY && self.conn.link.held.is_over()
    }

    /// The socket as Erlang knows it.
    pub fn term(&self) -> Option<Term<'e>> {
        let this = self.this?;
        Some((atoms::inet(), atoms::megaphone_socket(), this).encode(self.env))
    }

    /// The connection as a resource, to keep it somewhere.
    pub fn this(&self) -> Option<ResourceArc<Conn>> {
        self.this.cloned()
    }

    /// Sends the owner a message that carries the socket.
    pub fn tell_owner(&self, message: impl FnOnce(Env<'e>, Term<'e>) -> Term<'e>) {
        if let (Some(owner), Some(socket)) = (self.owner(), self.term()) {
            // An owner that is gone closes the connection by its monitor.
            let _ = self.env.send(&owner, message(self.env, socket));
        }
    }

    /// Answers a process that waits under `token`.
    pub fn answer(&self, pid: &LocalPid, token: u64, result: impl Encoder) {
        // A waiter that died needs no answer.
        let _ = self.env.send(pid, (atoms::reply(), token, result));
    }

    /// Hands the connection to a process; `false` when that process is dead.
    pub fn set_owner(&mut self, pid: LocalPid) -> bool {
        let Some(this) = self.this else { return false };
        if !self.conn.link.owners.add(self.env, this, pid) {
            return false;
        }
        if self.owner() != Some(pid) {
            self.drop_owner();
        }
        (self.owner, self.owned) = (pid, true);
        true
    }

    /// Leaves the connection without an owner.
    pub fn drop_owner(&mut self) {
        if let (Some(owner), Some(this)) = (self.owner(), self.this) {
            self.conn.link.owners.remove(self.env, this, owner);
            self.owned = false;
        }
    }

    /// The owner has died: as a port would, the connection closes with it, unless its front knows
    /// better.
    pub fn owner_died(&mut self, pid: LocalPid) {
        if self.owner() == Some(pid) {
            self.owned = false;
            self.front_owner_down();
        }
    }

    /// Whether calls other than `close` still mean anything.
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Sets how the data goes on; counts as `inet` does. `None`: the count left its range.
    pub fn set_active(&mut self, change: crate::options::ActiveChange) -> Option<()> {
        use crate::options::ActiveChange::{Add, Set};
        let active = match change {
            Set(active) => active,
            Add(more) => {
                let running = match self.socket.options.active {
                    Active::Count(left) => i32::from(left),
                    _ => 0,
                };
                let total = running + i32::from(more);
                if total > i32::from(i16::MAX) {
                    return None;
                }
                match u16::try_from(total) {
                    Ok(total) if total > 0 => Active::Count(total),
                    _ => {
                        self.tell_owner(|env, socket| (atoms::tcp_passive(), socket).encode(env));
                        Active::False
                    }
                }
            }
        };
        if active != self.socket.options.active {
            self.socket.options.active = active;
        }
        Some(())
    }
}

/// A number under which one waiting process knows its answer; unique in the node's life.
pub fn token() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
