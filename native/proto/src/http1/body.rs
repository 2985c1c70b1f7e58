//! A request's body, piece by piece.

use super::BodyFraming;
use super::line::{Line, check_field, first_line};
use crate::limits::{HTTP_CHUNK_EXTENSIONS_MAX, HTTP_CHUNK_LINE_MAX, HTTP_TRAILERS_MAX};

/// A part of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyPiece<'b> {
    /// Bytes of the body; never none.
    Data(&'b [u8]),
    /// The body is over. Given once; after it, the decoder takes nothing more.
    End,
}

/// Why a body was refused. Each closes the connection, because nobody can tell where the next
/// request begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// A chunk does not begin with 1 to 16 hexadecimal digits, or with a size of 2^63 or more.
    #[error("a chunk's size is wrong")]
    ChunkSize,
    /// What is between a chunk's size and its line end is no extension, or holds control
    /// characters.
    #[error("a chunk's extension is wrong")]
    ChunkExtension,
    /// Extensions are longer than [`HTTP_CHUNK_LINE_MAX`] for one chunk or
    /// [`HTTP_CHUNK_EXTENSIONS_MAX`] in all.
    #[error("a chunk's extensions are too long")]
    ExtensionsTooLong,
    /// A chunk is not followed by CRLF.
    #[error("a chunk does not end where its size says")]
    ChunkEnd,
    /// A line ends in LF without CR.
    #[error("a line between chunks ends without CR")]
    BareLf,
    /// A trailer is no header line.
    #[error("a trailer is wrong")]
    Trailer,
    /// The trailers are longer than [`HTTP_TRAILERS_MAX`].
    #[error("the trailers are too long")]
    TrailersTooLong,
}

/// Takes a body out of the bytes behind its head. Holds no bytes itself, so a body of any length
/// costs 16 bytes; whoever gathers the pieces sets the limit. Trailers and chunk extensions are
/// checked and dropped.
///
/// ```text
///   Length ── all there ─────────────────────────────────┐
///                                                        ▼
///   Size ──► Chunk ──► ChunkEnd ──► Size ... ─ 0 ─► Trailers ─► End
///     └────────┴───────────┴──────────────────────────┴──► Failed
/// ```
#[derive(Clone, Debug)]
pub struct BodyDecoder {
    /// Bytes to come of the body or of the chunk.
    left: u64,
    /// Bytes seen of all extensions, later of all trailers.
    spent: u16,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// In a body of known length.
    Length,
    /// Before a chunk's size.
    Size,
    /// In a chunk.
    Chunk,
    /// Before the CRLF behind a chunk.
    ChunkEnd,
    /// Behind the last chunk.
    Trailers,
    /// [`BodyPiece::End`] was given.
    End,
    Failed(BodyError),
}

const _: () = assert!(HTTP_CHUNK_EXTENSIONS_MAX + HTTP_CHUNK_LINE_MAX <= u16::MAX as usize);
const _: () = assert!(HTTP_TRAILERS_MAX <= u16::MAX as usize);

impl BodyDecoder {
    /// A decoder for a body framed like that.
    pub const fn new(framing: BodyFraming) -> BodyDecoder {
        let (left, stage) = match framing {
            BodyFraming::None => (0, Stage::Length),
            BodyFraming::Length(length) => (length, Stage::Length),
            BodyFraming::Chunked => (0, Stage::Size),
        };
        BodyDecoder {
            left,
            spent: 0,
            stage,
        }
    }

