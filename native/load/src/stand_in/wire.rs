//! One TCP connection: anybody may write to it, its own task reads.
//!
//! A message goes from one user's read straight to the other's socket: no task is woken for it, no
//! queue is passed, unless the socket takes no more. A connection that is quiet has no buffer.

use std::cell::RefCell;
use std::future::pending;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::{Buf, BytesMut};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::stall::Stall;

/// Bytes read at a time, by all connections of a thread in turn.
const READ_SIZE: usize = 64 * 1024;

/// Bytes that may wait for a client that does not read, before it is given up.
const WAITING_MAX: usize = 4 * 1024 * 1024;

/// Bytes of a stanza, frame or request that is not whole yet.
const UNIT_MAX: usize = 256 * 1024;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_SIZE]);
}

/// What a connection speaks.
pub trait Protocol: Send {
    /// Takes what is whole at the beginning of `input`, and says how many bytes that was. Of what
    /// is not taken, the same comes again with more behind it. `input` may be changed where it
    /// is taken.
    ///
    /// # Errors
    /// The peer does not speak this: the connection is closed.
    fn take(&mut self, input: &mut [u8], wire: &Arc<Wire>) -> Result<usize, Wrong>;

    /// Bytes that may wait for a peer that does not read, before it is given up.
    fn waiting_max(&self) -> usize {
        WAITING_MAX
    }

    /// When [`Protocol::lapse`] is to be called, if nothing comes before.
    fn deadline(&self) -> Option<Instant> {
        None
    }

    /// The deadline has come.
    fn lapse(&mut self, _wire: &Arc<Wire>) {}

    /// The connection is closed.
    fn gone(&mut self, _wire: &Arc<Wire>) {}
}

/// The peer does not keep to the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wrong;

/// One TCP connection.
#[derive(Debug)]
pub struct Wire {
    socket: TcpStream,
    out: Mutex<Out>,
    waiting_max: usize,
    /// For the connection's task: something waits to be written, or it is to end.
    wake: Notify,
}

#[derive(Debug, Default)]
struct Out {
    waiting: BytesMut,
    /// Nothing is added any more; the connection closes when all is written.
    ending: bool,
}

impl Wire {
    fn new(socket: TcpStream, waiting_max: usize) -> Arc<Self> {
        // Without it a second small write would wait for the peer's acknowledgement.
        let _ = socket.set_nodelay(true);
        Arc::new(Self {
            socket,
            out: Mutex::default(),
            waiting_max,
            wake: Notify::new(),
        })
    }

    /// Writes `bytes`, or has them wait. Does not block.
    pub fn send(&self, bytes: &[u8]) {
        let mut out = lock(&self.out);
        if out.ending || bytes.is_empty() {
            return;
        }
        let written = match out.waiting.is_empty() {
            true => self.try_write(bytes).unwrap_or(bytes.len()),
            false => 0,
        };
        if written == bytes.len() {
            return;
        }
        out.waiting.extend_from_slice(&bytes[written..]);
        if out.waiting.len() > self.waiting_max {
            *out = Out {
                waiting: BytesMut::new(),
                ending: true,
            };
        }
        drop(out);
        self.wake.notify_one();
    }

    /// Closes the connection when all is written.
    pub fn finish(&self) {
        lock(&self.out).ending = true;
        self.wake.notify_one();
    }

    /// How much of `bytes` the socket takes. An error is that of a socket that its task finds
    /// broken too, when it reads.
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self.socket.try_write(bytes) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            written => written,
        }
    }

    /// Writes what waits. The answer: is there still something, and is the connection to go on?
    fn flush(&self) -> io::Result<(bool, bool)> {
        let mut out = lock(&self.out);
        if !out.waiting.is_empty() {
            let written = self.try_write(&out.waiting)?;
            if written == out.waiting.len() {
                out.waiting = BytesMut::new();
            } else {
                out.waiting.advance(written);
            }
        }
        let waits = !out.waiting.is_empty();
        Ok((waits, waits || !out.ending))
    }

    /// Waits until there is something to read, and writes meanwhile. `false`: the connection is
    /// to end.
    async fn readable(&self) -> io::Result<bool> {
        loop {
            let (waits, go_on) = self.flush()?;
            if !go_on {
                return Ok(false);
            }
            let interest = match waits {
                true => Interest::READABLE | Interest::WRITABLE,
                false => Interest::READABLE,
            };
            tokio::select! {
                biased;
                ready = self.socket.ready(interest) => {
                    let ready = ready?;
                    if ready.is_readable() || ready.is_read_closed() {
                        return Ok(true);
                    }
                }
                () = self.wake.notified() => {}
            }
        }
    }
}

/// Speaks `protocol` on `socket` until one side closes it.
pub async fn serve(socket: TcpStream, stall: Option<Arc<Stall>>, mut protocol: impl Protocol) {
    let wire = Wire::new(socket, protocol.waiting_max());
    let mut unit = Vec::new();
    loop {
        tokio::select! {
            biased;
            readable = wire.readable() => match readable {
                Ok(true) => {}
                Ok(false) | Err(_) => break,
            },
            () = until(protocol.deadline()) => {
                protocol.lapse(&wire);
                continue;
            }
        }
        if let Some(stall) = &stall {
            stall.passed().await;
        }
        match read(&wire, &mut unit, &mut protocol) {
            Ok(true) => {}
            Ok(false) | Err(_) => break,
        }
    }
    protocol.gone(&wire);
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}

/// Reads once and has the protocol take it. `unit` is what it had left. `false` is the end.
fn read(wire: &Arc<Wire>, unit: &mut Vec<u8>, protocol: &mut impl Protocol) -> io::Result<bool> {
    SCRATCH.with_borrow_mut(|scratch| {
        let read = match wire.socket.try_read(scratch) {
            Ok(0) => return Ok(false),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
            read => read?,
        };
        let input = match unit.is_empty() {
            true => &mut scratch[..read],
            false => {
                unit.extend_from_slice(&scratch[..read]);
                &mut unit[..]
            }
        };
        let Ok(taken) = protocol.take(input, wire) else {
            // What was answered before it is still written.
            wire.finish();
            return Ok(true);
        };
        if taken == input.len() {
            *unit = Vec::new();
        } else if unit.is_empty() {
            unit.extend_from_slice(&scratch[taken..read]);
        } else {
            unit.drain(..taken);
        }
        if unit.len() > UNIT_MAX {
            wire.finish();
        }
        Ok(true)
    })
}

/// Nothing is left half done by what holds these locks: a panic elsewhere spoils nothing.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|broken| broken.into_inner())
}
