//! Links that drop and go on, and those that do not.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use megaphone_proto::auth::Secret;
use megaphone_proto::control::{CloseReason, Control, ErrorCode};
use megaphone_proto::{ConnectionId, LinkConfig};
use rustix::process::Signal;
use support::*;

const GOAWAY: Control = Control::Goaway {
    reason: CloseReason::Shutdown,
    retry_after: None,
    within: None,
};

/// The content of `id` among what came.
fn content_of(id: ConnectionId, got: Vec<Got>) -> Vec<u8> {
    let content = |got| match got {
        Got::Content(from, content) if from == id => Some(content),
        _ => None,
    };
    got.into_iter().filter_map(content).flatten().collect()
}

/// Passes bytes both ways, which shows that all before has arrived too.
fn talk(node: &mut Node, id: ConnectionId, client: &mut TcpStream) {
    client.write_all(b"still").unwrap();
    assert_eq!(node.content(id, 5), b"still");
    node.send(id, b"here");
    assert_eq!(read_exact(client, 4), b"here");
}

fn assert_reset(client: &mut TcpStream) {
    let error = client.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_link_is_kept_as_long_as_the_configuration_says() {
    let (_ecm, _backend, node) = kept("resume_timeout = \"7s\"");
    assert_eq!(node.peer().resume_timeout, Some(7));
    let (_ecm, _backend, node) = kept("resume_timeout = \"0s\"");
    assert_eq!(node.peer().resume_timeout, None);
}

#[test]
fn a_link_that_is_cut_inside_frames_of_both_directions_goes_on_at_the_byte() {
    let (ecm, backend, mut node) = kept("");
    let mut client = ecm.tcp_client();
    let id = node.opened().id;
    for (round, bytes) in [0, 1, 10, 11, 31, 32, 33, 100, 131, 132]
        .into_iter()
        .enumerate()
    {
        let (said, answer) = (noise(round as u64, 100), noise(round as u64 + 100, 100));
        client.write_all(&said).unwrap();
        let mut got = content_of(id, node.take(bytes));
        node.send_part(&frame(id, &answer), bytes);
        node.cut();
        ecm.line("warn link 1 parked: ");
        backend.resume(&mut node);
        ecm.line("info link 1 resumed to ");
        got.extend(node.content(id, 100 - got.len()));
        assert_eq!(got, said, "cut after {bytes}");
        assert_eq!(read_exact(&mut client, 100), answer, "cut after {bytes}");
    }
}

#[test]
fn a_link_that_is_reset_goes_on() {
    let (ecm, backend, mut node) = kept("");
    let mut client = ecm.tcp_client();
    let id = node.opened().id;
    node.reset();
    ecm.line("warn link 1 parked: ");
    backend.resume(&mut node);
    talk(&mut node, id, &mut client);
}

/// Small random numbers.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (self.0 >> 33) as usize % n
    }
}

#[test]
fn cut_again_and_again_a_link_loses_and_doubles_nothing() {
    const BYTES: usize = 1_000_000;
    for seed in [1, 2, 3] {
        let mut dice = Dice(seed);
        let backend = Backend::new();
        let ecm = Ecm::start(&config(&backend.address(), "window = 8388608"));
        let mut node = backend.accept_with(|config| {
            config.resume_timeout = 60;
            config.window = 8_388_608;
        });
        ecm.line("link 1 up to ");
        let client = ecm.tcp_client();
        let id = node.opened().id;
        let (up, down) = (noise(seed, BYTES), noise(seed + 10, BYTES));
        let (to_write, mut writer) = (up.clone(), client.try_clone().unwrap());
        let writing = std::thread::spawn(move || writer.write_all(&to_write).unwrap());
        let mut reader = client;
        let reading = std::thread::spawn(move || read_exact(&mut reader, BYTES));
        let (mut got, mut sent, mut cuts) = (Vec::new(), 0, 0);
        while got.len() < BYTES || sent < BYTES {
            let part = (1 + dice.below(20_000)).min(BYTES - sent);
            let next = frame(id, &down[sent..sent + part]);
            let cut = dice.below(6) == 0;
            let written = if cut {
                dice.below(next.len())
            } else {
                next.len()
            };
            if part > 0 {
                node.send_part(&next, written);
                sent += part;
            }
            let wanted = (1 + dice.below(40_000)).min(BYTES - got.len());
            got.extend(content_of(id, node.take(wanted)));
            if cut {
                cuts += 1;
                node.cut();
                backend.resume(&mut node);
            } else if dice.below(4) == 0 {
                node.ack();
            }
        }
        writing.join().unwrap();
        assert!(got == up, "seed {seed}: what the client sent");
        let read = reading.join().unwrap();
        let wrong = read.iter().zip(&down).position(|(is, ought)| is != ought);
        assert_eq!(wrong, None, "seed {seed}: what the client got");
        assert!(cuts > 0);
    }
}

