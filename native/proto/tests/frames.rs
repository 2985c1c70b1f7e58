//! The frame codec: golden bytes, identity, every cut of a stream, every rule a head can break.

use std::collections::BTreeMap;

use megaphone_proto::frame::{
    ConnectionId, Decoder, FrameError, FrameProblem, Head, Piece, put_frame,
};
use megaphone_proto::limits::{DEFAULT_MAX_CONTENT, HEAD_LEN};
use proptest::collection::vec;
use proptest::prelude::*;

const GOLDEN: &[u8] = b"0000000053|00000000000000000024|<body>whatever</body>";
const MAX: u32 = DEFAULT_MAX_CONTENT;

/// What a stream meant: content and ends of each connection, wherever the frames were cut.
#[derive(Debug, Default, PartialEq, Eq)]
struct Heard {
    content: BTreeMap<ConnectionId, Vec<u8>>,
    /// Connection and how much content it had before each of its ends.
    ends: Vec<(ConnectionId, usize)>,
}

impl Heard {
    fn take(&mut self, piece: Piece<'_>) {
        match piece {
            Piece::Content { id, bytes } => {
                assert!(!bytes.is_empty());
                self.content.entry(id).or_default().extend(bytes);
            }
            Piece::End { id } => {
                let before = self.content.get(&id).map_or(0, Vec::len);
                self.ends.push((id, before));
            }
        }
    }
}

/// Decodes `chunks` one after another. Each must be used up, or be where an error is.
fn decode<'a>(
    decoder: &mut Decoder,
    chunks: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Heard, FrameError> {
    let mut heard = Heard::default();
    for mut chunk in chunks {
        while let Some(piece) = decoder.next(&mut chunk)? {
            heard.take(piece);
        }
        assert!(chunk.is_empty());
    }
    Ok(heard)
}

fn id(number: u64) -> ConnectionId {
    ConnectionId::new(number)
}

fn head_error(head: &[u8; HEAD_LEN]) -> FrameError {
    Head::parse(head, MAX).unwrap_err()
}

#[test]
fn the_golden_frame_is_written() {
    let mut out = Vec::new();
    put_frame(id(24), b"<body>whatever</body>", &mut out);
    assert_eq!(out, GOLDEN);
}

#[test]
fn the_golden_frame_is_read() {
    let mut input = GOLDEN;
    let mut decoder = Decoder::new(MAX);
    let piece = Piece::Content {
        id: id(24),
        bytes: b"<body>whatever</body>",
    };
    assert_eq!(decoder.next(&mut input), Ok(Some(piece)));
    assert_eq!(decoder.next(&mut input), Ok(None));
    assert!(!decoder.mid_frame());
}

#[test]
fn an_empty_frame_is_an_end() {
    let mut out = Vec::new();
    put_frame(id(u64::MAX), b"", &mut out);
    assert_eq!(out, b"0000000032|18446744073709551615|");
    let mut input = &out[..];
    let end = Piece::End { id: id(u64::MAX) };
    assert_eq!(Decoder::new(MAX).next(&mut input), Ok(Some(end)));
}

#[test]
fn content_is_given_before_its_frame_is_whole() {
    let mut decoder = Decoder::new(MAX);
    for (at, byte) in GOLDEN.iter().enumerate() {
        let mut input = std::slice::from_ref(byte);
        let piece = decoder.next(&mut input).unwrap();
        assert_eq!(piece.is_some(), at >= HEAD_LEN, "byte {at}");
        assert_eq!(decoder.mid_frame(), at + 1 < GOLDEN.len(), "byte {at}");
    }
}

#[test]
fn ids_and_lengths_at_their_ends() {
    for number in [0, 1, 1843, u64::MAX / 10, u64::MAX - 1, u64::MAX] {
        for content in [0, 1, 99_999_967, 99_999_968, u32::MAX - 1, u32::MAX] {
            let head = Head {
                id: id(number),
                content,
            };
            let text = format!("{:010}|{number:020}|", u64::from(content) + 32);
            assert_eq!(head.encode(), text.as_bytes());
            assert_eq!(Head::parse(&head.encode(), u32::MAX), Ok(head));
        }
    }
}

#[test]
fn the_limit_holds_and_one_more_byte_does_not() {
    for max in [0, 1, MAX, 99_999_967, u32::MAX - 1] {
        let at_limit = Head {
            id: id(7),
            content: max,
        };
        assert_eq!(Head::parse(&at_limit.encode(), max), Ok(at_limit));
        let over = Head {
            id: id(7),
            content: max + 1,
        };
        let problem = Head::parse(&over.encode(), max).unwrap_err().problem;
        let (length, max) = (u64::from(max) + 33, u64::from(max) + 32);
        assert_eq!(problem, FrameProblem::TooLong { length, max });
    }
}

