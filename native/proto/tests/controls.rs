//! Control messages: their exact lines, identity, every rule a line can break.

use std::net::SocketAddr;

use megaphone_proto::control::{CloseReason, Control, ErrorCode, Hello, Open, TlsFacts};
use megaphone_proto::frame::{ConnectionId, Head};
use megaphone_proto::limits::{
    CONTROL_LINE_MAX, ERROR_TEXT_MAX, HEAD_LEN, MAX_WINDOW, NAME_MAX, SECRET_TEXT_MAX, TOKEN_MAX,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn id(number: u64) -> ConnectionId {
    ConnectionId::new(number)
}

fn parse(line: &str) -> Control {
    Control::parse(line.as_bytes()).unwrap().unwrap()
}

fn hello() -> Hello {
    Hello {
        version: 2,
        name: "edge 1".into(),
        nonce: "00ff".into(),
        window: 16_384,
        max_frame: 65_536,
        link: None,
        resume_timeout: None,
        token: None,
        resume: None,
        received: None,
        resumed: None,
        proof: None,
    }
}

fn open() -> Open {
    Open {
        id: id(24),
        service: "http".into(),
        peer: "192.0.2.1:50000".parse().unwrap(),
        local: "[2001:db8::1]:5280".parse().unwrap(),
        tls: None,
    }
}

/// Every message, beside the exact line that stands for it.
fn golden() -> Vec<(Control, &'static str)> {
    let reason = CloseReason::Normal;
    vec![
        (
            Control::Hello(hello()),
            "hello version=2 name=edge%201 nonce=00ff window=16384 max_frame=65536",
        ),
        (
            Control::Hello(Hello {
                link: Some("7".into()),
                resumed: Some(u64::MAX),
                proof: Some("AB".into()),
                ..hello()
            }),
            "hello version=2 name=edge%201 nonce=00ff window=16384 max_frame=65536 link=7 \
             resumed=18446744073709551615 proof=AB",
        ),
        (
            Control::Hello(Hello {
                resume_timeout: None,
                token: None,
                resume: Some("7".into()),
                received: Some(0),
                ..hello()
            }),
            "hello version=2 name=edge%201 nonce=00ff window=16384 max_frame=65536 resume=7 \
             received=0",
        ),
        (
            Control::Auth {
                proof: "beef".into(),
            },
            "auth proof=beef",
        ),
        (
            Control::Open(open()),
            "open 00000000000000000024 service=http peer=192.0.2.1:50000 \
             local=[2001:db8::1]:5280",
        ),
        (
            Control::Open(Open {
                tls: Some(TlsFacts {
                    version: "TLSv1.3".into(),
                    cipher: Some("TLS_AES_128_GCM_SHA256".into()),
                    sni: Some("ä b%\n".into()),
                    alpn: Some("http/1.1".into()),
                    cb_exporter: Some("AA==".into()),
                    cb_endpoint: Some("+/8=".into()),
                }),
                ..open()
            }),
            "open 00000000000000000024 service=http peer=192.0.2.1:50000 \
             local=[2001:db8::1]:5280 tls=TLSv1.3 cipher=TLS_AES_128_GCM_SHA256 \
             sni=%C3%A4%20b%25%0A alpn=http/1.1 cb_exporter=AA== cb_endpoint=+/8=",
        ),
        (
            Control::Window {
                id: id(1),
                bytes: MAX_WINDOW,
            },
            "window 00000000000000000001 2147483647",
        ),
        (
            Control::Close { id: id(2), reason },
            "close 00000000000000000002 reason=normal",
        ),
        (
            Control::Reset { id: id(3), reason },
            "reset 00000000000000000003 reason=normal",
        ),
        (
            Control::Ping {
                word: "a=%41".into(),
            },
            "ping a=%41",
        ),
        (
            Control::Pong {
                word: "a=%41".into(),
            },
            "pong a=%41",
        ),
        (Control::Ack { bytes: u64::MAX }, "ack 18446744073709551615"),
        (
            Control::Goaway {
                reason: CloseReason::Shutdown,
                retry_after: Some(u32::MAX),
                within: None,
            },
            "goaway reason=shutdown retry_after=4294967295",
        ),
        (
            Control::Goaway {
                reason: CloseReason::Overload,
                retry_after: None,
                within: None,
            },
            "goaway reason=overload",
        ),
        (
            Control::Error {
                code: ErrorCode::FlowControl,
                text: "sent \"too\" much".into(),
            },
            "error code=flow_control text=sent%20\"too\"%20much",
        ),
    ]
}

#[test]
fn each_message_is_its_line() {
    for (message, line) in golden() {
        assert_eq!(message.to_string(), line);
        assert_eq!(parse(line), message);
    }
}

#[test]
fn a_message_is_one_frame_on_connection_0() {
    let frame = Control::Ping { word: "x".into() }.to_frame();
    assert_eq!(frame, b"0000000039|00000000000000000000|ping x\n");
}

#[test]
fn no_part_of_a_message_makes_it_panic() {
    for (_, line) in golden() {
        for cut in 0..line.len() {
            let _ = Control::parse(&line.as_bytes()[..cut]);
        }
    }
}

#[test]
fn unknown_keys_are_ignored_and_the_order_is_free() {
    assert_eq!(
        parse("close 2 colour=%zz reason=idle colour="),
        Control::Close {
            id: id(2),
            reason: CloseReason::Idle
        }
    );
    let line = "hello max_frame=65536 x=1 window=16384 nonce=00ff name=edge%201 version=2";
    assert_eq!(parse(line), Control::Hello(hello()));
    assert_eq!(parse("ack 5 since=epoch"), Control::Ack { bytes: 5 });
    // TLS facts without `tls` are of no session.
    let line = "open 24 service=http peer=192.0.2.1:50000 local=[2001:db8::1]:5280 sni=a";
    assert_eq!(parse(line), Control::Open(open()));
}

#[test]
fn unknown_verbs_are_none() {
    for line in ["sing", "sing a song", "Ping x", "hello2 version=2", "="] {
        assert_eq!(Control::parse(line.as_bytes()), Ok(None), "{line}");
    }
}

#[test]
fn an_unknown_error_code_does_not_hide_the_text() {
    let code = ErrorCode::Unknown;
    let text = "no tea".to_string();
    let error = Control::Error { code, text };
    assert_eq!(parse("error code=teapot text=no%20tea"), error);
}

#[test]
fn every_word_of_the_closed_lists_is_understood() {
    let words: Vec<_> = CloseReason::ALL.iter().map(|it| it.as_str()).collect();
    assert_eq!(
        words.join(" "),
        "normal client_closed server_closed idle timeout refused limit protocol_error overload \
         link_lost shutdown internal"
    );
    for reason in CloseReason::ALL {
        assert_eq!(reason.as_str().parse(), Ok(*reason));
    }
    for code in ErrorCode::ALL {
        assert_eq!(code.as_str().parse(), Ok(*code));
    }
    assert!("Normal".parse::<CloseReason>().is_err());
}

#[test]
fn every_rule_and_its_sentence() {
    let hello = "version=2 name=e nonce=00 window=1 max_frame=65536";
    let over = u64::from(MAX_WINDOW) + 1;
    for (line, sentence) in [
        ("", "empty line or empty word"),
        (" ping x", "empty line or empty word"),
        ("ping  x", "empty line or empty word"),
        ("ping x ", "empty line or empty word"),
        ("ping", "`ping` lacks WORD"),
        ("ping x y", "`ping` has a word too many"),
        ("ping x\r", "not printable ASCII at offset 6"),
        ("ping \0", "not printable ASCII at offset 5"),
        ("ping ä", "not printable ASCII at offset 5"),
        ("\x7f", "not printable ASCII at offset 0"),
        ("window", "`window` lacks ID"),
        ("window 7", "`window` lacks BYTES"),
        ("window 0 1", "`window` has a bad ID: 0 is never a client"),
        (
            "window +7 1",
            "`window` has a bad ID: not a number of up to 64 bits",
        ),
        (
            "window 18446744073709551616 1",
            "`window` has a bad ID: not a number of up to 64 bits",
        ),
        ("window 7 0", "`window` has a bad BYTES: 0 grants nothing"),
        (
            "window 7 -1",
            "`window` has a bad BYTES: not a number, or too large",
        ),
        (
            &format!("window 7 {over}"),
            "`window` has a bad BYTES: not a number, or too large",
        ),
        ("window 7 1 2", "`window` has a word too many"),
        ("close 7", "`close` lacks reason"),
        ("close 7 idle", "`close` has a word too many"),
        (
            "close 7 reason=",
            "`close` has a bad reason: not understood",
        ),
        (
            "close 7 reason=tea",
            "`close` has a bad reason: not understood",
        ),
        (
            "reset 7 reason=idle reason=idle",
            "`reset` has reason twice",
        ),
        ("ack x", "`ack` has a bad BYTES: not a number, or too large"),
        (
            "goaway reason=idle retry_after=4294967296",
            "`goaway` has a bad retry_after: not a number, or too large",
        ),
        ("error text=x", "`error` lacks code"),
        (
            "error code=auth text=%",
            "`error` has a bad text: '%' without two hex digits",
        ),
        (
            "error code=auth text=%4",
            "`error` has a bad text: '%' without two hex digits",
        ),
        (
            "error code=auth text=%4g",
            "`error` has a bad text: '%' without two hex digits",
        ),
        (
            "error code=auth text=%ff",
            "`error` has a bad text: not UTF-8",
        ),
        ("auth", "`auth` lacks proof"),
        (
            "auth proof=xyz",
            "`auth` has a bad proof: not in its alphabet, empty or too long",
        ),
        (
            "auth proof=",
            "`auth` has a bad proof: not in its alphabet, empty or too long",
        ),
        (
            "auth proof=abc",
            "`auth` has a bad proof: an odd number of digits",
        ),
        ("hello", "`hello` lacks max_frame"),
        (
            &hello.replace("version=2", "hello"),
            "`hello` lacks version",
        ),
        (
            &format!("hello {}", hello.replace(" name=e", "")),
            "`hello` lacks name",
        ),
        (
            &format!("hello {}", hello.replace("=e", "=")),
            "`hello` has a bad name: empty",
        ),
        (
            &format!("hello {}", hello.replace(" nonce=00", "")),
            "`hello` lacks nonce",
        ),
        (
            &format!("hello {}", hello.replace(" window=1", "")),
            "`hello` lacks window",
        ),
        (
            &format!("hello {}", hello.replace("=1", &format!("={over}"))),
            "`hello` has a bad window: not a number, or too large",
        ),
        (
            &format!("hello {}", hello.replace("=65536", "=4095")),
            "`hello` has a bad max_frame: below 4096, the longest control message",
        ),
        (
            &format!("hello {}", hello.replace("=65536", "=4294967264")),
            "`hello` has a bad max_frame: not a number, or too large",
        ),
        (
            "open 7 peer=1.2.3.4:5 local=1.2.3.4:5",
            "`open` lacks service",
        ),
        ("open 7 service=s local=1.2.3.4:5", "`open` lacks peer"),
        (
            "open 7 service=s peer=1.2.3.4 local=1.2.3.4:5",
            "`open` has a bad peer: not understood",
        ),
        (
            "open 7 service=s peer=::1:5 local=1.2.3.4:5",
            "`open` has a bad peer: not understood",
        ),
        (
            "open 7 service=s peer=[::1]:5 local=1.2.3.4:65536",
            "`open` has a bad local: not understood",
        ),
        (
            "open 7 service=s peer=[::1]:5 local=[::1]:5 tls=1 cb_exporter=-_",
            "`open` has a bad cb_exporter: not in its alphabet, empty or too long",
        ),
    ] {
        let error = Control::parse(line.as_bytes()).expect_err(line);
        assert_eq!(error.to_string(), sentence, "{line}");
    }
}

#[test]
fn names_at_their_limit_hold_and_one_byte_more_does_not() {
    let open = |service: usize, cipher: usize, exporter: usize| {
        let line = format!(
            "open 7 service={} peer=[::1]:5 local=[::1]:5 tls=1 cipher={} cb_exporter={}",
            "%41".repeat(service),
            "c".repeat(cipher),
            "x".repeat(exporter)
        );
        Control::parse(line.as_bytes())
    };
    assert!(open(NAME_MAX, TOKEN_MAX, SECRET_TEXT_MAX).is_ok());
    assert_eq!(
        open(NAME_MAX + 1, 1, 1).unwrap_err().to_string(),
        "`open` has a bad service: too long"
    );
    assert_eq!(
        open(1, TOKEN_MAX + 1, 1).unwrap_err().to_string(),
        "`open` has a bad cipher: too long"
    );
    assert!(open(1, 1, SECRET_TEXT_MAX + 1).is_err());
}

#[test]
fn what_is_too_long_is_cut_so_that_every_line_fits() {
    let long = "\u{1f4e3}".repeat(CONTROL_LINE_MAX);
    let some = || Some(long.clone());
    let messages = [
        Control::Hello(Hello {
            name: long.clone(),
            nonce: long.clone(),
            link: some(),
            resume_timeout: None,
            token: None,
            resume: some(),
            proof: some(),
            received: Some(u64::MAX),
            resumed: Some(u64::MAX),
            ..hello()
        }),
        Control::Open(Open {
            service: long.clone(),
            tls: Some(TlsFacts {
                version: long.clone(),
                cipher: some(),
                sni: some(),
                alpn: some(),
                cb_exporter: some(),
                cb_endpoint: some(),
            }),
            ..open()
        }),
        Control::Error {
            code: ErrorCode::ProtocolError,
            text: long.clone(),
        },
        Control::Ping { word: long.clone() },
        Control::Pong {
            word: "x".repeat(2 * CONTROL_LINE_MAX),
        },
        Control::Auth {
            proof: long.clone(),
        },
    ];
    for message in messages {
        let frame = message.to_frame();
        assert!(frame.len() <= HEAD_LEN + CONTROL_LINE_MAX);
        assert!(frame.ends_with(b"\n"));
    }
    let Control::Error { text, .. } = parse(
        &Control::Error {
            code: ErrorCode::Auth,
            text: long.clone(),
        }
        .to_string(),
    ) else {
        panic!("not an error message");
    };
    assert_eq!(text, long[..ERROR_TEXT_MAX]);
}

#[test]
fn a_word_that_is_none_becomes_one() {
    for (word, line) in [("", "ping _"), ("a b\nc", "ping a_b_c"), ("ä", "ping _")] {
        let ping = Control::Ping { word: word.into() };
        assert_eq!(ping.to_string(), line);
    }
}

fn name() -> impl Strategy<Value = String> {
    any::<String>().prop_filter_map("not a name", |text| {
        let end = text.floor_char_boundary(NAME_MAX);
        (end > 0).then(|| text[..end].to_owned())
    })
}

fn hex() -> impl Strategy<Value = String> {
    let digits = prop::sample::select(&b"0123456789abcdefABCDEF"[..]);
    vec((digits.clone(), digits), 1..=SECRET_TEXT_MAX / 2).prop_map(|pairs| {
        let digits = pairs.into_iter().flat_map(|(high, low)| [high, low]);
        digits.map(char::from).collect()
    })
}

fn base64() -> impl Strategy<Value = String> {
    let digits = prop::sample::select(&b"azAZ09+/="[..]);
    vec(digits, 1..=SECRET_TEXT_MAX).prop_map(|digits| String::from_utf8(digits).unwrap())
}

fn token() -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..TOKEN_MAX / 4).prop_map(|chars| chars.into_iter().collect())
}

