//! What is wrong with a configuration, and where.

use std::ops::Range;

/// Why a configuration cannot be used. Each is shown as one sentence that
/// begins with where it is.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("{file}: {reason}")]
    Read {
        /// The file, as it was named.
        file: String,
        /// What the system said.
        reason: String,
    },
    /// Something in the text is wrong.
    #[error("{file}:{line}:{column}: {}{message}", key.as_deref().map(|k| format!("{k}: ")).unwrap_or_default())]
    Text {
        /// The file, as it was named.
        file: String,
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
        /// The key as in `backend.address` or `listeners[0].listen`, where
        /// one is concerned.
        key: Option<String>,
        /// What is wrong.
        message: String,
    },
}

/// What is wrong with a configuration whose values are each well.
#[derive(Debug)]
pub struct Wrong {
    /// Where the value is, in bytes, where that is known.
    span: Option<Range<usize>>,
    /// Where the table of the key begins.
    table: usize,
    key: Option<String>,
    message: String,
}

impl Wrong {
    /// `message` about the value of `key` that stands at `span`.
    pub fn at(span: Range<usize>, key: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            span: Some(span),
            ..Self::somewhere(key, message)
        }
    }

    /// `message` about `key`, which may be missing.
    pub fn somewhere(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            span: None,
            table: 0,
            key: Some(key.into()),
            message: message.into(),
        }
    }

    /// It is in the table `name`, which stands at `span`.
    pub fn inside(mut self, name: String, span: Range<usize>) -> Self {
        self.table = span.start;
        self.key = self.key.map(|key| format!("{name}.{key}"));
        self
    }

    /// As the error of `text`, which stands in `file`.
    pub fn in_text(self, file: &str, text: &str) -> ConfigError {
        error_at(file, text, self.place(text), self.key, &self.message)
    }

    /// Where it is in `text`.
    fn place(&self, text: &str) -> Option<Range<usize>> {
        let looked_for = || {
            let at = place_of(text.get(self.table..)?, self.key.as_deref()?)?;
            Some(self.table + at..self.table + at)
        };
        let table = Some(self.table..self.table);
        self.span.clone().or_else(looked_for).or(table)
    }
}

/// The error whose place is the byte range `span` of `text`, or the beginning.
pub fn error_at(
    file: &str,
    text: &str,
    span: Option<Range<usize>>,
    key: Option<String>,
    message: &str,
) -> ConfigError {
    let at = span.map_or(0, |s| s.start);
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |n| n + 1);
    ConfigError::Text {
        file: file.to_owned(),
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
        key,
        message: message.trim_end().replace('\n', " "),
    }
}

/// Where a line of `text` begins with the last part of `key`.
fn place_of(text: &str, key: &str) -> Option<usize> {
    let last = key.rsplit('.').next()?;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if line.trim_start().starts_with(last) {
            return Some(at);
        }
        at += line.len();
    }
    None
}
