//! HTTP/1.1, as little of it as is needed, and a listener that answers every request `ok`.

use std::sync::Arc;

use super::report::count;
use super::server::Server;
use super::wire::{Protocol, Wire, Wrong};

/// Headers in a request.
const FIELDS_MAX: usize = 64;

/// What every request is answered, as bench_handler answers it.
pub const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok";

/// A request that is there as a whole.
#[derive(Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// Its body.
    pub body: &'a [u8],
    /// Bytes of head and body.
    pub bytes: usize,
    /// The client asks that the connection be closed behind it.
    pub close: bool,
    /// `Sec-WebSocket-Key`.
    pub websocket_key: Option<&'a [u8]>,
}

/// The request that `input` begins with. `None` asks for more.
///
/// # Errors
/// It is none, or is of a kind that is not known here (chunked).
pub fn request(input: &[u8]) -> Result<Option<Request<'_>>, Wrong> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut head = httparse::Request::new(&mut fields);
    let httparse::Status::Complete(start) = head.parse(input).map_err(|_| Wrong)? else {
        return Ok(None);
    };
    let (mut length, mut close, mut websocket_key) = (0usize, head.version == Some(0), None);
    for field in head.headers.iter() {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        if is("content-length") {
            let digits = str::from_utf8(field.value).map_err(|_| Wrong)?;
            length = digits.trim().parse().map_err(|_| Wrong)?;
        } else if is("transfer-encoding") {
            return Err(Wrong);
        } else if is("connection") {
            close |= field.value.eq_ignore_ascii_case(b"close");
        } else if is("sec-websocket-key") {
            websocket_key = Some(field.value);
        }
    }
    let bytes = start.checked_add(length).ok_or(Wrong)?;
    Ok(input.get(start..bytes).map(|body| Request {
        body,
        bytes,
        close,
        websocket_key,
    }))
}

/// Answers every request `ok`.
#[derive(Debug)]
pub struct Http {
    server: Arc<Server>,
}

impl Http {
    /// A connection on which nothing has come.
    pub fn new(server: &Arc<Server>) -> Self {
        Self {
            server: Arc::clone(server),
        }
    }
}

impl Protocol for Http {
    fn take(&mut self, input: &mut [u8], wire: &Arc<Wire>) -> Result<usize, Wrong> {
        let mut taken = 0;
        while let Some(request) = request(&input[taken..])? {
            taken += request.bytes;
            self.server.begin_stalls();
            count(&self.server.counts.requests);
            wire.send(OK);
            if request.close {
                wire.finish();
            }
        }
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POST: &[u8] =
        b"POST /x HTTP/1.1\r\nHost: a\r\ncontent-LENGTH: 5\r\nConnection: close\r\n\r\nhello";

    #[test]
    fn a_request_is_found_at_no_prefix_and_whatever_follows() {
        for cut in 0..POST.len() {
            assert_eq!(request(&POST[..cut]), Ok(None));
        }
        let more = [POST, b"GET /"].concat();
        let found = request(&more).unwrap().unwrap();
        assert_eq!((found.body, found.bytes), (&b"hello"[..], POST.len()));
        assert!(found.close && found.websocket_key.is_none());
        let plain = b"GET / HTTP/1.1\r\nsec-websocket-key: k\r\n\r\n";
        let found = request(plain).unwrap().unwrap();
        assert!(!found.close && found.body.is_empty());
        assert_eq!(found.websocket_key, Some(&b"k"[..]));
        let old = request(b"GET / HTTP/1.0\r\n\r\n").unwrap().unwrap();
        assert!(old.close);
    }

    #[test]
    fn what_is_no_request_is_told() {
        for wrong in [
            &b"\x16\x03\x01"[..],
            b"<stream>",
            b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: 18446744073709551615\r\n\r\n",
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            assert_eq!(request(wrong), Err(Wrong), "{}", wrong.escape_ascii());
        }
    }
}
