//! Adds up what the workers say.

use crate::clock;
use crate::fleet::{Chatter, Error, Errors, Logins, Progress};
use crate::ledger::Counts;
use crate::tally::Tally;
use crate::wire::{Answer, Tick};

/// What came of all workers' logins.
pub(super) fn logins(answers: Vec<Answer>) -> Result<Logins, Error> {
    let mut sum = Logins::default();
    let mut latency = Tally::default();
    let (mut begin, mut end) = (u64::MAX, 0);
    for answer in answers {
        let Answer::Logins(count) = answer else {
            return Err(unexpected(&answer));
        };
        sum.tried += count.tried;
        sum.logged_in += count.logged_in;
        if count.tried > 0 {
            begin = begin.min(count.begin);
            end = end.max(count.end);
        }
        add_tally(&mut latency, &count.latency)?;
        add_errors(&mut sum.errors, count.errors);
    }
    sum.seconds = clock::to_seconds(end.saturating_sub(begin));
    sum.latency = latency.summary();
    Ok(sum)
}

/// What came of all workers' chatter; the caller knows rate and time.
pub(super) fn chatter(answers: Vec<Answer>) -> Result<Chatter, Error> {
    let mut sum = Chatter::default();
    let mut counts = Counts::default();
    let mut latency = Tally::default();
    for answer in answers {
        let Answer::Chatter(count) = answer else {
            return Err(unexpected(&answer));
        };
        counts += count.counts;
        sum.unsent += count.unsent;
        sum.late += count.late;
        sum.nudges += count.nudges;
        sum.read += count.read;
        sum.written += count.written;
        sum.joined += count.joined;
        sum.left += count.left;
        sum.generator_cpu += clock::to_seconds(count.cpu);
        add_tally(&mut latency, &count.latency)?;
        add_errors(&mut sum.errors, count.errors);
    }
    Ok(Chatter {
        sent: counts.sent,
        arrived: counts.arrived,
        lost: counts.unseen,
        doubled: counts.doubled,
        disordered: counts.disordered,
        damaged: counts.damaged,
        stale: counts.stale,
        latency: latency.summary(),
        ..sum
    })
}

/// Of each worker, who is logged in; and all faults.
pub(super) fn looks(answers: Vec<Answer>) -> Result<(Vec<u32>, Errors), Error> {
    let mut all = Vec::new();
    let mut errors = Errors::new();
    for answer in answers {
        let Answer::Look { online, faults } = answer else {
            return Err(unexpected(&answer));
        };
        all.push(online);
        add_errors(&mut errors, faults);
    }
    Ok((all, errors))
}

/// How far all are.
pub(super) fn progress<'a>(ticks: impl Iterator<Item = &'a Tick>) -> Progress {
    let mut sum = Progress::default();
    let mut latency = Tally::default();
    for tick in ticks {
        sum.online += tick.online;
        sum.failed += tick.failed;
        sum.counts += tick.counts;
        // A progress line without some latencies is a progress line.
        let _ = add_tally(&mut latency, &tick.latency);
    }
    sum.latency = latency.summary();
    sum
}

pub(super) fn add_errors(sum: &mut Errors, errors: Errors) {
    for (kind, count) in errors {
        *sum.entry(kind).or_default() += count;
    }
}

/// `: 3 connect: ECONNREFUSED, 1 read: ECONNRESET`, or nothing.
pub(super) fn list(errors: &Errors) -> String {
    let parts: Vec<String> = errors
        .iter()
        .map(|(kind, count)| format!("{count} {kind}"))
        .collect();
    match parts.is_empty() {
        true => String::new(),
        false => format!(": {}", parts.join(", ")),
    }
}

fn add_tally(sum: &mut Tally, text: &str) -> Result<(), Error> {
    sum.add(&Tally::decode(text).map_err(Error)?);
    Ok(())
}

fn unexpected(answer: &Answer) -> Error {
    Error(format!("a worker answered {answer:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{ChatterCount, LoginCount};

    fn tally(latencies: &[u64]) -> String {
        let mut tally = Tally::default();
        for latency in latencies {
            tally.record(0, latency * 1000);
        }
        tally.encode()
    }

    #[test]
    fn logins_last_from_the_first_to_the_last_of_all_workers() {
        let count = |begin, end, tried, logged_in| {
            Answer::Logins(LoginCount {
                tried,
                logged_in,
                begin,
                end,
                latency: tally(&[u64::from(logged_in)]),
                errors: Errors::from([("connect: ETIMEDOUT".into(), 1)]),
            })
        };
        let sum = logins(vec![
            count(5_000_000_000, 7_000_000_000, 4, 3),
            count(4_500_000_000, 6_000_000_000, 2, 1),
            count(0, 0, 0, 0),
        ])
        .expect("logins");
        assert_eq!((sum.tried, sum.logged_in, sum.seconds), (6, 4, 2.5));
        assert_eq!(sum.latency.max, 3);
        assert_eq!(list(&sum.errors), ": 3 connect: ETIMEDOUT");
    }

    #[test]
    fn chatter_adds_up() {
        let count = |sent, unseen, latency| {
            Answer::Chatter(Box::new(ChatterCount {
                counts: Counts {
                    sent,
                    arrived: sent - unseen,
                    unseen,
                    ..Counts::default()
                },
                latency: tally(&[latency]),
                cpu: 1_500_000_000,
                ..ChatterCount::default()
            }))
        };
        let sum = chatter(vec![count(10, 1, 100), count(20, 0, 200)]).expect("chatter");
        assert_eq!((sum.sent, sum.arrived, sum.lost), (30, 29, 1));
        assert_eq!((sum.latency.count, sum.latency.max), (2, 200));
        assert_eq!(sum.generator_cpu, 3.0);
        assert!(chatter(vec![Answer::Done]).is_err());
    }
}
