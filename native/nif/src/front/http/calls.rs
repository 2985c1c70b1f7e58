//! What a request's process asks of its connection.

use std::sync::Arc;

use megaphone_proto::control::CloseReason;
use megaphone_proto::http1::Collector;
use megaphone_proto::packet::Mode;
use rustler::{Encoder, LocalPid, Term};

use super::terms::{self, Request};
use super::{Http, Limits, Stage};
use crate::atoms;
use crate::conn::{Held, State};
use crate::front::Front;

/// Bytes of a request over which its terms are made on a dirty scheduler: copying them takes some
/// 50 µs and more.
const LARGE: u64 = 256 << 10;

/// Bytes of a body's rest that are dropped to keep the connection; a longer rest closes it.
const SKIP_MAX: u64 = 64 << 10;

/// What became of an answer.
pub enum Replied {
    /// Taken; there is nothing to do.
    Idle,
    /// Taken; the next request is there.
    Next,
    /// The connection is over, or will be when the answer has gone out.
    Closed,
}

/// A request for its process.
pub enum Given<'e> {
    /// Here it is, and so many bytes were copied.
    Request(Term<'e>, usize),
    /// Ask again on a dirty scheduler.
    Large,
    /// There is none.
    None,
}

impl<'e> Held<'_, 'e> {
    /// Makes the connection speak HTTP; `true`: there is a request already.
    pub fn http_start(&mut self, limits: Arc<Limits>) -> bool {
        let send_timeout = limits.send_timeout.saturating_mul(1000);
        self.set_send_timeout(Some(send_timeout), true);
        let idle = limits.idle_timeout;
        self.front = Front::Http(Http::new(limits, self.conn.link.awake()));
        self.watch_in(idle);
        self.http_advance()
    }

    /// Gives the request to the calling process, which owns the connection until it has answered.
    pub fn http_take(&mut self, may_be_large: bool) -> Given<'e> {
        let Some(exchange) = self.exchange() else {
            return Given::None;
        };
        if exchange.stage != Stage::Ready {
            return Given::None;
        }
        if !may_be_large && exchange.left == 0 && exchange.collector.length() > LARGE {
            return Given::Large;
        }
        let caller = self.env.pid();
        let owns = self.owner().is_some_and(|owner| owner == caller);
        if !owns && !self.set_owner(caller) {
            return Given::None;
        }
        let (env, peer) = (self.env, self.conn.addresses.peer());
        let draining = self.draining;
        let state: &mut State = self;
        let Front::Http(Http {
            exchange: Some(exchange),
            ..
        }) = &mut state.front
        else {
            return Given::None;
        };
        exchange.stage = Stage::Taken;
        let collector = &exchange.collector;
        let (head, body) = collector.parts(&state.inbox.buffer);
        let request = Request {
            head,
            body,
            length: collector.length(),
            peer,
            draining,
        };
        let term = terms::make(env, &request);
        let taken = collector.taken();
        let bytes = head.len() + body.len();
        state.traffic.received += bytes as u64;
        state.inbox.buffer.consume(taken);
        exchange.collector = Collector::default();
        self.http_credit();
        Given::Request(term, bytes)
    }

    /// Sends the (rest of the) answer, without ever blocking.
    pub fn http_reply(&mut self, data: &[u8], close: bool) -> Replied {
        match self.exchange() {
            Some(exchange) if matches!(exchange.stage, Stage::Taken | Stage::Held) => {
                exchange.watcher = None;
            }
            _ => return Replied::Closed,
        }
        if self.queue(data, Mode::Raw, !close).is_err() || !self.is_open() {
            // A client that has gone needs no answer; what it sent is of no use to anybody.
            self.http_give_up(CloseReason::ClientClosed);
            return Replied::Closed;
        }
        self.wait_or_flush();
        let close = close || self.draining;
        let now = self.conn.link.awake();
        let Front::Http(http) = &mut self.front else {
            return Replied::Closed;
        };
        let Some(exchange) = &mut http.exchange else {
            return Replied::Closed;
        };
        let rest_comes =
            exchange.left <= SKIP_MAX && !(exchange.left > 0 && exchange.owes_continue);
        if close || !rest_comes {
            http.exchange = None;
            self.close_by_owner();
            return Replied::Closed;
        }
        exchange.stage = Stage::Skipping;
        exchange.mark = exchange.gone();
        exchange.due = now + http.limits.body_timeout + 1;
        let next = self.http_advance();
        let caller = self.env.pid();
        if !next || self.owner().is_some_and(|owner| owner != caller) {
            self.drop_owner();
        }
        match (self.is_open(), next) {
            (false, _) => Replied::Closed,
            (true, true) => Replied::Next,
            (true, false) => Replied::Idle,
        }
    }

    /// The answer comes later, from any process. `false`: the client has gone.
    pub fn http_hold(&mut self, watcher: LocalPid, token: u64) -> bool {
        let gone = self.inbox.ended.is_some();
        let Some(exchange) = self.exchange().filter(|e| e.stage == Stage::Taken) else {
            return false;
        };
        exchange.stage = Stage::Held;
        if gone {
            self.http_give_up(CloseReason::ClientClosed);
            return false;
        }
        exchange.watcher = Some((watcher, token));
        self.drop_owner();
        true
    }

    /// The connection is a plain socket of the caller's from now on.
    pub fn http_detach(&mut self) -> bool {
        if !self
            .exchange()
            .is_some_and(|exchange| exchange.stage == Stage::Taken)
        {
            return false;
        }
        self.front = Front::Plain;
        self.unwatch();
        self.set_send_timeout(None, false);
        self.pump();
        true
    }

    /// Where its request stands, for `conn_info`.
    pub(in crate::front) fn http_fact(&self) -> Term<'e> {
        let env = self.env;
        let Front::Http(http) = &self.front else {
            return atoms::undefined().encode(env);
        };
        match &http.exchange {
            None => atoms::idle().encode(env),
            Some(exchange) => match (exchange.stage, exchange.watcher) {
                (Stage::Collecting, _) => atoms::collecting().encode(env),
                (Stage::Held, Some((_, token))) => (atoms::held(), token).encode(env),
                (Stage::Ready | Stage::Taken | Stage::Held, _) => atoms::request().encode(env),
                (Stage::Skipping | Stage::Flushing, _) => atoms::answering().encode(env),
            },
        }
    }
}
