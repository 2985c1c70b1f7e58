//! One look at the node and its ECM.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::memory::Resident;
use crate::rig::Site;

/// What they hold at one moment. Bytes, unless said otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Look {
    /// Resident in the node's process.
    pub node: u64,
    /// Resident in the ECM's.
    pub ecm: u64,
    /// `erlang:memory(total)`.
    pub total: u64,
    /// `erlang:memory(processes)`.
    pub heaps: u64,
    /// `erlang:memory(binary)`.
    pub binary: u64,
    /// `erlang:memory(ets)`.
    pub ets: u64,
    /// `erlang:memory(atom_used)`.
    pub atoms: u64,
    /// `erlang:memory(system)` without what is told apart: ports, drivers, code.
    pub system: u64,
    /// `megaphone:memory()`: the NIF's own.
    pub nif: u64,
    /// Number of Erlang processes.
    pub processes: u64,
    /// Number of Erlang ports.
    pub ports: u64,
    /// Number of sessions.
    pub sessions: u64,
}

/// Twice: what the first finds to be old the second frees.
const COLLECT: &str = "[erlang:garbage_collect(P) || _ <- [1, 2], P <- processes()], ";

const ASK: &str = "M = fun erlang:memory/1, \
     {M(total), M(processes), M(binary), M(ets), M(atom_used), \
      M(system) - M(binary) - M(ets) - M(atom_used), megaphone:memory(), \
      erlang:system_info(process_count), erlang:system_info(port_count), mnesia:table_info(session, size)}.";

impl Look {
    /// Looks; with `collect` after every process has collected its garbage. Blocks some 100 ms.
    pub fn at(site: &Site, collect: bool) -> Result<Self> {
        let beam = site
            .beam()
            .ok_or_else(|| Error::from("a site without a node"))?;
        let collect = if collect { COLLECT } else { "" };
        let said = beam.eval(&format!("{collect}{ASK}"))?;
        let numbers = numbers(&said);
        let &[
            total,
            heaps,
            binary,
            ets,
            atoms,
            system,
            nif,
            processes,
            ports,
            sessions,
        ] = numbers.as_slice()
        else {
            return Err(Error(format!("the node's memory: {said}")));
        };
        Ok(Self {
            node: Resident::of(&[site.pid()])?.rss,
            ecm: Resident::of(&site.ecm_pids())?.rss,
            total,
            heaps,
            binary,
            ets,
            atoms,
            system,
            nif,
            processes,
            ports,
            sessions,
        })
    }
}

fn numbers(term: &str) -> Vec<u64> {
    term.split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tuple_of_numbers_is_read_over_its_lines() {
        assert_eq!(numbers("{1, 23,\n 456}"), [1, 23, 456]);
        assert_eq!(numbers("{error, undef}"), [0u64; 0]);
    }
}
