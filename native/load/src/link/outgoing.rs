//! What is written to a link, and what of it may have to be written again.

use std::io::{self, ErrorKind, Write};

use bytes::{Buf, Bytes, BytesMut};
use megaphone_proto::LinkError;
use megaphone_proto::control::Control;
use megaphone_proto::limits::RESUME_BUFFER_DEFAULT;
use megaphone_proto::retained::Retained;

use super::stream::Stream;

/// What waits to be written.
#[derive(Debug)]
pub struct Outgoing {
    /// Messages, which go before content.
    messages: BytesMut,
    /// What is being written.
    chunk: Bytes,
    retained: Retained,
}

impl Outgoing {
    /// Nothing, of a link that is `kept` when it drops.
    pub fn new(kept: bool) -> Self {
        Self {
            messages: BytesMut::new(),
            chunk: Bytes::new(),
            retained: Retained::new(if kept { RESUME_BUFFER_DEFAULT } else { 0 }),
        }
    }

    /// Has a message written before all content that is not being written already.
    pub fn say(&mut self, message: &Control) {
        message.put(&mut self.messages);
    }

    /// Where else is written that goes before content.
    pub fn messages(&mut self) -> &mut BytesMut {
        &mut self.messages
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.chunk.is_empty() && self.messages.is_empty()
    }

    /// Whether a chunk is being written; else there may be a next one.
    pub fn is_writing(&self) -> bool {
        self.chunk.has_remaining()
    }

    /// The messages that wait, to begin a chunk with.
    pub fn take_messages(&mut self) -> BytesMut {
        std::mem::take(&mut self.messages)
    }

    /// The next chunk to be written, when there is none.
    pub fn begin(&mut self, chunk: Bytes) {
        self.retained.push(chunk.clone());
        self.chunk = chunk;
    }

    /// Writes some of the chunk. `false`: nothing can be written now.
    pub fn write(&mut self, stream: &mut Stream) -> io::Result<bool> {
        match stream.write(&self.chunk) {
            Ok(bytes) => {
                self.chunk.advance(bytes);
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// The node has so much.
    pub fn acknowledged(&mut self, bytes: u64) -> Result<(), LinkError> {
        self.retained.acknowledge(bytes)
    }

    /// Whether too much was not acknowledged.
    pub fn overflowed(&self) -> bool {
        self.retained.overflowed()
    }
}
