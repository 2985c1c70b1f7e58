//! haproxy and nginx as TCP proxies, set up as fairly as we know how.

use std::net::SocketAddr;

use crate::bench::Bench;
use crate::error::Result;
use crate::rig::child::Child;

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProxyKind {
    /// Debian's haproxy, `mode tcp`.
    Haproxy,
    /// Debian's nginx-light, its `stream` module.
    Nginx,
}

/// A running proxy.
#[derive(Debug)]
pub struct Proxy {
    _child: Child,
    address: SocketAddr,
}

impl Proxy {
    /// Starts one in front of `backend`. Returns when it takes clients.
    pub fn start(_bench: &Bench, _kind: ProxyKind, _backend: SocketAddr) -> Result<Self> {
        todo!()
    }

    /// Where it takes clients.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
