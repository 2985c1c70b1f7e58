//! What a process has used: processor time and memory, from `/proc` (proc(5)).

use std::io;

use serde::{Deserialize, Serialize};

/// What one process has used so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Processor seconds in user mode and in the kernel for it, all threads.
    pub user: f64,
    /// Processor seconds that the kernel worked for it.
    pub system: f64,
    /// Bytes resident.
    pub rss: u64,
    /// Bytes resident, what is shared divided among those who share it.
    pub pss: u64,
}

impl Usage {
    /// Reads it. Fails when there is no such process, or it is somebody else's.
    pub fn of(_pid: u32) -> io::Result<Self> {
        todo!()
    }

    /// All processor seconds.
    pub fn cpu(&self) -> f64 {
        self.user + self.system
    }
}
