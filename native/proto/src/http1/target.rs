//! A request target as the handlers of ejabberd_http see it: a path in decoded, normalized
//! segments, and a query.

/// A `%` before two bytes that are no number in hexadecimal, or a path with a NUL in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an escape (%XX) in the target is wrong")]
pub struct BadEscape;

/// Cuts a target (`abs_path`) into its path and its query, which is empty where there is none.
pub fn split_target(target: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b'?', target) {
        Some(mark) => (&target[..mark], &target[mark + 1..]),
        None => (target, b""),
    }
}

/// Gives the segments of a path, in order. Dots are resolved twice, as ejabberd_http does it: in
/// the path as it was sent, and between its segments once they are decoded, where `..` takes the one
/// segment before it. Empty segments are none, so an escaped slash separates too.
///
/// `scratch` holds what had to be decoded. O(path); allocates only then.
///
/// # Errors
/// A wrong escape; then the segments given so far mean nothing.
pub fn segments<'p>(
    path: &'p [u8],
    scratch: &'p mut Vec<u8>,
    mut segment: impl FnMut(&'p [u8]),
) -> Result<(), BadEscape> {
    let plain = memchr::memchr(b'%', path).is_none()
        && memchr::memmem::find(path, b"/.").is_none()
        && !path.starts_with(b".");
    if plain {
        path.split(slash)
            .filter(|part| !part.is_empty())
            .for_each(segment);
        return Ok(());
    }
    resolve_dots(path, scratch);
    decode_path(scratch)?;
    let scratch: &'p [u8] = scratch;
    let mut parts = scratch
        .split(slash)
        .filter(|part| !part.is_empty())
        .peekable();
    while let Some(part) = parts.next() {
        let undone = part != b".." && parts.next_if_eq(&&b".."[..]).is_some();
        if part != b".." && !undone {
            segment(part);
        }
    }
    Ok(())
}

fn slash(byte: &u8) -> bool {
    *byte == b'/'
}

/// Takes `/.` and `/..` out of a path. Goes from its end to its beginning, where each `/..` that was
/// met leaves the next segment out; more of them than there are segments are nothing.
fn resolve_dots(path: &[u8], out: &mut Vec<u8>) {
    out.clear();
    let mut rest = path;
    let mut leave_out = 0;
    if let Some(before) = rest.strip_suffix(b"/") {
        out.push(b'/');
        rest = before;
    }
    loop {
        // At the end of a segment.
        loop {
            if rest == b".." {
                rest = b"";
            } else if let Some(before) = rest.strip_suffix(b"/").or(rest.strip_suffix(b"/.")) {
                rest = before;
            } else if let Some(before) = rest.strip_suffix(b"/..") {
                (rest, leave_out) = (before, leave_out + 1);
            } else {
                break;
            }
        }
        let start = memchr::memrchr(b'/', rest);
        let segment = &rest[start.map_or(0, |at| at + 1)..];
        if leave_out == 0 {
            out.extend(segment.iter().rev());
        }
        let Some(start) = start else { break };
        rest = &rest[..start];
        match leave_out {
            0 => out.push(b'/'),
            _ => leave_out -= 1,
        }
    }
    if out.is_empty() {
        out.push(b'/');
    }
    out.reverse();
}

/// Decodes a path in place. `%00` is refused.
fn decode_path(path: &mut Vec<u8>) -> Result<(), BadEscape> {
    let (mut from, mut to) = (0, 0);
    while from < path.len() {
        let (byte, used) = match path[from..] {
            [b'%', high, low, ..] => (escaped(high, low)?, 3),
            [byte, ..] => (byte, 1),
            [] => break,
        };
        if byte == 0 {
            return Err(BadEscape);
        }
        path[to] = byte;
        (from, to) = (from + used, to + 1);
    }
    path.truncate(to);
    Ok(())
}

/// The byte of an escape. As to `list_to_integer/2`, a sign and one digit are a number too: clients
/// rely on nothing here, but what is refused shall be the same.
pub(super) fn escaped(high: u8, low: u8) -> Result<u8, BadEscape> {
    let digit = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    let low = digit(low).ok_or(BadEscape)?;
    match high {
        b'+' => Ok(low),
        b'-' => Ok(low.wrapping_neg()),
        _ => Ok(digit(high).ok_or(BadEscape)? << 4 | low),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(path: &str) -> Result<Vec<String>, BadEscape> {
        let (mut scratch, mut out) = (Vec::new(), Vec::new());
        segments(path.as_bytes(), &mut scratch, |part| {
            out.push(String::from_utf8_lossy(part).into_owned());
        })?;
        Ok(out)
    }

    /// Each answer is ejabberd_http's (23.01 and 24.12 agree).
    #[test]
    fn paths() {
        for (path, parts) in [
            ("/", &[][..]),
            ("", &[]),
            ("x", &["x"]),
            (".", &["."]),
            ("/bosh", &["bosh"]),
            ("/a/b/c", &["a", "b", "c"]),
            ("//a///b/", &["a", "b"]),
            ("/a/./b", &["a", "b"]),
            ("/a/.", &["a"]),
            ("/a/../b", &["b"]),
            ("/a/b/..", &["a"]),
            ("/a/b/../..", &[]),
            ("/../a", &["a"]),
            ("/../../a", &["a"]),
            ("/a/../../../b", &["b"]),
            ("/a/...", &["a", "..."]),
            ("/a/..b/b..", &["a", "..b", "b.."]),
            ("/a%20b/%C3%A9", &["a b", "é"]),
            ("/a%2Fb", &["a", "b"]),
            ("/%2e%2e/a", &["a"]),
            ("/a/%2e%2e/b", &["b"]),
            ("/a/b/%2e%2e/%2e%2e/c", &["a", "c"]),
            ("/a/%2e/b", &["a", ".", "b"]),
            ("/a%2F..%2Fb", &["b"]),
            ("/a%4", &["a%4"]),
            ("/a%", &["a%"]),
            ("/a%+1", &["a\u{1}"]),
        ] {
            assert_eq!(
                split(path).as_deref(),
                Ok(&parts.iter().map(|s| s.to_string()).collect::<Vec<_>>()[..]),
                "{path}"
            );
        }
        for path in ["/%zz", "/%00", "/%-0", "/%%41", "/%1g"] {
            assert_eq!(split(path), Err(BadEscape), "{path}");
        }
    }

    #[test]
    fn targets() {
        assert_eq!(split_target(b"/a?b?c"), (&b"/a"[..], &b"b?c"[..]));
        assert_eq!(split_target(b"/a?"), (&b"/a"[..], &b""[..]));
        assert_eq!(split_target(b"/a"), (&b"/a"[..], &b""[..]));
    }

    proptest! {
        /// The quick way gives what the long one gives.
        #[test]
        fn both_ways_agree(path in "/?([a-c.]{0,3}/){0,5}[a.]{0,3}") {
            let (mut scratch, mut long) = (Vec::new(), Vec::new());
            let escaped = path.replace('a', "%61");
            segments(escaped.as_bytes(), &mut scratch, |part| long.push(part.to_vec())).unwrap();
            let short: Vec<_> = split(&path).unwrap().into_iter().map(String::into_bytes).collect();
            prop_assert_eq!(short, long);
        }

        #[test]
        fn no_path_panics_or_leaves_dots(path in prop::collection::vec(prop::sample::select(&b"/.%2eaF0"[..]), 0..40)) {
            let mut scratch = Vec::new();
            let _ = segments(&path, &mut scratch, |part| {
                assert!(!part.is_empty() && !part.contains(&b'/'));
            });
        }
    }
}
