//! The configuration: what may stand in the TOML, and what it defaults to.
//!
//! docs/ecm.md describes each key for those who write one. A configuration
//! that was read is whole and valid: nothing later has to ask again.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use serde::Deserialize;

use crate::values::{BackendAddress, ListenAddress, Name, Number, Period};

/// The largest configuration, in bytes: far more than the listeners of any
/// machine need, and small enough to read without a thought.
pub const CONFIG_MAX: usize = 1024 * 1024;

/// The largest `max_frame` and content of a frame, in bytes: a frame is one
/// piece of work on both sides, and 16 MiB is a long one already.
const FRAME_MAX: u64 = 16 * 1024 * 1024;

/// The largest `window`, in bytes, as the protocol's credit is counted.
const WINDOW_MAX: u64 = megaphone_proto::limits::MAX_WINDOW as u64;

/// The smallest `max_frame`, in bytes: any control message must fit one frame.
const FRAME_MIN: u64 = megaphone_proto::limits::MIN_MAX_CONTENT as u64;

const SECOND: u64 = 1000;
const HOUR: u64 = 3600 * SECOND;

/// All that an ECM is told.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What this ECM calls itself to ejabberd.
    #[serde(default = "default_name")]
    pub name: Name,
    /// The version of the link protocol to speak.
    #[serde(default = "Number::of::<2>")]
    pub protocol: Number<1, 2>,
    /// How many links are kept up.
    #[serde(default = "Number::of::<1>")]
    pub links: Number<1, 64>,
    /// What ejabberd may send to one client ahead of what the client has
    /// taken, in bytes.
    #[serde(default = "Number::of::<{ megaphone_proto::limits::DEFAULT_WINDOW as u64 }>")]
    pub window: Number<1024, WINDOW_MAX>,
    /// The largest content taken in one frame, in bytes.
    #[serde(default = "Number::of::<{ megaphone_proto::limits::DEFAULT_MAX_CONTENT as u64 }>")]
    pub max_frame: Number<FRAME_MIN, FRAME_MAX>,
    /// How long a client that comes while no link is up waits for one.
    #[serde(default = "Period::millis::<2000>")]
    pub connect_wait: Period<0, { 60 * SECOND }>,
    /// How many clients may wait so at a time.
    #[serde(default = "Number::of::<1024>")]
    pub max_waiting: Number<0, 1_000_000>,
    /// How many clients are held at a time; `None`: as many as open files
    /// allow.
    pub max_clients: Option<Number<1, 100_000_000>>,
    /// How often the other end of a link is asked whether it lives.
    #[serde(default = "Period::millis::<10_000>")]
    pub heartbeat: Period<100, HOUR>,
    /// How long a client may take over what was sent to it before ejabberd
    /// closed the connection.
    #[serde(default = "Period::millis::<30_000>")]
    pub close_timeout: Period<100, HOUR>,
    /// The longest a shutdown takes.
    #[serde(default = "Period::millis::<5000>")]
    pub shutdown_timeout: Period<100, HOUR>,
    /// Threads that carry bytes; `None`: one for each processor.
    pub workers: Option<Number<1, 1024>>,
    /// Where ejabberd is.
    pub backend: Backend,
    /// Where clients come in. At least one.
    #[serde(default)]
    pub listeners: Vec<Listener>,
    /// What is logged and how.
    #[serde(default)]
    pub log: Log,
}

/// Where ejabberd is, and how it is dialled.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// Where it listens for links.
    pub address: BackendAddress,
    /// The longest a dial, with the handshake, may take.
    #[serde(default = "Period::millis::<5000>")]
    pub connect_timeout: Period<100, HOUR>,
    /// The first pause before a link is dialled again.
    #[serde(default = "Period::millis::<100>")]
    pub reconnect_min: Period<1, HOUR>,
    /// The longest pause before a link is dialled again.
    #[serde(default = "Period::millis::<10_000>")]
    pub reconnect_max: Period<1, HOUR>,
}

/// One address that clients connect to.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// The address.
    pub listen: toml::Spanned<ListenAddress>,
    /// The service of ejabberd's listener that its clients are given to.
    pub service: Name,
    /// How a client is told that there is no service.
    #[serde(default)]
    pub kind: Kind,
    /// Connections that the kernel holds for us before they are accepted.
    #[serde(default = "Number::of::<1024>")]
    pub backlog: Number<1, 65_535>,
}

/// What clients of a listener speak.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// HTTP/1: a client that must be refused is answered with a 503.
    Http,
    /// Anything: a client that must be refused is just closed.
    #[default]
    Tcp,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "http",
            Self::Tcp => "tcp",
        })
    }
}

/// What is logged and how.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// The least important lines that are written.
    pub level: Level,
    /// The shape of a line. As a port program always [`Format::Plain`].
    pub format: Format,
}

/// How important a line is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Something does not work and stays so until someone helps.
    Error,
    /// Something went wrong and was dealt with.
    Warn,
    /// Links and listeners that come and go.
    #[default]
    Info,
    /// Each connection.
    Debug,
}

