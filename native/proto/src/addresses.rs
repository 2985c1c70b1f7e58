//! Both addresses of a connection, kept small: there are a million of them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Where a client came from and where to: 16 bytes, and 48 more for IPv6. The zone of a link-local
/// address is not kept, for `inet` shows none.
#[derive(Debug)]
pub struct Addresses(Packed);

#[derive(Debug)]
enum Packed {
    /// Octets and port (big endian) of the peer, then of ours.
    V4([u8; 12]),
    Other(Box<[(IpAddr, u16); 2]>),
}

const _: () = assert!(size_of::<Addresses>() <= 16);

impl Addresses {
    /// Of a client, and of what it connected to.
    pub fn new(peer: SocketAddr, local: SocketAddr) -> Self {
        let (SocketAddr::V4(from), SocketAddr::V4(to)) = (peer, local) else {
            let both = [peer, local].map(|address| (address.ip(), address.port()));
            return Addresses(Packed::Other(Box::new(both)));
        };
        let mut packed = [0; 12];
        for (at, address) in [(0, from), (6, to)] {
            packed[at..at + 4].copy_from_slice(&address.ip().octets());
            packed[at + 4..at + 6].copy_from_slice(&address.port().to_be_bytes());
        }
        Addresses(Packed::V4(packed))
    }

    /// The client's.
    pub fn peer(&self) -> SocketAddr {
        self.get(0)
    }

    /// That which it connected to.
    pub fn local(&self) -> SocketAddr {
        self.get(1)
    }

    fn get(&self, which: usize) -> SocketAddr {
        match &self.0 {
            Packed::V4(packed) => {
                let [a, b, c, d, high, low] = if which == 0 {
                    [
                        packed[0], packed[1], packed[2], packed[3], packed[4], packed[5],
                    ]
                } else {
                    [
                        packed[6], packed[7], packed[8], packed[9], packed[10], packed[11],
                    ]
                };
                let port = u16::from_be_bytes([high, low]);
                SocketAddr::from((Ipv4Addr::new(a, b, c, d), port))
            }
            Packed::Other(both) => SocketAddr::from(both[which]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_out_as_they_went_in() {
        for (peer, local) in [
            ("192.0.2.1:65535", "255.254.253.252:0"),
            ("[2001:db8::1]:5222", "[::ffff:192.0.2.1]:443"),
            ("192.0.2.1:1", "[::1]:2"),
            ("[::1]:2", "192.0.2.1:1"),
        ] {
            let (peer, local) = (peer.parse().unwrap(), local.parse().unwrap());
            let both = Addresses::new(peer, local);
            assert_eq!((both.peer(), both.local()), (peer, local));
        }
    }
}
