//! The byte stream under a link: TCP or a Unix socket.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use mio::event::Source;
use mio::{Interest, Registry, Token};

use crate::generator::resolve;

/// A stream on which reading and writing wait.
#[derive(Debug)]
pub enum Blocking {
    /// Over the network.
    Tcp(TcpStream),
    /// On this machine.
    Unix(UnixStream),
}

/// The same, on which nothing waits.
#[derive(Debug)]
pub enum Stream {
    /// Over the network.
    Tcp(mio::net::TcpStream),
    /// On this machine.
    Unix(mio::net::UnixStream),
}

impl Blocking {
    /// Connects to `HOST:PORT` or `unix:/PATH`. Reading gives up after `patience`. Blocks.
    pub fn connect(address: &str, patience: Duration) -> Result<Self, String> {
        let text = |error: io::Error| format!("{address}: {error}");
        if let Some(path) = address.strip_prefix("unix:") {
            let stream = UnixStream::connect(path).map_err(text)?;
            stream.set_read_timeout(Some(patience)).map_err(text)?;
            return Ok(Self::Unix(stream));
        }
        let stream = TcpStream::connect_timeout(&resolve(address)?, patience).map_err(text)?;
        stream.set_nodelay(true).map_err(text)?;
        stream.set_read_timeout(Some(patience)).map_err(text)?;
        Ok(Self::Tcp(stream))
    }

    /// Waits no more.
    pub fn into_stream(self) -> io::Result<Stream> {
        Ok(match self {
            Self::Tcp(stream) => {
                stream.set_nonblocking(true)?;
                Stream::Tcp(mio::net::TcpStream::from_std(stream))
            }
            Self::Unix(stream) => {
                stream.set_nonblocking(true)?;
                Stream::Unix(mio::net::UnixStream::from_std(stream))
            }
        })
    }
}

impl Read for Blocking {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Blocking {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream {
    /// Has `registry` tell, as `token`, when it can be read or written (edge-triggered).
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        let source: &mut dyn Source = match self {
            Self::Tcp(stream) => stream,
            Self::Unix(stream) => stream,
        };
        source.register(registry, token, interest)
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
