//! Where a request's body ends, from its headers (RFC 9112, section 6).

use super::HttpError;
use super::name::{CONTENT_LENGTH, Name, TRANSFER_ENCODING};

/// How the body after a head is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFraming {
    /// Neither `Content-Length` nor `Transfer-Encoding`: a request then has no body.
    None,
    /// `Content-Length`: that many bytes.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// Largest `Content-Length`: that fits an `i64`, so that whoever reads the number behind us cannot
/// wrap it.
const LENGTH_MAX: u64 = 1 << 63;

/// [`BodyFraming`] in 8 bytes, because every connection that reads HTTP has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Framing(u64);

impl Framing {
    pub(super) const NONE: Framing = Framing(u64::MAX);
    const CHUNKED: Framing = Framing(u64::MAX - 1);

    pub(super) fn body(self) -> BodyFraming {
        match self {
            Framing::NONE => BodyFraming::None,
            Framing::CHUNKED => BodyFraming::Chunked,
            Framing(length) => BodyFraming::Length(length),
        }
    }

    /// Takes the next header into account. One header may say where the body ends, and in one way
    /// only: whatever a second could be read as, someone before or behind us may read it the other
    /// way, and see another request.
    pub(super) fn see(
        &mut self,
        name: &Name<'_>,
        value: &[u8],
        http10: bool,
    ) -> Result<(), HttpError> {
        let seen = match name.known().map(|place| place as u8) {
            Some(CONTENT_LENGTH) => Framing(length(value)?),
            Some(TRANSFER_ENCODING) if http10 => return Err(HttpError::TransferEncoding),
            Some(TRANSFER_ENCODING) => chunked(value)?,
            _ => return Ok(()),
        };
        if *self != Framing::NONE {
            return Err(HttpError::TwoLengths);
        }
        *self = seen;
        Ok(())
    }
}

fn length(value: &[u8]) -> Result<u64, HttpError> {
    let add = |sum: u64, &digit: &u8| match digit {
        b'0'..=b'9' => sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    };
    match value.trim_ascii() {
        [] => Err(HttpError::ContentLength),
        digits => digits
            .iter()
            .try_fold(0, add)
            .filter(|&sum| sum < LENGTH_MAX)
            .ok_or(HttpError::ContentLength),
    }
}

fn chunked(value: &[u8]) -> Result<Framing, HttpError> {
    match value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
        true => Ok(Framing::CHUNKED),
        false => Err(HttpError::TransferEncoding),
    }
}
