//! A worker's standard input.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use crate::errno;
use crate::wire::{Begin, Order};

/// Lines that came, and the part of one that is still to come.
#[derive(Debug)]
pub(super) struct Orders {
    input: File,
    bytes: VecDeque<u8>,
    ended: bool,
}

impl Orders {
    /// Takes standard input, which is to be a pipe, and lets the poll watch it.
    pub(super) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        registry.register(&mut SourceFd(&input.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Self {
            input,
            bytes: VecDeque::new(),
            ended: false,
        })
    }

    /// Waits for the first order; `None` if there is none. Does not block from then on.
    pub(super) fn first(&mut self) -> Result<Option<Box<Begin>>, String> {
        loop {
            match self.next()? {
                Some(Order::Begin(begin)) => {
                    rustix::io::ioctl_fionbio(&self.input, true)
                        .map_err(|error| errno::kind("worker", &error.into()))?;
                    // What came before that has no edge any more.
                    self.read()?;
                    return Ok(Some(begin));
                }
                Some(order) => return Err(format!("{order:?} before it has begun")),
                None if self.ended => return Ok(None),
                None => {
                    self.take()?;
                }
            }
        }
    }

    /// Reads all that is there.
    pub(super) fn read(&mut self) -> Result<(), String> {
        while self.take()? {}
        Ok(())
    }

    /// The next order that has come whole.
    pub(super) fn next(&mut self) -> Result<Option<Order>, String> {
        let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') else {
            return Ok(None);
        };
        let line: Vec<u8> = self.bytes.drain(..=end).collect();
        serde_json::from_slice(&line)
            .map(Some)
            .map_err(|error| format!("order: {error}"))
    }

    /// Whether there is nobody left to give orders.
    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// Reads once. Whether there may be more.
    fn take(&mut self) -> Result<bool, String> {
        let mut buffer = [0; 4096];
        match self.input.read(&mut buffer) {
            Ok(0) => {
                self.ended = true;
                Ok(false)
            }
            Ok(count) => {
                self.bytes.extend(&buffer[..count]);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(errno::kind("orders", &error)),
        }
    }
}
