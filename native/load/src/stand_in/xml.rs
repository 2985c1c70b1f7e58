//! Stanzas in a stream of bytes, as slices of it.

use std::str;

use quick_xml::Reader;
use quick_xml::errors::Error;
use quick_xml::events::Event;
use quick_xml::events::attributes::Attributes;

use super::wire::Wrong;

/// The root of a c2s stream (RFC 6120, 4.2), which stays open while its stanzas come.
const STREAM: &str = "stream:stream";

/// What stands at the beginning of a stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Unit<'a> {
    /// `<stream:stream ...>`; it has no content here.
    Opened(Element<'a>),
    /// `</stream:stream>`.
    Closed,
    /// A whole element.
    Element(Element<'a>),
}

/// A whole element. Nothing in it is unescaped: what a client wrote goes out again as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Element<'a> {
    /// With its prefix.
    pub name: &'a str,
    /// All between the name and the `>`.
    attributes: &'a str,
    /// All between its tags.
    pub inner: &'a str,
}

impl<'a> Element<'a> {
    fn new(tag: &'a str, inner: &'a str) -> Self {
        let tag = tag.strip_suffix('/').unwrap_or(tag);
        let end = tag.find(|c: char| c.is_ascii_whitespace());
        let (name, attributes) = tag.split_at(end.unwrap_or(tag.len()));
        Self {
            name,
            attributes,
            inner,
        }
    }

    /// The attribute's value, still escaped.
    pub fn attribute(&self, name: &str) -> Option<&'a str> {
        let mut attributes = Attributes::new(self.attributes, 0);
        let found = attributes
            .with_checks(false)
            .find_map(|attribute| attribute.ok().filter(|found| found.key.as_ref() == name));
        match found?.value {
            std::borrow::Cow::Borrowed(value) => Some(value),
            std::borrow::Cow::Owned(_) => None,
        }
    }

    /// The elements in it, up to what is no XML.
    pub fn children(&self) -> impl Iterator<Item = Element<'a>> + use<'a> {
        let mut rest = self.inner;
        std::iter::from_fn(move || match first(rest) {
            Ok(Some((Unit::Element(child), taken))) => {
                rest = &rest[taken..];
                Some(child)
            }
            _ => None,
        })
    }

    /// The first element of this name in it.
    pub fn child(&self, name: &str) -> Option<Element<'a>> {
        self.children().find(|child| child.name == name)
    }
}

/// The text that the bytes begin with: a character that is cut at their end is left out.
///
/// # Errors
/// It is not UTF-8.
pub fn text(bytes: &[u8]) -> Result<&str, Wrong> {
    match str::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(error) if error.error_len().is_none() => {
            str::from_utf8(&bytes[..error.valid_up_to()]).map_err(|_| Wrong)
        }
        Err(_) => Err(Wrong),
    }
}