#[test]
fn what_clients_do_while_a_link_is_parked_is_done_when_it_goes_on() {
    let (ecm, backend, mut node) = kept("");
    let mut talker = ecm.tcp_client();
    let talker_id = node.opened().id;
    let leaver = ecm.tcp_client();
    let leaver_id = node.opened().id;
    node.cut();
    ecm.line("link 1 parked: ");
    talker.write_all(b"anyone there?").unwrap();
    drop(leaver);
    backend.resume(&mut node);
    let (mut said, mut ended) = (Vec::new(), false);
    while said != b"anyone there?" || !ended {
        match node.next() {
            Got::Content(id, content) if id == talker_id => said.extend(content),
            Got::End(id) if id == leaver_id => ended = true,
            other => panic!("{other:?}"),
        }
    }
    node.send(talker_id, b"yes");
    assert_eq!(read_exact(&mut talker, 3), b"yes");
}

#[test]
fn dials_that_fail_do_not_end_a_parked_link() {
    let (ecm, backend, mut node) = kept("");
    let mut client = ecm.tcp_client();
    let id = node.opened().id;
    node.cut();
    for _ in 0..3 {
        drop(backend.accept_raw());
        ecm.line("link 1 cannot come up: the handshake failed: ");
    }
    drop(backend.asked_for(&node));
    backend.resume(&mut node);
    talk(&mut node, id, &mut client);
}

#[test]
fn the_dials_for_a_parked_link_are_a_second_apart_at_most() {
    let backend = Backend::new();
    let lines = config(&backend.address(), "");
    let lines = lines
        .replace("\"10ms\"", "\"600ms\"")
        .replace("\"50ms\"", "\"1h\"");
    let ecm = Ecm::start(&lines);
    let mut node = backend.accept_kept();
    let mut client = ecm.tcp_client();
    let id = node.opened().id;
    node.cut();
    ecm.line("; kept for 30 s, next try in ");
    for _ in 0..3 {
        drop(backend.accept_raw());
        let line = ecm.line("link 1 cannot come up: ");
        let (_, pause) = line.split_once("; next try in ").unwrap();
        let pause: u64 = pause.trim_end_matches(" ms").parse().unwrap();
        assert!(pause <= 1000, "{line}");
    }
    backend.resume(&mut node);
    talk(&mut node, id, &mut client);
}

#[test]
fn a_link_with_a_secret_proves_it_again_when_it_goes_on() {
    let secret = b"sixteen bytes and some more";
    let file = file(str::from_utf8(secret).unwrap());
    let backend = Backend::new();
    let lines = config(&backend.address(), "");
    let line = format!("secret_file = {:?}\nreconnect_min", file.path());
    let ecm = Ecm::start(&lines.replace("reconnect_min", &line));
    let mut node = backend.accept_with(|config: &mut LinkConfig| {
        config.resume_timeout = 60;
        config.secret = Some(Secret::new(secret).unwrap());
    });
    let mut client = ecm.tcp_client();
    let id = node.opened().id;
    node.cut();
    backend.resume(&mut node);
    talk(&mut node, id, &mut client);
}

