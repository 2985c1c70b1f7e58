//! Bounds on what clients may take: their rate, their memory, what is said
//! of both.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use megaphone_proto::control::CloseReason;
use rustix::process::Signal;
use support::*;

fn assert_contains(line: &str, parts: &[&str]) {
    for part in parts {
        assert!(line.contains(part), "{part} not in {line}");
    }
}

#[test]
fn clients_over_open_rate_wait_for_their_turn() {
    let (ecm, _backend, mut node) = linked("open_rate = 10\nconnect_wait = \"30s\"");
    let began = Instant::now();
    let _clients: Vec<_> = ecm.at_once(|| (0..20).map(|_| ecm.tcp_client()).collect());
    for _ in 0..20 {
        node.opened();
    }
    // One second's worth at once, the others a tenth of a second each.
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(1000), "{took:?}");
    ecm.line("warn open_rate=10 reached: ");
    assert_contains(
        &ecm.status(),
        &[
            " connections=20 ",
            " max_waiting=0/1024:0 ",
            " open_rate_hits=10 ",
        ],
    );
}

#[test]
fn after_a_restart_clients_come_back_at_open_rate() {
    let backend = Backend::new();
    let lines = "open_rate = 10\nconnect_wait = \"30s\"";
    let text = config(&backend.address(), lines);
    // ejabberd is away: its listener is there, and says nothing yet.
    let ecm =
        Ecm::start(&text.replace("reconnect_min", "connect_timeout = \"30s\"\nreconnect_min"));
    let _clients: Vec<_> = (0..20).map(|_| ecm.tcp_client()).collect();
    let back = Instant::now();
    let mut node = backend.accept();
    for _ in 0..20 {
        node.opened();
    }
    // One second's worth at once, the others a tenth of a second each.
    let took = back.elapsed();
    assert!(took >= Duration::from_millis(1000), "{took:?}");
    ecm.line("warn open_rate=10 reached: ");
}

#[test]
fn a_storm_is_spread_or_refused_at_once() {
    let lines = "open_rate = 1\nconnect_wait = \"1s\"\nmax_waiting = 1000";
    let (ecm, _backend, mut node) = linked(lines);
    let began = Instant::now();
    let mut clients: Vec<_> = ecm.at_once(|| (0..10).map(|_| ecm.web_client()).collect());
    // One at once, and two for whom no more than a second's turns are before
    // theirs: the others hear at once that they should come later.
    ecm.line(" refused: its turn (open_rate) would come after more than connect_wait");
    for _ in 0..3 {
        node.opened();
    }
    assert!(began.elapsed() >= Duration::from_secs(2));
    drop(node);
    let ends = clients.iter_mut().map(|client| {
        let mut answer = Vec::new();
        // Who was opened is reset with the link.
        let _ = client.read_to_end(&mut answer);
        answer.starts_with(b"HTTP/1.1 503 ")
    });
    assert_eq!(ends.filter(|refused| *refused).count(), 7);
}

#[test]
fn no_more_wait_for_their_turn_than_may() {
    let lines = "open_rate = 1\nconnect_wait = \"1m\"\nmax_waiting = 1";
    let (ecm, _backend, mut node) = linked(lines);
    let clients = ecm.at_once(|| [(); 3].map(|()| ecm.tcp_client()));
    node.opened();
    let lines = ecm.lines([
        "warn open_rate=1 reached: ",
        "as many clients as may (max_waiting) wait for their turn (open_rate)",
    ]);
    // Either of the two who had no turn at once.
    let is_refused =
        |client: &TcpStream| lines[1].contains(&client.local_addr().unwrap().to_string());
    let mut client = clients.into_iter().find(is_refused).unwrap();
    assert_eq!(read_to_end(&mut client), b"");
    assert_contains(&ecm.status(), &[" refused=1 ", "/1:1 "]);
}

#[test]
fn who_goes_away_while_it_waits_frees_its_place() {
    let lines = "open_rate = 1\nconnect_wait = \"1m\"\nmax_waiting = 1";
    let (ecm, _backend, mut node, _at_once) = loop {
        let (ecm, backend, mut node) = linked(lines);
        let at_once = ecm.tcp_client();
        node.opened();
        ecm.line(" service=c2s ");
        drop(ecm.tcp_client());
        // Where this test is slow, it had its turn before.
        if ecm
            .line(" service=c2s")
            .contains(" went away while it waited ")
        {
            break (ecm, backend, node, at_once);
        }
    };
    let waits = ecm.tcp_client();
    assert_eq!(node.opened().peer, waits.local_addr().unwrap());
    assert_contains(&ecm.status(), &[" connections=2 ", " refused=0 "]);
}

#[test]
fn a_client_that_makes_it_hold_too_much_is_reset_and_no_other() {
    let lines = "max_buffered = 1048576\nwindow = 67108864";
    let (ecm, _backend, mut node) = linked(lines);
    let mut greedy = ecm.tcp_client();
    let greedy_id = node.opened().id;
    let mut modest = ecm.tcp_client();
    let modest_id = node.opened().id;
    // More than the kernel and the budget hold together.
    for _ in 0..400 {
        node.send(greedy_id, &[7; 65_536]);
    }
    loop {
        match node.next() {
            Got::Window(..) => {}
            got => break assert_eq!(got, Got::Reset(greedy_id, CloseReason::Overload)),
        }
    }
    ecm.line("warn max_buffered=1048576 reached: 1 clients were reset so far");
    let closed = ecm.line(&format!("connection {greedy_id} closed"));
    assert!(closed.ends_with("reason=overload"), "{closed}");
    let mut rest = Vec::new();
    let error = greedy.read_to_end(&mut rest).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    // What it took is there for others again.
    let bytes = noise(4, 1_000_000);
    node.send(modest_id, &bytes[..65_536]);
    for part in bytes[65_536..].chunks(65_536) {
        node.send(modest_id, part);
    }
    assert!(read_exact(&mut modest, bytes.len()) == bytes);
    // A byte back shows that all was written, and so is not held any more.
    modest.write_all(b"!").unwrap();
    while !matches!(node.next(), Got::Content(..)) {}
    assert_contains(
        &ecm.status(),
        &[" max_buffered=0/1048576:1 ", "closed=overload:1"],
    );
}

#[test]
fn a_signal_has_it_say_what_there_is() {
    let (ecm, _backend, mut node) = linked("max_clients = 3");
    let mut client = ecm.tcp_client();
    let id = node.opened().id;
    client.write_all(b"four").unwrap();
    node.content(id, 4);
    node.send(id, b"sixsix");
    read_exact(&mut client, 6);
    drop(ecm.tcp_client());
    let gone = node.opened().id;
    assert_eq!(node.next(), Got::End(gone));
    node.send(gone, b"");
    ecm.line(&format!("connection {gone} closed"));

    // Its place is free a moment after that is said.
    ecm.wait_for_status(" max_clients=1/3:0 ");
    ecm.signal(Signal::USR1);
    let link = ecm.line("info link 1 state=up ");
    let carried = "connections=2 bytes_in=4 bytes_out=6";
    assert_contains(&link, &[" clients=1 ", carried, " closed=normal:1 "]);
    let all = ecm.line("info status ");
    assert_contains(&all, &["status links=1/1 ", carried, " closed=normal:1 "]);
    assert_contains(&all, &[" refused=0 ", " max_waiting=0/1024:0 "]);

    // What ended links carried is not forgotten.
    drop(node);
    ecm.lines(["link 1 ended: ", &format!("connection {id} closed")]);
    assert_contains(
        &ecm.status(),
        &["status links=0/1 ", carried, "link_lost:1"],
    );
}
