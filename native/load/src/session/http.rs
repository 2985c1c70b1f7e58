//! HTTP responses, as they come: heads by `httparse`, bodies with a length or in chunks.

use std::borrow::Cow;

use super::{Fault, MAX_STANZA};

/// A response has no more headers than this: twice what a proxy in front of a server adds.
const MAX_HEADERS: usize = 64;

/// A response's head is not longer than this, in bytes.
const MAX_HEAD: usize = 16 * 1024;

/// A response's head.
#[derive(Debug)]
pub(super) struct Head<'a> {
    /// How many bytes it has.
    pub(super) length: usize,
    pub(super) status: u16,
    minor_version: u8,
    headers: Vec<httparse::Header<'a>>,
}

/// A whole response.
#[derive(Debug)]
pub(super) struct Response<'a> {
    /// How many bytes it has, head and body.
    pub(super) length: usize,
    pub(super) status: u16,
    pub(super) body: Cow<'a, [u8]>,
    /// Whether the connection can carry another.
    pub(super) keep_alive: bool,
}

/// The head at the bytes' start; `None`: it is not whole.
pub(super) fn head(bytes: &[u8]) -> Result<Option<Head<'_>>, Fault> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => Ok(Some(Head {
            length,
            status: response.code.unwrap_or_default(),
            minor_version: response.version.unwrap_or_default(),
            headers: response.headers.to_vec(),
        })),
        Ok(httparse::Status::Partial) if bytes.len() <= MAX_HEAD => Ok(None),
        _ => Err(Fault::Protocol("not an HTTP response")),
    }
}

/// The response at the bytes' start; `None`: it is not whole.
pub(super) fn response(bytes: &[u8]) -> Result<Option<Response<'_>>, Fault> {
    let Some(head) = head(bytes)? else {
        return Ok(None);
    };
    let rest = &bytes[head.length..];
    let body = match head.header("transfer-encoding") {
        Some(coding) if coding.eq_ignore_ascii_case("chunked") => chunked(rest)?,
        Some(_) => return Err(Fault::Protocol("an unknown transfer coding")),
        None => {
            let length = head.content_length()?;
            rest.get(..length).map(|body| (length, Cow::Borrowed(body)))
        }
    };
    Ok(body.map(|(length, body)| Response {
        length: head.length + length,
        status: head.status,
        keep_alive: head.keep_alive(),
        body,
    }))
}

impl Head<'_> {
    /// A header's value, where it is ASCII; `name` is of small letters.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(found.value).ok()
    }

    fn content_length(&self) -> Result<usize, Fault> {
        let length = match self.header("content-length") {
            Some(length) => length.parse().ok(),
            None if self.status == 204 => Some(0),
            None => None,
        };
        match length {
            Some(length) if length <= MAX_STANZA => Ok(length),
            Some(_) => Err(Fault::Protocol("an HTTP body too large")),
            // An error may be told until the connection ends; its status is all that counts.
            None if self.status != 200 => Ok(0),
            None => Err(Fault::Protocol("an HTTP response without a length")),
        }
    }

    fn keep_alive(&self) -> bool {
        let connection = self.header("connection").unwrap_or_default();
        match self.minor_version {
            0 => connection.eq_ignore_ascii_case("keep-alive"),
            _ => !connection.eq_ignore_ascii_case("close"),
        }
    }
}

/// A body, and how many bytes it took.
type Body<'a> = (usize, Cow<'a, [u8]>);

/// A body in chunks (RFC 9112, 7.1); `None`: it is not whole.
fn chunked(bytes: &[u8]) -> Result<Option<Body<'_>>, Fault> {
    let wrong = Fault::Protocol("an HTTP chunk that is none");
    let mut body = Vec::new();
    let mut at = 0;
    loop {
        let rest = &bytes[at..];
        let (start, size) = match httparse::parse_chunk_size(rest) {
            Ok(httparse::Status::Complete(found)) => found,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(wrong),
        };
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        if size == 0 {
            return Ok(trailers(&rest[start..]).map(|end| (at + start + end, body.into())));
        }
        if size > MAX_STANZA || body.len() > MAX_STANZA - size {
            return Err(Fault::Protocol("an HTTP body too large"));
        }
        let end = start + size;
        let Some(chunk) = rest.get(start..end) else {
            return Ok(None);
        };
        match rest.get(end..end + 2) {
            Some(b"\r\n") => body.extend_from_slice(chunk),
            Some(_) => return Err(wrong),
            None => return Ok(None),
        }
        at += end + 2;
    }
}

/// How long the trailers are, with the empty line after them.
fn trailers(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let line = bytes[at..].windows(2).position(|pair| pair == b"\r\n")?;
        at += line + 2;
        if line == 0 {
            return Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(bytes: &[u8]) -> Response<'_> {
        response(bytes).unwrap().unwrap()
    }

    #[test]
    fn every_prefix_of_a_response_wants_more() {
        for text in [
            &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"[..],
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nhe\r\n3\r\nllo\r\n0\r\nA: b\r\n\r\n",
        ] {
            for end in 0..text.len() {
                assert!(response(&text[..end]).unwrap().is_none(), "{end}");
            }
            let found = whole(text);
            assert_eq!((found.length, &*found.body), (text.len(), &b"hello"[..]));
            assert!(found.keep_alive);
        }
    }

    #[test]
    fn whether_a_connection_lives_on_is_seen() {
        assert!(!whole(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n").keep_alive);
        assert!(
            !whole(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: Close\r\n\r\n").keep_alive
        );
    }

    #[test]
    fn what_is_wrong_is_an_error() {
        for text in [
            &b"XMPP\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc",
        ] {
            assert!(response(text).is_err());
        }
    }
}
