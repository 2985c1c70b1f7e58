//! What the kernel holds for TCP sockets, by its own account of the whole machine.
//!
//! A socket's memory is kept in slabs (the socket, its inode, its entry in an epoll set, its
//! hash-table entry, headers of packets that wait): `Slab` of `/proc/meminfo`. Pages that packets
//! lie in are counted apart, in `/proc/net/sockstat`. Both ends of a loopback connection are on
//! this machine, so a connection counts twice; figures are therefore per socket, which is one end.

use std::{fs, io};

use serde::{Deserialize, Serialize};

/// The kernel's memory at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Kernel {
    /// Bytes in slabs, of everything (proc_meminfo(5), `Slab`).
    pub slab: u64,
    /// TCP sockets of IPv4 and IPv6 that exist, each end of a connection one (`TCP: alloc`).
    pub sockets: u64,
    /// Bytes of the pages that TCP has packets in (`TCP: mem`, in pages).
    pub buffers: u64,
}

/// Bytes of a page where Linux runs on x86 and most of ARM.
const PAGE: u64 = 4096;

impl Kernel {
    /// Reads it. Fails where `/proc` has no such files, or they look different.
    pub fn read() -> io::Result<Self> {
        let meminfo = fs::read_to_string("/proc/meminfo")?;
        let sockstat = fs::read_to_string("/proc/net/sockstat")?;
        Self::parse(&meminfo, &sockstat)
            .ok_or_else(|| io::Error::other("/proc/meminfo or /proc/net/sockstat: not as expected"))
    }

    fn parse(meminfo: &str, sockstat: &str) -> Option<Self> {
        let slab = meminfo
            .lines()
            .find_map(|line| line.strip_prefix("Slab:"))?;
        let tcp = sockstat
            .lines()
            .find_map(|line| line.strip_prefix("TCP:"))?;
        Some(Self {
            slab: slab.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024,
            sockets: field(tcp, "alloc")?,
            buffers: field(tcp, "mem")? * PAGE,
        })
    }

    /// Bytes for each socket that is there now and was not there `before`: what slabs and buffers
    /// have grown by. `None` when there are no more sockets than before.
    pub fn per_socket(&self, before: &Self) -> Option<f64> {
        let sockets = self
            .sockets
            .checked_sub(before.sockets)
            .filter(|&more| more > 0)?;
        let grown = |now: u64, then: u64| now as f64 - then as f64;
        Some((grown(self.slab, before.slab) + grown(self.buffers, before.buffers)) / sockets as f64)
    }
}

/// The number after a word, in `inuse 1 orphan 0 tw 0 alloc 1 mem 259`.
fn field(line: &str, name: &str) -> Option<u64> {
    let mut words = line.split_whitespace();
    words.find(|&word| word == name)?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str = "MemTotal: 24684084 kB\nSlab:     758140 kB\nSReclaimable: 701524 kB\n";
    const SOCKSTAT: &str =
        "sockets: used 16\nTCP: inuse 1 orphan 0 tw 3 alloc 12 mem 259\nUDP: inuse 0 mem 7\n";

    #[test]
    fn takes_slab_sockets_and_buffers() {
        let kernel = Kernel::parse(MEMINFO, SOCKSTAT).unwrap();
        assert_eq!(
            kernel,
            Kernel {
                slab: 758_140 * 1024,
                sockets: 12,
                buffers: 259 * 4096
            }
        );
    }

    #[test]
    fn what_looks_different_is_nothing() {
        assert_eq!(Kernel::parse("", SOCKSTAT), None);
        assert_eq!(Kernel::parse(MEMINFO, "TCP: inuse 1\n"), None);
        assert_eq!(Kernel::parse("Slab: 7 pages\n", SOCKSTAT), None);
    }

    #[test]
    fn a_socket_takes_what_slabs_and_buffers_have_grown_by() {
        let before = Kernel {
            slab: 1_000_000,
            sockets: 10,
            buffers: 8192,
        };
        let after = Kernel {
            slab: 1_400_000,
            sockets: 110,
            buffers: 8192 + 4096,
        };
        assert_eq!(after.per_socket(&before), Some(4040.96));
        assert_eq!(before.per_socket(&before), None);
        assert_eq!(before.per_socket(&after), None);
    }

    #[test]
    fn this_machine_says_it() {
        assert!(Kernel::read().unwrap().slab > 0);
    }
}
