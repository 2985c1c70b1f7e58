//! XMPP over WebSocket (RFC 7395).

use std::cell::RefCell;
use std::fmt::Write;
use std::io::Cursor;
use std::sync::Arc;

use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::http;
use super::report::count;
use super::server::Server;
use super::user::{User, put_alone};
use super::users::{Inbox, PING};
use super::wire::{Protocol, Wire, Wrong};
use super::xml::{self, Element, Unit};

const FRAMING: &str = "urn:ietf:params:xml:ns:xmpp-framing";

/// Bytes of one frame's payload.
const PAYLOAD_MAX: u64 = 128 * 1024;

thread_local! {
    static FRAME: RefCell<(String, Vec<u8>)> = const { RefCell::new((String::new(), Vec::new())) };
}

/// One client's connection.
#[derive(Debug)]
pub struct WebSocket {
    server: Arc<Server>,
    upgraded: bool,
    /// None before `<open/>`.
    user: Option<User>,
}

impl WebSocket {
    /// A connection on which nothing has come.
    pub fn new(server: &Arc<Server>) -> Self {
        Self {
            server: Arc::clone(server),
            upgraded: false,
            user: None,
        }
    }

    fn upgrade(&mut self, input: &[u8], wire: &Wire) -> Result<usize, Wrong> {
        let Some(request) = http::request(input)? else {
            return Ok(0);
        };
        let key = request.websocket_key.ok_or(Wrong)?;
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: xmpp\r\n\r\n",
            derive_accept_key(key)
        );
        wire.send(answer.as_bytes());
        self.upgraded = true;
        Ok(request.bytes)
    }

    /// Takes a frame, if one is whole, and says how many bytes it has.
    fn frame(&mut self, input: &mut [u8], wire: &Arc<Wire>) -> Result<usize, Wrong> {
        let mut cursor = Cursor::new(&*input);
        let Some((header, length)) = FrameHeader::parse(&mut cursor).map_err(|_| Wrong)? else {
            return Ok(0);
        };
        let start = cursor.position() as usize;
        if length > PAYLOAD_MAX || !header.is_final {
            return Err(Wrong);
        }
        let end = start + length as usize;
        let Some(payload) = input.get_mut(start..end) else {
            return Ok(0);
        };
        unmask(payload, header.mask.ok_or(Wrong)?);
        match header.opcode {
            OpCode::Data(Data::Text) => {
                let text = str::from_utf8(payload).map_err(|_| Wrong)?;
                match xml::first(text)? {
                    Some((Unit::Element(element), _)) => self.element(&element, wire)?,
                    _ => return Err(Wrong),
                }
            }
            OpCode::Control(Control::Ping) => send(wire, Control::Pong, payload),
            OpCode::Control(Control::Pong) if payload == PING.as_bytes() => {
                count(&self.server.counts.pongs);
            }
            OpCode::Control(Control::Pong) => {}
            OpCode::Control(Control::Close) => {
                send(wire, Control::Close, payload);
                wire.finish();
            }
            _ => return Err(Wrong),
        }
        Ok(end)
    }

    fn element(&mut self, element: &Element<'_>, wire: &Arc<Wire>) -> Result<(), Wrong> {
        let mut reply = String::new();
        match (element.name, &mut self.user) {
            ("open", user) => {
                let user = user.get_or_insert_with(|| {
                    User::new(element.attribute("to").unwrap_or("localhost"))
                });
                let (id, domain) = (self.server.fresh(), user.domain());
                let _ = write!(
                    reply,
                    "<open xmlns='{FRAMING}' id='{id}' from='{domain}' version='1.0' xml:lang='en'/>"
                );
                send_alone(wire, &reply);
                reply.clear();
                user.features(&self.server, &mut reply);
            }
            ("close", _) => {
                send_alone(wire, &format!("<close xmlns='{FRAMING}'/>"));
                send(wire, Control::Close, &1000u16.to_be_bytes());
                wire.finish();
            }
            (_, Some(user)) => {
                let inbox = || Arc::new(Framed(Arc::clone(wire))) as Arc<dyn Inbox>;
                user.take(&self.server, element, inbox, &mut reply);
            }
            (_, None) => return Err(Wrong),
        }
        if !reply.is_empty() {
            send_alone(wire, &reply);
        }
        Ok(())
    }
}

impl Protocol for WebSocket {
    fn take(&mut self, input: &mut [u8], wire: &Arc<Wire>) -> Result<usize, Wrong> {
        let mut taken = 0;
        if !self.upgraded {
            taken = self.upgrade(input, wire)?;
        }
        while self.upgraded {
            match self.frame(&mut input[taken..], wire)? {
                0 => break,
                bytes => taken += bytes,
            }
        }
        Ok(taken)
    }

    fn gone(&mut self, _wire: &Arc<Wire>) {
        if let Some(user) = &mut self.user {
            user.leave(&self.server);
        }
    }
}

/// A user's connection: each stanza in a frame.
#[derive(Debug)]
struct Framed(Arc<Wire>);

impl Inbox for Framed {
    fn deliver(&self, stanza: &str) {
        send_alone(&self.0, stanza);
    }

    fn ping(&self) -> bool {
        send(&self.0, Control::Ping, PING.as_bytes());
        true
    }

    fn replaced(&self) {
        send_alone(
            &self.0,
            "<stream:error><conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>",
        );
        send_alone(&self.0, &format!("<close xmlns='{FRAMING}'/>"));
        send(&self.0, Control::Close, &1000u16.to_be_bytes());
        self.0.finish();
    }
}

fn send_alone(wire: &Wire, element: &str) {
    FRAME.with_borrow_mut(|(text, frame)| {
        text.clear();
        put_alone(element, text);
        frame.clear();
        put_frame(OpCode::Data(Data::Text), text.as_bytes(), frame);
        wire.send(frame);
    });
}

fn send(wire: &Wire, opcode: Control, payload: &[u8]) {
    let mut frame = Vec::new();
    put_frame(OpCode::Control(opcode), payload, &mut frame);
    wire.send(&frame);
}

fn put_frame(opcode: OpCode, payload: &[u8], out: &mut Vec<u8>) {
    let header = FrameHeader {
        opcode,
        ..FrameHeader::default()
    };
    // Writing to a Vec does not fail.
    let _ = header.format(payload.len() as u64, out);
    out.extend_from_slice(payload);
}

/// RFC 6455, 5.3.
fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    for chunk in payload.chunks_mut(4) {
        for (byte, key) in chunk.iter_mut().zip(mask) {
            *byte ^= key;
        }
    }
}
