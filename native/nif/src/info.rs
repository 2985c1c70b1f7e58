//! What a socket or a link says of itself: statistics, addresses, states.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use megaphone_proto::conn::State as FlowState;
use rustler::types::tuple::make_tuple;
use rustler::{Atom, Encoder, Env, Term};

use crate::atoms;
use crate::conn::{Held, Phase};
use crate::limits::{self, Shown};
use crate::link::Link;
use crate::outbox::{ALL_MAX, DATA_HIGH};

/// `{Ip, Port}` as `inet` writes it.
pub fn address(env: Env<'_>, address: SocketAddr) -> Term<'_> {
    let ip = match address {
        SocketAddr::V4(v4) => {
            let [a, b, c, d] = v4.ip().octets();
            (a, b, c, d).encode(env)
        }
        SocketAddr::V6(v6) => {
            let segments = v6.ip().segments().map(|segment| segment.encode(env));
            make_tuple(env, &segments)
        }
    };
    (ip, address.port()).encode(env)
}

impl<'e> Held<'_, 'e> {
    /// One counter of `inet:getstat/2`; `None` for a name it does not know.
    pub fn stat(&self, name: Atom) -> Option<u64> {
        let (received, sent) = (self.traffic.received.get(), self.traffic.sent.get());
        let (taken, given) = (self.socket.received, self.socket.sent);
        let pending = self.pending.as_ref().map_or(0, |pending| pending.bytes());
        let average = |bytes: u64, count| bytes.checked_div(count).unwrap_or(0);
        let known = [
            (atoms::recv_oct(), received),
            (atoms::recv_cnt(), taken.count),
            (atoms::recv_max(), taken.max),
            (atoms::recv_avg(), average(received, taken.count)),
            // The deviation of packet sizes is not kept: nobody has been seen to ask for it.
            (atoms::recv_dvi(), 0),
            (atoms::send_oct(), sent),
            (atoms::send_cnt(), given.count),
            (atoms::send_max(), given.max),
            (atoms::send_avg(), average(sent, given.count)),
            (atoms::send_pend(), pending as u64),
        ];
        let found = known.into_iter().find(|(known, _)| *known == name)?;
        Some(found.1)
    }

    /// `[{Key, Value}]` for `megaphone:info/1`.
    pub fn info(&self) -> Vec<(Atom, Term<'e>)> {
        let env = self.env;
        let conn = self.conn;
        let pending = self.pending.as_ref();
        vec![
            (atoms::id(), conn.id.get().encode(env)),
            (atoms::link(), conn.link.settings.name.encode(env)),
            (atoms::peer(), address(env, conn.addresses.peer())),
            (atoms::local(), address(env, conn.addresses.local())),
            (atoms::state(), self.state_name().encode(env)),
            (atoms::reason(), self.reason()),
            (atoms::owner(), self.owner_term()),
            (atoms::received(), self.traffic.received.get().encode(env)),
            (atoms::sent(), self.traffic.sent.get().encode(env)),
            (atoms::queued(), self.inbox.buffer.len().encode(env)),
            (atoms::buffer(), self.inbox.buffer.allocated().encode(env)),
            (
                atoms::send_pend(),
                pending.map_or(0, |p| p.bytes()).encode(env),
            ),
            (atoms::waiting(), self.socket.readers.len().encode(env)),
        ]
    }

    fn owner_term(&self) -> Term<'e> {
        match self.owner() {
            Some(pid) => pid.encode(self.env),
            None => atoms::undefined().encode(self.env),
        }
    }

    fn state_name(&self) -> Atom {
        match (self.phase, self.flow.state()) {
            (Phase::Closed(_), _) => atoms::closed(),
            (Phase::Lingering(_), _) => atoms::lingering(),
            (Phase::Open, FlowState::Open) => atoms::open(),
            (Phase::Open, FlowState::WeEnded) => atoms::we_closed(),
            (Phase::Open, _) => atoms::peer_closed(),
        }
    }

    /// Why it is over, as far as it is.
    fn reason(&self) -> Term<'e> {
        let env = self.env;
        let reason = match self.phase {
            Phase::Closed(reason) | Phase::Lingering(reason) => Some(reason),
            Phase::Open => self.inbox.ended,
        };
        // The list of reasons is closed, so the atoms are few.
        let atom = reason.and_then(|reason| Atom::from_str(env, reason.as_str()).ok());
        atom.unwrap_or(atoms::undefined()).encode(env)
    }
}

