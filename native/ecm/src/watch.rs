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
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::time::Timespec;
use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};
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
            queue: watch_for(queue, Interest::READABLE)?,
            seats: Mutex::default(),
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

    /// Watches for ever.
    pub async fn run(self: Arc<Self>) -> io::Error {
        loop {
            let ready = self.queue.readable().await;
            match ready.and_then(|ready| self.look(ready)) {
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
                connection.ready(flags);
            }
        }
        Ok(more)
    }
}

/// Has tokio tell when `owned` can be read, or written to.
///
/// # Errors
/// As epoll_ctl(2).
#[expect(
    deprecated,
    reason = "unsound only for what changes its descriptor, or does not own it"
)]
pub fn watch_for<T>(owned: T, interest: Interest) -> io::Result<AsyncFd<T>>
where
    T: AsRawFd + Into<OwnedFd>,
{
    AsyncFd::with_interest(owned, interest)
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

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::config::Kind;
    use crate::connection::{Client, Ending};
    use crate::limits::Places;
    use crate::link::tests::{link, open};
    use megaphone_proto::control::CloseReason;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    /// Both ends of a connection; ours does not block.
    fn sockets() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (ours, _) = listener.accept().unwrap();
        ours.set_nonblocking(true).unwrap();
        (ours, theirs)
    }

    /// Attaches a client that is told nothing of refusals. Returns its end.
    fn attach(connection: &Arc<Connection>, watch: &Arc<Watch>, places: &Places) -> TcpStream {
        attach_as(Kind::Tcp, connection, watch, places)
    }

    /// Attaches a client. Returns its end.
    pub fn attach_as(
        kind: Kind,
        connection: &Arc<Connection>,
        watch: &Arc<Watch>,
        places: &Places,
    ) -> TcpStream {
        let (ours, theirs) = sockets();
        let peer = theirs.local_addr().unwrap();
        let place = places.try_take().unwrap();
        let client = Client::new(ours, peer, place, Arc::clone(watch));
        connection.attach(client, kind);
        theirs
    }

    #[tokio::test]
    async fn what_came_before_the_client_was_attached_reaches_it_and_so_does_the_end() {
        let (link, places) = (link(0), Places::new(1));
        let watch = Arc::new(Watch::new(Duration::from_secs(1)).unwrap());
        let connection = open(&link);
        let mut to_flush = Vec::new();
        for word in [b"one ", b"two "] {
            connection.deliver(word, &mut to_flush).unwrap();
        }
        assert_eq!(to_flush.len(), 1);
        connection.flush();
        connection.finish(Ending::Close(CloseReason::Normal));
        let mut theirs = attach(&connection, &watch, &places);
        // What is left to do is a task's.
        let read = tokio::task::spawn_blocking(move || {
            let mut all = String::new();
            theirs.read_to_string(&mut all).unwrap();
            all
        });
        assert_eq!(read.await.unwrap(), "one two ");
        places.all_free().await;
        assert!(lock(&watch.seats).get(0).is_none());
    }

    #[tokio::test]
    async fn a_client_that_speaks_is_heard_and_one_whose_seat_another_had_is_not_harmed() {
        let (link, places) = (link(0), Places::new(2));
        let watch = Arc::new(Watch::new(Duration::from_secs(1)).unwrap());
        let watching = tokio::spawn(Arc::clone(&watch).run());
        let (first, second) = (open(&link), open(&link));
        drop(attach(&first, &watch, &places));
        while !first.client_has_ended() {
            yield_now().await;
        }
        first.abandon(CloseReason::Internal);
        assert_eq!(places.taken(), 0);
        let mut theirs = attach(&second, &watch, &places);
        assert_eq!(lock(&watch.seats).taken.len(), 1);
        // As if the end of the first were told only now.
        second.ready(EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP);
        assert!(!second.is_finished());
        theirs.write_all(b"here").unwrap();
        while link.outbox().limits()[0].now == 0 {
            yield_now().await;
        }
        assert!(!second.client_has_ended());
        watching.abort();
    }
}
