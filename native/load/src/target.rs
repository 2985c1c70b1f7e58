//! Where the users log in: a URL says transport, TLS, address and path.

use std::net::{SocketAddr, ToSocketAddrs};

use serde::{Deserialize, Serialize};

/// How a user's XMPP is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// A stream over TCP (RFC 6120): `xmpp://`, with direct TLS `xmpps://` (XEP-0368).
    C2s,
    /// RFC 7395: `ws://`, `wss://`.
    WebSocket,
    /// XEP-0124 and XEP-0206: `http://`, `https://`.
    Bosh,
}

/// Whether and when TLS begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tls {
    /// Never.
    None,
    /// From the first byte.
    Direct,
    /// After STARTTLS (c2s only): `xmpp://` with `--starttls`.
    Starttls,
}

/// A server to load.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// How XMPP is carried.
    pub transport: Transport,
    /// Whether and when TLS begins.
    pub tls: Tls,
    /// Addresses that all lead to the server; users take them in turn.
    pub addresses: Vec<SocketAddr>,
    /// For `Host:`, and TLS's server name with HTTP: the URL's host and port as written.
    pub authority: String,
    /// `/ws`, `/bosh`, ...; empty for c2s.
    pub path: String,
    /// The XMPP domain to log in to.
    pub domain: String,
    /// Take any certificate.
    pub insecure: bool,
}

impl Target {
    /// A target out of `xmpp://`, `xmpps://`, `ws://`, `wss://`, `http://` or `https://` URLs, which say the
    /// same but for host and port. Host names are resolved (blocks). A name with addresses of
    /// both families stands for its IPv4 ones. Without a port: 5222, 5223, 80 or 443; without a
    /// path: `/ws` or `/bosh`. Without a `domain`, it is the first URL's host.
    ///
    /// The error is for a person.
    pub fn parse(
        urls: &[impl AsRef<str>],
        domain: Option<&str>,
        starttls: bool,
        insecure: bool,
    ) -> Result<Self, String> {
        let mut target: Option<Self> = None;
        for url in urls {
            let one = Self::parse_one(url.as_ref(), domain, starttls, insecure)?;
            match &mut target {
                None => target = Some(one),
                Some(target) => target.add(one, url.as_ref())?,
            }
        }
        target.ok_or_else(|| "no URL".into())
    }

    /// What the server's certificate must name: the URL's host, or the XMPP domain where the
    /// connection is XMPP's own (RFC 6120, 13.7.1.2).
    pub fn tls_name(&self) -> &str {
        match self.transport {
            Transport::C2s => &self.domain,
            Transport::WebSocket | Transport::Bosh => split_port(&self.authority).0,
        }
    }

    fn parse_one(
        url: &str,
        domain: Option<&str>,
        starttls: bool,
        insecure: bool,
    ) -> Result<Self, String> {
        let wrong = |why: &str| format!("{url}: {why}");
        let (scheme, rest) = url.split_once("://").ok_or_else(|| {
            wrong("a URL begins with xmpp:// or ws:// or http://, or xmpps:// ...")
        })?;
        let (transport, secure, default_port, default_path) = match scheme {
            "xmpp" => (Transport::C2s, false, 5222, ""),
            "xmpps" => (Transport::C2s, true, 5223, ""),
            "ws" => (Transport::WebSocket, false, 80, "/ws"),
            "wss" => (Transport::WebSocket, true, 443, "/ws"),
            "http" => (Transport::Bosh, false, 80, "/bosh"),
            "https" => (Transport::Bosh, true, 443, "/bosh"),
            _ => return Err(wrong("not one of xmpp, xmpps, ws, wss, http, https")),
        };
        if starttls && (secure || transport != Transport::C2s) {
            return Err(wrong("STARTTLS is for xmpp://"));
        }
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, default_path),
        };
        if transport == Transport::C2s && !matches!(path, "" | "/") {
            return Err(wrong("there are no paths in XMPP over TCP"));
        }
        if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(wrong("the path is to be of printable ASCII"));
        }
        let (host, port) = split_port(authority);
        if host.is_empty() || authority.contains('@') {
            return Err(wrong("a host, or host:port, is to follow ://"));
        }
        let port = match port {
            None => default_port,
            Some(port) => port.parse().map_err(|_| wrong("not a port"))?,
        };
        Ok(Self {
            transport,
            tls: match (secure, starttls) {
                (true, _) => Tls::Direct,
                (false, true) => Tls::Starttls,
                (false, false) => Tls::None,
            },
            addresses: resolve(host, port).map_err(|error| wrong(&error.to_string()))?,
            authority: authority.to_owned(),
            path: if transport == Transport::C2s {
                ""
            } else {
                path
            }
            .to_owned(),
            domain: domain.unwrap_or(host).to_owned(),
            insecure,
        })
    }

    fn add(&mut self, other: Self, url: &str) -> Result<(), String> {
        if (other.transport, other.tls, &other.path) != (self.transport, self.tls, &self.path) {
            return Err(format!("{url}: several URLs differ in host and port only"));
        }
        self.addresses.extend(other.addresses);
        Ok(())
    }
}

