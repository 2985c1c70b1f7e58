//! Calls on a connection: options, statistics, addresses.

use megaphone_proto::packet::Mode;
use rustler::{Atom, Encoder, Env, Term};

use super::{ConnArg, error};
use crate::atoms;
use crate::conn::{Held, hold};
use crate::info::address;
use crate::options::{ActiveChange, Change, active_change};

#[rustler::nif]
fn set_active<'a>(env: Env<'a>, conn: ConnArg, active: Term<'a>) -> Term<'a> {
    match active_change(active) {
        Ok(change) => apply(env, hold(&conn, env), Some(change)),
        Err(_) => error(env, atoms::einval()),
    }
}

#[rustler::nif]
fn setopts<'a>(env: Env<'a>, conn: ConnArg, list: Term<'a>) -> Term<'a> {
    let mut held = hold(&conn, env);
    let change = match Change::parse(&held.socket.options, list) {
        Ok(change) if held.is_open() => change,
        _ => return error(env, atoms::einval()),
    };
    let options = &change.options;
    held.set_send_timeout(options.send_timeout, options.send_timeout_close);
    held.socket.options = change.options;
    if let Mode::Http { headers_only, .. } = held.socket.options.packet {
        held.socket.http.switch(headers_only);
    }
    apply(env, held, change.active)
}

/// Lets what was set take effect.
fn apply<'a>(env: Env<'a>, mut held: Held, active: Option<ActiveChange>) -> Term<'a> {
    if !held.is_open() || active.is_some_and(|change| held.set_active(change).is_none()) {
        return error(env, atoms::einval());
    }
    held.pump();
    atoms::ok().encode(env)
}

#[rustler::nif]
fn getopts<'a>(env: Env<'a>, conn: ConnArg, names: Vec<Atom>) -> Term<'a> {
    each(&conn, env, names, |held, name| {
        held.socket.options.get(env, name)
    })
}

#[rustler::nif]
fn getstat<'a>(env: Env<'a>, conn: ConnArg, names: Vec<Atom>) -> Term<'a> {
    each(&conn, env, names, |held, name| held.stat(name))
}

/// `{ok, [{Name, Value}]}`, or `einval` where one name is unknown or the socket closed.
fn each<'a, T: Encoder>(
    conn: &ConnArg,
    env: Env<'a>,
    names: Vec<Atom>,
    value: impl Fn(&Held<'_, 'a>, Atom) -> Option<T>,
) -> Term<'a> {
    let held = hold(conn, env);
    let pair = |name: Atom| Some((name, value(&held, name)?));
    match names.into_iter().map(pair).collect::<Option<Vec<_>>>() {
        Some(values) if held.is_open() => (atoms::ok(), values).encode(env),
        _ => error(env, atoms::einval()),
    }
}

/// `{Peer, Local}`; `einval` once the socket is closed, as for a port.
#[rustler::nif]
fn addresses(env: Env<'_>, conn: ConnArg) -> Term<'_> {
    if !hold(&conn, env).is_open() {
        return error(env, atoms::einval());
    }
    let both = (
        address(env, conn.addresses.peer()),
        address(env, conn.addresses.local()),
    );
    (atoms::ok(), both).encode(env)
}

#[rustler::nif]
fn conn_id(conn: ConnArg) -> u64 {
    conn.id.get()
}

#[rustler::nif]
fn conn_info<'a>(env: Env<'a>, conn: ConnArg) -> Vec<(Atom, Term<'a>)> {
    let held = hold(&conn, env);
    let mut info = held.info();
    info.extend(held.front_fact().map(|fact| (atoms::front(), fact)));
    info
}
