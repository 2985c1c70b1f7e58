//! A connection that speaks HTTP/1: its requests are collected here, and a process has one only
//! while it answers it.
//!
//! ```text
//!            bytes           whole, or a PUT's head        http_request
//!   (idle) ────────► Collecting ────────────► Ready ──────────────────► Taken ◄─── recv of a PUT
//!     ▲                  │                                     http_hold │  │
//!     │                  └─► refused, closed                             ▼  │ http_reply
//!     │                                                              Held   │
//!     │      all has gone out          rest of a body dropped           │   │
//!     └──────────────────── Flushing ◄────────────────── Skipping ◄─────┴───┘
//! ```
//! One request at a time: what a client sends behind it waits in the window, and the next one is
//! looked at when the answer has left the connection.

mod calls;
mod collect;
mod life;
mod refuse;
mod terms;
mod upload;

use std::sync::Arc;

use megaphone_proto::http1::Collector;
use rustler::{LocalPid, Resource};

pub use calls::{Given, Replied};

use super::Front;
use crate::conn::Held;

/// What the connections of one service share: the resource that `http_service` gives.
pub struct Service(pub Arc<Limits>);

#[rustler::resource_impl]
impl Resource for Service {}

/// What a service puts up with; times in whole seconds.
pub struct Limits {
    /// What the receiver is told with each request.
    pub key: i64,
    /// From a request's first byte to the end of its head.
    pub head_timeout: u32,
    /// Without 1 kB more of a body.
    pub body_timeout: u32,
    /// Between two requests.
    pub idle_timeout: u32,
    /// Without the client taking anything of an answer.
    pub send_timeout: u32,
    /// Bytes of a body that is given whole.
    pub max_body: u64,
}

/// One connection's requests.
pub struct Http {
    limits: Arc<Limits>,
    exchange: Option<Box<Exchange>>,
    /// Second (`Link::awake`) since which there was no request.
    idle_since: u32,
}

const _: () = assert!(size_of::<Http>() <= 24);

/// A request and its answer.
struct Exchange {
    stage: Stage,
    collector: Collector,
    /// Second (`Link::awake`) in which something must have happened.
    due: u32,
    /// What there was of it when that was last looked at.
    mark: u64,
    /// Bytes of the body that are still to be read, or dropped.
    left: u64,
    /// The client waits to be told to send the body.
    owes_continue: bool,
    /// The body has begun.
    in_body: bool,
    /// Some of the answer was sent.
    answered: bool,
    /// Who is told when the client of a held request goes, and what.
    watcher: Option<(LocalPid, u64)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Collecting,
    Ready,
    Taken,
    Held,
    Skipping,
    Flushing,
}

impl Http {
    fn new(limits: Arc<Limits>, now: u32) -> Self {
        Http {
            limits,
            exchange: None,
            idle_since: now,
        }
    }

    /// Bytes that a request has beside the connection's buffer.
    pub fn held(&self) -> usize {
        let exchange = self.exchange.as_ref();
        exchange.map_or(0, |exchange| exchange.collector.held())
    }

    /// Something was sent that the request's process made.
    pub fn sent(&mut self) {
        if let Some(exchange) = &mut self.exchange {
            exchange.answered = true;
        }
    }
}

impl Exchange {
    fn new(due: u32) -> Self {
        Exchange {
            stage: Stage::Collecting,
            collector: Collector::default(),
            due,
            mark: 0,
            left: 0,
            owes_continue: false,
            in_body: false,
            answered: false,
            watcher: None,
        }
    }

    /// Bytes of a streamed body that were read or dropped, counted from some point.
    fn gone(&self) -> u64 {
        u64::MAX / 2 - self.left.min(u64::MAX / 2)
    }
}

impl Held<'_, '_> {
    /// The request under way, or its answer.
    fn exchange(&mut self) -> Option<&mut Exchange> {
        let Front::Http(http) = &mut self.front else {
            return None;
        };
        http.exchange.as_deref_mut()
    }
}
