//! `http://HOST[:PORT][/PATH]`, taken apart.

use std::str::FromStr;

/// Where requests go and what they ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// `HOST[:PORT]` as written, for the `Host` header.
    pub authority: String,
    /// `HOST:PORT`, for the resolver.
    pub address: String,
    /// `/PATH`, with its query.
    pub target: String,
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not http://HOST[:PORT][/PATH]");
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(wrong());
        }
        let rest = text.strip_prefix("http://").ok_or_else(wrong)?;
        let (authority, target) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        // An IPv6 address has colons of its own, inside its brackets.
        let after_host = authority.rsplit(']').next().unwrap_or(authority);
        let address = match after_host.contains(':') {
            true => authority.to_owned(),
            false => format!("{authority}:80"),
        };
        if authority.is_empty() || authority.starts_with(':') {
            return Err(wrong());
        }
        Ok(Self {
            authority: authority.into(),
            address,
            target: target.into(),
        })
    }
}

impl Url {
    /// The bytes of a request for it.
    pub fn request(&self) -> Vec<u8> {
        let Self {
            authority, target, ..
        } = self;
        format!("GET {target} HTTP/1.1\r\nHost: {authority}\r\n\r\n").into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (String, String, String) {
        let url: Url = text.parse().unwrap();
        (url.authority, url.address, url.target)
    }

    fn owned(authority: &str, address: &str, target: &str) -> (String, String, String) {
        (authority.into(), address.into(), target.into())
    }

    #[test]
    fn ports_and_paths_have_defaults() {
        assert_eq!(parts("http://a.b/c?d"), owned("a.b", "a.b:80", "/c?d"));
        assert_eq!(parts("http://a.b:81"), owned("a.b:81", "a.b:81", "/"));
        assert_eq!(parts("http://[::1]/"), owned("[::1]", "[::1]:80", "/"));
        assert_eq!(parts("http://[::1]:8/"), owned("[::1]:8", "[::1]:8", "/"));
    }

    #[test]
    fn anything_else_is_none() {
        for text in [
            "",
            "a.b",
            "https://a.b/",
            "http://",
            "http://:80/",
            "http://a b/",
        ] {
            text.parse::<Url>().unwrap_err();
        }
    }

    #[test]
    fn a_request_asks_for_the_target() {
        let url: Url = "http://a.b:81/c".parse().unwrap();
        assert_eq!(
            url.request(),
            b"GET /c HTTP/1.1\r\nHost: a.b:81\r\n\r\n".to_vec()
        );
    }
}
