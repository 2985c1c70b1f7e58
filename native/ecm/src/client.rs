//! One client: its socket on one side, its connection on a link on the other.
//!
//! Two halves run in one task, each waiting for one thing at a time. There
//! may be a million clients, most of them silent: neither half holds a buffer
//! while nothing comes, and whatever is only waited for at times (room, credit,
//! a slow client) is in a box, so that the task keeps no space for it.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use megaphone_proto::control::CloseReason;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::debug;

use crate::answers::Answers;
use crate::config::Kind;
use crate::connection::{Connection, Ending, Fetched};
use crate::farewell;
use crate::limits::Place;

/// Bytes read from a client at a time. Four such frames fill a link's data
/// lane, so that one busy client leaves room for others.
const READ_MAX: u32 = 32 * 1024;

thread_local! {
    /// Where a thread reads a client's bytes to, on their way into an outbox.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_MAX as usize].into());
}

/// Why both halves of a client stopped.
enum Stopped {
    /// The connection is gone from the link.
    Link(Ending),
    /// The client's socket is of no use any more.
    Socket(io::Error),
}

/// One client that has a connection.
pub struct Client {
    /// Its socket.
    pub stream: TcpStream,
    /// Its connection.
    pub connection: Arc<Connection>,
    /// Its address.
    pub peer: SocketAddr,
    /// How it is told that there is no service.
    pub kind: Kind,
    /// How long it may take over what came before its connection was closed.
    pub close_timeout: Duration,
    /// It has sent something since the last answer began.
    pub asks: AtomicBool,
    /// Its place among all clients, for as long as it is there.
    pub _place: Place,
}

impl Client {
    /// Carries a client's bytes until one of both sides is done with it.
    pub async fn run(mut self: Box<Self>) {
        let (mut unwritten, mut answers) = (Vec::new(), Answers::default());
        let stopped = tokio::select! {
            biased;
            stopped = self.downstream(&mut unwritten, &mut answers) => stopped,
            error = self.upstream() => Stopped::Socket(error),
        };
        let reason = match stopped {
            Stopped::Link(ending) => {
                Box::pin(self.finish(ending, unwritten, answers)).await;
                ending.reason()
            }
            Stopped::Socket(error) => {
                let id = self.connection.id();
                debug!("connection {id}: the client's socket failed: {error}");
                self.connection.abandon(CloseReason::ClientClosed);
                CloseReason::ClientClosed
            }
        };
        let (id, peer) = (self.connection.id(), self.peer);
        debug!("connection {id} closed peer={peer} reason={reason}");
    }

    /// Client to link. Ends only when the socket fails.
    async fn upstream(&self) -> io::Error {
        match self.read_all().await {
            Ok(()) => {
                self.connection.end();
                Box::pin(self.failure()).await
            }
            Err(error) => error,
        }
    }

