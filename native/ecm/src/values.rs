//! The types of configuration values.
//!
//! Each is checked while it is read, so that a value that exists is a value
//! that may be used, and an error points at its line.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, Visitor};

/// The longest name of an ECM or a service, in bytes: it stands in a control
/// line beside two addresses and must leave room for the TLS facts.
pub const NAME_MAX: usize = 128;

/// The longest path of a Unix socket, in bytes: `sun_path` of unix(7) holds
/// 108 with the NUL.
pub const UNIX_PATH_MAX: usize = 107;

/// A whole number from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Number<const MIN: u64, const MAX: u64>(u64);

impl<const MIN: u64, const MAX: u64> Number<MIN, MAX> {
    /// A default: checked when it is compiled.
    pub const fn of<const N: u64>() -> Self {
        const { assert!(N >= MIN && N <= MAX) };
        Self(N)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number, for values whose `MAX` is known to fit.
    pub const fn as_u32(self) -> u32 {
        const { assert!(MAX <= u32::MAX as u64) };
        self.0 as u32
    }

    /// The number, for values whose `MAX` is known to fit.
    pub const fn as_usize(self) -> usize {
        const { assert!(MAX <= u32::MAX as u64) };
        self.0 as usize
    }
}

impl<'de, const MIN: u64, const MAX: u64> Deserialize<'de> for Number<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let number = i64::deserialize(input)?;
        match u64::try_from(number) {
            Ok(n) if (MIN..=MAX).contains(&n) => Ok(Self(n)),
            _ => Err(de::Error::custom(format_args!(
                "{number} is not a number from {MIN} to {MAX}"
            ))),
        }
    }
}

/// A duration of `MIN` to `MAX` milliseconds, written as text with its unit:
/// `"2s"`, `"500ms"`, `"1m 30s"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period<const MIN: u64, const MAX: u64>(Duration);

impl<const MIN: u64, const MAX: u64> Period<MIN, MAX> {
    /// A default of `MILLIS` milliseconds: checked when it is compiled.
    pub const fn millis<const MILLIS: u64>() -> Self {
        const { assert!(MILLIS >= MIN && MILLIS <= MAX) };
        Self(Duration::from_millis(MILLIS))
    }

    /// The duration.
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl<const MIN: u64, const MAX: u64> fmt::Display for Period<MIN, MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

impl<'de, const MIN: u64, const MAX: u64> Deserialize<'de> for Period<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let duration = input.deserialize_any(DurationText)?;
        if duration < Duration::from_millis(MIN) || duration > Duration::from_millis(MAX) {
            let shown = |millis| humantime::format_duration(Duration::from_millis(millis));
            return Err(de::Error::custom(format_args!(
                "{} is not a duration from {} to {}",
                humantime::format_duration(duration),
                shown(MIN),
                shown(MAX)
            )));
        }
        Ok(Self(duration))
    }
}

/// A duration of whole seconds, of 0 to `MAX` milliseconds, as the protocol
/// says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seconds<const MAX: u64>(Period<0, MAX>);

impl<const MAX: u64> Seconds<MAX> {
    /// A default of `SECONDS`: checked when it is compiled.
    pub const fn of<const SECONDS: u64>() -> Self {
        const { assert!(SECONDS * 1000 <= MAX && MAX / 1000 <= u32::MAX as u64) };
        Self(Period(Duration::from_secs(SECONDS)))
    }

    /// The duration.
    pub const fn get(self) -> Duration {
        self.0.get()
    }

    /// The duration in seconds.
    pub const fn as_u32(self) -> u32 {
        self.get().as_secs() as u32
    }
}

impl<const MAX: u64> fmt::Display for Seconds<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de, const MAX: u64> Deserialize<'de> for Seconds<MAX> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let period = Period::deserialize(input)?;
        if period.get().subsec_nanos() != 0 {
            return Err(de::Error::custom(format_args!(
                "{period} is not a whole number of seconds"
            )));
        }
        Ok(Self(period))
    }
}

/// Reads a duration's text. It takes numbers too, only to say what they lack.
struct DurationText;

