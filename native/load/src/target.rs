//! Where the users log in: a URL says transport, TLS, address and path.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// How a user's XMPP is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// A stream over TCP (RFC 6120): `xmpp://`, with direct TLS `xmpps://` (XEP-0368).
    C2s,
    /// RFC 7395: `ws://`, `wss://`.
    WebSocket,
    /// XEP-0124 and XEP-0206: `http://`, `https://`.
    Bosh,
}

/// Whether and when TLS begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tls {
    /// Never.
    None,
    /// From the first byte.
    Direct,
    /// After STARTTLS (c2s only): `xmpp://` with `--starttls`.
    Starttls,
}

/// A server to load.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// How XMPP is carried.
    pub transport: Transport,
    /// Whether and when TLS begins.
    pub tls: Tls,
    /// Addresses that all lead to the server; users take them in turn.
    pub addresses: Vec<SocketAddr>,
    /// For `Host:` and TLS's server name: the URL's host and port as written.
    pub authority: String,
    /// `/ws`, `/bosh`, ...; empty for c2s.
    pub path: String,
    /// The XMPP domain to log in to.
    pub domain: String,
    /// Take any certificate.
    pub insecure: bool,
}
