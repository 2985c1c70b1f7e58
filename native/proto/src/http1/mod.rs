//! HTTP/1 request heads and bodies: bytes in, items out, as `erlang:decode_packet/3` gives them.
//!
//! [`httparse`](https://docs.rs/httparse) says whether bytes are a head; this module hands the head
//! out item by item, refuses what lets requests be smuggled, and bounds everything. `docs/http.md`
//! lists where the answers differ from `decode_packet`'s. The rules are those of RFC 9110 and RFC
//! 9112.

mod body;
mod collect;
mod framing;
mod head;
mod line;
mod name;
mod query;
mod reader;
mod refusal;
mod request;
mod target;
#[cfg(test)]
mod tests;
mod values;

pub use body::{BodyDecoder, BodyError, BodyPiece};
pub use collect::{Collector, Progress};
pub use framing::BodyFraming;
pub use head::{Head, parse_head, reread_head};
pub use name::{FORMATTED_MAX, KNOWN_HEADERS, Name, known};
pub use query::pairs;
pub use reader::{HttpReader, Step};
pub use refusal::Refusal;
pub use request::{KNOWN_METHODS, Method, Scheme, Uri};
pub use target::{BadEscape, segments, split_target};
pub use values::{capitalize, first_language, has_word, host};

/// One part of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'b> {
    /// `{http_request, Method, Uri, Version}`
    Request {
        /// What to do.
        method: Method<'b>,
        /// With what.
        uri: Uri<'b>,
        /// `(1, 0)` or `(1, 1)`.
        version: (u8, u8),
    },
    /// `{http_header, Bit, Field, RawField, Value}`
    Header {
        /// Bit, Field and RawField.
        name: Name<'b>,
        /// Without the space before it and with that behind it, as `decode_packet` gives it.
        value: &'b [u8],
    },
    /// `http_eoh`: the head is over.
    Eoh,
    /// `{http_error, Line}`: the request cannot be read, nor anything behind it. Answer 400 (or
    /// what [`HttpError::status`] says) and close the connection.
    Error {
        /// The wrong line with its line end, at most its first
        /// [`HTTP_ERROR_LINE_MAX`](crate::limits::HTTP_ERROR_LINE_MAX) bytes.
        line: &'b [u8],
        /// What is wrong.
        why: HttpError,
    },
}

/// Why a head was refused. Each closes the connection, because nobody can tell where the next
/// request begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[repr(u8)]
pub enum HttpError {
    /// The method is no token, or there is none (an empty line too many, a response).
    #[error("the request line does not begin with a method")]
    Method,
    /// The target is empty or holds control characters or broken UTF-8.
    #[error("the request target is wrong")]
    Target,
    /// Neither `HTTP/1.0` nor `HTTP/1.1`, or something stands after it.
    #[error("the request line does not end in HTTP/1.0 or HTTP/1.1")]
    Version,
    /// A line ends in LF without CR.
    #[error("a line ends without CR")]
    BareLf,
    /// A header's name is empty, is no token, has a space behind it, or there is no colon.
    #[error("a header name is wrong")]
    HeaderName,
    /// A header's value holds a control character, such as NUL or a bare CR.
    #[error("a header value holds a control character")]
    HeaderValue,
    /// A header goes on in the next line (obs-fold, RFC 9112 section 5.2).
    #[error("a header is folded")]
    Folded,
    /// `Content-Length` is no plain decimal number below 2^63.
    #[error("Content-Length is no number")]
    ContentLength,
    /// `Transfer-Encoding` is not just `chunked`, or stands in HTTP/1.0.
    #[error("Transfer-Encoding is not chunked")]
    TransferEncoding,
    /// More than one header says where the body ends, whether they agree or not.
    #[error("more than one Content-Length or Transfer-Encoding")]
    TwoLengths,
    /// The target is longer than [`HTTP_TARGET_MAX`](crate::limits::HTTP_TARGET_MAX).
    #[error("the request target is too long")]
    TargetTooLong,
    /// The head is longer than [`HTTP_HEAD_MAX`](crate::limits::HTTP_HEAD_MAX).
    #[error("the head is too long")]
    HeadTooLong,
    /// There are more than [`HTTP_FIELDS_MAX`](crate::limits::HTTP_FIELDS_MAX) headers.
    #[error("too many headers")]
    TooManyFields,
}

impl HttpError {
    /// The status code to answer with: 400, 414, 431 or 505.
    pub fn status(self) -> u16 {
        match self {
            HttpError::TargetTooLong => 414,
            HttpError::HeadTooLong | HttpError::TooManyFields => 431,
            HttpError::Version => 505,
            _ => 400,
        }
    }
}