impl Visitor<'_> for DurationText {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration with its unit, such as \"2s\" or \"500ms\"")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
        humantime::parse_duration(text)
            .map_err(|_| de::Error::invalid_value(de::Unexpected::Str(text), &self))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Duration, E> {
        Err(E::custom(format_args!(
            "{number} has no unit: write \"{number}s\" or \"{number}ms\""
        )))
    }
}

/// A name that goes into a control line as it is: 1 to [`NAME_MAX`] bytes of
/// letters, digits, `.`, `-`, `_`, `:` and `@`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(String);

impl Name {
    /// Checks `text`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let fits = (1..=NAME_MAX).contains(&text.len());
        if fits
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b".-_:@".contains(&b))
        {
            return Ok(Self(text.to_owned()));
        }
        Err(format!(
            "{text:?} is not a name: 1 to {NAME_MAX} letters, digits and the characters . - _ : @"
        ))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text = String::deserialize(input)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

/// Where clients are awaited: an IP address and a port (0: any free one).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ListenAddress(pub SocketAddr);

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for ListenAddress {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text = String::deserialize(input)?;
        text.parse().map(Self).map_err(|_| {
            de::Error::custom(format_args!(
                "{text:?} is not an IP address and a port, such as \"0.0.0.0:5280\" or \"[::]:5280\""
            ))
        })
    }
}

/// Where ejabberd listens for links.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BackendAddress {
    /// `HOST:PORT`; the name is looked up at each dial.
    Tcp {
        /// A name, or an IP address without its brackets.
        host: String,
        /// Never 0.
        port: u16,
    },
    /// `unix:PATH`, an absolute path.
    Unix(PathBuf),
}

impl BackendAddress {
    /// Checks `text`.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Self::parse_unix(path);
        }
        let wrong = || {
            format!(
                "{text:?} is neither HOST:PORT, such as \"127.0.0.1:6280\", nor unix:PATH, \
                 such as \"unix:/run/ejabberd/megaphone.sock\""
            )
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let host_is_good = match bracketed {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => {
                !host.is_empty()
                    && host
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b))
            }
        };
        match port.parse() {
            Ok(port) if port > 0 && host_is_good => Ok(Self::Tcp {
                host: bracketed.unwrap_or(host).to_owned(),
                port,
            }),
            _ => Err(wrong()),
        }
    }

    fn parse_unix(path: &str) -> Result<Self, String> {
        if !path.starts_with('/') {
            return Err(format!(
                "unix:{path}: the path of a Unix socket must be absolute"
            ));
        }
        if path.len() > UNIX_PATH_MAX {
            return Err(format!(
                "the path of a Unix socket may have {UNIX_PATH_MAX} bytes, this one has {}",
                path.len()
            ));
        }
        Ok(Self::Unix(PathBuf::from(path)))
    }
}

impl fmt::Display for BackendAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl<'de> Deserialize<'de> for BackendAddress {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text = String::deserialize(input)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backend_addresses_are_read_and_shown_alike() {
        for text in [
            "127.0.0.1:6280",
            "xmpp.example.org:6280",
            "[::1]:6280",
            "unix:/run/ejabberd/megaphone.sock",
        ] {
            assert_eq!(BackendAddress::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_backend_address_is_refused() {
        let long = format!("unix:/{}", "x".repeat(UNIX_PATH_MAX));
        for text in [
            "",
            "6280",
            ":6280",
            "host:",
            "host:0",
            "host:65536",
            "::1:6280",
            "a b:1",
            "unix:",
            "unix:x",
            &long,
        ] {
            assert!(BackendAddress::parse(text).is_err(), "{text}");
        }
        let longest = format!("unix:/{}", "x".repeat(UNIX_PATH_MAX - 1));
        assert!(BackendAddress::parse(&longest).is_ok());
    }

    #[test]
    fn names_hold_nothing_a_control_line_would_have_to_escape() {
        assert!(Name::parse("edge-1.example.org").is_ok());
        assert!(Name::parse(&"x".repeat(NAME_MAX)).is_ok());
        for text in [
            "",
            "a b",
            "a=b",
            "a%b",
            "é",
            "a\n",
            &"x".repeat(NAME_MAX + 1),
        ] {
            assert!(Name::parse(text).is_err(), "{text}");
        }
    }
}
