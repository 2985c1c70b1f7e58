//! WebSocket (RFC 6455) from a server's side: what a client sends becomes messages, and what it
//! does wrong a [`Fault`] with the code to close with. No extensions: none are negotiated.
//!
//! ```text
//!   client bytes ─► Head::parse ─► Reader::next ─► Event ─► Payload::copy_to ─► a binary
//!                                     │
//!                                     └─► Fault ─► put_close(fault.code())
//! ```

mod close;
mod fault;
mod head;
mod mask;
mod reader;
mod utf8;

pub use close::{Closing, put_close};
pub use fault::Fault;
pub use head::{Head, Opcode, put_head};
pub use mask::unmask;
pub use reader::{Event, Kind, Payload, Reader, Short};
