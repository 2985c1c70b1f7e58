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
