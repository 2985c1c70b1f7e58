//! What a connection speaks with its client while no process reads its bytes.
//!
//! A connection is a plain socket (`Plain`) until somebody gives it a front. From then on its bytes
//! go to the front, which wakes a process only for a whole request or message. What happens to the
//! connection comes in here, and each front has a method of its own for it:
//!
//! | what | when |
//! |---|---|
//! | `pump` | bytes have arrived, or there is time to go on |
//! | `ended` | the client sends nothing more: it ended, closed, broke off, or its link is lost |
//! | `tick` | the second has come that it asked for |
//! | `flushed` | all that was sent has left the connection |
//! | `owner_down` | its process has died |
//! | `closed` | the connection is over; the front is dropped after this |

pub mod http;
pub mod stream;
pub mod ws;

use megaphone_proto::frame::ConnectionId;
use rustler::{Encoder, ResourceArc, Term};

use crate::atoms;
use crate::conn::{Conn, Held};
use http::Http;
use stream::Stream;
use ws::Ws;

/// The front of a connection. There are a million of them, nearly all idle: what exists only while
/// something is under way is boxed.
#[derive(Default)]
pub enum Front {
    /// None: a socket as any other.
    #[default]
    Plain,
    /// Requests of HTTP/1.
    Http(Http),
    /// Messages of a WebSocket.
    Ws(Ws),
    /// Stanzas of an XML stream.
    Stream(Stream),
}

/// What a front has for its link's receiver.
pub enum News {
    /// A request of this connection is ready for a process, under the key of its service.
    Request(ResourceArc<Conn>, i64),
    /// A connection's client was refused, for this.
    Refused(ConnectionId, String),
}

impl<'e> Held<'_, 'e> {
    /// Whether bytes go to a front and not to readers.
    pub fn has_front(&self) -> bool {
        !matches!(self.front, Front::Plain)
    }

    /// What it speaks, for `conn_info`.
    pub fn front_fact(&self) -> Option<Term<'e>> {
        match self.front {
            Front::Plain => None,
            Front::Http(_) => Some(self.http_fact()),
            Front::Ws(_) => Some(atoms::websocket().encode(self.env)),
            Front::Stream(_) => Some(atoms::stream().encode(self.env)),
        }
    }

    /// Bytes have arrived, or there is time to go on.
    pub fn front_pump(&mut self) {
        match self.front {
            Front::Plain => {}
            Front::Http(_) => self.http_pump(),
            Front::Ws(_) => self.ws_pump(),
            Front::Stream(_) => self.stream_pump(),
        }
    }

    /// The client sends nothing more (`inbox.ended` says why); where `flow` is closed too, nothing
    /// can be sent to it either. Bytes that came before may still be in the buffer, unseen.
    pub fn front_ended(&mut self) {
        match self.front {
            Front::Plain => {}
            Front::Http(_) => self.http_ended(),
            Front::Ws(_) => self.ws_ended(),
            Front::Stream(_) => self.stream_ended(),
        }
    }

    /// What the time (seconds of `Link::awake`) means to the front; when to look again.
    pub fn front_tick(&mut self, now: u32) -> Option<u32> {
        match self.front {
            Front::Plain | Front::Stream(_) => None,
            Front::Http(_) => self.http_tick(now),
            Front::Ws(_) => self.ws_tick(now),
        }
    }

    /// All that was sent has left the connection.
    pub fn front_flushed(&mut self) {
        match self.front {
            Front::Plain | Front::Stream(_) => {}
            Front::Http(_) => self.http_flushed(),
            Front::Ws(_) => self.ws_flushed(),
        }
    }

    /// The owner has died; a plain socket closes with it.
    pub fn front_owner_down(&mut self) {
        match self.front {
            Front::Plain | Front::Stream(_) => self.close_by_owner(),
            Front::Http(_) => self.http_owner_down(),
            Front::Ws(_) => self.ws_owner_down(),
        }
    }

    /// The node goes away, or this listener: the client is to go when what is under way is over.
    pub fn front_draining(&mut self) {
        if let Front::Http(_) = self.front {
            self.http_draining();
        }
    }

    /// The connection is over. Its owner is still known.
    pub fn front_closed(&mut self) {
        match std::mem::take(&mut self.front) {
            Front::Plain => {}
            Front::Http(http) => self.http_closed(http),
            Front::Ws(ws) => self.ws_closed(&ws),
            Front::Stream(stream) => self.stream_closed(&stream),
        }
    }

    /// Bytes that the front holds beside the connection's buffer.
    pub fn front_held(&self) -> usize {
        match &self.front {
            Front::Http(http) => http.held(),
            Front::Ws(ws) => ws.held(),
            Front::Plain | Front::Stream(_) => 0,
        }
    }
}
