//! What happened in a run.

use std::ops::AddAssign;

/// Counts, so that a test can tell that it was not nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub connections: u64,
    pub lost: u64,
    pub bytes: u64,
    pub steps: u64,
    pub dials: u64,
    pub fresh: u64,
    pub resumed: u64,
    pub refused: u64,
    pub overflowed: u64,
    pub expired: u64,
    pub silent: u64,
    pub late: u64,
    pub old: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.connections += other.connections;
        self.lost += other.lost;
        self.bytes += other.bytes;
        self.steps += other.steps;
        self.dials += other.dials;
        self.fresh += other.fresh;
        self.resumed += other.resumed;
        self.refused += other.refused;
        self.overflowed += other.overflowed;
        self.expired += other.expired;
        self.silent += other.silent;
        self.late += other.late;
        self.old += other.old;
    }
}
