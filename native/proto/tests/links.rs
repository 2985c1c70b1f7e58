//! One end of a link that is up: what it lets through, what breaks it and how.

use megaphone_proto::conn::Conn;
use megaphone_proto::control::{CloseReason, Control, ErrorCode};
use megaphone_proto::credit::{CreditError, RecvWindow, SendCredit};
use megaphone_proto::frame::{ConnectionId, put_frame};
use megaphone_proto::handshake::{Handshake, Identity, Step};
use megaphone_proto::limits::{ACK_EVERY, CONTROL_LINE_MAX, EXCERPT_MAX, HEAD_LEN};
use megaphone_proto::{Event, Link, LinkConfig, LinkError, Role};
use proptest::collection::vec;
use proptest::prelude::*;

const HELLO: &str = "hello version=2 name=e nonce=00 window=100 max_frame=4096";
const ANSWER: &str = "hello version=2 name=n nonce=01 window=200 max_frame=5000 link=7";

fn id(number: u64) -> ConnectionId {
    ConnectionId::new(number)
}

/// One side from its first byte on.
#[derive(Clone)]
enum Side {
    Greeting(Box<Handshake>),
    Up(Box<Link>),
}

impl Side {
    fn new(config: LinkConfig) -> Side {
        Side::Greeting(Box::new(Handshake::new(config)))
    }

    /// The link of a side that is up.
    fn link(&self) -> &Link {
        match self {
            Side::Up(link) => link,
            Side::Greeting(_) => panic!("not up"),
        }
    }

