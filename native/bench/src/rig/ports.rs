//! Ports that are free now and that nobody is given by accident.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

use crate::error::{Error, Result};

/// Below Linux's ephemeral range (32768 and up), so that no outgoing connection takes one before its listener.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// Which port is looked at next, beginning anywhere for the sake of another run beside this one.
static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(fastrand::u16(RANGE)));

/// A free port of 127.0.0.1, and another one each time: whoever was given one may not have bound it yet.
pub fn free() -> Result<SocketAddr> {
    for _ in 0..1000 {
        let port = RANGE.start + NEXT.fetch_add(1, Relaxed) % (RANGE.end - RANGE.start);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_port_is_given_out_twice() {
        let given: HashSet<_> = (0..500).map(|_| free().unwrap()).collect();
        assert_eq!(given.len(), 500);
    }
}