/// The shape of a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Time, level, message.
    #[default]
    Text,
    /// Level and message, for what adds the time itself (the journal, a port).
    Plain,
}

fn default_name() -> Name {
    Name::parse("ecm").expect("a name")
}

/// Why a configuration cannot be used. Each is shown as one sentence that
/// begins with where it is.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("{file}: {reason}")]
    Read {
        /// The file, as it was named.
        file: String,
        /// What the system said.
        reason: String,
    },
    /// Something in the text is wrong.
    #[error("{file}:{line}:{column}: {}{message}", key.as_deref().map(|k| format!("{k}: ")).unwrap_or_default())]
    Text {
        /// The file, as it was named.
        file: String,
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
        /// The key as in `backend.address` or `listeners[0].listen`, where
        /// one is concerned.
        key: Option<String>,
        /// What is wrong.
        message: String,
    },
}

impl Config {
    /// Reads and checks the configuration in `file`.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let name = file.display().to_string();
        let wrong = |reason: String| ConfigError::Read {
            file: name.clone(),
            reason,
        };
        let bytes = std::fs::read(file).map_err(|e| wrong(e.to_string()))?;
        if bytes.len() > CONFIG_MAX {
            return Err(wrong(format!(
                "a configuration may have {CONFIG_MAX} bytes, this one has {}",
                bytes.len()
            )));
        }
        let text = String::from_utf8(bytes).map_err(|_| wrong("not UTF-8 text".to_owned()))?;
        Self::parse(&name, &text)
    }

    /// Reads and checks `text`; errors say that it stood in `file`.
    pub fn parse(file: &str, text: &str) -> Result<Self, ConfigError> {
        let syntax =
            |error: toml::de::Error| error_at(file, text, error.span(), None, error.message());
        let input = toml::Deserializer::parse(text).map_err(syntax)?;
        let config: Self = serde_path_to_error::deserialize(input).map_err(|error| {
            // A value that knows its place is wrapped in one field.
            let key = error
                .path()
                .to_string()
                .replace(".$__serde_spanned_private_value", "");
            let error = error.into_inner();
            error_at(
                file,
                text,
                error.span(),
                (key != ".").then_some(key),
                error.message(),
            )
        })?;
        config.check(file, text)?;
        Ok(config)
    }

    /// What no single value shows.
    fn check(&self, file: &str, text: &str) -> Result<(), ConfigError> {
        if self.listeners.is_empty() {
            return Err(error_at(
                file,
                text,
                None,
                Some("listeners".into()),
                "at least one [[listeners]] is needed",
            ));
        }
        if self.backend.reconnect_min.get() > self.backend.reconnect_max.get() {
            let message = format!(
                "{} is more than reconnect_max, {}",
                self.backend.reconnect_min, self.backend.reconnect_max
            );
            return Err(error_at(
                file,
                text,
                None,
                Some("backend.reconnect_min".into()),
                &message,
            ));
        }
        self.check_duplicates(file, text)
    }

    fn check_duplicates(&self, file: &str, text: &str) -> Result<(), ConfigError> {
        let mut seen = HashMap::new();
        for (at, listener) in self.listeners.iter().enumerate() {
            let address = listener.listen.get_ref().0;
            // Port 0 is another port each time.
            if address.port() == 0 {
                continue;
            }
            if let Some(first) = seen.insert(address, at) {
                let message = format!("{address} is already the address of listeners[{first}]");
                let key = format!("listeners[{at}].listen");
                return Err(error_at(
                    file,
                    text,
                    Some(listener.listen.span()),
                    Some(key),
                    &message,
                ));
            }
        }
        Ok(())
    }
}

/// The error whose place is the byte range `span` of `text`. Without one the
/// place of the key's last part is looked for, and else it is the beginning.
fn error_at(
    file: &str,
    text: &str,
    span: Option<std::ops::Range<usize>>,
    key: Option<String>,
    message: &str,
) -> ConfigError {
    let at = span
        .map(|s| s.start)
        .or_else(|| place_of(text, key.as_deref()?))
        .unwrap_or(0);
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |n| n + 1);
    ConfigError::Text {
        file: file.to_owned(),
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
        key,
        message: message.trim_end().replace('\n', " "),
    }
}

