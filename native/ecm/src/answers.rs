//! Where one HTTP answer ends and the next begins, as far as it is easy to
//! see: a client that waits for an answer may be given one of ours only where
//! it cannot land inside another.

use httparse::{Response, Status};

/// Header fields of an answer that are looked at; one with more is not
/// followed.
const FIELDS_MAX: usize = 64;

/// What a connection of an `http` listener is in the middle of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Answers {
    /// Between two answers, or before the first.
    #[default]
    Between,
    /// In the body of one, with so many bytes to come, never 0.
    Body(u32),
    /// Somewhere, and so for good: in a body whose length is not said in
    /// bytes, or is 4 GiB, behind a head that came in pieces, in a WebSocket.
    Unknown,
}

/// What stands at the beginning of some bytes.
enum Head {
    /// An answer, with a body of so many bytes.
    Answer { length: usize, body: u32 },
    /// News of an answer that is to come (RFC 9110, section 15.2).
    Interim { length: usize },
    /// Anything else.
    Other,
}

impl Answers {
    /// Takes in what ejabberd sent. Returns whether an answer has begun.
    pub fn take(&mut self, mut bytes: &[u8]) -> bool {
        let mut begun = false;
        while !bytes.is_empty() {
            let taken = match *self {
                Self::Unknown => bytes.len(),
                Self::Body(left) => {
                    let taken = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    *self = Self::in_body(left - taken as u32);
                    taken
                }
                Self::Between => match head(bytes) {
                    Head::Interim { length } => length,
                    Head::Answer { length, body } => {
                        begun = true;
                        *self = Self::in_body(body);
                        length
                    }
                    Head::Other => {
                        begun = true;
                        *self = Self::Unknown;
                        bytes.len()
                    }
                },
            };
            bytes = &bytes[taken..];
        }
        begun
    }

    fn in_body(left: u32) -> Self {
        match left {
            0 => Self::Between,
            left => Self::Body(left),
        }
    }
}

fn head(bytes: &[u8]) -> Head {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut response = Response::new(&mut fields);
    let Ok(Status::Complete(length)) = response.parse(bytes) else {
        return Head::Other;
    };
    match response.code {
        Some(101) | None => Head::Other,
        Some(100..=199) => Head::Interim { length },
        Some(204 | 304) => Head::Answer { length, body: 0 },
        Some(_) => match content_length(&response) {
            Some(body) => Head::Answer { length, body },
            None => Head::Other,
        },
    }
}

/// The length of the body, if that is how its end is told (RFC 9112, section
/// 6.3).
fn content_length(response: &Response<'_, '_>) -> Option<u32> {
    let mut length = None;
    for field in &*response.headers {
        if field.name.eq_ignore_ascii_case("transfer-encoding") {
            return None;
        }
        if field.name.eq_ignore_ascii_case("content-length") {
            let digits = field.value.iter().all(u8::is_ascii_digit);
            let said = std::str::from_utf8(field.value).ok().filter(|_| digits)?;
            let said = said.parse().ok()?;
            if length.replace(said).is_some_and(|before| before != said) {
                return None;
            }
        }
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(parts: &[&str]) -> (Answers, Vec<bool>) {
        let mut answers = Answers::default();
        let begun = parts.iter().map(|part| answers.take(part.as_bytes()));
        let begun = begun.collect();
        (answers, begun)
    }

    #[test]
    fn answers_with_a_length_are_followed() {
        let ok = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n";
        assert_eq!(after(&[ok]), (Answers::Body(3), vec![true]));
        assert_eq!(
            after(&[ok, "ab", "c"]),
            (Answers::Between, vec![true, false, false])
        );
        let two = format!("{ok}abc{ok}a");
        assert_eq!(after(&[&two]), (Answers::Body(2), vec![true]));
        let empty = "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n";
        assert_eq!(after(&[empty]), (Answers::Between, vec![true]));
    }

    #[test]
    fn news_of_an_answer_are_none() {
        let interim = "HTTP/1.1 100 Continue\r\n\r\n";
        assert_eq!(after(&[interim]), (Answers::Between, vec![false]));
    }

    #[test]
    fn what_has_no_length_in_bytes_is_never_over() {
        for answer in [
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\nContent-Length: 4294967296\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\nContent-Le",
            "<stream:stream>",
        ] {
            let (answers, begun) = after(&[answer, "HTTP/1.1 204 No Content\r\n\r\n"]);
            assert_eq!(answers, Answers::Unknown, "{answer}");
            assert_eq!(begun, [true, false], "{answer}");
        }
    }
}
