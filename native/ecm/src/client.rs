//! One client: its socket on one side, its connection on a link on the other.
//!
//! Two halves run in one task, each waiting for one thing at a time. Neither
//! holds a buffer while nothing comes: there may be a million clients, most
//! of them silent.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use megaphone_proto::control::CloseReason;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, warn};

use crate::app::App;
use crate::config::Kind;
use crate::connection::{Connection, Ending, Fetched};
use crate::http;
use crate::limits::Place;
use crate::link::Caller;
use crate::listener::Listening;

/// Bytes read from a client at a time. Four such frames fill a link's data
/// lane, so that one busy client leaves room for others.
const READ_MAX: u32 = 32 * 1024;

/// How long a client that was sent everything may take to close. Only then
/// is it sure to have read it: to close on one that still sends makes the
/// kernel send a reset, at which it may drop what it has not read (RFC 9112,
/// section 9.6).
const LINGER: Duration = Duration::from_secs(2);

thread_local! {
    /// Where a thread reads a client's bytes to, on their way into an outbox.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_MAX as usize].into());
}

/// A client that was just accepted.
pub struct Client {
    /// Its socket.
    pub stream: TcpStream,
    /// Its address.
    pub peer: SocketAddr,
    /// Where it came in.
    pub listening: Arc<Listening>,
    /// Its place among all clients.
    pub place: Place,
}

/// Why both halves of a client stopped.
enum Stopped {
    /// The connection is gone from the link.
    Link(Ending),
    /// The client's socket is of no use any more.
    Socket(io::Error),
}

/// Opens a connection for a client that was just accepted, and starts the
/// task that carries its bytes; or sends it away.
pub async fn welcome(app: Arc<App>, mut client: Client) {
    // Both fail only on a socket that is dead already.
    let Ok(local) = client.stream.local_addr() else {
        return;
    };
    let _ = client.stream.set_nodelay(true);
    let Client {
        peer,
        ref listening,
        ..
    } = client;
    let (service, kind) = (listening.service.as_str(), listening.kind);
    let caller = Caller {
        service,
        peer: bare(peer),
        local: bare(local),
    };
    match app.links.open(caller).await {
        Ok(connection) => {
            let (id, number) = (connection.id(), connection.link().number());
            debug!(
                "connection {id} open link={number} service={service} peer={peer} local={local}"
            );
            let Client { stream, place, .. } = client;
            let close_timeout = app.close_timeout;
            let session = Session {
                stream,
                connection,
                peer,
                kind,
                close_timeout,
                _place: place,
            };
            tokio::spawn(Box::new(session).run());
        }
        Err(reason) => {
            if app.refusals.may() {
                warn!("client {peer} refused: {reason} service={service}");
            }
            refuse(&mut client.stream, kind).await;
        }
    }
}

