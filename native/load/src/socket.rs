//! One user's TCP connection: never blocks, in TLS where the target wants it.
//!
//! How a worker's loop uses it, with mio's edges (register once, for reading and writing):
//!
//! ```text
//! connect ──► is_ready? ──no──► advance() ──Ok(true)──► Session::connected
//!               │yes             ▲                             │ Output::start_tls
//!               ▼                └──── start_tls(), and advance() at once
//!   writable: flush()
//!   readable: read() until Nothing or End ──► Session::received / closed
//!   Output::writes: write()
//! ```
//!
//! A failure of any call ends the connection: drop the socket.

#[cfg(test)]
pub mod tests;
mod tls;

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};

use mio::net::TcpStream;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Type};

use crate::target::{Target, Tls};

/// Bytes that a worker's sockets have moved, TLS included; the TCP header is not.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    /// From the server.
    pub read: u64,
    /// To the server.
    pub written: u64,
}

/// What [`Socket::read`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// That many bytes are at the buffer's start. There may be more: read again.
    Bytes(usize),
    /// No more now. mio tells when there is.
    Nothing,
    /// The peer has sent all that it will.
    End,
}

/// Makes the connections of one worker: the target's addresses in turn, and for each of them the
/// sources in turn.
#[derive(Debug)]
pub struct Connector {
    addresses: Vec<SocketAddr>,
    sources: Vec<IpAddr>,
    turn: usize,
    tls: Option<tls::Tls>,
    direct: bool,
}

impl Connector {
    /// Reads the system's certificates where TLS is to be checked. The error is for a person.
    pub fn new(target: &Target, sources: &[IpAddr]) -> Result<Self, String> {
        let fits = |source: &IpAddr| {
            let mut addresses = target.addresses.iter();
            addresses.all(|address| address.is_ipv4() == source.is_ipv4())
        };
        if let Some(source) = sources.iter().find(|source| !fits(source)) {
            return Err(format!(
                "no connection from {source} to an address of another family: {:?}",
                target.addresses
            ));
        }
        if target.addresses.is_empty() {
            return Err("the target has no address".into());
        }
        Ok(Self {
            addresses: target.addresses.clone(),
            sources: sources.to_vec(),
            turn: 0,
            tls: match target.tls {
                Tls::None => None,
                Tls::Direct | Tls::Starttls => Some(tls::Tls::new(target)?),
            },
            direct: target.tls == Tls::Direct,
        })
    }

    /// Begins a connection to the next address from the next source; with `beside`, to the same
    /// address as that one, from the same source (BOSH's second). Register it with mio, for reading and
    /// writing, and call [`Socket::advance`] at each event until it is ready.
    ///
    /// Fails at once when the system has no descriptor or no port left, or no such source.
    pub fn connect(&mut self, beside: Option<&Socket>) -> io::Result<Socket> {
        let (address, source) = match beside {
            Some(socket) => (socket.stream.peer_addr()?, self.source_of(socket)?),
            None => self.next(),
        };
        let stream = connect(address, source)?;
        let mut socket = Socket {
            stream,
            unsent: Vec::new(),
            tls: None,
            connected: false,
        };
        if self.direct {
            socket.start_tls(self)?;
        }
        Ok(socket)
    }

    fn next(&mut self) -> (SocketAddr, Option<IpAddr>) {
        let turn = self.turn;
        self.turn = turn.wrapping_add(1);
        let address = self.addresses[turn % self.addresses.len()];
        let source = match self.sources.len() {
            0 => None,
            sources => Some(self.sources[turn / self.addresses.len() % sources]),
        };
        (address, source)
    }

    fn source_of(&self, socket: &Socket) -> io::Result<Option<IpAddr>> {
        if self.sources.is_empty() {
            return Ok(None);
        }
        Ok(Some(socket.stream.local_addr()?.ip()))
    }
}

/// Begins a TCP connection.
fn connect(address: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = socket2::Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    socket.set_tcp_nodelay(true)?;
    if let Some(source) = source {
        // The port is chosen at connecting: one source has 28,000 of them for each address of the
        // server then, not 28,000 in all.
        setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(nix::libc::EINPROGRESS) => Err(error),
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}

/// One connection. Without TLS it keeps nothing but what the kernel did not take yet.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    unsent: Vec<u8>,
    tls: Option<Box<rustls::ClientConnection>>,
    connected: bool,
}

