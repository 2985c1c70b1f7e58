//! What happens to a client between its listener and its connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::net::TcpStream;
use tracing::{debug, warn};

use crate::app::App;
use crate::client::Client;
use crate::farewell;
use crate::limits::Place;
use crate::link::Caller;
use crate::listener::Listening;

/// A client that was just accepted.
pub struct Newcomer {
    /// Its socket.
    pub stream: TcpStream,
    /// Its address.
    pub peer: SocketAddr,
    /// Where it came in.
    pub listening: Arc<Listening>,
    /// Its place among all clients.
    pub place: Place,
}

/// Opens a connection for a client and starts the task that carries its
/// bytes, which is a new one, as small as it can be; or sends it away.
pub async fn welcome(app: Arc<App>, newcomer: Newcomer) {
    let Newcomer {
        mut stream,
        peer,
        listening,
        place,
    } = newcomer;
    // Both fail only on a socket that is dead already.
    let Ok(local) = stream.local_addr() else {
        return;
    };
    let _ = stream.set_nodelay(true);

    let (service, kind) = (listening.service.as_str(), listening.kind);
    let caller = Caller {
        service,
        peer: bare(peer),
        local: bare(local),
    };
    let opened = tokio::select! {
        biased;
        opened = app.links.open(caller) => opened,
        () = gone(&stream) => {
            debug!("client {peer} went away while it waited service={service}");
            return;
        }
    };
    match opened {
        Ok(connection) => {
            let (id, number) = (connection.id(), connection.link().number());
            debug!(
                "connection {id} open link={number} service={service} peer={peer} local={local}"
            );
            let close_timeout = app.close_timeout;
            let client = Client {
                stream,
                connection,
                peer,
                kind,
                close_timeout,
                asks: AtomicBool::new(false),
                _place: place,
            };
            tokio::spawn(Box::new(client).run());
        }
        Err(reason) => {
            if let Some(so_far) = app.refusals.hit() {
                warn!("client {peer} refused: {reason} service={service}; {so_far} so far");
            }
            farewell::refuse(&mut stream, kind).await;
        }
    }
}

/// Waits until a client is gone that has said nothing. One that has is not
/// looked at further: what ends there may be its half only.
async fn gone(stream: &TcpStream) {
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
