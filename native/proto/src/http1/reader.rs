//! A head item by item, for sockets in `{packet, http}` and its like.

use super::framing::Framing;
use super::line::{Line, check_field, error_line, first_line, trim_start};
use super::{BodyFraming, HttpError, Item, Method, Name, Uri};
use crate::limits::{HTTP_FIELDS_MAX, HTTP_HEAD_MAX, HTTP_REQUEST_LINE_MAX, HTTP_TARGET_MAX};
use std::mem::MaybeUninit;

/// What [`HttpReader::next`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'b> {
    /// Nothing is whole. Call again with the same bytes and more behind them; never happens with
    /// more than [`HTTP_HEAD_MAX`] bytes.
    More,
    /// One item. Drop `consumed` bytes before the next call.
    Item {
        /// The item.
        item: Item<'b>,
        /// How many bytes it took, from the beginning of what was given.
        consumed: usize,
    },
}

/// Reads heads, one after the other, one item a call. 16 bytes, and no memory besides: it remembers
/// no head, only how far `httparse` has looked at it.
///
/// ```text
///            request line           empty line: Eoh
///   Start ─────────────────► Fields ────────────────► Start     (headers_only: Fields again)
///     └──────── wrong ────────┴─────► Failed
/// ```
#[derive(Clone, Debug)]
pub struct HttpReader {
    /// What the headers seen say about the body.
    framing: Framing,
    /// So many of the bytes to come were found good by `httparse` as part of a whole head.
    checked: u16,
    /// So many bytes of this head were consumed.
    used: u16,
    /// So many headers of it were.
    fields: u8,
    /// Its version is HTTP/1.0.
    http10: bool,
    headers_only: bool,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// A request line is next.
    Start,
    /// A header or the head's end is next.
    Fields,
    /// Something was wrong; nothing behind it can be read.
    Failed(HttpError),
}

/// What the reader remembers of a head's bytes is counted in a `u16`.
const _: () = assert!(HTTP_HEAD_MAX <= u16::MAX as usize && HTTP_FIELDS_MAX <= u8::MAX as usize);

impl HttpReader {
    /// A reader that starts with a request line (`http`), or with `headers_only` right at the
    /// headers (`httph`).
    pub const fn new(headers_only: bool) -> HttpReader {
        HttpReader {
            framing: Framing::NONE,
            checked: 0,
            used: 0,
            fields: 0,
            http10: false,
            headers_only,
            stage: if headers_only {
                Stage::Fields
            } else {
                Stage::Start
            },
        }
    }

