//! How a link begins: versions, proofs, what is refused and in which words, and which link goes on.
//! Every stream is given whole, byte by byte and in two parts at every place.

use megaphone_proto::auth::Secret;
use megaphone_proto::control::{Control, ErrorCode, Hello};
use megaphone_proto::frame::{ConnectionId, put_frame};
use megaphone_proto::handshake::{Handshake, Identity, Step};
use megaphone_proto::limits::{CONTROL_LINE_MAX, NONCE_MIN};
use megaphone_proto::link::{LinkConfig, Resume, Role};
use megaphone_proto::{Event, LinkError};
use proptest::collection::vec;
use proptest::prelude::*;

const HELLO: &str = "hello version=2 name=e nonce=00 window=100 max_frame=4096";
const ANSWER: &str = "hello version=2 name=n nonce=01 window=200 max_frame=5000 link=7";

fn config(role: Role) -> LinkConfig {
    let nonce = match role {
        Role::Edge => "0123456789abcdef0123456789abcdef",
        Role::Node => "fedcba9876543210fedcba9876543210",
    };
    LinkConfig::new(role, "side", nonce)
}

fn node() -> Handshake {
    Handshake::new(config(Role::Node))
}

fn edge() -> Handshake {
    Handshake::new(config(Role::Edge))
}

fn secret(text: &str) -> Option<Secret> {
    Some(Secret::new(text.as_bytes()).unwrap())
}

/// Both sides, with a secret each.
fn with_secrets(of_edge: Option<Secret>, of_node: Option<Secret>) -> (Handshake, Handshake) {
    let [edge, node] = [(Role::Edge, of_edge), (Role::Node, of_node)].map(|(role, secret)| {
        Handshake::new(LinkConfig {
            secret,
            resume_timeout: 30,
            ..config(role)
        })
    });
    (edge, node)
}

fn identity(resumed: Option<u64>) -> Identity {
    Identity {
        link: "7".into(),
        token: "00ff".into(),
        resumed,
    }
}

fn frame(number: u64, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_frame(ConnectionId::new(number), content, &mut out);
    out
}

/// A control message alone in its frame.
fn line(line: &str) -> Vec<u8> {
    frame(0, format!("{line}\n").as_bytes())
}

/// A handshake that is over: its last state, what it wrote, and what is left of the stream.
struct Over {
    handshake: Handshake,
    version: Option<u32>,
    wrote: Vec<Control>,
    rest: Vec<u8>,
}

/// Gives `pieces` to a handshake; a node answers for a fresh link.
fn give<'a>(
    handshake: &Handshake,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Over, LinkError> {
    let mut over = Over {
        handshake: handshake.clone(),
        version: None,
        wrote: Vec::new(),
        rest: Vec::new(),
    };
    for mut piece in pieces {
        while over.version.is_none() {
            match over.handshake.next(&mut piece)? {
                None => break,
                Some(Step::Hello) => over.wrote.push(over.handshake.answer(identity(None))),
                Some(Step::Up { version }) => over.version = Some(version),
            }
        }
        assert!(piece.is_empty() || over.version.is_some());
        over.rest.extend_from_slice(piece);
    }
    Ok(over)
}

/// The same however the stream is cut.
fn hear(handshake: &Handshake, stream: &[u8]) -> Result<Over, LinkError> {
    let whole = give(handshake, [stream]);
    let same = |other: Result<Over, LinkError>| match (&whole, other) {
        (Err(error), other) => assert_eq!(other.err().as_ref(), Some(error)),
        (Ok(whole), Ok(other)) => {
            assert_eq!((whole.version, &whole.wrote), (other.version, &other.wrote));
            // In version 1 the handshake's decoder may have the head's beginning.
            assert!(whole.version == Some(1) || whole.rest == other.rest);
        }
        (Ok(_), Err(error)) => panic!("{error}"),
    };
    same(give(handshake, stream.chunks(1)));
    (0..=stream.len()).for_each(|cut| {
        let (first, second) = stream.split_at(cut);
        same(give(handshake, [first, second]));
    });
    whole
}

