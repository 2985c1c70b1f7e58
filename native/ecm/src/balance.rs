//! Which backend a client is given to.

use std::cmp::Reverse;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::Deserialize;

use crate::config::Config;
use crate::link::Link;

/// By what the backend of a client is chosen, among those that take it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// The one that has the fewest clients of this ECM.
    #[default]
    Fewest,
    /// The same for the same address of a client, as long as it takes it.
    ClientAddress,
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fewest => "fewest",
            Self::ClientAddress => "client_address",
        })
    }
}

/// Puts the links that a client may get in the order in which they are tried:
/// backend by backend, and of one backend the link with the fewest clients
/// first.
#[derive(Debug)]
pub struct Balancer {
    balance: Balance,
    /// Links to each backend.
    links: usize,
    /// What tells the backends apart, whatever their order is: ECMs with the
    /// same backends choose alike.
    seeds: Vec<u64>,
}

impl Balancer {
    /// As `config` says.
    pub fn new(config: &Config) -> Self {
        let addresses = config.backends().map(|one| one.address().to_string());
        Self {
            balance: config.balance,
            links: config.links.as_usize(),
            seeds: addresses
                .map(|address| fnv_1a(address.as_bytes()))
                .collect(),
        }
    }

    /// Which backend, from 0, `link` goes to.
    fn backend(&self, link: &Link) -> usize {
        ((link.number() - 1) / self.links).min(self.seeds.len() - 1)
    }

    /// Sorts `links` for a client at `address`.
    pub fn sort(&self, links: &mut [Arc<Link>], address: IpAddr) {
        match (self.balance, self.seeds.len()) {
            (_, 1) => links.sort_by_key(|link| link.load()),
            (Balance::Fewest, backends) => {
                let mut clients = vec![0; backends];
                for link in &*links {
                    clients[self.backend(link)] += link.load();
                }
                links.sort_by_key(|link| {
                    let backend = self.backend(link);
                    (clients[backend], backend, link.load())
                });
            }
            (Balance::ClientAddress, _) => {
                let key = key(address);
                let rank = |link: &Link| Reverse(mix(self.seeds[self.backend(link)] ^ key));
                links.sort_by_key(|link| (rank(link), link.load()));
            }
        }
    }
}

/// What of an address stays the same for a client: of IPv6 the network, since
/// hosts change the rest by themselves (RFC 8981).
fn key(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(address) => mix(u64::from(u32::from(address))),
        IpAddr::V6(address) => mix((u128::from(address) >> 64) as u64),
    }
}

/// The finish of SplitMix64: each bit of the outcome depends on each of `z`.
/// Rendezvous hashing needs no more (Thaler and Ravishankar, 1998), and
/// nothing of the standard library stays the same from one release to the
/// next.
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn fnv_1a(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    /// The backend that has the highest rank for a client, of those at `seeds`.
    fn chosen(seeds: &[u64], client: u32) -> u64 {
        let key = key(Ipv4Addr::from(client).into());
        *seeds.iter().max_by_key(|seed| mix(*seed ^ key)).unwrap()
    }

    fn seeds() -> Vec<u64> {
        let hosts = (1..=3).map(|n| format!("node-{n}.example.org:6280"));
        hosts.map(|host| fnv_1a(host.as_bytes())).collect()
    }

    #[test]
    fn clients_are_spread_and_a_lost_backend_moves_only_its_own() {
        let all = seeds();
        let left = &all[..2];
        let mut of = [0; 3];
        for client in 0..30_000 {
            let before = chosen(&all, client);
            let at = all.iter().position(|seed| *seed == before).unwrap();
            of[at] += 1;
            if at < 2 {
                assert_eq!(chosen(left, client), before);
            }
        }
        assert!(of.iter().all(|n| (9_500..10_500).contains(n)), "{of:?}");
    }

    #[test]
    fn hosts_of_one_ipv6_network_are_alike_and_networks_are_not() {
        let host =
            |network, host| key(Ipv6Addr::new(0x2001, 0xdb8, 0, network, 0, 0, 0, host).into());
        assert_eq!(host(1, 1), host(1, 2));
        assert_ne!(host(1, 1), host(2, 1));
    }
}
