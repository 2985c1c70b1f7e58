//! The calls of `megaphone_nif.erl`. Each is bounded: what could be long is cut into pieces that
//! the caller asks for again, or runs on a dirty scheduler.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::atomic::Ordering;

use megaphone_proto::control::{CloseReason, Control, ErrorCode};
use megaphone_proto::frame::ConnectionId;
use megaphone_proto::http1::{Head, HttpReader, Item, Step, parse_head};
use megaphone_proto::packet::Mode;
use rustler::types::tuple::get_tuple;
use rustler::{Atom, Binary, Encoder, Env, Error, LocalPid, NifMap, NifResult, ResourceArc, Term};

use crate::atoms;
use crate::conn::{Conn, hold, token};
use crate::deliver::Got;
use crate::feed::{Fed, feed as feed_link};
use crate::http_terms::{self, Strings};
use crate::inbox::Want;
use crate::info::address;
use crate::link::{Link, Settings};
use crate::options::{Active, ActiveChange, Change, active_change, packet_mode};
use crate::outbound::Sent;

/// Bytes drained in one call: one write that carries some hundreds of small frames.
const DRAIN_MAX: usize = 128 << 10;

type ConnArg = ResourceArc<Conn>;
type LinkArg = ResourceArc<Link>;

// ---- links -------------------------------------------------------------------------------

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
    let dropped = counters.dropped.load(Ordering::Relaxed);
    let last = counters.last_dropped.load(Ordering::Relaxed);
    let unknown_verbs = link.machine().unknown_verbs();
    let received = counters.received.load(Ordering::Relaxed);
    (dropped, last, unknown_verbs, received).encode(env)
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

// ---- reading -----------------------------------------------------------------------------

#[rustler::nif]
fn recv(env: Env<'_>, conn: ConnArg, length: u32) -> Term<'_> {
    got(env, &conn, Want::Packet(length))
}

#[rustler::nif]
fn recv_item(env: Env<'_>, conn: ConnArg) -> Term<'_> {
    got(env, &conn, Want::Item)
}

fn got<'a>(env: Env<'a>, conn: &ConnArg, want: Want) -> Term<'a> {
    match hold(conn, env).recv(want) {
        Got::Packet(packet) => (atoms::ok(), packet).encode(env),
        Got::Wait(token) => (atoms::wait(), token).encode(env),
        Got::Error(reason) => error(env, reason),
    }
}

#[rustler::nif]
fn cancel_recv(env: Env, conn: ConnArg, token: u64) -> bool {
    hold(&conn, env).cancel_recv(token)
}

#[rustler::nif]
fn unrecv<'a>(env: Env<'a>, conn: ConnArg, data: Term<'a>) -> NifResult<Term<'a>> {
    let bytes = Binary::from_iolist(data)?;
    let mut held = hold(&conn, env);
    if !held.is_open() {
        return Ok(error(env, atoms::closed()));
    }
    held.unrecv(&bytes);
    Ok(atoms::ok().encode(env))
}

// ---- writing -----------------------------------------------------------------------------

#[rustler::nif]
fn send<'a>(env: Env<'a>, conn: ConnArg, data: Term<'a>) -> Term<'a> {
    send_bytes(env, &conn, data, None)
}

/// The same for data whose copy would take a scheduler too long.
#[rustler::nif(schedule = "DirtyCpu")]
fn send_large<'a>(env: Env<'a>, conn: ConnArg, data: Term<'a>) -> Term<'a> {
    send_bytes(env, &conn, data, None)
}

/// The same with nothing in front, whatever `{packet, _}` says.
#[rustler::nif]
fn send_raw<'a>(env: Env<'a>, conn: ConnArg, data: Term<'a>) -> Term<'a> {
    send_bytes(env, &conn, data, Some(Mode::Raw))
}

fn send_bytes<'a>(env: Env<'a>, conn: &ConnArg, data: Term<'a>, packet: Option<Mode>) -> Term<'a> {
    let Ok(bytes) = Binary::from_iolist(data) else {
        return error(env, atoms::einval());
    };
    let mut held = hold(conn, env);
    let packet = packet.unwrap_or(held.options.packet);
    match held.send(&bytes, packet) {
        Sent::Ok => atoms::ok().encode(env),
        Sent::Wait(token, Some(ms)) => (atoms::wait(), token, ms).encode(env),
        Sent::Wait(token, None) => (atoms::wait(), token, atoms::infinity()).encode(env),
        Sent::Error(reason) => error(env, reason),
    }
}

