//! Where the stanzas of an XML stream over TCP begin and end (RFC 6120, section 4).
//!
//! What is inside of a stanza is nobody's business here: it is cut out whole, for a parser that
//! needs no memory of the stream between two of them. Tags are counted and not compared, entities
//! are not looked at; whoever parses the stanza sees whether it is well-formed. What a stream must
//! not have at all (RFC 6120, 11.1) is refused here: a document type.

use memchr::{memchr, memchr3, memmem};
use thiserror::Error;

/// Where a stream stands. A few bytes, because every connection has one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Splitter {
    /// Bytes of what the caller has that were looked at.
    seen: u32,
    /// Open elements; the stream's own is the first.
    depth: u32,
    lex: Lex,
}

/// A piece of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The start tag of the stream's root.
    Header,
    /// An element in it.
    Stanza,
    /// The end tag of the root.
    End,
    /// Text between stanzas: the white space that keeps a connection alive (RFC 6120, 4.6.1).
    Text,
    /// An XML declaration, a comment: nothing to anybody.
    Nothing,
}

/// What [`Splitter::next`] saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// The bytes begin with a piece of that length, which the caller consumes.
    Piece(Kind, usize),
    /// The piece is not whole. Call again with more bytes behind the same.
    More,
}

/// Why the rest of a stream cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    /// RFC 6120, 11.1: neither a document type nor a declaration of one.
    #[error("a stream must not have a document type")]
    DocumentType,
    /// An end tag with nothing open, an empty name, a root that is closed at once.
    #[error("not well-formed")]
    Tags,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Lex {
    /// Not in a tag.
    #[default]
    Text,
    /// Behind a `<`.
    Open,
    /// In a start tag.
    Start,
    /// In an attribute's value, up to this quote.
    Quoted(u8),
    /// In an end tag.
    End,
    Comment,
    Cdata,
    Instruction,
}

impl Splitter {
    /// Before the header.
    pub const fn new() -> Self {
        Splitter {
            seen: 0,
            depth: 0,
            lex: Lex::Text,
        }
    }

    /// The stream begins again (RFC 6120, 4.3.3): another header comes, inside of no element. Call
    /// it between two pieces.
    pub fn restart(&mut self) {
        *self = Splitter::new();
    }

    /// Looks at `bytes`, which begin where the last piece ended and hold what the last call was
    /// given. Each byte is looked at once, however they dribble in, but for the two of an end mark.
    pub fn next(&mut self, bytes: &[u8]) -> Result<Split, Malformed> {
        loop {
            let at = self.seen as usize;
            let piece = match self.lex {
                Lex::Text if self.depth <= 1 => match bytes {
                    [] => return Ok(Split::More),
                    [b'<', ..] => self.enter(1, Lex::Open),
                    _ => {
                        let text = memchr(b'<', bytes).unwrap_or(bytes.len());
                        Some((Kind::Text, text))
                    }
                },
                Lex::Text => match self.find(memchr(b'<', &bytes[at..]), bytes.len()) {
                    Some(lt) => self.enter(lt + 1, Lex::Open),
                    None => return Ok(Split::More),
                },
                Lex::Open => match self.open(&bytes[at..])? {
                    Some((used, lex)) => self.enter(at + used, lex),
                    None => return Ok(Split::More),
                },
                Lex::Start => {
                    let Some(end) =
                        self.find(memchr3(b'"', b'\'', b'>', &bytes[at..]), bytes.len())
                    else {
                        return Ok(Split::More);
                    };
                    match bytes[end] {
                        b'>' if bytes[end - 1] == b'/' => self.empty_element(end + 1)?,
                        b'>' => self.start_tag(end + 1),
                        quote => self.enter(end + 1, Lex::Quoted(quote)),
                    }
                }
                Lex::Quoted(quote) => match self.find(memchr(quote, &bytes[at..]), bytes.len()) {
                    Some(end) => self.enter(end + 1, Lex::Start),
                    None => return Ok(Split::More),
                },
                Lex::End => match self.find(memchr(b'>', &bytes[at..]), bytes.len()) {
                    Some(end) => self.end_tag(end + 1)?,
                    None => return Ok(Split::More),
                },
                Lex::Comment => match self.find_mark(b"-->", bytes) {
                    Some(end) => self.leave(end),
                    None => return Ok(Split::More),
                },
                Lex::Cdata => match self.find_mark(b"]]>", bytes) {
                    Some(end) => self.leave(end),
                    None => return Ok(Split::More),
                },
                Lex::Instruction => match self.find_mark(b"?>", bytes) {
                    Some(end) => self.leave(end),
                    None => return Ok(Split::More),
                },
            };
            if let Some((kind, length)) = piece {
                self.seen = 0;
                self.lex = Lex::Text;
                return Ok(Split::Piece(kind, length));
            }
        }
    }

