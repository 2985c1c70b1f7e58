//! Who the users are.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Who the users are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Accounts {
    /// SASL ANONYMOUS.
    Anonymous,
    /// User number N is `user` with `%` replaced by N, and so the password.
    Pattern {
        /// `user%`; `user%%%%` gives user0007: a number is as long as its signs at least.
        user: String,
        /// `secret%`, or the same word for all
        password: String,
        /// What to authenticate with.
        mechanism: Mechanism,
    },
}

impl Accounts {
    /// Name and password of user number `user`; `None` where users are anonymous.
    pub fn credentials(&self, user: u32) -> Option<(String, String)> {
        match self {
            Self::Anonymous => None,
            Self::Pattern {
                user: name,
                password,
                ..
            } => Some((number(name, user), number(password, user))),
        }
    }
}

/// The pattern with each run of `%` replaced by the number, padded to the run's length.
fn number(pattern: &str, number: u32) -> String {
    let mut text = String::with_capacity(pattern.len() + 10);
    let mut rest = pattern;
    while let Some(at) = rest.find('%') {
        let signs = rest[at..].bytes().take_while(|&byte| byte == b'%').count();
        text.push_str(&rest[..at]);
        text.push_str(&format!("{number:0signs$}"));
        rest = &rest[at + signs..];
    }
    text.push_str(rest);
    text
}

/// A SASL mechanism.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mechanism {
    /// The strongest of the others that the server offers.
    Best,
    /// RFC 4616
    Plain,
    /// RFC 5802
    ScramSha1,
    /// RFC 7677
    ScramSha256,
}

impl Mechanism {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Best, Self::Plain, Self::ScramSha1, Self::ScramSha256];

    /// As SASL calls it, but for `best`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Best => "best",
            Self::Plain => "PLAIN",
            Self::ScramSha1 => "SCRAM-SHA-1",
            Self::ScramSha256 => "SCRAM-SHA-256",
        }
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Mechanism {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|mechanism| mechanism.name().eq_ignore_ascii_case(name))
            .ok_or_else(|| format!("{name}: not one of best, PLAIN, SCRAM-SHA-1, SCRAM-SHA-256"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_where_the_signs_are() {
        assert_eq!(number("user%", 7), "user7");
        assert_eq!(number("%-of-%%%", 7), "7-of-007");
        assert_eq!(number("%%", 1234), "1234");
        assert_eq!(number("same", 7), "same");
    }

    #[test]
    fn mechanisms_are_read_as_they_are_written() {
        for mechanism in Mechanism::ALL {
            assert_eq!(mechanism.to_string().to_lowercase().parse(), Ok(mechanism));
        }
        assert!("SCRAM-MD5".parse::<Mechanism>().is_err());
    }
}