    /// The next piece of `input`, which is advanced behind it. `None` means that more bytes are
    /// needed; what is left in `input` must be given again with them, and is never more than a line
    /// within its limit. An error stays.
    pub fn next<'b>(&mut self, input: &mut &'b [u8]) -> Result<Option<BodyPiece<'b>>, BodyError> {
        let result = self.step(input);
        if let Err(why) = result {
            self.stage = Stage::Failed(why);
        }
        result
    }

    /// How many bytes of the body are certain to come still: all of them with `Content-Length`, the
    /// rest of the chunk with chunks.
    pub fn remaining(&self) -> u64 {
        self.left
    }

    fn step<'b>(&mut self, input: &mut &'b [u8]) -> Result<Option<BodyPiece<'b>>, BodyError> {
        loop {
            match self.stage {
                Stage::Length | Stage::Chunk if self.left > 0 => return Ok(self.data(input)),
                Stage::Length => {
                    self.stage = Stage::End;
                    return Ok(Some(BodyPiece::End));
                }
                Stage::Chunk => self.stage = Stage::ChunkEnd,
                Stage::ChunkEnd => match *input {
                    [b'\r', b'\n', rest @ ..] => (*input, self.stage) = (rest, Stage::Size),
                    [] | [b'\r'] => return Ok(None),
                    _ => return Err(BodyError::ChunkEnd),
                },
                Stage::Size => {
                    match line(input, HTTP_CHUNK_LINE_MAX, BodyError::ExtensionsTooLong)? {
                        Some(line) => self.chunk_size(line)?,
                        None => return Ok(None),
                    }
                }
                Stage::Trailers => {
                    let room = HTTP_TRAILERS_MAX - usize::from(self.spent);
                    match line(input, room, BodyError::TrailersTooLong)? {
                        Some(b"\r\n") => {
                            self.stage = Stage::End;
                            return Ok(Some(BodyPiece::End));
                        }
                        Some(line) => self.trailer(line)?,
                        None => return Ok(None),
                    }
                }
                Stage::End => return Ok(None),
                Stage::Failed(why) => return Err(why),
            }
        }
    }

    fn data<'b>(&mut self, input: &mut &'b [u8]) -> Option<BodyPiece<'b>> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let data = input
            .split_off(..input.len().min(most))
            .filter(|data| !data.is_empty())?;
        self.left -= data.len() as u64;
        Some(BodyPiece::Data(data))
    }

    /// `chunk-size [ chunk-ext ] CRLF` (RFC 9112, section 7.1).
    fn chunk_size(&mut self, line: &[u8]) -> Result<(), BodyError> {
        let content = &line[..line.len() - 2];
        let digits = content
            .iter()
            .take_while(|byte| byte.is_ascii_hexdigit())
            .count();
        let (digits, extension) = content.split_at(digits);
        self.left = size(digits).ok_or(BodyError::ChunkSize)?;
        check_extension(extension)?;
        self.spent += extension.len() as u16;
        if usize::from(self.spent) > HTTP_CHUNK_EXTENSIONS_MAX {
            return Err(BodyError::ExtensionsTooLong);
        }
        match self.left {
            0 => (self.spent, self.stage) = (0, Stage::Trailers),
            _ => self.stage = Stage::Chunk,
        }
        Ok(())
    }

    fn trailer(&mut self, line: &[u8]) -> Result<(), BodyError> {
        check_field(line).map_err(|_| BodyError::Trailer)?;
        self.spent += line.len() as u16;
        Ok(())
    }
}

/// Takes a line of at most `max` bytes off `input`.
fn line<'b>(
    input: &mut &'b [u8],
    max: usize,
    too_long: BodyError,
) -> Result<Option<&'b [u8]>, BodyError> {
    match first_line(input, max) {
        Line::Whole(line) => {
            *input = &input[line.len()..];
            Ok(Some(line))
        }
        Line::BareLf(_) => Err(BodyError::BareLf),
        Line::TooLong => Err(too_long),
        Line::More => Ok(None),
    }
}

fn size(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    let size = digits.iter().fold(0, |sum, &digit| {
        sum << 4 | u64::from((digit as char).to_digit(16).unwrap_or(0))
    });
    (size < 1 << 63).then_some(size)
}