    fn enter(&mut self, at: usize, lex: Lex) -> Option<(Kind, usize)> {
        // Whoever calls bounds a stanza by far less than 4 GiB.
        self.seen = at as u32;
        self.lex = lex;
        None
    }

    /// A place found behind `seen`, from the beginning; where there is none, all has been seen.
    fn find(&mut self, found: Option<usize>, length: usize) -> Option<usize> {
        match found {
            Some(at) => Some(self.seen as usize + at),
            None => {
                self.seen = length as u32;
                None
            }
        }
    }

    /// The end of a mark. One that is half there is looked for again.
    fn find_mark(&mut self, mark: &[u8], bytes: &[u8]) -> Option<usize> {
        let from = self.seen as usize;
        match memmem::find(&bytes[from..], mark) {
            Some(at) => Some(from + at + mark.len()),
            None => {
                self.seen = bytes.len().saturating_sub(mark.len() - 1).max(from) as u32;
                None
            }
        }
    }

    /// What a `<` begins, and how many of the bytes behind it say so.
    fn open(&self, behind: &[u8]) -> Result<Option<(usize, Lex)>, Malformed> {
        const CDATA: &[u8] = b"![CDATA[";
        const COMMENT: &[u8] = b"!--";
        Ok(match behind {
            [] => None,
            [b'/', ..] if self.depth == 0 => return Err(Malformed::Tags),
            [b'/', ..] => Some((1, Lex::End)),
            [b'?', ..] => Some((1, Lex::Instruction)),
            [b'!', ..] if behind.starts_with(COMMENT) => Some((COMMENT.len(), Lex::Comment)),
            // Between stanzas there is no text to be marked.
            [b'!', ..] if behind.starts_with(CDATA) && self.depth > 1 => {
                Some((CDATA.len(), Lex::Cdata))
            }
            [b'!', ..] if COMMENT.starts_with(behind) || CDATA.starts_with(behind) => None,
            [b'!', ..] => return Err(Malformed::DocumentType),
            [
                b'>' | b'<' | b'"' | b'\'' | b' ' | b'\t' | b'\r' | b'\n',
                ..,
            ] => {
                return Err(Malformed::Tags);
            }
            _ => Some((1, Lex::Start)),
        })
    }

    fn start_tag(&mut self, end: usize) -> Option<(Kind, usize)> {
        self.depth += 1;
        match self.depth {
            1 => Some((Kind::Header, end)),
            _ => self.enter(end, Lex::Text),
        }
    }

    fn empty_element(&mut self, end: usize) -> Result<Option<(Kind, usize)>, Malformed> {
        match self.depth {
            0 => Err(Malformed::Tags),
            1 => Ok(Some((Kind::Stanza, end))),
            _ => Ok(self.enter(end, Lex::Text)),
        }
    }

    fn end_tag(&mut self, end: usize) -> Result<Option<(Kind, usize)>, Malformed> {
        self.depth -= 1;
        Ok(match self.depth {
            0 => Some((Kind::End, end)),
            1 => Some((Kind::Stanza, end)),
            _ => self.enter(end, Lex::Text),
        })
    }

