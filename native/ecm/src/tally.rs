//! What is counted on a link, and how it is shown.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use megaphone_proto::control::CloseReason;

/// What was counted on a link since it came up.
#[derive(Debug)]
pub struct Counters {
    opened: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    unknown_ids: AtomicU64,
    unknown_verbs: AtomicU64,
    no_credit: AtomicU64,
    slow_clients: AtomicU64,
    resumes: AtomicU64,
    overflows: AtomicU64,
    closed: Closed,
}

impl Counters {
    /// All at 0.
    pub fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            opened: zero(),
            bytes_in: zero(),
            bytes_out: zero(),
            unknown_ids: zero(),
            unknown_verbs: zero(),
            no_credit: zero(),
            slow_clients: zero(),
            resumes: zero(),
            overflows: zero(),
            closed: Closed::new(),
        }
    }

    /// A connection was opened.
    pub fn count_opened(&self) {
        self.opened.fetch_add(1, Relaxed);
    }

    /// Bytes of content came from clients.
    pub fn count_in(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Relaxed);
    }

    /// Bytes of content came for clients.
    pub fn count_out(&self, bytes: usize) {
        self.bytes_out.fetch_add(bytes as u64, Relaxed);
    }

    /// A frame or message came for a connection that is not open here.
    pub fn count_unknown_id(&self) {
        self.unknown_ids.fetch_add(1, Relaxed);
    }

    /// Notes how many control messages had an unknown verb.
    pub fn set_unknown_verbs(&self, verbs: u64) {
        self.unknown_verbs.store(verbs, Relaxed);
    }

    /// A client had to wait for credit of ejabberd's.
    pub fn count_no_credit(&self) {
        self.no_credit.fetch_add(1, Relaxed);
    }

    /// A client's socket took no more.
    pub fn count_slow_client(&self) {
        self.slow_clients.fetch_add(1, Relaxed);
    }

    /// The link went on over another transport.
    pub fn count_resumed(&self) {
        self.resumes.fetch_add(1, Relaxed);
    }

    /// `resume_buffer` was passed.
    pub fn count_overflow(&self) {
        self.overflows.fetch_add(1, Relaxed);
    }

    /// How often `resume_buffer` was passed.
    pub fn overflows(&self) -> u64 {
        self.overflows.load(Relaxed)
    }

    /// Connections closed for `reason`.
    pub fn count_closed(&self, reason: CloseReason, connections: usize) {
        self.closed.count(reason, connections);
    }

    /// Adds what was counted on another link.
    pub fn add(&self, other: &Self) {
        for (own, others) in self.all().zip(other.all()) {
            own.fetch_add(others.load(Relaxed), Relaxed);
        }
    }

    fn all(&self) -> impl Iterator<Item = &AtomicU64> {
        let Self {
            opened,
            bytes_in,
            bytes_out,
            unknown_ids,
            unknown_verbs,
            no_credit,
            slow_clients,
            resumes,
            overflows,
            closed: Closed(closed),
        } = self;
        let alone = [
            opened,
            bytes_in,
            bytes_out,
            unknown_ids,
            unknown_verbs,
            no_credit,
            slow_clients,
            resumes,
            overflows,
        ];
        alone.into_iter().chain(closed)
    }
}

/// As it stands in the log line at a link's end, and in its status.
impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, counter) in [
            ("connections", &self.opened),
            ("bytes_in", &self.bytes_in),
            ("bytes_out", &self.bytes_out),
            ("unknown_ids", &self.unknown_ids),
            ("unknown_verbs", &self.unknown_verbs),
            ("no_credit", &self.no_credit),
            ("slow_clients", &self.slow_clients),
            ("resumes", &self.resumes),
        ] {
            write!(f, "{name}={} ", counter.load(Relaxed))?;
        }
        self.closed.fmt(f)
    }
}

/// Connections that closed, by reason.
#[derive(Debug)]
struct Closed([AtomicU64; CloseReason::ALL.len()]);

impl Closed {
    fn new() -> Self {
        Self([const { AtomicU64::new(0) }; CloseReason::ALL.len()])
    }

    fn count(&self, reason: CloseReason, connections: usize) {
        self.0[reason as usize].fetch_add(connections as u64, Relaxed);
    }
}

/// `closed=normal:5,link_lost:2`: the reasons that there were.
impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = CloseReason::ALL.iter().zip(&self.0);
        let counts = counts.map(|(reason, count)| (reason, count.load(Relaxed)));
        let mut before = "closed=";
        for (reason, count) in counts.filter(|(_, count)| *count > 0) {
            write!(f, "{before}{reason}:{count}")?;
            before = ",";
        }
        match before {
            "," => Ok(()),
            nothing => write!(f, "{nothing}none"),
        }
    }
}

/// A bound as a status line shows it: `NAME=NOW/MAX:HITS`.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// What it is called.
    pub name: &'static str,
    /// What there is of it now.
    pub now: usize,
    /// What there may be.
    pub max: usize,
    /// How often it was hit.
    pub hits: u64,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            now,
            max,
            hits,
        } = self;
        write!(f, "{name}={now}/{max}:{hits}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_own_counter() {
        for (n, reason) in CloseReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, n);
        }
    }

    #[test]
    fn what_two_links_counted_can_be_added_up() {
        let (sum, other) = (Counters::new(), Counters::new());
        for counters in [&sum, &other] {
            counters.count_opened();
            counters.count_in(2);
            counters.count_out(3);
            counters.count_unknown_id();
            counters.count_no_credit();
            counters.count_slow_client();
            counters.count_slow_client();
            counters.count_resumed();
            counters.count_overflow();
            counters.count_closed(CloseReason::Idle, 5);
        }
        other.set_unknown_verbs(6);
        sum.add(&other);
        assert_eq!(
            sum.to_string(),
            "connections=2 bytes_in=4 bytes_out=6 unknown_ids=2 unknown_verbs=6 no_credit=2 slow_clients=4 resumes=2 closed=idle:10"
        );
        assert_eq!(sum.overflows(), 2);
    }

    #[test]
    fn only_reasons_that_there_were_are_shown() {
        let closed = Closed::new();
        assert_eq!(closed.to_string(), "closed=none");
        closed.count(CloseReason::Internal, 1);
        closed.count(CloseReason::Normal, 2);
        closed.count(CloseReason::Idle, 0);
        closed.count(CloseReason::Normal, 3);
        assert_eq!(closed.to_string(), "closed=normal:5,internal:1");
    }
}