    /// The next item of `bytes`, which begin where the last item's `consumed` ended.
    ///
    /// A request line is given as soon as its end is there, a header when one byte behind it is,
    /// because that byte tells whether it goes on. After an error, further bytes are errors with an
    /// empty line, all consumed at once.
    pub fn next<'b>(&mut self, bytes: &'b [u8]) -> Step<'b> {
        match self.stage {
            Stage::Start => self.request_line(bytes),
            Stage::Fields => self.field(bytes),
            Stage::Failed(_) if bytes.is_empty() => Step::More,
            Stage::Failed(why) => Step::Item {
                item: Item::Error { line: b"", why },
                consumed: bytes.len(),
            },
        }
    }

    /// How the body is framed of the head whose [`Item::Eoh`] was the last item.
    pub fn body(&self) -> BodyFraming {
        self.framing.body()
    }

    /// What was wrong, once something was.
    pub fn failed(&self) -> Option<HttpError> {
        match self.stage {
            Stage::Failed(why) => Some(why),
            Stage::Start | Stage::Fields => None,
        }
    }

    /// Whether the stream would end inside a head: something of it was read, its end was not.
    pub fn mid_head(&self) -> bool {
        self.used > 0
    }

    /// To be told when `{packet, _}` changed, be it to another mode and back: what was read of a
    /// head stays known, as with `gen_tcp`; only whether a head may begin with a request line is
    /// new.
    pub fn switch(&mut self, headers_only: bool) {
        self.headers_only = headers_only;
        self.forget_lookahead();
        if self.failed().is_none() {
            self.stage = match headers_only || self.mid_head() {
                true => Stage::Fields,
                false => Stage::Start,
            };
        }
    }

    /// To be told when the bytes to come are not those the last call saw behind its item: something
    /// was put before them (`unrecv`) or read from them past this reader.
    pub fn forget_lookahead(&mut self) {
        self.checked = 0;
    }

    fn request_line<'b>(&mut self, bytes: &'b [u8]) -> Step<'b> {
        // One empty line before a request is forgiven: RFC 9112, section 2.2.
        let rest = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
        let line = match first_line(rest, HTTP_REQUEST_LINE_MAX) {
            Line::Whole(line) => line,
            Line::BareLf(line) => return self.fail(HttpError::BareLf, line, bytes),
            Line::TooLong => return self.fail(HttpError::TargetTooLong, rest, bytes),
            Line::More => return Step::More,
        };
        match parse_request(rest, line) {
            Ok(Request { item, http10, head }) => {
                *self = HttpReader {
                    http10,
                    stage: Stage::Fields,
                    ..HttpReader::new(false)
                };
                self.used = line.len() as u16;
                self.checked = (head - line.len()) as u16;
                Step::Item {
                    item,
                    consumed: bytes.len() - rest.len() + line.len(),
                }
            }
            Err(why) => self.fail(why, line, bytes),
        }
    }

    fn field<'b>(&mut self, bytes: &'b [u8]) -> Step<'b> {
        if self.used == 0 {
            *self = HttpReader::new(self.headers_only);
        }
        let line = match first_line(bytes, HTTP_HEAD_MAX - usize::from(self.used)) {
            Line::Whole(b"\r\n") => return self.end(),
            Line::Whole(line) => line,
            Line::BareLf(line) => return self.fail(HttpError::BareLf, line, bytes),
            Line::TooLong => return self.fail(HttpError::HeadTooLong, bytes, bytes),
            Line::More => return Step::More,
        };
        match bytes.get(line.len()) {
            None => return Step::More,
            Some(b' ' | b'\t') => return self.fail(HttpError::Folded, line, bytes),
            Some(_) => {}
        }
        match self.take_field(line) {
            Ok(item) => Step::Item {
                item,
                consumed: line.len(),
            },
            Err(why) => self.fail(why, line, bytes),
        }
    }

    fn take_field<'b>(&mut self, line: &'b [u8]) -> Result<Item<'b>, HttpError> {
        if usize::from(self.checked) < line.len() {
            check_field(line)?;
        }
        if usize::from(self.fields) == HTTP_FIELDS_MAX {
            return Err(HttpError::TooManyFields);
        }
        let colon = memchr::memchr(b':', line).ok_or(HttpError::HeaderName)?;
        let name = Name::new(&line[..colon]);
        let value = trim_start(&line[colon + 1..line.len() - 2]);
        self.framing.see(&name, value, self.http10)?;
        self.fields += 1;
        self.used += line.len() as u16;
        self.checked = self.checked.saturating_sub(line.len() as u16);
        Ok(Item::Header { name, value })
    }

    fn end<'b>(&mut self) -> Step<'b> {
        self.used = 0;
        self.checked = 0;
        if !self.headers_only {
            self.stage = Stage::Start;
        }
        Step::Item {
            item: Item::Eoh,
            consumed: 2,
        }
    }

    /// Refuses `line`, shortened to a length that does not depend on how much of an endless line
    /// came at once.
    fn fail<'b>(&mut self, why: HttpError, line: &'b [u8], bytes: &'b [u8]) -> Step<'b> {
        let within = HTTP_HEAD_MAX + 1 - usize::from(self.used);
        let line = error_line(&line[..line.len().min(within)]);
        self.stage = Stage::Failed(why);
        Step::Item {
            item: Item::Error { line, why },
            consumed: bytes.len(),
        }
    }
}

/// A good request line.
pub(super) struct Request<'b> {
    pub(super) item: Item<'b>,
    pub(super) http10: bool,
    /// So many bytes are a whole head, or just the request line when no more is known.
    head: usize,
}

/// Parses `line`, the first of `bytes`, and tells how much behind it is good too.
fn parse_request<'b>(bytes: &'b [u8], line: &'b [u8]) -> Result<Request<'b>, HttpError> {
    if line[0] == b'\r' {
        // An empty line too many, which httparse would skip.
        return Err(HttpError::Method);
    }
    let mut headers = [const { MaybeUninit::uninit() }; HTTP_FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut []);
    let window = &bytes[..bytes.len().min(HTTP_HEAD_MAX)];
    let head = match parsed.parse_with_uninit_headers(window, &mut headers) {
        Ok(httparse::Status::Complete(head)) => head,
        // What is wrong or missing behind the request line is found when it is that line's turn.
        Ok(httparse::Status::Partial) | Err(_) => line.len(),
    };
    let (item, http10) = request_item(&parsed, line.len())?;
    Ok(Request { item, http10, head })
}

/// The item for the request line that `httparse` saw, which is `length` bytes long with its end.
pub(super) fn request_item<'b>(
    parsed: &httparse::Request<'_, 'b>,
    length: usize,
) -> Result<(Item<'b>, bool), HttpError> {
    let method = parsed.method.ok_or(HttpError::Method)?.as_bytes();
    let target = parsed.path.ok_or(HttpError::Target)?.as_bytes();
    let minor = parsed.version.ok_or(HttpError::Version)?;
    // Two spaces, `HTTP/1.x` and CRLF: with anything else on the line the sum is wrong.
    if method.len() + target.len() + 12 != length {
        return Err(HttpError::Version);
    }
    if target.len() > HTTP_TARGET_MAX {
        return Err(HttpError::TargetTooLong);
    }
    let item = Item::Request {
        method: Method::new(method),
        uri: Uri::new(target),
        version: (1, minor),
    };
    Ok((item, minor == 0))
}
