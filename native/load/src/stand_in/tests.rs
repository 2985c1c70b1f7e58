//! The stand-in over real sockets, with clients that are written out here: none of the tool's own
//! code is on their side.

mod bosh;
mod c2s;
mod faults;
mod link;
mod support;
mod websocket;
