//! Who the users are.

use serde::{Deserialize, Serialize};

/// Who the users are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Accounts {
    /// SASL ANONYMOUS.
    Anonymous,
    /// User number N is `user` with `%` replaced by N, and so the password.
    Pattern {
        /// `user%`
        user: String,
        /// `secret%`, or the same word for all
        password: String,
        /// What to authenticate with.
        mechanism: Mechanism,
    },
}

/// A SASL mechanism.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mechanism {
    /// RFC 4616
    Plain,
    /// RFC 5802
    ScramSha1,
    /// RFC 7677
    ScramSha256,
}
