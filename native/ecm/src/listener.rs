//! Takes clients in at one address.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{SocketFlags, acceptfrom_with};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpSocket;
use tracing::{info, warn};

use crate::app::App;
use crate::config::{self, Kind};
use crate::log::Seldom;
use crate::watch::watch_for;
use crate::welcome::{Newcomer, welcome};

/// How long nothing is accepted after the system had no file, buffer or
/// memory left for it: what is missing comes back when some client goes.
const PAUSE: Duration = Duration::from_millis(100);

/// How often a listener complains.
const COMPLAINTS: Duration = Duration::from_secs(1);

/// What a client's task knows of the listener it came by.
#[derive(Debug)]
pub struct Listening {
    /// The service that its clients are given to.
    pub service: String,
    /// How a client is told that there is no service.
    pub kind: Kind,
}

/// A bound address.
#[derive(Debug)]
pub struct Listener {
    socket: AsyncFd<TcpListener>,
    address: SocketAddr,
    listening: Arc<Listening>,
}

impl Listener {
    /// Binds the address that `config` names.
    ///
    /// # Errors
    /// As bind(2) and listen(2).
    pub fn bind(config: &config::Listener) -> io::Result<Self> {
        let address = config.listen.get_ref().0;
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        socket.set_reuseaddr(true)?;
        if let Some(bytes) = config.send_buffer {
            // Accepted sockets have the listening one's, see tcp(7).
            socket.set_send_buffer_size(bytes.as_u32())?;
        }
        // Accepted sockets have that from here, too.
        socket.set_nodelay(true)?;
        socket.bind(address)?;
        let socket = socket.listen(config.backlog.as_u32())?.into_std()?;
        let address = socket.local_addr()?;
        let listening = Listening {
            service: config.service.to_string(),
            kind: config.kind,
        };
        Ok(Self {
            socket: watch_for(socket, Interest::READABLE)?,
            address,
            listening: Arc::new(listening),
        })
    }

    /// Says in the log where it listens: with the real port, where any free
    /// one was asked for.
    pub fn announce(&self) {
        info!(
            "listening on {} service={}",
            self.address, self.listening.service
        );
    }

    /// Accepts clients for ever, as long as there are places for them.
    pub async fn run(self, app: Arc<App>) {
        let Self {
            socket,
            address,
            listening,
        } = self;
        let service = &listening.service;
        let seldom = Seldom::every(COMPLAINTS);
        loop {
            match socket.async_io(Interest::READABLE, accept).await {
                Ok((socket, peer)) => {
                    let place = match app.places.try_take() {
                        Some(place) => place,
                        None => {
                            if seldom.may() {
                                let all = app.places.all();
                                warn!(
                                    "listener {address} service={service}: max_clients={all} reached; others wait"
                                );
                            }
                            app.places.take().await
                        }
                    };
                    // One address needs no asking.
                    let local = match address.ip().is_unspecified() {
                        true => socket.local_addr(),
                        false => Ok(address),
                    };
                    // Fails only on a socket that is dead already.
                    let Ok(local) = local else {
                        continue;
                    };
                    let newcomer = Newcomer {
                        socket,
                        peer,
                        local,
                        listening: Arc::clone(&listening),
                        place,
                    };
                    welcome(&app, newcomer);
                }
                // The client went away while it waited.
                Err(error) if of_the_client(&error) => {}
                Err(error) => {
                    if seldom.may() {
                        warn!("listener {address} service={service}: cannot accept: {error}");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

/// Takes the next client, if there is one, whose socket does not block.
fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (socket, peer) = acceptfrom_with(listener, flags)?;
    let peer = peer.ok_or(io::ErrorKind::ConnectionAborted)?;
    Ok((socket.into(), peer.try_into()?))
}

/// Whether an error of accept(2) is about the one client only.
fn of_the_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[tokio::test]
    async fn accepted_sockets_have_what_they_need_without_being_told() {
        let text = "[backend]\naddress = \"unix:/x\"\n[[listeners]]\nlisten = \"127.0.0.1:0\"\nservice = \"a\"\nsend_buffer = 8192\n";
        let config = Config::parse("-", text).unwrap();
        let listener = Listener::bind(&config.listeners[0]).unwrap();
        let client = TcpStream::connect(listener.address).unwrap();
        let accepted = listener.socket.async_io(Interest::READABLE, accept).await;
        let (socket, peer) = accepted.unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
        assert!(socket.nodelay().unwrap());
        let blocked = socket.peek(&mut [0]).unwrap_err();
        assert_eq!(blocked.kind(), io::ErrorKind::WouldBlock);
        let held = socket2::SockRef::from(&socket).send_buffer_size().unwrap();
        assert_eq!(held, 2 * 8192);
    }
}
