//! From a chunk off the link to the connections it speaks of.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use megaphone_proto::conn::{ConnError, State as FlowState};
use megaphone_proto::control::{CloseReason, Control, Open};
use megaphone_proto::error::LinkError;
use megaphone_proto::frame::ConnectionId;
use megaphone_proto::link::{Event, Link as Machine};
use megaphone_proto::table::OpenError;
use rustler::{Encoder, Env, ResourceArc, Term};

use crate::atoms;
use crate::conn::{Conn, hold};
use crate::front::News;
use crate::link::{LOOKUPS, Link};
use crate::outbox::ALL_MAX;

/// Connections served in one call: each may wake a process, at about a microsecond.
const SERVED_MAX: usize = 256;
/// Events handled in one call, at some 50 to 100 ns each.
const EVENTS_MAX: usize = 2048;

/// Of a scheduler's millisecond, so that a receiver with much to do makes way for others.
const TIMESLICE_PERCENT: i32 = 25;

/// What one call did.
pub struct Fed<'e> {
    /// Bytes of the chunk used.
    pub used: usize,
    /// What the receiver must hear of.
    pub news: Vec<Term<'e>>,
    /// The link must be closed, for this.
    pub fatal: Option<Fatal>,
}

/// Why a link must be closed.
pub struct Fatal {
    /// For the peer.
    pub code: megaphone_proto::control::ErrorCode,
    /// For the log.
    pub text: String,
}

impl From<LinkError> for Fatal {
    fn from(error: LinkError) -> Self {
        Fatal {
            code: error.code(),
            text: error.to_string(),
        }
    }
}

struct Feeding<'l, 'e> {
    env: Env<'e>,
    link: &'l Arc<Link>,
    news: Vec<Term<'e>>,
    /// Connections with new bytes. Served at the end, so that a process is woken once for all the
    /// frames that a chunk has for it.
    touched: Vec<ResourceArc<Conn>>,
    /// Kept for its memory.
    found: Vec<Option<ResourceArc<Conn>>>,
}

/// Content that follows each other in a chunk, whoever it is for.
struct Batch<'a> {
    contents: [(ConnectionId, &'a [u8]); LOOKUPS],
    len: usize,
}

impl Default for Batch<'_> {
    fn default() -> Self {
        Batch {
            contents: [(ConnectionId::CONTROL, &[]); LOOKUPS],
            len: 0,
        }
    }
}

impl<'a> Batch<'a> {
    /// Adds what is for `id`; `true`: it is full.
    fn add(&mut self, id: ConnectionId, bytes: &'a [u8]) -> bool {
        self.contents[self.len] = (id, bytes);
        self.len += 1;
        self.len == LOOKUPS
    }
}

/// Takes in as much of `chunk` as one call may.
pub fn feed<'e>(env: Env<'e>, link: &Arc<Link>, chunk: &[u8]) -> Fed<'e> {
    let mut feeding = Feeding {
        env,
        link,
        news: Vec::new(),
        touched: Vec::new(),
        found: Vec::new(),
    };
    let mut machine = link.machine();
    let mut input = chunk;
    let fatal = feeding.run(&mut machine, &mut input).err();
    drop(machine);
    for conn in std::mem::take(&mut feeding.touched) {
        feeding.serve(&conn);
    }
    feeding.news.extend(news(env, link));
    link.acknowledge(env, Machine::ack);
    let used = chunk.len() - input.len();
    rustler::schedule::consume_timeslice(env, TIMESLICE_PERCENT);
    let received = &link.counters.received;
    received.fetch_add(used as u64, Ordering::Relaxed);
    Fed {
        used,
        news: feeding.news,
        fatal,
    }
}

/// What the fronts of a link's connections have for its receiver.
pub fn news<'e>(env: Env<'e>, link: &Link) -> impl Iterator<Item = Term<'e>> {
    std::iter::from_fn(move || {
        Some(match link.news.pop()? {
            News::Request(conn, key) => (atoms::request(), conn, key).encode(env),
            News::Refused(id, text) => (atoms::refused(), id.get(), text).encode(env),
        })
    })
}

