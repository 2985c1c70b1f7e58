//! Latency counts from when a message was due.

use std::thread;
use std::time::{Duration, Instant};

use megaphone_load::fleet::Chatter;

use crate::support::{BOSH, C2S, Outcome, StandIn, Transport, Users};

const MILLI: f64 = 1000.0;

/// What a busy machine may add, in microseconds, to the longest that it had a thread wait.
const SLACK: f64 = 300.0 * MILLI;

/// Runs a load to its end. Also returns how long at most this machine had a thread wait meanwhile,
/// in microseconds.
fn run(load: Users) -> (Outcome, f64) {
    const NAP: Duration = Duration::from_millis(5);
    let running = thread::spawn(|| load.run());
    let mut longest = Duration::ZERO;
    while !running.is_finished() {
        let begin = Instant::now();
        thread::sleep(NAP);
        longest = longest.max(begin.elapsed() - NAP);
    }
    (running.join().unwrap(), longest.as_secs_f64() * 1e6)
}

/// It took as long as this. Longer only on a machine that is so busy that any thread waited as long,
/// or the tool itself was late, which it counts, as it should, to what it measures.
fn assert_about(least: f64, found: f64, waited: f64, chatter: &Chatter) {
    // A histogram of three digits is right to a thousandth.
    let slack = match chatter.late > chatter.sent / 10 {
        true => f64::INFINITY,
        false => SLACK + waited,
    };
    let right = least * 0.99..=least + slack;
    assert!(right.contains(&found), "{right:?}: {found}, {chatter:?}");
}

#[test]
fn a_delay_appears_in_every_percentile() {
    let stand_in = StandIn::start(C2S, &["--delay=50ms"]);
    let load = "--users 20 --chatter 400 --for 1s --patience 20s";
    let (outcome, waited) = run(stand_in.users(load));
    outcome.assert_clean();
    let chatter = outcome.chatter();
    let latency = chatter.latency;
    assert_eq!(latency.count, 400);
    for value in [latency.p50, latency.p90, latency.p99, latency.p999] {
        assert_about(50.0 * MILLI, value as f64, waited, chatter);
    }
    assert!(latency.p50 <= latency.p90 && latency.p90 <= latency.p99);
    assert!(latency.p99 <= latency.p999 && latency.p999 <= latency.max);
    assert_about(50.0 * MILLI, latency.mean, waited, chatter);
    assert_eq!(stand_in.done().delayed, 400);
}

/// The server reads nothing for the last half second of each two. Of the messages a quarter falls
/// due in a stall, evenly, and each waits for its end:
///
/// ```text
///   P(latency > t) = 1/4 · (1 - t / 500 ms)
/// ```
///
/// A tool that counted from when it wrote, or that sent less while answers were missing
/// (coordinated omission), would have seen a few slow messages and no more.
fn stalled(transport: Transport) {
    let stall = ["--stall=500ms", "--stall-every=2s"];
    let stand_in = StandIn::start(transport, &stall);
    let load = "--users 20 --chatter 200 --for 4s --patience 20s";
    let (outcome, waited) = run(stand_in.users(load));
    outcome.assert_clean();
    let chatter = outcome.chatter();
    let latency = chatter.latency;
    let done = stand_in.done();
    assert_eq!((latency.count, done.messages), (800, 800));
    assert!(done.stalls >= 2, "{done:?}");
    let expected = |quantile: f64| 500.0 * MILLI * (1.0 - (1.0 - quantile) / 0.25);
    for (value, quantile) in [
        (latency.p90, 0.9),
        (latency.p99, 0.99),
        (latency.p999, 0.999),
    ] {
        // The chatter's beginning and end are not exactly the stalls': a twentieth of it.
        assert_about(expected(quantile) * 0.95, value as f64, waited, chatter);
    }
    let mean = 500.0 * MILLI / 2.0 / 4.0;
    assert_about(mean * 0.9, latency.mean, waited, chatter);
    // The other three quarters did not wait.
    assert_about(0.0, latency.p50 as f64, waited, chatter);
}

#[test]
fn a_stalled_server_is_seen() {
    thread::scope(|scope| {
        for transport in [C2S, BOSH] {
            scope.spawn(move || stalled(transport));
        }
    });
}
