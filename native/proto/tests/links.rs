//! One end of a link: which version it finds, what it lets through, what breaks it and how.

use megaphone_proto::conn::Conn;
use megaphone_proto::control::{CloseReason, Control, ErrorCode, Hello};
use megaphone_proto::credit::{CreditError, RecvWindow, SendCredit};
use megaphone_proto::frame::{ConnectionId, put_frame};
use megaphone_proto::limits::{CONTROL_LINE_MAX, EXCERPT_MAX};
use megaphone_proto::{Event, Link, LinkConfig, LinkError, Role};
use proptest::collection::vec;
use proptest::prelude::*;

const HELLO: &str = "hello version=2 name=e nonce=00 window=100 max_frame=4096";
const ANSWER: &str = "hello version=2 name=n nonce=01 window=200 max_frame=5000 link=7";

fn id(number: u64) -> ConnectionId {
    ConnectionId::new(number)
}

fn node() -> Link {
    Link::new(LinkConfig {
        link: Some("7".into()),
        ..LinkConfig::new(Role::Node, "n", "01")
    })
}

fn edge() -> Link {
    Link::new(LinkConfig::new(Role::Edge, "e", "00"))
}

fn strict_node() -> Link {
    Link::new(LinkConfig {
        allow_v1: false,
        ..LinkConfig::new(Role::Node, "n", "01")
    })
}

