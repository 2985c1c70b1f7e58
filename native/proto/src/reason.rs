//! The closed lists of words: why a connection closes, why a link does.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// An enum whose every variant is one word of a closed list.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// Every one, in the order of docs/protocol.md.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// The word on the wire, in logs and in metrics.
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownWord;

            fn from_str(word: &str) -> Result<Self, UnknownWord> {
                Self::ALL.iter().copied().find(|it| it.as_str() == word).ok_or(UnknownWord)
            }
        }
    };
}

words! {
    /// Why a connection was closed or reset, or why new ones are unwelcome.
    CloseReason {
        /// Both sides were done with it.
        Normal = "normal",
        /// The client closed its socket.
        ClientClosed = "client_closed",
        /// The service in ejabberd closed it.
        ServerClosed = "server_closed",
        /// Nothing came or went for too long.
        Idle = "idle",
        /// Something that was awaited did not come in time.
        Timeout = "timeout",
        /// Nobody here takes it: no such service, or not for this client.
        Refused = "refused",
        /// A configured limit was reached.
        Limit = "limit",
        /// The peer broke the protocol on this connection.
        ProtocolError = "protocol_error",
        /// No room for it now; later there may be.
        Overload = "overload",
        /// The link it was on is gone.
        LinkLost = "link_lost",
        /// This side is stopping.
        Shutdown = "shutdown",
        /// A fault of this side.
        Internal = "internal",
    }
}

words! {
    /// Why a link is being closed, said in the last message on it.
    ErrorCode {
        /// More content than there was credit for, or credit past 2³¹−1.
        FlowControl = "flow_control",
        /// A frame's head broke a rule.
        FrameError = "frame_error",
        /// A control message broke a rule.
        ProtocolError = "protocol_error",
        /// The protocol version is not one that this side speaks or allows.
        Version = "version",
        /// The peer did not prove who it is.
        Auth = "auth",
        /// Too many connections, opens or resets.
        Limit = "limit",
        /// Nothing came for three heartbeat intervals.
        Timeout = "timeout",
        /// A fault of this side.
        Internal = "internal",
        /// A code that this side does not know; never sent.
        Unknown = "unknown",
    }
}

/// A word that is not in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a word of this list")]
pub struct UnknownWord;
