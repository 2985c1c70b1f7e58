//! One kept-alive connection.

use std::io::{self, ErrorKind, Write};
use std::time::Instant;

use mio::net::TcpStream;

/// What a connection is doing.
#[derive(Debug)]
pub enum State {
    /// Ended, or never opened.
    Closed,
    /// Is being opened.
    Opening(TcpStream),
    /// May be given a request.
    Free(TcpStream),
    /// Waits for an answer to the request that was due then.
    Busy(TcpStream, Instant),
}

/// A connection.
#[derive(Debug)]
pub struct Connection {
    /// What it is doing.
    pub state: State,
    /// Bytes of the request that could not be written yet.
    pub unsent: usize,
    /// The beginning of an answer.
    pub rest: Vec<u8>,
}

impl Connection {
    /// A connection that is not open.
    pub fn closed() -> Self {
        Self {
            state: State::Closed,
            unsent: 0,
            rest: Vec::new(),
        }
    }

    /// Its stream, when it is open.
    pub fn stream(&mut self) -> Option<&mut TcpStream> {
        match &mut self.state {
            State::Free(stream) | State::Busy(stream, _) => Some(stream),
            State::Closed | State::Opening(_) => None,
        }
    }

    /// Writes what can be written. An error is seen by reading, too, and told then.
    pub fn write(&mut self, request: &[u8]) {
        while self.unsent > 0 {
            let from = request.len() - self.unsent;
            let Some(stream) = self.stream() else { return };
            match stream.write(&request[from..]) {
                Ok(bytes) => self.unsent -= bytes,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }
}

/// Whether a connection that was begun is there.
pub fn opened(stream: &TcpStream) -> io::Result<bool> {
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    match stream.peer_addr() {
        Ok(_) => {
            stream.set_nodelay(true)?;
            Ok(true)
        }
        Err(error) if error.kind() == ErrorKind::NotConnected => Ok(false),
        Err(error) => Err(error),
    }
}
