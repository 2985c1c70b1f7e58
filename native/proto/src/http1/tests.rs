//! Heads whole, byte by byte and at every prefix; what is refused; limits at n and n + 1.

use super::*;
use crate::limits::{
    HTTP_ERROR_LINE_MAX, HTTP_FIELDS_MAX, HTTP_HEAD_MAX, HTTP_REQUEST_LINE_MAX, HTTP_TARGET_MAX,
};
use proptest::prelude::*;

/// The shape of what strophe.js sends through Chromium.
const BOSH: &str = "POST /bosh HTTP/1.1\r\nHost: localhost:5280\r\nConnection: keep-alive\r\n\
    Content-Length: 153\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n\
    Content-Type: text/xml; charset=UTF-8\r\nAccept: */*\r\nOrigin: http://localhost\r\n\
    Accept-Encoding: gzip, deflate, br\r\naccept-language: en-US,en;q=0.9 \t\r\n\r\n";

/// An item without what it borrows, so that those of different buffers can be compared.
fn owned(item: &Item<'_>) -> String {
    match item {
        Item::Header { name, value } => {
            let mut scratch = [0; FORMATTED_MAX];
            let field = name.formatted(&mut scratch).escape_ascii();
            format!(
                "{} {field} ({}): \"{}\"",
                name.bit(),
                name.raw().escape_ascii(),
                value.escape_ascii()
            )
        }
        Item::Error { line, why } => format!("{why:?} \"{}\"", line.escape_ascii()),
        other => format!("{other:?}"),
    }
}

/// What a reader gives for `bytes`, up to an error; the answer is what was left.
fn read<'b>(reader: &mut HttpReader, mut bytes: &'b [u8], items: &mut Vec<String>) -> &'b [u8] {
    while let Step::Item { item, consumed } = reader.next(bytes) {
        items.push(owned(&item));
        bytes = &bytes[consumed..];
        if matches!(item, Item::Error { .. }) {
            break;
        }
    }
    bytes
}

fn whole(headers_only: bool, bytes: &[u8]) -> Vec<String> {
    let mut items = Vec::new();
    read(&mut HttpReader::new(headers_only), bytes, &mut items);
    items
}

fn byte_by_byte(headers_only: bool, bytes: &[u8]) -> Vec<String> {
    let (mut reader, mut items, mut held) = (HttpReader::new(headers_only), Vec::new(), Vec::new());
    for &byte in bytes {
        held.push(byte);
        let left = read(&mut reader, &held, &mut items).len();
        held.drain(..held.len() - left);
        if reader.failed().is_some() {
            break;
        }
        assert!(held.len() <= HTTP_HEAD_MAX, "waits for ever");
    }
    items
}

/// What `parse_head` gives for one head: as `whole`, but for a head that is not whole.
fn at_once(bytes: &[u8]) -> (Head, Vec<String>) {
    let mut items = Vec::new();
    let head = parse_head(bytes, |item| items.push(owned(&item)));
    (head, items)
}

fn reread(head: &[u8]) -> Vec<String> {
    let mut items = Vec::new();
    reread_head(head, |item| items.push(owned(&item)));
    items
}

/// All ways of reading agree; the answer is the reader's items.
fn agreed(headers_only: bool, bytes: &[u8]) -> Vec<String> {
    let items = whole(headers_only, bytes);
    assert_eq!(
        byte_by_byte(headers_only, bytes),
        items,
        "{}",
        bytes.escape_ascii()
    );
    if !headers_only {
        let first = items
            .split_inclusive(|item| item == "Eoh")
            .next()
            .unwrap_or(&[]);
        match at_once(bytes) {
            (Head::More, visited) => {
                assert!(visited.is_empty() && first.last().is_none_or(|last| last != "Eoh"))
            }
            (Head::Whole { consumed, .. }, visited) => {
                assert_eq!(visited, first);
                let again = reread(&bytes[..consumed]);
                assert_eq!(again, first[..first.len() - 1], "{}", bytes.escape_ascii());
            }
            (Head::Error(_), visited) => assert_eq!(visited, first),
        }
    }
    items
}

/// Why a head is refused; `None` when it is not.
fn why(head: &str) -> Option<HttpError> {
    agreed(false, head.as_bytes());
    match parse_head(head.as_bytes(), |_| ()) {
        Head::Error(why) => Some(why),
        Head::Whole { consumed, .. } => {
            assert_eq!(consumed, head.len());
            None
        }
        Head::More => panic!("not whole: {head:?}"),
    }
}

