//! XMPP over WebSocket (RFC 7395): the opening handshake, frames, and what is in them.

use std::io::Cursor;

use tungstenite::handshake::client::generate_key;
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::http::{self, Head};
use super::{Fault, MAX_STANZA};
use crate::target::Target;

/// A user's WebSocket.
#[derive(Debug, Default)]
pub(super) struct WebSocket {
    /// The answer to the key, while the handshake goes on.
    accept: Option<Box<str>>,
    /// The start of a message whose last frame has not come.
    message: Vec<u8>,
    /// Whether a message has begun that has not ended.
    within: bool,
}

/// What is at the start of the bytes. Numbers say how many of them are used up.
#[derive(Debug)]
pub(super) enum Found<'a> {
    /// Nothing whole.
    More,
    /// The handshake has ended.
    Open(usize),
    /// A frame with nothing to do about it.
    Nothing(usize),
    /// A message in one frame.
    Message(usize, &'a [u8]),
    /// A message in several frames.
    Gathered(usize, Vec<u8>),
    /// A ping, to be answered with what is in it.
    Ping(usize, &'a [u8]),
    /// The server closes.
    Close(usize),
}

impl WebSocket {
    /// Writes the handshake's request.
    pub(super) fn open(&mut self, target: &Target, out: &mut Vec<u8>) {
        let key = generate_key();
        self.accept = Some(derive_accept_key(key.as_bytes()).into());
        let (path, host) = (&target.path, &target.authority);
        out.extend_from_slice(
            format!(
                "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\n\
                 Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: xmpp\r\n\r\n"
            )
            .as_bytes(),
        );
    }

    /// Looks at the start of the bytes.
    pub(super) fn find<'a>(&mut self, bytes: &'a [u8]) -> Result<Found<'a>, Fault> {
        if let Some(accept) = &self.accept {
            let Some(head) = http::head(bytes)? else {
                return Ok(Found::More);
            };
            check(&head, accept)?;
            self.accept = None;
            return Ok(Found::Open(head.length));
        }
        let mut cursor = Cursor::new(bytes);
        let header = FrameHeader::parse(&mut cursor)
            .map_err(|_| Fault::Protocol("not a WebSocket frame"))?;
        let Some((header, length)) = header else {
            return Ok(Found::More);
        };
        if header.mask.is_some() || header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(Fault::Protocol("a frame that no server may send"));
        }
        let start = cursor.position() as usize;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > MAX_STANZA || self.message.len() > MAX_STANZA - length {
            return Err(Fault::Protocol("a stanza too large"));
        }
        let end = start + length;
        match bytes.get(start..end) {
            None => Ok(Found::More),
            Some(payload) => self.frame(&header, end, payload),
        }
    }

    fn frame<'a>(
        &mut self,
        header: &FrameHeader,
        end: usize,
        payload: &'a [u8],
    ) -> Result<Found<'a>, Fault> {
        match (header.opcode, header.is_final) {
            (OpCode::Control(_), false) => Err(Fault::Protocol("a control frame in parts")),
            (OpCode::Control(Control::Ping), _) => Ok(Found::Ping(end, payload)),
            (OpCode::Control(Control::Close), _) => Ok(Found::Close(end)),
            (OpCode::Control(_), _) => Ok(Found::Nothing(end)),
            (OpCode::Data(Data::Text), true) if !self.within => Ok(Found::Message(end, payload)),
            (OpCode::Data(Data::Text), false) if !self.within => {
                self.within = true;
                self.message.extend_from_slice(payload);
                Ok(Found::Nothing(end))
            }
            (OpCode::Data(Data::Continue), last) if self.within => {
                self.message.extend_from_slice(payload);
                self.within = !last;
                Ok(match last {
                    true => Found::Gathered(end, std::mem::take(&mut self.message)),
                    false => Found::Nothing(end),
                })
            }
            _ => Err(Fault::Protocol("a frame out of place")),
        }
    }
}

/// The server's answer to the handshake.
fn check(head: &Head<'_>, accept: &str) -> Result<(), Fault> {
    if head.status != 101 {
        return Err(Fault::Http(head.status));
    }
    match head.header("sec-websocket-accept") {
        Some(found) if found == accept => Ok(()),
        _ => Err(Fault::Protocol(
            "not the answer to this WebSocket handshake",
        )),
    }
}

/// Writes a text message.
pub(super) fn write_text(parts: &[&str], out: &mut Vec<u8>) {
    write_frame(OpCode::Data(Data::Text), parts, out);
}

/// Writes the answer to a ping.
pub(super) fn write_pong(payload: &[u8], out: &mut Vec<u8>) {
    frame(OpCode::Control(Control::Pong), payload.len(), out, |out| {
        out.extend_from_slice(payload);
    });
}

/// Writes the last frame: a close, with code 1000.
pub(super) fn write_close(out: &mut Vec<u8>) {
    frame(OpCode::Control(Control::Close), 2, out, |out| {
        out.extend_from_slice(&1000_u16.to_be_bytes());
    });
}

fn write_frame(opcode: OpCode, parts: &[&str], out: &mut Vec<u8>) {
    let length = parts.iter().map(|part| part.len()).sum();
    frame(opcode, length, out, |out| {
        for part in parts {
            out.extend_from_slice(part.as_bytes());
        }
    });
}

/// Writes a frame's head, has its payload written, and masks that as a client must.
fn frame(opcode: OpCode, length: usize, out: &mut Vec<u8>, payload: impl FnOnce(&mut Vec<u8>)) {
    let mask = fastrand::u32(..).to_ne_bytes();
    let header = FrameHeader {
        opcode,
        mask: Some(mask),
        ..FrameHeader::default()
    };
    // A `Vec` takes all that is written.
    let _ = header.format(length as u64, out);
    let start = out.len();
    payload(out);
    for (byte, mask) in out[start..].iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}