impl Socket {
    /// What mio registers.
    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Whether bytes of the user's can be read and written: TCP is connected, and TLS agreed on
    /// where it has begun.
    pub fn is_ready(&self) -> bool {
        self.connected && self.tls.as_ref().is_none_or(|tls| !tls.is_handshaking())
    }

    /// Goes on with connecting and with TLS's handshake, as far as it goes now. Call it at each event
    /// while the socket is not ready, whatever the event is; `Ok(true)` when it has become ready. Read then, as
    /// if it were readable.
    pub fn advance(&mut self, traffic: &mut Traffic) -> io::Result<bool> {
        if !self.connected {
            if let Some(error) = self.stream.take_error()? {
                return Err(error);
            }
            match self.stream.peer_addr() {
                Ok(_) => self.connected = true,
                Err(error) if error.kind() == io::ErrorKind::NotConnected => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        if let Some(tls) = &mut self.tls {
            tls::handshake(tls, &mut self.stream, traffic)?;
        }
        Ok(self.is_ready())
    }

    /// TLS begins here, on a connection that has been plain so far (STARTTLS). Call
    /// [`Socket::advance`] at once. Fails where the connector's target has no TLS.
    pub fn start_tls(&mut self, connector: &Connector) -> io::Result<()> {
        let Some(tls) = &connector.tls else {
            return Err(io::Error::other("the target has no TLS"));
        };
        self.tls = Some(Box::new(tls.connection().map_err(io::Error::other)?));
        Ok(())
    }

    /// Reads into the buffer, which must not be empty.
    pub fn read(&mut self, buffer: &mut [u8], traffic: &mut Traffic) -> io::Result<Received> {
        match &mut self.tls {
            Some(tls) => tls::read(tls, &mut self.stream, buffer, traffic),
            None => {
                let received = take(self.stream.read(buffer))?;
                if let Received::Bytes(count) = received {
                    traffic.read += count as u64;
                }
                Ok(received)
            }
        }
    }

    /// Writes the bytes, and keeps what the kernel does not take now.
    pub fn write(&mut self, bytes: &[u8], traffic: &mut Traffic) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            tls.writer().write_all(bytes)?;
            return self.flush(traffic);
        }
        let mut rest = bytes;
        if self.unsent.is_empty() && self.connected {
            rest = &bytes[write_some(&mut self.stream, bytes, traffic)?..];
        }
        self.unsent.extend_from_slice(rest);
        Ok(())
    }

    /// Writes what was kept, as far as the kernel takes it. Call it when the socket is writable.
    pub fn flush(&mut self, traffic: &mut Traffic) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            return tls::write(tls, &mut self.stream, traffic);
        }
        if self.unsent.is_empty() {
            return Ok(());
        }
        let written = write_some(&mut self.stream, &self.unsent, traffic)?;
        self.unsent.drain(..written);
        if self.unsent.is_empty() {
            self.unsent = Vec::new();
        }
        Ok(())
    }

    /// Whether bytes wait for the kernel to take them.
    pub fn has_unsent(&self) -> bool {
        match &self.tls {
            Some(tls) => tls.wants_write(),
            None => !self.unsent.is_empty(),
        }
    }
}

/// Writes until all is written or the kernel takes no more. Returns how many bytes went.
fn write_some(stream: &mut TcpStream, bytes: &[u8], traffic: &mut Traffic) -> io::Result<usize> {
    let mut written = 0;
    while written < bytes.len() {
        match stream.write(&bytes[written..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    traffic.written += written as u64;
    Ok(written)
}

/// What a `read` of a non-blocking stream says.
fn take(result: io::Result<usize>) -> io::Result<Received> {
    match result {
        Ok(0) => Ok(Received::End),
        Ok(count) => Ok(Received::Bytes(count)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Received::Nothing),
        // An interrupted read has read nothing, and the edge is still to be used up.
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Received::Bytes(0)),
        Err(error) => Err(error),
    }
}
