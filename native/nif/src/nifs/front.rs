//! Calls on a connection that speaks HTTP.

use std::sync::Arc;

use rustler::{Atom, Binary, Encoder, Env, LocalPid, NifMap, NifResult, ResourceArc, Term};

use super::{ConnArg, error, took_time};
use crate::atoms;
use crate::conn::hold;
use crate::front::http::{Given, Limits, Replied, Service};

#[derive(NifMap)]
struct HttpLimits {
    key: i64,
    head_timeout: u32,
    body_timeout: u32,
    idle_timeout: u32,
    send_timeout: u32,
    max_body: u64,
}

/// What connections of one service share; times come in milliseconds.
#[rustler::nif]
fn http_service(limits: HttpLimits) -> ResourceArc<Service> {
    ResourceArc::new(Service(Arc::new(Limits {
        key: limits.key,
        head_timeout: seconds(limits.head_timeout),
        body_timeout: seconds(limits.body_timeout),
        idle_timeout: seconds(limits.idle_timeout),
        send_timeout: seconds(limits.send_timeout),
        max_body: limits.max_body,
    })))
}

/// Seconds, and no fewer than asked for.
fn seconds(milliseconds: u32) -> u32 {
    milliseconds.div_ceil(1000)
}

#[rustler::nif]
fn http_start<'a>(env: Env<'a>, conn: ConnArg, service: ResourceArc<Service>) -> Term<'a> {
    let mut held = hold(&conn, env);
    if !held.is_open() || held.has_front() {
        return error(env, atoms::closed());
    }
    let request = held.http_start(Arc::clone(&service.0));
    match (held.is_open(), request) {
        (_, true) => atoms::request().encode(env),
        (true, false) => atoms::ok().encode(env),
        (false, false) => error(env, atoms::closed()),
    }
}

#[rustler::nif]
fn http_request(env: Env<'_>, conn: ConnArg) -> Term<'_> {
    match hold(&conn, env).http_take(false) {
        Given::Request(request, bytes) => {
            took_time(env, bytes);
            (atoms::ok(), request).encode(env)
        }
        Given::Large => atoms::large().encode(env),
        Given::None => error(env, atoms::closed()),
    }
}

/// The same for a request whose copy would take a scheduler too long.
#[rustler::nif(schedule = "DirtyCpu")]
fn http_request_large(env: Env<'_>, conn: ConnArg) -> Term<'_> {
    match hold(&conn, env).http_take(true) {
        Given::Request(request, _) => (atoms::ok(), request).encode(env),
        Given::Large | Given::None => error(env, atoms::closed()),
    }
}

#[rustler::nif]
fn http_reply<'a>(env: Env<'a>, conn: ConnArg, data: Term<'a>, then: Atom) -> NifResult<Atom> {
    let bytes = Binary::from_iolist(data)?;
    took_time(env, bytes.len());
    reply(env, &conn, &bytes, then)
}

/// The same for an answer whose copy would take a scheduler too long.
#[rustler::nif(schedule = "DirtyCpu")]
fn http_reply_large<'a>(
    env: Env<'a>,
    conn: ConnArg,
    data: Term<'a>,
    then: Atom,
) -> NifResult<Atom> {
    reply(env, &conn, &Binary::from_iolist(data)?, then)
}

fn reply(env: Env, conn: &ConnArg, data: &Binary, then: Atom) -> NifResult<Atom> {
    let close = then != atoms::keep();
    let replied = hold(conn, env).http_reply(data, close);
    Ok(match replied {
        Replied::Idle => atoms::idle(),
        Replied::Next => atoms::next(),
        Replied::Closed => atoms::closed(),
    })
}

#[rustler::nif]
fn http_hold<'a>(env: Env<'a>, conn: ConnArg, watcher: LocalPid, token: u64) -> Term<'a> {
    ok_or_closed(env, hold(&conn, env).http_hold(watcher, token))
}

#[rustler::nif]
fn http_detach(env: Env<'_>, conn: ConnArg) -> Term<'_> {
    ok_or_closed(env, hold(&conn, env).http_detach())
}

fn ok_or_closed(env: Env<'_>, ok: bool) -> Term<'_> {
    match ok {
        true => atoms::ok().encode(env),
        false => error(env, atoms::closed()),
    }
}
