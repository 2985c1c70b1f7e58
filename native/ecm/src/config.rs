//! The configuration: what may stand in the TOML, and what it defaults to.
//!
//! docs/ecm.md describes each key for those who write one. A configuration
//! that was read is whole and valid: nothing later has to ask again.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::path::Path;

use serde::Deserialize;
use toml::Spanned;

use crate::backend::Backend;
use crate::balance::Balance;
use crate::values::{ListenAddress, Name, Number, Period, Seconds};
use crate::wrong::{ConfigError, Wrong, error_at};

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

/// The smallest `resume_buffer`, in bytes: what may come between two
/// acknowledgements.
const RESUME_BUFFER_MIN: u64 = megaphone_proto::limits::ACK_EVERY;

/// The largest `resume_buffer`, in bytes: each link may take as much memory.
const RESUME_BUFFER_MAX: u64 = 1024 * 1024 * 1024;

/// The smallest `max_buffered`, in bytes: less would reset clients that only
/// load a picture.
const BUFFERED_MIN: u64 = 1024 * 1024;

/// The largest `max_buffered`, in bytes: more than machines have.
const BUFFERED_MAX: u64 = 1 << 40;

/// `max_buffered` unless configured otherwise, in bytes: the
/// windows of 65,536 clients that all stall at a time.
const BUFFERED: u64 = 1024 * 1024 * 1024;

/// How many nodes one ECM may have links to: no ejabberd cluster has as many.
const BACKENDS_MAX: usize = 64;

/// In the milliseconds of a [`Period`].
pub const SECOND: u64 = 1000;
/// In the milliseconds of a [`Period`].
pub const HOUR: u64 = 3600 * SECOND;

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
    /// How many links are kept up to each backend.
    #[serde(default = "Number::of::<1>")]
    pub links: Number<1, 64>,
    /// By what a client's backend is chosen.
    #[serde(default)]
    pub balance: Balance,
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
    /// How many connections are opened in a second; `None`: as they come.
    pub open_rate: Option<Number<1, 1_000_000>>,
    /// How many clients are held at a time; `None`: as many as open files
    /// allow.
    pub max_clients: Option<Number<1, 100_000_000>>,
    /// What may be held for all clients together, in bytes.
    #[serde(default = "Number::of::<BUFFERED>")]
    pub max_buffered: Number<BUFFERED_MIN, BUFFERED_MAX>,
    /// How often the other end of a link is asked whether it lives.
    #[serde(default = "Period::millis::<10_000>")]
    pub heartbeat: Period<100, HOUR>,
    /// How long a link that dropped is kept for resuming, in whole seconds.
    #[serde(default = "Seconds::of::<{ megaphone_proto::limits::RESUME_TIMEOUT_DEFAULT as u64 }>")]
    pub resume_timeout: Seconds<HOUR>,
    /// What a link keeps for resuming at most, in bytes.
    #[serde(default = "Number::of::<{ megaphone_proto::limits::RESUME_BUFFER_DEFAULT as u64 }>")]
    pub resume_buffer: Number<RESUME_BUFFER_MIN, RESUME_BUFFER_MAX>,
    /// How long a client may take over what was sent to it before ejabberd
    /// closed the connection.
    #[serde(default = "Period::millis::<30_000>")]
    pub close_timeout: Period<100, HOUR>,
    /// How long clients may stay once the program is told to end.
    #[serde(default = "Period::millis::<5000>")]
    pub drain_time: Period<0, HOUR>,
    /// The longest that the end takes after that.
    #[serde(default = "Period::millis::<5000>")]
    pub shutdown_timeout: Period<100, HOUR>,
    /// Threads that carry bytes; `None`: one for each processor.
    pub workers: Option<Number<1, 1024>>,
    /// Where ejabberd is, where it is one node.
    backend: Option<Spanned<Backend>>,
    /// Where the nodes of ejabberd are. One at least, once it was checked.
    #[serde(default)]
    backends: Vec<Spanned<Backend>>,
    /// Where clients come in. At least one.
    #[serde(default)]
    pub listeners: Vec<Listener>,
    /// What is logged and how.
    #[serde(default)]
    pub log: Log,
}