impl<'e> Feeding<'_, 'e> {
    fn run(&mut self, machine: &mut Machine, input: &mut &[u8]) -> Result<(), Fatal> {
        let mut batch = Batch::default();
        for _ in 0..EVENTS_MAX {
            if self.touched.len() + batch.len >= SERVED_MAX {
                self.contents(machine, &mut batch)?;
                if self.touched.len() == SERVED_MAX {
                    break;
                }
            }
            let event = match machine.next(input) {
                Ok(Some(Event::Content { id, bytes })) => {
                    if batch.add(id, bytes) {
                        self.contents(machine, &mut batch)?;
                    }
                    continue;
                }
                event => event,
            };
            self.contents(machine, &mut batch)?;
            let Some(event) = event? else {
                break;
            };
            match event {
                Event::End { id } => self.end(id),
                Event::Window { id, bytes } => self.window(id, bytes)?,
                Event::Open(open) => self.open(machine, &open),
                Event::Close { id, reason } => self.ended(id, |held| held.peer_closed(reason)),
                Event::Reset { id, reason } => self.ended(id, |held| held.peer_reset(reason)),
                other => self.about_the_link(other)?,
            }
        }
        self.contents(machine, &mut batch)?;
        if self.link.is_swamped() {
            return Err(Fatal {
                code: megaphone_proto::control::ErrorCode::Limit,
                text: format!("more than {ALL_MAX} bytes wait for a peer that does not read"),
            });
        }
        Ok(())
    }

    /// Hands out what a connection got in this chunk; what nobody takes is held, while it may be.
    fn serve(&mut self, conn: &ResourceArc<Conn>) {
        let mut held = hold(conn, self.env);
        held.serve_arrived();
        if held.holds_too_much() {
            held.abort(CloseReason::Overload);
            drop(held);
            self.blame(conn.id, "too much is held for connections (max_buffered)");
        }
    }

    /// Gives connections what has come for them. They are looked up together: with very many of
    /// them nearly each is a wait for memory.
    fn contents(&mut self, machine: &Machine, batch: &mut Batch) -> Result<(), Fatal> {
        let contents = &batch.contents[..std::mem::take(&mut batch.len)];
        if let [(id, bytes)] = *contents {
            let conn = self.link.get(id);
            return self.content(machine, id, conn, bytes);
        }
        let mut found = std::mem::take(&mut self.found);
        self.link
            .get_all(contents.iter().map(|(id, _)| *id), &mut found);
        for (conn, (id, bytes)) in found.drain(..).zip(contents) {
            self.content(machine, *id, conn, bytes)?;
        }
        self.found = found;
        Ok(())
    }

    fn content(
        &mut self,
        machine: &Machine,
        id: ConnectionId,
        found: Option<ResourceArc<Conn>>,
        bytes: &[u8],
    ) -> Result<(), Fatal> {
        // One before it may have opened a connection of version 1.
        let conn = match found.or_else(|| self.link.get(id)) {
            Some(conn) => conn,
            None => match self.first_of_v1(machine, id) {
                Some(conn) => conn,
                None => {
                    self.link.counters.lose_content(id);
                    return Ok(());
                }
            },
        };
        let mut held = hold(&conn, self.env);
        held.heard = self.link.now();
        if held.flow.state() == FlowState::Closed {
            // Since it was looked up: one before it was the reason.
            self.link.counters.lose_content(id);
            return Ok(());
        }
        match held.arrive(bytes) {
            Ok(first) => {
                drop(held);
                if first {
                    self.touched.push(conn);
                }
                Ok(())
            }
            Err(ConnError::Credit(error)) => Err(LinkError::Credit { id, error }.into()),
            Err(error @ ConnError::AfterEnd) => {
                held.abort(CloseReason::ProtocolError);
                self.blame(id, &error.to_string());
                Ok(())
            }
        }
    }

    /// In version 1 the first content of an unknown id opens it.
    fn first_of_v1(&mut self, machine: &Machine, id: ConnectionId) -> Option<ResourceArc<Conn>> {
        if machine.version() != 1 || self.link.table().is_buried(id) {
            return None;
        }
        let conn = self.enter(machine, id, self.link.settings.addresses)?;
        self.link.watch_idle(id);
        self.tell((atoms::open(), &conn, atoms::undefined(), id.get()));
        Some(conn)
    }

    fn open(&mut self, machine: &Machine, open: &Open) {
        if let Some(conn) = self.enter(machine, open.id, (open.peer, open.local)) {
            let service = open.service.as_str();
            self.tell((atoms::open(), &conn, service, open.id.get()));
        }
    }

    fn enter(
        &mut self,
        machine: &Machine,
        id: ConnectionId,
        addresses: (std::net::SocketAddr, std::net::SocketAddr),
    ) -> Option<ResourceArc<Conn>> {
        let may = self.link.table().may_open(id);
        let refusal = match may {
            Ok(()) => {
                let flow = machine.new_conn();
                let conn = ResourceArc::new(Conn::new(id, self.link.clone(), addresses, flow));
                self.link.counters.opened.fetch_add(1, Ordering::Relaxed);
                // Only this call opens, so what may_open said still holds.
                let _ = self.link.table().open(id, conn.clone());
                return Some(conn);
            }
            Err(refusal) => refusal,
        };
        if refusal == OpenError::Duplicate
            && let Some(conn) = self.link.get(id)
        {
            // Nobody can tell whose bytes come next under this id: nobody gets them.
            hold(&conn, self.env).abort(CloseReason::ProtocolError);
        } else {
            self.link.counters.refused.add();
            self.refuse(id, CloseReason::Limit);
        }
        self.blame(id, &refusal.to_string());
        None
    }

    fn refuse(&mut self, id: ConnectionId, reason: CloseReason) {
        if self.link.version() == 1 {
            self.link.outbox.push_frame(self.env, id, &[]);
            self.link.bury(id);
        } else {
            let control = Control::Reset { id, reason };
            self.link.outbox.push_control(self.env, &control);
        }
    }

    fn end(&mut self, id: ConnectionId) {
        let Some(conn) = self.link.get(id) else {
            // In version 1 a buried id ends here; anything else was never open.
            if !self.link.table().unbury(id) {
                self.link.counters.drop_one();
            }
            return;
        };
        let mut held = hold(&conn, self.env);
        if let Err(error) = held.peer_ended() {
            held.abort(CloseReason::ProtocolError);
            self.blame(id, &error.to_string());
        }
    }

    fn window(&mut self, id: ConnectionId, bytes: u32) -> Result<(), Fatal> {
        let Some(conn) = self.link.get(id) else {
            // Grants cross our closes all the time: they do no harm, and are no news.
            return Ok(());
        };
        let mut held = hold(&conn, self.env);
        match held.flow.granted(bytes) {
            Ok(()) => {
                held.flush();
                Ok(())
            }
            Err(ConnError::Credit(error)) => Err(LinkError::Credit { id, error }.into()),
            Err(ConnError::AfterEnd) => Ok(()),
        }
    }

    fn ended(&mut self, id: ConnectionId, end: impl FnOnce(&mut crate::conn::Held)) {
        match self.link.get(id) {
            Some(conn) => end(&mut hold(&conn, self.env)),
            // Closes cross ours as well; one for an id that was never open does no harm.
            None => self.link.counters.drop_one(),
        }
    }

    fn about_the_link(&mut self, event: Event) -> Result<(), Fatal> {
        match event {
            Event::Ping { word } => {
                let pong = Control::Pong { word };
                self.link.outbox.push_urgent(self.env, &pong);
            }
            Event::Pong { word } => self.tell((atoms::pong(), word)),
            Event::Ack { bytes } => self.link.outbox.acknowledge(bytes)?,
            Event::Goaway {
                reason,
                retry_after,
                within,
            } => self.tell((atoms::goaway(), reason.as_str(), retry_after, within)),
            Event::PeerError { code, text } => {
                let text = text.escape_debug().to_string();
                self.tell((atoms::peer_error(), code.as_str(), text));
            }
            // Those are run's.
            _ => {}
        }
        Ok(())
    }

    /// A connection did wrong and was reset; the log shall name it.
    fn blame(&mut self, id: ConnectionId, text: &str) {
        self.tell((atoms::reset(), id.get(), text));
    }

    fn tell(&mut self, news: impl Encoder) {
        self.news.push(news.encode(self.env));
    }
}
