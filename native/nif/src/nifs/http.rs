//! HTTP heads without a connection.

use megaphone_proto::http1::{Head, HttpReader, Item, Step, parse_head};
use megaphone_proto::packet::Mode;
use rustler::{Binary, Encoder, Env, Error, NifResult, Term};

use crate::atoms;
use crate::http_terms::{self, Strings};
use crate::options::packet_mode;

/// As `erlang:decode_packet/3` for the HTTP types; `Rest` is a part of the input.
#[rustler::nif]
fn decode_packet<'a>(env: Env<'a>, kind: Term, input: Binary<'a>) -> NifResult<Term<'a>> {
    let Ok(Mode::Http { bin, headers_only }) = packet_mode(kind) else {
        return Err(Error::BadArg);
    };
    match HttpReader::new(headers_only).next(&input) {
        Step::More => Ok((atoms::more(), atoms::undefined()).encode(env)),
        Step::Item { item, consumed } => {
            let term = http_terms::item(env, &item, strings(bin, &input));
            let rest = input.make_subbinary(consumed, input.len() - consumed)?;
            Ok((atoms::ok(), term, rest).encode(env))
        }
    }
}

/// A whole head in one call: `{ok, [Item], Rest}`, `more`, or `{error, {http_error, Line}}`.
#[rustler::nif]
fn decode_head<'a>(env: Env<'a>, kind: Term, input: Binary<'a>) -> NifResult<Term<'a>> {
    let Ok(Mode::Http { bin, .. }) = packet_mode(kind) else {
        return Err(Error::BadArg);
    };
    let mut items: Vec<Term> = Vec::with_capacity(16);
    let mut wrong = None;
    let head = parse_head(&input, |item| {
        let term = http_terms::item(env, &item, strings(bin, &input));
        match item {
            Item::Eoh => {}
            Item::Error { .. } => wrong = Some(term),
            _ => items.push(term),
        }
    });
    Ok(match head {
        Head::More => atoms::more().encode(env),
        Head::Error(_) => (atoms::error(), wrong).encode(env),
        Head::Whole { consumed, .. } => {
            let rest = input.make_subbinary(consumed, input.len() - consumed)?;
            (atoms::ok(), items, rest).encode(env)
        }
    })
}

fn strings<'i, 'a>(bin: bool, input: &'i Binary<'a>) -> Strings<'i, 'a> {
    if bin {
        Strings::PartOf(input)
    } else {
        Strings::List
    }
}
