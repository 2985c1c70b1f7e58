//! What happens to a connection that speaks HTTP: its client goes, its process dies, time passes.

use megaphone_proto::control::CloseReason;
use megaphone_proto::http1::Refusal;

use super::{Http, Stage};
use crate::atoms;
use crate::conn::{Held, State};
use crate::front::{Front, News};

/// Bytes of a body that have to come within `body_timeout`.
const PROGRESS: u64 = 1024;

impl Held<'_, '_> {
    pub(in crate::front) fn http_pump(&mut self) {
        if self.http_advance() {
            self.http_announce();
        }
    }

    /// The receiver starts a process for the request. It looks at its link's news behind whatever
    /// led here.
    pub(super) fn http_announce(&mut self) {
        if let (Some(this), Front::Http(http)) = (self.this(), &self.front) {
            let news = News::Request(this, http.limits.key);
            self.conn.link.news.push(news);
        }
    }

    pub(in crate::front) fn http_ended(&mut self) {
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
    pub(super) fn http_give_up(&mut self, otherwise: CloseReason) {
        let reason = self.inbox.ended.unwrap_or(otherwise);
        self.close(reason);
    }

    pub(in crate::front) fn http_flushed(&mut self) {
        let flushed = self
            .exchange()
            .is_some_and(|exchange| exchange.stage == Stage::Flushing);
        if flushed {
            self.http_idle();
            if !self.inbox.buffer.is_empty() || self.inbox.ended.is_some() {
                // In the receiver's time, which starts the next one's process.
                self.defer();
            }
        }
    }

    /// There is no request. A connection that is to go has no other one.
    pub(super) fn http_idle(&mut self) {
        let now = self.conn.link.awake();
        if let Front::Http(http) = &mut self.front {
            (http.exchange, http.idle_since) = (None, now);
            let idle = http.limits.idle_timeout;
            self.watch_in(idle);
        }
        if self.draining {
            self.close(CloseReason::Shutdown);
        }
    }

    pub(in crate::front) fn http_owner_down(&mut self) {
        let stage = self.exchange().map(|exchange| exchange.stage);
        match stage {
            Some(Stage::Taken | Stage::Ready) => self.http_refuse(Refusal::Failed),
            _ => self.close_by_owner(),
        }
    }

    pub(in crate::front) fn http_draining(&mut self) {
        if let Front::Http(Http { exchange: None, .. }) = self.front {
            self.close(CloseReason::Shutdown);
        }
    }

    pub(in crate::front) fn http_closed(&mut self, http: Http) {
        let watcher = http.exchange.and_then(|exchange| exchange.watcher);
        if let Some((watcher, token)) = watcher {
            // A watcher that died has nothing to end.
            let _ = self.env.send(&watcher, (atoms::gone(), token));
        }
    }

    pub(in crate::front) fn http_tick(&mut self, now: u32) -> Option<u32> {
        let gathered = self.http_gathered();
        let waiting = !self.socket.readers.is_empty();
        let unsent = self.pending.as_ref().map_or(0, |pending| pending.bytes()) as u64;
        let Front::Http(http) = &mut self.front else {
            return None;
        };
        let limits = &http.limits;
        let Some(exchange) = &mut http.exchange else {
            let due = http.idle_since + limits.idle_timeout + 1;
            if now < due {
                return Some(due);
            }
            self.close(CloseReason::Idle);
            return None;
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
                if exchange.stage != Stage::Skipping {
                    self.http_refuse(Refusal::BodyTimeout);
                } else {
                    self.http_blame("the rest of a body did not come (body_timeout)");
                    self.close(CloseReason::Timeout);
                }
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
    pub(super) fn http_gathered(&mut self) -> u64 {
        let state: &mut State = self;
        match &state.front {
            Front::Http(Http {
                exchange: Some(exchange),
                ..
            }) => match exchange.stage {
                Stage::Collecting => exchange.collector.gathered(&state.inbox.buffer) as u64,
                _ => exchange.gone() + state.inbox.buffer.len() as u64,
            },
            _ => 0,
        }
    }
}