    /// Reads until the client ends its half.
    async fn read_all(&self) -> io::Result<()> {
        let link = self.connection.link();
        loop {
            let credit = match self.connection.credit() {
                0 => Box::pin(self.wait_for_credit()).await?,
                credit => credit,
            };
            poll_fn(|context| self.stream.poll_read_ready(context)).await?;
            let wanted = credit.min(link.max_content()).min(READ_MAX);
            let room = match link.outbox().try_room(wanted) {
                Some(room) => room,
                None => Box::pin(link.outbox().room(wanted)).await,
            };
            let read = SCRATCH.with_borrow_mut(|scratch| {
                let bytes = self.stream.try_read(&mut scratch[..wanted as usize])?;
                if bytes > 0 {
                    self.connection.send(&scratch[..bytes], room);
                    self.asks.store(true, Relaxed);
                }
                Ok(bytes)
            });
            match read {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if not_yet(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn wait_for_credit(&self) -> io::Result<u32> {
        self.connection.link().counters().count_no_credit();
        tokio::select! {
            biased;
            credit = self.connection.wait_for_credit() => Ok(credit),
            error = self.failure() => Err(error),
        }
    }

    /// Waits until the socket fails, without reading from it.
    async fn failure(&self) -> io::Error {
        loop {
            let failed = match self.stream.ready(Interest::ERROR).await {
                Ok(_) => self.stream.take_error(),
                Err(error) => return error,
            };
            match failed {
                Ok(Some(error)) | Err(error) => return error,
                // Clears the readiness, which was none.
                Ok(None) => drop(self.stream.try_io(Interest::ERROR, || -> io::Result<()> {
                    Err(io::ErrorKind::WouldBlock.into())
                })),
            }
        }
    }

    /// Link to client. What could not be written is left in `bytes`.
    async fn downstream(&self, bytes: &mut Vec<u8>, answers: &mut Answers) -> Stopped {
        loop {
            match self.connection.fetch(bytes) {
                Fetched::Bytes => {
                    if self.kind == Kind::Http && answers.take(bytes) {
                        self.asks.store(false, Relaxed);
                    }
                    if let Err(error) = self.write(bytes).await {
                        return Stopped::Socket(error);
                    }
                    // An idle client keeps no buffer.
                    bytes.shrink_to_fit();
                }
                Fetched::PeerEnded => {
                    let _ = SockRef::from(&self.stream).shutdown(std::net::Shutdown::Write);
                    if self.connection.link().is_v1() {
                        Box::pin(self.wait_for_v1_client()).await;
                    }
                }
                Fetched::Finished(ending) => return Stopped::Link(ending),
                Fetched::Nothing => self.connection.brought().await,
            }
        }
    }

    /// Writes `bytes`. Leaves some if the connection is finished before.
    async fn write(&self, bytes: &mut Vec<u8>) -> io::Result<()> {
        let mut written = 0;
        while written < bytes.len() {
            match self.stream.try_write(&bytes[written..]) {
                Ok(more) => {
                    written += more;
                    self.connection.written(more);
                }
                Err(error) if not_yet(&error) => {
                    if !Box::pin(self.wait_to_write()).await? {
                        break;
                    }
                }
                Err(error) => return Err(error),
            }
        }
        bytes.drain(..written);
        Ok(())
    }

    /// Waits until the client takes more. `false`: its connection is finished.
    async fn wait_to_write(&self) -> io::Result<bool> {
        self.connection.link().counters().count_slow_client();
        loop {
            tokio::select! {
                biased;
                () = self.connection.brought() => if self.connection.is_finished() {
                    return Ok(false);
                },
                ready = poll_fn(|context| self.stream.poll_write_ready(context)) => {
                    return ready.map(|()| true);
                }
            }
        }
    }

    /// Version 1 has no message that says that ejabberd is done with both
    /// halves: a client that keeps its own open after that is given up.
    async fn wait_for_v1_client(&self) {
        let ended = async {
            while !self.connection.is_finished() {
                self.connection.brought().await;
            }
        };
        if timeout(self.close_timeout, ended).await.is_err() {
            self.connection.abandon(CloseReason::Timeout);
        }
    }

    /// The connection is gone from the link: ends the client as `ending`
    /// says, `unwritten` being what it was not sent yet, and `answers` where
    /// what it was sent ends.
    async fn finish(&mut self, ending: Ending, unwritten: Vec<u8>, answers: Answers) {
        let refused = matches!(
            ending.reason(),
            CloseReason::Refused
                | CloseReason::Overload
                | CloseReason::Limit
                | CloseReason::Shutdown
        );
        let waits = !self.connection.was_answered()
            || (self.asks.load(Relaxed) && answers == Answers::Between && unwritten.is_empty());
        if refused && self.kind == Kind::Http && waits {
            return farewell::refuse(&mut self.stream, self.kind).await;
        }
        match ending {
            Ending::Reset(_) => farewell::reset(&self.stream),
            Ending::Close(reason) => {
                let closing = farewell::close(&mut self.stream, &unwritten, reason);
                if timeout(self.close_timeout, closing).await.is_err() {
                    farewell::reset(&self.stream);
                }
            }
        }
    }
}

/// Should the task fail, ejabberd must hear of it.
impl Drop for Client {
    fn drop(&mut self) {
        self.connection.abandon(CloseReason::Internal);
    }
}

/// Whether `error` only says to wait, or to try again.
fn not_yet(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_task<F>(_: fn(Box<Client>) -> F) -> usize {
        size_of::<F>()
    }

    /// There may be a million of them, and 0.3 kB each for both ends of the
    /// line is about what the design leaves.
    #[test]
    fn a_client_is_small() {
        let (task, client) = (size_of_task(Client::run), size_of::<Client>());
        let connection = size_of::<Connection>();
        assert!(
            task + client + connection <= SIZE_MAX,
            "{task} + {client} + {connection}"
        );
    }

    /// Bytes of all three.
    const SIZE_MAX: usize = 600;
}
