//! What a link tells its owner.

use crate::control::{CloseReason, ErrorCode, Open};
use crate::frame::ConnectionId;

/// What came over the link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// Bytes of a client's connection, never none.
    Content {
        /// The connection.
        id: ConnectionId,
        /// The bytes, borrowed from the input.
        bytes: &'a [u8],
    },
    /// The peer sends nothing more on a connection.
    End {
        /// The connection.
        id: ConnectionId,
    },
    /// A client connected. Only to a node.
    Open(Box<Open>),
    /// Credit for a connection.
    Window {
        /// The connection.
        id: ConnectionId,
        /// Bytes, never 0.
        bytes: u32,
    },
    /// The peer is done with a connection; deliver what came before.
    Close {
        /// The connection.
        id: ConnectionId,
        /// Why.
        reason: CloseReason,
    },
    /// The peer is done with a connection; deliver nothing more.
    Reset {
        /// The connection.
        id: ConnectionId,
        /// Why.
        reason: CloseReason,
    },
    /// To be answered at once with a pong of the same word.
    Ping {
        /// The word.
        word: String,
    },
    /// The answer to a ping.
    Pong {
        /// The ping's word.
        word: String,
    },
    /// The peer has received that much.
    Ack {
        /// Bytes of frames after the handshake.
        bytes: u64,
    },
    /// The peer wants no new connections.
    Goaway {
        /// Why.
        reason: CloseReason,
        /// Seconds after which it may be otherwise.
        retry_after: Option<u32>,
        /// Seconds within which the peer ends the connections that are open.
        within: Option<u32>,
    },
    /// The peer closes the link for this.
    PeerError {
        /// Why, for programs.
        code: ErrorCode,
        /// Why, for people. May hold any character: escape it in a log.
        text: String,
    },
}
