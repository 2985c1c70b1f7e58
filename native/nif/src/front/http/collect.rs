//! From bytes to requests, and to the next one behind an answer.

use megaphone_proto::control::CloseReason;
use megaphone_proto::http1::Progress;

use super::{Exchange, Stage};
use crate::conn::{Held, State};
use crate::front::Front;

/// Seconds in which some process must have taken a request.
const TAKE_MAX: u32 = 60;

impl Held<'_, '_> {
    /// Goes on as far as the bytes that are there allow; `true`: a request is ready for a process.
    pub(super) fn http_advance(&mut self) -> bool {
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
                    self.http_idle();
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

    pub(super) fn http_collect(&mut self, now: u32) -> bool {
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
}
