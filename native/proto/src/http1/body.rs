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

/// Why a body was refused. Each closes the connection, because nobody can tell where the next request begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// A chunk does not begin with 1 to 16 hexadecimal digits, or with a size of 2^63 or more.
    #[error("a chunk's size is wrong")]
    ChunkSize,
    /// What is between a chunk's size and its line end is no extension, or holds control characters.
    #[error("a chunk's extension is wrong")]
    ChunkExtension,
    /// Extensions are longer than [`HTTP_CHUNK_LINE_MAX`] for one chunk or [`HTTP_CHUNK_EXTENSIONS_MAX`] in all.
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

/// Takes a body out of the bytes behind its head. Holds no bytes itself, so a body of any length costs 16 bytes; whoever
/// gathers the pieces sets the limit. Trailers and chunk extensions are checked and dropped.
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

    /// The next piece of `input`, which is advanced behind it. `None` means that more bytes are needed; what is left in
    /// `input` must be given again with them, and is never more than a line within its limit. An error stays.
    pub fn next<'b>(&mut self, input: &mut &'b [u8]) -> Result<Option<BodyPiece<'b>>, BodyError> {
        let result = self.step(input);
        if let Err(why) = result {
            self.stage = Stage::Failed(why);
        }
        result
    }

    /// How many bytes of the body are certain to come still: all of them with `Content-Length`, the rest of the chunk
    /// with chunks.
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