/// One address that clients connect to.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// The address.
    pub listen: Spanned<ListenAddress>,
    /// The service of ejabberd's listener that its clients are given to.
    pub service: Name,
    /// How a client is told that there is no service.
    #[serde(default)]
    pub kind: Kind,
    /// Connections that the kernel holds for us before they are accepted.
    #[serde(default = "Number::of::<1024>")]
    pub backlog: Number<1, 65_535>,
    /// Bytes that the kernel holds of what was written to a client; without
    /// it, as many as it finds right.
    pub send_buffer: Option<Number<4_096, 0x3fff_ffff>>,
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
        let mut config: Self = serde_path_to_error::deserialize(input).map_err(|error| {
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
        config.check().map_err(|wrong| wrong.in_text(file, text))?;
        config.backends.extend(config.backend.take());
        Ok(config)
    }

    /// The nodes of ejabberd, one at least.
    pub fn backends(&self) -> impl ExactSizeIterator<Item = &Backend> {
        self.backends.iter().map(Spanned::get_ref)
    }

    /// How many links are kept up to all backends.
    pub fn all_links(&self) -> usize {
        self.backends.len() * self.links.as_usize()
    }

    /// Which backend, from 0, link `number` goes to: links are numbered from
    /// 1, first those of the first backend.
    pub fn backend_at(&self, number: usize) -> usize {
        (number.saturating_sub(1) / self.links.as_usize()).min(self.backends.len() - 1)
    }

    /// The backend of link `number`.
    pub fn backend_of(&self, number: usize) -> &Backend {
        self.backends[self.backend_at(number)].get_ref()
    }

    /// What no single value shows.
    fn check(&self) -> Result<(), Wrong> {
        if self.listeners.is_empty() {
            let message = "at least one [[listeners]] is needed";
            return Err(Wrong::somewhere("listeners", message));
        }
        self.check_backends()?;
        self.check_version_1()?;
        let addresses = self.listeners.iter().map(|listener| &listener.listen);
        // Port 0 is another port each time.
        let fixed = addresses.map(|address| (address.get_ref().0.port() != 0).then_some(address));
        check_distinct(fixed, "listeners", "listen")
    }

    /// Version 1 has no message to prove anything with.
    fn check_version_1(&self) -> Result<(), Wrong> {
        let backends = self.backend.iter().chain(&self.backends);
        let mut secret_files = backends.filter_map(|one| one.get_ref().secret_file.as_ref());
        match (self.protocol.get(), secret_files.next()) {
            (1, Some(_)) => {
                let message = "version 1 of the protocol has no way to prove a secret";
                Err(Wrong::somewhere("secret_file", message))
            }
            _ => Ok(()),
        }
    }

    fn check_backends(&self) -> Result<(), Wrong> {
        let message = match (&self.backend, self.backends.len()) {
            (Some(_), 0) | (None, 1..=BACKENDS_MAX) => None,
            (None, 0) => Some("[backend], or [[backends]] for each of several, is needed".into()),
            (Some(_), _) => Some("either [backend] or [[backends]] may stand there".into()),
            (None, many) => Some(format!("{many} backends are more than {BACKENDS_MAX}")),
        };
        if let Some(message) = message {
            return Err(Wrong::somewhere("backend", message));
        }
        for (at, backend) in self.backends.iter().enumerate() {
            let inside = |wrong: Wrong| wrong.inside(format!("backends[{at}]"), backend.span());
            backend.get_ref().check().map_err(inside)?;
        }
        if let Some(backend) = &self.backend {
            let inside = |wrong: Wrong| wrong.inside("backend".to_owned(), backend.span());
            backend.get_ref().check().map_err(inside)?;
        }
        let addresses = self.backends.iter().map(|one| Some(&one.get_ref().address));
        check_distinct(addresses, "backends", "address")
    }
}

