//! A whole head in one go, for those who have it all.

use super::framing::Framing;
use super::line::{error_line, trim_start};
use super::reader::request_item;
use super::{BodyFraming, HttpError, HttpReader, Item, Method, Name, Step, Uri};
use crate::limits::{HTTP_FIELDS_MAX, HTTP_HEAD_MAX};
use std::mem::MaybeUninit;

/// What [`parse_head`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// The head is not whole and may still become one. No item was given. Never with more than
    /// [`HTTP_HEAD_MAX`] bytes and the empty line that may stand before them.
    More,
    /// The head is whole, [`Item::Eoh`] was its last item.
    Whole {
        /// Its length in bytes.
        consumed: usize,
        /// How the body behind it is framed.
        body: BodyFraming,
    },
    /// It is wrong or too long, as the last item, [`Item::Error`], said too.
    Error(HttpError),
}

/// Parses the request head that `bytes` begin with and gives its items to `visit`, the same that an
/// [`HttpReader`] would.
///
/// Allocates nothing; runs `httparse` once when the head is whole and right. A head that is not
/// whole costs a look at all of it on every call: where bytes may dribble in, use the reader.
pub fn parse_head<'b>(bytes: &'b [u8], mut visit: impl FnMut(Item<'b>)) -> Head {
    if let Some(head) = whole(bytes, &mut visit) {
        return head;
    }
    // Not whole, or wrong: whoever sent that can wait for the reader to go over it twice.
    match by_line(bytes, |_| ()) {
        Head::More => Head::More,
        Head::Whole { .. } | Head::Error(_) => by_line(bytes, visit),
    }
}

/// Gives the items of a head that [`parse_head`] found whole once more, but for [`Item::Eoh`].
///
/// It looks for the ends of lines and names only: to see that a head is right is most of the work.
/// Of other bytes it gives what means nothing.
pub fn reread_head<'b>(head: &'b [u8], mut visit: impl FnMut(Item<'b>)) {
    let head = head.strip_prefix(b"\r\n").unwrap_or(head);
    let Some((line, mut rest)) = split_line(head) else {
        return;
    };
    let Some(request) = request_again(line) else {
        return;
    };
    visit(request);
    while let Some((line, behind)) = split_line(rest) {
        // The empty line has none.
        let Some(colon) = memchr::memchr(b':', line) else {
            return;
        };
        visit(Item::Header {
            name: Name::new(&line[..colon]),
            value: trim_start(&line[colon + 1..]),
        });
        rest = behind;
    }
}

/// The first line without its end, and what is behind it.
fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(b'\n', bytes)?;
    Some((bytes[..end].strip_suffix(b"\r")?, &bytes[end + 1..]))
}

fn request_again(line: &[u8]) -> Option<Item<'_>> {
    let method = &line[..memchr::memchr(b' ', line)?];
    let target = line[method.len() + 1..].strip_suffix(b" HTTP/1.1");
    let (target, minor) = match target {
        Some(target) => (target, 1),
        None => (line[method.len() + 1..].strip_suffix(b" HTTP/1.0")?, 0),
    };
    Some(Item::Request {
        method: Method::new(method),
        uri: Uri::new(target),
        version: (1, minor),
    })
}

fn by_line<'b>(bytes: &'b [u8], mut visit: impl FnMut(Item<'b>)) -> Head {
    let mut reader = HttpReader::new(false);
    let mut at = 0;
    while let Step::Item { item, consumed } = reader.next(&bytes[at..]) {
        at += consumed;
        visit(item);
        match item {
            Item::Eoh => {
                return Head::Whole {
                    consumed: at,
                    body: reader.body(),
                };
            }
            Item::Error { why, .. } => return Head::Error(why),
            Item::Request { .. } | Item::Header { .. } => {}
        }
    }
    Head::More
}

/// The quick way. `None`, and nothing visited, when it is not for these bytes: `httparse` sees no
/// whole head, or the request line is wrong.
fn whole<'b>(bytes: &'b [u8], visit: &mut impl FnMut(Item<'b>)) -> Option<Head> {
    let rest = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
    let mut headers = [const { MaybeUninit::uninit() }; HTTP_FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut []);
    let window = &rest[..rest.len().min(HTTP_HEAD_MAX)];
    let Ok(httparse::Status::Complete(length)) =
        parsed.parse_with_uninit_headers(window, &mut headers)
    else {
        return None;
    };
    let mut at = memchr::memchr(b'\n', rest)? + 1;
    let (request, http10) = request_item(&parsed, at).ok()?;
    visit(request);
    let mut framing = Framing::NONE;
    for header in parsed.headers.iter() {
        let name = Name::new(header.name.as_bytes());
        let (value, line) = value_and_line(&rest[at..length], header);
        let seen = match line.ends_with(b"\r\n") {
            true => framing.see(&name, value, http10),
            false => Err(HttpError::BareLf),
        };
        if let Err(why) = seen {
            visit(Item::Error {
                line: error_line(line),
                why,
            });
            return Some(Head::Error(why));
        }
        visit(Item::Header { name, value });
        at += line.len();
    }
    if rest[at..length] != *b"\r\n" {
        visit(Item::Error {
            line: &rest[at..length],
            why: HttpError::BareLf,
        });
        return Some(Head::Error(HttpError::BareLf));
    }
    visit(Item::Eoh);
    Some(Head::Whole {
        consumed: bytes.len() - rest.len() + length,
        body: framing.body(),
    })
}

/// The value of the header that `bytes` begin with, with the space behind it that `httparse` cuts
/// off and `decode_packet` does not; and the whole line.
fn value_and_line<'b>(bytes: &'b [u8], header: &httparse::Header<'b>) -> (&'b [u8], &'b [u8]) {
    let behind_colon = &bytes[header.name.len() + 1..];
    let value = trim_start(behind_colon);
    let before_end = trim_start(&value[header.value.len()..]);
    let line_end = if before_end.starts_with(b"\r") { 2 } else { 1 };
    let value = &value[..value.len() - before_end.len()];
    (value, &bytes[..bytes.len() - before_end.len() + line_end])
}
