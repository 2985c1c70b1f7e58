//! What a session's caller deals in.

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

impl Channel {
    /// Its place in [`Output::writes`] and [`Output::connect`].
    pub fn index(self) -> usize {
        match self {
            Self::First => 0,
            Self::Second => 1,
        }
    }

    pub(super) fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}

/// What a session wants done. The caller empties it after each call.
#[derive(Debug, Default)]
pub struct Output {
    /// Bytes to write, by channel.
    pub writes: [Vec<u8>; 2],
    /// The channel is to be connected, anew if it has been; [`super::Session::connected`] tells when it is.
    /// BOSH only: its second when it is first needed, and either when the server has
    /// ended a kept-alive connection. Never asked for before [`super::Session::connected`] of the first.
    pub connect: [bool; 2],
    /// The first channel goes on in TLS from here: nothing is written before it has begun,
    /// and [`super::Session::connected`] is called again when it has.
    pub start_tls: bool,
    /// The session is over and its connections can be closed.
    pub close: bool,
}

/// What happened to a user.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// Bound, and its presence on the way: it can send and receive, and [`super::Session::jid`] is its full
    /// JID.
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
    /// `<failure/>` of SASL, with its condition; or no mechanism that would do.
    #[error("authentication: {0}")]
    Authentication(String),
    /// Bind or session was answered with an error, of this condition.
    #[error("no resource: {0}")]
    Refused(String),
    /// `<stream:error/>` or a BOSH `terminate`, with its condition.
    #[error("stream error: {0}")]
    Stream(String),
    /// An HTTP status that is not expected here.
    #[error("HTTP status {0}")]
    Http(u16),
    /// The server closed the connection, or the stream.
    #[error("closed by the server")]
    Closed,
}
