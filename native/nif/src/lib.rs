//! megaphone inside the BEAM: links taken apart, connections buffered, HTTP parsed.
//!
//! `megaphone_nif.erl` names the calls; this crate translates between terms and
//! [`megaphone_proto`] and does nothing else. The way in: [`nifs`] → [`feed`] → [`deliver`] → a
//! process. The way out: [`nifs`] → [`outbound`] → [`outbox`] → the sender process.
#![warn(unsafe_code)]

mod atoms;
mod conn;
mod deliver;
mod ends;
mod feed;
mod foreign;
mod front;
mod gather;
mod http_terms;
mod inbox;
mod info;
mod limits;
mod link;
mod memory;
mod nifs;
mod options;
mod outbound;
mod outbox;
mod owners;
mod pending;
mod prefetch;
mod requests;
mod socket;
mod sync;
mod watch;

fn load(env: rustler::Env, _info: rustler::Term) -> bool {
    http_terms::load(env);
    true
}

rustler::init!("megaphone_nif", load = load);
