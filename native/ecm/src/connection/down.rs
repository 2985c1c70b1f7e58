//! Link to client: what came is written at once, and what the client's socket
//! does not take waits.

use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use megaphone_proto::conn::{ConnError, State};
use megaphone_proto::control::{CloseReason, Control};
use tokio::time::sleep;
use tracing::debug;

use super::{Client, Connection, Ending, Shared};
use crate::answers::Answers;
use crate::config::Kind;
use crate::farewell::{self, Last};

/// From so many bytes on content is written by itself and from where it is.
/// Less is gathered, for a copy is cheap beside a write of its own.
const LARGE: usize = 4096;

/// For the link's reader.
impl Connection {
    /// Takes content for the client. Where it is added to `to_flush`, it is
    /// written when that is flushed: what came at once goes at once.
    ///
    /// # Errors
    /// As [`Conn::receive`](megaphone_proto::conn::Conn::receive).
    pub fn deliver(
        self: &Arc<Self>,
        content: &[u8],
        to_flush: &mut Vec<Arc<Self>>,
    ) -> Result<(), ConnError> {
        let mut shared = self.shared();
        shared
            .conn
            .receive(u32::try_from(content.len()).unwrap_or(u32::MAX))?;
        shared.marks.answered = true;
        let mut rest = content;
        if content.len() >= LARGE && shared.waiting.is_empty() && shared.client.is_some() {
            shared.follow_answers(content);
            // What failed shows again when the rest is flushed.
            let written = self.write(&mut shared, content).unwrap_or(0);
            rest = &content[written..];
            shared.waiting.push(rest);
            self.count(&mut shared);
        } else {
            shared.waiting.push(rest);
        }
        if !rest.is_empty() && !std::mem::replace(&mut shared.marks.to_flush, true) {
            to_flush.push(Arc::clone(self));
        }
        Ok(())
    }

    /// Writes what was delivered.
    pub fn flush(self: &Arc<Self>) {
        let mut shared = self.shared();
        shared.marks.to_flush = false;
        self.bring(shared);
    }
}

impl Connection {
    /// Brings the client all that there is for it: bytes, and the end.
    pub(super) fn bring(self: &Arc<Self>, mut shared: MutexGuard<'_, Shared>) {
        let poured = self.pour(&mut shared);
        let counted = self.count(&mut shared);
        if shared.conn.state() == State::Closed {
            return self.conclude(&mut shared);
        }
        if let Err(error) = poured {
            drop(shared);
            return self.fail(&error);
        }
        if !counted {
            drop(shared);
            return self.abandon(CloseReason::Overload);
        }
        if shared.conn.may_receive() || !shared.waiting.is_empty() {
            return;
        }
        if let Some(client) = &shared.client
            && !shared.marks.end_told
        {
            let _ = client.socket.shutdown(Shutdown::Write);
            if self.link.is_v1() {
                self.give_up_after(client.watch.close_timeout());
            }
            shared.marks.end_told = true;
        }
    }

    /// Writes what waits, as far as the client takes it.
    fn pour(&self, shared: &mut Shared) -> io::Result<()> {
        if shared.client.is_none() || shared.waiting.is_empty() {
            return Ok(());
        }
        // An idle client keeps no buffer.
        let mut waiting = std::mem::take(&mut shared.waiting);
        shared.follow_answers(&waiting.as_slice()[shared.offered as usize..]);
        let written = self.write(shared, waiting.as_slice());
        waiting.consume(*written.as_ref().unwrap_or(&0));
        shared.waiting = waiting;
        written.map(drop)
    }

