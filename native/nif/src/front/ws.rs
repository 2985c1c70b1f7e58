//! A connection that speaks WebSocket (RFC 6455): its owner gets whole messages, one when it asks
//! for one. Pings, pongs and the end of it all are dealt with here.
//!
//! ```text
//!                  ws_next              a message for the owner
//!            Busy ─────────► Asking ─────────────────────────► Busy
//!              │ ws_close      │
//!              ▼               ▼
//!            Closing ── the client's Close, its end, or 5 s ──► over: tcp_closed to the owner
//! ```
//! The client's Close, a fault of its own, its end and the times that run out end it from anywhere.

use megaphone_proto::control::CloseReason;
use megaphone_proto::ws::{Closing, Event, Fault, Kind, Opcode, Reader, Short};
use megaphone_proto::ws::{put_close, put_head};
use rustler::{NewBinary, Term};

use crate::atoms;
use crate::conn::{Held, State};
use crate::ends::closed_message;
use crate::front::Front;
use crate::outbound::Sent;

/// Frames taken in one go. Behind them the connection waits its turn.
const FRAMES_MAX: usize = 256;
/// Bytes on their way to a client beyond which its next ping is looked at only when it has taken
/// them: pongs are not to pile up for one that does not read.
const PONGS_MAX: usize = 4096;
/// Seconds in which a client may answer a Close.
const CLOSE_TIMEOUT: u32 = 5;

/// What the owner has said of its WebSocket.
#[derive(Clone, Copy)]
pub struct Terms {
    /// Bytes of a message, at most.
    pub max_message: u32,
    /// Seconds of silence after which the client is pinged, and again as many after which it is
    /// given up; 0: never.
    pub ping_interval: u16,
    /// Seconds of silence after which the client is given up; 0: never.
    pub timeout: u16,
    /// A message goes out as text or binary as the last one came, and not always as text.
    pub in_kind: bool,
}

/// Where it stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The owner has a message, and waits for no other.
    Busy,
    /// The owner waits for the next message.
    Asking,
    /// We have said that it is over.
    Closing,
}

/// One WebSocket.
pub struct Ws {
    reader: Reader,
    /// As the owner's [`Terms`].
    max_message: u32,
    ping_interval: u16,
    timeout: u16,
    /// The second of `Link::awake` in which the client last sent something whole.
    heard: u32,
    stage: Stage,
    /// It was pinged since.
    pinged: bool,
    /// The owner's next message goes out as binary.
    binary: bool,
    /// Which is as the last one came.
    in_kind: bool,
}

/// A million idle ones are kept.
const _: () = assert!(size_of::<Ws>() <= 24);

/// What the buffer begins with.
enum Found<'e> {
    Message(Term<'e>),
    Fragment,
    Ping(Short),
    Pong,
    Close(Closing),
    Fault(Fault),
    /// Nothing that is whole.
    More,
    /// Something that has to wait, for its owner or for the client.
    Later,
}

impl Ws {
    fn new(terms: Terms, now: u32) -> Self {
        Ws {
            reader: Reader::default(),
            max_message: terms.max_message,
            ping_interval: terms.ping_interval,
            timeout: terms.timeout,
            heard: now,
            stage: Stage::Busy,
            pinged: false,
            binary: false,
            in_kind: terms.in_kind,
        }
    }

    /// Bytes held for a message that has not come whole.
    pub(super) fn held(&self) -> usize {
        self.reader.held()
    }

    /// The second from which on so many have passed since the client was heard.
    fn after(&self, seconds: u32) -> u32 {
        self.heard.saturating_add(seconds + 1)
    }

    fn timeout_at(&self) -> Option<u32> {
        let seconds = u32::from(self.timeout);
        (seconds > 0).then(|| self.after(seconds))
    }

    /// When to ping, or to wait for the pong no longer.
    fn ping_at(&self) -> Option<u32> {
        let seconds = u32::from(self.ping_interval) * (1 + u32::from(self.pinged));
        (seconds > 0).then(|| self.after(seconds))
    }

    /// When to look again.
    fn due(&self) -> Option<u32> {
        match self.stage {
            Stage::Closing => Some(self.after(CLOSE_TIMEOUT)),
            _ => self.timeout_at().into_iter().chain(self.ping_at()).min(),
        }
    }
}