/// No two tables of an array may have the same value at one key.
fn check_distinct<'a, T: Eq + Hash + fmt::Display + 'a>(
    values: impl Iterator<Item = Option<&'a Spanned<T>>>,
    array: &str,
    key: &str,
) -> Result<(), Wrong> {
    let mut seen = HashMap::new();
    for (at, value) in values.enumerate() {
        let Some(value) = value else { continue };
        if let Some(first) = seen.insert(value.get_ref(), at) {
            let message = format!(
                "{} is already the address of {array}[{first}]",
                value.get_ref()
            );
            return Err(Wrong::at(
                value.span(),
                format!("{array}[{at}].{key}"),
                message,
            ));
        }
    }
    Ok(())
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
        assert_eq!(config.balance, Balance::Fewest);
        assert_eq!(config.open_rate, None);
        assert_eq!(config.drain_time.to_string(), "5s");
        assert_eq!(config.max_clients, None);
        assert_eq!(config.max_buffered.get(), 1024 * 1024 * 1024);
        assert_eq!(config.heartbeat.to_string(), "10s");
        assert_eq!(config.close_timeout.to_string(), "30s");
        assert_eq!(config.shutdown_timeout.to_string(), "5s");
        assert_eq!(config.resume_timeout.as_u32(), 30);
        assert_eq!(config.resume_buffer.get(), 16 * 1024 * 1024);
        let backend = config.backend_of(1);
        assert_eq!(backend.connect_timeout.to_string(), "5s");
        assert_eq!(backend.reconnect_min.to_string(), "100ms");
        assert_eq!(backend.reconnect_max.to_string(), "10s");
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
        let listener = "[[listeners]]\nlisten = \"127.0.0.1:0\"\nservice = \"a\"\n";
        assert_eq!(
            error(listener),
            "ecm.toml:1:1: backend: [backend], or [[backends]] for each of several, is needed"
        );
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

    fn two_backends(first: &str, second: &str) -> String {
        format!(
            "links = 3\n[[backends]]\naddress = \"one:6280\"\n{first}\n[[backends]]\naddress = \"two:6280\"\n{second}\n\
             [[listeners]]\nlisten = \"127.0.0.1:0\"\nservice = \"a\"\n"
        )
    }

    #[test]
    fn links_are_numbered_backend_by_backend() {
        let config = Config::parse("-", &two_backends("", "")).unwrap();
        assert_eq!((config.backends().len(), config.all_links()), (2, 6));
        let address = |number| config.backend_of(number).address().to_string();
        assert_eq!(
            (address(1), address(3)),
            ("one:6280".into(), "one:6280".into())
        );
        assert_eq!(
            (address(4), address(6)),
            ("two:6280".into(), "two:6280".into())
        );
    }

    #[test]
    fn an_error_in_a_backend_names_the_backend() {
        assert_eq!(
            error(&two_backends(
                "reconnect_min = \"1s\"",
                "reconnect_min = \"20s\""
            )),
            "ecm.toml:7:1: backends[1].reconnect_min: 20s is more than reconnect_max, 10s"
        );
        assert_eq!(
            error(&two_backends("", "").replace("two", "one")),
            "ecm.toml:6:11: backends[1].address: one:6280 is already the address of backends[0]"
        );
        assert_eq!(
            error(&format!("{SMALLEST}[[backends]]\naddress = \"unix:/x\"\n")),
            "ecm.toml:1:1: backend: either [backend] or [[backends]] may stand there"
        );
        let many: String = (0..=BACKENDS_MAX)
            .map(|n| format!("[[backends]]\naddress = \"host-{n}:1\"\n"))
            .collect();
        let listener = "[[listeners]]\nlisten = \"127.0.0.1:0\"\nservice = \"a\"\n";
        assert_eq!(
            error(&format!("{many}{listener}")),
            "ecm.toml:1:1: backend: 65 backends are more than 64"
        );
    }

    #[test]
    fn a_resume_timeout_is_whole_seconds() {
        let with = |line: &str| error(&format!("{line}\n{SMALLEST}"));
        assert_eq!(
            with("resume_timeout = \"1500ms\""),
            "ecm.toml:1:18: resume_timeout: 1s 500ms is not a whole number of seconds"
        );
        assert_eq!(
            with("resume_timeout = \"2h\""),
            "ecm.toml:1:18: resume_timeout: 2h is not a duration from 0s to 1h"
        );
        let never = format!("resume_timeout = \"0s\"\n{SMALLEST}");
        assert_eq!(
            Config::parse("-", &never).unwrap().resume_timeout.as_u32(),
            0
        );
    }

    #[test]
    fn what_proves_nothing_is_refused() {
        let with = |lines: &str| {
            error(&SMALLEST.replace("[[listeners]]", &format!("{lines}\n[[listeners]]")))
        };
        assert_eq!(
            with("secret_file = \"/does/not/exist\""),
            "ecm.toml:3:1: backend.secret_file: /does/not/exist: No such file or directory (os error 2)"
        );
        assert_eq!(
            with("[backend.tls]\nca_file = \"/does/not/exist\""),
            "ecm.toml:4:1: backend.tls.ca_file: /does/not/exist: No such file or directory (os error 2)"
        );
        assert_eq!(
            with("[backend.tls]\nverify = false"),
            "ecm.toml:4:1: backend.tls.verify: unknown field `verify`, expected one of `ca_file`, `cert_file`, `key_file`, `server_name`"
        );
        let on_unix = SMALLEST.replace(
            "127.0.0.1:6280\"",
            "unix:/x\"\n[backend.tls]\nca_file = \"/x\"",
        );
        assert_eq!(
            error(&on_unix),
            "ecm.toml:1:1: backend.tls: a Unix socket has no TLS: its permissions say who may dial"
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "0123456789abcdef").unwrap();
        let secret = format!("secret_file = \"{}\"", file.path().display());
        let version_1 = format!("protocol = 1\n{SMALLEST}")
            .replace("[[listeners]]", &format!("{secret}\n[[listeners]]"));
        assert_eq!(
            error(&version_1),
            "ecm.toml:4:1: secret_file: version 1 of the protocol has no way to prove a secret"
        );
    }
}
