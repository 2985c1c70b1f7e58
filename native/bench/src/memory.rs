//! Resident memory and descriptors of processes, from `/proc`.

use std::fs;

use megaphone_load::usage::Usage;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Resident bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Resident {
    /// All that is resident.
    pub rss: u64,
    /// The same, what is shared divided among those who share it.
    pub pss: u64,
}

impl Resident {
    /// Of these processes together. Reads all their pages' entries: some 10 ms a gigabyte.
    pub fn of(pids: &[u32]) -> Result<Self> {
        pids.iter().try_fold(Self::default(), |sum, &pid| {
            let usage =
                Usage::of(pid).map_err(|error| Error::of(format!("process {pid}"), error))?;
            Ok(Self {
                rss: sum.rss + usage.rss,
                pss: sum.pss + usage.pss,
            })
        })
    }
}

/// How many descriptors a process has open, and how many it may have (the soft limit, to which ejabberd and the ECM
/// raise theirs by themselves where the hard one allows).
pub fn descriptors(pid: u32) -> Result<(u64, u64)> {
    let failed = |error| Error::of(format!("process {pid}"), error);
    let open = fs::read_dir(format!("/proc/{pid}/fd"))
        .map_err(failed)?
        .count();
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).map_err(failed)?;
    let limit =
        limit(&limits).ok_or_else(|| Error(format!("process {pid}: no limit of open files")))?;
    Ok((open as u64, limit))
}

fn limit(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_descriptors_within_its_limit() {
        let me = std::process::id();
        let resident = Resident::of(&[me]).unwrap();
        assert!(resident.rss > 0 && resident.pss > 0);
        let (open, limit) = descriptors(me).unwrap();
        assert!(open >= 3 && open <= limit);
    }

    #[test]
    fn the_limit_is_the_first_number() {
        let limits =
            "Limit          Soft Limit   Hard Limit  Units\nMax open files  20000  30000  files\n";
        assert_eq!(limit(limits), Some(20_000));
        assert_eq!(
            limit("Max open files  unlimited  unlimited  files"),
            Some(u64::MAX)
        );
        assert_eq!(limit("Max processes 3 3 processes"), None);
    }
}
