//! A connection that speaks WebSocket (RFC 6455).

use crate::conn::Held;

/// One WebSocket.
pub struct Ws;

impl Held<'_, '_> {
    pub(super) fn ws_pump(&mut self) {}

    pub(super) fn ws_ended(&mut self) {}

    pub(super) fn ws_tick(&mut self, _now: u32) -> Option<u32> {
        None
    }

    pub(super) fn ws_flushed(&mut self) {}

    pub(super) fn ws_owner_down(&mut self) {
        self.close_by_owner();
    }

    pub(super) fn ws_closed(&mut self, _ws: Ws) {}
}