/// Why a head with these header lines is refused.
fn why_headers(lines: &str) -> Option<HttpError> {
    why(&format!("GET / HTTP/1.1\r\n{lines}\r\n\r\n"))
}

fn body_of(lines: &str) -> BodyFraming {
    let head = format!("POST / HTTP/1.1\r\n{lines}\r\n");
    match parse_head(head.as_bytes(), |_| ()) {
        Head::Whole { body, .. } => body,
        other => panic!("{other:?}: {head:?}"),
    }
}

#[test]
fn a_bosh_head() {
    assert_eq!(
        agreed(false, BOSH.as_bytes()),
        [
            format!(
                "{:?}",
                Item::Request {
                    method: Method::new(b"POST"),
                    uri: Uri::AbsPath(b"/bosh"),
                    version: (1, 1)
                }
            )
            .as_str(),
            r#"14 Host (Host): "localhost:5280""#,
            r#"2 Connection (Connection): "keep-alive""#,
            r#"38 Content-Length (Content-Length): "153""#,
            r#"24 User-Agent (User-Agent): "Mozilla/5.0 (X11; Linux x86_64)""#,
            r#"42 Content-Type (Content-Type): "text/xml; charset=UTF-8""#,
            r#"8 Accept (Accept): "*/*""#,
            r#"0 Origin (Origin): "http://localhost""#,
            r#"10 Accept-Encoding (Accept-Encoding): "gzip, deflate, br""#,
            r#"11 Accept-Language (accept-language): "en-US,en;q=0.9 \t""#,
            "Eoh",
        ]
    );
    assert_eq!(
        parse_head(BOSH.as_bytes(), |_| ()),
        Head::Whole {
            consumed: BOSH.len(),
            body: BodyFraming::Length(153)
        }
    );
}

#[test]
fn every_prefix_gives_the_first_items_and_no_more_than_its_lines() {
    let all = whole(false, BOSH.as_bytes());
    for end in 0..BOSH.len() {
        let items = whole(false, &BOSH.as_bytes()[..end]);
        assert_eq!(items, all[..items.len()]);
        // A request line is given with its end, a header with the byte behind its end.
        let lines = BOSH[..end].matches("\r\n").count();
        let open = lines > 1 && BOSH[..end].ends_with('\n');
        assert_eq!(items.len(), lines - usize::from(open));
        assert_eq!(
            parse_head(&BOSH.as_bytes()[..end], |_| panic!("no item")),
            Head::More
        );
    }
}

#[test]
fn requests_follow_each_other() {
    let three = format!("{BOSH}GET /2 HTTP/1.0\r\n\r\n\r\n{BOSH}");
    let items = agreed(false, three.as_bytes());
    assert_eq!(items.iter().filter(|item| *item == "Eoh").count(), 3);
    assert!(items[11].contains("version: (1, 0)"), "{}", items[11]);
}

#[test]
fn the_body_belongs_to_the_last_head() {
    let mut reader = HttpReader::new(false);
    read(&mut reader, BOSH.as_bytes(), &mut Vec::new());
    assert_eq!(reader.body(), BodyFraming::Length(153));
    assert!(!reader.mid_head());
    reader.next(b"GET / HTTP/1.1\r\n");
    assert_eq!(
        (reader.body(), reader.mid_head()),
        (BodyFraming::None, true)
    );
}