fn word() -> impl Strategy<Value = String> {
    vec(b'!'..=b'~', 1..100).prop_map(|bytes| String::from_utf8(bytes).unwrap())
}

fn client() -> impl Strategy<Value = ConnectionId> {
    (1..=u64::MAX).prop_map(ConnectionId::new)
}

fn address() -> impl Strategy<Value = SocketAddr> {
    (any::<std::net::IpAddr>(), any::<u16>()).prop_map(SocketAddr::from)
}

fn tls_facts() -> impl Strategy<Value = TlsFacts> {
    (
        token(),
        option::of(token()),
        option::of(name()),
        option::of(name()),
        option::of(base64()),
        option::of(base64()),
    )
        .prop_map(
            |(version, cipher, sni, alpn, cb_exporter, cb_endpoint)| TlsFacts {
                version,
                cipher,
                sni,
                alpn,
                cb_exporter,
                cb_endpoint,
            },
        )
}

fn hellos() -> impl Strategy<Value = Control> {
    let limits = (0..=MAX_WINDOW, 4_096..=u32::MAX - HEAD_LEN as u32);
    let numbers = (option::of(any::<u64>()), option::of(any::<u64>()));
    let keeping = (option::of(any::<u32>()), option::of(hex()));
    let names = (name(), option::of(name()), option::of(name()));
    (
        any::<u32>(),
        names,
        hex(),
        limits,
        numbers,
        keeping,
        option::of(hex()),
    )
        .prop_map(
            |(
                version,
                (name, link, resume),
                nonce,
                limits,
                (received, resumed),
                keeping,
                proof,
            )| {
                Control::Hello(Hello {
                    version,
                    name,
                    nonce,
                    window: limits.0,
                    max_frame: limits.1,
                    link,
                    resume_timeout: keeping.0,
                    token: keeping.1,
                    resume,
                    received,
                    resumed,
                    proof,
                })
            },
        )
}

