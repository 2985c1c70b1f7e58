//! What a process has used: processor time and memory, from `/proc` (proc(5)).

use std::io;

use procfs::process::Process;
use procfs::{ProcError, page_size, ticks_per_second};
use serde::{Deserialize, Serialize};

/// What one process has used so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Processor seconds in user mode, all threads.
    pub user: f64,
    /// Processor seconds that the kernel worked for it.
    pub system: f64,
    /// Bytes resident.
    pub rss: u64,
    /// Bytes resident, what is shared divided among those who share it.
    pub pss: u64,
}

impl Usage {
    /// Reads it. Fails when there is no such process, or it is somebody else's. Summing up the
    /// pages takes the kernel some milliseconds for each GB that is resident.
    pub fn of(pid: u32) -> io::Result<Self> {
        let process = Self::process(pid)?;
        let rollup = process.smaps_rollup().map_err(to_io)?;
        let pss = rollup
            .memory_map_rollup
            .iter()
            .filter_map(|map| map.extension.map.get("Pss"))
            .sum();
        Ok(Self {
            pss,
            ..Self::of_process(&process)?
        })
    }

    /// As [`Usage::of`], but leaves `pss` at 0, which makes it cheap.
    pub fn quick(pid: u32) -> io::Result<Self> {
        Self::of_process(&Self::process(pid)?)
    }

    /// All processor seconds.
    pub fn cpu(&self) -> f64 {
        self.user + self.system
    }

    fn process(pid: u32) -> io::Result<Process> {
        let pid = i32::try_from(pid).map_err(io::Error::other)?;
        Process::new(pid).map_err(to_io)
    }

    fn of_process(process: &Process) -> io::Result<Self> {
        let stat = process.stat().map_err(to_io)?;
        let ticks = ticks_per_second() as f64;
        Ok(Self {
            user: stat.utime as f64 / ticks,
            system: stat.stime as f64 / ticks,
            rss: stat.rss * page_size(),
            pss: 0,
        })
    }
}

fn to_io(error: ProcError) -> io::Error {
    match error {
        ProcError::PermissionDenied(_) => io::ErrorKind::PermissionDenied.into(),
        ProcError::NotFound(_) => io::ErrorKind::NotFound.into(),
        ProcError::Io(error, _) => error,
        other => io::Error::other(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_something() {
        let before = Usage::of(std::process::id()).expect("this process");
        assert!(before.rss > 0 && before.pss > 0 && before.pss <= before.rss + (1 << 20));
        let mut work = 0u64;
        let after = loop {
            work = std::hint::black_box(work.wrapping_mul(31).wrapping_add(7));
            let now = Usage::quick(std::process::id()).expect("this process");
            if now.cpu() > before.cpu() {
                break now;
            }
        };
        assert!(after.user >= before.user && after.system >= before.system);
    }

    #[test]
    fn there_is_no_process_of_that_number() {
        let error = Usage::of(u32::MAX).expect_err("no process");
        assert!(!error.to_string().is_empty());
        let error = Usage::of(i32::MAX as u32).expect_err("no process");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