#[test]
fn headers_only_starts_at_the_headers_again_and_again() {
    let items = agreed(
        true,
        b"a: b\r\nContent-Length: 1\r\n\r\nContent-Length: 2\r\n\r\n\r\n",
    );
    let length = |n| format!("38 Content-Length (Content-Length): \"{n}\"");
    assert_eq!(
        items,
        [
            "0 A (a): \"b\"",
            &length(1),
            "Eoh",
            &length(2),
            "Eoh",
            "Eoh"
        ]
    );
    assert_eq!(
        agreed(true, b"GET / HTTP/1.1\r\n\r\n"),
        [r#"HeaderName "GET / HTTP/1.1\r\n""#]
    );
}

#[test]
fn values_keep_the_space_behind_them() {
    assert_eq!(
        agreed(
            true,
            b"A:b\r\nA: b\r\nA:\t b \t\r\nA:\r\nA:  \r\nA: \x80\xff\r\n\r\n"
        ),
        [
            r#""b""#,
            r#""b""#,
            r#""b \t""#,
            r#""""#,
            r#""""#,
            r#""\x80\xff""#
        ]
        .map(|value| format!("0 A (A): {value}"))
        .into_iter()
        .chain(["Eoh".to_string()])
        .collect::<Vec<_>>()
    );
}

#[test]
fn wrong_request_lines() {
    use HttpError::*;
    for (line, error) in [
        ("GET / HTTP/1.1\r\n", None),
        ("get! /ö HTTP/1.0\r\n", None),
        ("\r\nGET / HTTP/1.1\r\n", None),
        ("\r\n\r\nGET / HTTP/1.1\r\n", Some(Method)),
        ("\nGET / HTTP/1.1\r\n", Some(BareLf)),
        ("\r\n\nGET / HTTP/1.1\r\n", Some(BareLf)),
        ("\rGET / HTTP/1.1\r\n", Some(Method)),
        ("GET / HTTP/1.1\n", Some(BareLf)),
        (" GET / HTTP/1.1\r\n", Some(Method)),
        ("G\0T / HTTP/1.1\r\n", Some(Method)),
        ("GET\t/ HTTP/1.1\r\n", Some(Method)),
        ("GET\r\n", Some(Method)),
        ("G(T / HTTP/1.1\r\n", Some(Method)),
        ("HTTP/1.1 200 OK\r\n", Some(Method)),
        ("GET  / HTTP/1.1\r\n", Some(Target)),
        ("GET /\t HTTP/1.1\r\n", Some(Target)),
        ("GET /\x7f HTTP/1.1\r\n", Some(Target)),
        ("GET /\0 HTTP/1.1\r\n", Some(Target)),
        ("GET /a\rb HTTP/1.1\r\n", Some(Target)),
        ("GET /\r\n", Some(Target)),
        ("GET /  HTTP/1.1\r\n", Some(Version)),
        ("GET / \r\n", Some(Version)),
        ("GET / HTTP/1.1 \r\n", Some(Version)),
        ("GET / HTTP/1.1 junk\r\n", Some(Version)),
        ("GET / HTTP/1.10\r\n", Some(Version)),
        ("GET / HTTP/1.1\r\r\n", Some(Version)),
        ("GET /a b HTTP/1.1\r\n", Some(Version)),
        ("GET / HTTP/1.\r\n", Some(Version)),
        ("GET / HTTP/0.9\r\n", Some(Version)),
        ("GET / HTTP/1.2\r\n", Some(Version)),
        ("GET / HTTP/2.0\r\n", Some(Version)),
        ("GET / HTTP/9.9\r\n", Some(Version)),
        ("GET / http/1.1\r\n", Some(Version)),
    ] {
        assert_eq!(why(&format!("{line}Host: a\r\n\r\n")), error, "{line:?}");
    }
    assert_eq!(
        agreed(false, b"GET /\xff HTTP/1.1\r\n"),
        [r#"Target "GET /\xff HTTP/1.1\r\n""#]
    );
}

#[test]
fn wrong_header_lines() {
    use HttpError::*;
    for (lines, error) in [
        ("a: b", None),
        ("!#$%&'*+-.^_`|~09: \"(),/:;<=>?@[\\]{}\"", None),
        ("a: b\r\n c", Some(Folded)),
        ("a: b\r\n\tc", Some(Folded)),
        ("a:\r\n b", Some(Folded)),
        (" a: b", Some(HeaderName)),
        ("a : b", Some(HeaderName)),
        ("a\t: b", Some(HeaderName)),
        (": b", Some(HeaderName)),
        ("a", Some(HeaderName)),
        ("a b: c", Some(HeaderName)),
        ("a\0: b", Some(HeaderName)),
        ("a\r: b", Some(HeaderName)),
        ("ä: b", Some(HeaderName)),
        ("a(: b", Some(HeaderName)),
        ("a: b\0", Some(HeaderValue)),
        ("a: \x7f", Some(HeaderValue)),
        ("a: \x0b", Some(HeaderValue)),
        ("a: b\rc", Some(HeaderValue)),
        ("a: b\r", Some(HeaderValue)),
        ("a:\rb: c", Some(HeaderValue)),
        ("a: b\nc: d", Some(BareLf)),
        ("a:\nc: d", Some(BareLf)),
        ("a: b \nc: d", Some(BareLf)),
    ] {
        assert_eq!(why_headers(lines), error, "{lines:?}");
    }
    assert_eq!(why("GET / HTTP/1.1\r\na: b\r\n\n"), Some(BareLf));
    assert_eq!(why("GET / HTTP/1.1\r\n\n"), Some(BareLf));
}

#[test]
fn lengths_that_can_be_read_in_two_ways() {
    use HttpError::*;
    for value in [
        "",
        "+5",
        "-5",
        "0x5",
        "5 5",
        "5, 5",
        "5,5",
        "5;",
        "5.0",
        "five",
        "５",
        "1e3",
        "9223372036854775808",
        "18446744073709551616",
        "99999999999999999999999",
    ] {
        assert_eq!(
            why_headers(&format!("Content-Length: {value}")),
            Some(ContentLength),
            "{value}"
        );
    }
    for value in [
        "",
        "gzip",
        "gzip, chunked",
        "chunked, chunked",
        "chunked,",
        "chunked;a=b",
        "identity",
        "xchunked",
    ] {
        assert_eq!(
            why_headers(&format!("Transfer-Encoding: {value}")),
            Some(TransferEncoding),
            "{value}"
        );
    }
    for lines in [
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5\r\nCONTENT-LENGTH: 6",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    ] {
        assert_eq!(why_headers(lines), Some(TwoLengths), "{lines:?}");
    }
    assert_eq!(
        why("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
        Some(TransferEncoding)
    );
}

#[test]
fn the_wrong_header_is_the_one_refused() {
    let items = agreed(
        false,
        b"GET / HTTP/1.1\r\na: b\r\nContent-Length: +5\r\nc: d\r\n\r\n",
    );
    assert_eq!(
        items[1..],
        [
            r#"0 A (a): "b""#,
            r#"ContentLength "Content-Length: +5\r\n""#
        ]
    );
}

#[test]
fn bodies() {
    assert_eq!(body_of(""), BodyFraming::None);
    assert_eq!(body_of("Content-Length: 0\r\n"), BodyFraming::Length(0));
    assert_eq!(
        body_of("content-length:\t0012 \r\n"),
        BodyFraming::Length(12)
    );
    assert_eq!(
        body_of("Content-Length: 9223372036854775807\r\n"),
        BodyFraming::Length(i64::MAX as u64)
    );
    assert_eq!(
        body_of("Transfer-Encoding: Chunked \r\n"),
        BodyFraming::Chunked
    );
}

#[test]
fn target_limit() {
    let target = |length: usize| format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(length - 1));
    assert_eq!(why(&target(HTTP_TARGET_MAX)), None);
    assert_eq!(
        why(&target(HTTP_TARGET_MAX + 1)),
        Some(HttpError::TargetTooLong)
    );
    assert_eq!(why(&target(HTTP_HEAD_MAX)), Some(HttpError::TargetTooLong));
    assert_eq!(HttpError::TargetTooLong.status(), 414);
}

#[test]
fn a_request_line_without_end() {
    let line = vec![b'a'; HTTP_REQUEST_LINE_MAX + 1];
    assert_eq!(HttpReader::new(false).next(&line[1..]), Step::More);
    let items = agreed(false, &line);
    assert_eq!(
        items,
        [format!(
            "TargetTooLong {:?}",
            "a".repeat(HTTP_ERROR_LINE_MAX)
        )]
    );
    assert!(matches!(
        parse_head(&line, |_| ()),
        Head::Error(HttpError::TargetTooLong)
    ));
}

#[test]
fn head_limit() {
    let head = |length: usize| {
        let start = "GET / HTTP/1.1\r\na: b\r\nc: ";
        format!("{start}{}\r\n\r\n", "d".repeat(length - start.len() - 4))
    };
    assert_eq!(why(&head(HTTP_HEAD_MAX)), None);
    // The empty line that is forgiven does not count.
    assert_eq!(why(&format!("\r\n{}", head(HTTP_HEAD_MAX))), None);
    // With one byte more, the empty line at the end is too much, with four the header is.
    assert_eq!(why(&head(HTTP_HEAD_MAX + 1)), Some(HttpError::HeadTooLong));
    assert_eq!(why(&head(HTTP_HEAD_MAX + 4)), Some(HttpError::HeadTooLong));
    assert_eq!(why(&head(3 * HTTP_HEAD_MAX)), Some(HttpError::HeadTooLong));
    assert_eq!(HttpError::HeadTooLong.status(), 431);
}

#[test]
fn header_lines_without_end() {
    for headers_only in [false, true] {
        let start = if headers_only {
            ""
        } else {
            "GET / HTTP/1.1\r\n"
        };
        let flood = format!("{start}{}", "a".repeat(HTTP_HEAD_MAX + 1 - start.len()));
        let before = &flood.as_bytes()[..HTTP_HEAD_MAX];
        assert!(
            agreed(headers_only, before)
                .iter()
                .all(|item| !item.contains("TooLong"))
        );
        assert!(
            agreed(headers_only, flood.as_bytes())
                .concat()
                .contains("HeadTooLong")
        );
    }
}

#[test]
fn header_flood() {
    let headers = |count: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(count));
    assert_eq!(why(&headers(HTTP_FIELDS_MAX)), None);
    assert_eq!(
        why(&headers(HTTP_FIELDS_MAX + 1)),
        Some(HttpError::TooManyFields)
    );
    assert_eq!(
        why(&headers(10 * HTTP_FIELDS_MAX)),
        Some(HttpError::TooManyFields)
    );
}

#[test]
fn a_failed_reader_stays_failed() {
    let mut reader = HttpReader::new(false);
    let bytes = b"nonsense\r\nGET / HTTP/1.1\r\n\r\n";
    assert!(matches!(
        reader.next(bytes),
        Step::Item {
            item: Item::Error { .. },
            consumed: 28
        }
    ));
    assert_eq!(reader.next(b""), Step::More);
    let why = HttpError::Method;
    let error = Item::Error { line: b"", why };
    assert_eq!(
        reader.next(b"GET / HTTP/1.1\r\n\r\n"),
        Step::Item {
            item: error,
            consumed: 18
        }
    );
    assert_eq!(reader.failed(), Some(why));
}

#[test]
fn a_reader_told_to_forget_checks_what_was_put_before() {
    let mut reader = HttpReader::new(false);
    let bytes = b"GET / HTTP/1.1\r\na: b\r\nc: d\r\n\r\n";
    assert!(matches!(
        reader.next(bytes),
        Step::Item { consumed: 16, .. }
    ));
    reader.forget_lookahead();
    assert!(matches!(
        reader.next(b"a\0: b\r\nc: d\r\n\r\n"),
        Step::Item {
            item: Item::Error { .. },
            ..
        }
    ));
}

#[test]
fn a_reader_is_small() {
    assert_eq!(size_of::<HttpReader>(), 16);
    assert_eq!(size_of::<Option<HttpReader>>(), 16);
    assert_eq!(size_of::<BodyDecoder>(), 16);
}

/// Bytes that look like heads, nearly.
fn nearly_heads() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        6 => Just(&b"\r\n"[..]),
        4 => prop::sample::select(vec![
            &b"GET / HTTP/1.1\r\n"[..], b"POST /a HTTP/1.0\r\n", b"\r\n\r\n", b"Host: a\r\n", b"x-Y: z \r\n",
            b"Content-Length: 5\r\n", b"Content-Length: 05", b"Transfer-Encoding: chunked\r\n", b"a: b", b"a:",
        ]),
        1 => prop::sample::select(vec![
            &b"\r"[..], b"\n", b" ", b"\t", b":", b"\0", b"\x7f", b"\x80", b"a", b"GET", b"/", b" HTTP/1.1", b"HTTP/1.1 200 OK",
        ]),
    ];
    prop::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn near_heads_read_the_same_in_every_way(bytes in nearly_heads(), headers_only: bool) {
        agreed(headers_only, &bytes);
    }

    #[test]
    fn heads_read_the_same_in_every_way(mut bytes in nearly_heads()) {
        bytes.splice(..0, *b"GET / HTTP/1.1\r\n");
        agreed(false, &bytes);
    }

    #[test]
    fn any_bytes_read_the_same_in_every_way(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        headers_only: bool,
    ) {
        agreed(headers_only, &bytes);
    }

    /// However the bytes come, no more than a head's worth is ever waited with.
    #[test]
    fn never_waits_beyond_the_limit(
        part in "[a-zA-Z:/ .\r\n]{1,40}", times in 1usize..2000, headers_only: bool,
    ) {
        let flood = part.repeat(times);
        let mut reader = HttpReader::new(headers_only);
        let left = read(&mut reader, flood.as_bytes(), &mut Vec::new());
        prop_assert!(left.len() <= HTTP_HEAD_MAX + 2);
    }

    /// Pieces of any size give what the whole does, and what is held between them is bounded.
    #[test]
    fn pieces_of_any_size(cuts in prop::collection::vec(1usize..80, 1..20)) {
        let stream = BOSH.repeat(2);
        let (mut reader, mut items, mut held) = (HttpReader::new(false), Vec::new(), Vec::new());
        let (mut rest, mut sizes) = (stream.as_bytes(), cuts.iter().cycle());
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(rest.len().min(*sizes.next().unwrap_or(&1)));
            rest = behind;
            held.extend_from_slice(piece);
            held = read(&mut reader, &held, &mut items).to_vec();
        }
        prop_assert_eq!(items, whole(false, stream.as_bytes()));
    }
}