#[rustler::nif]
fn send_timed_out(env: Env, conn: ConnArg, token: u64) -> bool {
    hold(&conn, env).send_timed_out(token)
}

// ---- the socket's life -------------------------------------------------------------------

#[rustler::nif]
fn shutdown(env: Env<'_>, conn: ConnArg, read: bool, write: bool) -> Term<'_> {
    let mut held = hold(&conn, env);
    if !held.is_open() {
        return error(env, atoms::closed());
    }
    if read {
        held.stop_reading();
    }
    if write {
        held.end_sending();
    }
    atoms::ok().encode(env)
}

#[rustler::nif]
fn close(env: Env, conn: ConnArg) -> Atom {
    hold(&conn, env).close(CloseReason::ServerClosed);
    atoms::ok()
}

#[rustler::nif]
fn abort(env: Env, conn: ConnArg, reason: Term) -> NifResult<Atom> {
    hold(&conn, env).abort(close_reason(reason)?);
    Ok(atoms::ok())
}

/// Stops active messages for a hand-over; what was active is set again by `set_owner`.
#[rustler::nif]
fn hand_over(env: Env<'_>, conn: ConnArg) -> Term<'_> {
    let mut held = hold(&conn, env);
    if !held.is_open() {
        return error(env, atoms::closed());
    }
    let caller = env.pid();
    if held.owner.is_some_and(|(owner, _)| owner != caller) {
        return error(env, atoms::not_owner());
    }
    let active = held.options.get(env, atoms::active());
    held.options.active = Active::False;
    (atoms::ok(), active).encode(env)
}

#[rustler::nif]
fn set_owner<'a>(env: Env<'a>, conn: ConnArg, owner: LocalPid, active: Term) -> Term<'a> {
    let mut held = hold(&conn, env);
    if !held.is_open() {
        return error(env, atoms::einval());
    }
    if !held.set_owner(owner) {
        return error(env, atoms::badarg());
    }
    if let Ok(change) = active_change(active) {
        let _ = held.set_active(change);
        held.pump();
    }
    atoms::ok().encode(env)
}

#[rustler::nif]
fn watch(env: Env<'_>, conn: ConnArg, pid: LocalPid) -> Term<'_> {
    let mut held = hold(&conn, env);
    if !held.is_open() {
        return error(env, atoms::closed());
    }
    let token = token();
    held.watchers.push((pid, token));
    (atoms::ok(), token).encode(env)
}

// ---- options and facts -------------------------------------------------------------------

#[rustler::nif]
fn set_active<'a>(env: Env<'a>, conn: ConnArg, active: Term<'a>) -> Term<'a> {
    match active_change(active) {
        Ok(change) => change_active(env, &conn, change),
        Err(_) => error(env, atoms::einval()),
    }
}

fn change_active<'a>(env: Env<'a>, conn: &ConnArg, change: ActiveChange) -> Term<'a> {
    let mut held = hold(conn, env);
    if !held.is_open() || held.set_active(change).is_none() {
        return error(env, atoms::einval());
    }
    held.pump();
    atoms::ok().encode(env)
}

#[rustler::nif]
fn setopts<'a>(env: Env<'a>, conn: ConnArg, list: Term<'a>) -> Term<'a> {
    let mut held = hold(&conn, env);
    let change = match Change::parse(&held.options, list) {
        Ok(change) if held.is_open() => change,
        _ => return error(env, atoms::einval()),
    };
    held.options = change.options;
    if let Mode::Http { headers_only, .. } = held.options.packet {
        held.inbox.http.switch(headers_only);
    }
    drop(held);
    match change.active {
        Some(change) => change_active(env, &conn, change),
        None => {
            hold(&conn, env).pump();
            atoms::ok().encode(env)
        }
    }
}