impl<'e> Held<'_, 'e> {
    /// From now on this is a WebSocket, and somebody's.
    pub fn ws_start(&mut self, terms: Terms) {
        let ws = Ws::new(terms, self.conn.link.awake());
        if let Some(due) = ws.due() {
            self.watch_at(due);
        }
        self.front = Front::Ws(ws);
        self.ws_pump();
    }

    /// The owner asks for the next message; without one it waits for it, unless this is over.
    pub fn ws_next(&mut self) -> Option<Term<'e>> {
        if let Front::Ws(ws) = &mut self.front
            && ws.stage == Stage::Busy
        {
            ws.stage = Stage::Asking;
        }
        self.ws_advance()
    }

    /// Sends a message.
    pub fn ws_send(&mut self, message: &[u8]) -> Sent {
        let Front::Ws(ws) = &self.front else {
            return Sent::Error(atoms::closed());
        };
        if ws.stage == Stage::Closing {
            return Sent::Error(atoms::closed());
        }
        let opcode = match ws.binary {
            true => Opcode::Binary,
            false => Opcode::Text,
        };
        let (head, size) = put_head(opcode, message.len());
        self.send_parts(&[&head[..size], message])
    }

    /// Says that it is over, and waits for the client to say so too.
    pub fn ws_close(&mut self, code: u16, reason: &str) {
        let now = self.conn.link.awake();
        let Front::Ws(ws) = &mut self.front else {
            return;
        };
        if ws.stage == Stage::Closing {
            return;
        }
        ws.stage = Stage::Closing;
        ws.heard = now;
        let due = ws.after(CLOSE_TIMEOUT);
        self.say(&put_close(Some(code), reason));
        self.watch_at(due);
        self.ws_pump();
    }

    pub(super) fn ws_pump(&mut self) {
        let message = self.ws_advance();
        if let (Some(message), Some(owner)) = (message, self.owner()) {
            // An owner that is gone closes the connection by its monitor.
            let _ = self.env.send(&owner, (atoms::ws_message(), message));
        }
    }

    pub(super) fn ws_ended(&mut self) {
        self.ws_pump();
    }

    pub(super) fn ws_flushed(&mut self) {
        self.ws_pump();
    }

    pub(super) fn ws_tick(&mut self, now: u32) -> Option<u32> {
        let Front::Ws(ws) = &mut self.front else {
            return None;
        };
        let passed = |due: Option<u32>| due.is_some_and(|due| due <= now);
        if ws.stage == Stage::Closing {
            if passed(ws.due()) {
                self.close(CloseReason::Timeout);
                return None;
            }
        } else if passed(ws.timeout_at()) {
            self.ws_end(1000, "", CloseReason::Idle);
            return None;
        } else if passed(ws.ping_at()) {
            if ws.pinged {
                self.ws_end(1000, "", CloseReason::Timeout);
                return None;
            }
            ws.pinged = true;
            let (head, size) = put_head(Opcode::Ping, 0);
            self.say(&head[..size]);
        }
        match &self.front {
            Front::Ws(ws) => ws.due(),
            _ => None,
        }
    }

    /// An owner that has closed may go before its client has; any other should not have.
    pub(super) fn ws_owner_down(&mut self) {
        if let Front::Ws(ws) = &self.front
            && ws.stage != Stage::Closing
        {
            self.ws_end(1011, "", CloseReason::Internal);
        }
    }

    /// It is over, for whatever reason: the client is told if it was not, and so is the owner.
    pub(super) fn ws_closed(&mut self, ws: &Ws) {
        if ws.stage != Stage::Closing && self.inbox.ended.is_none() {
            let own = self.owner() == Some(self.env.pid());
            self.say(&put_close(Some(if own { 1000 } else { 1001 }), ""));
        }
        self.tell_owner(closed_message);
    }

    /// The last word to the client, and the end.
    fn ws_end(&mut self, code: u16, reason: &str, why: CloseReason) {
        self.ws_end_with(&put_close(Some(code), reason), why);
    }

    fn ws_end_with(&mut self, frame: &[u8], why: CloseReason) {
        if let Front::Ws(ws) = &mut self.front
            && ws.stage != Stage::Closing
        {
            ws.stage = Stage::Closing;
            self.say(frame);
        }
        self.close(why);
    }

    /// Goes on with what has arrived, up to a message for the owner. Credit is given for all that
    /// was taken, and for the beginning of what is not whole.
    fn ws_advance(&mut self) -> Option<Term<'e>> {
        for _ in 0..FRAMES_MAX {
            match self.ws_find() {
                Found::Message(message) => {
                    self.ws_heard();
                    if let Front::Ws(ws) = &mut self.front
                        && ws.stage == Stage::Asking
                    {
                        ws.stage = Stage::Busy;
                        self.give_credit();
                        return Some(message);
                    }
                }
                Found::Fragment => {}
                Found::Pong => self.ws_heard(),
                Found::Ping(payload) => {
                    self.ws_heard();
                    self.ws_pong(&payload);
                }
                Found::Close(closing) => {
                    self.ws_end_with(&put_close(closing.code, ""), CloseReason::Normal);
                    return None;
                }
                Found::Fault(fault) => {
                    self.ws_fail(fault);
                    return None;
                }
                Found::More => {
                    self.give_credit_but(0);
                    self.ws_end_of_input();
                    return None;
                }
                Found::Later => {
                    self.give_credit();
                    if self.inbox.buffer.is_empty() {
                        self.ws_end_of_input();
                    }
                    return None;
                }
            }
        }
        self.give_credit();
        self.defer();
        None
    }

    /// The client is alive.
    fn ws_heard(&mut self) {
        let now = self.conn.link.awake();
        if let Front::Ws(ws) = &mut self.front
            && ws.stage != Stage::Closing
        {
            (ws.heard, ws.pinged) = (now, false);
        }
    }

    /// There is nothing left to take: if nothing comes either, it is over.
    fn ws_end_of_input(&mut self) {
        if let Some(reason) = self.inbox.ended {
            self.close(reason);
        }
    }

    fn ws_pong(&mut self, payload: &Short) {
        let closing = matches!(&self.front, Front::Ws(ws) if ws.stage == Stage::Closing);
        if !closing {
            let payload = payload.as_slice();
            let (head, size) = put_head(Opcode::Pong, payload.len());
            let mut frame = [0; 127];
            frame[..size].copy_from_slice(&head[..size]);
            frame[size..size + payload.len()].copy_from_slice(payload);
            self.say(&frame[..size + payload.len()]);
        }
    }

    fn ws_fail(&mut self, fault: Fault) {
        let text = fault.to_string();
        let (link, id) = (&self.conn.link, self.conn.id);
        let blame = format!("WebSocket closed with {}: {text}", fault.code());
        link.blame(self.env, id, &blame);
        let why = match fault.code() {
            1008 | 1009 => CloseReason::Limit,
            _ => CloseReason::ProtocolError,
        };
        self.ws_end(fault.code(), &text, why);
    }

    /// Takes what comes next out of the buffer.
    fn ws_find(&mut self) -> Found<'e> {
        let env = self.env;
        let backlog = self.pending.as_ref().map_or(0, |pending| pending.bytes());
        let state: &mut State = self;
        let Front::Ws(ws) = &mut state.front else {
            return Found::Later;
        };
        let bytes = state.inbox.buffer.as_slice();
        let late = backlog > PONGS_MAX && ws.reader.is_at_ping(bytes);
        if ws.stage == Stage::Busy || late {
            return Found::Later;
        }
        let mut input = bytes;
        let found = match ws.reader.next(&mut input, ws.max_message as usize) {
            Ok(None) => Found::More,
            Ok(Some(Event::Fragment)) => Found::Fragment,
            Ok(Some(Event::Ping(payload))) => Found::Ping(payload),
            Ok(Some(Event::Pong)) => Found::Pong,
            Ok(Some(Event::Close(closing))) => Found::Close(closing),
            Ok(Some(Event::Message(kind, payload))) => {
                let mut binary = NewBinary::new(env, payload.len());
                match payload.copy_to(&mut binary) {
                    Ok(()) => {
                        ws.binary = ws.in_kind && kind == Kind::Binary;
                        state.traffic.received += payload.len() as u64;
                        Found::Message(binary.into())
                    }
                    Err(fault) => Found::Fault(fault),
                }
            }
            Err(fault) => Found::Fault(fault),
        };
        let used = bytes.len() - input.len();
        state.inbox.buffer.consume(used);
        found
    }
}
