//! `megaphone-load`: real XMPP users by the thousand against any XMPP server, and what else a
//! server is measured with.
//!
//! [`Fleet`] is the tool as a library: it starts the worker processes, logs users in, has them
//! chatter, and adds up what the workers saw. The program `megaphone-load` is a command line
//! around it.
//!
//! What a user says and hears is in [`session`], without I/O and without a clock. A worker
//! ([`worker`]) is one thread with one epoll set: a user that is quiet costs its [`session::Session`]
//! and a socket, and no task, timer or buffer.

pub mod account;
pub mod beam;
pub mod bulk;
pub mod cli;
pub mod clock;
pub mod errno;
pub mod fleet;
pub mod generator;
pub mod http;
pub mod ledger;
pub mod link;
pub mod pace;
pub mod session;
pub mod socket;
pub mod stamp;
pub mod stand_in;
pub mod summary;
pub mod tally;
pub mod target;
pub mod usage;
pub mod users;
pub mod wire;
pub mod worker;

pub use fleet::Fleet;
