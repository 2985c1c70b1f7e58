//! One line, and whether it may be a header.

use super::HttpError;
use crate::limits::HTTP_ERROR_LINE_MAX;

/// What the beginning of some bytes is.
pub(super) enum Line<'b> {
    /// A line with its CRLF.
    Whole(&'b [u8]),
    /// A line with an LF that has no CR before it.
    BareLf(&'b [u8]),
    /// No line end yet.
    More,
    /// No line end within the limit.
    TooLong,
}

/// The line that `bytes` begin with, of at most `max` bytes with its end.
pub(super) fn first_line(bytes: &[u8], max: usize) -> Line<'_> {
    let within = &bytes[..bytes.len().min(max)];
    match memchr::memchr(b'\n', within) {
        Some(end) if end > 0 && within[end - 1] == b'\r' => Line::Whole(&within[..=end]),
        Some(end) => Line::BareLf(&within[..=end]),
        None if bytes.len() > max => Line::TooLong,
        None => Line::More,
    }
}

/// Whether a whole line may stand in a head as a header. `httparse` has nothing against it exactly
/// when it wants to see more, because the head's end is still to come.
pub(super) fn check_field(line: &[u8]) -> Result<(), HttpError> {
    match httparse::parse_headers(line, &mut [httparse::EMPTY_HEADER; 1]) {
        Ok(httparse::Status::Partial) => Ok(()),
        Err(httparse::Error::HeaderValue) => Err(HttpError::HeaderValue),
        Ok(httparse::Status::Complete(_)) | Err(_) => Err(HttpError::HeaderName),
    }
}

/// As much of a wrong line as is worth telling.
pub(super) fn error_line(line: &[u8]) -> &[u8] {
    &line[..line.len().min(HTTP_ERROR_LINE_MAX)]
}

/// `bytes` without the spaces and tabs they begin with.
pub(super) fn trim_start(bytes: &[u8]) -> &[u8] {
    let blank = bytes
        .iter()
        .take_while(|&&byte| byte == b' ' || byte == b'\t')
        .count();
    &bytes[blank..]
}
