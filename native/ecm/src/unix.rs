//! A link's Unix socket, cut in two halves.
//!
//! The kernel says that a Unix socket can be written to each time that its
//! peer has read something, also while it was never full (`unix_write_space`;
//! TCP says so only where somebody waits for it). A stream of tokio's listens
//! for that all the time and would be woken by each frame that ejabberd takes.
//! Here one half listens for what comes and nothing else, and the other only
//! while it is full.

use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::task::coop::poll_proceed;

use crate::watch::watch_for;

/// What comes.
pub struct UnixInput(AsyncFd<UnixStream>);

/// What goes.
pub struct UnixOutput {
    socket: UnixStream,
    /// Who waits until it takes more: there while it is full.
    full: Option<AsyncFd<UnixStream>>,
}

/// Connects to the socket at `path`.
///
/// # Errors
/// As connect(2).
pub async fn connect(path: &Path) -> io::Result<(UnixInput, UnixOutput)> {
    let socket = tokio::net::UnixStream::connect(path).await?;
    halves(socket.into_std()?)
}

/// The halves of `socket`, which does not block.
fn halves(socket: UnixStream) -> io::Result<(UnixInput, UnixOutput)> {
    let output = UnixOutput {
        socket: socket.try_clone()?,
        full: None,
    };
    Ok((UnixInput(watch_for(socket, Interest::READABLE)?), output))
}

impl AsyncRead for UnixInput {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(context))?;
            let space = buffer.initialize_unfilled();
            let wanted = space.len();
            match ready.try_io(|socket| socket.get_ref().read(space)) {
                Ok(Ok(bytes)) => {
                    // There was no more; what comes now is told.
                    if 0 < bytes && bytes < wanted {
                        ready.clear_ready();
                    }
                    buffer.advance(bytes);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_nothing_there) => {}
            }
        }
    }
}

impl UnixOutput {
    fn poll_with(
        &mut self,
        context: &mut Context<'_>,
        write: impl Fn(&UnixStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        // Who always has something to write lets others have their turn, too.
        let turn = ready!(poll_proceed(context));
        loop {
            if let Some(full) = &self.full {
                ready!(full.poll_write_ready(context))?.retain_ready();
                self.full = None;
            }
            match write(&self.socket) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let socket = self.socket.try_clone()?;
                    self.full = Some(watch_for(socket, Interest::WRITABLE)?);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                written => {
                    turn.made_progress();
                    return Poll::Ready(written);
                }
            }
        }
    }
}

impl AsyncWrite for UnixOutput {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_with(context, |mut socket| socket.write(bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_with(context, |mut socket| socket.write_vectored(parts))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Nothing is held back.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.socket.shutdown(Shutdown::Write))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Buf;
    use std::future::poll_fn;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn pair() -> (UnixInput, UnixOutput, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let (input, output) = halves(ours).unwrap();
        (input, output, theirs)
    }

    #[tokio::test]
    async fn more_than_a_socket_holds_arrives_whole_and_so_does_the_end() {
        let (_input, mut output, mut theirs) = pair();
        let sent: Vec<u8> = (0..4_000_000u32).map(|n| (n % 251) as u8).collect();
        let reading = tokio::task::spawn_blocking(move || {
            let mut all = Vec::new();
            theirs.read_to_end(&mut all).map(|_| all)
        });
        output.write_all(&sent[..10]).await.unwrap();
        let mut rest = Buf::chain(&sent[10..1000], &sent[1000..]);
        output.write_all_buf(&mut rest).await.unwrap();
        output.shutdown().await.unwrap();
        assert!(reading.await.unwrap().unwrap() == sent);
    }

    #[tokio::test]
    async fn what_comes_late_is_read_and_so_is_the_end() {
        let (mut input, _output, mut theirs) = pair();
        let writing = tokio::task::spawn_blocking(move || {
            for part in [&b"one"[..], b"two", b"three"] {
                std::thread::sleep(std::time::Duration::from_millis(5));
                theirs.write_all(part).unwrap();
            }
        });
        let mut all = Vec::new();
        input.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"onetwothree");
        writing.await.unwrap();
    }

    #[tokio::test]
    async fn a_socket_is_watched_for_room_only_while_it_is_full() {
        let (_input, mut output, theirs) = pair();
        let block = vec![0; 65_536];
        let mut held = 0;
        loop {
            let write =
                poll_fn(|context| Poll::Ready(Pin::new(&mut output).poll_write(context, &block)));
            let Poll::Ready(written) = write.await else {
                break;
            };
            held += written.unwrap();
            assert!(output.full.is_none());
        }
        assert!(output.full.is_some());
        let reading = tokio::task::spawn_blocking(move || {
            (&theirs).read_exact(&mut vec![0; held]).map(|()| theirs)
        });
        output.write_all(b"more").await.unwrap();
        assert!(output.full.is_none());
        reading.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_peer_that_is_gone_is_an_error_to_who_waits() {
        let (_input, mut output, theirs) = pair();
        let block = vec![0; 1_000_000];
        let gone = tokio::task::spawn_blocking(move || {
            std::thread::sleep(std::time::Duration::from_millis(5));
            drop(theirs);
        });
        let error = output.write_all(&block).await.unwrap_err();
        assert!(matches!(
            error.kind(),
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
        ));
        gone.await.unwrap();
    }
}
