//! Requests that are answered without anybody having seen them.

use super::{BodyError, HttpError};

/// Why a request is refused. Each closes the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Its head is none, or too long.
    #[error("{0}")]
    Head(HttpError),
    /// More than one `Host` (RFC 9112, section 3.2).
    #[error("more than one Host")]
    TwoHosts,
    /// Its body is no chunked one.
    #[error("{0}")]
    Body(BodyError),
    /// Its body is longer than is taken (`max_body_size`).
    #[error("the body is longer than max_body_size")]
    BodyTooLong,
    /// A `PUT` whose length is not known before it is over.
    #[error("a PUT needs a Content-Length")]
    NoLength,
    /// Its head did not come in time (`head_timeout`).
    #[error("the head did not come within head_timeout")]
    HeadTimeout,
    /// Its body stopped coming (`body_timeout`).
    #[error("too little of the body came within body_timeout")]
    BodyTimeout,
    /// There is no process that takes it.
    #[error("nobody took the request")]
    NotTaken,
    /// The process that had it is gone, and has not answered.
    #[error("the request's handler failed")]
    Failed,
}

impl Refusal {
    /// The status code of the answer.
    pub fn status(self) -> u16 {
        match self {
            // RFC 9112, section 6.1: a transfer coding that is not understood.
            Refusal::Head(HttpError::TransferEncoding) => 501,
            Refusal::Head(why) => why.status(),
            Refusal::TwoHosts | Refusal::Body(_) => 400,
            Refusal::HeadTimeout | Refusal::BodyTimeout => 408,
            Refusal::NoLength => 411,
            Refusal::BodyTooLong => 413,
            Refusal::Failed => 500,
            Refusal::NotTaken => 503,
        }
    }

    /// The whole answer, which is the connection's last one.
    pub fn answer(self) -> String {
        let (status, why) = (self.status(), self.to_string());
        let reason = reason(status);
        let length = why.len() + 1;
        format!(
            "HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Length: {length}\r\nConnection: close\r\n\r\n{why}\n"
        )
    }
}

/// The names of RFC 9110, section 15.
fn reason(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        408 => "Request Timeout",
        411 => "Length Required",
        413 => "Content Too Large",
        414 => "URI Too Long",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_why() {
        assert_eq!(
            Refusal::TwoHosts.answer(),
            "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Length: 19\r\nConnection: close\r\n\r\nmore than one Host\n"
        );
    }
}
