//! What ejabberd_http makes of some headers.

/// A header's name as handlers see it where it is no atom: every word `Like-This`, those behind a
/// second dash and in names of any length too.
pub fn capitalize(name: &[u8], out: &mut [u8]) {
    let mut first = true;
    for (to, byte) in out.iter_mut().zip(name) {
        *to = match first {
            true => byte.to_ascii_uppercase(),
            false => byte.to_ascii_lowercase(),
        };
        first = *byte == b'-';
    }
}

/// The host and the port of a `Host` header; an IPv6 address loses its brackets. Not yet prepared
/// as a domain name. `None`: a port that is no number of 64 bits.
pub fn host(value: &[u8]) -> Option<(&[u8], Option<u64>)> {
    let colon = memchr::memrchr(b':', value);
    let port = colon.map(|at| &value[at + 1..]);
    let port = port.filter(|digits| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit));
    let host = match (port, colon) {
        (Some(_), Some(colon)) => &value[..colon],
        _ => value,
    };
    let bare = host
        .strip_prefix(b"[")
        .and_then(|rest| rest.strip_suffix(b"]"));
    let port = match port {
        Some(digits) => Some(std::str::from_utf8(digits).ok()?.parse().ok()?),
        None => None,
    };
    Some((bare.unwrap_or(host), port))
}

/// The first language of an `Accept-Language` header, without looking at weights.
pub fn first_language(value: &[u8]) -> &[u8] {
    let first = value
        .split(|byte| b",; ".contains(byte))
        .find(|part| !part.is_empty());
    first.unwrap_or(b"en")
}

/// Whether a list (`Connection: keep-alive, Upgrade`) has a word, in any case of letters.
pub fn has_word(value: &[u8], word: &[u8]) -> bool {
    value
        .split(|byte| *byte == b',')
        .any(|part| part.trim_ascii().eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (name, expected) in [
            ("x-foo-BAR", "X-Foo-Bar"),
            ("a--b", "A--B"),
            ("-a", "-A"),
            ("SEC-WEBSOCKET-KEY", "Sec-Websocket-Key"),
            ("a_b", "A_b"),
        ] {
            let mut out = vec![0; name.len()];
            capitalize(name.as_bytes(), &mut out);
            assert_eq!(out, expected.as_bytes());
        }
    }

    /// Each answer is that of ejabberd_http's regular expression.
    #[test]
    fn hosts() {
        for (value, host_, port) in [
            ("example.org", "example.org", None),
            ("example.org:5280", "example.org", Some(5280)),
            ("[::1]:5280", "::1", Some(5280)),
            ("[::1]", "::1", None),
            ("::1", ":", Some(1)),
            ("", "", None),
            (":80", "", Some(80)),
            ("a:", "a:", None),
            ("a:b", "a:b", None),
            ("a:80 ", "a:80 ", None),
            ("[a]b", "[a]b", None),
            ("[a]b]", "a]b", None),
            ("[]", "", None),
            ("a:00080", "a", Some(80)),
        ] {
            assert_eq!(
                host(value.as_bytes()),
                Some((host_.as_bytes(), port)),
                "{value}"
            );
        }
        assert_eq!(host(b"a:99999999999999999999"), None);
    }

    #[test]
    fn languages() {
        for (value, language) in [
            ("de-DE,de;q=0.9", "de-DE"),
            (" fr ; q=1", "fr"),
            ("", "en"),
            (",; ", "en"),
        ] {
            assert_eq!(first_language(value.as_bytes()), language.as_bytes());
        }
    }

    #[test]
    fn words() {
        assert!(has_word(b"keep-alive, UPGRADE", b"upgrade"));
        assert!(!has_word(b"upgraded", b"upgrade"));
    }
}