fn edge_v1() -> Link {
    Link::new(LinkConfig {
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

/// Gives `stream` to the link in pieces of `size` bytes and shows each event as text, with
/// neighbouring content of one connection put together.
fn told(link: &mut Link, stream: &[u8], size: usize) -> Result<Vec<String>, LinkError> {
    let mut told: Vec<String> = Vec::new();
    let mut last = None;
    for mut piece in stream.chunks(size) {
        while let Some(event) = link.next(&mut piece)? {
            let Event::Content { id, bytes } = event else {
                told.push(format!("{event:?}"));
                last = None;
                continue;
            };
            let text = bytes.escape_ascii().to_string();
            match told.last_mut() {
                Some(before) if last == Some(id) => before.push_str(&text),
                _ => told.push(format!("{}: {text}", id.get())),
            }
            last = Some(id);
        }
        assert!(piece.is_empty());
    }
    Ok(told)
}

/// The same however the stream is cut.
fn hear(link: &Link, stream: &[u8]) -> Result<Vec<String>, LinkError> {
    let whole = told(&mut link.clone(), stream, usize::MAX);
    for size in [1, 2, 31, 32, 33] {
        assert_eq!(told(&mut link.clone(), stream, size), whole, "by {size}");
    }
    whole
}

fn sentence(link: &Link, stream: &[u8]) -> String {
    hear(link, stream).unwrap_err().to_string()
}

fn up(mut link: Link) -> Link {
    let hello = match link.hello() {
        Control::Hello(Hello { link: Some(_), .. }) => lines(&[HELLO]),
        _ => lines(&[ANSWER]),
    };
    assert_eq!(
        link.next(&mut &hello[..]),
        Ok(Some(Event::Up { version: 2 }))
    );
    link
}

#[test]
fn a_hello_makes_version_2_on_both_sides() {
    let mut node = node();
    assert_eq!((node.version(), node.peer()), (None, None));
    let mut edge = edge();
    let hello = edge.hello().to_frame();
    assert_eq!(
        node.next(&mut &hello[..]),
        Ok(Some(Event::Up { version: 2 }))
    );
    assert_eq!(node.version(), Some(2));
    assert_eq!(node.peer().map(|peer| &*peer.name), Some("e"));
    let answer = node.hello().to_frame();
    assert_eq!(
        edge.next(&mut &answer[..]),
        Ok(Some(Event::Up { version: 2 }))
    );
    assert_eq!(edge.version(), Some(2));
    let link = edge.peer().and_then(|peer| peer.link.as_deref());
    assert_eq!(link, Some("7"));
}

#[test]
fn connections_get_the_windows_of_the_hellos() {
    let edge = up(edge());
    let conn = Conn::new(SendCredit::new(200), RecvWindow::new(16_384));
    assert_eq!(edge.new_conn(), conn);
    assert_eq!(edge.max_content_to_send(), 5_000);
    let unlimited = Conn::new(SendCredit::unlimited(), RecvWindow::unlimited());
    assert_eq!(edge_v1().new_conn(), unlimited);
    assert_eq!(edge_v1().max_content_to_send(), 65_536);
    let huge = ANSWER.replace("=5000", "=4294967263");
    let mut edge = Link::new(LinkConfig::new(Role::Edge, "e", "00"));
    told(&mut edge, &lines(&[&huge]), 9).unwrap();
    assert_eq!(edge.max_content_to_send(), 65_536);
}

#[test]
fn any_other_first_frame_makes_version_1() {
    let stream = [frame(24, b"<body/>"), frame(24, b""), frame(9, b"x")].concat();
    assert_eq!(
        hear(&node(), &stream).unwrap(),
        [
            "Up { version: 1 }",
            "24: <body/>",
            "End { id: ConnectionId(24) }",
            "9: x"
        ]
    );
    assert_eq!(
        hear(&node(), &frame(24, b"")).unwrap(),
        ["Up { version: 1 }", "End { id: ConnectionId(24) }"]
    );
}

#[test]
fn version_1_is_known_from_the_first_head_alone() {
    let head = &frame(24, b"x")[..32];
    let mut node = node();
    assert_eq!(told(&mut node, head, 32).unwrap(), ["Up { version: 1 }"]);
    assert!(node.mid_frame());
    assert_eq!(told(&mut node, b"x", 1).unwrap(), ["24: x"]);
    let sentence = sentence(&strict_node(), head);
    assert_eq!(
        sentence,
        "version 1 link, which is not allowed here: the first frame is on connection \
         00000000000000000024"
    );
}

#[test]
fn an_edge_of_version_1_is_up_before_anything_came() {
    let mut edge = edge_v1();
    assert_eq!(edge.version(), Some(1));
    assert_eq!(edge.next(&mut &[][..]), Ok(Some(Event::Up { version: 1 })));
    assert_eq!(edge.next(&mut &[][..]), Ok(None));
    assert_eq!(told(&mut edge, &frame(24, b"x"), 7).unwrap(), ["24: x"]);
    let control = sentence(&edge, &lines(&[ANSWER]));
    assert_eq!(control, "frame on connection 0 of a version 1 link");
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
fn a_newer_hello_is_taken_as_version_2() {
    let newer = HELLO.replace("version=2", "version=4294967295");
    let mut node = node();
    let stream = lines(&[&newer, "ping x"]);
    assert_eq!(told(&mut node, &stream, 100).unwrap().len(), 2);
    assert_eq!(node.version(), Some(2));
    assert!(matches!(
        node.hello(),
        Control::Hello(Hello { version: 2, .. })
    ));
}

#[test]
fn an_older_hello_or_an_answer_of_another_version_is_refused() {
    for (link, line, version) in [
        (node(), HELLO.replace("version=2", "version=1"), 1),
        (node(), HELLO.replace("version=2", "version=0"), 0),
        (edge(), ANSWER.replace("version=2", "version=1"), 1),
        (edge(), ANSWER.replace("version=2", "version=3"), 3),
    ] {
        let error = hear(&link, &lines(&[&line])).unwrap_err();
        let sentence = format!("hello of version {version}, which is not spoken here");
        assert_eq!(error.to_string(), sentence);
        assert_eq!(error.code(), ErrorCode::Version);
    }
}

#[test]
fn nothing_comes_before_the_hello() {
    let before = "control message \"ping x\" before the hello";
    assert_eq!(sentence(&node(), &lines(&["ping x", HELLO])), before);
    assert_eq!(sentence(&edge(), &lines(&["ping x", ANSWER])), before);
    let unknown = "control message \"sing\" before the hello";
    assert_eq!(sentence(&node(), &lines(&["sing", HELLO])), unknown);
    let content = "frame on connection 00000000000000000024 before the hello";
    assert_eq!(sentence(&edge(), &frame(24, b"x")), content);
    let inside = [frame(0, b"hello vers"), frame(24, b"x")].concat();
    assert_eq!(sentence(&node(), &inside), content);
    assert_eq!(sentence(&edge(), &lines(&[HELLO])), "hello without link=");
    assert_eq!(
        sentence(&node(), &frame(0, b"")),
        "empty frame on connection 0"
    );
}

#[test]
fn only_one_hello() {
    let error = hear(&node(), &lines(&[HELLO, HELLO])).unwrap_err();
    assert_eq!(error.to_string(), "a second hello");
}

#[test]
fn messages_become_events() {
    let stream = [
        lines(&[
            HELLO,
            "open 24 service=http peer=192.0.2.1:50000 local=[::1]:5280",
            "window 24 100",
        ]),
        frame(24, b"GET "),
        lines(&["ping p", "pong q"]),
        frame(24, b"/"),
        lines(&[
            "ack 99",
            "auth proof=00",
            "goaway reason=shutdown retry_after=9",
        ]),
        frame(24, b""),
        lines(&["close 24 reason=normal", "reset 25 reason=limit", "sing"]),
        lines(&["error code=teapot text=a%0Ab"]),
    ]
    .concat();
    let node = node();
    assert_eq!(
        hear(&node, &stream).unwrap(),
        [
            "Up { version: 2 }",
            "Open(Open { id: ConnectionId(24), service: \"http\", peer: 192.0.2.1:50000, \
             local: [::1]:5280, tls: None })",
            "Window { id: ConnectionId(24), bytes: 100 }",
            "24: GET ",
            "Ping { word: \"p\" }",
            "Pong { word: \"q\" }",
            "24: /",
            "Ack { bytes: 99 }",
            "Goaway { reason: Shutdown, retry_after: Some(9), within: None }",
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
        lines(&[HELLO]),
        frame(0, b"pi"),
        frame(24, b"x"),
        frame(0, b"ng a\nping b\npi"),
        frame(0, b"ng c\n"),
    ]
    .concat();
    let told = hear(&node(), &stream).unwrap();
    let pings = ["a", "b", "c"].map(|word| format!("Ping {{ word: \"{word}\" }}"));
    assert_eq!(told[1], "24: x");
    assert_eq!(told[2..], pings);
}

#[test]
fn unknown_verbs_are_counted() {
    let mut node = node();
    let stream = lines(&[HELLO, "sing", "dance x=1", "ping x", "sing"]);
    assert_eq!(told(&mut node, &stream, 50).unwrap().len(), 2);
    assert_eq!(node.unknown_verbs(), 3);
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
    let mut input = &stream[..];
    assert!(matches!(
        node.next(&mut input),
        Ok(Some(Event::Content { .. }))
    ));
    let error = node.next(&mut input).unwrap_err();
    assert_eq!(error.code(), ErrorCode::FrameError);
    assert_eq!(node.version(), Some(2));
    let mut good = &frame(24, b"x")[..];
    assert_eq!(node.next(&mut good), Err(error));
}

#[test]
fn errors_are_told_to_those_who_would_understand() {
    let mut http = node();
    assert!(
        http.next(&mut &b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..])
            .is_err()
    );
    assert!(!http.hears_errors());
    let mut v1 = strict_node();
    assert!(v1.next(&mut &frame(24, b"x")[..]).is_err());
    assert!(!v1.hears_errors());
    let mut v2 = node();
    assert!(v2.next(&mut &lines(&["hello version=9"])[..]).is_err());
    assert!(v2.hears_errors());
    assert!(edge().hears_errors());
    assert!(!edge_v1().hears_errors());
}

#[test]
fn an_end_between_frames_is_clean_and_any_other_is_not() {
    let end = |stream: &[u8]| {
        let mut node = up(node());
        told(&mut node, stream, usize::MAX).unwrap();
        let end = node.end_of_input();
        assert_eq!(node.mid_frame(), end.is_err());
        end.map_err(|error| error.to_string())
    };
    assert_eq!(node().end_of_input(), Ok(()));
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
    let mut input = &stream[..];
    let mut edge = up(edge());
    assert_eq!(edge.next(&mut input), Ok(Some(Event::Close { id, reason })));
    assert_eq!(edge.next(&mut input), Ok(Some(Event::Reset { id, reason })));
    assert_eq!(edge.next(&mut input), Ok(None));
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
