//! Calls on a link.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use megaphone_proto::control::{Control, ErrorCode};
use megaphone_proto::frame::ConnectionId;
use rustler::types::tuple::get_tuple;
use rustler::{
    Atom, Binary, Encoder, Env, Error, NifMap, NifResult, OwnedBinary, ResourceArc, Term,
};

use super::handshake::HandshakeArg;
use super::{close_reason, error};
use crate::atoms;
use crate::feed::{Fed, feed as feed_link, news};
use crate::foreign;
use crate::limits;
use crate::link::{Link, LinkRef, Settings};
use crate::memory;
use crate::outbox::Piece;

/// Bytes drained in one call: one write that carries some hundreds of small frames.
const DRAIN_MAX: usize = 128 << 10;

type LinkArg = ResourceArc<LinkRef>;

#[derive(NifMap)]
struct LinkOptions<'a> {
    name: String,
    window: u32,
    max_connections: usize,
    resume_buffer: usize,
    max_buffered: u64,
    idle_timeout: Option<u32>,
    peer: Term<'a>,
    local: Term<'a>,
}

/// The link behind a handshake that is up; the handshake is used up.
#[rustler::nif]
fn link_new(env: Env, options: LinkOptions, handshake: HandshakeArg) -> NifResult<LinkArg> {
    let machine = handshake.finish().ok_or(Error::BadArg)?;
    let addresses = (socket_addr(options.peer), socket_addr(options.local));
    let settings = Settings {
        name: options.name,
        window: options.window,
        max_connections: options.max_connections,
        resume_buffer: options.resume_buffer,
        max_buffered: options.max_buffered,
        idle_timeout: options.idle_timeout,
        addresses,
    };
    let link = Link::new(settings, machine, env.pid());
    Ok(ResourceArc::new(LinkRef(Arc::new(link))))
}

/// A Unix socket has no IP address: its clients of version 1 come from nowhere in particular.
fn socket_addr(term: Term) -> SocketAddr {
    let parse = || {
        let (ip, port): (Term, u16) = term.decode().ok()?;
        let ip = if let Ok((a, b, c, d)) = ip.decode::<(u8, u8, u8, u8)>() {
            IpAddr::from([a, b, c, d])
        } else {
            let segments = get_tuple(ip)
                .ok()?
                .into_iter()
                .map(|segment| segment.decode());
            let segments: Vec<u16> = segments.collect::<NifResult<_>>().ok()?;
            IpAddr::from(<[u16; 8]>::try_from(segments).ok()?)
        };
        Some(SocketAddr::new(ip, port))
    };
    parse().unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)))
}

/// Who drains; nobody (`undefined`) while the link is parked.
#[rustler::nif]
fn link_sender(link: LinkArg, sender: Term) -> Atom {
    link.outbox.set_sender(sender.decode().ok());
    atoms::ok()
}

/// Whether a peer that has so many bytes of ours can be given all the others.
#[rustler::nif]
fn link_may_rewind(link: LinkArg, received: u64) -> bool {
    link.outbox.may_rewind(received)
}