fn opens() -> impl Strategy<Value = Control> {
    (
        client(),
        name(),
        address(),
        address(),
        option::of(tls_facts()),
    )
        .prop_map(|(id, service, peer, local, tls)| {
            Control::Open(Open {
                id,
                service,
                peer,
                local,
                tls,
            })
        })
}

fn messages() -> impl Strategy<Value = Control> {
    let reason = || prop::sample::select(CloseReason::ALL);
    let code = prop::sample::select(ErrorCode::ALL);
    let text = name();
    prop_oneof![
        hellos(),
        opens(),
        hex().prop_map(|proof| Control::Auth { proof }),
        (client(), 1..=MAX_WINDOW).prop_map(|(id, bytes)| Control::Window { id, bytes }),
        (client(), reason()).prop_map(|(id, reason)| Control::Close { id, reason }),
        (client(), reason()).prop_map(|(id, reason)| Control::Reset { id, reason }),
        word().prop_map(|word| Control::Ping { word }),
        word().prop_map(|word| Control::Pong { word }),
        any::<u64>().prop_map(|bytes| Control::Ack { bytes }),
        (reason(), any::<Option<u32>>()).prop_map(|(reason, retry_after)| Control::Goaway {
            reason,
            retry_after,
            within: None,
        }),
        (code, text).prop_map(|(code, text)| Control::Error { code, text }),
    ]
}

proptest! {
    #[test]
    fn messages_there_and_back(message in messages()) {
        let frame = message.to_frame();
        let (head, line) = frame.split_first_chunk::<HEAD_LEN>().unwrap();
        let head = Head::parse(head, CONTROL_LINE_MAX as u32).unwrap();
        prop_assert_eq!((head.id, head.content as usize), (ConnectionId::CONTROL, line.len()));
        let line = line.strip_suffix(b"\n").unwrap();
        prop_assert_eq!(Control::parse(line), Ok(Some(message)));
    }

    #[test]
    fn any_bytes_are_a_message_or_an_error(line in vec(any::<u8>(), 0..100)) {
        let _ = Control::parse(&line);
    }

    #[test]
    fn a_damaged_message_is_a_message_or_an_error(
        message in messages(), at: prop::sample::Index, byte: u8,
    ) {
        let mut line = message.to_string().into_bytes();
        let at = at.index(line.len());
        line[at] = byte;
        if let Ok(Some(message)) = Control::parse(&line) {
            prop_assert!(message.to_frame().len() <= HEAD_LEN + CONTROL_LINE_MAX);
        }
    }
}