#[test]
fn a_node_that_does_not_know_the_link_gets_a_fresh_one() {
    let (ecm, backend, mut node) = kept("");
    let mut client = ecm.tcp_client();
    node.opened();
    node.cut();
    let mut greeting = backend.asked_for(&node);
    greeting.answer(None);
    let mut node = greeting.up(2);
    let lines = ecm.lines(["link 1 lost: ", "link 1 up to "]);
    assert!(
        lines[0].contains("link 1 lost: ejabberd does not know it any more connections=1 "),
        "{lines:?}"
    );
    assert!(lines[0].ends_with(" closed=link_lost:1"), "{lines:?}");
    assert_reset(&mut client);
    let mut client = ecm.tcp_client();
    let id = node.opened().id;
    talk(&mut node, id, &mut client);
}

#[test]
fn a_node_that_has_less_than_it_acknowledged_or_more_than_was_sent_is_told_so() {
    for wrong in [-1, 1_000] {
        let (ecm, backend, mut node) = kept("");
        let mut client = ecm.tcp_client();
        let id = node.opened().id;
        client.write_all(b"one two three").unwrap();
        node.content(id, 13);
        node.ack();
        let acknowledged = node.received();
        talk(&mut node, id, &mut client);
        node.cut();
        let mut greeting = backend.asked_for(&node);
        let has = acknowledged.checked_add_signed(wrong).unwrap();
        greeting.answer(Some(has));
        match greeting.up(2).next() {
            Got::Error(ErrorCode::ProtocolError, _) => {}
            other => panic!("{wrong}: {other:?}"),
        }
        let line = ecm.line("link 1 lost: ");
        let sentence = format!("ejabberd has {has} bytes of it");
        assert!(line.contains(&sentence), "{line}");
        assert_reset(&mut client);
        assert_eq!(backend.accept().peer().resume, None);
    }
}

#[test]
fn a_link_that_is_not_resumed_in_time_is_lost() {
    let backend = Backend::new();
    let ecm = Ecm::start(&config(&backend.address(), ""));
    // The shorter of both sides' times counts, and the ECM's is 30 s.
    let mut node = backend.accept_with(|config| config.resume_timeout = 1);
    let mut client = ecm.tcp_client();
    node.opened();
    let began = Instant::now();
    node.cut();
    assert_reset(&mut client);
    assert!(began.elapsed() >= Duration::from_secs(1));
    let line = ecm.line("warn link 1 lost: not resumed within 1 s ");
    assert!(line.ends_with(" closed=link_lost:1"), "{line}");
}

#[test]
fn a_shutdown_does_not_wait_for_a_parked_link() {
    let (mut ecm, _backend, mut node) = kept("");
    let mut client = ecm.tcp_client();
    node.opened();
    node.cut();
    ecm.line("link 1 parked: ");
    ecm.terminate();
    assert_eq!(read_to_end(&mut client), b"");
    assert_eq!(ecm.exit_code(), Some(0));
}

#[test]
fn what_came_is_acknowledged_in_time() {
    let (ecm, _backend, mut node) = kept("window = 1048576");
    let _client = ecm.tcp_client();
    let id = node.opened().id;
    let began = Instant::now();
    node.send(id, b"a little");
    node.acked(node.sent());
    // Far more than 64 KiB is not left to the clock.
    for _ in 0..10 {
        node.send(id, &[0; 40_000]);
        node.send(id, &[0; 40_000]);
        node.acked(node.sent() - 65_535);
    }
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(node.acks.is_sorted());
}

