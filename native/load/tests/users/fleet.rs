//! Servers and workers that die, and many workers.

use std::fs;
use std::io::Read;
use std::net::SocketAddr;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::support::{BOSH, C2S, PROGRAM, StandIn, Users, WEBSOCKET};

/// For what must come: only a test that fails waits so long.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn a_server_that_dies_is_told_by_kind() {
    thread::scope(|scope| {
        for transport in [C2S, WEBSOCKET, BOSH] {
            scope.spawn(move || {
                let stand_in = StandIn::start(transport, &["--end-after=100"]);
                let load = "--users 20 --chatter 400 --for 1s --patience 2s";
                let outcome = stand_in.users(load).run();
                let done = stand_in.done();
                assert_eq!((outcome.code, done.delivered), (Some(1), 100));
                let chatter = outcome.chatter();
                // What waits for a BOSH user's next request ends with the server.
                let least = if transport.name == BOSH.name { 1 } else { 100 };
                assert!((least..=100).contains(&chatter.arrived), "{chatter:?}");
                assert_eq!(chatter.lost, chatter.sent - chatter.arrived);
                // Each user fell out once, whatever its system called it.
                assert_eq!(chatter.errors.values().sum::<u64>(), 20, "{chatter:?}");
                assert!(!chatter.errors.keys().any(|kind| kind.contains("protocol")));
                assert_eq!(outcome.report.steps[0].online, 0);
                // What could not be sent is no part of what was.
                assert_eq!(chatter.sent + chatter.unsent, 400);
            });
        }
    });
}

/// A server that still listens and says nothing more: who waits for it gives up.
#[test]
fn a_server_that_falls_silent_holds_nobody_up() {
    let stall = ["--stall=60s", "--stall-every=61s"];
    let stand_in = StandIn::start(C2S, &stall);
    let load = "--users 20 --chatter 100 --for 2s --patience 1s";
    let outcome = stand_in.users(load).run();
    let chatter = outcome.chatter();
    let done = stand_in.done();
    assert_eq!((outcome.code, chatter.sent), (Some(1), 200));
    assert_eq!(chatter.lost, chatter.sent - done.delivered, "{done:?}");
    assert_eq!(chatter.arrived, done.delivered);
    assert!(done.delivered > 0 && done.delivered < 200, "{done:?}");
}

#[test]
fn nobody_listens_is_told() {
    // Bound, so that nobody else takes the port meanwhile, and not listening.
    let held = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    held.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    let address = held.local_addr().unwrap().as_socket().unwrap();
    let load = Users::new(
        C2S,
        address,
        Command::new(PROGRAM),
        "--users 5 --patience 5s",
    );
    let outcome = load.run();
    let logins = outcome.logins();
    assert_eq!(
        (outcome.code, logins.tried, logins.logged_in),
        (Some(1), 5, 0)
    );
    let errors: Vec<_> = logins.errors.iter().collect();
    let [(kind, 5)] = errors[..] else {
        panic!("{errors:?}");
    };
    assert_eq!(kind, "connect: ECONNREFUSED");
}

/// The processes that this one has started.
fn children(parent: &Child) -> Vec<u32> {
    let pid = parent.id();
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of = |task: fs::DirEntry| fs::read_to_string(task.path().join("children")).ok();
    let children: String = tasks.flatten().filter_map(of).collect();
    let pids = children.split_whitespace().map(str::parse);
    pids.collect::<Result<_, _>>().unwrap()
}

fn ended(child: &mut Child) -> Option<i32> {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if begin.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("still running");
        }
        thread::yield_now();
    }
}

#[test]
fn a_worker_that_is_killed_is_told_and_ends_the_rest() {
    let stand_in = StandIn::start(C2S, &[]);
    let mut load = stand_in
        .users("--users 20 --workers 2 --chatter 10 --for 10m")
        .start();
    let begin = Instant::now();
    let workers = loop {
        let workers = children(&load);
        if workers.len() == 2 {
            break workers;
        }
        assert!(begin.elapsed() < PATIENCE);
        thread::yield_now();
    };
    let killed = workers[0].to_string();
    let kill = Command::new("kill").args(["-KILL", &killed]).status();
    assert!(kill.unwrap().success());
    assert_eq!(ended(&mut load), Some(1));
    let mut complaint = String::new();
    let mut stderr = load.stderr.take().unwrap();
    stderr.read_to_string(&mut complaint).unwrap();
    assert!(
        complaint.contains("worker") && complaint.contains(&killed),
        "{complaint}"
    );
    assert!(complaint.contains("signal: 9"), "{complaint}");
    for worker in workers {
        assert!(
            !fs::exists(format!("/proc/{worker}")).unwrap(),
            "{worker} still runs"
        );
    }
    stand_in.done();
}

/// Nothing is left running when the parent dies, however it dies.
#[test]
fn workers_end_with_their_parent() {
    let stand_in = StandIn::start(C2S, &[]);
    let mut load = stand_in.users("--users 20 --workers 2 --hold 10m").start();
    let begin = Instant::now();
    let workers = loop {
        let workers = children(&load);
        if workers.len() == 2 {
            break workers;
        }
        assert!(begin.elapsed() < PATIENCE);
        thread::yield_now();
    };
    load.kill().unwrap();
    load.wait().unwrap();
    for worker in workers {
        // A process that has ended may wait for its new parent to notice.
        let state = || fs::read_to_string(format!("/proc/{worker}/stat")).unwrap_or_default();
        while !state().is_empty() && !state().contains(") Z ") {
            assert!(begin.elapsed() < PATIENCE, "{}", state());
            thread::yield_now();
        }
    }
    stand_in.done();
}

/// As many workers as the limit of open files asks for, whose figures add up.
#[test]
fn several_workers_add_up() {
    thread::scope(|scope| {
        for (transport, workers) in [(C2S, 3), (BOSH, 6)] {
            scope.spawn(move || {
                let faults = ["--lose=0.05", "--double=0.05", "--refuse=0.05"];
                let stand_in = StandIn::start(transport, &faults);
                let mut shell = Command::new("sh");
                let limited = "ulimit -n 100 && exec \"$0\" \"$@\"";
                shell.args(["-c", limited, PROGRAM]);
                let load = "--users 100 --chatter 400 --for 1s --patience 3s";
                let outcome = stand_in.users_by(shell, load).run();
                let done = stand_in.done();
                let step = &outcome.report.steps[0];
                assert_eq!(step.generator.workers, workers, "{outcome:?}");
                let logins = outcome.logins();
                assert_eq!(
                    (logins.tried, u64::from(logins.logged_in)),
                    (100, done.logins)
                );
                let refused = logins.errors.values().sum::<u64>();
                assert_eq!(refused, done.refused.values().sum::<u64>());
                assert_eq!(logins.latency.count, done.logins);
                let chatter = outcome.chatter();
                assert_eq!((chatter.sent, done.messages), (400, 400));
                assert_eq!((chatter.lost, chatter.doubled), (done.lost, done.doubled));
                assert_eq!(chatter.latency.count, chatter.arrived, "{chatter:?}");
                assert!(done.lost > 0 && done.doubled > 0 && refused > 0, "{done:?}");
            });
        }
    });
}