/// An address as ejabberd is told it: IPv4 as IPv4 even on a socket for both,
/// and without a scope, which means nothing elsewhere.
fn bare(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

struct Session {
    stream: TcpStream,
    connection: Arc<Connection>,
    peer: SocketAddr,
    kind: Kind,
    close_timeout: Duration,
    _place: Place,
}

impl Session {
    /// Carries a client's bytes until one of both sides is done with it.
    async fn run(mut self: Box<Self>) {
        let mut unwritten = Vec::new();
        let stopped = tokio::select! {
            biased;
            stopped = self.to_client(&mut unwritten) => stopped,
            error = self.from_client() => Stopped::Socket(error),
        };
        let reason = match stopped {
            Stopped::Link(ending) => {
                // In a box, so that an idle client's task keeps no room for it.
                Box::pin(self.finish(ending, unwritten)).await;
                ending.reason()
            }
            Stopped::Socket(error) => {
                debug!(
                    "connection {}: the client's socket failed: {error}",
                    self.connection.id()
                );
                self.connection.abandon(CloseReason::ClientClosed);
                CloseReason::ClientClosed
            }
        };
        debug!(
            "connection {} closed peer={} reason={reason}",
            self.connection.id(),
            self.peer
        );
    }

    /// Client to link. Ends only when the socket fails.
    async fn from_client(&self) -> io::Error {
        match self.read_all().await {
            Ok(()) => {
                self.connection.end();
                self.failure().await
            }
            Err(error) => error,
        }
    }

    /// Reads until the client ends its half.
    async fn read_all(&self) -> io::Result<()> {
        let link = self.connection.link();
        loop {
            let credit = tokio::select! {
                biased;
                credit = self.connection.credit() => credit,
                error = self.failure() => return Err(error),
            };
            poll_fn(|context| self.stream.poll_read_ready(context)).await?;
            let wanted = credit.min(link.max_content()).min(READ_MAX);
            let room = link.outbox().room(wanted).await;
            let read = SCRATCH.with_borrow_mut(|scratch| {
                let bytes = self.stream.try_read(&mut scratch[..wanted as usize])?;
                if bytes > 0 {
                    self.connection.send(&scratch[..bytes], room);
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
    async fn to_client(&self, bytes: &mut Vec<u8>) -> Stopped {
        loop {
            match self.connection.fetch(bytes) {
                Fetched::Bytes => match self.write(bytes).await {
                    // An idle client keeps no buffer.
                    Ok(()) if bytes.is_empty() => *bytes = Vec::new(),
                    // Finished: the next fetch says how.
                    Ok(()) => return self.last_fetch(bytes),
                    Err(error) => return Stopped::Socket(error),
                },
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
                    tokio::select! {
                        biased;
                        () = self.connection.brought() => if self.connection.is_finished() { break },
                        ready = poll_fn(|context| self.stream.poll_write_ready(context)) => ready?,
                    }
                }
                Err(error) => return Err(error),
            }
        }
        bytes.drain(..written);
        Ok(())
    }

    /// As the last fetch of a finished connection, behind what is in `bytes`.
    fn last_fetch(&self, bytes: &mut Vec<u8>) -> Stopped {
        let mut more = Vec::new();
        match self.connection.fetch(&mut more) {
            Fetched::Finished(ending) => {
                bytes.append(&mut more);
                Stopped::Link(ending)
            }
            other => unreachable!("a finished connection gave {other:?}"),
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
    /// says, `bytes` being what it was not sent yet.
    async fn finish(&mut self, ending: Ending, bytes: Vec<u8>) {
        let refused = matches!(
            ending.reason(),
            CloseReason::Refused
                | CloseReason::Overload
                | CloseReason::Limit
                | CloseReason::Shutdown
        );
        if refused && self.kind == Kind::Http && !self.connection.was_answered() {
            return refuse(&mut self.stream, self.kind).await;
        }
        match ending {
            Ending::Reset(_) => {
                let _ = self.stream.set_zero_linger();
            }
            Ending::Close(reason) => {
                let deadline = Instant::now() + self.close_timeout;
                let linger = if reason == CloseReason::Shutdown {
                    Duration::ZERO
                } else {
                    LINGER
                };
                match timeout_at(deadline, self.stream.write_all(&bytes)).await {
                    Ok(Ok(())) => close_gently(&mut self.stream, linger).await,
                    Ok(Err(_)) => {}
                    Err(_) => {
                        let _ = self.stream.set_zero_linger();
                    }
                }
            }
        }
    }
}

/// Sends a client away that was not served.
async fn refuse(stream: &mut TcpStream, kind: Kind) {
    if kind == Kind::Http
        && timeout(LINGER, stream.write_all(http::UNAVAILABLE))
            .await
            .is_err()
    {
        return;
    }
    close_gently(stream, LINGER).await;
}

/// Closes a socket to which all is written, so that the client can read it.
async fn close_gently(stream: &mut TcpStream, linger: Duration) {
    let _ = stream.shutdown().await;
    let mut dropped = [0; 4096];
    let read_out = async { while matches!(stream.read(&mut dropped).await, Ok(1..)) {} };
    let _ = timeout(linger, read_out).await;
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

    fn size_of_task<F>(_: fn(Box<Session>) -> F) -> usize {
        size_of::<F>()
    }

    /// There may be a million of them, and 0.3 kB each for both ends of the
    /// line is what the design leaves.
    #[test]
    fn a_client_is_small() {
        assert!(
            size_of_task(Session::run) <= 768,
            "{}",
            size_of_task(Session::run)
        );
        assert!(
            size_of::<Connection>() <= 256,
            "{}",
            size_of::<Connection>()
        );
    }
}
