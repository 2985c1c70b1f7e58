//! The one thing said in HTTP here: that there is no service.

/// What a client of an `http` listener is told that cannot be served now
/// (RFC 9110, section 15.6.4). `Content-Length` is that of the body.
pub const UNAVAILABLE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
Retry-After: 5\r\n\
Content-Type: text/plain; charset=utf-8\r\n\
Content-Length: 66\r\n\
Cache-Control: no-store\r\n\
Connection: close\r\n\
\r\n\
The service cannot be reached just now. Try again in some seconds.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_is_that_of_the_body() {
        let text = std::str::from_utf8(UNAVAILABLE).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())),
            "{}",
            body.len()
        );
    }
}
