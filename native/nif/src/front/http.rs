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

use std::sync::Arc;

use megaphone_proto::control::CloseReason;
use megaphone_proto::http1::{Collector, Progress, Refusal};
use megaphone_proto::packet::Mode;
use rustler::{Encoder, LocalPid, Resource, Term};

use super::request_terms::{self, Request};
use super::{Front, News};
use crate::atoms;
use crate::conn::{Held, State};

/// Bytes of a body's rest that are dropped to keep the connection; a longer rest closes it.
const SKIP_MAX: u64 = 64 << 10;
/// Bytes of a body that have to come within `body_timeout`.
const PROGRESS: u64 = 1024;
/// Seconds in which some process must have taken a request.
const TAKE_MAX: u32 = 60;
/// Bytes of a request over which its terms are made on a dirty scheduler: copying them takes some
/// 50 µs and more.
const LARGE: u64 = 256 << 10;

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
    /// Here it is.
    Request(Term<'e>),
    /// Ask again on a dirty scheduler.
    Large,
    /// There is none.
    None,
}

impl Http {
    fn new(limits: Arc<Limits>, now: u32) -> Self {
        Http {
            limits,
            exchange: None,
            idle_since: now,
        }
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
}

// ---- for the calls of a request's process --------------------------------------------------

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
        let term = request_terms::make(env, &request);
        let taken = collector.taken();
        state.traffic.received += (head.len() + body.len()) as u64;
        state.inbox.buffer.consume(taken);
        exchange.collector = Collector::default();
        self.http_credit();
        Given::Request(term)
    }

    /// Sends the (rest of the) answer, without ever blocking.
    pub fn http_reply(&mut self, data: &[u8], close: bool) -> Replied {
        match self.exchange() {
            Some(exchange) if matches!(exchange.stage, Stage::Taken | Stage::Held) => {}
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
        exchange.watcher = None;
        if close || !rest_comes {
            http.exchange = None;
            self.close_by_owner();
            return Replied::Closed;
        }
        exchange.stage = Stage::Skipping;
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
    pub(super) fn http_fact(&self) -> Term<'e> {
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

    /// Bytes of the body that the request's process may still read.
    pub(super) fn http_left(&mut self) -> Option<u64> {
        let exchange = self.exchange()?;
        (exchange.stage == Stage::Taken).then_some(exchange.left)
    }

    /// So many of them were read.
    pub(super) fn http_use(&mut self, bytes: u64) {
        if let Some(exchange) = self.exchange() {
            exchange.left = exchange.left.saturating_sub(bytes);
        }
    }

    /// Somebody waits for more of the body.
    pub(super) fn http_await_body(&mut self) {
        let (gathered, now) = (self.http_gathered(), self.conn.link.awake());
        let Front::Http(http) = &mut self.front else {
            return;
        };
        if let Some(exchange) = &mut http.exchange {
            let due = now + http.limits.body_timeout + 1;
            (exchange.mark, exchange.due) = (gathered, due);
            self.watch_at(due);
        }
    }

    fn exchange(&mut self) -> Option<&mut Exchange> {
        let Front::Http(http) = &mut self.front else {
            return None;
        };
        http.exchange.as_deref_mut()
    }
}

// ---- what happens to the connection --------------------------------------------------------

impl Held<'_, '_> {
    pub(super) fn http_pump(&mut self) {
        if self.http_advance() {
            self.http_announce();
        }
    }

    /// The receiver starts a process for the request. It looks at its link's news behind whatever
    /// led here.
    fn http_announce(&mut self) {
        if let (Some(this), Front::Http(http)) = (self.this(), &self.front) {
            let news = News::Request(this, http.limits.key);
            self.conn.link.news.push(news);
        }
    }

    pub(super) fn http_ended(&mut self) {
        if self.inbox.ended != Some(CloseReason::LinkLost) {
            self.http_pump();
        }
        let (buffered, may_send) = (self.inbox.buffer.len(), self.flow.may_send());
        match self.exchange() {
            // A request that came whole is served: its process finds out when it answers.
            Some(exchange) if exchange.stage == Stage::Ready => {
                if exchange.collector.taken() > buffered {
                    self.http_give_up(CloseReason::ClientClosed);
                }
            }
            Some(exchange) if exchange.stage == Stage::Taken => self.http_serve_readers(),
            Some(exchange) if exchange.stage == Stage::Flushing && may_send => {}
            _ => self.http_give_up(CloseReason::ClientClosed),
        }
    }

    /// Nobody is there any more to be served.
    fn http_give_up(&mut self, otherwise: CloseReason) {
        let reason = self.inbox.ended.unwrap_or(otherwise);
        self.close(reason);
    }

    pub(super) fn http_flushed(&mut self) {
        let waits = !self.inbox.buffer.is_empty() || self.inbox.ended.is_some();
        if let Front::Http(Http {
            exchange: Some(exchange),
            ..
        }) = &self.front
            && exchange.stage == Stage::Flushing
            && waits
        {
            // In the receiver's time, which starts the next one's process.
            self.defer();
        }
    }

    pub(super) fn http_owner_down(&mut self) {
        let stage = self.exchange().map(|exchange| exchange.stage);
        match stage {
            Some(Stage::Taken | Stage::Ready) => self.http_refuse(Refusal::Failed),
            _ => self.close_by_owner(),
        }
    }

    pub(super) fn http_draining(&mut self) {
        if let Front::Http(Http { exchange: None, .. }) = self.front {
            self.close(CloseReason::Shutdown);
        }
    }

    pub(super) fn http_closed(&mut self, http: Http) {
        let watcher = http.exchange.and_then(|exchange| exchange.watcher);
        if let Some((watcher, token)) = watcher {
            // A watcher that died has nothing to end.
            let _ = self.env.send(&watcher, (atoms::gone(), token));
        }
    }

    pub(super) fn http_tick(&mut self, now: u32) -> Option<u32> {
        let gathered = self.http_gathered();
        let waiting = !self.socket.readers.is_empty();
        let unsent = self.pending.as_ref().map_or(0, |pending| pending.bytes()) as u64;
        let Front::Http(http) = &mut self.front else {
            return None;
        };
        let limits = &http.limits;
        let Some(exchange) = &mut http.exchange else {
            let due = http.idle_since + limits.idle_timeout + 1;
            if due <= now {
                self.close(CloseReason::Idle);
            }
            return Some(due);
        };
        if now < exchange.due {
            return Some(exchange.due);
        }
        match exchange.stage {
            Stage::Collecting if !exchange.in_body => self.http_refuse(Refusal::HeadTimeout),
            Stage::Collecting | Stage::Taken | Stage::Skipping => {
                if exchange.stage == Stage::Taken && !waiting {
                    return None;
                }
                if gathered >= exchange.mark + PROGRESS {
                    exchange.mark = gathered;
                    exchange.due = now + limits.body_timeout;
                    return Some(exchange.due);
                }
                self.http_refuse(Refusal::BodyTimeout);
            }
            Stage::Flushing if unsent < exchange.mark => {
                exchange.mark = unsent;
                exchange.due = now + limits.send_timeout;
                return Some(exchange.due);
            }
            Stage::Flushing => {
                self.http_blame("the client takes nothing of an answer (send_timeout)");
                self.abort(CloseReason::Timeout);
            }
            Stage::Ready => self.http_refuse(Refusal::NotTaken),
            Stage::Held => {}
        }
        None
    }

    /// Bytes of the body that have come, as far as they count for `body_timeout`.
    fn http_gathered(&mut self) -> u64 {
        let state: &mut State = self;
        match &state.front {
            Front::Http(Http {
                exchange: Some(exchange),
                ..
            }) => match exchange.stage {
                Stage::Collecting => exchange.collector.gathered(&state.inbox.buffer) as u64,
                // What is left becomes less.
                _ => (u64::MAX / 2 - exchange.left) + state.inbox.buffer.len() as u64,
            },
            _ => 0,
        }
    }
}

// ---- from bytes to requests ----------------------------------------------------------------

impl Held<'_, '_> {
    /// Goes on as far as the bytes that are there allow; `true`: a request is ready for a process.
    fn http_advance(&mut self) -> bool {
        while self.is_open() {
            let now = self.conn.link.awake();
            let unsent = self.pending.as_ref().map(|pending| pending.bytes() as u64);
            let state: &mut State = self;
            let Front::Http(http) = &mut state.front else {
                return false;
            };
            let buffer = &mut state.inbox.buffer;
            let exchange = match &mut http.exchange {
                Some(exchange) => exchange,
                None if buffer.is_empty() => {
                    self.http_credit();
                    if self.inbox.ended.is_some() {
                        self.http_give_up(CloseReason::ClientClosed);
                    }
                    return false;
                }
                none => {
                    let due = now + http.limits.head_timeout + 1;
                    none.insert(Box::new(Exchange::new(due)))
                }
            };
            match exchange.stage {
                Stage::Collecting => return self.http_collect(now),
                Stage::Skipping => {
                    let skipped = exchange.left.min(buffer.len() as u64);
                    exchange.left -= skipped;
                    // No more than there is in the buffer.
                    buffer.consume(skipped as usize);
                    let due = exchange.due;
                    if exchange.left > 0 {
                        self.http_credit();
                        self.watch_at(due);
                        if self.inbox.ended.is_some() {
                            self.http_give_up(CloseReason::ClientClosed);
                        }
                        return false;
                    }
                    exchange.stage = Stage::Flushing;
                    if let Some(unsent) = unsent {
                        exchange.mark = unsent;
                        exchange.due = now + http.limits.send_timeout + 1;
                        let due = exchange.due;
                        self.watch_at(due);
                    }
                }
                Stage::Flushing if unsent.is_some() => {
                    self.http_credit();
                    return false;
                }
                Stage::Flushing => {
                    http.exchange = None;
                    http.idle_since = now;
                    let idle = http.limits.idle_timeout;
                    self.watch_in(idle);
                }
                Stage::Taken => {
                    self.http_serve_readers();
                    return false;
                }
                Stage::Ready | Stage::Held => {
                    self.http_credit();
                    return false;
                }
            }
        }
        false
    }

    fn http_collect(&mut self, now: u32) -> bool {
        let state: &mut State = self;
        let Front::Http(http) = &mut state.front else {
            return false;
        };
        let Some(exchange) = &mut http.exchange else {
            return false;
        };
        let buffer = &mut state.inbox.buffer;
        let progress = match exchange.collector.collect(buffer, http.limits.max_body) {
            Ok(progress) => progress,
            Err(refusal) => {
                self.http_refuse(refusal);
                return false;
            }
        };
        let expects = exchange.collector.expects_continue();
        match progress {
            Progress::Head => {}
            Progress::Body => {
                if !std::mem::replace(&mut exchange.in_body, true) {
                    exchange.due = now + http.limits.body_timeout + 1;
                    exchange.mark = exchange.collector.gathered(buffer) as u64;
                    exchange.owes_continue = expects;
                }
            }
            Progress::Whole => exchange.stage = Stage::Ready,
            Progress::Stream(length) => {
                exchange.stage = Stage::Ready;
                exchange.left = length;
                exchange.owes_continue = expects;
            }
        }
        let ready = exchange.stage == Stage::Ready;
        if ready {
            exchange.due = now + TAKE_MAX;
        }
        let due = exchange.due;
        if !ready {
            self.watch_at(due);
            self.http_continue();
        }
        self.http_credit();
        ready
    }

    /// Tells a client that waits for it to send the body.
    pub(super) fn http_continue(&mut self) {
        let owed = self
            .exchange()
            .is_some_and(|exchange| std::mem::take(&mut exchange.owes_continue));
        if owed {
            self.say(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
    }

    /// Credit for all that is gathered or dropped, within the limits of a request. What is behind
    /// it, or not wanted yet, counts against the window.
    pub(super) fn http_credit(&mut self) {
        let buffered = self.inbox.buffer.len();
        let reading = !self.socket.readers.is_empty();
        let keep = match self.exchange() {
            None => buffered,
            Some(exchange) => match exchange.stage {
                Stage::Collecting | Stage::Skipping => 0,
                Stage::Taken if reading => 0,
                Stage::Ready => buffered.saturating_sub(exchange.collector.taken()),
                _ => buffered,
            },
        };
        self.give_credit_but(u32::try_from(keep).unwrap_or(u32::MAX));
    }

    /// Answers the request in its process's place, and closes.
    fn http_refuse(&mut self, refusal: Refusal) {
        let blame = format!("HTTP request answered with {}: {refusal}", refusal.status());
        self.http_blame(&blame);
        let Front::Http(http) = &mut self.front else {
            return;
        };
        let answered = http
            .exchange
            .take()
            .is_some_and(|exchange| exchange.answered);
        if answered {
            // Half an answer: the client shall see that the other half does not come.
            return self.abort(CloseReason::Internal);
        }
        self.say(refusal.answer().as_bytes());
        self.close(match refusal.status() {
            408 => CloseReason::Timeout,
            500 => CloseReason::Internal,
            400 | 501 | 505 => CloseReason::ProtocolError,
            _ => CloseReason::ServerClosed,
        });
    }

    fn http_blame(&self, text: &str) {
        self.conn.link.blame(self.env, self.conn.id, text);
    }
}
