//! One virtual connection: its requests, its answers, and the credit of both.

use megaphone_proto::conn::{Conn, State};
use megaphone_proto::control::Control;
use megaphone_proto::credit::NO_GROWTH;
use megaphone_proto::frame::{ConnectionId, put_frame};

use crate::stand_in::http::{self, OK};
use crate::stand_in::report::count;
use crate::stand_in::server::Server;
use crate::stand_in::wire::Wrong;

/// Bytes of a request that is not whole.
const REQUEST_MAX: usize = 64 * 1024;

/// One virtual connection. Kept small: there may be a million.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) conn: Conn,
    echo: bool,
    /// What a quiet connection has not.
    rest: Option<Box<Rest>>,
}

#[derive(Debug, Default)]
struct Rest {
    /// The beginning of a request.
    request: Vec<u8>,
    /// What waits for credit.
    answer: Vec<u8>,
    /// Nothing is to be said after that.
    ending: bool,
}

/// What is to be done about a connection.
pub(super) enum Then {
    /// Nothing.
    GoOn,
    /// Both directions have ended.
    Forget,
    /// The client does what it must not.
    Reset,
}

impl Client {
    /// A connection as it begins: an echo, or HTTP.
    pub(super) fn new(conn: Conn, echo: bool) -> Self {
        Self {
            conn,
            echo,
            rest: None,
        }
    }

    /// Content came, for which there was credit.
    pub(super) fn take(
        &mut self,
        id: ConnectionId,
        bytes: &[u8],
        max: usize,
        server: &Server,
        out: &mut Vec<u8>,
    ) -> Then {
        if self.echo {
            self.put(id, bytes, max, out);
            return Then::GoOn;
        }
        if let Some(bytes) = self.conn.release(bytes.len() as u32, &NO_GROWTH) {
            Control::Window { id, bytes }.put(out);
        }
        self.requests(id, bytes, max, server, out)
    }

    /// The client sends no more: this side ends too, behind what it has still to say.
    pub(super) fn end(&mut self, id: ConnectionId, max: usize, out: &mut Vec<u8>) -> Then {
        self.rest.get_or_insert_default().ending = true;
        self.flush(id, max, out)
    }

    /// Answers the requests that are whole now.
    fn requests(
        &mut self,
        id: ConnectionId,
        bytes: &[u8],
        max: usize,
        server: &Server,
        out: &mut Vec<u8>,
    ) -> Then {
        let begun = self.rest.as_deref_mut().map(|rest| &mut rest.request);
        let begun = begun.map(std::mem::take).filter(|begun| !begun.is_empty());
        let joined = begun.map(|begun| [&begun, bytes].concat());
        let mut input = joined.as_deref().unwrap_or(bytes);
        loop {
            match http::request(input) {
                Ok(Some(request)) => {
                    input = &input[request.bytes..];
                    count(&server.counts.requests);
                    self.put(id, OK, max, out);
                    if request.close {
                        return self.end(id, max, out);
                    }
                }
                Ok(None) if input.len() <= REQUEST_MAX => break,
                Ok(None) | Err(Wrong) => return Then::Reset,
            }
        }
        if !input.is_empty() {
            self.rest.get_or_insert_default().request = input.to_vec();
        }
        Then::GoOn
    }

    /// Sends `bytes` behind all else, as far as there is credit; the rest waits.
    fn put(&mut self, id: ConnectionId, bytes: &[u8], max: usize, out: &mut Vec<u8>) {
        let waits = self
            .rest
            .as_ref()
            .is_some_and(|rest| !rest.answer.is_empty());
        let now = if waits {
            0
        } else {
            self.send(id, bytes, max, out)
        };
        if now < bytes.len() {
            let rest = self.rest.get_or_insert_default();
            rest.answer.extend_from_slice(&bytes[now..]);
        }
    }

    /// Sends what waits, as far as there is credit, and then the end where that is due.
    pub(super) fn flush(&mut self, id: ConnectionId, max: usize, out: &mut Vec<u8>) -> Then {
        let Some(mut rest) = self.rest.take() else {
            return Then::GoOn;
        };
        let now = self.send(id, &rest.answer, max, out);
        rest.answer.drain(..now);
        let all = rest.answer.is_empty();
        let ended = all && rest.ending && self.conn.may_send();
        if !all || !rest.request.is_empty() || rest.ending {
            self.rest = Some(rest);
        }
        if !ended {
            return Then::GoOn;
        }
        put_frame(id, b"", out);
        match self.conn.we_ended() {
            State::Closed => Then::Forget,
            _ => Then::GoOn,
        }
    }

    /// Sends as much of `bytes` as there is credit for. What is echoed is taken only then.
    fn send(&mut self, id: ConnectionId, bytes: &[u8], max: usize, out: &mut Vec<u8>) -> usize {
        let want = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let now = self.conn.take_credit(want);
        for content in bytes[..now as usize].chunks(max) {
            put_frame(id, content, out);
        }
        if self.echo
            && let Some(bytes) = self.conn.release(now, &NO_GROWTH)
        {
            Control::Window { id, bytes }.put(out);
        }
        now as usize
    }
}
