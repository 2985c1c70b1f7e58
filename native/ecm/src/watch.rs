//! The sockets of clients, many to one event queue.
//!
//! A client that says nothing has no task, no timer and no buffer: only its
//! [`Connection`], a seat here and a place in the kernel's queue (epoll(7)).
//! One task for each [`Watch`] looks at those that have something to say, all
//! that are ready before it lets go, so that what they say goes to ejabberd
//! in one write. What comes for a client is written by the reader of its link
//! (see `reader.rs`); here only where the client did not take it at once.
//!
//! The queue is edge-triggered: it tells once that there is something to
//! read, and a connection remembers that it did not read it.

use std::io;
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use megaphone_proto::control::CloseReason;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::time::Timespec;
use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};
use tokio::sync::Notify;
use tokio::task::yield_now;

use crate::connection::Connection;
use crate::sync::lock;

/// Clients that are looked at before others have their turn: links' writers,
/// for one, which write what these said.
const EVENTS: usize = 256;

/// For a look at the queue that waits for nothing.
const NOW: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// What is always looked for: something to read, or the end.
const IN: EventFlags = EventFlags::IN
    .union(EventFlags::RDHUP)
    .union(EventFlags::ET);

/// Where a client sits in its watch. A seat is given to another when it is
/// free; so what is told of one may be about the client before, and nobody
/// takes it for more than a hint to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seat(u32);

impl Seat {
    /// None: there are fewer files than that.
    pub const NONE: Self = Self(u32::MAX);
}

/// Some of the clients' sockets.
#[derive(Debug)]
pub struct Watch {
    queue: AsyncFd<OwnedFd>,
    seats: Mutex<Seats>,
    /// Those to look at again without an event.
    again: Mutex<Vec<Arc<Connection>>>,
    woken: Notify,
    close_timeout: Duration,
}

#[derive(Debug, Default)]
struct Seats {
    taken: Vec<Option<Arc<Connection>>>,
    free: Vec<u32>,
}

impl Watch {
    /// One that watches nobody yet. How long clients may take over what came
    /// before their connection was closed is `close_timeout`.
    ///
    /// # Errors
    /// As epoll_create1(2).
    pub fn new(close_timeout: Duration) -> io::Result<Self> {
        let queue = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Self {
            queue: watch_readable(queue)?,
            seats: Mutex::default(),
            again: Mutex::default(),
            woken: Notify::new(),
            close_timeout,
        })
    }

    /// How long a client may take over what came before its connection was
    /// closed.
    pub fn close_timeout(&self) -> Duration {
        self.close_timeout
    }

    /// Watches `socket`, which is `connection`'s.
    ///
    /// # Errors
    /// As epoll_ctl(2).
    pub fn take(&self, connection: &Arc<Connection>, socket: &TcpStream) -> io::Result<Seat> {
        let seat = lock(&self.seats).take(connection);
        let told = epoll::add(self.queue.get_ref(), socket, data(seat), IN);
        if told.is_err() {
            self.leave(seat);
        }
        Ok(told.map(|()| seat)?)
    }

    /// Also looks for when `socket`, which is full, takes more.
    ///
    /// # Errors
    /// As epoll_ctl(2).
    pub fn watch_full(&self, seat: Seat, socket: &TcpStream) -> io::Result<()> {
        let flags = IN.union(EventFlags::OUT);
        Ok(epoll::modify(
            self.queue.get_ref(),
            socket,
            data(seat),
            flags,
        )?)
    }

    /// Gives a seat up. Its socket is watched until it is closed.
    pub fn leave(&self, seat: Seat) {
        let left = lock(&self.seats).leave(seat);
        drop(left);
    }

    /// Does not watch `socket` any more, which goes elsewhere.
    pub fn let_go(&self, socket: &TcpStream) {
        // Fails only for one that was not watched.
        let _ = epoll::delete(self.queue.get_ref(), socket);
    }

    /// Looks at `connection` again, soon: it could not read, and now can.
    pub fn again(&self, connection: Arc<Connection>) {
        lock(&self.again).push(connection);
        self.woken.notify_one();
    }

    /// Watches for ever.
    pub async fn run(self: Arc<Self>) -> io::Error {
        loop {
            let looked = tokio::select! {
                biased;
                ready = self.queue.readable() => ready.and_then(|ready| self.look(ready)),
                () = self.woken.notified() => Ok(false),
            };
            match looked.map(|more| self.look_at_those_again() || more) {
                Ok(true) => yield_now().await,
                Ok(false) => {}
                Err(error) => return error,
            }
        }
    }

    /// Looks at clients with an event. Returns whether there may be more.
    fn look(&self, mut ready: AsyncFdReadyGuard<'_, OwnedFd>) -> io::Result<bool> {
        let mut events = [MaybeUninit::uninit(); EVENTS];
        let events = match epoll::wait(ready.get_inner(), &mut events, Some(&NOW)) {
            Ok((events, _)) => events,
            Err(rustix::io::Errno::INTR) => return Ok(true),
            Err(error) => return Err(error.into()),
        };
        let more = events.len() == EVENTS;
        if !more {
            ready.clear_ready();
        }
        for event in events {
            let (seat, flags) = (event.data.u64(), event.flags);
            let seated = lock(&self.seats).get(seat);
            if let Some(connection) = seated {
                guarded(&connection, || connection.ready(flags));
            }
        }
        Ok(more)
    }

    /// As [`Watch::look`], at those who could not read before.
    fn look_at_those_again(&self) -> bool {
        let again = std::mem::take(&mut *lock(&self.again));
        for connection in &again {
            guarded(connection, || connection.look_again());
        }
        !again.is_empty()
    }
}

/// Has tokio tell when `owned` can be read.
///
/// # Errors
/// As epoll_ctl(2).
#[expect(
    deprecated,
    reason = "unsound only for what changes its descriptor, or does not own it"
)]
pub fn watch_readable<T: AsRawFd + Into<OwnedFd>>(owned: T) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(owned, Interest::READABLE)
}

/// Should one client's turn fail, it is the end of that one only, and
/// ejabberd must hear of it.
fn guarded(connection: &Arc<Connection>, turn: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(turn)).is_err() {
        connection.abandon(CloseReason::Internal);
    }
}

fn data(seat: Seat) -> EventData {
    EventData::new_u64(seat.0.into())
}

impl Seats {
    fn take(&mut self, connection: &Arc<Connection>) -> Seat {
        let connection = Some(Arc::clone(connection));
        match self.free.pop() {
            Some(free) => {
                self.taken[free as usize] = connection;
                Seat(free)
            }
            None => {
                self.taken.push(connection);
                // There are fewer files than that.
                Seat(self.taken.len() as u32 - 1)
            }
        }
    }

    fn leave(&mut self, seat: Seat) -> Option<Arc<Connection>> {
        let left = self.taken.get_mut(seat.0 as usize)?.take();
        if left.is_some() {
            self.free.push(seat.0);
        }
        left
    }

    fn get(&self, seat: u64) -> Option<Arc<Connection>> {
        self.taken.get(usize::try_from(seat).ok()?)?.clone()
    }
}