/// For a peer that has so many bytes of ours: what it lacks is drained again. The answer is how
/// many of its bytes we have.
#[rustler::nif(schedule = "DirtyCpu")]
fn link_rewind(env: Env<'_>, link: LinkArg, received: u64) -> Term<'_> {
    if link.outbox.rewind(received) {
        (atoms::ok(), link.machine().received()).encode(env)
    } else {
        error(env, atoms::einval())
    }
}

#[rustler::nif]
fn feed<'a>(env: Env<'a>, link: LinkArg, chunk: Binary<'a>, offset: usize) -> NifResult<Term<'a>> {
    if offset > chunk.len() {
        return Err(Error::BadArg);
    }
    let Fed { used, news, fatal } = feed_link(env, &link, chunk, offset);
    let at = offset + used;
    Ok(match fatal {
        Some(fatal) => {
            let code = fatal.code.as_str();
            (atoms::fatal(), code, fatal.text, news).encode(env)
        }
        None if at < chunk.len() => (atoms::more(), at, news).encode(env),
        None if link.choked() => (atoms::choked(), news).encode(env),
        None => (atoms::ok(), news).encode(env),
    })
}

#[rustler::nif]
fn drain(env: Env<'_>, link: LinkArg) -> Term<'_> {
    let mut drained = link.outbox.drain(DRAIN_MAX);
    let more = link.serve_stalled(env);
    let sent: usize = drained.iter().map(Piece::len).sum();
    link.counters.sent.fetch_add(sent as u64, Ordering::Relaxed);
    let term = |piece: Piece| match piece {
        Piece::Copied(bytes) => bytes.release(env),
        Piece::Whole(bytes) => foreign::binary(env, bytes),
    };
    match drained.pop() {
        Some(only) if drained.is_empty() => term(only).encode(env),
        Some(last) => {
            drained.push(last);
            drained
                .into_iter()
                .map(term)
                .collect::<Vec<_>>()
                .encode(env)
        }
        // Nothing to write, and still to be called again: those that were served had none.
        None if more => OwnedBinary::new(0).release(env).encode(env),
        None => atoms::empty().encode(env),
    }
}

#[rustler::nif]
fn ready(env: Env<'_>, link: LinkArg) -> Term<'_> {
    let more = more_or_done(link.serve_ready(env));
    let news: Vec<_> = news(env, &link).collect();
    (more, news).encode(env)
}

#[rustler::nif(schedule = "DirtyCpu")]
fn tick(env: Env<'_>, link: LinkArg, parked: bool) -> Term<'_> {
    link.tick(env, parked);
    let counters = &link.counters;
    let lost = counters.lost.load(Ordering::Relaxed);
    let last = counters.last_lost.load(Ordering::Relaxed);
    let unknown_verbs = link.machine().unknown_verbs();
    let received = counters.received.load(Ordering::Relaxed);
    let (swamped, overflowed) = (link.is_swamped(), link.outbox.overflowed());
    (lost, last, unknown_verbs, received, swamped, overflowed).encode(env)
}

#[rustler::nif]
fn link_error(env: Env, link: LinkArg, code: String, text: String) -> Atom {
    if link.machine().hears_errors() {
        let code = ErrorCode::from_str(&code).unwrap_or(ErrorCode::Internal);
        let control = Control::Error { code, text };
        link.outbox.push_urgent(env, &control);
    }
    atoms::ok()
}

#[rustler::nif]
fn ping(env: Env, link: LinkArg, word: String) -> Atom {
    link.outbox.push_urgent(env, &Control::Ping { word });
    atoms::ok()
}

#[rustler::nif]
fn goaway(
    env: Env,
    link: LinkArg,
    reason: Term,
    retry_after: Option<u32>,
    within: Option<u32>,
) -> NifResult<Atom> {
    if link.version() == 2 {
        let goaway = Control::Goaway {
            reason: close_reason(reason)?,
            retry_after,
            within,
        };
        link.outbox.push_urgent(env, &goaway);
    }
    Ok(atoms::ok())
}

#[rustler::nif]
fn end_of_input(env: Env<'_>, link: LinkArg) -> Term<'_> {
    match link.machine().end_of_input() {
        Ok(()) => atoms::ok().encode(env),
        Err(error) => (atoms::error(), error.to_string()).encode(env),
    }
}

#[rustler::nif]
fn end_some(env: Env, link: LinkArg, reason: Term) -> NifResult<Atom> {
    Ok(more_or_done(link.end_some(env, close_reason(reason)?)))
}

#[rustler::nif]
fn link_info<'a>(env: Env<'a>, link: LinkArg) -> Vec<(Atom, Term<'a>)> {
    link.info(env)
}

/// Whether the peer may come back to this link after it dropped, and for how many seconds.
#[rustler::nif]
fn link_resumable(link: LinkArg) -> u32 {
    if link.outbox.may_resume() {
        link.machine().resume_timeout()
    } else {
        0
    }
}

/// Bytes that the node may hold for all connections of all links.
#[rustler::nif]
fn set_max_buffered(bytes: u64) -> Atom {
    limits::set_node_max(bytes);
    atoms::ok()
}

/// Bytes that the Rust side holds for everything, outside of the emulator's allocators.
#[rustler::nif]
fn memory() -> u64 {
    memory::held()
}

#[rustler::nif(schedule = "DirtyCpu")]
fn connections(link: LinkArg) -> Vec<u64> {
    link.table().iter().map(|(id, _)| id.get()).collect()
}

#[rustler::nif]
fn lookup(env: Env<'_>, link: LinkArg, id: u64) -> Term<'_> {
    match link.get(ConnectionId::new(id)) {
        Some(conn) => (atoms::ok(), conn).encode(env),
        None => error(env, atoms::closed()),
    }
}

fn more_or_done(more: bool) -> Atom {
    if more { atoms::more() } else { atoms::done() }
}
