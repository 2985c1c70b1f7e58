//! Calls on a link.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::atomic::Ordering;

use megaphone_proto::control::{Control, ErrorCode};
use megaphone_proto::frame::ConnectionId;
use rustler::types::tuple::get_tuple;
use rustler::{Atom, Binary, Encoder, Env, Error, LocalPid, NifMap, NifResult, ResourceArc, Term};

use super::{close_reason, error};
use crate::atoms;
use crate::feed::{Fed, feed as feed_link};
use crate::link::{Link, Settings};

/// Bytes drained in one call: one write that carries some hundreds of small frames.
const DRAIN_MAX: usize = 128 << 10;

type LinkArg = ResourceArc<Link>;

#[derive(NifMap)]
struct LinkOptions<'a> {
    name: String,
    node: String,
    nonce: String,
    window: u32,
    max_frame: u32,
    allow_v1: bool,
    max_connections: usize,
    idle_timeout: Option<u32>,
    peer: Term<'a>,
    local: Term<'a>,
}

#[rustler::nif]
fn link_new(env: Env, options: LinkOptions) -> LinkArg {
    let addresses = (socket_addr(options.peer), socket_addr(options.local));
    let settings = Settings {
        name: options.name,
        node: options.node,
        nonce: options.nonce,
        window: options.window,
        max_frame: options.max_frame,
        allow_v1: options.allow_v1,
        max_connections: options.max_connections,
        idle_timeout: options.idle_timeout,
        addresses,
    };
    ResourceArc::new(Link::new(settings, env.pid()))
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

#[rustler::nif]
fn link_sender(link: LinkArg, sender: LocalPid) -> Atom {
    link.outbox.set_sender(sender);
    atoms::ok()
}

#[rustler::nif]
fn feed<'a>(env: Env<'a>, link: LinkArg, chunk: Binary, offset: usize) -> NifResult<Term<'a>> {
    let input = chunk.as_slice().get(offset..).ok_or(Error::BadArg)?;
    let Fed { used, news, fatal } = feed_link(env, &link, input);
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
    let drained = link.outbox.drain(DRAIN_MAX);
    link.serve_stalled(env);
    match drained {
        Some(bytes) => {
            let sent = bytes.len() as u64;
            link.counters.sent.fetch_add(sent, Ordering::Relaxed);
            bytes.release(env).encode(env)
        }
        None => atoms::empty().encode(env),
    }
}

#[rustler::nif]
fn ready(env: Env, link: LinkArg) -> Atom {
    more_or_done(link.serve_ready(env))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn tick(env: Env<'_>, link: LinkArg, now: u32) -> Term<'_> {
    link.tick(env, now);
    let counters = &link.counters;
    let lost = counters.lost.load(Ordering::Relaxed);
    let last = counters.last_lost.load(Ordering::Relaxed);
    let unknown_verbs = link.machine().unknown_verbs();
    let received = counters.received.load(Ordering::Relaxed);
    (lost, last, unknown_verbs, received).encode(env)
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
fn goaway(env: Env, link: LinkArg, reason: Term) -> NifResult<Atom> {
    if link.version() == 2 {
        let goaway = Control::Goaway {
            reason: close_reason(reason)?,
            retry_after: None,
            within: None,
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
