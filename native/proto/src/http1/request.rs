//! The parts of a request line as `erlang:decode_packet/3` gives them.

/// The methods that `decode_packet` gives as atoms. Every other method is a string.
pub const KNOWN_METHODS: [&str; 7] = ["OPTIONS", "GET", "HEAD", "POST", "PUT", "DELETE", "TRACE"];

/// A request's method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method<'b> {
    raw: &'b [u8],
}

impl<'b> Method<'b> {
    /// The method of that name. Letters count as they are: `get` is no known method.
    pub fn new(raw: &'b [u8]) -> Method<'b> {
        Method { raw }
    }

    /// The method's place in [`KNOWN_METHODS`], when it is there: the term is that atom.
    pub fn known(&self) -> Option<usize> {
        KNOWN_METHODS
            .iter()
            .position(|known| known.as_bytes() == self.raw)
    }

    /// The method as it was sent.
    pub fn raw(&self) -> &'b [u8] {
        self.raw
    }
}

/// The scheme of [`Uri::Absolute`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `http`
    Http,
    /// `https`
    Https,
}

/// A request's target, cut where `decode_packet` cuts it. Nothing is decoded or checked further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uri<'b> {
    /// `'*'`
    Star,
    /// `{abs_path, Path}`
    AbsPath(&'b [u8]),
    /// `{absoluteURI, http | https, Host, Port | undefined, Path}`
    Absolute {
        /// `http` or `https`
        scheme: Scheme,
        /// Up to the port or the first slash, so with the query when there is neither.
        host: &'b [u8],
        /// 1 to 65535 when given, `None` for `undefined`.
        port: Option<u16>,
        /// From the first slash on, `/` when there is none.
        path: &'b [u8],
    },
    /// `{scheme, Scheme, Rest}`: also what becomes of the `host:port` of a `CONNECT`.
    Scheme {
        /// Before the first colon.
        scheme: &'b [u8],
        /// After it.
        rest: &'b [u8],
    },
    /// A plain string.
    Plain(&'b [u8]),
}

impl<'b> Uri<'b> {
    /// Takes a target, which has at least one byte, apart.
    pub fn new(target: &'b [u8]) -> Uri<'b> {
        match target {
            b"*" => Uri::Star,
            [] | [_] | [b'/', ..] => Uri::AbsPath(target),
            _ => Uri::with_scheme(target),
        }
    }

    fn with_scheme(target: &'b [u8]) -> Uri<'b> {
        if let Some(rest) = after(target, b"http://") {
            return Uri::absolute(Scheme::Http, rest);
        }
        if let Some(rest) = after(target, b"https://") {
            return Uri::absolute(Scheme::Https, rest);
        }
        match memchr::memchr(b':', target) {
            Some(colon) => Uri::Scheme {
                scheme: &target[..colon],
                rest: &target[colon + 1..],
            },
            None => Uri::Plain(target),
        }
    }

    fn absolute(scheme: Scheme, rest: &'b [u8]) -> Uri<'b> {
        let (authority, path) = match memchr::memchr(b'/', rest) {
            Some(slash) => rest.split_at(slash),
            None => (rest, &b"/"[..]),
        };
        let (host, port) = split_authority(authority);
        Uri::Absolute {
            scheme,
            host,
            port: port.and_then(decimal),
            path,
        }
    }
}

/// Host, and what is after the colon behind it. An IPv6 address keeps its brackets.
fn split_authority(authority: &[u8]) -> (&[u8], Option<&[u8]>) {
    let host_end = match memchr::memchr(b']', authority) {
        Some(bracket) if authority[0] == b'[' => bracket + 1,
        _ => memchr::memchr(b':', authority).unwrap_or(authority.len()),
    };
    let (host, rest) = authority.split_at(host_end);
    (host, rest.strip_prefix(b":"))
}

fn decimal(digits: &[u8]) -> Option<u16> {
    let add = |sum: u16, &digit: &u8| match digit {
        b'0'..=b'9' => sum.checked_mul(10)?.checked_add(u16::from(digit - b'0')),
        _ => None,
    };
    digits.iter().try_fold(0, add).filter(|&port| port != 0)
}

/// `bytes` without `prefix`, whose letters are lower case and may come in either.
fn after<'b>(bytes: &'b [u8], prefix: &[u8]) -> Option<&'b [u8]> {
    let (start, rest) = bytes.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods() {
        for (place, known) in KNOWN_METHODS.iter().enumerate() {
            assert_eq!(Method::new(known.as_bytes()).known(), Some(place));
        }
        for other in ["get", "PATCH", "CONNECT", "GE", "GETS"] {
            assert_eq!(Method::new(other.as_bytes()).known(), None);
        }
    }

    /// Each answer is that of OTP 25, but for the IPv6 addresses, which are those of later releases, and
    /// the last two ports.
    #[test]
    fn targets() {
        use Scheme::*;
        let absolute = |scheme, host: &'static str, port, path: &'static str| Uri::Absolute {
            scheme,
            host: host.as_bytes(),
            port,
            path: path.as_bytes(),
        };
        for (target, uri) in [
            ("*", Uri::Star),
            ("/", Uri::AbsPath(b"/")),
            ("/a?b#c", Uri::AbsPath(b"/a?b#c")),
            ("//a", Uri::AbsPath(b"//a")),
            ("x", Uri::AbsPath(b"x")),
            ("xy", Uri::Plain(b"xy")),
            ("**", Uri::Plain(b"**")),
            (
                "http:",
                Uri::Scheme {
                    scheme: b"http",
                    rest: b"",
                },
            ),
            (
                "ftp://a/b",
                Uri::Scheme {
                    scheme: b"ftp",
                    rest: b"//a/b",
                },
            ),
            (
                "a.b:443",
                Uri::Scheme {
                    scheme: b"a.b",
                    rest: b"443",
                },
            ),
            (
                ":a",
                Uri::Scheme {
                    scheme: b"",
                    rest: b"a",
                },
            ),
            ("http://a.b:80/x", absolute(Http, "a.b", Some(80), "/x")),
            ("HTTPS://a.b?q", absolute(Https, "a.b?q", None, "/")),
            ("http://", absolute(Http, "", None, "/")),
            ("http:///", absolute(Http, "", None, "/")),
            ("http://a:/x", absolute(Http, "a", None, "/x")),
            ("http://a:0/x", absolute(Http, "a", None, "/x")),
            ("http://a:8x/x", absolute(Http, "a", None, "/x")),
            ("http://u:p@h:80/", absolute(Http, "u", None, "/")),
            (
                "http://[::1]:4000/x",
                absolute(Http, "[::1]", Some(4000), "/x"),
            ),
            ("http://[::1]/x", absolute(Http, "[::1]", None, "/x")),
            ("http://[::1", absolute(Http, "[", None, "/")),
            ("http://a:65535", absolute(Http, "a", Some(65535), "/")),
            ("http://a:65536", absolute(Http, "a", None, "/")),
            ("http://a:99999999999", absolute(Http, "a", None, "/")),
        ] {
            assert_eq!(Uri::new(target.as_bytes()), uri, "{target}");
        }
    }
}
