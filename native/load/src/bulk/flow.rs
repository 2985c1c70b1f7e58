//! One connection that bytes move over.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::SockRef;

use super::Direction;

/// Byte number N of a direction is N modulo this: no power of two, so that a lost block shows.
pub const PERIOD: u64 = 251;

/// Bytes of one turn.
pub const TURN: usize = 64 * 1024;

/// Bytes that the kernel may hold for all connections where there are many. The kernel doubles
/// what it is asked for (socket(7)).
const BUFFERS: usize = 32 * 1024 * 1024;

/// From so many connections on, the kernel's buffers are held down.
const MANY: usize = 17;

/// The fewest bytes of a buffer.
const BUFFER_MIN: usize = 32 * 1024;

/// What a server's count may be long, in digits.
const COUNT_MAX: usize = 20;

/// How a turn went.
#[derive(Debug, PartialEq, Eq)]
pub enum Turn {
    /// So many bytes moved, and there may be more.
    Moved(usize),
    /// Nothing can move now.
    Blocked,
}

/// A connection.
#[derive(Debug)]
pub struct Flow {
    /// Where the bytes move.
    pub stream: mio::net::TcpStream,
    /// Bytes that have moved, the first that says the direction left out.
    pub bytes: u64,
    /// What the server has said of its count.
    count: Vec<u8>,
}

/// What is sent: a turn from any point of the period on.
pub fn pattern() -> Vec<u8> {
    let byte = |number| (number % PERIOD) as u8;
    (0..TURN as u64 + PERIOD).map(byte).collect()
}

impl Flow {
    /// Opens one of `connections`, and says where its bytes go. Blocks up to `patience`.
    pub fn open(
        address: &SocketAddr,
        direction: Direction,
        connections: usize,
        patience: Duration,
    ) -> io::Result<Self> {
        let mut stream = TcpStream::connect_timeout(address, patience)?;
        stream.set_nodelay(true)?;
        if connections >= MANY {
            let size = (BUFFERS / connections).max(BUFFER_MIN);
            let socket = SockRef::from(&stream);
            socket.set_send_buffer_size(size)?;
            socket.set_recv_buffer_size(size)?;
        }
        stream.write_all(match direction {
            Direction::Up => b"u",
            Direction::Down => b"d",
        })?;
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream: mio::net::TcpStream::from_std(stream),
            bytes: 0,
            count: Vec::new(),
        })
    }

    /// Sends as much as goes in one turn.
    pub fn send(&mut self, pattern: &[u8]) -> io::Result<Turn> {
        let from = (self.bytes % PERIOD) as usize;
        let turn = match self.stream.write(&pattern[from..from + TURN]) {
            Ok(bytes) => Turn::Moved(bytes),
            Err(error) => blocked(error)?,
        };
        self.count(&turn);
        Ok(turn)
    }

    /// Takes what comes in one turn. The error `InvalidData` says that it is not what it should
    /// be.
    pub fn take(&mut self, buffer: &mut [u8]) -> io::Result<Turn> {
        let turn = match self.stream.read(buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(bytes) => {
                let last = self.bytes + bytes as u64 - 1;
                let byte = |number: u64| (number % PERIOD) as u8;
                if (buffer[0], buffer[bytes - 1]) != (byte(self.bytes), byte(last)) {
                    return Err(ErrorKind::InvalidData.into());
                }
                Turn::Moved(bytes)
            }
            Err(error) => blocked(error)?,
        };
        self.count(&turn);
        Ok(turn)
    }

    /// Ends what is sent.
    pub fn finish(&self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }

    /// Reads the server's count. `Some` when it has been said: whether all that was sent has
    /// arrived.
    pub fn arrived(&mut self) -> io::Result<Option<bool>> {
        let mut buffer = [0; COUNT_MAX + 1];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(Some(self.count == self.bytes.to_string().as_bytes())),
                Ok(bytes) if self.count.len() + bytes <= COUNT_MAX => {
                    self.count.extend_from_slice(&buffer[..bytes]);
                }
                Ok(_) => return Err(ErrorKind::InvalidData.into()),
                Err(error) => {
                    if blocked(error)? == Turn::Blocked {
                        return Ok(None);
                    }
                }
            }
        }
    }

    fn count(&mut self, turn: &Turn) {
        if let Turn::Moved(bytes) = turn {
            self.bytes += *bytes as u64;
        }
    }
}

/// An interrupted call moved nothing and can be tried again.
fn blocked(error: io::Error) -> io::Result<Turn> {
    match error.kind() {
        ErrorKind::WouldBlock => Ok(Turn::Blocked),
        ErrorKind::Interrupted => Ok(Turn::Moved(0)),
        _ => Err(error),
    }
}