fn refusal(handshake: &Handshake, stream: &[u8]) -> LinkError {
    match hear(handshake, stream) {
        Err(error) => error,
        Ok(over) => panic!("taken as version {:?}", over.version),
    }
}

fn sentence(handshake: &Handshake, stream: &[u8]) -> String {
    refusal(handshake, stream).to_string()
}

/// What both sides say to each other, and how it ends for each.
fn shake(edge: &Handshake, node: &Handshake) -> (Result<Over, LinkError>, Result<Over, LinkError>) {
    let mut to_node = edge.hello().unwrap().to_frame();
    let answered = hear(node, &to_node);
    let Ok(answer) = answered else {
        return (give(edge, []), answered);
    };
    let up = hear(edge, &answer.wrote[0].to_frame());
    if let Ok(up) = &up {
        to_node.extend(up.handshake.auth().iter().flat_map(Control::to_frame));
    }
    (up, hear(node, &to_node))
}

#[test]
fn two_sides_without_a_secret_are_up_at_once() {
    let (edge, node) = shake(&edge(), &node());
    let (edge, node) = (edge.unwrap(), node.unwrap());
    assert_eq!((edge.version, node.version), (Some(2), Some(2)));
    assert_eq!(edge.handshake.auth(), None);
    assert_eq!(edge.handshake.resumed(), None);
    assert_eq!(edge.handshake.resume_timeout(), 0);
    let link = edge.handshake.peer().and_then(|peer| peer.link.as_deref());
    assert_eq!(link, Some("7"));
    assert_eq!(node.handshake.peer().map(|peer| &*peer.name), Some("side"));
}

#[test]
fn two_sides_with_the_same_secret_are_up_when_both_have_proved_it() {
    let one = || secret("sixteen bytes...");
    let (edge, node) = with_secrets(one(), one());
    let (edge, node) = shake(&edge, &node);
    let (edge, node) = (edge.unwrap(), node.unwrap());
    assert_eq!((edge.version, node.version), (Some(2), Some(2)));
    assert!(matches!(edge.handshake.auth(), Some(Control::Auth { .. })));
    assert_eq!(edge.handshake.finish().resume_timeout(), 30);
    assert_eq!(node.handshake.finish().resume_timeout(), 30);
}

#[test]
fn a_node_with_a_secret_is_not_up_before_the_proof() {
    let (edge, node) = with_secrets(secret("sixteen bytes..."), secret("sixteen bytes..."));
    let hello = edge.hello().unwrap().to_frame();
    let waiting = hear(&node, &hello).unwrap();
    assert_eq!((waiting.version, waiting.wrote.len()), (None, 1));
    for (message, told) in [
        (
            "ping x",
            "control message \"ping x\" before the auth that is due",
        ),
        (
            "sing",
            "control message \"sing\" before the auth that is due",
        ),
        (
            HELLO,
            "control message \"hello version=2 name=e nonce=00 window=100 max_frame=4096\" before the auth that is due",
        ),
        (
            "auth proof=00",
            "the proof is wrong: the peer has another secret",
        ),
    ] {
        let error = refusal(&node, &[&hello[..], &line(message)].concat());
        assert_eq!(error.to_string(), told);
        assert_eq!(error.code(), ErrorCode::Auth);
    }
    let content = refusal(&node, &[&hello[..], &frame(24, b"x")].concat());
    assert_eq!(
        content.to_string(),
        "frame on connection 00000000000000000024 before the hello"
    );
}

#[test]
fn the_edge_finds_a_node_that_does_not_know_the_secret() {
    let (edge, node) = with_secrets(secret("sixteen bytes..."), secret("sixteen others.."));
    let error = shake(&edge, &node).0.err().unwrap();
    assert_eq!(
        error.to_string(),
        "the proof is wrong: the peer has another secret"
    );
    assert_eq!(error.code(), ErrorCode::Auth);
    let (edge, node) = with_secrets(secret("sixteen bytes..."), None);
    let error = shake(&edge, &node).0.err().unwrap();
    assert_eq!(
        error.to_string(),
        "ejabberd's hello has no proof that it knows the secret"
    );
}

