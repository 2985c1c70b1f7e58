//! Calls on a connection: what `gen_tcp` and `inet` ask of a socket, but for its options.

use megaphone_proto::packet::Mode;
use rustler::{Atom, Binary, Encoder, Env, LocalPid, NifResult, Term};

use super::{ConnArg, close_reason, error};
use crate::atoms;
use crate::conn::{hold, token};
use crate::deliver::Got;
use crate::options::{Active, active_change};
use crate::outbound::Sent;
use crate::socket::Want;

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
    if !held.is_open() || held.has_front() {
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
    let packet = packet.unwrap_or(held.socket.options.packet);
    sent(env, held.send(&bytes, packet))
}

/// The answer to who has sent.
pub(super) fn sent(env: Env<'_>, sent: Sent) -> Term<'_> {
    match sent {
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

// ---- life --------------------------------------------------------------------------------

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
    hold(&conn, env).close_by_owner();
    atoms::ok()
}

/// The same by somebody else than the owner, who sees what it would see if the client had closed.
#[rustler::nif(name = "close")]
fn close_for(env: Env, conn: ConnArg, reason: Term) -> NifResult<Atom> {
    hold(&conn, env).close_for(close_reason(reason)?);
    Ok(atoms::ok())
}

/// The client is told to go: the next HTTP response on this connection says that it is the last
/// one, and its end is that of a node that stops.
#[rustler::nif]
fn set_draining(env: Env, conn: ConnArg) -> Atom {
    let mut held = hold(&conn, env);
    held.draining = true;
    held.front_draining();
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
    if held.owner().is_some_and(|owner| owner != caller) {
        return error(env, atoms::not_owner());
    }
    let active = held.socket.options.get(env, atoms::active());
    held.socket.options.active = Active::False;
    held.socket.handing = true;
    (atoms::ok(), active).encode(env)
}

#[rustler::nif]
fn set_owner<'a>(env: Env<'a>, conn: ConnArg, owner: LocalPid, active: Term) -> Term<'a> {
    let mut held = hold(&conn, env);
    if !held.is_open() {
        return error(env, atoms::einval());
    }
    if let Some(socket) = held.socket.get_mut() {
        socket.handing = false;
    }
    if !held.set_owner(owner) {
        return error(env, atoms::badarg());
    }
    // What somebody has set since the hand-over began is newer than what was saved.
    if held.socket.options.active == Active::False
        && let Ok(change) = active_change(active)
    {
        let _ = held.set_active(change);
    }
    held.pump();
    atoms::ok().encode(env)
}

#[rustler::nif]
fn watch(env: Env<'_>, conn: ConnArg, pid: LocalPid) -> Term<'_> {
    let mut held = hold(&conn, env);
    if !held.is_open() {
        return error(env, atoms::closed());
    }
    let token = token();
    held.socket.watchers.push((pid, token));
    (atoms::ok(), token).encode(env)
}