/// Where a line of `text` begins with the last part of `key`.
fn place_of(text: &str, key: &str) -> Option<usize> {
    let last = key.rsplit('.').next()?;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if line.trim_start().starts_with(last) {
            return Some(at);
        }
        at += line.len();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALLEST: &str = "[backend]\naddress = \"127.0.0.1:6280\"\n[[listeners]]\nlisten = \"127.0.0.1:5280\"\nservice = \"http\"\n";

    fn error(text: &str) -> String {
        Config::parse("ecm.toml", text).unwrap_err().to_string()
    }

    #[test]
    fn the_smallest_configuration_has_the_documented_defaults() {
        let config = Config::parse("ecm.toml", SMALLEST).unwrap();
        assert_eq!(config.name.as_str(), "ecm");
        assert_eq!(config.protocol.get(), 2);
        assert_eq!(config.links.get(), 1);
        assert_eq!(config.window.get(), 16_384);
        assert_eq!(config.max_frame.get(), 65_536);
        assert_eq!(config.connect_wait.to_string(), "2s");
        assert_eq!(config.max_waiting.get(), 1024);
        assert_eq!(config.max_clients, None);
        assert_eq!(config.heartbeat.to_string(), "10s");
        assert_eq!(config.close_timeout.to_string(), "30s");
        assert_eq!(config.shutdown_timeout.to_string(), "5s");
        assert_eq!(config.backend.connect_timeout.to_string(), "5s");
        assert_eq!(config.backend.reconnect_min.to_string(), "100ms");
        assert_eq!(config.backend.reconnect_max.to_string(), "10s");
        assert_eq!(config.listeners[0].kind, Kind::Tcp);
        assert_eq!(config.listeners[0].backlog.get(), 1024);
        assert_eq!(config.log.level, Level::Info);
        assert_eq!(config.log.format, Format::Text);
    }

    #[test]
    fn the_example_is_valid() {
        Config::parse("ecm.example.toml", include_str!("../ecm.example.toml")).unwrap();
    }

    #[test]
    fn an_error_names_file_line_and_key() {
        let with = |line: &str| error(&format!("{line}\n{SMALLEST}"));
        assert_eq!(
            with("links = 0"),
            "ecm.toml:1:9: links: 0 is not a number from 1 to 64"
        );
        assert_eq!(
            with("links = -1"),
            "ecm.toml:1:9: links: -1 is not a number from 1 to 64"
        );
        assert_eq!(
            with("links = \"two\""),
            "ecm.toml:1:9: links: invalid type: string \"two\", expected i64"
        );
        assert_eq!(
            with("protocol = 3"),
            "ecm.toml:1:12: protocol: 3 is not a number from 1 to 2"
        );
        assert_eq!(
            with("heartbeat = 10"),
            "ecm.toml:1:13: heartbeat: 10 has no unit: write \"10s\" or \"10ms\""
        );
        assert_eq!(
            with("heartbeat = \"soon\""),
            "ecm.toml:1:13: heartbeat: invalid value: string \"soon\", expected a duration with its unit, such as \"2s\" or \"500ms\""
        );
        assert_eq!(
            with("heartbeat = \"10ms\""),
            "ecm.toml:1:13: heartbeat: 10ms is not a duration from 100ms to 1h"
        );
        assert_eq!(
            with("name = \"my edge\""),
            "ecm.toml:1:8: name: \"my edge\" is not a name: 1 to 128 letters, digits and the characters . - _ : @"
        );
        assert!(
            with("link = 1")
                .starts_with("ecm.toml:1:1: link: unknown field `link`, expected one of `name`, ")
        );
        assert_eq!(
            with("\nlinks = = 1"),
            "ecm.toml:2:9: extra `=`, expected nothing"
        );
    }

    #[test]
    fn an_error_in_a_listener_names_the_listener() {
        let with = |line: &str| error(&format!("{SMALLEST}{line}\n"));
        assert_eq!(
            with("[[listeners]]\nservice = \"c2s\"\nlisten = \"localhost:5222\""),
            "ecm.toml:8:10: listeners[1].listen: \"localhost:5222\" is not an IP address and a port, such as \"0.0.0.0:5280\" or \"[::]:5280\""
        );
        assert_eq!(
            with("[[listeners]]\nservice = \"c2s\"\nlisten = \"127.0.0.1:5280\""),
            "ecm.toml:8:10: listeners[1].listen: 127.0.0.1:5280 is already the address of listeners[0]"
        );
        assert_eq!(
            with("kind = \"https\""),
            "ecm.toml:6:8: listeners[0].kind: unknown variant `https`, expected `http` or `tcp`"
        );
        assert_eq!(
            with("[[listeners]]\nservice = \"c2s\""),
            "ecm.toml:6:1: listeners[1]: missing field `listen`"
        );
    }

    #[test]
    fn port_0_may_stand_twice() {
        let text = "[backend]\naddress = \"unix:/x\"\n[[listeners]]\nlisten = \"127.0.0.1:0\"\nservice = \"a\"\n\
                    [[listeners]]\nlisten = \"127.0.0.1:0\"\nservice = \"b\"\n";
        assert_eq!(Config::parse("-", text).unwrap().listeners.len(), 2);
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(error("links = 1"), "ecm.toml:1:1: missing field `backend`");
        assert_eq!(
            error("[backend]\naddress = \"127.0.0.1:6280\""),
            "ecm.toml:1:1: listeners: at least one [[listeners]] is needed"
        );
        assert_eq!(
            error("[backend]\naddress = \"127.0.0.1\""),
            "ecm.toml:2:11: backend.address: \"127.0.0.1\" is neither HOST:PORT, such as \"127.0.0.1:6280\", nor unix:PATH, such as \"unix:/run/ejabberd/megaphone.sock\""
        );
        assert_eq!(
            error(&SMALLEST.replace("6280\"", "6280\"\nreconnect_min = \"20s\"")),
            "ecm.toml:3:1: backend.reconnect_min: 20s is more than reconnect_max, 10s"
        );
    }
}
