//! From a chunk off the link to the connections it speaks of.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use megaphone_proto::conn::{Conn as Flow, ConnError, State as FlowState};
use megaphone_proto::control::{CloseReason, Control, Open};
use megaphone_proto::error::LinkError;
use megaphone_proto::frame::ConnectionId;
use megaphone_proto::link::{Event, Link as Machine};
use megaphone_proto::table::OpenError;
use rustler::{Binary, Encoder, Env, ResourceArc, Term};

use crate::atoms;
use crate::conn::{Conn, Held, hold};
use crate::front::News;
use crate::gather::{Gathered, Group};
use crate::link::{LOOKUPS, Link};
use crate::outbox::ALL_MAX;
use crate::prefetch;

/// Events handled in one call, at some 50 to 100 ns each.
const EVENTS_MAX: usize = 2048;

/// Connections locked at a time, so that the processor waits for the buffers of all of them at once.
const LOCKS: usize = 8;

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
    chunk: Binary<'e>,
    /// A connection as it begins on this link.
    fresh: Flow,
    news: Vec<Term<'e>>,
    /// To be said when what came before has reached its connections: that is what a ping asks.
    pongs: Vec<Control>,
}

/// Takes in as much of `chunk`, from `offset` on, as one call may.
pub fn feed<'e>(env: Env<'e>, link: &Arc<Link>, chunk: Binary<'e>, offset: usize) -> Fed<'e> {
    let whole = chunk.as_slice().get(offset..).unwrap_or_default();
    let mut input = whole;
    let mut machine = link.machine();
    let mut feeding = Feeding {
        env,
        link,
        chunk,
        fresh: machine.new_conn(),
        news: Vec::new(),
        pongs: Vec::new(),
    };
    let mut gathered = Gathered::new();
    let run = feeding.run(&mut machine, &mut input, &mut gathered);
    drop(machine);
    // Also what came before something wrong.
    let given = feeding.settle_all(&gathered);
    for pong in &feeding.pongs {
        link.outbox.push_urgent(env, pong);
    }
    let fatal = run.and(given).and_then(|()| not_swamped(link)).err();
    feeding.news.extend(news(env, link));
    link.acknowledge(env, Machine::ack);
    let used = whole.len() - input.len();
    rustler::schedule::consume_timeslice(env, TIMESLICE_PERCENT);
    let received = &link.counters.received;
    received.fetch_add(used as u64, Ordering::Relaxed);
    Fed {
        used,
        news: feeding.news,
        fatal,
    }
}

