//! What all listeners share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::accounts::Accounts;
use super::report::{Counts, Report};
use super::stall::Stall;
use super::users::Users;

/// What all listeners share.
#[derive(Debug)]
pub struct Server {
    /// Who is here.
    pub users: Arc<Users>,
    /// Who may log in with a password; without, ANONYMOUS is all that is offered.
    pub accounts: Option<Arc<Accounts>>,
    /// When nothing is read.
    pub stall: Option<Arc<Stall>>,
    /// What was done so far.
    pub counts: Arc<Counts>,
    drawn: AtomicU64,
}

impl Server {
    /// A server where nobody is yet.
    pub fn new(
        users: Arc<Users>,
        accounts: Option<Accounts>,
        stall: Option<Stall>,
        counts: Arc<Counts>,
    ) -> Self {
        Self {
            users,
            accounts: accounts.map(Arc::new),
            stall: stall.map(Arc::new),
            counts,
            // Names of another run are not found in this one.
            drawn: AtomicU64::new(fastrand::u64(..) & 0x0000_ffff_ffff_0000),
        }
    }

    /// A name that nobody else has: for a user, a resource, a stream, a BOSH session.
    pub fn fresh(&self) -> String {
        format!("{:012x}", self.drawn.fetch_add(1, Relaxed))
    }

    /// Something came that a stall counts from.
    pub fn begin_stalls(&self) {
        if let Some(stall) = &self.stall {
            stall.begin();
        }
    }

    /// What was done so far.
    pub fn report(&self) -> Report {
        let stalls = self.stall.as_ref().map_or(0, |stall| stall.count());
        self.counts.report(stalls)
    }
}
