//! One side's end of one link: the parts of the crate put together as an owner of a link does it.

use std::collections::VecDeque;

use bytes::Bytes;
use megaphone_proto::conn::{Conn, ConnError, State};
use megaphone_proto::control::{CloseReason, Control, ErrorCode, Open};
use megaphone_proto::credit::Growth;
use megaphone_proto::frame::put_frame;
use megaphone_proto::limits::ACK_EVERY;
use megaphone_proto::link::{Link, Role};
use megaphone_proto::retained::Retained;
use megaphone_proto::table::Table;
use megaphone_proto::{ConnectionId, Event, LinkError};

use super::choice::Choices;
use super::ledger::Ledger;

/// Connections open at a time on one link.
const CONNECTIONS: usize = 12;

/// A `max_buffered` of which some of their windows can grow.
const GROWTH: u64 = 16 << 20;

/// A connection as one side holds it.
struct Held {
    conn: Conn,
    /// Bytes that came and the reader has not taken.
    unread: u32,
}

pub struct End {
    pub role: Role,
    /// The link's name is its number.
    pub number: u64,
    pub link: Link,
    pub retained: Retained,
    /// What `retained` may hold, and a connection may have unread, but for what it grew by.
    bounds: (usize, u32),
    growth: Growth,
    table: Table<Held>,
    /// The ids in `table`.
    open: Vec<ConnectionId>,
    /// To be written: what the peer lacks of the last wire, then the rest of a frame that has
    /// begun, then the lanes of the outbox.
    again: VecDeque<Bytes>,
    begun: Bytes,
    urgent: VecDeque<Bytes>,
    ordered: VecDeque<Bytes>,
    /// Since when no wire carries it.
    pub parked: Option<u64>,
    /// The wire that may carry it next.
    pub claim: u64,
    /// Nobody will go on with it once it drops.
    pub over: bool,
    /// Leaves its wire when all is written.
    pub leaving: bool,
    /// When something was last heard, when time is next looked at, when to ping.
    heard: u64,
    pub next_tick: u64,
    next_ping: u64,
    /// What the last acknowledgement said, and since when there is something to acknowledge.
    acked: u64,
    news: Option<u64>,
}

impl End {
    pub fn new(role: Role, number: u64, link: Link, bounds: (usize, u32), now: u64) -> End {
        let kept = if link.resume_timeout() > 0 {
            bounds.0
        } else {
            0
        };
        End {
            role,
            number,
            link,
            retained: Retained::new(kept),
            bounds,
            growth: Growth::new(GROWTH),
            table: Table::new(CONNECTIONS),
            open: Vec::new(),
            again: VecDeque::new(),
            begun: Bytes::new(),
            urgent: VecDeque::new(),
            ordered: VecDeque::new(),
            parked: None,
            claim: 0,
            over: false,
            leaving: false,
            heard: now,
            next_tick: now + 1_000,
            next_ping: now,
            acked: 0,
            news: None,
        }
    }

    /// One of the open connections.
    pub fn some(&self, choices: &mut Choices) -> Option<ConnectionId> {
        choices.pick(&self.open)
    }

    /// How many are open.
    pub fn open_count(&self) -> usize {
        self.open.len()
    }

    // What users do.

    pub fn open(&mut self, ledger: &mut Ledger) -> Option<ConnectionId> {
        if self.table.len() == self.table.limit() || self.over {
            return None;
        }
        let id = ledger.fresh();
        self.add(id, ledger);
        let open = Open {
            id,
            service: "echo".into(),
            peer: "192.0.2.1:5".parse().unwrap(),
            local: "192.0.2.2:5".parse().unwrap(),
            tls: None,
        };
        self.order(&Control::Open(open));
        Some(id)
    }

    pub fn send(&mut self, id: ConnectionId, want: u32, ledger: &mut Ledger) -> u32 {
        let largest = self.link.max_content_to_send();
        let Some(held) = self.table.get_mut(&id) else {
            return 0;
        };
        let n = held.conn.take_credit(want.min(largest));
        if n > 0 {
            let content = ledger.send(self.role, id, n);
            self.frame(id, &content);
        }
        n
    }

    /// The reader takes up to `n` bytes of what came.
    pub fn read(&mut self, id: ConnectionId, n: u32) {
        let Some(held) = self.table.get_mut(&id) else {
            return;
        };
        let n = n.min(held.unread);
        held.unread -= n;
        if let Some(bytes) = held.conn.release(n, &self.growth) {
            self.hurry(&Control::Window { id, bytes });
        }
    }