#[test]
fn a_node_that_never_acknowledges_cannot_resume() {
    let backend = Backend::new();
    let ecm = Ecm::start(&config(&backend.address(), "resume_buffer = 65536"));
    let mut node = backend.accept_with(|config| {
        config.resume_timeout = 60;
        config.window = 1_000_000;
    });
    let mut client = ecm.tcp_client();
    let id = node.opened().id;
    let bytes = noise(4, 200_000);
    client.write_all(&bytes).unwrap();
    assert!(node.content(id, bytes.len()) == bytes);
    ecm.line("warn link 1 cannot be resumed any more: ");
    talk(&mut node, id, &mut client);
    node.cut();
    ecm.line("warn link 1 ended: ");
    assert_reset(&mut client);
    assert_eq!(backend.accept().peer().resume, None);
}

#[test]
fn a_node_that_acknowledges_keeps_the_buffer_small() {
    let (ecm, backend, mut node) = kept("resume_buffer = 65536");
    let mut client = ecm.tcp_client();
    let id = node.opened().id;
    for round in 0..20 {
        let bytes = noise(round, 10_000);
        client.write_all(&bytes).unwrap();
        assert!(node.content(id, bytes.len()) == bytes);
        node.grant(id, 10_005);
        node.ack();
        talk(&mut node, id, &mut client);
    }
    node.cut();
    backend.resume(&mut node);
    talk(&mut node, id, &mut client);
}

#[test]
fn an_acknowledgement_of_what_was_never_sent_closes_the_link() {
    let (ecm, backend, mut node) = kept("");
    node.say(&Control::Ack { bytes: 1_000_000 });
    match node.next() {
        Got::Error(ErrorCode::ProtocolError, _) => {}
        other => panic!("{other:?}"),
    }
    ecm.line("warn link 1 ended: ");
    assert_eq!(backend.accept().peer().resume, None);
}

#[test]
fn a_parked_link_takes_no_new_clients_and_another_does() {
    let backend = Backend::new();
    let ecm = Ecm::start(&config(&backend.address(), "links = 2"));
    let (mut one, mut other) = (backend.accept_kept(), backend.accept_kept());
    ecm.lines(["link 1 up to ", "link 2 up to "]);
    one.cut();
    let line = ecm.line(" parked: ");
    let number = line.split(' ').nth(2).unwrap().to_owned();
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(ecm.tcp_client());
        assert!(!ecm.line(" open link=").contains(&format!("link={number} ")));
        other.opened();
    }
    backend.resume(&mut one);
    ecm.line(" resumed to ");
    clients.push(ecm.tcp_client());
    assert!(ecm.line(" open link=").contains(&format!("link={number} ")));
    one.opened();
}

#[test]
fn a_client_that_comes_while_the_only_link_is_parked_waits_for_it() {
    let (ecm, backend, mut node) = kept("connect_wait = \"30s\"");
    node.cut();
    ecm.line("link 1 parked: ");
    let mut client = ecm.tcp_client();
    client.write_all(b"early").unwrap();
    backend.resume(&mut node);
    let id = node.opened().id;
    assert_eq!(node.content(id, 5), b"early");
}

#[test]
fn a_link_that_falls_silent_is_dialled_again_without_a_word() {
    let (ecm, backend, mut node) = kept("heartbeat = \"1s\"");
    let mut client = ecm.tcp_client();
    let id = node.opened().id;
    ecm.line("warn link 1 parked: nothing was received for three heartbeat intervals ");
    // No error is said: that would be the end of the link.
    assert_eq!(node.next(), Got::Eof);
    node.cut();
    node.alive = true;
    backend.resume(&mut node);
    talk(&mut node, id, &mut client);
}

/// The round trips in a status line, once there are some: the last, the
/// smoothed and the shortest, in microseconds.
fn round_trips(ecm: &Ecm, node: &mut Node) -> [u64; 3] {
    loop {
        node.pinged();
        ecm.signal(Signal::USR1);
        let line = ecm.line("info link 1 state=up ");
        let (_, times) = line.split_once(" rtt_us=").unwrap();
        let times = times.split(' ').next().unwrap();
        if times != "none" {
            let times: Vec<_> = times.split('/').map(|time| time.parse().unwrap()).collect();
            return times.try_into().unwrap();
        }
    }
}