#[rustler::nif]
fn getopts<'a>(env: Env<'a>, conn: ConnArg, names: Vec<Atom>) -> Term<'a> {
    let held = hold(&conn, env);
    if !held.is_open() {
        return error(env, atoms::einval());
    }
    let value = |name: Atom| Some((name, held.options.get(env, name)?));
    match names.into_iter().map(value).collect::<Option<Vec<_>>>() {
        Some(values) => (atoms::ok(), values).encode(env),
        None => error(env, atoms::einval()),
    }
}

#[rustler::nif]
fn getstat<'a>(env: Env<'a>, conn: ConnArg, names: Vec<Atom>) -> Term<'a> {
    let held = hold(&conn, env);
    if !held.is_open() {
        return error(env, atoms::einval());
    }
    let value = |name: Atom| Some((name, held.stat(name)?));
    match names.into_iter().map(value).collect::<Option<Vec<_>>>() {
        Some(values) => (atoms::ok(), values).encode(env),
        None => error(env, atoms::einval()),
    }
}

/// `{Peer, Local}`; `einval` once the socket is closed, as for a port.
#[rustler::nif]
fn addresses(env: Env<'_>, conn: ConnArg) -> Term<'_> {
    if !hold(&conn, env).is_open() {
        return error(env, atoms::einval());
    }
    let both = (address(env, conn.peer), address(env, conn.local));
    (atoms::ok(), both).encode(env)
}

#[rustler::nif]
fn conn_id(conn: ConnArg) -> u64 {
    conn.id.get()
}

#[rustler::nif]
fn conn_info<'a>(env: Env<'a>, conn: ConnArg) -> Vec<(Atom, Term<'a>)> {
    hold(&conn, env).info()
}

// ---- HTTP without a connection -----------------------------------------------------------

/// As `erlang:decode_packet/3` for the HTTP types; `Rest` is a part of the input.
#[rustler::nif]
fn decode_packet<'a>(env: Env<'a>, kind: Term, input: Binary<'a>) -> NifResult<Term<'a>> {
    let Ok(Mode::Http { bin, headers_only }) = packet_mode(kind) else {
        return Err(Error::BadArg);
    };
    match HttpReader::new(headers_only).next(&input) {
        Step::More => Ok((atoms::more(), atoms::undefined()).encode(env)),
        Step::Item { item, consumed } => {
            let term = http_terms::item(env, &item, strings(bin, &input));
            let rest = input.make_subbinary(consumed, input.len() - consumed)?;
            Ok((atoms::ok(), term, rest).encode(env))
        }
    }
}

/// A whole head in one call: `{ok, [Item], Rest}`, `more`, or `{error, {http_error, Line}}`.
#[rustler::nif]
fn decode_head<'a>(env: Env<'a>, kind: Term, input: Binary<'a>) -> NifResult<Term<'a>> {
    let Ok(Mode::Http { bin, .. }) = packet_mode(kind) else {
        return Err(Error::BadArg);
    };
    let mut items: Vec<Term> = Vec::with_capacity(16);
    let mut wrong = None;
    let head = parse_head(&input, |item| {
        let term = http_terms::item(env, &item, strings(bin, &input));
        match item {
            Item::Eoh => {}
            Item::Error { .. } => wrong = Some(term),
            _ => items.push(term),
        }
    });
    Ok(match head {
        Head::More => atoms::more().encode(env),
        Head::Error(_) => (atoms::error(), wrong).encode(env),
        Head::Whole { consumed, .. } => {
            let rest = input.make_subbinary(consumed, input.len() - consumed)?;
            (atoms::ok(), items, rest).encode(env)
        }
    })
}

fn strings<'i, 'a>(bin: bool, input: &'i Binary<'a>) -> Strings<'i, 'a> {
    if bin {
        Strings::PartOf(input)
    } else {
        Strings::List
    }
}

// ---- helpers -----------------------------------------------------------------------------

fn error(env: Env<'_>, reason: Atom) -> Term<'_> {
    (atoms::error(), reason).encode(env)
}

fn close_reason(reason: Term) -> NifResult<CloseReason> {
    let text = reason.atom_to_string()?;
    CloseReason::from_str(&text).map_err(|_| Error::BadArg)
}
