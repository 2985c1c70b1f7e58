//! The megaphone link protocol.
