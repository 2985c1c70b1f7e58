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

/// What says that the client's end or failure was seen.
const GONE: EventFlags = EventFlags::RDHUP
    .union(EventFlags::HUP)
    .union(EventFlags::ERR);

thread_local! {
    /// Where a thread reads a client's bytes to, on their way into an outbox.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_MAX as usize].into());
}

/// For the watch.
impl Connection {
    /// Its socket may have something to read, or take more.
    pub fn ready(self: &Arc<Self>, flags: EventFlags) {
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
    }

    /// There may be room or credit for what was not read, or more to read.
    pub fn look_again(self: &Arc<Self>) {
        let mut shared = self.shared();
        let called = std::mem::take(&mut shared.marks.no_room);
        self.read(shared, called);
    }
}

impl Connection {
    /// There is room in the outbox, for which it waited.
    pub fn room_came(self: &Arc<Self>) {
        self.look_again_soon(self.shared());
    }

    pub(super) fn look_again_soon(self: &Arc<Self>, shared: MutexGuard<'_, Shared>) {
        let watch = shared
            .client
            .as_ref()
            .map(|client| Arc::clone(&client.watch));
        drop(shared);
        if let Some(watch) = watch {
            watch.again(Arc::clone(self));
        }
    }

    /// Reads once what there is, as far as there is credit and room; waits for
    /// these otherwise. One that is `called` has waited for room.
    fn read(self: &Arc<Self>, mut guard: MutexGuard<'_, Shared>, called: bool) {
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
                // Others have their turn first.
                Ok(bytes) if bytes == wanted as usize => return self.look_again_soon(guard),
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
