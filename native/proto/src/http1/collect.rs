//! A request gathered in its connection's buffer until it is whole.

use super::name::known;
use super::{BodyDecoder, BodyFraming, BodyPiece, Head, HttpError, HttpReader, Item, Method, Name};
use super::{Refusal, Step, parse_head};
use crate::buffer::Buffer;

/// How far a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Some of its head is missing.
    Head,
    /// Some of its body is.
    Body,
    /// Nothing is.
    Whole,
    /// Its head is there. So many bytes of body follow, for who reads them as they come.
    Stream(u64),
}

/// One request under way. Its bytes stay in the buffer, but for those of a chunked one, which are
/// decoded here.
///
/// ```text
///   Head ──► Length ─────────┬──► Whole
///     │ ├──► Chunks ─────────┘
///     │ └──► Stream (PUT)
///     └─────── wrong ──► the caller gives up the connection
/// ```
#[derive(Debug)]
pub struct Collector {
    reader: HttpReader,
    /// Bytes of the head that the reader has gone over.
    read: usize,
    stage: Stage,
    asked: Asked,
    /// Head and body of a chunked one.
    head: Vec<u8>,
    body: Vec<u8>,
}

#[derive(Debug)]
enum Stage {
    Head,
    /// So many bytes in all.
    Length(usize),
    Chunks(BodyDecoder),
    Whole,
    Stream,
}

/// What a head says that matters before its request is whole.
#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    /// Bytes of the head.
    head: usize,
    is_put: bool,
    is_http10: bool,
    expects: bool,
    hosts: u8,
    /// `Content-Length`.
    length: u64,
}

/// Bytes of a method in which garbage shows: the longest registered one has 17.
const METHOD_LOOK: usize = 32;

impl Default for Collector {
    fn default() -> Self {
        Collector {
            reader: HttpReader::new(false),
            read: 0,
            stage: Stage::Head,
            asked: Asked::default(),
            head: Vec::new(),
            body: Vec::new(),
        }
    }
}

impl Collector {
    /// Looks at what is in `buffer`, which nobody else may take from meanwhile. All the calls for
    /// one request together are O(its bytes), but for a line of the head that comes in many
    /// pieces, which is searched for its end anew each time.
    ///
    /// # Errors
    /// The request must be refused, and nothing behind it can be read.
    pub fn collect(&mut self, buffer: &mut Buffer, max_body: u64) -> Result<Progress, Refusal> {
        if let Stage::Head = self.stage {
            let Some(framing) = self.head(buffer.as_slice())? else {
                return Ok(Progress::Head);
            };
            self.begin_body(framing, buffer, max_body)?;
        }
        match &mut self.stage {
            Stage::Length(all) if buffer.len() >= *all => self.stage = Stage::Whole,
            Stage::Chunks(decoder) => {
                let mut input = buffer.as_slice();
                let before = input.len();
                let whole = gather(decoder, &mut self.body, &mut input, max_body)?;
                let used = before - input.len();
                buffer.consume(used);
                if whole {
                    self.stage = Stage::Whole;
                }
            }
            _ => {}
        }
        Ok(match self.stage {
            Stage::Whole => Progress::Whole,
            Stage::Stream => Progress::Stream(self.length()),
            _ => Progress::Body,
        })
    }

    /// Whether the client waits to be told `100 Continue` before it sends the body.
    pub fn expects_continue(&self) -> bool {
        self.asked.expects
    }

    /// Bytes gathered, of a body as it was sent at least as many as it has.
    pub fn gathered(&self, buffer: &Buffer) -> usize {
        self.body.len() + buffer.len()
    }

    /// Bytes held here, beside the buffer.
    pub fn held(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// Head and body of a whole request; of one whose body is read as it comes, the head alone.
    pub fn parts<'b>(&'b self, buffer: &'b Buffer) -> (&'b [u8], &'b [u8]) {
        if !self.head.is_empty() {
            return (&self.head, &self.body);
        }
        let taken = buffer.as_slice().get(..self.taken()).unwrap_or_default();
        taken.split_at_checked(self.asked.head).unwrap_or_default()
    }

    /// How many bytes of the buffer [`Collector::parts`] are in.
    pub fn taken(&self) -> usize {
        match self.stage {
            Stage::Stream => self.asked.head,
            Stage::Whole if self.head.is_empty() => {
                // A body that is gathered in the buffer is shorter than `max_body`.
                self.asked.head + self.length() as usize
            }
            _ => 0,
        }
    }

    /// Bytes of the body: as `Content-Length` says, or that were decoded.
    pub fn length(&self) -> u64 {
        self.asked.length.max(self.body.len() as u64)
    }