#[test]
fn an_edge_without_the_secret_proves_nothing() {
    let (edge, node) = with_secrets(None, secret("sixteen bytes..."));
    let (edge, node) = shake(&edge, &node);
    assert_eq!(edge.unwrap().handshake.auth(), None);
    assert_eq!(node.unwrap().version, None);
}

/// What one link proved is nothing on the next: its nonces are others.
#[test]
fn a_proof_cannot_be_used_again() {
    let one = || secret("sixteen bytes...");
    let (edge, node) = with_secrets(one(), one());
    let (up, _) = shake(&edge, &node);
    let auth = up.unwrap().handshake.auth().unwrap();
    let other = Handshake::new(LinkConfig {
        secret: one(),
        ..LinkConfig::new(Role::Node, "side", "0".repeat(NONCE_MIN))
    });
    let replayed = [edge.hello().unwrap().to_frame(), auth.to_frame()].concat();
    assert_eq!(refusal(&other, &replayed).code(), ErrorCode::Auth);
    // Nor can a node be given its own proof.
    let Control::Hello(Hello { proof, .. }) = &hear(&node, &edge.hello().unwrap().to_frame())
        .unwrap()
        .wrote[0]
    else {
        panic!("no hello");
    };
    let proof = proof.clone().unwrap();
    let mirrored = [
        edge.hello().unwrap().to_frame(),
        Control::Auth { proof }.to_frame(),
    ]
    .concat();
    assert_eq!(refusal(&node, &mirrored).code(), ErrorCode::Auth);
}

#[test]
fn where_there_is_a_secret_a_nonce_has_32_digits_and_not_31() {
    let strict = Handshake::new(LinkConfig {
        secret: secret("sixteen bytes..."),
        ..config(Role::Node)
    });
    let hello =
        |digits: usize| line(&HELLO.replace("nonce=00", &format!("nonce={}", "0".repeat(digits))));
    assert_eq!(hear(&strict, &hello(NONCE_MIN)).unwrap().wrote.len(), 1);
    // Hex digits come in pairs.
    assert_eq!(
        sentence(&strict, &hello(NONCE_MIN - 2)),
        "a nonce of 30 hex digits where a secret asks for 32"
    );
    assert_eq!(hear(&node(), &hello(2)).unwrap().version, Some(2));
}

#[test]
fn a_link_goes_on_where_both_sides_say_so() {
    let asks = Handshake::new(LinkConfig {
        resume_timeout: 20,
        resume: Some(Resume {
            link: "7".into(),
            token: "00ff".into(),
            received: 99,
        }),
        ..config(Role::Edge)
    });
    let mut node = Handshake::new(LinkConfig {
        resume_timeout: 30,
        ..config(Role::Node)
    });
    let hello = asks.hello().unwrap().to_frame();
    assert_eq!(node.next(&mut &hello[..]), Ok(Some(Step::Hello)));
    let said = node.peer().unwrap();
    assert_eq!(
        (said.resume.as_deref(), said.token.as_deref(), said.received),
        (Some("7"), Some("00ff"), Some(99))
    );
    let answer = node.answer(identity(Some(1_234))).to_frame();
    assert_eq!(node.next(&mut &[][..]), Ok(Some(Step::Up { version: 2 })));
    let up = hear(&asks, &answer).unwrap();
    assert_eq!(up.handshake.resumed(), Some(1_234));
    assert_eq!(
        (up.handshake.resume_timeout(), node.resume_timeout()),
        (20, 20)
    );
    // A node that does not know the link any more says nothing of it.
    let fresh = hear(&asks, &line(ANSWER)).unwrap();
    assert_eq!(
        (fresh.handshake.resumed(), fresh.handshake.resume_timeout()),
        (None, 0)
    );
}

#[test]
fn a_node_goes_on_only_with_what_it_was_asked_for() {
    let resumed = line(&format!("{ANSWER} resumed=5"));
    let told = "hello with resumed= for a link that was not to be resumed";
    assert_eq!(sentence(&edge(), &resumed), told);
    let asks = Handshake::new(LinkConfig {
        resume: Some(Resume {
            link: "8".into(),
            token: "00ff".into(),
            received: 0,
        }),
        ..config(Role::Edge)
    });
    assert_eq!(sentence(&asks, &resumed), told);
}

