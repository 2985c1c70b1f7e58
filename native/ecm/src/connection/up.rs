//! Client to link: what a client says is read when there is credit for it and
//! room in the outbox, straight into it.

use std::cell::RefCell;
use std::io::{self, Read};
use std::sync::{Arc, MutexGuard};

use rustix::event::epoll::EventFlags;

use super::{Client, Connection, Shared};

/// Bytes read from a client at a time. Four such frames fill a link's data
/// lane, so that one busy client leaves room for others.
const READ_MAX: u32 = 32 * 1024;

/// Reads of a client that has much to say before it lets others have their
/// turn; one, where others wait for theirs.
const READS: usize = 4;

/// What says that the client's end or failure was seen.
const GONE: EventFlags = EventFlags::RDHUP
    .union(EventFlags::HUP)
    .union(EventFlags::ERR);

thread_local! {
    /// Where a thread reads a client's bytes to, on their way into an outbox.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_MAX as usize].into());
}

/// What lets a client be read: each is told where it happens, and reads there.
impl Connection {
    /// For the watch: its socket may have something to read, or take more.
    pub fn ready(self: &Arc<Self>, flags: EventFlags) {
        self.guarded(|| {
            let mut shared = self.shared();
            if flags.contains(EventFlags::OUT) && std::mem::take(&mut shared.marks.full) {
                self.bring(shared);
                shared = self.shared();
            }
            if flags.intersects(GONE.union(EventFlags::IN)) {
                shared.marks.readable = true;
                shared.marks.gone |= flags.intersects(GONE);
                self.read(shared, false);
            }
        });
    }

    /// For the link's writer: it is its turn to put something into the outbox,
    /// and there may be room.
    pub fn room_came(self: &Arc<Self>) {
        self.guarded(|| {
            let mut shared = self.shared();
            shared.marks.no_room = false;
            self.read(shared, true);
        });
    }

    /// There is credit again.
    pub(super) fn credit_came(self: &Arc<Self>) {
        self.guarded(|| self.read(self.shared(), false));
    }
}

impl Connection {
    /// Reads what there is, as far as there is credit and room, but for what
    /// others should have their turn before; waits for these otherwise. One
    /// that is `called` has waited for its turn.
    fn read(self: &Arc<Self>, mut guard: MutexGuard<'_, Shared>, called: bool) {
        let mut reads = 0;
        loop {
            let shared = &mut *guard;
            let marks = &mut shared.marks;
            let Some(client) = &shared.client else {
                return;
            };
            if marks.client_ended || marks.no_room || !marks.readable {
                return self.look_for_failure(guard);
            }
            let credit = shared.conn.credit();
            if credit == 0 {
                if !std::mem::replace(&mut marks.no_credit, true) {
                    self.link.counters().count_no_credit();
                }
                return self.look_for_failure(guard);
            }
            let wanted = credit.min(self.link.max_content()).min(READ_MAX);
            let outbox = self.link.outbox();
            let Some(room) = outbox.room_or_wait(wanted, called, || Arc::clone(self)) else {
                marks.no_room = true;
                return self.look_for_failure(guard);
            };
            let read: io::Result<usize> = SCRATCH.with_borrow_mut(|scratch| {
                let bytes = (&client.socket).read(&mut scratch[..wanted as usize])?;
                if bytes > 0 {
                    let taken = shared.conn.take_credit(bytes as u32);
                    debug_assert_eq!(taken as usize, bytes);
                    shared.last = outbox.content(self.id, &scratch[..bytes], room);
                    marks.asks = true;
                    self.link.counters().count_in(bytes);
                }
                Ok(bytes)
            });
            match read {
                Ok(0) => {
                    marks.client_ended = true;
                    drop(guard);
                    return self.end();
                }
                // There may be more.
                Ok(bytes) if bytes == wanted as usize => {
                    reads += 1;
                    if outbox.others_come_first(reads == READS, || Arc::clone(self)) {
                        marks.no_room = true;
                        return;
                    }
                }
                // The queue tells when there is more; the end it has told.
                Ok(_) if marks.gone => {}
                Ok(_) => {
                    marks.readable = false;
                    return;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    (marks.readable, marks.gone) = (false, false);
                    return;
                }
                Err(error) => {
                    drop(guard);
                    return self.fail(&error);
                }
            }
        }
    }

    /// A client that is not read may have failed all the same.
    fn look_for_failure(self: &Arc<Self>, guard: MutexGuard<'_, Shared>) {
        if !guard.marks.gone {
            return;
        }
        let failure = |client: &Client| client.socket.take_error().unwrap_or_else(Some);
        if let Some(error) = guard.client.as_ref().and_then(failure) {
            drop(guard);
            self.fail(&error);
        }
    }
}
