//! What is measured, started and stopped: ejabberd nodes with their ECMs, the stand-in, haproxy and nginx.
//!
//! All of it listens on loopback, on ports of its own, keeps its files in [`crate::bench::Bench::dir`], runs as the
//! current user, and is killed when its value is dropped or this program ends, whatever ends it.

mod beam;
mod child;
mod config;
mod ecm;
mod link;
mod ports;
mod proxy;
mod site;
mod stand_in;

pub use beam::Beam;
pub use child::{Child, clean_up_on_signals};
pub use config::{ANONYMOUS, Front, REGISTERED, description};
pub use ecm::{CLIENTS, Ecm};
pub use link::{LinkAddress, LinkKind};
pub use proxy::{Proxy, ProxyKind};
pub use site::{Setup, Site};
pub use stand_in::StandIn;
