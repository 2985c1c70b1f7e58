//! Clients that are sent away.

use megaphone_proto::control::CloseReason;
use megaphone_proto::http1::Refusal;

use crate::conn::Held;
use crate::front::Front;

impl Held<'_, '_> {
    /// Answers the request in its process's place, and closes.
    pub(super) fn http_refuse(&mut self, refusal: Refusal) {
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

    pub(super) fn http_blame(&self, text: &str) {
        self.conn.link.blame(self.env, self.conn.id, text);
    }
}
