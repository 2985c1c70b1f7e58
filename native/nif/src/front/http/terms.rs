//! A request as the terms that `#request{}` is made of.

use std::net::SocketAddr;

use megaphone_proto::http1::{self, Item, Method, Name, Uri, known};
use megaphone_proto::http1::{has_word, reread_head};
use rustler::types::tuple::make_tuple;
use rustler::{Encoder, Env, NewBinary, Term};

use crate::atoms;
use crate::http_terms::{self, Strings};
use crate::info::address;

/// Bytes of a form over which its pairs are not looked for: they would be copied one by one.
const FORM_MAX: usize = 64 << 10;
/// Bytes of a `Host` that is looked at: names have 255, addresses fewer.
const HOST_MAX: usize = 1024;

/// A request that is whole, or whose body is read as it comes.
pub struct Request<'r> {
    /// From the request line to the empty line.
    pub head: &'r [u8],
    /// All of it, or nothing.
    pub body: &'r [u8],
    /// Its length.
    pub length: u64,
    /// The client, as the edge saw it.
    pub peer: SocketAddr,
    /// The answer is the connection's last one.
    pub draining: bool,
}

/// What the head's headers add up to.
struct Seen<'r, 'e> {
    method: Method<'r>,
    uri: Uri<'r>,
    version: (u8, u8),
    headers: Term<'e>,
    keep_alive: bool,
    upgrade: bool,
    host: Option<&'r [u8]>,
    language: &'r [u8],
    content_type: &'r [u8],
}

/// The tuple of `megaphone_nif:http_request/1`.
pub fn make<'e>(env: Env<'e>, request: &Request) -> Term<'e> {
    let mut seen = Seen {
        method: Method::new(b""),
        uri: Uri::Star,
        version: (1, 1),
        headers: Term::list_new_empty(env),
        keep_alive: true,
        upgrade: false,
        host: None,
        language: b"en",
        content_type: b"",
    };
    // It was found good when it came.
    reread_head(request.head, |item| seen.see(env, &item));
    let raw = match seen.uri {
        Uri::AbsPath(path) | Uri::Absolute { path, .. } => Some(path),
        _ => None,
    };
    let (path, query) = seen.path_and_query(env, raw, request);
    let has_body = seen.method == Method::new(b"POST");
    let data = if has_body { request.body } else { b"" };
    make_tuple(
        env,
        &[
            http_terms::method_term(env, seen.method, Strings::Binary),
            seen.version.encode(env),
            match raw {
                Some(path) => binary(env, path),
                None => atoms::other().encode(env),
            },
            path,
            query,
            seen.headers,
            seen.host(env),
            binary(env, seen.language),
            request.length.encode(env),
            binary(env, data),
            (seen.keep_alive && !request.draining).encode(env),
            seen.upgrade.encode(env),
            address(env, request.peer),
        ],
    )
}

impl<'r, 'e> Seen<'r, 'e> {
    fn see(&mut self, env: Env<'e>, item: &Item<'r>) {
        match item {
            Item::Request {
                method,
                uri,
                version,
            } => {
                (self.method, self.uri, self.version) = (*method, *uri, *version);
                self.keep_alive = *version == (1, 1);
            }
            Item::Header { name, value } => {
                self.look(name, value);
                let field = field(env, name);
                let header = (field, binary(env, value)).encode(env);
                self.headers = self.headers.list_prepend(header);
            }
            Item::Eoh | Item::Error { .. } => {}
        }
    }

    fn look(&mut self, name: &Name, value: &'r [u8]) {
        match name.known() {
            Some(known::CONNECTION) if value.eq_ignore_ascii_case(b"keep-alive") => {
                self.keep_alive = true;
            }
            Some(known::CONNECTION) if value.eq_ignore_ascii_case(b"close") => {
                self.keep_alive = false;
            }
            Some(known::CONNECTION) if has_word(value, b"close") => self.keep_alive = false,
            Some(known::UPGRADE) => self.upgrade = true,
            Some(known::HOST) => self.host = Some(value),
            Some(known::ACCEPT_LANGUAGE) => self.language = http1::first_language(value),
            Some(known::CONTENT_TYPE) => self.content_type = value,
            _ => {}
        }
    }

    /// As ejabberd_http has them: without a body a `POST` or `PUT` is a bad request, and so is
    /// every other method.
    fn path_and_query(
        &self,
        env: Env<'e>,
        raw: Option<&[u8]>,
        request: &Request,
    ) -> (Term<'e>, Term<'e>) {
        let bad = (atoms::bad().encode(env), Term::list_new_empty(env));
        let Some((path, query)) = raw.map(http1::split_target) else {
            return bad;
        };
        let query = match self.method.raw() {
            b"GET" | b"HEAD" | b"DELETE" | b"OPTIONS" => Some(query),
            b"POST" if request.length > 0 => self.form(request.body),
            b"PUT" if request.length > 0 => None,
            _ => return bad,
        };
        let (mut scratch, mut list) = (Vec::new(), Term::list_new_empty(env));
        let whole = http1::segments(path, &mut scratch, |segment| {
            list = list.list_prepend(binary(env, segment));
        });
        match whole {
            Ok(()) => (
                in_order(list),
                query.map_or(Term::list_new_empty(env), |query| pairs(env, query)),
            ),
            Err(_) => bad,
        }
    }

    /// A body that may be a form. What says that it is XML is none: nobody looks for pairs in a
    /// stanza.
    fn form<'b>(&self, body: &'b [u8]) -> Option<&'b [u8]> {
        let kind = self.content_type.split(|byte| *byte == b';').next()?;
        let kind = kind.trim_ascii().to_ascii_lowercase();
        let none = kind.ends_with(b"/xml") || body.len() > FORM_MAX;
        (!none).then_some(body)
    }

    /// The last `Host`, in small letters; not yet prepared as a domain name.
    fn host(&self, env: Env<'e>) -> Term<'e> {
        let Some(value) = self.host else {
            return atoms::undefined().encode(env);
        };
        match http1::host(value) {
            Some((host, port)) if host.len() <= HOST_MAX => {
                let mut name = NewBinary::new(env, host.len());
                for (to, byte) in name.iter_mut().zip(host) {
                    *to = byte.to_ascii_lowercase();
                }
                let port = match port {
                    Some(port) => port.encode(env),
                    None => atoms::undefined().encode(env),
                };
                (Term::from(name), port).encode(env)
            }
            _ => atoms::error().encode(env),
        }
    }
}

fn pairs<'e>(env: Env<'e>, query: &[u8]) -> Term<'e> {
    let (mut scratch, mut list) = (Vec::new(), Term::list_new_empty(env));
    let whole = http1::pairs(query, &mut scratch, |key, value| {
        let key = match key {
            Some(key) => binary(env, key),
            None => atoms::nokey().encode(env),
        };
        list = list.list_prepend((key, binary(env, value)).encode(env));
    });
    match whole {
        Ok(()) => in_order(list),
        Err(_) => Term::list_new_empty(env),
    }
}

fn field<'e>(env: Env<'e>, name: &Name) -> Term<'e> {
    match name.known().and_then(http_terms::header_atom) {
        Some(atom) => atom.encode(env),
        None => {
            let mut field = NewBinary::new(env, name.raw().len());
            http1::capitalize(name.raw(), &mut field);
            field.into()
        }
    }
}

fn in_order(list: Term<'_>) -> Term<'_> {
    list.list_reverse().unwrap_or(list)
}

fn binary<'e>(env: Env<'e>, bytes: &[u8]) -> Term<'e> {
    NewBinary::from_slice(env, bytes).into()
}