    /// All readers take all.
    pub fn read_all(&mut self) {
        for id in self.open.clone() {
            self.read(id, u32::MAX);
        }
    }

    pub fn end(&mut self, id: ConnectionId, ledger: &mut Ledger) {
        let Some(held) = self.table.get_mut(&id) else {
            return;
        };
        if !held.conn.may_send() {
            return;
        }
        let state = held.conn.we_ended();
        ledger.end(self.role, id);
        self.frame(id, b"");
        if state == State::Closed {
            self.forget(id);
            ledger.gone(self.role, id);
        }
    }

    pub fn close(&mut self, id: ConnectionId, reset: bool, ledger: &mut Ledger) {
        if !self.forget(id) {
            return;
        }
        ledger.close(self.role, id);
        let reason = CloseReason::Normal;
        self.order(&match reset {
            true => Control::Reset { id, reason },
            false => Control::Close { id, reason },
        });
    }

    pub fn close_all(&mut self, ledger: &mut Ledger) {
        for id in self.open.clone() {
            self.close(id, false, ledger);
        }
    }

    /// The last words, by whatever way there is; then the link is not to be resumed.
    pub fn say_goodbye(&mut self, orderly: bool) {
        let goodbye = match orderly && self.role == Role::Edge {
            true => Control::Goaway {
                reason: CloseReason::Shutdown,
                retry_after: None,
                within: None,
            },
            false => Control::Error {
                code: ErrorCode::Internal,
                text: "enough".into(),
            },
        };
        self.order(&goodbye);
        (self.over, self.leaving) = (true, true);
    }

    // What the wire does.

    /// Bytes came over the wire.
    pub fn hear(&mut self, bytes: &[u8], now: u64, ledger: &mut Ledger) -> Result<(), LinkError> {
        self.heard = now;
        let mut input = bytes;
        while let Some(event) = self.link.next(&mut input)? {
            if !matches!(event, Event::Ack { .. }) {
                self.news.get_or_insert(now);
            }
            self.take(event, ledger)?;
        }
        if let Some(ack) = self.link.ack() {
            self.acknowledge(ack);
        }
        Ok(())
    }

    fn take(&mut self, event: Event<'_>, ledger: &mut Ledger) -> Result<(), LinkError> {
        match event {
            Event::Open(open) => self.add(open.id, ledger),
            Event::Content { id, bytes } => self.content(id, bytes, ledger)?,
            Event::End { id } => self.ended(id, ledger),
            Event::Window { id, bytes } => match self.table.get_mut(&id) {
                Some(held) => held.conn.granted(bytes).unwrap(),
                None => self.assert_gone(id, ledger),
            },
            Event::Close { id, .. } | Event::Reset { id, .. } => {
                if self.forget(id) {
                    ledger.close_came(self.role, id);
                } else {
                    self.assert_gone(id, ledger);
                }
            }
            Event::Ping { word } => self.hurry(&Control::Pong { word }),
            Event::Pong { .. } => {}
            Event::Ack { bytes } => self.retained.acknowledge(bytes)?,
            Event::Goaway { .. } | Event::PeerError { .. } => self.over = true,
        }
        Ok(())
    }

    fn content(
        &mut self,
        id: ConnectionId,
        bytes: &[u8],
        ledger: &mut Ledger,
    ) -> Result<(), LinkError> {
        let Some(held) = self.table.get_mut(&id) else {
            self.assert_gone(id, ledger);
            return Ok(());
        };
        match held.conn.receive(bytes.len() as u32) {
            Ok(()) => {}
            Err(ConnError::Credit(error)) => return Err(LinkError::Credit { id, error }),
            Err(ConnError::AfterEnd) => panic!("content after the end of {id}"),
        }
        held.unread += bytes.len() as u32;
        assert!(
            held.unread <= self.bounds.1 + held.conn.grown(),
            "more unread than the window"
        );
        ledger.came(self.role, id, bytes);
        Ok(())
    }

    fn ended(&mut self, id: ConnectionId, ledger: &mut Ledger) {
        let Some(held) = self.table.get_mut(&id) else {
            return self.assert_gone(id, ledger);
        };
        let state = held.conn.peer_ended().expect("one end only");
        ledger.end_came(self.role, id);
        if state == State::Closed {
            self.forget(id);
            ledger.gone(self.role, id);
        }
    }

