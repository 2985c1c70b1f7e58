//! The words of one control message, and the values that stand in them.

use std::fmt::{self, Write};
use std::str::FromStr;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use thiserror::Error;

use crate::frame::ConnectionId;
use crate::limits::{CONTROL_LINE_MAX, NAME_MAX};

/// What is percent-encoded in a value, besides everything beyond ASCII.
const VALUE: &AsciiSet = &CONTROLS.add(b' ').add(b'%');
/// Bytes of the longest word that fits into a line of its own.
const WORD_MAX: usize = CONTROL_LINE_MAX - "ping \n".len();

/// One control message: its verb, then words or `key=value`.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a> {
    verb: &'static str,
    rest: &'a str,
}

impl<'a> Fields<'a> {
    /// Checks that `line` is printable ASCII and splits the verb off. The second part is what
    /// [`Fields::new`] takes.
    pub(crate) fn split(line: &'a [u8]) -> Result<(&'a str, &'a str), ControlError> {
        if let Some(at) = line.iter().position(|byte| !(b' '..=b'~').contains(byte)) {
            return Err(ControlError::NotText { at });
        }
        let Ok(line) = std::str::from_utf8(line) else {
            return Err(ControlError::NotText { at: 0 });
        };
        match line.split_once(' ') {
            Some((verb, rest)) if !verb.is_empty() && !rest.split(' ').any(str::is_empty) => {
                Ok((verb, rest))
            }
            None if !line.is_empty() => Ok((line, "")),
            _ => Err(ControlError::EmptyWord),
        }
    }

    pub(crate) fn new(verb: &'static str, rest: &'a str) -> Self {
        Fields { verb, rest }
    }

