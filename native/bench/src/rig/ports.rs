//! Ports that are free now and that nobody is given by accident.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use crate::error::{Error, Result};

/// Below Linux's ephemeral range (32768 and up), so that no outgoing connection takes one before its listener.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// A free port of 127.0.0.1.
pub fn free() -> Result<SocketAddr> {
    for _ in 0..1000 {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, fastrand::u16(RANGE)));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    Err(Error(format!("no free port among {RANGE:?}")))
}

/// Does anybody take connections there?
pub fn answers(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_ok()
}
