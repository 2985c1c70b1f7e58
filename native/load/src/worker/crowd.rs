//! The users of a worker, and their sockets.
//!
//! ```text
//!   Out ──join──► Joining ──logged in──► In ──leave──► Leaving ──► Out
//!    ▲               │ fault, patience    │ fault          │ patience
//!    └───────────────┴────────────────────┴────────────────┘
//! ```
//!
//! A user is a box in a vector; there is no timer for one: those who join or leave stand in one
//! queue, which is in the order of their deadlines because all have the same patience.

mod end;
mod io;

use std::collections::VecDeque;
use std::sync::Arc;

use mio::event::Event as Readiness;
use mio::{Interest, Registry, Token};

use crate::clock;
use crate::errno;
use crate::fleet::Errors;
use crate::session::{Channel, Output, Plan, Session};
use crate::socket::{Connector, Socket, Traffic};
use crate::target::{Tls, Transport};
use crate::wire::Begin;

/// Bytes that are read at a time, by all users in turn.
const READ: usize = 64 * 1024;

/// How long after its last request a BOSH user sends or leaves at the earliest, in nanoseconds.
///
/// What it says then goes on its other connection, beside a request that the server holds; two
/// requests that come at the same time on two connections can reach the server's session in the other
/// order. XEP-0124 (section 14.2) has servers put that right; ejabberd's `ejabberd_bosh` (23.01 to
/// 24.12 at least) leaves the later one lying then. Clients wait, too: Strophe a tenth of a second.
pub(super) const SETTLE: u64 = 10_000_000;

/// Who wants to know what happens to users. They are named by their place in the crowd.
pub(super) trait Watch {
    /// A login that was due at `due` has ended well.
    fn logged_in(&mut self, user: u32, due: u64);
    /// A chat message came, with this text.
    fn message(&mut self, user: u32, body: &str);
    /// The user is out.
    fn gone(&mut self, user: u32, gone: Gone);
}

/// Whether a user may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// It has been quiet for so long, in nanoseconds: `u64::MAX` where that does not matter.
    Now(u64),
    /// What it says goes out when the server has answered something.
    Later,
    /// Less than [`SETTLE`] after its last request.
    TooSoon,
}

/// How a user has gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Gone {
    /// It was to leave, and has.
    Left,
    /// It had been logged in. The crowd has counted why.
    FellOut,
    /// It was to log in, and could not: the kind of fault.
    Failed(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Joining,
    In,
    Leaving,
}

#[derive(Debug)]
struct User {
    session: Session,
    sockets: [Option<Socket>; 2],
    phase: Phase,
    /// When its login was due.
    due: u64,
    /// Until when it is to have joined, or left.
    deadline: u64,
    /// When it wrote last (BOSH only).
    wrote: u64,
}

/// All users of a worker.
#[derive(Debug)]
pub(super) struct Crowd {
    users: Vec<Option<Box<User>>>,
    plan: Arc<Plan>,
    first: u32,
    stride: u32,
    connector: Connector,
    registry: Registry,
    patience: u64,
    waiting: VecDeque<(u64, u32)>,
    online: u32,
    faults: Errors,
    traffic: Traffic,
    output: Output,
    buffer: Vec<u8>,
    /// A read that does not fill the buffer has emptied the socket: not with TLS, which keeps
    /// some of what it has read.
    plain: bool,
    bosh: bool,
}

impl Crowd {
    /// Nobody yet. The error is for a person.
    pub(super) fn new(begin: &Begin, registry: Registry) -> Result<Self, String> {
        Ok(Self {
            users: Vec::new(),
            plan: Arc::new(Plan {
                target: begin.target.clone(),
                accounts: begin.accounts.clone(),
            }),
            first: begin.first,
            stride: begin.stride,
            connector: Connector::new(&begin.target, &begin.sources)?,
            registry,
            patience: clock::from_seconds(begin.patience),
            waiting: VecDeque::new(),
            online: 0,
            faults: Errors::new(),
            traffic: Traffic::default(),
            output: Output::default(),
            buffer: vec![0; READ],
            plain: begin.target.tls == Tls::None,
            bosh: begin.target.transport == Transport::Bosh,
        })
    }

    /// How many are logged in.
    pub(super) fn online(&self) -> u32 {
        self.online
    }

    /// Why users fell out who had been logged in.
    pub(super) fn faults(&mut self) -> &mut Errors {
        &mut self.faults
    }

