//! Where log lines go and what they look like.
//!
//! A line is one sentence. One about a link begins `link N`, one about a
//! client's connection `connection ID` with all 20 digits of the id, so that
//! `grep` finds the same connection in ejabberd's log.
//!
//! A writer that is slow (a terminal that is stopped, a port that is not
//! read) must not stop the threads that carry bytes: lines wait in a bounded
//! queue, and beyond [`LINES_MAX`] they are dropped.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use tracing::level_filters::LevelFilter;
use tracing::{Event, Level as TracingLevel, Subscriber};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::config::{Format, Level};

/// How many lines wait for the writer at most.
const LINES_MAX: usize = 8192;

/// The longest plain line, in bytes: Erlang reads a port's lines with
/// `{line, 8192}`, and a line cut in two would lose its level.
const LINE_MAX: usize = 4096;

/// Where log lines are written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A daemon's.
    Stderr,
    /// A port program's: Erlang reads it.
    Stdout,
}

/// Starts logging. What is returned must live as long as the program: when
/// it is dropped, the lines that wait are written.
pub fn start(target: Target, level: Level, format: Format) -> WorkerGuard {
    let (writer, guard) = match target {
        Target::Stderr => queue(std::io::stderr()),
        Target::Stdout => queue(std::io::stdout()),
    };
    let lines = tracing_subscriber::fmt()
        .with_max_level(filter(level))
        .with_writer(writer);
    match format {
        Format::Text => lines.with_ansi(false).with_target(false).init(),
        Format::Plain => lines.event_format(Plain).init(),
    }
    guard
}

fn queue(to: impl std::io::Write + Send + 'static) -> (NonBlocking, WorkerGuard) {
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(LINES_MAX)
        .lossy(true)
        .thread_name("log")
        .finish(to);
    let _ = DROPPED.set(writer.error_counter());
    (writer, guard)
}

/// Lines that were dropped because the writer is slow.
static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// How many lines were dropped because as many waited as may.
pub fn dropped_lines() -> usize {
    DROPPED.get().map_or(0, ErrorCounter::dropped_lines)
}

fn filter(level: Level) -> LevelFilter {
    match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
    }
}

/// `level message`, and nothing else.
struct Plain;

impl<S, N> FormatEvent<S, N> for Plain
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut message = String::new();
        context
            .field_format()
            .format_fields(Writer::new(&mut message), event)?;
        write_plain(&mut out, *event.metadata().level(), &message)
    }
}

/// Writes one line: what would break it is replaced, what is too long cut.
fn write_plain(out: &mut impl fmt::Write, level: TracingLevel, message: &str) -> fmt::Result {
    let level = match level {
        TracingLevel::ERROR => "error",
        TracingLevel::WARN => "warn",
        TracingLevel::INFO => "info",
        _ => "debug",
    };
    let cut = message.floor_char_boundary(LINE_MAX);
    write!(out, "{level} ")?;
    for c in message[..cut].chars() {
        out.write_char(if c.is_control() { '?' } else { c })?;
    }
    out.write_char('\n')
}

/// Lets a line through once in an interval, for what can go wrong very often.
#[derive(Debug)]
pub struct Seldom {
    interval: Duration,
    last: Mutex<Option<Instant>>,
}

impl Seldom {
    /// At most one line in each `interval`.
    pub const fn every(interval: Duration) -> Self {
        Self {
            interval,
            last: Mutex::new(None),
        }
    }

    /// Whether a line may be written now.
    pub fn may(&self) -> bool {
        let now = Instant::now();
        let mut last = crate::sync::lock(&self.last);
        let due = last.is_none_or(|then| now.duration_since(then) >= self.interval);
        if due {
            *last = Some(now);
        }
        due
    }
}

/// How often something happened that is logged once a second at most: a
/// bound that was reached, as a rule.
#[derive(Debug)]
pub struct Hits {
    count: AtomicU64,
    seldom: Seldom,
}

impl Hits {
    /// None yet.
    pub const fn new() -> Self {
        Self {
            count: AtomicU64::new(0),
            seldom: Seldom::every(Duration::from_secs(1)),
        }
    }

    /// It happened again. Returns how often it did, when that may be logged.
    pub fn hit(&self) -> Option<u64> {
        let count = self.count.fetch_add(1, Relaxed) + 1;
        self.seldom.may().then_some(count)
    }

    /// How often it happened.
    pub fn count(&self) -> u64 {
        self.count.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(level: TracingLevel, message: &str) -> String {
        let mut line = String::new();
        write_plain(&mut line, level, message).unwrap();
        line
    }

    #[test]
    fn a_plain_line_is_level_and_message() {
        assert_eq!(plain(TracingLevel::INFO, "link 1 up"), "info link 1 up\n");
        assert_eq!(plain(TracingLevel::TRACE, "x"), "debug x\n");
    }

    #[test]
    fn nothing_breaks_or_floods_a_plain_line() {
        assert_eq!(plain(TracingLevel::WARN, "a\nb\x1bc"), "warn a?b?c\n");
        let line = plain(TracingLevel::ERROR, &"é".repeat(LINE_MAX));
        assert_eq!(line.len(), "error ".len() + LINE_MAX + 1);
    }

    #[test]
    fn hits_are_all_counted_and_not_all_logged() {
        let hits = Hits {
            count: AtomicU64::new(0),
            seldom: Seldom::every(Duration::from_secs(3600)),
        };
        assert_eq!(hits.hit(), Some(1));
        assert_eq!(hits.hit(), None);
        assert_eq!(hits.count(), 2);
    }

    #[test]
    fn seldom_lets_the_first_through_and_holds_the_next() {
        let seldom = Seldom::every(Duration::from_secs(3600));
        assert!(seldom.may());
        assert!(!seldom.may());
    }
}
