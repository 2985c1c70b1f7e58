//! What went wrong, for the person who runs the benchmark.

use std::fmt;

/// What went wrong, in a sentence.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);

/// The result of whatever can go wrong here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// `what: error`.
    pub fn of(what: impl fmt::Display, error: impl fmt::Display) -> Self {
        Self(format!("{what}: {error}"))
    }
}

impl From<String> for Error {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Error {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self(format!("JSON: {error}"))
    }
}

impl From<megaphone_load::fleet::Error> for Error {
    fn from(error: megaphone_load::fleet::Error) -> Self {
        Self(error.to_string())
    }
}