    /// Bytes moved so far.
    pub(super) fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// One more than the last user's place.
    pub(super) fn places(&self) -> u32 {
        self.users.len() as u32
    }

    /// Whether there is nobody at that place: neither in, nor about to be.
    pub(super) fn is_out(&self, user: u32) -> bool {
        self.user(user).is_none()
    }

    /// Whether that one is logged in.
    pub(super) fn is_in(&self, user: u32) -> bool {
        self.user(user).is_some_and(|user| user.phase == Phase::In)
    }

    /// Whether that one may send and leave now.
    pub(super) fn turn(&self, user: u32, now: u64) -> Turn {
        match self.user(user) {
            Some(user) if self.bosh => match now.saturating_sub(user.wrote) {
                _ if user.session.is_busy() => Turn::Later,
                quiet if quiet < SETTLE => Turn::TooSoon,
                quiet => Turn::Now(quiet),
            },
            _ => Turn::Now(u64::MAX),
        }
    }

    /// Those who are logged in and wait for an answer before they can send.
    pub(super) fn busy(&self) -> Vec<u32> {
        let waits = |user: &User| user.phase == Phase::In && user.session.is_busy();
        (0..self.places())
            .filter(|user| self.user(*user).is_some_and(waits))
            .collect()
    }

    /// Begins the login of one who is out. The error is the kind of fault; nobody else is told.
    pub(super) fn join(&mut self, user: u32, due: u64) -> Result<(), String> {
        let mut socket = self
            .connector
            .connect(None)
            .map_err(|error| errno::kind("connect", &error))?;
        register(&self.registry, &mut socket, user, Channel::First)?;
        let place = user as usize;
        if place >= self.users.len() {
            self.users.resize_with(place + 1, || None);
        }
        let number = self.first + user * self.stride;
        let deadline = self.wait(user);
        self.users[place] = Some(Box::new(User {
            session: Session::new(&self.plan, number),
            sockets: [Some(socket), None],
            phase: Phase::Joining,
            due,
            deadline,
            wrote: 0,
        }));
        Ok(())
    }

    /// One who is logged in is to leave.
    pub(super) fn leave(&mut self, user: u32, watch: &mut dyn Watch) {
        let deadline = self.wait(user);
        let Some(entry) = slot(&mut self.users, user) else {
            return;
        };
        entry.phase = Phase::Leaving;
        entry.deadline = deadline;
        self.online -= 1;
        entry.session.leave(&mut self.output);
        let ended = self.apply(user);
        self.end(user, ended, watch);
    }

    /// One who is logged in sends another a message. Whether that was possible: if not, whoever
    /// was to send has fallen out, and nobody else is told.
    pub(super) fn say(&mut self, from: u32, to: u32, body: &str) -> bool {
        let Some(receiver) = slot(&mut self.users, to) else {
            return true;
        };
        // Two users cannot be borrowed at a time; a JID is short.
        let jid = receiver.session.jid().to_owned();
        let Some(sender) = slot(&mut self.users, from) else {
            return false;
        };
        sender.session.send_message(&jid, body, &mut self.output);
        match self.apply(from) {
            Ok(()) => true,
            Err(end) => {
                self.remove(from, &end);
                false
            }
        }
    }

    /// A socket is ready to be read or written.
    pub(super) fn ready(&mut self, event: &Readiness, watch: &mut dyn Watch) {
        let Token(token) = event.token();
        let (user, channel) = ((token / 2) as u32, token % 2);
        let ended = self.handle(user, channel, event, watch);
        self.end(user, ended, watch);
    }

    /// When [`Crowd::expire`] is to be called next.
    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.waiting.front().map(|(deadline, _)| *deadline)
    }

    fn user(&self, user: u32) -> Option<&User> {
        self.users.get(user as usize)?.as_deref()
    }

    fn wait(&mut self, user: u32) -> u64 {
        let deadline = clock::now() + self.patience;
        self.waiting.push_back((deadline, user));
        deadline
    }
}

fn slot(users: &mut [Option<Box<User>>], user: u32) -> Option<&mut User> {
    users.get_mut(user as usize)?.as_deref_mut()
}

fn register(
    registry: &Registry,
    socket: &mut Socket,
    user: u32,
    channel: Channel,
) -> Result<(), String> {
    let token = Token(user as usize * 2 + usize::from(channel == Channel::Second));
    registry
        .register(
            socket.stream(),
            token,
            Interest::READABLE | Interest::WRITABLE,
        )
        .map_err(|error| errno::kind("connect", &error))
}
