//! HTTP items as the terms that `erlang:decode_packet/3` makes of them.

use std::sync::OnceLock;

use megaphone_proto::http1::{FORMATTED_MAX, Item, KNOWN_HEADERS, KNOWN_METHODS, Method, Name};
use megaphone_proto::http1::{Scheme, Uri};
use rustler::{Atom, Binary, Encoder, Env, NewBinary, Term};

use crate::atoms;

static HEADERS: OnceLock<Vec<Atom>> = OnceLock::new();
static METHODS: OnceLock<Vec<Atom>> = OnceLock::new();

/// Makes the atoms of known headers and methods; once, when the library is loaded.
pub fn load(env: Env) {
    let atoms = |names: &[&str]| {
        let atom = |name: &&str| Atom::from_str(env, name).ok();
        names.iter().filter_map(atom).collect()
    };
    HEADERS.get_or_init(|| atoms(&KNOWN_HEADERS));
    METHODS.get_or_init(|| atoms(&KNOWN_METHODS));
}

/// How strings are given.
#[derive(Clone, Copy)]
pub enum Strings<'i, 'e> {
    /// `http`: lists of bytes.
    List,
    /// `http_bin`: binaries of their own, which keep nothing else alive.
    Binary,
    /// `http_bin`: parts of the binary that is decoded, as `decode_packet` makes them.
    PartOf(&'i Binary<'e>),
}

impl<'e> Strings<'_, 'e> {
    /// Bytes as the string they are to Erlang.
    pub fn term(self, env: Env<'e>, bytes: &[u8]) -> Term<'e> {
        match self {
            Strings::List => bytes.encode(env),
            Strings::Binary => NewBinary::from_slice(env, bytes).into(),
            Strings::PartOf(whole) => {
                let at = (bytes.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
                // What is not in there, a name that had to be formatted, is no part of it.
                match whole.make_subbinary(at, bytes.len()) {
                    Ok(part) => part.into(),
                    Err(_) => NewBinary::from_slice(env, bytes).into(),
                }
            }
        }
    }
}

/// The term for one item.
pub fn item<'e>(env: Env<'e>, item: &Item, strings: Strings<'_, 'e>) -> Term<'e> {
    match item {
        Item::Request {
            method,
            uri,
            version,
        } => {
            let (method, uri) = (
                method_term(env, *method, strings),
                uri_term(env, uri, strings),
            );
            (atoms::http_request(), method, uri, *version).encode(env)
        }
        Item::Header { name, value } => header_term(env, name, value, strings),
        Item::Eoh => atoms::http_eoh().encode(env),
        Item::Error { line, .. } => (atoms::http_error(), strings.term(env, line)).encode(env),
    }
}

/// `'GET'` and such, or a string.
pub fn method_term<'e>(env: Env<'e>, method: Method, strings: Strings<'_, 'e>) -> Term<'e> {
    match method.known().zip(METHODS.get()) {
        Some((at, atoms)) => atoms[at].encode(env),
        None => strings.term(env, method.raw()),
    }
}

/// The atom of a known header (its place in [`KNOWN_HEADERS`]).
pub fn header_atom(place: usize) -> Option<Atom> {
    HEADERS.get()?.get(place).copied()
}

fn header_term<'e>(env: Env<'e>, name: &Name, value: &[u8], strings: Strings<'_, 'e>) -> Term<'e> {
    let mut scratch = [0; FORMATTED_MAX];
    let field = match name.known().zip(HEADERS.get()) {
        Some((at, atoms)) => atoms[at].encode(env),
        None => strings.term(env, name.formatted(&mut scratch)),
    };
    let (raw, value) = (strings.term(env, name.raw()), strings.term(env, value));
    (atoms::http_header(), name.bit(), field, raw, value).encode(env)
}

fn uri_term<'e>(env: Env<'e>, uri: &Uri, strings: Strings<'_, 'e>) -> Term<'e> {
    let text = |bytes| strings.term(env, bytes);
    match *uri {
        Uri::Star => atoms::star().encode(env),
        Uri::AbsPath(path) => (atoms::abs_path(), text(path)).encode(env),
        Uri::Absolute {
            scheme,
            host,
            port,
            path,
        } => {
            let scheme = match scheme {
                Scheme::Http => atoms::http(),
                Scheme::Https => atoms::https(),
            };
            let port = match port {
                Some(port) => port.encode(env),
                None => atoms::undefined().encode(env),
            };
            (atoms::absolute_uri(), scheme, text(host), port, text(path)).encode(env)
        }
        Uri::Scheme { scheme, rest } => (atoms::scheme(), text(scheme), text(rest)).encode(env),
        Uri::Plain(target) => text(target),
    }
}
