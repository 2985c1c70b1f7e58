//! The megaphone link protocol (docs/protocol.md): bytes in, events out, for both ends of a link.
//!
//! No I/O, no clock, no BEAM. A [`handshake::Handshake`] begins a link; a [`link::Link`] then takes
//! its bytes and gives events; frames and control messages to send come from [`frame::put_frame`]
//! and [`control::Control::put`], and what was sent stays in a [`retained::Retained`] until the peer
//! has it. Which connections are open, in what state and with what credit, is kept in a
//! [`table::Table`] of [`conn::Conn`]s, by whoever owns the link. `tests/world/` has both ends put
//! together.

pub mod addresses;
pub mod auth;
pub mod buffer;
mod config;
pub mod conn;
pub mod control;
pub mod credit;
mod digits;
pub mod error;
mod event;
mod facts;
mod fields;
pub mod frame;
pub mod handshake;
pub mod http1;
pub mod limits;
pub mod link;
pub mod packet;
pub mod parking;
mod reason;
pub mod retained;
pub mod stanza;
pub mod table;
pub mod total;
pub mod wheel;
pub mod ws;

use std::sync::atomic;

pub use error::LinkError;
pub use frame::ConnectionId;
pub use handshake::Handshake;
pub use link::{Event, Link, LinkConfig, Resume, Role};