fn check_extension(extension: &[u8]) -> Result<(), BodyError> {
    let plain = |&byte: &u8| byte == b'\t' || (byte >= b' ' && byte != 0x7f);
    match extension {
        [] => Ok(()),
        [b';', rest @ ..] if rest.iter().all(plain) => Ok(()),
        _ => Err(BodyError::ChunkExtension),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CHUNKED: BodyFraming = BodyFraming::Chunked;

    /// The body, and how many bytes were left behind it; `None` when it is not all there.
    type Decoded = Result<(Vec<u8>, Option<usize>), BodyError>;

    fn whole(framing: BodyFraming, mut bytes: &[u8]) -> Decoded {
        let (mut decoder, mut body) = (BodyDecoder::new(framing), Vec::new());
        while let Some(piece) = decoder.next(&mut bytes)? {
            match piece {
                BodyPiece::Data(data) => body.extend_from_slice(data),
                BodyPiece::End => return Ok((body, Some(bytes.len()))),
            }
        }
        Ok((body, None))
    }

    fn byte_by_byte(framing: BodyFraming, bytes: &[u8]) -> Decoded {
        let (mut decoder, mut body, mut held) = (BodyDecoder::new(framing), Vec::new(), Vec::new());
        for (at, &byte) in bytes.iter().enumerate() {
            held.push(byte);
            let mut input = held.as_slice();
            while let Some(piece) = decoder.next(&mut input)? {
                match piece {
                    BodyPiece::Data(data) => body.extend_from_slice(data),
                    BodyPiece::End => return Ok((body, Some(bytes.len() - at - 1 + input.len()))),
                }
            }
            held = input.to_vec();
            assert!(held.len() <= HTTP_TRAILERS_MAX, "waits for ever");
        }
        Ok((body, None))
    }

    fn agreed(framing: BodyFraming, bytes: &[u8]) -> Decoded {
        let decoded = whole(framing, bytes);
        assert_eq!(
            byte_by_byte(framing, bytes),
            decoded,
            "{}",
            bytes.escape_ascii()
        );
        decoded
    }

    fn why(bytes: &str) -> Option<BodyError> {
        agreed(CHUNKED, bytes.as_bytes()).err()
    }

    #[test]
    fn of_known_length() {
        assert_eq!(whole(BodyFraming::None, b"GET"), Ok((vec![], Some(3))));
        assert_eq!(whole(BodyFraming::Length(0), b""), Ok((vec![], Some(0))));
        assert_eq!(
            agreed(BodyFraming::Length(3), b"abcGET"),
            Ok((b"abc".to_vec(), Some(3)))
        );
        assert_eq!(
            agreed(BodyFraming::Length(3), b"ab"),
            Ok((b"ab".to_vec(), None))
        );
        let mut decoder = BodyDecoder::new(BodyFraming::Length(u64::MAX >> 1));
        assert_eq!(
            decoder.next(&mut &b"ab"[..]),
            Ok(Some(BodyPiece::Data(b"ab")))
        );
        assert_eq!(decoder.remaining(), (u64::MAX >> 1) - 2);
    }

    #[test]
    fn in_chunks() {
        let body =
            b"5\r\nhello\r\n00a;x=\"y\";z\r\n, world\r\n!\r\n0\r\nTrailer: a\r\nb: \r\n\r\nGET";
        assert_eq!(
            agreed(CHUNKED, body),
            Ok((b"hello, world\r\n!".to_vec(), Some(3)))
        );
        assert_eq!(agreed(CHUNKED, b"0\r\n\r\n"), Ok((vec![], Some(0))));
        for end in 0..body.len() - 3 {
            let (part, left) = whole(CHUNKED, &body[..end]).unwrap();
            assert!(b"hello, world\r\n!".starts_with(&part));
            assert_eq!(left, None);
        }
    }

    #[test]
    fn nothing_after_the_end() {
        let mut decoder = BodyDecoder::new(BodyFraming::None);
        assert_eq!(decoder.next(&mut &b"x"[..]), Ok(Some(BodyPiece::End)));
        assert_eq!(decoder.next(&mut &b"x"[..]), Ok(None));
    }

    #[test]
    fn wrong_chunks() {
        use BodyError::*;
        for (bytes, error) in [
            ("\r\n", ChunkSize),
            ("+5\r\nhello", ChunkSize),
            ("-5\r\nhello", ChunkSize),
            ("0x5\r\nhello", ChunkExtension),
            (" 5\r\nhello", ChunkSize),
            ("5 \r\nhello", ChunkExtension),
            ("5\t;a\r\nhello", ChunkExtension),
            ("g\r\n", ChunkSize),
            ("8000000000000000\r\n", ChunkSize),
            ("00000000000000005\r\n", ChunkSize),
            ("5;a\rb\r\nhello", ChunkExtension),
            ("5;a\0b\r\nhello", ChunkExtension),
            ("5\nhello", BareLf),
            ("5;a\nhello", BareLf),
            ("5\r\nhelloX\r\n", ChunkEnd),
            ("5\r\nhello\n", ChunkEnd),
            ("5\r\nhello\rX", ChunkEnd),
            ("0\r\n\n", BareLf),
            ("0\r\na\r\n\r\n", Trailer),
            ("0\r\n a: b\r\n\r\n", Trailer),
            ("0\r\na : b\r\n\r\n", Trailer),
            ("0\r\na: \0\r\n\r\n", Trailer),
        ] {
            assert_eq!(why(bytes), Some(error), "{bytes:?}");
        }
        assert_eq!(why("7fffffffffffffff\r\nx"), None);
    }

    #[test]
    fn an_error_stays() {
        let mut decoder = BodyDecoder::new(CHUNKED);
        assert_eq!(decoder.next(&mut &b"g\r\n"[..]), Err(BodyError::ChunkSize));
        assert_eq!(
            decoder.next(&mut &b"0\r\n\r\n"[..]),
            Err(BodyError::ChunkSize)
        );
    }

    #[test]
    fn limits() {
        use BodyError::*;
        let size_line = |length: usize| format!("1;{}\r\n", "a".repeat(length - 4));
        assert_eq!(why(&size_line(HTTP_CHUNK_LINE_MAX)), None);
        assert_eq!(
            why(&size_line(HTTP_CHUNK_LINE_MAX + 1)),
            Some(ExtensionsTooLong)
        );
        assert_eq!(
            why(&"1".repeat(HTTP_CHUNK_LINE_MAX + 1)),
            Some(ExtensionsTooLong)
        );
        let chunks = |count: usize| "1;234567\r\nx\r\n".repeat(count);
        assert_eq!(why(&chunks(HTTP_CHUNK_EXTENSIONS_MAX / 7)), None);
        assert_eq!(
            why(&chunks(HTTP_CHUNK_EXTENSIONS_MAX / 7 + 1)),
            Some(ExtensionsTooLong)
        );
        let trailers = |length: usize| format!("0\r\na: {}\r\n\r\n", "b".repeat(length - 7));
        assert_eq!(why(&trailers(HTTP_TRAILERS_MAX)), None);
        assert_eq!(why(&trailers(HTTP_TRAILERS_MAX + 1)), Some(TrailersTooLong));
        assert_eq!(
            why(&format!("0\r\n{}", "a: b\r\n".repeat(HTTP_TRAILERS_MAX))),
            Some(TrailersTooLong)
        );
    }

    proptest! {
        #[test]
        fn any_body_in_any_chunks(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 0..8)) {
            let mut bytes: Vec<u8> = Vec::new();
            for chunk in &chunks {
                bytes.extend(format!("{:x}\r\n", chunk.len()).as_bytes());
                bytes.extend(chunk);
                bytes.extend(b"\r\n");
            }
            bytes.extend(b"0\r\n\r\nrest");
            prop_assert_eq!(agreed(CHUNKED, &bytes), Ok((chunks.concat(), Some(4))));
        }

        #[test]
        fn any_bytes_decode_the_same_in_every_way(
            bytes in "([0-9a-f]{1,2}|\r\n|\r|\n|;|[ -~]|a: b\r\n|0\r\n\r\n){0,20}",
        ) {
            agreed(CHUNKED, bytes.as_bytes()).ok();
        }
    }
}
