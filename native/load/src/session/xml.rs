//! Whole stanzas at the start of what came, and what is in them.
//!
//! Nothing is kept between two calls: a stanza that is not whole is looked at again from its start
//! when more has come. Names are compared without their prefix.

use std::borrow::Cow;

use quick_xml::Reader;
use quick_xml::errors::{Error, SyntaxError};
use quick_xml::escape::unescape;
use quick_xml::events::{BytesStart, Event};

/// What is at the text's start. Numbers say how many bytes of it are used up.
#[derive(Debug)]
pub(super) enum Found<'a> {
    /// Nothing whole; white space before it is used up.
    More(usize),
    /// A start tag that stays open: a stream's header.
    Header(usize),
    /// An element, whole.
    Stanza(usize, Element<'a>),
    /// An end tag that closes what was opened long ago: the end of the stream.
    End(usize),
}

/// A whole element.
#[derive(Debug)]
pub(super) struct Element<'a> {
    tag: BytesStart<'a>,
    inner: &'a str,
}

const NOT_XML: &str = "not XML";
const NOT_XMPP: &str = "XML that XMPP forbids";

/// Looks at the start of the text; with `header`, for a stream's header.
pub(super) fn find(text: &str, header: bool) -> Result<Found<'_>, &'static str> {
    let rest = text.trim_start_matches([' ', '\t', '\r', '\n']);
    let skipped = text.len() - rest.len();
    if rest.is_empty() {
        return Ok(Found::More(skipped));
    }
    if !rest.starts_with('<') {
        return Err("text between stanzas");
    }
    if rest.starts_with("</") {
        return Ok(match rest.find('>') {
            Some(end) => Found::End(skipped + end + 1),
            None => Found::More(skipped),
        });
    }
    let mut reader = Reader::from_str(rest);
    // A text that ends amid `&amp;` is no error here.
    reader.config_mut().allow_dangling_amp = true;
    let mut depth = 0_usize;
    let mut first: Option<(BytesStart<'_>, usize)> = None;
    loop {
        let before = position(&reader);
        match reader.read_event() {
            Ok(Event::Start(_)) if header && depth == 0 => {
                return Ok(Found::Header(skipped + position(&reader)));
            }
            Ok(Event::Start(tag)) => {
                if depth == 0 {
                    first = Some((tag, position(&reader)));
                }
                depth += 1;
            }
            Ok(Event::Empty(tag)) if depth == 0 => {
                let inner = "";
                return Ok(Found::Stanza(
                    skipped + position(&reader),
                    Element { tag, inner },
                ));
            }
            Ok(Event::End(_)) => {
                depth = depth.saturating_sub(1);
                if depth == 0
                    && let Some((tag, start)) = first.take()
                {
                    let inner = &rest[start..before];
                    return Ok(Found::Stanza(
                        skipped + position(&reader),
                        Element { tag, inner },
                    ));
                }
            }
            Ok(Event::Decl(_)) if header && depth == 0 => {}
            Ok(Event::Text(text)) if depth == 0 && !text.trim().is_empty() => return Err(NOT_XML),
            Ok(Event::Comment(_) | Event::PI(_) | Event::DocType(_) | Event::Decl(_)) => {
                return Err(NOT_XMPP);
            }
            Ok(Event::Eof) => return Ok(Found::More(skipped)),
            Ok(_) => {}
            Err(Error::Syntax(error)) => {
                return match could_go_on(error, &rest[before..]) {
                    true => Ok(Found::More(skipped)),
                    false => Err(NOT_XMPP),
                };
            }
            Err(_) => return Err(NOT_XML),
        }
    }
}

fn position(reader: &Reader<&[u8]>) -> usize {
    usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX)
}

/// Whether markup that is not whole may still become what XMPP allows.
fn could_go_on(error: SyntaxError, markup: &str) -> bool {
    match error {
        SyntaxError::InvalidBangMarkup => "<![CDATA[".starts_with(markup),
        SyntaxError::UnclosedComment | SyntaxError::UnclosedDoctype => false,
        _ => true,
    }
}

impl<'a> Element<'a> {
    /// The name without its prefix.
    pub(super) fn name(&self) -> &str {
        self.tag.local_name().into_inner()
    }

    /// An attribute's value; `None` too where it is no XML.
    pub(super) fn attribute(&self, name: &str) -> Option<String> {
        let attribute = self.tag.try_get_attribute(name).ok()??;
        Some(unescape(&attribute.value).ok()?.into_owned())
    }

    /// Whether the attribute is there with this value.
    pub(super) fn has(&self, name: &str, value: &str) -> bool {
        let attribute = self.tag.try_get_attribute(name).ok().flatten();
        attribute.is_some_and(|attribute| attribute.value == value)
    }

