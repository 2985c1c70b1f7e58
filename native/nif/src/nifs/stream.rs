//! Calls on a connection that speaks XMPP over TCP.

use rustler::{Encoder, Env, LocalPid, Term};

use super::{ConnArg, error};
use crate::atoms;
use crate::conn::hold;
use crate::front::Front;
use crate::front::stream::Stream;

#[rustler::nif]
fn stream_start<'a>(env: Env<'a>, conn: ConnArg, owner: LocalPid, max_stanza: u32) -> Term<'a> {
    let mut held = hold(&conn, env);
    if !held.is_open() || !held.set_owner(owner) {
        return error(env, atoms::closed());
    }
    held.front = Front::Stream(Stream::new(max_stanza));
    atoms::ok().encode(env)
}

#[rustler::nif]
fn stream_next<'a>(env: Env<'a>, conn: ConnArg) -> Term<'a> {
    let mut held = hold(&conn, env);
    if !held.is_open() {
        return atoms::closed().encode(env);
    }
    match held.stream_next() {
        Some(piece) => (atoms::ok(), piece).encode(env),
        None => atoms::wait().encode(env),
    }
}

#[rustler::nif]
fn stream_restart(env: Env<'_>, conn: ConnArg) -> rustler::Atom {
    hold(&conn, env).stream_restart();
    atoms::ok()
}
