//! From a client's bytes to whole messages and controls.
//!
//! A message that is whole in the input is handed out from there. Of one that is not, what has
//! come is taken at once, so that the far side gets credit for it, and a fault shows with the byte
//! that makes it; the memory for that exists only meanwhile.

use super::close::Closing;
use super::mask::unmask;
use super::utf8::Utf8;
use super::{Fault, Head, Opcode};
use crate::limits::{WS_FRAGMENT_MEAN, WS_FRAGMENTS_FREE};

/// What the application gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8.
    Text,
    /// Any bytes.
    Binary,
}

/// What a client has sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A message, complete.
    Message(Kind, Payload<'a>),
    /// A part of one.
    Fragment,
    /// To be answered with a pong of the same payload.
    Ping(Short),
    /// A sign of life.
    Pong,
    /// Nothing comes after it.
    Close(Closing),
}

/// The payload of a control frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Short {
    bytes: [u8; 125],
    len: u8,
}

impl Short {
    /// Takes the mask off up to 125 bytes.
    fn new(masked: &[u8], key: [u8; 4]) -> Self {
        let mut bytes = [0; 125];
        let len = masked.len().min(125);
        bytes[..len].copy_from_slice(&masked[..len]);
        unmask(&mut bytes[..len], key);
        Short {
            bytes,
            len: len as u8,
        }
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// The payload of a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// As it came, in one piece; text is not checked yet.
    Masked {
        /// What came.
        bytes: &'a [u8],
        /// What it is masked with.
        key: [u8; 4],
        /// Whether it must be UTF-8.
        text: bool,
    },
    /// Put together, and checked.
    Whole(Vec<u8>),
}

impl Payload<'_> {
    /// How many bytes it has.
    pub fn len(&self) -> usize {
        match self {
            Payload::Masked { bytes, .. } => bytes.len(),
            Payload::Whole(bytes) => bytes.len(),
        }
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts it into `to`, which has as many bytes. O(len).
    ///
    /// # Errors
    /// It is text and not UTF-8.
    #[inline]
    pub fn copy_to(&self, to: &mut [u8]) -> Result<(), Fault> {
        match self {
            Payload::Masked { bytes, key, text } => {
                to.copy_from_slice(bytes);
                unmask(to, *key);
                match text {
                    true => std::str::from_utf8(to).map_or(Err(Fault::Utf8), |_| Ok(())),
                    false => Ok(()),
                }
            }
            Payload::Whole(bytes) => {
                to.copy_from_slice(bytes);
                Ok(())
            }
        }
    }
}

/// What a client sends, as it comes.
#[derive(Debug, Default)]
pub struct Reader {
    partial: Option<Box<Partial>>,
}

/// A message that has not come whole.
#[derive(Debug)]
struct Partial {
    kind: Kind,
    bytes: Vec<u8>,
    utf8: Utf8,
    fragments: usize,
    /// The frame whose payload comes next, where one has begun.
    frame: Option<Frame>,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    left: u64,
    key: [u8; 4],
    last: bool,
}

impl Reader {
    /// The next event out of `input`, one for each frame at most, and `input` is advanced past it.
    /// `None`: more must come, and what
    /// is left of `input` (131 bytes at most) must then be given again. O(bytes taken).
    ///
    /// # Errors
    /// The WebSocket must be failed; nothing that follows means anything.
    pub fn next<'a>(
        &mut self,
        input: &mut &'a [u8],
        max_message: usize,
    ) -> Result<Option<Event<'a>>, Fault> {
        loop {
            if let Some(partial) = &mut self.partial
                && let Some(frame) = partial.frame
            {
                if !partial.take(frame, input)? {
                    return Ok(None);
                }
                return match frame.last {
                    true => self.whole(),
                    false => Ok(Some(Event::Fragment)),
                };
            }
            let Some(head) = Head::parse(input)? else {
                return Ok(None);
            };
            let body = &input[head.size..];
            if head.opcode.is_control() {
                let Some((masked, rest)) = split(body, head.payload) else {
                    return Ok(None);
                };
                *input = rest;
                return control(head.opcode, &Short::new(masked, head.key)).map(Some);
            }
            self.check(&head, max_message)?;
            if self.partial.is_none()
                && head.last
                && let Some((bytes, rest)) = split(body, head.payload)
            {
                *input = rest;
                let kind = kind(head.opcode);
                let (key, text) = (head.key, kind == Kind::Text);
                let payload = Payload::Masked { bytes, key, text };
                return Ok(Some(Event::Message(kind, payload)));
            }
            *input = body;
            self.begin(&head);
        }
    }

    /// Bytes of memory that hold a message which has not come whole.
    pub fn held(&self) -> usize {
        let held = |partial: &Partial| size_of::<Partial>() + partial.bytes.capacity();
        self.partial.as_deref().map_or(0, held)
    }

    /// Whether what `input` begins with is a ping, which is to be answered.
    pub fn is_at_ping(&self, input: &[u8]) -> bool {
        let within = self.partial.as_ref().is_some_and(|p| p.frame.is_some());
        let opcode = input.first().map(|first| first & 0x0f);
        !within && opcode == Some(Opcode::Ping as u8)
    }

    /// Whether there is a message that has not come whole.
    pub fn is_within_message(&self) -> bool {
        self.partial.is_some()
    }

    /// Whether a data frame may begin here, and be so long.
    fn check(&self, head: &Head, max: usize) -> Result<(), Fault> {
        let (have, fragments) = match (&self.partial, head.opcode) {
            (None, Opcode::Continuation) => return Err(Fault::NothingToContinue),
            (Some(partial), Opcode::Continuation) => (partial.bytes.len(), partial.fragments),
            (None, _) => (0, 0),
            (Some(_), _) => return Err(Fault::Interleaved),
        };
        if head.payload > (max.saturating_sub(have)) as u64 {
            return Err(Fault::TooBig { max });
        }
        let most = WS_FRAGMENTS_FREE + have / WS_FRAGMENT_MEAN;
        if fragments >= most {
            return Err(Fault::TooManyFragments { max: most });
        }
        Ok(())
    }

    fn begin(&mut self, head: &Head) {
        let partial = self.partial.get_or_insert_with(|| {
            Box::new(Partial {
                kind: kind(head.opcode),
                bytes: Vec::new(),
                utf8: Utf8::default(),
                fragments: 0,
                frame: None,
            })
        });
        partial.fragments += 1;
        partial.frame = Some(Frame {
            left: head.payload,
            key: head.key,
            last: head.last,
        });
    }

    fn whole<'a>(&mut self) -> Result<Option<Event<'a>>, Fault> {
        let Some(partial) = self.partial.take() else {
            return Ok(None);
        };
        partial.utf8.end()?;
        let payload = Payload::Whole(partial.bytes);
        Ok(Some(Event::Message(partial.kind, payload)))
    }
}