#[test]
fn a_link_that_one_side_does_not_keep_has_no_token() {
    for (of_edge, of_node, token) in [(0, 30, None), (30, 0, None), (30, 30, Some("00ff"))] {
        let edge = Handshake::new(LinkConfig {
            resume_timeout: of_edge,
            ..config(Role::Edge)
        });
        let node = Handshake::new(LinkConfig {
            resume_timeout: of_node,
            ..config(Role::Node)
        });
        let edge = shake(&edge, &node).0.unwrap();
        assert_eq!(edge.handshake.peer().unwrap().token.as_deref(), token);
        assert_eq!(
            edge.handshake.finish().resume_timeout(),
            of_edge.min(of_node)
        );
    }
}

#[test]
fn any_other_first_frame_makes_version_1_from_its_head_alone() {
    let stream = frame(24, b"x");
    let up = hear(&node(), &stream[..32]).unwrap();
    assert_eq!(up.version, Some(1));
    assert!(!up.handshake.hears_errors());
    // Nothing of the frame is lost, wherever the handshake ended.
    for cut in 0..stream.len() {
        let (first, second) = stream.split_at(cut);
        let up = give(&node(), [first, second]).unwrap();
        let mut link = up.handshake.finish();
        let event = link.next(&mut &up.rest[..]);
        let id = ConnectionId::new(24);
        assert_eq!(event, Ok(Some(Event::Content { id, bytes: b"x" })), "{cut}");
    }
}

#[test]
fn version_1_is_refused_where_it_is_not_allowed_or_there_is_a_secret() {
    let told = "version 1 link, which is not allowed here: the first frame is on connection \
                00000000000000000024";
    let strict = Handshake::new(LinkConfig {
        allow_v1: false,
        ..config(Role::Node)
    });
    let secret = with_secrets(None, secret("sixteen bytes...")).1;
    for node in [strict, secret] {
        let error = refusal(&node, &frame(24, b"")[..32]);
        assert_eq!(error.to_string(), told);
        assert_eq!(error.code(), ErrorCode::Version);
    }
}

#[test]
fn an_edge_of_version_1_is_up_before_anything_came() {
    let edge = Handshake::new(LinkConfig {
        version: 1,
        ..config(Role::Edge)
    });
    assert_eq!((edge.hello(), edge.hears_errors()), (None, false));
    let up = give(&edge, [&b""[..]]).unwrap();
    assert_eq!(up.version, Some(1));
    let mut link = up.handshake.finish();
    let control = link.next(&mut &line(ANSWER)[..]).unwrap_err();
    assert_eq!(control, LinkError::ControlInV1);
}

#[test]
fn a_newer_hello_is_answered_with_version_2() {
    let newer = line(&HELLO.replace("version=2", "version=4294967295"));
    let up = hear(&node(), &newer).unwrap();
    assert_eq!(up.version, Some(2));
    assert!(matches!(
        up.wrote[0],
        Control::Hello(Hello { version: 2, .. })
    ));
}

#[test]
fn an_older_hello_or_an_answer_of_another_version_is_refused() {
    for (side, hello, version) in [
        (node(), HELLO.replace("version=2", "version=1"), 1),
        (node(), HELLO.replace("version=2", "version=0"), 0),
        (edge(), ANSWER.replace("version=2", "version=1"), 1),
        (edge(), ANSWER.replace("version=2", "version=3"), 3),
    ] {
        let error = refusal(&side, &line(&hello));
        let told = format!("hello of version {version}, which is not spoken here");
        assert_eq!(error.to_string(), told);
        assert_eq!(error.code(), ErrorCode::Version);
    }
}

#[test]
fn nothing_comes_before_the_hello() {
    for (side, hello) in [(node(), HELLO), (edge(), ANSWER)] {
        for before in ["ping x", "sing", "auth proof=00"] {
            let told = format!("control message \"{before}\" before the hello");
            let stream = [line(before), line(hello)].concat();
            assert_eq!(sentence(&side, &stream), told);
        }
        assert_eq!(
            sentence(&side, &frame(0, b"")),
            "empty frame on connection 0"
        );
    }
    let content = "frame on connection 00000000000000000024 before the hello";
    assert_eq!(sentence(&edge(), &frame(24, b"x")), content);
    let inside = [frame(0, b"hello vers"), frame(24, b"x")].concat();
    assert_eq!(sentence(&node(), &inside), content);
    assert_eq!(sentence(&edge(), &line(HELLO)), "hello without link=");
}

