//! Who may log in, and who may not.

use std::thread;

use crate::support::{BOSH, C2S, Outcome, StandIn, WEBSOCKET};

/// Refused logins are told by the condition that the server gave.
fn assert_refused_as(outcome: &Outcome, refused: impl IntoIterator<Item = (String, u64)>) {
    let told = refused.into_iter();
    let told = told.map(|(condition, count)| (format!("authentication: {condition}"), count));
    assert_eq!(outcome.logins().errors, told.collect());
    assert_eq!(outcome.code, Some(1));
}

#[test]
fn refused_logins_are_counted_by_kind() {
    thread::scope(|scope| {
        for transport in [C2S, WEBSOCKET, BOSH] {
            scope.spawn(move || {
                let stand_in = StandIn::start(transport, &["--refuse=0.4"]);
                let outcome = stand_in.users("--users 60 --patience 20s").run();
                let done = stand_in.done();
                let logins = outcome.logins();
                assert_eq!(
                    (logins.tried, u64::from(logins.logged_in)),
                    (60, done.logins)
                );
                assert_eq!(done.refused.len(), 2, "{done:?}");
                assert_eq!(done.refused.values().sum::<u64>() + done.logins, 60);
                assert_refused_as(&outcome, done.refused);
            });
        }
    });
}

#[test]
fn accounts_log_in_by_every_mechanism() {
    let accounts = ["--accounts=user%", "--password=secret%"];
    thread::scope(|scope| {
        for (transport, mechanism) in [
            (C2S, "PLAIN"),
            (WEBSOCKET, "SCRAM-SHA-1"),
            (BOSH, "SCRAM-SHA-256"),
        ] {
            scope.spawn(move || {
                let stand_in = StandIn::start(transport, &accounts);
                let who = format!("--mechanism {mechanism} --accounts user% --password secret%");
                let load = "--users 5 --chatter 50 --for 1s --patience 30s";
                let outcome = stand_in.users(&format!("{who} {load}")).run();
                outcome.assert_clean();
                let done = stand_in.done();
                assert_eq!((done.logins, done.messages), (5, 50));
                outcome.assert_saw(&done);
            });
        }
    });
}

#[test]
fn a_wrong_password_is_told() {
    let stand_in = StandIn::start(C2S, &["--accounts=user%", "--password=secret%"]);
    let wrong = "--users 3 --accounts user% --password wrong --mechanism SCRAM-SHA-256";
    let outcome = stand_in.users(wrong).run();
    assert_eq!(outcome.logins().logged_in, 0);
    assert_refused_as(&outcome, [("not-authorized".to_owned(), 3)]);
}

/// Users who are quiet answer pings, those of their transport too.
#[test]
fn held_users_answer_pings() {
    thread::scope(|scope| {
        for (transport, kinds) in [(C2S, 1), (WEBSOCKET, 2), (BOSH, 1)] {
            scope.spawn(move || {
                let stand_in = StandIn::start(transport, &["--ping=200ms"]);
                let outcome = stand_in.users("--users 10 --hold 4s --patience 20s").run();
                outcome.assert_clean();
                let done = stand_in.done();
                // Who logs out while it is pinged need not answer.
                let round = 10 * kinds;
                assert!(done.pongs >= 3 * round, "{transport:?}: {done:?}");
                assert!(done.pings - done.pongs <= round, "{transport:?}: {done:?}");
            });
        }
    });
}
