//! From `send` to the outbox: credit, frames, and who blocks when there is no credit.

use bytes::Bytes;
use megaphone_proto::control::CloseReason;
use megaphone_proto::packet::Mode;
use rustler::Atom;

use crate::atoms;
use crate::conn::{Held, Phase, token};
use crate::front::Front;
use crate::pending::Pending;

/// What became of a `send`.
pub enum Sent {
    /// Taken: on its way, or within the high watermark.
    Ok,
    /// Taken, but the caller shall wait for its answer under this token, so many milliseconds.
    Wait(u64, Option<u32>),
    /// Not taken.
    Error(Atom),
}

impl Held<'_, '_> {
    /// Takes `data` whole, or not at all. As with a port, what is taken goes out in the order
    /// of the calls even when the caller later times out.
    pub fn send(&mut self, data: &[u8], packet: Mode) -> Sent {
        match self.queue(data, packet, true) {
            Ok(()) => {
                if let Front::Http(http) = &mut self.front {
                    http.sent();
                }
                self.wait_for_room()
            }
            Err(reason) => Sent::Error(reason),
        }
    }

    /// The same without waiting for anything, for who calls [`Held::wait_or_flush`] behind it.
    /// With `closes`, a response of a connection that is to go gets a `Connection: close`.
    pub fn queue(&mut self, data: &[u8], packet: Mode, closes: bool) -> Result<(), Atom> {
        if !self.may_send() {
            return Err(atoms::closed());
        }
        let Some((header, header_len)) = packet_header(packet, data.len()) else {
            return Err(atoms::emsgsize());
        };
        let header = &header[..header_len];
        self.count_sent(header.len() + data.len());
        let (line, rest) = match self.draining && closes {
            true => data.split_at(status_line(data)),
            false => (data, &data[..0]),
        };
        let close: &[u8] = if rest.is_empty() {
            b""
        } else {
            b"Connection: close\r\n"
        };
        match self.push_parts(&[header, line, close, rest]) {
            true => Ok(()),
            false => Err(atoms::enobufs()),
        }
    }

    /// Takes what a front's process sends: `parts` one behind the other, with nothing between.
    pub fn send_parts(&mut self, parts: &[&[u8]]) -> Sent {
        if !self.may_send() {
            return Sent::Error(atoms::closed());
        }
        self.count_sent(parts.iter().map(|part| part.len()).sum());
        if !self.push_parts(parts) {
            return Sent::Error(atoms::enobufs());
        }
        self.wait_for_room()
    }

    /// Sends what a front says by itself: nobody waits for it.
    pub fn say(&mut self, bytes: &[u8]) {
        if self.may_send() && self.push_parts(&[bytes]) {
            self.wait_or_flush();
        }
    }

    /// Sends what can go and keeps the rest; `false` when that was too much and the connection
    /// was reset.
    fn push_parts(&mut self, parts: &[&[u8]]) -> bool {
        if self.push_whole(parts) {
            return true;
        }
        for part in parts {
            let now = if self.pending.is_some() {
                0
            } else {
                self.push_now(part)
            };
            if now < part.len() {
                let rest = Bytes::copy_from_slice(&part[now..]);
                self.pending.get_or_insert_default().push(rest);
            }
        }
        let too_much = self.pending.is_some() && self.holds_too_much();
        if too_much {
            self.abort(CloseReason::Overload);
        }
        !too_much
    }

    /// Sends all of `parts` in one frame, if it fits.
    fn push_whole(&mut self, parts: &[&[u8]]) -> bool {
        let link = &self.conn.link;
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let most = link.outbox.room().min(link.max_content() as usize);
        let fits = length <= most.min(self.flow.credit() as usize);
        if length == 0 || self.pending.is_some() || !fits {
            return false;
        }
        // Not over `max_content`, a u32.
        self.flow.take_credit(length as u32);
        link.outbox
            .push_parts(self.env, self.conn.id, length, parts);
        true
    }

    fn may_send(&self) -> bool {
        let ending = self.pending.as_ref().is_some_and(|p| p.then_end);
        self.is_open() && self.flow.may_send() && !ending
    }

    /// Blocks the caller when more than the high watermark is left over.
    fn wait_for_room(&mut self) -> Sent {
        self.wait_or_flush();
        let pid = self.env.pid();
        let (high, timeout) = (self.socket.options.high_watermark, self.send_timeout());
        match &mut self.pending {
            Some(pending) if pending.bytes() > high as usize => {
                let token = token();
                pending.senders.push((pid, token));
                Sent::Wait(token, timeout)
            }
            _ => Sent::Ok,
        }
    }

