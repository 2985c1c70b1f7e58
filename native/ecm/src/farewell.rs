//! How a client's socket is ended.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use megaphone_proto::buffer::Buffer;
use megaphone_proto::control::CloseReason;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::Kind;

/// How long a client that was sent everything may take to close. Only then
/// is it sure to have read it: to close on one that still sends makes the
/// kernel send a reset, at which it may drop what it has not read (RFC 9112,
/// section 9.6).
const LINGER: Duration = Duration::from_secs(2);

/// The same where very many are closed because a node is drained or this
/// program ends, which they hold up: long enough for one that answers the
/// last words, a WebSocket's close frame say.
const LINGER_SHUTDOWN: Duration = Duration::from_millis(500);

/// What a client of an `http` listener is told that cannot be served now
/// (RFC 9110, section 15.6.4). `Content-Length` is that of the body.
const UNAVAILABLE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
Retry-After: 5\r\n\
Content-Type: text/plain; charset=utf-8\r\n\
Content-Length: 66\r\n\
Cache-Control: no-store\r\n\
Connection: close\r\n\
\r\n\
The service cannot be reached just now. Try again in some seconds.";

/// What a client is told before its socket is closed.
#[derive(Debug)]
pub enum Last {
    /// That there is no service.
    Refusal(Kind),
    /// What came for it before its connection closed, for this reason.
    Bytes(Buffer, CloseReason),
}

/// Tells a client the `last` there is to tell, and closes its `socket`; with a
/// reset, where it does not take that `within` a while.
pub async fn part(socket: std::net::TcpStream, last: Last, within: Duration) {
    // Fails only where the system has nothing left; then it is closed as it is.
    let Ok(mut stream) = TcpStream::from_std(socket) else {
        return;
    };
    match last {
        Last::Refusal(kind) => refuse(&mut stream, kind).await,
        Last::Bytes(bytes, reason) => {
            let closing = close(&mut stream, bytes.as_slice(), reason);
            if timeout(within, closing).await.is_err() {
                reset(&stream);
            }
        }
    }
}

/// Sends a client away that was not served.
pub async fn refuse(stream: &mut TcpStream, kind: Kind) {
    let answer = match kind {
        Kind::Http => UNAVAILABLE,
        Kind::Tcp => &[],
    };
    let told = timeout(LINGER, stream.write_all(answer)).await;
    if matches!(told, Ok(Ok(()))) {
        read_out(stream, LINGER).await;
    }
}

/// Writes the last bytes, and closes so that the client can read them.
///
/// # Errors
/// The socket failed; the client is gone.
async fn close(stream: &mut TcpStream, last: &[u8], reason: CloseReason) -> io::Result<()> {
    stream.write_all(last).await?;
    let linger = match reason {
        CloseReason::Shutdown => LINGER_SHUTDOWN,
        _ => LINGER,
    };
    read_out(stream, linger).await;
    Ok(())
}

/// Makes the end of the socket a reset: the client shall see that this was
/// no orderly end.
pub fn reset(socket: &impl AsFd) {
    // Fails only where the client is gone.
    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

/// Ends our half and drops what still comes, until the client ends its own.
async fn read_out(stream: &mut TcpStream, linger: Duration) {
    let _ = stream.shutdown().await;
    let mut dropped = [0; 4096];
    let read = async { while matches!(stream.read(&mut dropped).await, Ok(1..)) {} };
    let _ = timeout(linger, read).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_is_that_of_the_body() {
        let text = std::str::from_utf8(UNAVAILABLE).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let length = format!("\r\nContent-Length: {}\r\n", body.len());
        assert!(head.contains(&length), "{length}");
    }
}