#[test]
fn round_trips_are_measured() {
    let (ecm, backend, mut node) = kept("heartbeat = \"1s\"");
    node.alive = true;
    let [last, smoothed, min] = round_trips(&ecm, &mut node);
    assert!(0 < min && min <= last && min <= smoothed);
    node.cut();
    backend.resume(&mut node);
    let [_, _, still] = round_trips(&ecm, &mut node);
    assert!(0 < still && still <= min);
}

#[test]
fn a_transport_that_takes_nothing_is_given_up_with_its_blocked_writes() {
    let backend = Backend::new();
    let ecm = Ecm::start(&config(&backend.address(), "heartbeat = \"500ms\""));
    let mut node = backend.accept_with(|config| {
        config.resume_timeout = 60;
        config.window = 0x7fff_ffff;
    });
    let mut client = ecm.tcp_client();
    let id = node.opened().id;
    // Far more than the kernel holds for both sockets.
    let bytes = noise(5, 24 * 1024 * 1024);
    let to_write = bytes.clone();
    let writing = std::thread::spawn(move || {
        client.write_all(&to_write).unwrap();
        client
    });
    ecm.line("warn link 1 parked: nothing was received for three heartbeat intervals ");
    node.cut();
    node.alive = true;
    backend.resume(&mut node);
    let (mut got, mut acknowledged) = (Vec::new(), 0);
    while got.len() < bytes.len() {
        match node.next() {
            Got::Content(_, content) => got.extend(content),
            // This machine is slow, and the link silent again.
            Got::Eof => {
                node.cut();
                backend.resume(&mut node);
            }
            other => panic!("{other:?}"),
        }
        if node.received() > acknowledged + 256 * 1024 {
            acknowledged = node.received();
            node.ack();
        }
    }
    assert!(got == bytes);
    let mut client = writing.join().unwrap();
    talk(&mut node, id, &mut client);
}

#[test]
fn a_link_of_a_node_that_ends_is_not_resumed() {
    let (ecm, backend, mut node) = kept("");
    let mut client = ecm.tcp_client();
    node.opened();
    node.say(&GOAWAY);
    ecm.line("link 1 takes no new connections: ejabberd says goaway reason=shutdown");
    node.cut();
    let line = ecm.line("warn link 1 ended: closed by ejabberd ");
    assert!(line.contains(" closed=shutdown:1;"), "{line}");
    let (_, pause) = line.split_once("; next try in ").unwrap();
    let pause: u64 = pause.trim_end_matches(" ms").parse().unwrap();
    assert!(pause >= 1000, "{line}");
    assert_reset(&mut client);
    assert_eq!(backend.accept().peer().resume, None);
}

#[test]
fn a_link_that_takes_no_new_connections_for_another_reason_goes_on_with_those_it_has() {
    let (ecm, backend, mut node) = kept("connect_wait = \"100ms\"");
    let mut client = ecm.tcp_client();
    let id = node.opened().id;
    node.say(&Control::Goaway {
        reason: CloseReason::Overload,
        retry_after: None,
        within: None,
    });
    ecm.line("link 1 takes no new connections: ejabberd says goaway reason=overload");
    node.cut();
    backend.resume(&mut node);
    assert_eq!(read_to_end(&mut ecm.tcp_client()), b"");
    talk(&mut node, id, &mut client);
}

#[test]
fn a_link_that_ends_with_an_error_is_not_resumed() {
    let (ecm, backend, mut node) = kept("");
    let mut client = ecm.tcp_client();
    node.opened();
    node.say(&Control::Error {
        code: ErrorCode::Internal,
        text: "a fault".to_owned(),
    });
    ecm.line("warn link 1 ended: ejabberd says error code=internal ");
    assert_reset(&mut client);
    assert_eq!(backend.accept().peer().resume, None);
}
