//! One user's XMPP: bytes in, bytes and events out. No I/O, no clock.
//!
//! [`Session`] is small when its user is quiet: what is in no buffer is not kept. It is the same for
//! the three transports; BOSH uses two channels, the others one.

use std::sync::Arc;

use thiserror::Error;

use crate::account::Accounts;
use crate::target::Target;

/// What all sessions of a worker share.
#[derive(Debug)]
pub struct Plan {
    /// Where they log in.
    pub target: Target,
    /// Who they are.
    pub accounts: Accounts,
}

/// Which of a session's connections: BOSH has two, all others the first only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// The only one, but for BOSH.
    First,
    /// BOSH's second: requests that cannot wait for the held one.
    Second,
}

/// What a session wants done. The caller empties it after each call.
#[derive(Debug, Default)]
pub struct Output {
    /// Bytes to write, by channel.
    pub writes: [Vec<u8>; 2],
    /// The channel is to be connected, anew if it has been; [`Session::connected`] tells when it is.
    /// BOSH only: its second when it is first needed, and either when the server has
    /// ended a kept-alive connection. Never asked for before [`Session::connected`] of the first.
    pub connect: [bool; 2],
    /// The first channel goes on in TLS from here: nothing is written before it has begun,
    /// and [`Session::connected`] is called again when it has.
    pub start_tls: bool,
    /// The session is over and its connections can be closed.
    pub close: bool,
}

/// What happened to a user.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// Bound, available, and able to send and receive: [`Session::jid`] is its full JID.
    LoggedIn,
    /// A `<message type='chat'/>` with a body came, as the body's text.
    Message(&'a str),
    /// Any other stanza.
    Other,
}

/// Why a session failed. Its `Display` is what errors are counted by: no address, no number of
/// a user, at most a condition's name in it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Fault {
    /// The server sent what does not parse, or not what is expected here.
    #[error("protocol: {0}")]
    Protocol(&'static str),
    /// `<failure/>` of SASL, with its condition.
    #[error("authentication: {0}")]
    Authentication(String),
    /// `<stream:error/>` or a BOSH `terminate`, with its condition.
    #[error("stream error: {0}")]
    Stream(String),
    /// An HTTP status that is not expected here.
    #[error("HTTP status {0}")]
    Http(u16),
    /// The server closed the connection.
    #[error("closed by the server")]
    Closed,
}

/// One user's session.
#[derive(Debug)]
pub struct Session {
    plan: Arc<Plan>,
    user: u32,
}

impl Session {
    /// User number `user`, not connected yet.
    pub fn new(plan: &Arc<Plan>, user: u32) -> Self {
        Self {
            plan: Arc::clone(plan),
            user,
        }
    }

    /// The channel is connected, with TLS where that begins at once.
    pub fn connected(&mut self, _channel: Channel, _out: &mut Output) -> Result<(), Fault> {
        todo!()
    }

    /// Bytes came (after TLS). Each event is told as it is found; what it borrows lives as long
    /// as the call of `event`.
    pub fn received(
        &mut self,
        _channel: Channel,
        _bytes: &[u8],
        _out: &mut Output,
        _event: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Fault> {
        todo!()
    }

    /// The peer closed the channel. `Ok` where that is no fault: a BOSH channel between two
    /// requests, or after [`Session::leave`].
    pub fn closed(&mut self, _channel: Channel, _out: &mut Output) -> Result<(), Fault> {
        todo!()
    }

    /// Sends a chat message. `body` needs no escaping: it is of printable ASCII without `<&>"'`.
    pub fn send_message(&mut self, _to: &str, _body: &str, _out: &mut Output) {
        todo!()
    }

    /// Says goodbye. [`Output::close`] tells when the server has answered, or at once.
    pub fn leave(&mut self, _out: &mut Output) {
        todo!()
    }

    /// The full JID, once logged in.
    pub fn jid(&self) -> &str {
        todo!()
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
