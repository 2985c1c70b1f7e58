//! The messages on connection 0 of a version 2 link, to text and back.
//!
//! One line each: a verb, then words or `key=value`, in printable ASCII with one space between.
//! The table of them is in docs/protocol.md.

use std::fmt;

use bytes::BufMut;

use crate::facts::hex;
pub use crate::facts::{Hello, Open, TlsFacts};
pub use crate::fields::ControlError;
use crate::fields::{Fields, put_number, put_text, put_word};
use crate::frame::{ConnectionId, put_frame};
use crate::limits::{CONTROL_LINE_MAX, ERROR_TEXT_MAX, HEAD_LEN, MAX_WINDOW, SECRET_TEXT_MAX};
pub use crate::reason::{CloseReason, ErrorCode, UnknownWord};

/// One control message. Displays as its line, without the newline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// The first message from each side.
    Hello(Hello),
    /// The ECM proves that it knows the secret.
    Auth {
        /// An HMAC-SHA256 in hex.
        proof: String,
    },
    /// A client connected.
    Open(Open),
    /// That many more bytes may be sent on a connection.
    Window {
        /// The connection.
        id: ConnectionId,
        /// Bytes, never 0.
        bytes: u32,
    },
    /// Done with a connection; what was sent before is still to be delivered.
    Close {
        /// The connection.
        id: ConnectionId,
        /// Why.
        reason: CloseReason,
    },
    /// Done with a connection; nothing undelivered is delivered any more.
    Reset {
        /// The connection.
        id: ConnectionId,
        /// Why.
        reason: CloseReason,
    },
    /// Is the link alive?
    Ping {
        /// To be given back unchanged.
        word: String,
    },
    /// It is.
    Pong {
        /// The ping's own.
        word: String,
    },
    /// So much has been received since the handshake.
    Ack {
        /// Bytes of frames.
        bytes: u64,
    },
    /// No new connections here, please.
    Goaway {
        /// Why.
        reason: CloseReason,
        /// Seconds after which it may be otherwise.
        retry_after: Option<u32>,
        /// Seconds within which the sender ends the connections that are open.
        within: Option<u32>,
    },
    /// The last message before the sender closes the link.
    Error {
        /// Why, for programs.
        code: ErrorCode,
        /// Why, for people: a sentence. A peer may have put anything into it.
        text: String,
    },
}

impl Control {
    /// Reads one line, its newline taken off. `None` is a message that this side does not know,
    /// and ignores.
    ///
    /// # Errors
    /// The line breaks a rule; the link must be closed.
    pub fn parse(line: &[u8]) -> Result<Option<Control>, ControlError> {
        let (verb, rest) = Fields::split(line)?;
        Ok(Some(match verb {
            "hello" => Control::Hello(Hello::parse(Fields::new("hello", rest))?),
            "auth" => {
                let fields = Fields::new("auth", rest).only_keys()?;
                fields.required("proof")?;
                Control::Auth {
                    proof: hex(&fields, "proof")?.unwrap_or_default(),
                }
            }
            "open" => Control::Open(Open::parse(Fields::new("open", rest))?),
            "window" => parse_window(Fields::new("window", rest))?,
            "close" => {
                let (id, reason) = parse_end(Fields::new("close", rest))?;
                Control::Close { id, reason }
            }
            "reset" => {
                let (id, reason) = parse_end(Fields::new("reset", rest))?;
                Control::Reset { id, reason }
            }
            "ping" => Control::Ping {
                word: parse_word(Fields::new("ping", rest))?,
            },
            "pong" => Control::Pong {
                word: parse_word(Fields::new("pong", rest))?,
            },
            "ack" => {
                let mut fields = Fields::new("ack", rest);
                let bytes = fields.number("BYTES", u64::MAX)?;
                fields.only_keys()?;
                Control::Ack { bytes }
            }
            "goaway" => {
                let fields = Fields::new("goaway", rest).only_keys()?;
                let seconds = |key| {
                    let number = fields.optional_number(key, u64::from(u32::MAX))?;
                    Ok(number.map(|seconds| seconds as u32))
                };
                Control::Goaway {
                    reason: fields.required_token("reason")?,
                    retry_after: seconds("retry_after")?,
                    within: seconds("within")?,
                }
            }
            "error" => parse_error(Fields::new("error", rest))?,
            _ => return Ok(None),
        }))
    }

    /// Writes the message as one whole frame, head and newline included.
    ///
    /// Names and texts over their limits (see [`crate::limits`]) are cut, and what no word can
    /// hold becomes `_`, so that the line is always one that a peer must take.
    pub fn put(&self, out: &mut impl BufMut) {
        let line = format!("{self}\n");
        debug_assert!(line.len() <= CONTROL_LINE_MAX);
        put_frame(ConnectionId::CONTROL, line.as_bytes(), out);
    }

    /// The message as one whole frame, for those who keep or send it alone.
    pub fn to_frame(&self) -> Vec<u8> {
        let mut frame = Vec::with_capacity(HEAD_LEN + 96);
        self.put(&mut frame);
        frame
    }
}

impl fmt::Display for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Control::Hello(hello) => hello.fmt(f),
            Control::Auth { proof } => {
                f.write_str("auth")?;
                put_text(f, "proof", proof, SECRET_TEXT_MAX)
            }
            Control::Open(open) => open.fmt(f),
            Control::Window { id, bytes } => write!(f, "window {id} {bytes}"),
            Control::Close { id, reason } => write!(f, "close {id} reason={reason}"),
            Control::Reset { id, reason } => write!(f, "reset {id} reason={reason}"),
            Control::Ping { word } => {
                f.write_str("ping")?;
                put_word(f, word)
            }
            Control::Pong { word } => {
                f.write_str("pong")?;
                put_word(f, word)
            }
            Control::Ack { bytes } => write!(f, "ack {bytes}"),
            Control::Goaway {
                reason,
                retry_after,
                within,
            } => {
                write!(f, "goaway reason={reason}")?;
                put_number(f, "retry_after", retry_after.map(u64::from))?;
                put_number(f, "within", within.map(u64::from))
            }
            Control::Error { code, text } => {
                write!(f, "error code={code}")?;
                put_text(f, "text", text, ERROR_TEXT_MAX)
            }
        }
    }
}

fn parse_window(mut fields: Fields<'_>) -> Result<Control, ControlError> {
    let id = fields.id()?;
    let bytes = fields.number("BYTES", u64::from(MAX_WINDOW))? as u32;
    // Like HTTP/2 (RFC 9113, 6.9): a grant of nothing is only good for keeping a peer busy.
    if bytes == 0 {
        return Err(fields.bad("BYTES", "0 grants nothing"));
    }
    fields.only_keys()?;
    Ok(Control::Window { id, bytes })
}

fn parse_end(mut fields: Fields<'_>) -> Result<(ConnectionId, CloseReason), ControlError> {
    let id = fields.id()?;
    let reason = fields.only_keys()?.required_token("reason")?;
    Ok((id, reason))
}

fn parse_word(mut fields: Fields<'_>) -> Result<String, ControlError> {
    let word = fields.word("WORD")?.to_owned();
    fields.only_keys()?;
    Ok(word)
}

fn parse_error(fields: Fields<'_>) -> Result<Control, ControlError> {
    let fields = fields.only_keys()?;
    // The link closes anyway: a code of a later day must not hide the text.
    let code = fields.required("code")?.parse();
    Ok(Control::Error {
        code: code.unwrap_or(ErrorCode::Unknown),
        text: fields
            .optional_text("text", CONTROL_LINE_MAX)?
            .unwrap_or_default(),
    })
}
