//! What the fleet tells a worker, and what a worker answers: one JSON object a line.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::account::Accounts;
use crate::fleet::Errors;
use crate::ledger::Counts;
use crate::target::Target;

/// A line on a worker's standard input. It ends when that ends.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// The first order, once. Answered with [`Answer::Done`].
    Begin(Box<Begin>),
    /// Log in who is not, of the worker's first `users` users. Answered with [`Answer::Logins`].
    LogIn {
        /// How many of the worker's users are to be logged in.
        users: u32,
        /// Logins a second; without, as fast as `at_once` at a time are answered.
        rate: Option<f64>,
        /// Seconds from now to the first.
        offset: f64,
        /// Logins at a time where there is no rate.
        at_once: u32,
    },
    /// Chatter. Answered with [`Answer::Chatter`].
    Chatter {
        /// Messages a second.
        rate: f64,
        /// Messages in all.
        count: u64,
        /// Seconds that this takes.
        seconds: f64,
        /// Users a second that leave and join anew.
        churn: f64,
        /// Seconds from now to the first.
        offset: f64,
    },
    /// Log all out but the first `users`. Answered with [`Answer::Done`].
    LogOut {
        /// How many of the worker's users stay.
        users: u32,
    },
    /// Answered with [`Answer::Look`].
    Look,
}

/// What a worker needs to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Begin {
    /// Where its users log in.
    pub target: Target,
    /// Who they are.
    pub accounts: Accounts,
    /// Source addresses.
    pub sources: Vec<IpAddr>,
    /// Bytes of a message's body.
    pub body: usize,
    /// Seconds a login or an answer may take.
    pub patience: f64,
    /// What draws pairs.
    pub seed: u64,
    /// Number of its first user.
    pub first: u32,
    /// From the number of one user to that of the next.
    pub stride: u32,
}

/// A line on a worker's standard output.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// As it was told.
    Done,
    /// All logins have ended.
    Logins(LoginCount),
    /// The chatter has ended.
    Chatter(Box<ChatterCount>),
    /// How it is.
    Look {
        /// Users logged in.
        online: u32,
        /// Users that fell out since the last look.
        faults: Errors,
    },
    /// Each second while it works on an order.
    Tick(Tick),
    /// It cannot do that; the worker ends.
    Failed(String),
}

/// What came of a worker's logins.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct LoginCount {
    /// Logins that were tried.
    pub tried: u32,
    /// Those that ended well.
    pub logged_in: u32,
    /// When the first was due (monotonic nanoseconds); 0 where there was none.
    pub begin: u64,
    /// When the last had ended.
    pub end: u64,
    /// From due to ended, as [`crate::tally::Tally::encode`] writes it.
    pub latency: String,
    /// Those that failed, by kind.
    pub errors: Errors,
}

/// What came of a worker's chatter.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct ChatterCount {
    /// What has become of the messages.
    pub counts: Counts,
    /// Messages that were due while nobody could send them.
    pub unsent: u64,
    /// Messages that were sent more than [`crate::worker::LATE`] late.
    pub late: u64,
    /// Users to whom somebody wrote so that their requests were answered.
    pub nudges: u64,
    /// From due to arrived.
    pub latency: String,
    /// Bytes that the users read and wrote.
    pub read: u64,
    /// See `read`.
    pub written: u64,
    /// Users that fell out.
    pub errors: Errors,
    /// Logins of the churn.
    pub joined: u64,
    /// Logouts of the churn.
    pub left: u64,
    /// Processor nanoseconds of this worker.
    pub cpu: u64,
}

/// How far a worker is.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Tick {
    /// Users logged in.
    pub online: u32,
    /// Logins of this order that failed.
    pub failed: u64,
    /// What has become of messages since the order.
    pub counts: Counts,
    /// Latencies of the second that has passed.
    pub latency: String,
}
