//! What nobody meant to send.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// What a caller does with a session.
#[derive(Debug, Clone)]
enum Step {
    Connected(bool),
    Received(bool, Vec<u8>),
    /// So many bytes of what belongs there.
    Right(bool, usize),
    Closed(bool),
    Send,
    Leave,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => any::<bool>().prop_map(Step::Connected),
        2 => (any::<bool>(), bytes()).prop_map(|(channel, bytes)| Step::Received(channel, bytes)),
        6 => (prop::bool::weighted(0.1), 1..400_usize).prop_map(|(channel, count)| Step::Right(channel, count)),
        1 => prop::bool::weighted(0.8).prop_map(Step::Closed),
        1 => Just(Step::Send),
        1 => Just(Step::Leave),
    ]
}

/// Bytes that look like something now and then.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let words = prop::sample::select(vec![
        "<a",
        "<a>",
        "</a>",
        "/>",
        "<body",
        " type='terminate'",
        "<iq id='bind' type='error'>",
        "HTTP/1.1 200 OK\r\n",
        "Transfer-Encoding: chunked\r\n",
        "\r\n",
        "ffffffffffffffff\r\n",
        "<!",
        "<![CDATA[",
        "&",
        "&#x0;",
        "='",
        "\u{81}",
        "<success>",
        "<challenge>=</challenge>",
    ]);
    let word = prop_oneof![
        words.prop_map(|word| word.as_bytes().to_vec()),
        vec(any::<u8>(), 0..20),
    ];
    vec(word, 0..12).prop_map(|words| words.concat())
}

fn channel(second: bool) -> Channel {
    if second {
        Channel::Second
    } else {
        Channel::First
    }
}

fn play(script: &Script, steps: &[Step]) {
    let (mut session, mut out) = script.begun();
    let right = script.chunks.concat();
    let mut at = 0;
    for step in steps {
        // A session that has failed is dropped.
        let result = match step {
            Step::Connected(second) => session.connected(channel(*second), &mut out),
            Step::Received(second, bytes) => {
                session.received(channel(*second), bytes, &mut out, &mut |_| ())
            }
            Step::Right(second, count) => {
                let end = (at + count).min(right.len());
                let bytes = &right[at..end];
                at = end;
                session.received(channel(*second), bytes, &mut out, &mut |_| ())
            }
            Step::Closed(second) => session.closed(channel(*second), &mut out),
            Step::Send => {
                session.send_message("x@y/z", BODY, &mut out);
                Ok(())
            }
            Step::Leave => {
                session.leave(&mut out);
                Ok(())
            }
        };
        if result.is_err() {
            return;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_done_nothing_panics(steps in vec(step(), 1..40)) {
        for script in lives() {
            play(&script, &steps);
        }
    }

    #[test]
    fn damage_anywhere_never_panics(
        at in any::<prop::sample::Index>(),
        length in 0..8_usize,
        damage in bytes(),
        size in 1..300_usize,
    ) {
        for script in lives() {
            let (mut session, mut out) = script.begun();
            let mut bytes = script.chunks.concat();
            let start = at.index(bytes.len());
            let end = (start + length).min(bytes.len());
            bytes.splice(start..end, damage.iter().copied());
            for piece in bytes.chunks(size) {
                if session.received(Channel::First, piece, &mut out, &mut |_| ()).is_err() {
                    break;
                }
            }
        }
    }
}
