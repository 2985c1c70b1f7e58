//! The body of a `PUT`, read by the request's process as it comes: `recv` up to its end, and never
//! beyond it.

use rustler::{NewBinary, Term};

use super::Stage;
use crate::atoms;
use crate::conn::{Held, token};
use crate::deliver::{Got, RECV_MAX};
use crate::front::Front;
use crate::socket::{Reader, Want};

impl<'e> Held<'_, 'e> {
    /// `recv` of a connection that speaks HTTP. Past the body's end there is nothing: `closed`.
    pub fn http_recv(&mut self, want: Want) -> Got<'e> {
        let (Want::Packet(length), Some(left)) = (want, self.http_left()) else {
            return Got::Error(atoms::einval());
        };
        if length > RECV_MAX {
            return Got::Error(atoms::enomem());
        }
        if left == 0 || u64::from(length) > left {
            return Got::Error(atoms::closed());
        }
        self.http_continue();
        if self.socket.readers.is_empty()
            && let Some(piece) = self.http_piece(length)
        {
            self.http_credit();
            return Got::Packet(piece);
        }
        if self.inbox.ended.is_some() || !self.is_open() {
            return Got::Error(atoms::closed());
        }
        let (pid, token) = (self.env.pid(), token());
        self.socket.readers.push_back(Reader { pid, token, want });
        self.http_await_body();
        self.http_credit();
        Got::Wait(token)
    }

    /// Answers those who wait for some of the body, as far as it is there.
    pub(super) fn http_serve_readers(&mut self) {
        let env = self.env;
        while let Some(reader) = self.socket.readers.front() {
            let (pid, token, want) = (reader.pid, reader.token, reader.want);
            let length = match want {
                Want::Packet(length) => length,
                Want::Item => 0,
            };
            if !pid.is_alive(env) {
                self.socket.readers.pop_front();
            } else if let Some(piece) = self.http_piece(length) {
                self.socket.readers.pop_front();
                self.answer(&pid, token, (atoms::ok(), piece));
            } else if self.inbox.ended.is_some()
                || u64::from(length) > self.http_left().unwrap_or(0)
            {
                self.socket.readers.pop_front();
                self.answer(&pid, token, (atoms::error(), atoms::closed()));
            } else {
                break;
            }
        }
        self.http_credit();
    }

    /// So many bytes of the body, 0 for what is there.
    pub(super) fn http_piece(&mut self, length: u32) -> Option<Term<'e>> {
        let env = self.env;
        let left = usize::try_from(self.http_left()?).unwrap_or(usize::MAX);
        let there = self.inbox.buffer.len().min(left);
        let length = match length as usize {
            0 => there,
            length if length <= there => length,
            _ => return None,
        };
        if length == 0 {
            return None;
        }
        let bytes = &self.inbox.buffer.as_slice()[..length];
        let piece = NewBinary::from_slice(env, bytes).into();
        self.inbox.buffer.consume(length);
        self.count_received(length);
        self.http_use(length as u64);
        Some(piece)
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
}
