//! One user's XMPP: bytes in, bytes and events out. No I/O, no clock.
//!
//! [`Session`] is small when its user is quiet: what is in no buffer is not kept. It is the same for
//! the three transports; BOSH uses two channels, the others one.
//!
//! ```text
//! connected ─► LoggingIn ─bound─► LoggedIn ─leave()─► Leaving ─server's goodbye─► Over
//! ```

mod api;
mod bosh;
mod http;
mod login;
mod receive;
mod stanza;
#[cfg(test)]
mod tests;
mod websocket;
mod xml;

use std::sync::Arc;

pub use api::{Channel, Event, Fault, Output, Plan};
use quick_xml::escape::escape;

use crate::target::Transport;
use bosh::{Ask, Bosh};
use login::Login;
use websocket::WebSocket;

/// A stanza is not larger than this, in bytes: four times what ejabberd sends on by default.
const MAX_STANZA: usize = 1 << 20;

/// What is kept of something that is not whole, in bytes: a stanza with what carries it.
const MAX_KEPT: usize = 2 * MAX_STANZA;

/// One user's session.
#[derive(Debug)]
pub struct Session {
    plan: Arc<Plan>,
    jid: Box<str>,
    login: Option<Box<Login>>,
    carrier: Carrier,
    /// What came on the first channel and is not whole.
    kept: Vec<u8>,
    user: u32,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    LoggingIn,
    LoggedIn,
    /// The server has been told goodbye.
    Leaving,
    Over,
}

/// What stanzas are wrapped in.
#[derive(Debug)]
enum Carrier {
    /// Nothing: they follow each other on a stream, whose header is still to come or not.
    Stream {
        header: bool,
    },
    WebSocket(WebSocket),
    Bosh(Box<Bosh>),
}

type OnEvent<'a> = &'a mut dyn FnMut(Event<'_>);

impl Session {
    /// User number `user`, not connected yet.
    pub fn new(plan: &Arc<Plan>, user: u32) -> Self {
        Self {
            plan: Arc::clone(plan),
            jid: Box::default(),
            login: Some(Box::new(Login::new())),
            carrier: match plan.target.transport {
                Transport::C2s => Carrier::Stream { header: true },
                Transport::WebSocket => Carrier::WebSocket(WebSocket::default()),
                Transport::Bosh => Carrier::Bosh(Box::new(Bosh::new())),
            },
            kept: Vec::new(),
            user,
            phase: Phase::LoggingIn,
        }
    }

    /// The channel is connected, with TLS where that begins at once, or has begun now.
    pub fn connected(&mut self, channel: Channel, out: &mut Output) -> Result<(), Fault> {
        match &mut self.carrier {
            Carrier::Stream { .. } => self.open(out),
            Carrier::WebSocket(websocket) => {
                websocket.open(&self.plan.target, &mut out.writes[channel.index()]);
            }
            Carrier::Bosh(bosh) => {
                bosh.connected(channel);
                self.flush(out);
            }
        }
        Ok(())
    }

    /// Bytes came (after TLS). Each event is told as it is found; what it borrows lives as long
    /// as the call of `event`.
    pub fn received(
        &mut self,
        channel: Channel,
        bytes: &[u8],
        out: &mut Output,
        event: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Fault> {
        self.feed(channel, bytes, out, event)?;
        // What came too early on the other channel may have its turn now.
        if matches!(self.carrier, Carrier::Bosh(_)) && !self.kept(channel.other()).is_empty() {
            self.feed(channel.other(), &[], out, event)?;
        }
        self.flush(out);
        Ok(())
    }

    /// The peer closed the channel. `Ok` where that is no fault: a BOSH channel between two
    /// requests, or after [`Session::leave`].
    pub fn closed(&mut self, channel: Channel, out: &mut Output) -> Result<(), Fault> {
        let fault = match &mut self.carrier {
            Carrier::Stream { .. } | Carrier::WebSocket(_) => true,
            // An answer that waits for its turn is as good as read.
            Carrier::Bosh(bosh) => !bosh.must_wait(channel) && !bosh.closed(channel),
        };
        match self.phase {
            Phase::Over => {}
            Phase::Leaving if fault => self.over(out),
            _ if fault => return Err(Fault::Closed),
            _ => self.flush(out),
        }
        Ok(())
    }

    /// Sends a chat message, once logged in. `body` needs no escaping: it is of printable ASCII
    /// without `<&>"'`.
    ///
    /// Over BOSH this makes a request while the server has another on the other channel. There is no
    /// clock here, so it is for the caller to leave some milliseconds after the last write, here and
    /// before [`Session::leave`]: servers may take two requests in the order in which they come.
    pub fn send_message(&mut self, to: &str, body: &str, out: &mut Output) {
        if self.phase != Phase::LoggedIn {
            return;
        }
        let (to, namespace) = (escape(to), self.namespace());
        let parts = [
            "<message",
            namespace,
            " type='chat' to='",
            &to,
            "'><body>",
            body,
        ];
        let [a, b, c, d, e, f] = parts;
        self.say(&[a, b, c, d, e, f, "</body></message>"], out);
        self.flush(out);
    }

    /// Says goodbye. [`Output::close`] tells when the server has answered, or at once.
    pub fn leave(&mut self, out: &mut Output) {
        if self.phase != Phase::LoggedIn {
            return self.over(out);
        }
        self.phase = Phase::Leaving;
        let presence = ["<presence", self.namespace(), " type='unavailable'/>"];
        self.say(&presence, out);
        match &mut self.carrier {
            Carrier::Stream { .. } => self.say(&["</stream:stream>"], out),
            Carrier::WebSocket(_) => {
                self.say(
                    &["<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>"],
                    out,
                );
            }
            Carrier::Bosh(bosh) => {
                bosh.ask(Ask::Terminate);
                self.flush(out);
            }
        }
    }

    /// The full JID, once logged in.
    pub fn jid(&self) -> &str {
        &self.jid
    }

    /// Whether what is said now has to wait until the server has answered something: BOSH only,
    /// where the server has a request on both connections.
    pub fn is_busy(&self) -> bool {
        match &self.carrier {
            Carrier::Bosh(bosh) => bosh.is_busy(),
            _ => false,
        }
    }

    /// Which user this is.
    pub fn user(&self) -> u32 {
        self.user
    }

    /// What all sessions share.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }
}
