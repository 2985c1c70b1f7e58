//! The users of one load, in as many worker processes as they need.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::account::Accounts;
use crate::summary::Summary;
use crate::target::Target;

/// Errors by kind, with how often each was seen.
pub type Errors = BTreeMap<String, u64>;

/// What a fleet is.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the users log in.
    pub target: Target,
    /// Who they are.
    pub accounts: Accounts,
    /// Source addresses, taken in turn; empty: the system's choice.
    pub sources: Vec<IpAddr>,
    /// How many users there will ever be at a time: decides how many workers there are.
    pub users: u32,
    /// Bytes of a message's body.
    pub body: usize,
    /// How long a login, or an answer, may take.
    pub patience: Duration,
    /// What draws pairs and pauses.
    pub seed: u64,
    /// The `megaphone-load` program, which the workers run.
    pub program: PathBuf,
}

/// What came of logins.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Logins {
    /// Logins that were tried.
    pub tried: u32,
    /// Those that ended well.
    pub logged_in: u32,
    /// From the first that was due to the last that ended.
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
    /// Messages whose content is not what was sent, or that reached somebody else.
    pub damaged: u64,
    /// From when a message was due to its arrival.
    pub latency: Summary,
    /// Bytes that the users read and wrote, TLS included.
    pub read: u64,
    /// See `read`.
    pub written: u64,
    /// Users that fell out, by kind of fault.
    pub errors: Errors,
    /// Logins and logouts of the churn meanwhile.
    pub joined: u64,
    /// See `joined`.
    pub left: u64,
    /// Processor seconds of all workers meanwhile: the generator's own share.
    pub generator_cpu: f64,
}

/// Worker processes and their users.
#[derive(Debug)]
pub struct Fleet {}

impl Fleet {
    /// Starts the workers; nobody logs in yet.
    pub fn start(_options: &Options) -> Result<Self, Error> {
        todo!()
    }

    /// Logs users in until there are `users` in all, at `rate` a second, or with `rate` `None`
    /// as fast as the server answers, 64 at a time. Blocks until the last has ended, well or not.
    pub fn log_in(&mut self, _users: u32, _rate: Option<f64>) -> Result<Logins, Error> {
        todo!()
    }

    /// Has random pairs chatter: `rate` messages a second for `time`, after that waits (up to the
    /// patience) for what is under way. `churn` users a second log out and in anew meanwhile.
    /// Blocks. Users who are quiet answer what the protocol asks for at all times.
    pub fn chatter(&mut self, _rate: f64, _time: Duration, _churn: f64) -> Result<Chatter, Error> {
        todo!()
    }

    /// Logs users out until there are `users`. Blocks.
    pub fn log_out(&mut self, _users: u32) -> Result<(), Error> {
        todo!()
    }

    /// Users that are logged in now, and faults since the last call by kind.
    pub fn look(&mut self) -> Result<(u32, Errors), Error> {
        todo!()
    }

    /// Process ids of the workers.
    pub fn pids(&self) -> Vec<u32> {
        todo!()
    }
}

/// A worker that does not do as it is told: the message is for a person.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);