    /// Gives `input` to this side and `tell`s its events.
    fn hear(&mut self, mut input: &[u8], mut tell: impl FnMut(Event<'_>)) -> Result<(), LinkError> {
        while let Side::Greeting(handshake) = self {
            match handshake.next(&mut input)? {
                None => return Ok(()),
                Some(Step::Hello) => {
                    handshake.answer(Identity {
                        link: "7".into(),
                        token: "00".into(),
                        resumed: None,
                    });
                }
                Some(Step::Up { .. }) => *self = Side::Up(Box::new(handshake.clone().finish())),
            }
        }
        if let Side::Up(link) = self {
            while let Some(event) = link.next(&mut input)? {
                tell(event);
            }
        }
        assert!(input.is_empty());
        Ok(())
    }
}

fn node() -> Side {
    Side::new(LinkConfig::new(Role::Node, "n", "01"))
}

fn edge() -> Side {
    Side::new(LinkConfig::new(Role::Edge, "e", "00"))
}

fn strict_node() -> Side {
    Side::new(LinkConfig {
        allow_v1: false,
        ..LinkConfig::new(Role::Node, "n", "01")
    })
}

fn edge_v1() -> Side {
    Side::new(LinkConfig {
        version: 1,
        ..LinkConfig::new(Role::Edge, "e", "00")
    })
}

fn frame(number: u64, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_frame(id(number), content, &mut out);
    out
}

/// Control messages in one frame.
fn lines(lines: &[&str]) -> Vec<u8> {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    frame(0, text.as_bytes())
}

/// Gives `stream` to a side in pieces of `size` bytes and shows each event as text, with
/// neighbouring content of one connection put together.
fn told(side: &mut Side, stream: &[u8], size: usize) -> Result<Vec<String>, LinkError> {
    let mut told: Vec<String> = Vec::new();
    let mut last = None;
    for piece in stream.chunks(size) {
        side.hear(piece, |event| {
            let Event::Content { id, bytes } = event else {
                told.push(format!("{event:?}"));
                last = None;
                return;
            };
            let text = bytes.escape_ascii().to_string();
            match told.last_mut() {
                Some(before) if last == Some(id) => before.push_str(&text),
                _ => told.push(format!("{}: {text}", id.get())),
            }
            last = Some(id);
        })?;
    }
    Ok(told)
}

/// The same however the stream is cut.
fn hear(side: &Side, stream: &[u8]) -> Result<Vec<String>, LinkError> {
    let whole = told(&mut side.clone(), stream, usize::MAX);
    for size in [1, 2, 31, 32, 33] {
        assert_eq!(told(&mut side.clone(), stream, size), whole, "by {size}");
    }
    whole
}

fn sentence(side: &Side, stream: &[u8]) -> String {
    hear(side, stream).unwrap_err().to_string()
}

/// A side of version 2 that is up.
fn up(mut side: Side) -> Side {
    let hello = match &side {
        Side::Greeting(handshake) if handshake.hello().is_none() => lines(&[HELLO]),
        _ => lines(&[ANSWER]),
    };
    assert_eq!(told(&mut side, &hello, usize::MAX), Ok(vec![]));
    side
}

#[test]
fn connections_get_the_windows_of_the_hellos() {
    let side = up(edge());
    let conn = Conn::new(SendCredit::new(200), RecvWindow::new(16_384));
    assert_eq!(side.link().new_conn(), conn);
    assert_eq!(side.link().max_content_to_send(), 5_000);
    let mut side = edge_v1();
    side.hear(b"", |_| ()).unwrap();
    let unlimited = Conn::new(SendCredit::unlimited(), RecvWindow::unlimited());
    assert_eq!(side.link().new_conn(), unlimited);
    assert_eq!(side.link().max_content_to_send(), 65_536);
    let huge = ANSWER.replace("=5000", "=4294967263");
    let mut side = edge();
    told(&mut side, &lines(&[&huge]), 9).unwrap();
    assert_eq!(side.link().max_content_to_send(), 65_536);
}

#[test]
fn any_other_first_frame_makes_version_1() {
    let stream = [frame(24, b"<body/>"), frame(24, b""), frame(9, b"x")].concat();
    assert_eq!(
        hear(&node(), &stream).unwrap(),
        ["24: <body/>", "End { id: ConnectionId(24) }", "9: x"]
    );
    assert_eq!(
        hear(&node(), &frame(24, b"")).unwrap(),
        ["End { id: ConnectionId(24) }"]
    );
}

#[test]
fn connection_0_stays_closed_in_version_1() {
    for content in [&b"ping x\n"[..], b""] {
        let stream = [frame(24, b"x"), frame(0, content)].concat();
        let error = hear(&node(), &stream).unwrap_err();
        assert_eq!(error, LinkError::ControlInV1);
        assert_eq!(error.code(), ErrorCode::ProtocolError);
    }
}

#[test]
fn only_one_hello() {
    let error = hear(&up(node()), &lines(&[HELLO])).unwrap_err();
    assert_eq!(error.to_string(), "a second hello");
}

#[test]
fn messages_become_events() {
    let stream = [
        lines(&[
            "open 24 service=http peer=192.0.2.1:50000 local=[::1]:5280",
            "window 24 100",
        ]),
        frame(24, b"GET "),
        lines(&["ping p", "pong q"]),
        frame(24, b"/"),
        lines(&[
            "ack 99",
            "auth proof=00",
            "goaway reason=shutdown retry_after=9 within=5",
        ]),
        frame(24, b""),
        lines(&["close 24 reason=normal", "reset 25 reason=limit", "sing"]),
        lines(&["error code=teapot text=a%0Ab"]),
    ]
    .concat();
    assert_eq!(
        hear(&up(node()), &stream).unwrap(),
        [
            "Open(Open { id: ConnectionId(24), service: \"http\", peer: 192.0.2.1:50000, \
             local: [::1]:5280, tls: None })",
            "Window { id: ConnectionId(24), bytes: 100 }",
            "24: GET ",
            "Ping { word: \"p\" }",
            "Pong { word: \"q\" }",
            "24: /",
            "Ack { bytes: 99 }",
            "Goaway { reason: Shutdown, retry_after: Some(9), within: Some(5) }",
            "End { id: ConnectionId(24) }",
            "Close { id: ConnectionId(24), reason: Normal }",
            "Reset { id: ConnectionId(25), reason: Limit }",
            "PeerError { code: Unknown, text: \"a\\nb\" }",
        ]
    );
}

#[test]
fn a_message_may_be_cut_by_frames_and_content_come_between() {
    let stream = [
        frame(0, b"pi"),
        frame(24, b"x"),
        frame(0, b"ng a\nping b\npi"),
        frame(0, b"ng c\n"),
    ]
    .concat();
    let told = hear(&up(node()), &stream).unwrap();
    let pings = ["a", "b", "c"].map(|word| format!("Ping {{ word: \"{word}\" }}"));
    assert_eq!(told[0], "24: x");
    assert_eq!(told[1..], pings);
}

#[test]
fn unknown_verbs_are_counted() {
    let mut node = up(node());
    let stream = lines(&["sing", "dance x=1", "ping x", "sing"]);
    assert_eq!(told(&mut node, &stream, 50).unwrap().len(), 1);
    assert_eq!(node.link().unknown_verbs(), 3);
}

#[test]
fn an_edge_is_told_no_opens_and_asked_for_no_proof() {
    for (line, verb) in [
        (
            "open 24 service=http peer=192.0.2.1:1 local=[::1]:2",
            "open",
        ),
        ("auth proof=00", "auth"),
    ] {
        assert_eq!(
            sentence(&up(edge()), &lines(&[line])),
            format!("`{verb}` from the side that must not send it")
        );
    }
}

#[test]
fn garbage_is_shown_escaped_and_cut() {
    let garbage = "\u{1b}[31m\0ä\t\"".repeat(50);
    let error = hear(&up(node()), &lines(&[&garbage])).unwrap_err();
    let shown = garbage.as_bytes()[..EXCERPT_MAX].escape_ascii();
    assert_eq!(
        error.to_string(),
        format!("control message \"{shown}...\": not printable ASCII at offset 0")
    );
    assert!(
        error
            .to_string()
            .bytes()
            .all(|byte| (b' '..=b'~').contains(&byte))
    );
    let text = error.to_string();
    let code = ErrorCode::ProtocolError;
    assert_eq!(error.to_control(), Control::Error { code, text });
}

#[test]
fn a_line_of_the_full_length_holds_and_one_byte_more_does_not() {
    let line = |length: usize| format!("sing {}\n", "x".repeat(length - "sing \n".len()));
    let full = frame(0, line(CONTROL_LINE_MAX).as_bytes());
    let over = frame(0, line(CONTROL_LINE_MAX + 1).as_bytes());
    let endless = frame(0, &vec![b'x'; 3 * CONTROL_LINE_MAX]);
    let node = up(node());
    assert_eq!(hear(&node, &full), Ok(vec![]));
    let shown = format!("sing {}...", "x".repeat(EXCERPT_MAX - "sing ".len()));
    assert_eq!(
        sentence(&node, &over),
        format!("control message \"{shown}\": longer than 4096 bytes")
    );
    let shown = "x".repeat(EXCERPT_MAX);
    assert_eq!(
        sentence(&node, &endless),
        format!("control message \"{shown}...\": longer than 4096 bytes")
    );
}

#[test]
fn the_control_channel_has_no_end() {
    let error = hear(&up(node()), &frame(0, b"")).unwrap_err();
    assert_eq!(error, LinkError::ControlEnd);
}

#[test]
fn an_error_is_for_ever_and_what_came_before_it_is_not_lost() {
    let mut node = up(node());
    let mut stream = frame(24, b"x");
    stream.extend(b"nonsense nonsense nonsense nonsense");
    let mut told = Vec::new();
    let error = node.hear(&stream, |event| told.push(format!("{event:?}")));
    let error = error.unwrap_err();
    assert_eq!(told, ["Content { id: ConnectionId(24), bytes: [120] }"]);
    assert_eq!(error.code(), ErrorCode::FrameError);
    assert_eq!(node.hear(&frame(24, b"x"), |_| ()), Err(error));
}

#[test]
fn an_end_between_frames_is_clean_and_any_other_is_not() {
    let end = |stream: &[u8]| {
        let mut node = up(node());
        told(&mut node, stream, usize::MAX).unwrap();
        let end = node.link().end_of_input();
        assert_eq!(node.link().mid_frame(), end.is_err());
        end.map_err(|error| error.to_string())
    };
    assert_eq!(end(b""), Ok(()));
    let content = frame(24, b"hello");
    assert_eq!(end(&content), Ok(()));
    let inside = |place: &str| Err(format!("the link ended {place}"));
    assert_eq!(
        end(&content[..5]),
        inside("inside a frame head, after 5 of 32 bytes")
    );
    let short = |n| {
        inside(&format!(
            "inside a frame of connection {}, {n} bytes short",
            id(24)
        ))
    };
    assert_eq!(end(&content[..32]), short(5));
    assert_eq!(end(&content[..36]), short(1));
    assert_eq!(end(&frame(0, b"pin")), inside("inside a control message"));
}

#[test]
fn sentences_for_those_who_keep_the_connections() {
    let overrun = LinkError::Credit {
        id: id(24),
        error: CreditError::Overrun { got: 9, left: 8 },
    };
    assert_eq!(
        overrun.to_string(),
        "connection 00000000000000000024: sent 9 bytes with a credit of 8"
    );
    assert_eq!(overrun.code(), ErrorCode::FlowControl);
}

#[test]
fn control_messages_that_the_link_sends_are_those_it_takes() {
    let reason = CloseReason::Overload;
    let id = id(24);
    let mut stream = Vec::new();
    Control::Close { id, reason }.put(&mut stream);
    Control::Reset { id, reason }.put(&mut stream);
    let mut told = Vec::new();
    let mut edge = up(edge());
    let heard = edge.hear(&stream, |event| told.push(format!("{event:?}")));
    assert_eq!(heard, Ok(()));
    let meant = [Event::Close { id, reason }, Event::Reset { id, reason }];
    assert_eq!(told, meant.map(|event| format!("{event:?}")));
}

/// A link that is kept when it drops, and its stream so far.
fn kept() -> Side {
    let mut side = Side::new(LinkConfig {
        resume_timeout: 30,
        ..LinkConfig::new(Role::Node, "n", "01")
    });
    let hello = lines(&[&format!("{HELLO} resume_timeout=20")]);
    side.hear(&hello, |_| ()).unwrap();
    side
}

fn hears(link: &mut Link, mut input: &[u8]) {
    while link.next(&mut input).unwrap().is_some() {}
}

#[test]
fn an_acknowledgement_is_due_at_64_kib_and_not_a_byte_before() {
    let mut side = kept();
    let Side::Up(link) = &mut side else {
        panic!("not up");
    };
    let stream = frame(24, &vec![b'x'; ACK_EVERY as usize - HEAD_LEN]);
    let (most, last) = stream.split_at(stream.len() - 1);
    for round in 1..=3 {
        hears(link, most);
        assert_eq!(link.ack(), None);
        hears(link, last);
        let bytes = round * ACK_EVERY;
        assert_eq!(link.ack(), Some(Control::Ack { bytes }));
        assert_eq!((link.ack(), link.ack_tick()), (None, None));
    }
}

#[test]
fn each_second_acknowledges_what_came_but_not_acknowledgements_alone() {
    let mut side = kept();
    let Side::Up(link) = &mut side else {
        panic!("not up");
    };
    assert_eq!(link.ack_tick(), None);
    hears(link, &lines(&["ack 0"]));
    assert_eq!(link.ack_tick(), None);
    // Also what this side does not know, and a part of a frame.
    hears(link, &lines(&["sing"]));
    let bytes = link.received();
    assert_eq!(link.ack_tick(), Some(Control::Ack { bytes }));
    hears(link, &frame(24, b"hello")[..HEAD_LEN + 1]);
    let bytes = link.received();
    assert_eq!(
        bytes as usize,
        lines(&["ack 0"]).len() + lines(&["sing"]).len() + HEAD_LEN + 1
    );
    assert_eq!(link.ack_tick(), Some(Control::Ack { bytes }));
    assert_eq!(link.ack_tick(), None);
}

#[test]
fn nothing_is_acknowledged_on_a_link_that_is_not_kept() {
    let mut side = up(node());
    let Side::Up(link) = &mut side else {
        panic!("not up");
    };
    hears(link, &frame(24, &vec![b'x'; 60_000]));
    hears(link, &frame(24, &vec![b'x'; 60_000]));
    assert_eq!((link.ack(), link.ack_tick()), (None, None));
}

/// Streams that are nearly right: frames of nearly right lines, and some bytes changed.
fn streams() -> impl Strategy<Value = Vec<u8>> {
    let line = prop::sample::select(vec![
        HELLO,
        ANSWER,
        "open 24 service=http peer=192.0.2.1:1 local=[::1]:2",
        "window 24 100",
        "close 24 reason=normal",
        "reset 24 reason=normal",
        "ping x",
        "auth proof=00",
        "sing",
        "",
    ]);
    let control = vec(line, 0..4).prop_map(|these| lines(&these));
    let content = (0..3u64, vec(any::<u8>(), 0..40)).prop_map(|(id, bytes)| frame(id, &bytes));
    let frames = vec(prop_oneof![control, content], 0..6).prop_map(|frames| frames.concat());
    let changes = vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
    (frames, changes).prop_map(|(mut stream, changes)| {
        for (at, byte) in changes {
            if !stream.is_empty() {
                let at = at.index(stream.len());
                stream[at] = byte;
            }
        }
        stream
    })
}

proptest! {
    #[test]
    fn any_bytes_are_events_or_an_error_however_they_are_cut(
        greeted: bool,
        stream in prop_oneof![vec(any::<u8>(), 0..300), streams()],
    ) {
        for link in [node(), strict_node(), edge(), edge_v1()] {
            let _ = hear(&link, &stream);
        }
        if greeted {
            let _ = hear(&up(node()), &stream);
            let _ = hear(&up(edge()), &stream);
        }
    }
}