impl Partial {
    /// Takes what there is of a frame's payload; `true` when that was all.
    fn take(&mut self, frame: Frame, input: &mut &[u8]) -> Result<bool, Fault> {
        let here = usize::try_from(frame.left).map_or(input.len(), |left| left.min(input.len()));
        let (piece, rest) = input.split_at(here);
        *input = rest;
        let before = self.bytes.len();
        self.bytes.extend_from_slice(piece);
        let piece = &mut self.bytes[before..];
        let key = unmask(piece, frame.key);
        if self.kind == Kind::Text {
            self.utf8.check(piece)?;
        }
        let left = frame.left - here as u64;
        self.frame = (left > 0).then_some(Frame { left, key, ..frame });
        Ok(left == 0)
    }
}

fn kind(opcode: Opcode) -> Kind {
    match opcode {
        Opcode::Text => Kind::Text,
        _ => Kind::Binary,
    }
}

fn split(bytes: &[u8], at: u64) -> Option<(&[u8], &[u8])> {
    bytes.split_at_checked(usize::try_from(at).ok()?)
}

fn control<'a>(opcode: Opcode, payload: &Short) -> Result<Event<'a>, Fault> {
    Ok(match opcode {
        Opcode::Ping => Event::Ping(*payload),
        Opcode::Pong => Event::Pong,
        _ => Event::Close(Closing::parse(payload.as_slice())?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAX: usize = 1000;

    /// A client's frame.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let key = [1, 2, 3, payload.len() as u8];
        let (head, size) = super::super::put_head(Opcode::Text, payload.len());
        let mut frame = head[..size].to_vec();
        frame[0] = first;
        frame[1] |= 0x80;
        frame.extend(key);
        let start = frame.len();
        frame.extend(payload);
        unmask(&mut frame[start..], key);
        frame
    }

    /// What a client's pieces are read as.
    fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
        let (mut reader, mut held, mut told) = (Reader::default(), Vec::new(), Vec::new());
        for piece in pieces {
            held.extend_from_slice(piece);
            let mut left = &held[..];
            loop {
                match reader.next(&mut left, MAX) {
                    Ok(None) => break,
                    Ok(Some(Event::Message(kind, payload))) => {
                        let mut bytes = vec![0; payload.len()];
                        match payload.copy_to(&mut bytes) {
                            Ok(()) => told.push(format!("{kind:?} {}", bytes.escape_ascii())),
                            Err(fault) => {
                                told.push(format!("{fault:?}"));
                                return told;
                            }
                        }
                    }
                    Ok(Some(Event::Ping(payload))) => {
                        told.push(format!("ping {}", payload.as_slice().escape_ascii()));
                    }
                    Ok(Some(Event::Fragment)) => {}
                    Ok(Some(other)) => told.push(format!("{other:?}")),
                    Err(fault) => {
                        told.push(format!("{fault:?}"));
                        return told;
                    }
                }
            }
            let waiting = left.len();
            assert!(waiting <= 131, "{waiting} bytes are waited with");
            held.drain(..held.len() - waiting);
        }
        told
    }

    fn read_all(frames: &[Vec<u8>]) -> Vec<String> {
        let bytes = frames.concat();
        let whole = read([&bytes[..]].into_iter());
        assert_eq!(whole, read(bytes.chunks(1)));
        whole
    }

    #[test]
    fn messages_and_controls() {
        let told = read_all(&[
            frame(0x81, b"one"),
            frame(0x82, b"\xff"),
            frame(0x81, b""),
            frame(0x89, b"p"),
            frame(0x8a, b""),
            frame(0x88, b"\x03\xe8bye"),
        ]);
        let close = "Close(Closing { code: Some(1000) })";
        assert_eq!(
            told,
            ["Text one", "Binary \\xff", "Text ", "ping p", "Pong", close]
        );
    }

    #[test]
    fn fragments_with_controls_between() {
        let told = read_all(&[
            frame(0x01, "on€".as_bytes().split_at(4).0),
            frame(0x89, b"between"),
            frame(0x00, b""),
            frame(0x80, b"\xac!"),
            frame(0x02, b"\xff"),
            frame(0x80, b"\xfe"),
        ]);
        assert_eq!(
            told,
            [
                "ping between",
                "Text on\\xe2\\x82\\xac!",
                "Binary \\xff\\xfe"
            ]
        );
    }

    #[test]
    fn what_does_not_belong_there() {
        assert_eq!(read_all(&[frame(0x80, b"x")]), ["NothingToContinue"]);
        assert_eq!(
            read_all(&[frame(0x81, b"x"), frame(0x00, b"x")]),
            ["Text x", "NothingToContinue"]
        );
        assert_eq!(
            read_all(&[frame(0x01, b"x"), frame(0x81, b"x")]),
            ["Interleaved"]
        );
        assert_eq!(read_all(&[frame(0x88, b"x")]), ["HalfACode"]);
    }

    #[test]
    fn text_is_utf8() {
        assert_eq!(read_all(&[frame(0x81, b"a\xff")]), ["Utf8"]);
        assert_eq!(read_all(&[frame(0x81, b"a\xe2\x82")]), ["Utf8"]);
        assert_eq!(
            read_all(&[frame(0x01, b"a\xe2"), frame(0x80, b"a")]),
            ["Utf8"]
        );
        // As soon as it shows, not when the frame is over.
        let bytes = frame(0x81, b"a\xffbcdefghijkl");
        assert_eq!(read([&bytes[..8]].into_iter()), ["Utf8"]);
    }

    #[test]
    fn a_message_has_its_size_and_no_more() {
        let told = read_all(&[frame(0x82, &[0; MAX])]);
        assert!(told[0].starts_with("Binary"), "{told:?}");
        let bytes = frame(0x82, &[0; MAX + 1]);
        // The head is enough to know.
        let too_big = ["TooBig { max: 1000 }"];
        assert_eq!(read([&bytes[..8]].into_iter()), too_big);
        let told = read_all(&[frame(0x02, &[0; MAX]), frame(0x80, b"x")]);
        assert_eq!(told, too_big);
        assert_eq!(Fault::TooBig { max: 1 }.code(), 1009);
    }

    #[test]
    fn fragments_of_next_to_nothing_come_to_an_end() {
        let mut frames = vec![frame(0x01, b"")];
        frames.extend((1..WS_FRAGMENTS_FREE).map(|_| frame(0x00, b"")));
        assert_eq!(read_all(&frames), Vec::<String>::new());
        frames.push(frame(0x00, b""));
        let max = WS_FRAGMENTS_FREE;
        let fault = Fault::TooManyFragments { max };
        assert_eq!(read_all(&frames), [format!("{fault:?}")]);
        assert_eq!(fault.code(), 1008);
    }

    #[test]
    fn what_waits_for_nothing_takes_nothing() {
        assert_eq!(size_of::<Reader>(), 8);
        let mut reader = Reader::default();
        let bytes = frame(0x81, b"hello");
        let mut input = &bytes[..8];
        assert_eq!(reader.next(&mut input, MAX), Ok(None));
        assert!(reader.is_within_message() && reader.held() < 150);
        let mut input = &bytes[8..];
        assert!(matches!(reader.next(&mut input, MAX), Ok(Some(_))));
        assert!(!reader.is_within_message() && reader.held() == 0);
    }

    fn message() -> impl Strategy<Value = (Kind, Vec<u8>, Vec<usize>)> {
        let text = any::<String>().prop_map(|text| (Kind::Text, text.into_bytes()));
        let bytes = prop::collection::vec(any::<u8>(), 0..300);
        let binary = bytes.prop_map(|bytes| (Kind::Binary, bytes));
        let cuts = prop::collection::vec(0usize..100, 0..5);
        (prop_oneof![text, binary], cuts).prop_map(|((kind, bytes), cuts)| (kind, bytes, cuts))
    }

    proptest! {
        #[test]
        fn what_is_sent_is_read_however_it_is_cut(
            messages in prop::collection::vec(message(), 1..8),
            size in 1usize..400,
        ) {
            let (mut sent, mut expected) = (Vec::new(), Vec::new());
            for (kind, bytes, cuts) in &messages {
                let mut left = &bytes[..];
                let mut opcode = match kind {
                    Kind::Text => 1,
                    Kind::Binary => 2,
                };
                for cut in cuts {
                    let (piece, rest) = left.split_at((*cut).min(left.len()));
                    sent.extend(frame(opcode, piece));
                    sent.extend(frame(0x89, b"!"));
                    expected.push("ping !".into());
                    (left, opcode) = (rest, 0);
                }
                sent.extend(frame(0x80 | opcode, left));
                expected.push(format!("{kind:?} {}", bytes.escape_ascii()));
            }
            prop_assert_eq!(read(sent.chunks(size)), expected);
        }

        #[test]
        fn any_bytes_say_the_same_however_they_are_cut(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(0x81), Just(0x80)], 0..200),
        ) {
            let whole = read([&bytes[..]].into_iter());
            prop_assert_eq!(&whole, &read(bytes.chunks(1)));
            prop_assert_eq!(&whole, &read(bytes.chunks(7)));
        }
    }
}
