//! `application/x-www-form-urlencoded`, as ejabberd_http reads it.

use super::target::{BadEscape, escaped};

/// Gives the pairs of a query or a form, in order: a key, where there is one, and a value.
///
/// Before a `&`, what has no `=` is a key with an empty value; at the end it is a value without a
/// key. So an empty query is one empty value. O(query); `scratch` holds one pair at a time.
///
/// # Errors
/// A wrong escape. ejabberd_http then sees no pairs at all: those given so far mean nothing.
pub fn pairs(
    query: &[u8],
    scratch: &mut Vec<u8>,
    mut pair: impl FnMut(Option<&[u8]>, &[u8]),
) -> Result<(), BadEscape> {
    scratch.clear();
    let (mut rest, mut key) = (query, None);
    loop {
        rest = match *rest {
            // Whatever stands behind it, `&` too.
            [b'%', high, low, ref behind @ ..] => {
                scratch.push(escaped(high, low)?);
                behind
            }
            [b'&', ref behind @ ..] => {
                let end: usize = key.take().unwrap_or(scratch.len());
                pair(Some(&scratch[..end]), &scratch[end..]);
                scratch.clear();
                behind
            }
            [b'=', ref behind @ ..] if key.is_none() => {
                key = Some(scratch.len());
                behind
            }
            [byte, ref behind @ ..] => {
                scratch.push(if byte == b'+' { b' ' } else { byte });
                behind
            }
            [] => {
                pair(key.map(|end| &scratch[..end]), &scratch[key.unwrap_or(0)..]);
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Vec<(Option<String>, String)>, BadEscape> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut out = Vec::new();
        pairs(query.as_bytes(), &mut Vec::new(), |key, value| {
            out.push((key.map(text), text(value)));
        })?;
        Ok(out)
    }

    /// Each answer is ejabberd_http's (23.01 and 24.12 agree); `None` is its `nokey`.
    #[test]
    fn queries() {
        for (query, expected) in [
            ("", &[(None, "")][..]),
            ("a=b", &[(Some("a"), "b")]),
            ("a=b&c=d", &[(Some("a"), "b"), (Some("c"), "d")]),
            ("a", &[(None, "a")]),
            ("a&b=c", &[(Some("a"), ""), (Some("b"), "c")]),
            ("a=b&", &[(Some("a"), "b"), (None, "")]),
            ("&&", &[(Some(""), ""), (Some(""), ""), (None, "")]),
            ("a=b=c", &[(Some("a"), "b=c")]),
            ("=b", &[(Some(""), "b")]),
            ("a+b=c+d", &[(Some("a b"), "c d")]),
            ("a%3D=%26%C3%A9", &[(Some("a="), "&é")]),
            ("a=%", &[(Some("a"), "%")]),
            ("a=%4", &[(Some("a"), "%4")]),
            ("a=%&", &[(Some("a"), "%"), (None, "")]),
            ("a=%00", &[(Some("a"), "\0")]),
            ("a;b=c", &[(Some("a;b"), "c")]),
        ] {
            let expected: Vec<_> = expected
                .iter()
                .map(|(key, value)| (key.map(str::to_string), value.to_string()))
                .collect();
            assert_eq!(read(query), Ok(expected), "{query}");
        }
        for query in ["a=%zz", "a=%&0", "a=%=0&b"] {
            assert_eq!(read(query), Err(BadEscape), "{query}");
        }
    }
}