    /// How the body is framed, once the head is whole.
    fn head(&mut self, bytes: &[u8]) -> Result<Option<BodyFraming>, Refusal> {
        if self.read == 0 && !may_begin_head(bytes) {
            return Err(Refusal::Head(HttpError::Method));
        }
        if self.read == 0 && memchr::memmem::find(bytes, b"\r\n\r\n").is_some() {
            return self.whole_head(bytes);
        }
        loop {
            match self.reader.next(&bytes[self.read..]) {
                Step::More => return Ok(None),
                Step::Item { item, consumed } => {
                    self.read += consumed;
                    match item {
                        Item::Error { why, .. } => return Err(Refusal::Head(why)),
                        Item::Eoh => return self.whole_head(&bytes[..self.read]),
                        Item::Request { .. } | Item::Header { .. } => {}
                    }
                }
            }
        }
    }

    fn whole_head(&mut self, bytes: &[u8]) -> Result<Option<BodyFraming>, Refusal> {
        let mut asked = Asked::default();
        let head = parse_head(bytes, |item| asked.see(&item));
        self.asked = asked;
        match head {
            Head::Whole { .. } if self.asked.hosts > 1 => Err(Refusal::TwoHosts),
            Head::Whole { consumed, body } => {
                self.asked.head = consumed;
                Ok(Some(body))
            }
            Head::Error(why) => Err(Refusal::Head(why)),
            Head::More => Ok(None),
        }
    }

    fn begin_body(
        &mut self,
        framing: BodyFraming,
        buffer: &mut Buffer,
        max_body: u64,
    ) -> Result<(), Refusal> {
        let head = self.asked.head;
        self.stage = match framing {
            BodyFraming::None | BodyFraming::Length(0) => Stage::Whole,
            BodyFraming::Length(_) if self.asked.is_put => Stage::Stream,
            BodyFraming::Chunked if self.asked.is_put => return Err(Refusal::NoLength),
            BodyFraming::Length(length) if length > max_body => return Err(Refusal::BodyTooLong),
            BodyFraming::Length(length) => {
                let length = usize::try_from(length).map_err(|_| Refusal::BodyTooLong)?;
                let all = length.checked_add(head).ok_or(Refusal::BodyTooLong)?;
                Stage::Length(all)
            }
            BodyFraming::Chunked => {
                self.head = buffer.as_slice()[..head].to_vec();
                buffer.consume(head);
                Stage::Chunks(BodyDecoder::new(framing))
            }
        };
        if let BodyFraming::Length(length) = framing {
            self.asked.length = length;
        }
        Ok(())
    }
}

impl Asked {
    fn see(&mut self, item: &Item) {
        match item {
            Item::Request {
                method, version, ..
            } => {
                self.is_put = *method == Method::new(b"PUT");
                self.is_http10 = *version == (1, 0);
            }
            Item::Header { name, value } => match name.known() {
                Some(known::HOST) => self.hosts = self.hosts.saturating_add(1),
                Some(_) => {}
                None if is_expect(name) => {
                    self.expects = !self.is_http10 && value.starts_with(b"100-");
                }
                None => {}
            },
            Item::Eoh | Item::Error { .. } => {}
        }
    }
}

fn is_expect(name: &Name) -> bool {
    name.raw().eq_ignore_ascii_case(b"Expect")
}

/// Whether bytes can be the beginning of a request: what speaks TLS, say, shall not wait for an
/// answer.
fn may_begin_head(bytes: &[u8]) -> bool {
    let line = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
    let look = &line[..line.len().min(METHOD_LOOK)];
    let method = look.split(|byte| *byte == b' ').next().unwrap_or(look);
    let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    line == b"\r" || (method.iter().all(token) && method.len() < METHOD_LOOK)
}