impl Link {
    /// `[{Key, Value}]` for `megaphone:info/1`.
    pub fn info<'e>(&self, env: Env<'e>) -> Vec<(Atom, Term<'e>)> {
        let (peer, unknown_verbs) = {
            let machine = self.machine();
            let name = machine.peer().map(|hello| hello.name.clone());
            (name.unwrap_or_default(), machine.unknown_verbs())
        };
        // Not below: a guard in there would live until the list is whole, which locks again.
        let connections = self.table().len();
        let counters = &self.counters;
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        vec![
            (atoms::name(), self.settings.name.encode(env)),
            (atoms::version(), self.version().encode(env)),
            (atoms::peer_name(), peer.encode(env)),
            (atoms::connections(), connections.encode(env)),
            (atoms::open(), count(&counters.opened).encode(env)),
            (atoms::closed(), self.closed_counts(env)),
            (atoms::received(), count(&counters.received).encode(env)),
            (atoms::sent(), count(&counters.sent).encode(env)),
            (atoms::queued(), self.outbox.queued().encode(env)),
            (atoms::retained(), self.outbox.retained().encode(env)),
            (atoms::dropped(), count(&counters.dropped).encode(env)),
            (atoms::unknown_verbs(), unknown_verbs.encode(env)),
            (atoms::choked(), self.choked().encode(env)),
            (atoms::limits(), self.limits(connections, env)),
        ]
    }

    fn closed_counts<'e>(&self, env: Env<'e>) -> Term<'e> {
        let counts = self.counters.closed().filter_map(|(reason, count)| {
            let reason = Atom::from_str(env, reason.as_str()).ok()?;
            Some((reason.encode(env), count.encode(env)))
        });
        map(env, counts)
    }

    /// `#{Name => #{max, now, hits}}` of all that a link may hold.
    fn limits<'e>(&self, connections: usize, env: Env<'e>) -> Term<'e> {
        let of = |max: usize, now: usize, hits: u64| Shown {
            max: max as u64,
            now: now as u64,
            hits,
        };
        let queued = self.outbox.queued();
        let settings = &self.settings;
        let overflowed = u64::from(self.outbox.overflowed());
        let limits = [
            (
                atoms::data_queue(),
                of(DATA_HIGH, queued, self.outbox.full.get()),
            ),
            (
                atoms::control_queue(),
                of(ALL_MAX, queued, u64::from(self.is_swamped())),
            ),
            (
                atoms::resume_buffer(),
                of(settings.resume_buffer, self.outbox.retained(), overflowed),
            ),
            (
                atoms::max_connections(),
                of(
                    settings.max_connections,
                    connections,
                    self.counters.refused.get(),
                ),
            ),
            (atoms::link_buffered(), self.held.shown()),
            (atoms::node_buffered(), limits::node()),
        ];
        let shown = limits.map(|(name, Shown { now, max, hits })| {
            let shown = [
                (atoms::max().encode(env), max.encode(env)),
                (atoms::now().encode(env), now.encode(env)),
                (atoms::hits().encode(env), hits.encode(env)),
            ];
            (name.encode(env), map(env, shown))
        });
        map(env, shown)
    }
}

fn map<'e>(env: Env<'e>, pairs: impl IntoIterator<Item = (Term<'e>, Term<'e>)>) -> Term<'e> {
    let (keys, values): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    // Only a key that stands twice is an error.
    Term::map_from_term_arrays(env, &keys, &values).unwrap_or(atoms::undefined().encode(env))
}