/// The bytes that are acknowledged are counted from the first one behind the handshake's frames.
#[test]
fn hello_and_auth_stand_alone_in_their_frames() {
    let two = frame(0, format!("{HELLO}\nping x\n").as_bytes());
    let shown = "hello version=2 name=e nonce=00 window=100 max_frame=4096";
    assert_eq!(
        sentence(&node(), &two),
        format!("control message \"{shown}\": it must be alone in its frame")
    );
    let one = || secret("sixteen bytes...");
    let (edge, node) = with_secrets(one(), one());
    let (up, _) = shake(&edge, &node);
    let auth = up.unwrap().handshake.auth().unwrap();
    let crowded = frame(0, format!("{auth}\nping x\n").as_bytes());
    let error = refusal(&node, &[edge.hello().unwrap().to_frame(), crowded].concat());
    assert!(matches!(error, LinkError::NotAlone { .. }), "{error}");
}

#[test]
fn what_follows_the_handshake_is_the_links() {
    let ping = line("ping x");
    let stream = [line(HELLO), ping.clone()].concat();
    let up = hear(&node(), &stream).unwrap();
    assert_eq!((up.version, &up.rest), (Some(2), &ping));
    let mut link = up.handshake.finish();
    assert_eq!(link.received(), 0);
    let word = "x".into();
    assert_eq!(link.next(&mut &up.rest[..]), Ok(Some(Event::Ping { word })));
    assert_eq!(link.received(), ping.len() as u64);
}

#[test]
fn a_line_of_the_full_length_holds_and_one_byte_more_does_not() {
    let padded = |length: usize| {
        let hello = format!("{HELLO} x=");
        line(&format!("{hello}{}", "x".repeat(length - hello.len() - 1)))
    };
    // Too long to be cut at every place.
    let taken = give(&node(), padded(CONTROL_LINE_MAX).chunks(1_000)).unwrap();
    assert_eq!(taken.version, Some(2));
    for size in [1, 1_000, usize::MAX] {
        let error = give(&node(), padded(CONTROL_LINE_MAX + 1).chunks(size));
        assert!(matches!(error, Err(LinkError::LineTooLong { .. })));
        let endless = frame(0, &vec![b'x'; 3 * CONTROL_LINE_MAX]);
        let error = give(&node(), endless.chunks(size));
        assert!(matches!(error, Err(LinkError::LineTooLong { .. })));
    }
}

#[test]
fn an_error_stays() {
    let mut node = node();
    let error = node.next(&mut &line("ping x")[..]).unwrap_err();
    assert_eq!(node.next(&mut &line(HELLO)[..]), Err(error));
}

#[test]
fn errors_are_told_to_those_who_would_understand() {
    let mut http = node();
    let request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert!(http.next(&mut &request[..]).is_err());
    assert!(!http.hears_errors());
    let mut old = node();
    assert!(old.next(&mut &line("hello version=9")[..]).is_err());
    assert!(old.hears_errors());
    assert!(edge().hears_errors());
}

proptest! {
    #[test]
    fn any_bytes_are_a_handshake_or_an_error_however_they_are_cut(
        bytes in vec(any::<u8>(), 0..120),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        which in 0..6usize,
    ) {
        let strict = with_secrets(secret("sixteen bytes..."), secret("sixteen bytes..."));
        let hello = strict.0.hello().unwrap().to_frame();
        let streams = [
            bytes,
            line(HELLO),
            line(ANSWER),
            [hello.clone(), line("auth proof=00")].concat(),
            [hello, frame(24, b"x")].concat(),
            frame(24, b"x"),
        ];
        let mut stream = streams[which].clone();
        for (at, byte) in changes {
            if !stream.is_empty() {
                let at = at.index(stream.len());
                stream[at] = byte;
            }
        }
        for side in [node(), edge(), strict.0, strict.1] {
            let _ = hear(&side, &stream);
        }
    }
}
