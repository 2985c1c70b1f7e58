//! `make bench`: stock ejabberd and megaphone side by side, in one run, in turns.
//!
//! A part ([`part::Part`]) measures ([`bench::Bench`] is what it measures with, [`rig`] what it starts) and keeps
//! what it measured as JSON; from that JSON alone it makes its [`section::Section`] of `docs/benchmarks.md`: text,
//! tables and plots. So the document can be written anew without measuring.
//!
//! Everything is started by the main thread and dies with it, whatever becomes of it.

pub mod aims;
pub mod bench;
pub mod bulk;
pub mod chat;
pub mod cli;
pub mod climb;
pub mod crowd;
pub mod document;
pub mod edge;
pub mod error;
pub mod figure;
pub mod http;
pub mod hung;
pub mod idle;
pub mod kernel;
pub mod logins;
pub mod machine;
pub mod markdown;
pub mod measure;
pub mod memory;
pub mod part;
pub mod parts;
pub mod plot;
pub mod profile;
pub mod requests;
pub mod rig;
pub mod search;
pub mod section;
pub mod side;
pub mod slope;
pub mod soak;
pub mod store;
pub mod terms;
pub mod watch;

pub use error::{Error, Result};
