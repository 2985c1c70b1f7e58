//! What one line says of a link that still is.

use std::fmt;

use crate::link::Link;
use crate::tally::Limit;

/// Shows a link: `state=up clients=3 connections=10 … rtt_us=90/120/80
/// unacknowledged=0 … data=0/131072:0`. A limit is `NAME=NOW/MAX:HITS`.
pub struct Status<'a>(pub &'a Link);

impl fmt::Display for Status<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let link = self.0;
        let state = if link.is_parked() {
            "parked"
        } else if link.accepts() {
            "up"
        } else {
            "draining"
        };
        let (clients, counters, pulse) = (link.load(), link.counters(), link.pulse());
        let resumable = link.may_resume();
        write!(
            f,
            "state={state} clients={clients} {counters} {pulse} resumable={resumable}"
        )?;
        let resume_buffer = Limit {
            name: "resume_buffer",
            now: link.unacknowledged(),
            max: link.resume_buffer(),
            hits: counters.overflows(),
        };
        for limit in link.outbox().limits().into_iter().chain([resume_buffer]) {
            write!(f, " {limit}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::link::tests::{link, open};
    use bytes::Bytes;

    #[test]
    fn a_status_names_state_counters_and_limits() {
        let link = link(1000);
        let _connection = open(&link);
        link.retain(Bytes::from("abc"));
        let urgent = link.outbox().limits()[1].now;
        let counters = link.counters();
        let rest = format!(
            "clients=1 {counters} rtt_us=none resumable=true data=0/131072:0 \
             urgent={urgent}/1048576:0 pongs=0/64:0 resume_buffer=3/1000:0"
        );
        assert_eq!(link.status().to_string(), format!("state=up {rest}"));
        link.park();
        assert_eq!(link.status().to_string(), format!("state=parked {rest}"));
        link.resume(3);
        link.leave();
        link.stop_accepting();
        let status = link.status().to_string();
        assert!(status.starts_with("state=draining clients=1 "), "{status}");
        assert!(status.contains(" resumes=1 "), "{status}");
        assert!(status.contains(" resumable=false "), "{status}");
    }
}