    /// Takes the next word, called `what` in the protocol.
    pub(crate) fn word(&mut self, what: &'static str) -> Result<&'a str, ControlError> {
        let (word, rest) = self.rest.split_once(' ').unwrap_or((self.rest, ""));
        if word.is_empty() {
            return Err(self.missing(what));
        }
        self.rest = rest;
        Ok(word)
    }

    /// Takes the next word, the id of a client's connection.
    pub(crate) fn id(&mut self) -> Result<ConnectionId, ControlError> {
        let word = self.word("ID")?;
        match decimal(word, u64::MAX) {
            Some(0) => Err(self.bad("ID", "0 is never a client")),
            Some(number) => Ok(ConnectionId::new(number)),
            None => Err(self.bad("ID", "not a number of up to 64 bits")),
        }
    }

    /// Takes the next word, a number of at most `max`.
    pub(crate) fn number(&mut self, what: &'static str, max: u64) -> Result<u64, ControlError> {
        let word = self.word(what)?;
        decimal(word, max).ok_or_else(|| self.bad(what, "not a number, or too large"))
    }

    /// The words are all taken: only `key=value` may follow.
    pub(crate) fn only_keys(self) -> Result<Self, ControlError> {
        let mut rest = self.rest.split(' ').filter(|word| !word.is_empty());
        match rest.find(|word| !word.contains('=')) {
            Some(_) => Err(ControlError::BareWord { verb: self.verb }),
            None => Ok(self),
        }
    }

    /// The value of `key` as written, where it stands.
    pub(crate) fn optional(&self, key: &'static str) -> Result<Option<&'a str>, ControlError> {
        let mut values = self
            .rest
            .split(' ')
            .filter_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        let value = values.next();
        match values.next() {
            None => Ok(value),
            Some(_) => Err(ControlError::Twice {
                verb: self.verb,
                key,
            }),
        }
    }

    /// The value of `key` as written, which must stand.
    pub(crate) fn required(&self, key: &'static str) -> Result<&'a str, ControlError> {
        self.optional(key)?.ok_or_else(|| self.missing(key))
    }

    /// The number at `key`, at most `max`.
    pub(crate) fn optional_number(
        &self,
        key: &'static str,
        max: u64,
    ) -> Result<Option<u64>, ControlError> {
        self.optional(key)?
            .map(|value| {
                decimal(value, max).ok_or_else(|| self.bad(key, "not a number, or too large"))
            })
            .transpose()
    }

    /// The number at `key`, at most `max`, which must stand.
    pub(crate) fn required_number(&self, key: &'static str, max: u64) -> Result<u64, ControlError> {
        self.optional_number(key, max)?
            .ok_or_else(|| self.missing(key))
    }

    /// The decoded text at `key`, of at most `max` bytes.
    pub(crate) fn optional_text(
        &self,
        key: &'static str,
        max: usize,
    ) -> Result<Option<String>, ControlError> {
        self.optional(key)?
            .map(|value| self.decode(key, value, max))
            .transpose()
    }

    /// The decoded text at `key`, of at most `max` bytes, which must stand and not be empty.
    pub(crate) fn required_name(
        &self,
        key: &'static str,
        max: usize,
    ) -> Result<String, ControlError> {
        let name = self.decode(key, self.required(key)?, max)?;
        if name.is_empty() {
            return Err(self.bad(key, "empty"));
        }
        Ok(name)
    }

    /// The bytes in hex or base64 at `key`, as written: whoever uses them decodes them.
    pub(crate) fn optional_secret(
        &self,
        key: &'static str,
        alphabet: fn(&u8) -> bool,
        max: usize,
    ) -> Result<Option<String>, ControlError> {
        let Some(value) = self.optional(key)? else {
            return Ok(None);
        };
        if value.is_empty() || value.len() > max || !value.bytes().all(|byte| alphabet(&byte)) {
            return Err(self.bad(key, "not in its alphabet, empty or too long"));
        }
        Ok(Some(value.to_owned()))
    }

    /// The decoded value at `key` as one of a closed list, or whatever else reads from text.
    pub(crate) fn required_token<T: FromStr>(&self, key: &'static str) -> Result<T, ControlError> {
        let value = self.decode(key, self.required(key)?, NAME_MAX)?;
        value.parse().map_err(|_| self.bad(key, "not understood"))
    }

    fn decode(&self, key: &'static str, value: &str, max: usize) -> Result<String, ControlError> {
        let encoded = value.as_bytes();
        let escaped = |at: usize| encoded.get(at).is_some_and(u8::is_ascii_hexdigit);
        for (at, byte) in encoded.iter().enumerate() {
            if *byte == b'%' && !(escaped(at + 1) && escaped(at + 2)) {
                return Err(self.bad(key, "'%' without two hex digits"));
            }
        }
        let text = percent_decode_str(value)
            .decode_utf8()
            .map_err(|_| self.bad(key, "not UTF-8"))?;
        if text.len() > max {
            return Err(self.bad(key, "too long"));
        }
        Ok(text.into_owned())
    }

    fn missing(&self, what: &'static str) -> ControlError {
        ControlError::Missing {
            verb: self.verb,
            what,
        }
    }

    pub(crate) fn bad(&self, what: &'static str, why: &'static str) -> ControlError {
        ControlError::Bad {
            verb: self.verb,
            what,
            why,
        }
    }
}

/// A number in digits alone: no sign, no space, nothing over `max`.
fn decimal(text: &str, max: u64) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|number| *number <= max)
}

/// Writes ` key=value`, the value encoded and cut to `max` bytes before that, so that a line
/// always stays within its limit.
pub(crate) fn put_text(
    f: &mut fmt::Formatter<'_>,
    key: &str,
    value: &str,
    max: usize,
) -> fmt::Result {
    write!(f, " {key}={}", utf8_percent_encode(cut(value, max), VALUE))
}

/// As [`put_text`], where there is a value.
pub(crate) fn put_optional(
    f: &mut fmt::Formatter<'_>,
    key: &str,
    value: Option<&str>,
    max: usize,
) -> fmt::Result {
    value.map_or(Ok(()), |value| put_text(f, key, value, max))
}

/// Writes ` key=number`, where there is one.
pub(crate) fn put_number(
    f: &mut fmt::Formatter<'_>,
    key: &str,
    number: Option<u64>,
) -> fmt::Result {
    number.map_or(Ok(()), |number| write!(f, " {key}={number}"))
}

/// Writes one bare word. It is not decoded by the reader, so that a `pong` gives back exactly
/// what the `ping` had; what no word can hold becomes `_`.
pub(crate) fn put_word(f: &mut fmt::Formatter<'_>, word: &str) -> fmt::Result {
    let word = if word.is_empty() { "_" } else { word };
    f.write_str(" ")?;
    for char in cut(word, WORD_MAX).chars() {
        f.write_char(if char.is_ascii_graphic() { char } else { '_' })?;
    }
    Ok(())
}

fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

/// A control message that breaks a rule; the link it came on must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ControlError {
    /// A byte that is not printable ASCII.
    #[error("not printable ASCII at offset {at}")]
    NotText {
        /// Offset in the line, from 0.
        at: usize,
    },
    /// An empty line, a space at an end, or two of them together.
    #[error("empty line or empty word")]
    EmptyWord,
    /// A word where only `key=value` can stand.
    #[error("`{verb}` has a word too many")]
    BareWord {
        /// The message's verb.
        verb: &'static str,
    },
    /// Something that the message must have is not there.
    #[error("`{verb}` lacks {what}")]
    Missing {
        /// The message's verb.
        verb: &'static str,
        /// The word or key, as docs/protocol.md calls it.
        what: &'static str,
    },
    /// A key stands twice, and which one is meant cannot be known.
    #[error("`{verb}` has {key} twice")]
    Twice {
        /// The message's verb.
        verb: &'static str,
        /// The key.
        key: &'static str,
    },
    /// A value cannot be what it is.
    #[error("`{verb}` has a bad {what}: {why}")]
    Bad {
        /// The message's verb.
        verb: &'static str,
        /// The word or key, as docs/protocol.md calls it.
        what: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
}