    /// Writes of `bytes` what the client takes, and returns how many it took.
    fn write(&self, shared: &mut Shared, bytes: &[u8]) -> io::Result<usize> {
        let Some(client) = &shared.client else {
            return Ok(0);
        };
        let mut written = 0;
        while written < bytes.len() && !shared.marks.full {
            match (&client.socket).write(&bytes[written..]) {
                Ok(more) => written += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.link.counters().count_slow_client();
                    shared.marks.full = true;
                    if !std::mem::replace(&mut shared.marks.full_watched, true) {
                        client.watch.watch_full(client.seat, &client.socket)?;
                    }
                }
                Err(error) => return Err(error),
            }
        }
        if written > 0 {
            let released = u32::try_from(written).unwrap_or(u32::MAX);
            let growth = self.link.budget().growth();
            if let Some(bytes) = shared.conn.release(released, growth) {
                let id = self.id;
                self.link.outbox().urgent(&Control::Window { id, bytes });
            }
            self.link.client_moved();
        }
        Ok(written)
    }

    /// Has the budget know what waits. `false`: that is too much.
    fn count(&self, shared: &mut Shared) -> bool {
        let (known, now) = (shared.offered as usize, shared.waiting.len());
        if now > known && !self.link.budget().take(now - known) {
            return false;
        }
        self.link.budget().give(known.saturating_sub(now));
        shared.offered = now as u32;
        true
    }

    /// Version 1 has no message that says that ejabberd is done with both
    /// halves: a client that keeps its own open after that is given up.
    fn give_up_after(self: &Arc<Self>, time: Duration) {
        let connection = Arc::downgrade(self);
        tokio::spawn(async move {
            sleep(time).await;
            if let Some(connection) = connection.upgrade() {
                connection.abandon(CloseReason::Timeout);
            }
        });
    }

    /// The connection is gone from the link: ends the client, if it is there.
    fn conclude(self: &Arc<Self>, shared: &mut Shared) {
        let Some(client) = shared.client.take() else {
            return;
        };
        client.watch.leave(client.seat);
        let both_ended = Ending::Close(CloseReason::Normal);
        let ending = shared.ending.unwrap_or(both_ended);
        let reason = ending.reason();
        let last = std::mem::take(&mut shared.waiting);
        match ending {
            _ if shared.kind == Kind::Http && shared.is_refused(reason, last.as_slice()) => {
                self.part(client, Last::Refusal(shared.kind), reason);
            }
            Ending::Reset(_) => {
                farewell::reset(&client.socket);
                self.closed(client.peer.as_deref(), reason);
            }
            // It has read all, for it closed.
            Ending::Close(_) if last.is_empty() && shared.marks.client_ended => {
                self.closed(client.peer.as_deref(), reason);
            }
            Ending::Close(reason) => self.part(client, Last::Bytes(last, reason), reason),
        }
    }

    /// Ends a client who is still to be told something. Until it is, the
    /// connection holds what the budget gave it for that.
    fn part(self: &Arc<Self>, client: Client, last: Last, reason: CloseReason) {
        client.watch.let_go(&client.socket);
        let connection = Arc::clone(self);
        tokio::spawn(async move {
            let Client {
                socket,
                place,
                watch,
                peer,
                ..
            } = client;
            farewell::part(socket, last, watch.close_timeout()).await;
            connection.closed(peer.as_deref(), reason);
            drop(place);
        });
    }

    fn closed(&self, peer: Option<&SocketAddr>, reason: CloseReason) {
        if let Some(peer) = peer {
            debug!("connection {} closed peer={peer} reason={reason}", self.id);
        }
    }
}

impl Shared {
    /// ejabberd sent what waits for a client who has just been attached.
    pub(super) fn follow_waiting(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        // The rest is followed when it is poured.
        self.follow_answers(&waiting.as_slice()[..self.offered as usize]);
        self.waiting = waiting;
    }

    /// ejabberd sent `bytes`.
    fn follow_answers(&mut self, bytes: &[u8]) {
        if self.kind == Kind::Http && self.client.is_some() && self.answers.take(bytes) {
            self.marks.asks = false;
        }
    }

    /// Whether an HTTP client waits for an answer that it will not get, and
    /// can be told so: not inside another, of which there are `last` bytes
    /// that it was not sent.
    fn is_refused(&self, reason: CloseReason, last: &[u8]) -> bool {
        let refused = matches!(
            reason,
            CloseReason::Refused
                | CloseReason::Overload
                | CloseReason::Limit
                | CloseReason::Shutdown
        );
        let asks = self.marks.asks && self.answers == Answers::Between && last.is_empty();
        refused && (!self.marks.answered || asks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Places;
    use crate::link::tests::{link, open};
    use crate::watch::Watch;
    use crate::watch::tests::attach_as;
    use rustix::event::epoll::EventFlags;
    use std::io::Read;

    /// What an HTTP client reads that asked, was sent `answer` until it was `enough`,
    /// and whose connection is then reset for a shutdown.
    async fn cut(answer: &[u8], enough: impl Fn(&Shared) -> bool) -> Vec<u8> {
        let (link, places) = (link(0), Places::new(1));
        let watch = Arc::new(Watch::new(Duration::from_secs(1)).unwrap());
        let connection = open(&link);
        let mut theirs = attach_as(Kind::Http, &connection, &watch, &places);
        theirs.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        while !connection.shared().marks.asks {
            connection.ready(EventFlags::IN);
        }
        while !enough(&connection.shared()) {
            connection.deliver(answer, &mut Vec::new()).unwrap();
            connection.flush();
            // As if it had asked for the next one meanwhile.
            connection.shared().marks.asks = true;
        }
        connection.finish(Ending::Reset(CloseReason::Shutdown));
        let read = tokio::task::spawn_blocking(move || {
            let mut all = Vec::new();
            let _ = theirs.read_to_end(&mut all);
            all
        });
        read.await.unwrap()
    }

    #[tokio::test]
    async fn who_waits_for_an_answer_is_told_that_there_is_none() {
        let told = b"HTTP/1.1 503 ";
        assert!(cut(b"", |_| true).await.starts_with(told));
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        let read = cut(answer, |shared| shared.marks.answered).await;
        assert!(read.starts_with(answer) && read[answer.len()..].starts_with(told));
    }

    #[tokio::test]
    async fn no_refusal_lands_inside_an_answer_of_which_the_end_was_not_written() {
        let mut answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3000\r\n\r\n".to_vec();
        answer.resize(answer.len() + 3000, b'x');
        let read = cut(&answer, |shared| shared.marks.full).await;
        assert!(!read.windows(4).any(|bytes| bytes == b" 503"));
    }
}