#[test]
fn every_rule_and_its_sentence() {
    let long = "is over the limit of 65568";
    let short = "is below the 32 of the head itself";
    let id = "connection id is over 18446744073709551615";
    for (head, problem) in [
        (
            b"0000000000|00000000000000000024|",
            &*format!("length 0 {short}"),
        ),
        (
            b"0000000031|00000000000000000024|",
            &format!("length 31 {short}"),
        ),
        (
            b"0000065569|00000000000000000024|",
            &format!("length 65569 {long}"),
        ),
        (
            b"4294967296|00000000000000000024|",
            &format!("length 4294967296 {long}"),
        ),
        (
            b"4294967328|00000000000000000024|",
            &format!("length 4294967328 {long}"),
        ),
        (
            b"9999999999|00000000000000000024|",
            &format!("length 9999999999 {long}"),
        ),
        (b"0000000053|18446744073709551616|", id),
        (b"0000000053|99999999999999999999|", id),
        (
            b"+000000053|00000000000000000024|",
            "not a digit at offset 0",
        ),
        (
            b"-000000053|00000000000000000024|",
            "not a digit at offset 0",
        ),
        (
            b"        53|00000000000000000024|",
            "not a digit at offset 0",
        ),
        (
            b"0000000053|                  24|",
            "not a digit at offset 11",
        ),
        (
            b"000000005:|00000000000000000024|",
            "not a digit at offset 9",
        ),
        (
            b"00000000/3|00000000000000000024|",
            "not a digit at offset 8",
        ),
        (
            b"0000000053|0000000000000000002x|",
            "not a digit at offset 30",
        ),
        (b"0000000053 00000000000000000024|", "no '|' at offset 10"),
        (b"0000000053|00000000000000000024<", "no '|' at offset 31"),
        (
            b"GET / HTTP/1.1\r\nHost: localhost\r",
            "not a digit at offset 0",
        ),
        (
            b"00000000\xb93|00000000000000000024|",
            "not a digit at offset 8",
        ),
        (
            b"0000000053|0000000000000000\x00024|",
            "not a digit at offset 27",
        ),
    ] {
        let expected = format!("frame head \"{}\": {problem}", head.escape_ascii());
        assert_eq!(head_error(head).to_string(), expected);
    }
}

#[test]
fn a_broken_stream_stays_broken() {
    let bad = b"0000000031|00000000000000000024|";
    for cut in 0..HEAD_LEN {
        let mut decoder = Decoder::new(MAX);
        let (first, rest) = bad.split_at(cut);
        assert_eq!(decode(&mut decoder, [first]), Ok(Heard::default()));
        for _ in 0..2 {
            let mut input = rest;
            assert_eq!(decoder.next(&mut input), Err(head_error(bad)));
        }
        assert_eq!(decoder.next(&mut &GOLDEN[..]), Err(head_error(bad)));
    }
}

#[test]
fn what_comes_before_a_bad_head_is_still_given() {
    let stream = [GOLDEN, b"000000003x|00000000000000000024|"].concat();
    let mut input = &stream[..];
    let mut decoder = Decoder::new(MAX);
    assert!(matches!(
        decoder.next(&mut input),
        Ok(Some(Piece::Content { .. }))
    ));
    assert!(decoder.next(&mut input).is_err());
}

/// Frames with few ids, so that they interleave, and some of them ends.
fn frames() -> impl Strategy<Value = Vec<(u64, Vec<u8>)>> {
    let number = prop_oneof![0..3u64, any::<u64>()];
    vec((number, vec(any::<u8>(), 0..80)), 0..6)
}

fn encode(frames: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let mut stream = Vec::new();
    for (number, content) in frames {
        put_frame(id(*number), content, &mut stream);
    }
    stream
}

fn meant(frames: &[(u64, Vec<u8>)]) -> Heard {
    let mut heard = Heard::default();
    for (number, content) in frames {
        let id = id(*number);
        heard.take(match &content[..] {
            [] => Piece::End { id },
            bytes => Piece::Content { id, bytes },
        });
    }
    heard
}

proptest! {
    #[test]
    fn heads_there_and_back(number: u64, content: u32) {
        let head = Head { id: id(number), content };
        prop_assert_eq!(Head::parse(&head.encode(), u32::MAX), Ok(head));
    }

    #[test]
    fn heads_of_digits_back_and_there(length in 32..4_294_967_328u64, number: u64) {
        let text = format!("{length:010}|{number:020}|");
        let head: &[u8; HEAD_LEN] = text.as_bytes().try_into().unwrap();
        prop_assert_eq!(&Head::parse(head, u32::MAX).unwrap().encode(), head);
    }

    #[test]
    fn any_32_bytes_are_a_head_or_an_error(head: [u8; HEAD_LEN], max: u32) {
        if let Ok(parsed) = Head::parse(&head, max) {
            prop_assert_eq!(parsed.encode(), head);
            prop_assert!(parsed.content <= max);
        }
    }

    #[test]
    fn the_cut_does_not_matter(frames in frames()) {
        let stream = encode(&frames);
        let meant = meant(&frames);
        let mut decoder = Decoder::new(MAX);
        prop_assert_eq!(&decode(&mut decoder, [&stream[..]]).unwrap(), &meant);
        prop_assert_eq!(&decode(&mut decoder, stream.chunks(1)).unwrap(), &meant);
        for cut in 0..=stream.len() {
            let (first, rest) = stream.split_at(cut);
            prop_assert_eq!(&decode(&mut decoder, [first, rest]).unwrap(), &meant);
            prop_assert!(!decoder.mid_frame());
        }
    }

    #[test]
    fn any_bytes_in_any_pieces_end_the_same(
        stream in prop_oneof![
            vec(any::<u8>(), 0..200),
            vec(prop::sample::select(&b"000000032|||"[..]), 0..200),
        ],
        size in 1..40usize,
    ) {
        let whole = decode(&mut Decoder::new(MAX), [&stream[..]]);
        let pieces = decode(&mut Decoder::new(MAX), stream.chunks(size));
        prop_assert_eq!(whole, pieces);
    }
}
