//! What happens to messages.

use std::thread;

use crate::support::{BOSH, C2S, StandIn, Transport, WEBSOCKET};

/// What is lost is waited for so long: longer than a message is held back to be overtaken.
const TALK: &str = "--users 20 --chatter 400 --for 1s --patience 3s";

fn clean(transport: Transport) {
    let stand_in = StandIn::start(transport, &[]);
    let outcome = stand_in.users(TALK).run();
    outcome.assert_clean();
    let done = stand_in.done();
    outcome.assert_saw(&done);
    assert_eq!((done.messages, done.delivered, done.logins), (400, 400, 20));
    assert_eq!(outcome.chatter().arrived, 400);
}

fn faulty(transport: Transport) {
    let all = [
        "--lose=0.05",
        "--double=0.05",
        "--swap=0.05",
        "--damage=0.05",
        "--misdeliver=0.05",
    ];
    let stand_in = StandIn::start(transport, &all);
    let outcome = stand_in.users(TALK).run();
    let done = stand_in.done();
    let each = [
        done.lost,
        done.doubled,
        done.swapped,
        done.damaged,
        done.misdelivered,
    ];
    assert!(each.iter().all(|count| *count > 0), "{done:?}");
    outcome.assert_saw(&done);
    assert!(outcome.complaint.contains("faults"), "{outcome:?}");
}

/// Over all transports at once.
fn over_each(test: fn(Transport)) {
    thread::scope(|scope| {
        for transport in [C2S, WEBSOCKET, BOSH] {
            scope.spawn(move || test(transport));
        }
    });
}

#[test]
fn a_clean_server_has_no_faults() {
    over_each(clean);
}

#[test]
fn every_fault_is_seen() {
    over_each(faulty);
}

#[test]
fn one_kind_of_fault_is_taken_for_no_other() {
    thread::scope(|scope| {
        for fault in ["lose", "double", "swap", "damage", "misdeliver"] {
            scope.spawn(move || {
                let fault = format!("--{fault}=0.2");
                let stand_in = StandIn::start(C2S, &[&fault]);
                let outcome = stand_in.users(TALK).run();
                let done = stand_in.done();
                outcome.assert_saw(&done);
                assert!(outcome.report.faults > 40, "{fault}: {done:?}");
            });
        }
    });
}

/// A damaged character may stand anywhere in the body, at any length of it.
#[test]
fn damage_is_seen_wherever_it_is() {
    thread::scope(|scope| {
        for body in [1, 80, 500, 3000] {
            scope.spawn(move || {
                let stand_in = StandIn::start(WEBSOCKET, &["--damage=1"]);
                let outcome = stand_in.users(&format!("{TALK} --body {body}")).run();
                let done = stand_in.done();
                outcome.assert_saw(&done);
                assert_eq!((done.damaged, outcome.chatter().arrived), (400, 0));
            });
        }
    });
}

/// Who comes and goes loses nothing, and nobody else does by it.
#[test]
fn churn_is_no_fault() {
    over_each(|transport| {
        let stand_in = StandIn::start(transport, &[]);
        let load = "--users 40 --churn 10 --chatter 200 --for 2s --patience 20s";
        let outcome = stand_in.users(load).run();
        outcome.assert_clean();
        let (chatter, done) = (outcome.chatter(), stand_in.done());
        // On a busy machine there may be fewer.
        assert!((1..=20).contains(&chatter.joined), "{transport:?}");
        assert_eq!(chatter.left, chatter.joined);
        assert_eq!((done.logins, done.messages), (40 + chatter.joined, 400));
        outcome.assert_saw(&done);
    });
}
