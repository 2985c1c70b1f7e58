//! Calls on a connection that speaks WebSocket.

use rustler::{Atom, Binary, Encoder, Env, Error, LocalPid, NifResult, Term};

use super::sockets::sent;
use super::{ConnArg, error, took_time};
use crate::atoms;
use crate::conn::hold;
use crate::front::ws::Terms;

#[rustler::nif]
fn ws_start<'a>(
    env: Env<'a>,
    conn: ConnArg,
    owner: LocalPid,
    options: Term<'a>,
) -> NifResult<Term<'a>> {
    let terms = Terms {
        max_message: number(options, atoms::max_message())?
            .unwrap_or(u64::MAX)
            .try_into()
            .unwrap_or(u32::MAX),
        ping_interval: seconds(options, atoms::ping_interval())?,
        timeout: seconds(options, atoms::timeout())?,
        in_kind: optional(options, atoms::reply_in_kind())?.unwrap_or(false),
    };
    let send_timeout = optional(options, atoms::send_timeout())?;
    let mut held = hold(&conn, env);
    if !held.is_open() || !held.set_owner(owner) {
        return Ok(error(env, atoms::closed()));
    }
    if send_timeout.is_some() {
        held.set_send_timeout(send_timeout, true);
    }
    held.ws_start(terms);
    Ok(atoms::ok().encode(env))
}

/// An option that need not be there.
fn optional<'a, T: rustler::Decoder<'a>>(options: Term<'a>, name: Atom) -> NifResult<Option<T>> {
    match options.map_get(name) {
        Ok(value) => value.decode().map(Some),
        Err(_) => Ok(None),
    }
}

fn number(options: Term, name: Atom) -> NifResult<Option<u64>> {
    optional(options, name)
}

/// Milliseconds as whole seconds, no fewer; without any it never comes.
fn seconds(options: Term, name: Atom) -> NifResult<u16> {
    let milliseconds = number(options, name)?.unwrap_or(0);
    Ok(milliseconds.div_ceil(1000).try_into().unwrap_or(u16::MAX))
}

#[rustler::nif]
fn ws_next(env: Env<'_>, conn: ConnArg) -> Term<'_> {
    let mut held = hold(&conn, env);
    match held.ws_next() {
        Some(message) => {
            took_time(env, message.decode::<Binary>().map_or(0, |m| m.len()));
            (atoms::ok(), message).encode(env)
        }
        None if held.is_open() => atoms::wait().encode(env),
        None => atoms::closed().encode(env),
    }
}

#[rustler::nif]
fn ws_send<'a>(env: Env<'a>, conn: ConnArg, data: Term<'a>) -> Term<'a> {
    match Binary::from_iolist(data) {
        Ok(message) => {
            took_time(env, message.len());
            sent(env, hold(&conn, env).ws_send(&message))
        }
        Err(_) => error(env, atoms::einval()),
    }
}

#[rustler::nif]
fn ws_close<'a>(env: Env<'a>, conn: ConnArg, code: u16, reason: Binary<'a>) -> NifResult<Atom> {
    if !(1000..5000).contains(&code) {
        return Err(Error::BadArg);
    }
    let reason = String::from_utf8_lossy(&reason);
    hold(&conn, env).ws_close(code, &reason);
    Ok(atoms::ok())
}