/// Decodes what is there of a chunked body; `true` when it is whole.
fn gather(
    decoder: &mut BodyDecoder,
    body: &mut Vec<u8>,
    input: &mut &[u8],
    max_body: u64,
) -> Result<bool, Refusal> {
    loop {
        match decoder.next(input).map_err(Refusal::Body)? {
            Some(BodyPiece::Data(bytes)) => body.extend_from_slice(bytes),
            Some(BodyPiece::End) => return Ok(true),
            None => {
                let coming = (body.len() as u64).saturating_add(decoder.remaining());
                return match coming > max_body {
                    true => Err(Refusal::BodyTooLong),
                    false => Ok(false),
                };
            }
        }
        if body.len() as u64 > max_body {
            return Err(Refusal::BodyTooLong);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::HTTP_HEAD_MAX;
    use proptest::prelude::*;

    const MAX: u64 = 100;

    /// Head, body and how many bytes are left in the buffer; or how far it came.
    type Collected = Result<Result<(Vec<u8>, Vec<u8>, usize), Progress>, Refusal>;

    fn collected(pieces: &mut dyn Iterator<Item = &[u8]>) -> Collected {
        let (mut collector, mut buffer) = (Collector::default(), Buffer::new());
        let mut done = None;
        for piece in pieces {
            buffer.push(piece);
            if done.is_none() {
                match collector.collect(&mut buffer, MAX)? {
                    Progress::Head | Progress::Body => {}
                    whole => done = Some(whole),
                }
            }
        }
        if done.is_none() {
            return Ok(Err(collector.collect(&mut buffer, MAX)?));
        }
        let (head, body) = collector.parts(&buffer);
        let (head, body) = (head.to_vec(), body.to_vec());
        Ok(Ok((head, body, buffer.len() - collector.taken())))
    }

    fn whole(request: &str) -> Collected {
        collected(&mut [request.as_bytes()].into_iter())
    }

    fn in_bytes(request: &str) -> Collected {
        collected(&mut request.as_bytes().chunks(1))
    }

    #[test]
    fn whole_requests() {
        for (head, raw, body) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "", ""),
            ("\r\nGET / HTTP/1.0\r\n\r\n", "", ""),
            ("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n", "abc", "abc"),
            ("POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", "", ""),
            ("GET / HTTP/1.1\r\nContent-Length: 2\r\n\r\n", "ab", "ab"),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
                "3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: x\r\n\r\n",
                "abcde",
            ),
        ] {
            let request = format!("{head}{raw}GET");
            let expected = (head.as_bytes().to_vec(), body.as_bytes().to_vec(), 3);
            assert_eq!(whole(&request), Ok(Ok(expected.clone())), "{request}");
            assert_eq!(in_bytes(&request), Ok(Ok(expected)), "{request}");
            for end in 1..request.len() - 3 {
                let cut = whole(&request[..end]);
                assert!(matches!(cut, Ok(Err(_))), "{:?}: {cut:?}", &request[..end]);
            }
        }
    }

    #[test]
    fn a_put_is_there_with_its_head() {
        let mut buffer = Buffer::new();
        buffer.push(b"PUT /x HTTP/1.1\r\nContent-Length: 1000\r\nExpect: 100-continue\r\n\r\nab");
        let mut collector = Collector::default();
        let progress = collector.collect(&mut buffer, MAX);
        assert_eq!(progress, Ok(Progress::Stream(1000)));
        assert!(collector.expects_continue());
        assert_eq!(collector.taken(), buffer.len() - 2);
        assert_eq!(collector.parts(&buffer).1, b"");
    }

    #[test]
    fn refused() {
        for (request, status) in [
            ("\x16\x03\x01", 400),
            ("GET\0", 400),
            ("GET / HTTP/2.0\r\n", 505),
            ("GET / HTTP/1.1\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
            ("POST / HTTP/1.1\r\nContent-Length: 101\r\n\r\n", 413),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n",
                413,
            ),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n60\r\n",
                200,
            ),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx",
                200,
            ),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
                400,
            ),
            ("PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
        ] {
            let status_of = |collected: Collected| collected.map_or_else(Refusal::status, |_| 200);
            assert_eq!(status_of(whole(request)), status, "{request:?}");
            assert_eq!(status_of(in_bytes(request)), status, "{request:?}");
        }
        let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(9000));
        assert_eq!(in_bytes(&long).map_err(Refusal::status).unwrap_err(), 414);
        let long = format!("GET / HTTP/1.1\r\nA: {}", "a".repeat(HTTP_HEAD_MAX));
        assert_eq!(in_bytes(&long).map_err(Refusal::status).unwrap_err(), 431);
        assert_eq!(whole(&long).map_err(Refusal::status).unwrap_err(), 431);
    }

    proptest! {
        /// However the bytes are cut, the outcome is the same.
        #[test]
        fn cuts_do_not_matter(
            parts in prop::collection::vec(prop::sample::select(&[
                "GET / HTTP/1.1\r\n", "POST /a?b HTTP/1.0\r\n", "PUT / HTTP/1.1\r\n",
                "Host: a\r\n", "Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n",
                "Expect: 100-continue\r\n", "\r\n", "5\r\nabcde\r\n", "0\r\n", "abcde", "\n",
            ][..]), 0..8),
            cut in 0usize..100,
        ) {
            let request = parts.concat();
            let at = cut.min(request.len());
            let (one, two) = request.as_bytes().split_at(at);
            let cut = collected(&mut [one, two].into_iter());
            prop_assert_eq!(&cut, &whole(&request));
            prop_assert_eq!(&cut, &in_bytes(&request));
        }
    }
}
