use std::collections::HashMap;

use std::time::{Duration, Instant};

use super::c2s::login;
use super::support::{Client, StandIn, between};

const MESSAGES: u32 = 400;

/// Sends numbered messages to one user, then one by one to another until nothing is on its way
/// any more. The answer is what each of the two got, as numbers.
fn talk(stand_in: &StandIn) -> (Vec<String>, Vec<String>) {
    let (mut from, _) = login(stand_in);
    let ((mut to, jid), (mut other, _)) = (login(stand_in), login(stand_in));
    let message = |n: u32| format!("<message to='{jid}'><body>{n:04}</body></message>");
    let all: String = (0..MESSAGES).map(message).collect();
    from.say(&all);
    let mut got = [Vec::new(), Vec::new()];
    // What is sent by `send` (no body) is not subject to faults: it comes behind all else.
    for (client, got) in [&mut to, &mut other].into_iter().zip(&mut got) {
        flush(&mut from, client, stand_in, got);
    }
    let [to, other] = got;
    (to, other)
}

fn flush(from: &mut Client, to: &mut Client, stand_in: &StandIn, got: &mut Vec<String>) {
    let wait = Instant::now();
    while stand_in.report().messages < u64::from(MESSAGES) {
        assert!(wait.elapsed() < super::support::PATIENCE);
        std::thread::yield_now();
    }
    // A ping to itself comes back behind what was written before.
    let _ = from;
    to.say("<iq type='get' id='last'><ping xmlns='urn:xmpp:ping'/></iq>");
    let heard = to.hear("id='last'></iq>");
    for message in heard
        .split("</message>")
        .filter(|part| part.contains("<body>"))
    {
        got.push(between(message, "<body>", "</body>").to_owned());
    }
}

fn numbers() -> impl Iterator<Item = String> {
    (0..MESSAGES).map(|n| format!("{n:04}"))
}

#[test]
fn without_faults_nothing_happens() {
    let stand_in = StandIn::start("c2s", &["--seed=3"]);
    let (got, other) = talk(&stand_in);
    assert_eq!(got, numbers().collect::<Vec<_>>());
    assert_eq!(other.len(), 0);
}

#[test]
fn lost_and_doubled_messages_are_as_many_as_are_told() {
    let stand_in = StandIn::start("c2s", &["--lose=0.1", "--double=0.2"]);
    let (got, other) = talk(&stand_in);
    let mut times = HashMap::new();
    for number in &got {
        *times.entry(number.clone()).or_insert(0) += 1;
    }
    let came = |count| {
        let times = numbers().map(|number| times.get(&number).copied().unwrap_or(0));
        times.filter(|times| *times == count).count() as u64
    };
    let report = stand_in.report();
    assert_eq!((came(0), came(2)), (report.lost, report.doubled));
    assert_eq!(report.delivered, got.len() as u64);
    assert!(
        report.lost.abs_diff(40) < 35 && report.doubled.abs_diff(80) < 45,
        "{report:?}"
    );
    assert!(got.is_sorted() && other.is_empty());
}

#[test]
fn a_swapped_message_comes_right_behind_the_next() {
    let stand_in = StandIn::start("c2s", &["--swap=0.3"]);
    let (got, _) = talk(&stand_in);
    let back = got.windows(2).filter(|pair| pair[1] < pair[0]);
    let report = stand_in.report();
    assert_eq!(back.count() as u64, report.swapped);
    assert!(report.swapped > 50);
    // The last may wait for one that overtakes it.
    assert!(got.len() + 1 >= MESSAGES as usize);
}

/// And if none overtakes it, it comes all the same.
#[test]
fn who_is_overtaken_by_nobody_comes_late() {
    let stand_in = StandIn::start("c2s", &["--swap=1"]);
    let (mut romeo, jid) = login(&stand_in);
    romeo.say(&format!("<message to='{jid}'><body>x</body></message>"));
    romeo.hear("<body>x</body>");
    assert_eq!(stand_in.report().swapped, 0);
}

#[test]
fn damaged_messages_differ_and_others_do_not() {
    let stand_in = StandIn::start("c2s", &["--damage=0.2"]);
    let (got, _) = talk(&stand_in);
    let differ = got.iter().zip(numbers()).filter(|(got, sent)| *got != sent);
    let report = stand_in.report();
    assert_eq!(differ.count() as u64, report.damaged);
    assert!(got.len() == MESSAGES as usize && report.damaged > 40);
}

#[test]
fn misdelivered_messages_reach_somebody_else() {
    let stand_in = StandIn::start("c2s", &["--misdeliver=0.2"]);
    let (got, other) = talk(&stand_in);
    let report = stand_in.report();
    assert_eq!(report.misdelivered, u64::from(MESSAGES) - got.len() as u64);
    // The sender is one of the two others.
    assert!(!other.is_empty() && other.len() as u64 <= report.misdelivered);
    assert!(other.iter().all(|number| !got.contains(number)));
}

#[test]
fn a_delay_delays_and_keeps_the_order() {
    let stand_in = StandIn::start("c2s", &["--delay=100ms"]);
    let ((mut romeo, _), (mut juliet, jid)) = (login(&stand_in), login(&stand_in));
    let sent = Instant::now();
    for n in 0..10 {
        romeo.say(&format!("<message to='{jid}'><body>{n}</body></message>"));
    }
    for n in 0..10 {
        juliet.hear(&format!("<body>{n}</body>"));
        assert!(sent.elapsed() >= Duration::from_millis(100));
    }
    assert_eq!(stand_in.report().delayed, 10);
}

#[test]
fn refused_logins_are_told_and_counted_by_condition() {
    let stand_in = StandIn::start("c2s", &["--refuse=1"]);
    let mut client = Client::connect(stand_in.address);
    client.say("<stream:stream to='d'>");
    client.hear("</stream:features>");
    let mut counted = std::collections::BTreeMap::new();
    for _ in 0..20 {
        client.say("<auth mechanism='ANONYMOUS'/>");
        let failure = client.hear("</failure>");
        let condition = between(&failure, "xmpp-sasl'><", "/>").to_owned();
        *counted.entry(condition).or_insert(0) += 1;
    }
    assert_eq!(counted.len(), 2, "{counted:?}");
    assert_eq!(stand_in.report().refused, counted);
}

#[test]
fn a_stall_holds_what_comes_meanwhile() {
    let stall = ["--stall=300ms", "--stall-every=400ms"];
    let stand_in = StandIn::start("c2s", &stall);
    let (mut romeo, jid) = login(&stand_in);
    let (begin, mut longest) = (Instant::now(), Duration::ZERO);
    while begin.elapsed() < Duration::from_millis(900) {
        let asked = Instant::now();
        romeo.say(&format!("<message to='{jid}'><body>x</body></message>"));
        romeo.hear("</message>");
        longest = longest.max(asked.elapsed());
    }
    // It was waiting when the stall began, or was sent right into it.
    assert!(longest >= Duration::from_millis(200), "{longest:?}");
    assert!(stand_in.report().stalls >= 2);
}