    /// Behind a comment and the like.
    fn leave(&mut self, end: usize) -> Option<(Kind, usize)> {
        match self.depth {
            0 | 1 => Some((Kind::Nothing, end)),
            _ => self.enter(end, Lex::Text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Pieces = Vec<(Kind, Vec<u8>)>;

    /// The pieces of a stream that comes in chunks of these sizes, again and again.
    fn split(stream: &[u8], sizes: &[usize]) -> (Pieces, Result<(), Malformed>) {
        let mut splitter = Splitter::new();
        let (mut pieces, mut held, mut rest) = (Vec::new(), Vec::new(), stream);
        for size in sizes.iter().cycle() {
            let (chunk, behind) = rest.split_at((*size).min(rest.len()));
            held.extend_from_slice(chunk);
            rest = behind;
            loop {
                match splitter.next(&held) {
                    Ok(Split::Piece(kind, length)) => {
                        pieces.push((kind, held.drain(..length).collect()));
                    }
                    Ok(Split::More) => break,
                    Err(error) => return (pieces, Err(error)),
                }
            }
            if rest.is_empty() {
                break;
            }
        }
        (pieces, Ok(()))
    }

    fn kinds(stream: &str) -> Vec<(Kind, String)> {
        let (pieces, end) = split(stream.as_bytes(), &[stream.len()]);
        assert_eq!(end, Ok(()), "{stream}");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        pieces
            .into_iter()
            .map(|(kind, bytes)| (kind, text(bytes)))
            .collect()
    }

    #[test]
    fn a_stream_in_pieces() {
        use Kind::*;
        let pieces = [
            (Nothing, "<?xml version='1.0'?>"),
            (Text, "\n"),
            (Header, "<stream:stream to='a>b' xmlns=\"jabber:client\">"),
            (Stanza, "<auth/>"),
            (Text, " "),
            (Stanza, "<iq a='/'><q b=\"'>\"/><x>a</x><!-- </iq> --></iq>"),
            (Nothing, "<!-- <a> -->"),
            (Stanza, "<m><![CDATA[</m>]]]]><?p <?></m>"),
            (End, "</stream:stream>"),
        ];
        let stream: String = pieces.iter().map(|(_, text)| *text).collect();
        let expected: Vec<_> = pieces
            .iter()
            .map(|(kind, text)| (*kind, text.to_string()))
            .collect();
        assert_eq!(kinds(&stream), expected);
    }

    #[test]
    fn a_stream_that_begins_again() {
        let mut splitter = Splitter::new();
        for bytes in [&b"<s>"[..], b"<a/>"] {
            assert!(
                matches!(splitter.next(bytes), Ok(Split::Piece(_, length)) if length == bytes.len())
            );
        }
        splitter.restart();
        assert_eq!(splitter.next(b"<s>"), Ok(Split::Piece(Kind::Header, 3)));
    }

    #[test]
    fn what_no_stream_has() {
        for (stream, why) in [
            ("<!DOCTYPE a [<!ENTITY b 'c'>]>", Malformed::DocumentType),
            ("<s><!ENTITY b 'c'>", Malformed::DocumentType),
            ("<s><![CDATA[a]]>", Malformed::DocumentType),
            ("</s>", Malformed::Tags),
            ("<s/>", Malformed::Tags),
            ("<>", Malformed::Tags),
            ("< s>", Malformed::Tags),
        ] {
            assert_eq!(split(stream.as_bytes(), &[1]).1, Err(why), "{stream}");
        }
    }

    #[test]
    fn small() {
        assert!(size_of::<Splitter>() <= 12);
    }

    proptest! {
        /// However a stream is cut on its way, it falls into the same pieces, and none is lost.
        #[test]
        fn chunks_do_not_matter(
            parts in prop::collection::vec(prop::sample::select(vec![
                "<a>", "</a>", "<a/>", "<a b='>'", ">", "/>", "<!--", "-->", "<![CDATA[", "]]>", "<?", "?>",
                "'", "\"", " ", "x", "<", "!", "-", "]", "/",
            ]), 0..40),
            sizes in prop::collection::vec(1usize..9, 1..9),
        ) {
            let stream = format!("<s>{}", parts.concat());
            let whole = split(stream.as_bytes(), &[stream.len()]);
            let cut = split(stream.as_bytes(), &sizes);
            // Text between stanzas comes as it comes.
            let join = |pieces: Pieces| {
                let mut joined = Pieces::new();
                for (kind, bytes) in pieces {
                    match joined.last_mut() {
                        Some((Kind::Text, text)) if kind == Kind::Text => text.extend(bytes),
                        _ => joined.push((kind, bytes)),
                    }
                }
                joined
            };
            prop_assert_eq!(whole.1, cut.1);
            prop_assert_eq!(join(whole.0), join(cut.0));
        }
    }
}
