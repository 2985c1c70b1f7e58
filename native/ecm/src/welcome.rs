//! What happens to a client between its listener and its connection.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use megaphone_proto::control::CloseReason;
use tracing::{debug, warn};

use crate::app::App;
use crate::connection::{Client, Connection};
use crate::farewell;
use crate::limits::Place;
use crate::link::Caller;
use crate::listener::Listening;

/// A client that was just accepted.
pub struct Newcomer {
    /// Its socket, which does not block.
    pub socket: TcpStream,
    /// Its address.
    pub peer: SocketAddr,
    /// The address that it connected to.
    pub local: SocketAddr,
    /// Where it came in.
    pub listening: Arc<Listening>,
    /// Its place among all clients.
    pub place: Place,
}

impl Newcomer {
    fn caller(&self) -> Caller<'_> {
        Caller {
            service: &self.listening.service,
            peer: bare(self.peer),
            local: bare(self.local),
        }
    }
}

/// Opens a connection for a client, at once where that can be; the others
/// wait in a task of their own.
pub fn welcome(app: &Arc<App>, newcomer: Newcomer) {
    match app.links.open(newcomer.caller()) {
        Some(connection) => attach(app, newcomer, &connection),
        None => drop(tokio::spawn(wait(Arc::clone(app), newcomer))),
    }
}

fn attach(app: &App, newcomer: Newcomer, connection: &Arc<Connection>) {
    let Newcomer {
        socket,
        peer,
        local,
        listening,
        place,
    } = newcomer;
    let (id, number) = (connection.id(), connection.link().number());
    let service = &listening.service;
    debug!("connection {id} open link={number} service={service} peer={peer} local={local}");
    let watch = Arc::clone(&app.watches[id.get() as usize % app.watches.len()]);
    connection.attach(Client::new(socket, peer, place, watch), listening.kind);
}

/// Waits until there is a connection for a client, and sends it away where
/// there will be none.
async fn wait(app: Arc<App>, newcomer: Newcomer) {
    // A second descriptor would keep the socket open: it goes there and back.
    let Newcomer {
        socket,
        peer,
        local,
        listening,
        place,
    } = newcomer;
    let service = &listening.service;
    let Ok(mut stream) = tokio::net::TcpStream::from_std(socket) else {
        return;
    };
    let caller = Caller {
        service,
        peer: bare(peer),
        local: bare(local),
    };
    let opened = tokio::select! {
        biased;
        opened = app.links.wait_to_open(caller) => opened,
        () = gone(&stream) => {
            debug!("client {peer} went away while it waited service={service}");
            return;
        }
    };
    match opened {
        Ok(connection) => match stream.into_std() {
            Ok(socket) => {
                let newcomer = Newcomer {
                    socket,
                    peer,
                    local,
                    listening,
                    place,
                };
                attach(&app, newcomer, &connection);
            }
            Err(_) => connection.abandon(CloseReason::Internal),
        },
        Err(reason) => {
            if let Some(so_far) = app.refusals.hit() {
                warn!("client {peer} refused: {reason} service={service}; {so_far} so far");
            }
            farewell::refuse(&mut stream, listening.kind).await;
        }
    }
}

/// Waits until a client is gone that has said nothing. One that has is not
/// looked at further: what ends there may be its half only.
async fn gone(stream: &tokio::net::TcpStream) {
    let said = stream.peek(&mut [0]).await;
    if matches!(said, Ok(1..)) {
        std::future::pending().await
    }
}

/// An address as ejabberd is told it: IPv4 as IPv4 even on a socket for both,
/// and without a scope, which means nothing elsewhere.
fn bare(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_without_what_only_this_machine_knows() {
        for (here, told) in [
            ("[::ffff:192.0.2.1]:5222", "192.0.2.1:5222"),
            ("[fe80::1%2]:5222", "[fe80::1]:5222"),
            ("[2001:db8::1]:5222", "[2001:db8::1]:5222"),
            ("192.0.2.1:5222", "192.0.2.1:5222"),
        ] {
            assert_eq!(bare(here.parse().unwrap()).to_string(), told);
        }
    }
}
