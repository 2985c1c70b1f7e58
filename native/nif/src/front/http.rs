//! A connection that speaks HTTP/1: its requests are collected here.

use crate::conn::Held;

/// One connection's requests.
pub struct Http;

impl Held<'_, '_> {
    pub(super) fn http_pump(&mut self) {}

    pub(super) fn http_ended(&mut self) {}

    pub(super) fn http_tick(&mut self, _now: u32) -> Option<u32> {
        None
    }

    pub(super) fn http_flushed(&mut self) {}

    pub(super) fn http_owner_down(&mut self) {
        self.close_by_owner();
    }

    pub(super) fn http_closed(&mut self, _http: Http) {}
}
