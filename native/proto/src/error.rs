//! What ends a link, in a sentence for the log and a code for the peer.

use std::fmt;

use thiserror::Error;

use crate::control::{Control, ControlError, ErrorCode};
use crate::credit::CreditError;
use crate::frame::{ConnectionId, FrameError};
use crate::limits::{CONTROL_LINE_MAX, EXCERPT_MAX, NONCE_MIN};

/// The peer broke the protocol in a way that the link cannot survive.
///
/// The sentence goes into the log, and in version 2 with [`LinkError::code`] into the `error`
/// message to the peer; then the link is closed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LinkError {
    /// A frame's head broke a rule.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A control message broke a rule.
    #[error("control message \"{line}\": {error}")]
    Control {
        /// The rule.
        error: ControlError,
        /// The message.
        line: Excerpt,
    },
    /// A control message without an end in sight.
    #[error("control message \"{line}\": longer than {CONTROL_LINE_MAX} bytes")]
    LineTooLong {
        /// Its beginning.
        line: Excerpt,
    },
    /// An empty frame on connection 0: the control channel ends with the link, not before.
    #[error("empty frame on connection 0")]
    ControlEnd,
    /// A frame on connection 0 of a version 1 link.
    #[error("frame on connection 0 of a version 1 link")]
    ControlInV1,
    /// The first frame makes the link version 1, which is not allowed here.
    #[error("version 1 link, which is not allowed here: the first frame is on connection {id}")]
    V1Refused {
        /// The first frame's connection.
        id: ConnectionId,
    },
    /// The first frame from ejabberd is not a hello.
    #[error("frame on connection {id} before the hello")]
    BeforeHello {
        /// The frame's connection.
        id: ConnectionId,
    },
    /// The first control message is not a hello.
    #[error("control message \"{line}\" before the hello")]
    NotHello {
        /// The message.
        line: Excerpt,
    },
    /// Another hello.
    #[error("a second hello")]
    SecondHello,
    /// A version that this side does not speak.
    #[error("hello of version {version}, which is not spoken here")]
    Version {
        /// The version in the hello.
        version: u32,
    },
    /// ejabberd's hello names no link.
    #[error("hello without link=")]
    NoLinkName,
    /// A hello or an auth is not alone in its frame: nobody could say where the bytes begin that
    /// are counted for `ack`.
    #[error("control message \"{line}\": it must be alone in its frame")]
    NotAlone {
        /// The message.
        line: Excerpt,
    },
    /// The peer did not prove that it knows the secret.
    #[error("{problem}")]
    Auth {
        /// What is wrong with its proof.
        problem: AuthProblem,
    },
    /// ejabberd goes on with a link that it was not asked for.
    #[error("hello with resumed= for a link that was not to be resumed")]
    NotAsked,
    /// An acknowledgement of bytes that were never sent.
    #[error("ack of {received} bytes, of which only {sent} were sent")]
    AckBeyond {
        /// What the peer says it has.
        received: u64,
        /// What it was sent.
        sent: u64,
    },
    /// A message that only the other side may send.
    #[error("`{verb}` from the side that must not send it")]
    WrongSide {
        /// The message's verb.
        verb: &'static str,
    },
    /// The stream ended in the middle of something.
    #[error("the link ended {place}")]
    Truncated {
        /// Where it ended.
        place: Place,
    },
    /// Content without credit, or credit without end. Found by whoever keeps the connections.
    #[error("connection {id}: {error}")]
    Credit {
        /// The connection.
        id: ConnectionId,
        /// What the peer did.
        error: CreditError,
    },
}

impl LinkError {
    /// The code of the `error` message that tells the peer.
    pub fn code(&self) -> ErrorCode {
        match self {
            LinkError::Frame(_) | LinkError::Truncated { .. } => ErrorCode::FrameError,
            LinkError::Credit { .. } => ErrorCode::FlowControl,
            LinkError::Version { .. } | LinkError::V1Refused { .. } => ErrorCode::Version,
            LinkError::Auth { .. } => ErrorCode::Auth,
            _ => ErrorCode::ProtocolError,
        }
    }

    /// The `error` message that tells the peer.
    pub fn to_control(&self) -> Control {
        Control::Error {
            code: self.code(),
            text: self.to_string(),
        }
    }
}

/// What is wrong with a proof.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AuthProblem {
    /// The nonce could come twice.
    #[error("a nonce of {len} hex digits where a secret asks for {NONCE_MIN}")]
    Nonce {
        /// Its digits.
        len: usize,
    },
    /// ejabberd has no secret, or does not say so.
    #[error("ejabberd's hello has no proof that it knows the secret")]
    NoProof,
    /// It was made with another secret.
    #[error("the proof is wrong: the peer has another secret")]
    Wrong,
    /// Something else came first.
    #[error("control message \"{line}\" before the auth that is due")]
    NotAuth {
        /// What came.
        line: Excerpt,
    },
}

/// Where a stream was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Inside a head.
    Head {
        /// Bytes of it that came.
        have: usize,
    },
    /// Inside a frame's content.
    Frame {
        /// The frame's connection.
        id: ConnectionId,
        /// Bytes of content that did not come.
        missing: u32,
    },
    /// Inside a control message, between two frames.
    Control,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Head { have } => write!(f, "inside a frame head, after {have} of 32 bytes"),
            Place::Frame { id, missing } => {
                write!(
                    f,
                    "inside a frame of connection {id}, {missing} bytes short"
                )
            }
            Place::Control => f.write_str("inside a control message"),
        }
    }
}

/// The beginning of what a peer sent, made harmless for a log: printable ASCII only, and at
/// most [`EXCERPT_MAX`] bytes of the original.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excerpt(String);

impl Excerpt {
    /// The beginning of `bytes`, with `...` where something was cut off.
    pub fn new(bytes: &[u8]) -> Self {
        let shown = &bytes[..bytes.len().min(EXCERPT_MAX)];
        let more = if shown.len() < bytes.len() { "..." } else { "" };
        Excerpt(format!("{}{more}", shown.escape_ascii()))
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