/// What `input` begins with, and how many bytes that takes; `None` asks for more. White space and
/// the XML declaration before it are passed over.
///
/// # Errors
/// It is no XML.
pub fn first(input: &str) -> Result<Option<(Unit<'_>, usize)>, Wrong> {
    let mut reader = Reader::from_str(input);
    let config = reader.config_mut();
    // Keeping the names of open elements would allocate for each stanza.
    config.check_end_names = false;
    config.allow_unmatched_ends = true;
    // A reference may be cut, as all else.
    config.allow_dangling_amp = true;
    // The outermost element's tag and where it ends, and how many are open.
    let (mut outer, mut content, mut depth) = ("", 0, 0usize);
    loop {
        let start = reader.buffer_position() as usize;
        let event = match reader.read_event() {
            Ok(event) => event,
            // They say that something is cut.
            Err(Error::Syntax(_)) => return Ok(None),
            Err(_) => return Err(Wrong),
        };
        let end = reader.buffer_position() as usize;
        match event {
            Event::Start(_) | Event::Empty(_) if depth == 0 => {
                // Text of a later event never stands before the `<`.
                let tag = &input[start + 1..end - 1];
                let element = Element::new(tag, "");
                if element.name == STREAM {
                    return Ok(Some((Unit::Opened(element), end)));
                }
                if matches!(event, Event::Empty(_)) {
                    return Ok(Some((Unit::Element(element), end)));
                }
                (outer, content, depth) = (tag, end, 1);
            }
            Event::Start(_) => depth += 1,
            Event::End(_) if depth == 0 => return Ok(Some((Unit::Closed, end))),
            Event::End(_) => {
                depth -= 1;
                if depth == 0 {
                    let element = Element::new(outer, &input[content..start]);
                    return Ok(Some((Unit::Element(element), end)));
                }
            }
            Event::Text(text) if depth == 0 && !text.trim_ascii().is_empty() => return Err(Wrong),
            Event::Eof => return Ok(None),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(input: &str) -> (Element<'_>, usize) {
        match first(input) {
            Ok(Some((Unit::Element(element), taken))) => (element, taken),
            other => panic!("{other:?}"),
        }
    }

    const STANZAS: [&str; 5] = [
        "<message to='a@b/c' type=\"chat\"><body>x &lt; y &gt;</body><x><body/></x></message>",
        "<presence/>",
        "<iq type='set' id=\"it's &gt; /\"><bind xmlns='x'><resource>r</resource></bind></iq>",
        "<a><![CDATA[</a>]]></a>",
        "<é attr='ü>'>€</é>",
    ];

    #[test]
    fn a_stanza_is_found_at_no_prefix_and_whatever_follows() {
        for stanza in STANZAS {
            for cut in 0..stanza.len() {
                let begun = text(&stanza.as_bytes()[..cut]).unwrap();
                assert_eq!(first(begun), Ok(None), "{begun}");
            }
            for next in STANZAS {
                assert_eq!(whole(&format!("{stanza}{next}")).1, stanza.len());
                let spaced = format!(" \n{stanza}<");
                assert_eq!(whole(&spaced).1, stanza.len() + 2);
            }
        }
    }

    #[test]
    fn its_parts_are_found() {
        let (message, _) = whole(STANZAS[0]);
        assert_eq!(message.name, "message");
        assert_eq!(message.attribute("to"), Some("a@b/c"));
        assert_eq!(message.attribute("type"), Some("chat"));
        assert_eq!(message.attribute("typ"), None);
        assert_eq!(message.child("body").unwrap().inner, "x &lt; y &gt;");
        assert_eq!(message.children().count(), 2);
        let (iq, _) = whole(STANZAS[2]);
        assert_eq!(iq.attribute("id"), Some("it's &gt; /"));
        let bind = iq.child("bind").unwrap();
        assert_eq!(bind.child("resource").unwrap().inner, "r");
        let (presence, _) = whole(STANZAS[1]);
        assert_eq!((presence.name, presence.inner), ("presence", ""));
        assert_eq!(presence.attribute("to"), None);
    }

    #[test]
    fn a_stream_opens_and_closes() {
        let input = "<?xml version='1.0'?><stream:stream to='d' xmlns='jabber:client'> <a/>";
        let Ok(Some((Unit::Opened(stream), taken))) = first(input) else {
            panic!();
        };
        assert_eq!(stream.attribute("to"), Some("d"));
        assert_eq!(&input[taken..], " <a/>");
        for cut in 0..taken {
            assert_eq!(first(&input[..cut]), Ok(None), "{}", &input[..cut]);
        }
        assert_eq!(first("\n</stream:stream>"), Ok(Some((Unit::Closed, 17))));
    }

    #[test]
    fn what_is_no_xml_is_told_from_what_is_cut() {
        for wrong in ["hello", "GET / HTTP/1.1\r\n", "x<a/>"] {
            assert_eq!(first(wrong), Err(Wrong), "{wrong}");
        }
        for cut in ["", " ", "<", "<a", "<a b", "<a b='", "<a>", "<a><b/>"] {
            assert_eq!(first(cut), Ok(None), "{cut}");
        }
        assert_eq!(text(b"<a>\xe2\x82"), Ok("<a>"));
        assert_eq!(text(b"<a>\xff<"), Err(Wrong));
    }
}
