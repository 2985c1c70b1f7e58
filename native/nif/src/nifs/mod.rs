//! The calls of `megaphone_nif.erl`. Each is bounded: what could be long is cut into pieces that
//! the caller asks for again, or runs on a dirty scheduler.

mod facts;
mod front;
mod handshake;
mod http;
mod links;
mod sockets;
mod stream;
mod ws;

use std::str::FromStr;

use megaphone_proto::control::CloseReason;
use rustler::{Atom, Encoder, Env, Error, NifResult, ResourceArc, Term};

use crate::atoms;
use crate::conn::Conn;

/// Bytes that are copied in a hundredth of a scheduler's millisecond.
const BYTES_A_PERCENT: usize = 40_000;

type ConnArg = ResourceArc<Conn>;

fn error(env: Env<'_>, reason: Atom) -> Term<'_> {
    (atoms::error(), reason).encode(env)
}

fn close_reason(reason: Term) -> NifResult<CloseReason> {
    let text = reason.atom_to_string()?;
    CloseReason::from_str(&text).map_err(|_| Error::BadArg)
}

/// Has the caller make way for others sooner, the more it was given to do.
fn took_time(env: Env, bytes: usize) {
    let percent = bytes / BYTES_A_PERCENT;
    if percent > 0 {
        rustler::schedule::consume_timeslice(env, percent.min(100) as i32);
    }
}
