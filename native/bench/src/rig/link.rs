//! Where a node takes links from ECMs.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::error::Result;
use crate::rig::ports;

/// What carries the links.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LinkKind {
    /// A Unix socket, as where both ends share a machine.
    #[default]
    Unix,
    /// TCP over loopback.
    Tcp,
}

/// Where a node listens for links. Shown as an ECM's `address`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkAddress {
    /// The path of a Unix socket.
    Unix(PathBuf),
    /// A port of 127.0.0.1.
    Tcp(SocketAddr),
}

impl LinkAddress {
    /// One that is free; a Unix socket is at `path`.
    pub fn free(kind: LinkKind, path: PathBuf) -> Result<Self> {
        Ok(match kind {
            LinkKind::Unix => Self::Unix(path),
            LinkKind::Tcp => Self::Tcp(ports::free()?),
        })
    }

    /// The options of ejabberd's listener, a line of YAML each.
    pub fn options(&self) -> Vec<String> {
        match self {
            Self::Unix(_) => vec![format!("port: \"{self}\"")],
            Self::Tcp(address) => vec![
                format!("port: {}", address.port()),
                format!("ip: \"{}\"", address.ip()),
            ],
        }
    }
}

impl fmt::Display for LinkAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "{address}"),
        }
    }
}