    /// The elements in it, in order, as far as they are XML.
    pub(super) fn children(&self) -> Children<'a> {
        Children { rest: self.inner }
    }

    /// The first element of that name in it.
    pub(super) fn child(&self, name: &str) -> Option<Element<'a>> {
        self.children().find(|child| child.name() == name)
    }

    /// The text in it, without that of elements in it; `None` where it is no XML.
    pub(super) fn text(&self) -> Option<Cow<'a, str>> {
        if !self.inner.contains('<') {
            return unescape(self.inner).ok();
        }
        let mut text = String::new();
        let mut depth = 0_usize;
        let mut reader = Reader::from_str(self.inner);
        loop {
            match reader.read_event().ok()? {
                Event::Eof => return Some(Cow::Owned(text)),
                Event::Start(_) => depth += 1,
                Event::End(_) => depth = depth.saturating_sub(1),
                Event::Text(part) if depth == 0 => text.push_str(&part),
                Event::CData(part) if depth == 0 => text.push_str(&part),
                Event::GeneralRef(name) if depth == 0 => {
                    text.push_str(&unescape(&format!("&{};", &*name)).ok()?);
                }
                _ => {}
            }
        }
    }

    /// The condition in an error: its first element that is no `<text/>`.
    pub(super) fn condition(&self) -> String {
        const LONGEST: usize = 64;
        let found = self.children().find(|child| child.name() != "text");
        let name = found.map_or_else(|| "undefined".into(), |child| child.name().to_owned());
        name.chars().take(LONGEST).collect()
    }
}

/// See [`Element::children`].
#[derive(Debug)]
pub(super) struct Children<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Children<'a> {
    type Item = Element<'a>;

    fn next(&mut self) -> Option<Element<'a>> {
        let rest = &self.rest[self.rest.find('<')?..];
        let Ok(Found::Stanza(used, element)) = find(rest, false) else {
            self.rest = "";
            return None;
        };
        self.rest = &rest[used..];
        Some(element)
    }
}

/// The bytes' longest start that is UTF-8, and whether what follows it can still become UTF-8.
pub(super) fn utf8(bytes: &[u8]) -> (&str, bool) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (text, true),
        Err(error) => {
            let valid = &bytes[..error.valid_up_to()];
            (
                std::str::from_utf8(valid).unwrap_or_default(),
                error.error_len().is_none(),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stanza(text: &str) -> (usize, Element<'_>) {
        match find(text, false) {
            Ok(Found::Stanza(used, element)) => (used, element),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn an_element_is_taken_apart() {
        let text = "\n<a:b x='1' y=\"&lt;&#65;\"><c>t&amp;u</c><d/> <c/></a:b><next/>";
        let (used, element) = stanza(text);
        assert_eq!(&text[used..], "<next/>");
        assert_eq!(element.name(), "b");
        assert_eq!(element.attribute("y").as_deref(), Some("<A"));
        assert_eq!(element.attribute("z"), None);
        assert!(element.has("x", "1") && !element.has("x", "2"));
        let names: Vec<_> = element
            .children()
            .map(|child| child.name().to_owned())
            .collect();
        assert_eq!(names, ["c", "d", "c"]);
        assert_eq!(element.child("c").unwrap().text().unwrap(), "t&u");
        let (_, mixed) = stanza("<a>1<b>2</b><![CDATA[<3>]]>&lt;4</a>");
        assert_eq!(mixed.text().unwrap(), "1<3><4");
    }

    #[test]
    fn every_prefix_of_an_element_wants_more() {
        let text = "<a x='&gt;>' y=\"/>'\"><b>t&amp;<![CDATA[</a>]]></b><a/><c>\u{e4}</c ></a>";
        for end in (0..text.len()).filter(|&end| text.is_char_boundary(end)) {
            assert!(
                matches!(find(&text[..end], false), Ok(Found::More(0))),
                "{}",
                &text[..end]
            );
        }
        assert_eq!(stanza(text).0, text.len());
    }

    #[test]
    fn a_stream_has_a_header_and_an_end() {
        let text = "<?xml version='1.0'?> <stream:stream id='1'>";
        for end in 0..text.len() {
            assert!(
                matches!(find(&text[..end], true), Ok(Found::More(_))),
                "{end}"
            );
        }
        assert!(matches!(find(text, true), Ok(Found::Header(used)) if used == text.len()));
        assert!(matches!(
            find(" </stream:stream", false),
            Ok(Found::More(1))
        ));
        assert!(matches!(
            find(" </stream:stream>", false),
            Ok(Found::End(17))
        ));
        assert!(matches!(find(" \n", false), Ok(Found::More(2))));
    }

    #[test]
    fn what_is_forbidden_is_wrong_at_once() {
        for text in [
            "x",
            "<a><!--",
            "<!DOCTYPE",
            "<a><?x y?>",
            "<a></b>",
            "<?xml version='1.0'?>",
        ] {
            assert!(find(text, false).is_err(), "{text}");
        }
    }

    #[test]
    fn utf8_may_be_cut_anywhere() {
        assert_eq!(utf8("a\u{20ac}".as_bytes()), ("a\u{20ac}", true));
        assert_eq!(utf8(&"a\u{20ac}".as_bytes()[..3]), ("a", true));
        assert_eq!(utf8(b"a\xff"), ("a", false));
    }
}
