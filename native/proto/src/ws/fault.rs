//! What a client can do wrong.

use thiserror::Error;

/// Why a WebSocket must be failed (RFC 6455, section 7.1.7); a sentence for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    /// Section 5.2: no extension gives them a meaning.
    #[error("a frame with reserved bits")]
    ReservedBits,
    /// Section 5.2: the opcodes 3 to 7 and 11 to 15.
    #[error("a frame of the reserved opcode {0}")]
    ReservedOpcode(u8),
    /// Section 5.1: a client masks all it sends.
    #[error("a frame without a mask")]
    Unmasked,
    /// Section 5.5.
    #[error("a control frame of more than 125 bytes")]
    ControlTooLong,
    /// Section 5.5.
    #[error("a fragmented control frame")]
    ControlFragmented,
    /// Section 5.2: the most significant bit must be 0.
    #[error("a frame of more than 2^63 bytes")]
    Length,
    /// Section 5.4: there is nothing to go on with.
    #[error("a continuation of no message")]
    NothingToContinue,
    /// Section 5.4: the fragments of one message do not mix with another's.
    #[error("a new message within another one")]
    Interleaved,
    /// Section 8.1.
    #[error("text that is not UTF-8")]
    Utf8,
    /// Section 5.5.1: a code takes two bytes.
    #[error("a close frame with half a code")]
    HalfACode,
    /// Section 7.4.
    #[error("a close frame with the code {0}")]
    CloseCode(u16),
    /// Section 10.4.
    #[error("a message of more than {max} bytes (max_message)")]
    TooBig {
        /// Bytes allowed.
        max: usize,
    },
    /// Section 10.4: frames of next to nothing that make up a message which never ends.
    #[error("a message in more than {max} fragments")]
    TooManyFragments {
        /// Fragments allowed to a message of its size.
        max: usize,
    },
}

impl Fault {
    /// The status code to close with (section 7.4.1).
    pub fn code(self) -> u16 {
        match self {
            Fault::Utf8 => 1007,
            Fault::TooManyFragments { .. } => 1008,
            Fault::TooBig { .. } => 1009,
            _ => 1002,
        }
    }
}
