//! The ledger against a network that does each kind of harm a known number of times.

use proptest::prelude::*;

use super::*;

/// What the network does to one message.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Delivered,
    Lost,
    /// Delivered, and again when this many later messages have been.
    Doubled(usize),
    /// Delivered when this many later messages have been.
    Delayed(usize),
    /// One byte of the text, counted from its end, is another.
    Damaged(usize),
    /// Delivered to another user.
    Misdelivered,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        10 => Just(Fate::Delivered),
        2 => Just(Fate::Lost),
        2 => (0..100usize).prop_map(Fate::Doubled),
        2 => (1..100usize).prop_map(Fate::Delayed),
        2 => (0..SIZE).prop_map(Fate::Damaged),
        2 => Just(Fate::Misdelivered),
    ]
}

const SIZE: usize = 100;
const USERS: u32 = 4;

/// One that is on its way: when it arrives (in messages sent), where, and as what.
#[derive(Debug)]
struct Packet {
    at: usize,
    to: u32,
    body: String,
    conversation: u32,
    /// Which message it is, of all.
    number: usize,
    fate: Fate,
}

proptest! {
    #[test]
    fn every_harm_is_counted_once(
        fates in prop::collection::vec((0..3usize, fate()), 0..300),
        first: u32,
    ) {
        let mut ledger = Ledger::new(SIZE, first);
        let ids = [ledger.begin(0, 1), ledger.begin(1, 0), ledger.begin(2, 1)];
        let mut packets = send(&mut ledger, &ids, &fates);
        packets.sort_by_key(|packet| packet.at);
        let mut expected = Counts {
            sent: fates.len() as u64,
            unseen: fates.iter().filter(|(_, fate)| *fate == Fate::Lost).count() as u64,
            ..Counts::default()
        };
        let mut seen: Vec<(u32, usize)> = Vec::new();
        for packet in &packets {
            let verdict = ledger.arrive(packet.to, &packet.body);
            let again = seen.contains(&(packet.conversation, packet.number));
            let late = seen.iter().any(|(conversation, number)| {
                *conversation == packet.conversation && *number > packet.number
            });
            match packet.fate {
                Fate::Damaged(_) | Fate::Misdelivered => {
                    prop_assert!(matches!(verdict, Verdict::Damaged(_)));
                    expected.damaged += 1;
                }
                _ if again => {
                    prop_assert!(matches!(verdict, Verdict::Doubled(_)));
                    expected.doubled += 1;
                }
                _ if late => {
                    prop_assert!(matches!(verdict, Verdict::Disordered(_)));
                    expected.disordered += 1;
                }
                _ => {
                    let due = packet.number as u64;
                    prop_assert!(matches!(verdict, Verdict::Whole(stamp) if stamp.due == due));
                    expected.arrived += 1;
                }
            }
            // A message whose stamp cannot be read passes no other, nor one that somebody else got.
            let elsewhere = packet.fate == Fate::Misdelivered;
            if !elsewhere && !matches!(verdict, Verdict::Damaged(None)) {
                seen.push((packet.conversation, packet.number));
            }
        }
        prop_assert_eq!(ledger.counts(), expected);
    }
}

fn send(ledger: &mut Ledger, ids: &[u32; 3], fates: &[(usize, Fate)]) -> Vec<Packet> {
    let mut packets = Vec::new();
    for (number, (talk, fate)) in fates.iter().enumerate() {
        let conversation = ids[*talk];
        let mut packet = |at, to, body: String| {
            packets.push(Packet {
                at,
                to,
                body,
                conversation,
                number,
                fate: *fate,
            });
        };
        let body = ledger.send(conversation, number as u64).to_owned();
        let to = ledger.receiver(conversation);
        match *fate {
            Fate::Delivered => packet(number, to, body),
            Fate::Lost => {}
            Fate::Doubled(later) => {
                packet(number, to, body.clone());
                packet(number + later, to, body);
            }
            Fate::Delayed(later) => packet(number + later, to, body),
            Fate::Misdelivered => packet(number, (to + 1) % USERS, body),
            Fate::Damaged(place) => {
                let mut bytes = body.into_bytes();
                let place = bytes.len() - 1 - place.min(bytes.len() - 1);
                bytes[place] = if bytes[place] == b'#' { b'!' } else { b'#' };
                packet(number, to, String::from_utf8(bytes).expect("ASCII"));
            }
        }
    }
    packets
}

#[test]
fn all_is_well_where_nothing_happens() {
    let mut ledger = Ledger::new(64, 0);
    let conversation = ledger.begin(5, 6);
    for due in 0..1000 {
        let body = ledger.send(conversation, due).to_owned();
        assert!(matches!(ledger.arrive(6, &body), Verdict::Whole(stamp) if stamp.from == 5));
    }
    assert_eq!(
        ledger.counts(),
        Counts {
            sent: 1000,
            arrived: 1000,
            ..Counts::default()
        }
    );
}

#[test]
fn what_an_earlier_ledger_sent_is_stale() {
    let mut before = Ledger::new(64, u32::MAX);
    let conversation = before.begin(0, 1);
    let body = before.send(conversation, 0).to_owned();
    let mut after = Ledger::new(64, before.end());
    after.begin(0, 1);
    assert_eq!(after.arrive(1, &body), Verdict::Stale);
    assert_eq!(
        after.counts(),
        Counts {
            stale: 1,
            ..Counts::default()
        }
    );
}

#[test]
fn what_nobody_has_sent_is_damaged() {
    let mut other = Ledger::new(64, 0);
    let conversation = other.begin(0, 1);
    let body = other.send(conversation, 0).to_owned();
    let mut ledger = Ledger::new(64, 0);
    assert_eq!(ledger.arrive(1, &body), Verdict::Damaged(None));
    ledger.begin(0, 1);
    assert_eq!(ledger.arrive(1, &body), Verdict::Damaged(None));
    assert_eq!(ledger.arrive(1, "who is there?"), Verdict::Damaged(None));
    assert_eq!(ledger.counts().damaged, 3);
    assert_eq!(ledger.counts().unseen, 0);
}

/// Who got it wrongly may be looked at before who is to get those before it.
#[test]
fn a_misdelivered_message_says_nothing_of_the_order_of_others() {
    let mut ledger = Ledger::new(SIZE, 0);
    let id = ledger.begin(0, 1);
    let sent: Vec<_> = (0..4).map(|due| ledger.send(id, due).to_owned()).collect();
    assert!(matches!(
        ledger.arrive(2, &sent[1]),
        Verdict::Damaged(Some(_))
    ));
    assert!(matches!(ledger.arrive(1, &sent[0]), Verdict::Whole(_)));
    assert!(matches!(ledger.arrive(1, &sent[2]), Verdict::Whole(_)));
    // It comes to both: once is once too often.
    assert!(matches!(
        ledger.arrive(2, &sent[3]),
        Verdict::Damaged(Some(_))
    ));
    assert!(matches!(ledger.arrive(1, &sent[3]), Verdict::Doubled(_)));
    assert!(matches!(ledger.arrive(1, &sent[1]), Verdict::Doubled(_)));
    let counts = ledger.counts();
    assert_eq!((counts.sent, counts.arrived, counts.damaged), (4, 2, 2));
    assert_eq!(
        (counts.doubled, counts.disordered, counts.unseen),
        (2, 0, 0)
    );
}