/// Host (without the brackets of IPv6) and port of `host:port`.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    if let Some((host, rest)) = authority
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
    {
        return (host, rest.strip_prefix(':'));
    }
    match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    }
}

fn resolve(host: &str, port: u16) -> std::io::Result<Vec<SocketAddr>> {
    let found: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
    let any_ipv4 = found.iter().any(SocketAddr::is_ipv4);
    let mut addresses = found;
    addresses.retain(|address| address.is_ipv4() || !any_ipv4);
    addresses.dedup();
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Target, String> {
        Target::parse(&[url], None, false, false)
    }

    fn addresses(target: &Target) -> Vec<String> {
        target.addresses.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_url_says_transport_tls_address_and_path() {
        for (url, transport, tls, address, path) in [
            (
                "xmpp://127.0.0.1",
                Transport::C2s,
                Tls::None,
                "127.0.0.1:5222",
                "",
            ),
            (
                "xmpps://127.0.0.1/",
                Transport::C2s,
                Tls::Direct,
                "127.0.0.1:5223",
                "",
            ),
            (
                "ws://127.0.0.1",
                Transport::WebSocket,
                Tls::None,
                "127.0.0.1:80",
                "/ws",
            ),
            (
                "wss://[::1]:1/",
                Transport::WebSocket,
                Tls::Direct,
                "[::1]:1",
                "/",
            ),
            (
                "http://127.0.0.1:1/x?y=z",
                Transport::Bosh,
                Tls::None,
                "127.0.0.1:1",
                "/x?y=z",
            ),
            (
                "https://[::1]",
                Transport::Bosh,
                Tls::Direct,
                "[::1]:443",
                "/bosh",
            ),
        ] {
            let target = parse(url).unwrap();
            assert_eq!((target.transport, target.tls), (transport, tls), "{url}");
            assert_eq!(addresses(&target), [address], "{url}");
            assert_eq!(target.path, path, "{url}");
        }
        let target = Target::parse(&["xmpp://127.0.0.1"], Some("d"), true, true).unwrap();
        assert_eq!(
            (target.tls, &*target.domain, target.insecure),
            (Tls::Starttls, "d", true)
        );
    }

    #[test]
    fn the_certificate_names_the_domain_or_the_host() {
        let name = |url| {
            let target = Target::parse(&[url], Some("domain"), false, false).unwrap();
            target.tls_name().to_owned()
        };
        assert_eq!(name("xmpps://localhost:1"), "domain");
        assert_eq!(name("wss://localhost:1/ws"), "localhost");
        assert_eq!(name("https://[::1]:1/bosh"), "::1");
        assert_eq!(parse("https://[::1]:1").unwrap().domain, "::1");
    }

    #[test]
    fn several_urls_are_one_target_with_several_addresses() {
        let urls = ["ws://127.0.0.1:1/x", "ws://127.0.0.2:2/x"];
        let target = Target::parse(&urls, Some("d"), false, false).unwrap();
        assert_eq!(addresses(&target), ["127.0.0.1:1", "127.0.0.2:2"]);
        assert_eq!(target.authority, "127.0.0.1:1");
        for other in [
            "ws://127.0.0.2:2/y",
            "wss://127.0.0.2:2/x",
            "http://127.0.0.2:2/x",
        ] {
            assert!(
                Target::parse(&[urls[0], other], None, false, false).is_err(),
                "{other}"
            );
        }
        assert!(Target::parse(&[] as &[&str], None, false, false).is_err());
    }

    #[test]
    fn a_name_stands_for_addresses_of_one_family() {
        let target = parse("xmpp://localhost:1").unwrap();
        let first = target.addresses[0];
        assert!(
            target
                .addresses
                .iter()
                .all(|one| one.is_ipv4() == first.is_ipv4())
        );
        assert!(first.ip().is_loopback());
    }

    #[test]
    fn what_is_no_target_is_said() {
        for url in [
            "localhost:5222",
            "ftp://localhost",
            "xmpp://",
            "xmpp://:1",
            "xmpp://user@localhost",
            "xmpp://localhost/path",
            "ws://localhost:x/ws",
            "ws://localhost:70000/ws",
            "ws://localhost/a b",
            "ws://[::1/ws",
            "ws://no-such-host.invalid/ws",
        ] {
            let error = parse(url).unwrap_err();
            assert!(error.starts_with(url), "{error}");
        }
        assert!(Target::parse(&["xmpps://localhost"], None, true, false).is_err());
        assert!(Target::parse(&["ws://localhost"], None, true, false).is_err());
    }
}