    /// What is written now, at most `room` bytes, in pieces that end anywhere.
    pub fn write(&mut self, room: usize) -> Vec<u8> {
        let mut written = Vec::new();
        while written.len() < room {
            let Some(mut next) = self.next_to_write() else {
                break;
            };
            let rest = next.split_off(next.len().min(room - written.len()));
            written.extend_from_slice(&next);
            self.retained.push(next);
            // What is left of a piece goes where it was.
            if !rest.is_empty() && (self.again.is_empty() && self.begun.is_empty()) {
                self.begun = rest;
            } else if !rest.is_empty() {
                self.again.push_front(rest);
            }
        }
        written
    }

    fn next_to_write(&mut self) -> Option<Bytes> {
        if let Some(again) = self.again.pop_front() {
            return Some(again);
        }
        if !self.begun.is_empty() {
            return Some(std::mem::take(&mut self.begun));
        }
        self.urgent.pop_front().or_else(|| self.ordered.pop_front())
    }

    /// Is everything written?
    pub fn all_written(&self) -> bool {
        self.again.is_empty()
            && self.begun.is_empty()
            && self.urgent.is_empty()
            && self.ordered.is_empty()
    }

    /// The wire is gone. Is the link kept?
    pub fn park(&mut self, now: u64) -> bool {
        self.parked.get_or_insert(now);
        !self.over && self.link.resume_timeout() > 0 && self.retained.may_resume()
    }

    /// Winds back to what the peer has: `false` when that cannot be.
    pub fn rewind(&mut self, received: u64) -> bool {
        let again = self.retained.rewind(received);
        let possible = again.is_some();
        self.again = again.unwrap_or_default();
        possible
    }

    /// A wire carries it again.
    pub fn carry_on(&mut self, now: u64) {
        self.parked = None;
        (self.heard, self.next_ping, self.next_tick) = (now, now, now + 1_000);
        self.news = self.news.map(|_| now);
    }

    // What time does.

    /// Once a second, while a wire carries the link. `false`: the peer has been silent too long.
    pub fn tick(&mut self, now: u64, heartbeat: u64) -> bool {
        self.next_tick = now + 1_000;
        if now >= self.heard + 3 * heartbeat {
            return false;
        }
        if now >= self.next_ping {
            self.next_ping = now + heartbeat;
            self.hurry(&Control::Ping { word: "p".into() });
        }
        if let Some(ack) = self.link.ack_tick() {
            self.acknowledge(ack);
        }
        true
    }

    pub fn assert_bounds(&self, now: u64) {
        assert!(self.retained.bytes() <= self.bounds.0, "too much kept");
        assert!(self.table.len() <= CONNECTIONS);
        assert_eq!(self.table.len(), self.open.len());
        if self.parked.is_none() && self.link.resume_timeout() > 0 {
            assert!(
                self.link.received() - self.acked < ACK_EVERY,
                "no ack in 64 KiB"
            );
            assert!(
                self.news.is_none_or(|since| now <= since + 1_000),
                "no ack in a second"
            );
        }
    }

    /// The link is lost, and all its connections with it.
    pub fn lose(self, ledger: &mut Ledger) {
        ledger.lost(self.role, self.number, self.open);
    }

    fn add(&mut self, id: ConnectionId, ledger: &mut Ledger) {
        ledger.open(self.role, id, self.number);
        let held = Held {
            conn: self.link.new_conn(),
            unread: 0,
        };
        self.table.open(id, held).expect("an edge opens an id once");
        self.open.push(id);
    }

    fn forget(&mut self, id: ConnectionId) -> bool {
        self.open.retain(|open| *open != id);
        let Some(held) = self.table.remove(id) else {
            return false;
        };
        self.growth.give(held.conn.grown());
        true
    }

    fn assert_gone(&self, id: ConnectionId, ledger: &Ledger) {
        assert!(ledger.is_gone(self.role, id), "{id} was never open here");
    }

    fn acknowledge(&mut self, ack: Control) {
        self.acked = self.link.received();
        self.news = None;
        assert_eq!(ack, Control::Ack { bytes: self.acked });
        self.hurry(&ack);
    }

    fn hurry(&mut self, control: &Control) {
        self.urgent.push_back(control.to_frame().into());
    }

    fn order(&mut self, control: &Control) {
        self.ordered.push_back(control.to_frame().into());
    }

    fn frame(&mut self, id: ConnectionId, content: &[u8]) {
        let mut frame = Vec::new();
        put_frame(id, content, &mut frame);
        self.ordered.push_back(frame.into());
    }
}