fn not_swamped(link: &Link) -> Result<(), Fatal> {
    if link.is_swamped() {
        return Err(Fatal {
            code: megaphone_proto::control::ErrorCode::Limit,
            text: format!("more than {ALL_MAX} bytes wait for a peer that does not read"),
        });
    }
    Ok(())
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
    /// Gathers content, and does what else there is to be done.
    fn run<'a>(
        &mut self,
        machine: &mut Machine,
        input: &mut &'a [u8],
        gathered: &mut Gathered<'a>,
    ) -> Result<(), Fatal> {
        for _ in 0..EVENTS_MAX {
            if gathered.is_full() {
                break;
            }
            let Some(event) = machine.next(input)? else {
                break;
            };
            // What came for a connection is given to it before it ends, or is opened once more.
            let changed = match &event {
                Event::Open(open) => Some(open.id),
                Event::End { id } | Event::Close { id, .. } | Event::Reset { id, .. } => Some(*id),
                _ => None,
            };
            if let Some(id) = changed {
                self.settle(gathered, id)?;
            }
            match event {
                Event::Content { id, bytes } => gathered.add(id, bytes),
                Event::End { id } => self.end(id),
                Event::Window { id, bytes } => self.window(id, bytes)?,
                Event::Open(open) => self.open(&open),
                Event::Close { id, reason } => self.ended(id, |held| held.peer_closed(reason)),
                Event::Reset { id, reason } => self.ended(id, |held| held.peer_reset(reason)),
                other => self.about_the_link(other)?,
            }
        }
        Ok(())
    }

    /// Gives each connection what has come for it. With very many of them nearly each step is a
    /// wait for memory, so each step is done for several of them before the next.
    fn settle_all(&mut self, gathered: &Gathered) -> Result<(), Fatal> {
        let mut found = Vec::new();
        for groups in gathered.groups().chunks(LOOKUPS) {
            found.clear();
            self.link
                .get_all(groups.iter().map(|group| group.id), &mut found);
            for (groups, found) in groups.chunks(LOCKS).zip(found.chunks_mut(LOCKS)) {
                self.settle_some(gathered, groups, found)?;
            }
        }
        Ok(())
    }

    /// The same for a few, all of them different.
    fn settle_some(
        &mut self,
        gathered: &Gathered,
        groups: &[Group],
        found: &mut [Option<ResourceArc<Conn>>],
    ) -> Result<(), Fatal> {
        let env = self.env;
        for (group, conn) in groups.iter().zip(&mut *found) {
            match group.is_empty() {
                true => *conn = None,
                false if conn.is_none() => *conn = self.first_of_v1(group.id),
                false => {}
            }
        }
        let mut locked: [Option<Held>; LOCKS] = std::array::from_fn(|at| {
            let held = hold(found.get(at)?.as_ref()?, env);
            prefetch::line(held.inbox.buffer.block());
            Some(held)
        });
        for held in locked.iter().flatten() {
            prefetch::line(held.inbox.buffer.end());
        }
        for (group, held) in groups.iter().zip(&mut locked) {
            self.content(gathered, group, held.take())?;
        }
        Ok(())
    }

    /// The same for one of them, before all others.
    fn settle(&mut self, gathered: &mut Gathered, id: ConnectionId) -> Result<(), Fatal> {
        match gathered.take(id) {
            Some(group) => self.settle_some(gathered, &[group], &mut [self.link.get(id)]),
            None => Ok(()),
        }
    }

    fn content(
        &mut self,
        gathered: &Gathered,
        group: &Group,
        held: Option<Held<'_, 'e>>,
    ) -> Result<(), Fatal> {
        let (id, parts) = (group.id, gathered.parts(group));
        // One that is closed was open when it was looked up.
        let held = held.filter(|held| held.flow.state() != FlowState::Closed);
        let Some(mut held) = held else {
            parts.for_each(|_| self.link.counters.lose_content(id));
            return Ok(());
        };
        held.heard = self.link.now();
        match held.arrive(self.chunk, parts, group.bytes) {
            Ok(()) if held.holds_too_much() => {
                held.abort(CloseReason::Overload);
                self.blame(id, "too much is held for connections (max_buffered)");
                Ok(())
            }
            Ok(()) => Ok(()),
            Err(ConnError::Credit(error)) => Err(LinkError::Credit { id, error }.into()),
            Err(error @ ConnError::AfterEnd) => {
                held.abort(CloseReason::ProtocolError);
                self.blame(id, &error.to_string());
                Ok(())
            }
        }
    }

    /// In version 1 the first content of an unknown id opens it.
    fn first_of_v1(&mut self, id: ConnectionId) -> Option<ResourceArc<Conn>> {
        if self.link.version() != 1 || self.link.table().is_buried(id) {
            return None;
        }
        let conn = self.enter(id, self.link.settings.addresses)?;
        self.link.watch_idle(id);
        self.tell((atoms::open(), &conn, atoms::undefined(), id.get()));
        Some(conn)
    }

    fn open(&mut self, open: &Open) {
        if let Some(conn) = self.enter(open.id, (open.peer, open.local)) {
            let service = open.service.as_str();
            self.tell((atoms::open(), &conn, service, open.id.get()));
        }
    }

    fn enter(
        &mut self,
        id: ConnectionId,
        addresses: (std::net::SocketAddr, std::net::SocketAddr),
    ) -> Option<ResourceArc<Conn>> {
        let may = self.link.table().may_open(id);
        let refusal = match may {
            Ok(()) => {
                let new = Conn::new(id, self.link.clone(), addresses, self.fresh);
                let conn = ResourceArc::new(new);
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

    fn ended(&mut self, id: ConnectionId, end: impl FnOnce(&mut Held)) {
        match self.link.get(id) {
            Some(conn) => end(&mut hold(&conn, self.env)),
            // Closes cross ours as well; one for an id that was never open does no harm.
            None => self.link.counters.drop_one(),
        }
    }

    fn about_the_link(&mut self, event: Event) -> Result<(), Fatal> {
        match event {
            Event::Ping { word } => self.pongs.push(Control::Pong { word }),
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
