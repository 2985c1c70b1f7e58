//! Calls on a connection: options, statistics, addresses.

use megaphone_proto::packet::Mode;
use rustler::{Atom, Encoder, Env, Term};

use super::{ConnArg, error};
use crate::atoms;
use crate::conn::hold;
use crate::info::address;
use crate::options::{ActiveChange, Change, active_change};

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
