//! What came of what a fleet did.

use serde::{Deserialize, Serialize};

use crate::fleet::Errors;
use crate::ledger::Counts;
use crate::summary::Summary;

/// What came of logins.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Logins {
    /// Logins that were tried.
    pub tried: u32,
    /// Those that ended well.
    pub logged_in: u32,
    /// From the first that was due to the last that ended well; where none did, to the last that failed.
    pub seconds: f64,
    /// From when a login was due to its end.
    pub latency: Summary,
    /// Those that failed, by kind.
    pub errors: Errors,
}

/// What came of a while of chatter.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Chatter {
    /// Messages a second that were asked for.
    pub rate: f64,
    /// How long messages were due.
    pub seconds: f64,
    /// Messages that were due, and sent.
    pub sent: u64,
    /// Messages that arrived, whole, once and in order.
    pub arrived: u64,
    /// Messages that did not arrive within the patience after the last was sent.
    pub lost: u64,
    /// Messages that arrived again.
    pub doubled: u64,
    /// Messages that arrived after one that was sent later in the same conversation.
    pub disordered: u64,
    /// Messages whose content is not what was sent, or that reached somebody else. They are not
    /// counted as lost too.
    pub damaged: u64,
    /// From when a message was due to its arrival.
    pub latency: Summary,
    /// Bytes that the users read and wrote, TLS included.
    pub read: u64,
    /// See `read`.
    pub written: u64,
    /// Messages that were due while fewer than two users could send: they were not sent.
    pub unsent: u64,
    /// Messages that were sent more than a millisecond after they were due: the generator's own
    /// fault, which the latency contains.
    pub late: u64,
    /// Messages of an earlier chatter, which counted them as lost.
    pub stale: u64,
    /// How often a BOSH user's requests were not answered until somebody else wrote to that user:
    /// ejabberd lays a request aside that overtook the one before it. What it contained came late.
    pub nudges: u64,
    /// Users that fell out, by kind of fault.
    pub errors: Errors,
    /// Logins and logouts of the churn meanwhile.
    pub joined: u64,
    /// See `joined`.
    pub left: u64,
    /// Processor seconds of all workers meanwhile: the generator's own share.
    pub generator_cpu: f64,
}

/// How far the fleet is: said each second while it works on something.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// Users logged in.
    pub online: u32,
    /// Logins that have failed since this work began.
    pub failed: u64,
    /// What has become of messages since this work began.
    pub counts: Counts,
    /// Latencies of the last second, of logins or of messages.
    pub latency: Summary,
}
