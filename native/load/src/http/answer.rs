//! One HTTP answer at the start of some bytes: whole, need more, or wrong.

use httparse::{EMPTY_HEADER, Response, Status};

/// Headers in an answer, at most.
const HEADERS_MAX: usize = 64;

/// The largest answer that is taken, in bytes.
const ANSWER_MAX: usize = 16 * 1024 * 1024;

/// A whole answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Its bytes, head and body.
    pub len: usize,
    /// Its status code.
    pub status: u16,
    /// The server closes the connection behind it.
    pub closes: bool,
}

/// Why bytes are no answer that can be taken: the kind of error to count.
pub type Wrong = &'static str;

/// Reads an answer. `None` needs more bytes.
pub fn parse(bytes: &[u8]) -> Result<Option<Answer>, Wrong> {
    let mut headers = [EMPTY_HEADER; HEADERS_MAX];
    let mut response = Response::new(&mut headers);
    let head = match response.parse(bytes) {
        Ok(Status::Complete(head)) => head,
        Ok(Status::Partial) if bytes.len() < ANSWER_MAX => return Ok(None),
        Ok(Status::Partial) => return Err("an answer too long"),
        Err(_) => return Err("not HTTP"),
    };
    let (mut body, mut closes) = (None, response.version == Some(0));
    for header in response.headers.iter() {
        if header.name.eq_ignore_ascii_case("content-length") {
            let digits = std::str::from_utf8(header.value).map_err(|_| "not HTTP")?;
            body = Some(digits.trim().parse::<usize>().map_err(|_| "not HTTP")?);
        } else if header.name.eq_ignore_ascii_case("connection") {
            closes |= header.value.eq_ignore_ascii_case(b"close");
        }
    }
    let body = body.ok_or("an answer without Content-Length")?;
    let len = head.saturating_add(body);
    if len > ANSWER_MAX {
        return Err("an answer too long");
    }
    let answer = Answer {
        len,
        status: response.code.unwrap_or(0),
        closes,
    };
    Ok((bytes.len() >= len).then_some(answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: &[u8] = b"HTTP/1.1 200 OK\r\nServer: x\r\ncontent-LENGTH: 2\r\n\r\nok";

    #[test]
    fn every_prefix_needs_more_and_the_rest_is_left() {
        for len in 0..OK.len() {
            assert_eq!(parse(&OK[..len]), Ok(None), "{len}");
        }
        let whole = Answer {
            len: OK.len(),
            status: 200,
            closes: false,
        };
        assert_eq!(parse(OK), Ok(Some(whole)));
        assert_eq!(parse(&[OK, b"HTTP/1"].concat()), Ok(Some(whole)));
    }

    #[test]
    fn who_closes_says_so() {
        let closes = |text: &str| parse(text.as_bytes()).unwrap().unwrap().closes;
        assert!(closes(
            "HTTP/1.1 503 No\r\nConnection: Close\r\nContent-Length: 0\r\n\r\n"
        ));
        assert!(closes("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"));
        assert!(!closes(
            "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n"
        ));
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert_eq!(parse(b"SSH-2.0-x\r\n"), Err("not HTTP"));
        assert_eq!(
            parse(b"HTTP/1.1 200 OK\r\n\r\n"),
            Err("an answer without Content-Length")
        );
        assert_eq!(
            parse(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"),
            Err("not HTTP")
        );
        assert_eq!(
            parse(b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n"),
            Err("an answer too long")
        );
    }
}