    /// Frames as much of `data` as credit and outbox take; how much that was.
    fn push_now(&mut self, data: &[u8]) -> usize {
        let mut pushed = 0;
        while pushed < data.len() {
            let room = self.conn.link.outbox.room();
            let most = room.min(self.conn.link.max_content() as usize);
            let want = most.min(data.len() - pushed);
            // `want` is at most `max_content`, a u32.
            let credit = self.flow.take_credit(want as u32) as usize;
            if credit == 0 {
                break;
            }
            let content = &data[pushed..pushed + credit];
            let link = &self.conn.link;
            link.outbox.push_frame(self.env, self.conn.id, content);
            pushed += credit;
        }
        pushed
    }

    /// Sends on what waits, after credit or room came; wakes who waited for it.
    pub fn flush(&mut self) {
        self.flush_once();
        self.wait_or_flush();
    }

    fn flush_once(&mut self) {
        let Some(mut pending) = self.pending.take() else {
            return;
        };
        while let Some(front) = pending.front().cloned() {
            let pushed = self.push_now(&front);
            pending.advance(pushed);
            if pushed < front.len() {
                break;
            }
        }
        if pending.bytes() <= self.socket.options.low_watermark as usize {
            for (pid, token) in pending.senders.drain(..) {
                self.answer(&pid, token, atoms::ok());
            }
        }
        if pending.bytes() > 0 {
            self.pending = Some(pending);
        } else if let Phase::Lingering(reason) = self.phase {
            self.leave(reason);
        } else if pending.then_end {
            self.send_end();
        } else {
            self.front_flushed();
        }
    }

    /// What waits with credit waits for room in the outbox, and is called again when there is
    /// some; unless there is some by now, for then nobody would call.
    pub fn wait_or_flush(&mut self) {
        while self.flow.credit() > 0 && self.is_stalled() && self.conn.link.outbox.is_roomy() {
            self.flush_once();
        }
    }

    /// Puts what waits among those who are called; `false` when nothing waits.
    fn is_stalled(&mut self) -> bool {
        let this = self.this();
        let (Some(pending), Some(this)) = (&mut self.pending, this) else {
            return false;
        };
        if !std::mem::replace(&mut pending.stalled, true) {
            self.conn.link.outbox.full.add();
            self.conn.link.stall(this);
        }
        true
    }

    /// The outbox has room again.
    pub fn unstall(&mut self) {
        if let Some(pending) = &mut self.pending {
            pending.stalled = false;
        }
        self.flush();
    }

    /// The time of a blocked `send` is up. What it gave stays queued, as in a port's driver, or
    /// goes with the socket where `send_timeout_close` is set. `false`: it was just answered.
    pub fn send_timed_out(&mut self, token: u64) -> bool {
        let Some(pending) = &mut self.pending else {
            return false;
        };
        let Some(at) = pending.senders.iter().position(|(_, t)| *t == token) else {
            return false;
        };
        pending.senders.remove(at);
        if self.send_timeout_close {
            self.abort(CloseReason::Timeout);
        }
        true
    }

    /// Ends our direction once what waits is gone (`shutdown(write)`).
    pub fn end_sending(&mut self) {
        match &mut self.pending {
            Some(pending) => pending.then_end = true,
            None => self.send_end(),
        }
    }

    fn send_end(&mut self) {
        if self.flow.may_send() {
            self.conn
                .link
                .outbox
                .push_frame(self.env, self.conn.id, &[]);
            self.flow.we_ended();
            self.leave_if_both_ended();
        }
    }

    /// Nothing more can be sent: drops what waits and tells who waits.
    pub fn fail_senders(&mut self) {
        if let Some(pending) = self.pending.take() {
            let Pending { senders, .. } = *pending;
            for (pid, token) in senders {
                self.answer(&pid, token, (atoms::error(), atoms::closed()));
            }
        }
    }
}

/// Bytes of the status line, CRLF included, with which a final response of HTTP/1 begins; all of
/// `data` where it begins none. A 1xx is not the last word (RFC 9110, 15.2), and after a 101 it
/// is no HTTP any more.
fn status_line(data: &[u8]) -> usize {
    let end = data.windows(2).position(|two| two == b"\r\n");
    match (data.strip_prefix(b"HTTP/1."), end) {
        (Some([_, b' ', b'2'..=b'5', ..]), Some(end)) => end + 2,
        _ => data.len(),
    }
}

/// The length that `{packet, 1 | 2 | 4}` puts in front; `None` when it does not fit.
fn packet_header(mode: Mode, length: usize) -> Option<([u8; 4], usize)> {
    let size = match mode {
        Mode::One => 1,
        Mode::Two => 2,
        Mode::Four => 4,
        _ => 0,
    };
    let length = if size > 0 {
        u32::try_from(length).ok()?
    } else {
        0
    };
    if size > 0 && size < 4 && length >> (8 * size) != 0 {
        return None;
    }
    let mut header = [0; 4];
    header[..size].copy_from_slice(&length.to_be_bytes()[4 - size..]);
    Some((header, size))
}
