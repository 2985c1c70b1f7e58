//! Waiting for a line on standard input while links go on.

use std::io::{self, BufRead, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread;

use mio::{Poll, Token, Waker};

/// Lines that come on standard input, or nothing where nobody is to be waited for. The waker is
/// held here, too: one that is gone wakes nobody any more, though it was called before.
#[derive(Debug)]
pub struct Prompt(Option<(Receiver<()>, Arc<Waker>)>);

impl Prompt {
    /// Where `wanted`, lines that wake `poll` as `token`.
    pub fn new(wanted: bool, poll: &Poll, token: Token) -> io::Result<Self> {
        if !wanted {
            return Ok(Self(None));
        }
        let waker = Arc::new(Waker::new(poll.registry(), token)?);
        let held = Arc::clone(&waker);
        let (sender, receiver) = channel();
        thread::spawn(move || {
            for line in io::stdin().lock().lines() {
                let heard = line.is_ok() && sender.send(()).is_ok() && waker.wake().is_ok();
                if !heard {
                    break;
                }
            }
            drop(sender);
            let _ = waker.wake();
        });
        Ok(Self(Some((receiver, held))))
    }

    /// Says where things stand, where somebody listens.
    pub fn say(&self, word: &str) -> io::Result<()> {
        if self.0.is_none() {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        writeln!(out, "{word}")?;
        out.flush()
    }

    /// Whether things may go on.
    pub fn heard(&self) -> bool {
        let heard = self.0.as_ref().map(|(lines, _)| lines.try_recv());
        !matches!(heard, Some(Err(TryRecvError::Empty)))
    }
}
