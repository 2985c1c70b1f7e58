//! A line now and then that says how far it is: each second on a terminal, over the last one; else
//! each ten seconds, below it.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::fleet::Progress;
use crate::users::format::time;

/// How often there is a line that stays.
const SELDOM: Duration = Duration::from_secs(10);

/// Says on standard error how far it is.
#[derive(Debug, Clone)]
pub(super) struct Line {
    quiet: bool,
    terminal: bool,
    start: Instant,
    said: Instant,
    what: &'static str,
    sent: u64,
    last: Instant,
}

impl Line {
    pub(super) fn new(quiet: bool) -> Self {
        let now = Instant::now();
        Self {
            quiet,
            terminal: io::stderr().is_terminal(),
            start: now,
            said: now,
            what: "",
            sent: 0,
            last: now,
        }
    }

    /// Another part begins.
    pub(super) fn begin(&mut self, what: &'static str) {
        self.what = what;
        self.sent = 0;
        self.last = Instant::now();
    }

    /// How far it is.
    pub(super) fn say(&mut self, progress: &Progress) {
        let counts = progress.counts;
        let seconds = self.last.elapsed().as_secs_f64();
        let sent = counts.sent.saturating_sub(self.sent) as f64 / seconds.max(0.001);
        self.sent = counts.sent;
        self.last = Instant::now();
        if self.quiet || !(self.terminal || self.said.elapsed() >= SELDOM) {
            return;
        }
        self.said = Instant::now();
        let mut line = format!(
            "{:>5.0} s  {}: {} online",
            self.start.elapsed().as_secs_f64(),
            self.what,
            progress.online
        );
        if counts.sent > 0 {
            line += &format!(", {sent:.0} messages/s, {} under way", counts.unseen);
        }
        if progress.latency.count > 0 {
            let latency = progress.latency;
            line += &format!(", p50 {}, p99 {}", time(latency.p50), time(latency.p99));
        }
        let wrong = counts.doubled + counts.disordered + counts.damaged;
        for (count, what) in [(progress.failed, "failed"), (wrong, "messages went wrong")] {
            if count > 0 {
                line += &format!(", {count} {what}");
            }
        }
        let mut stderr = io::stderr().lock();
        // A progress line that nobody can see is not worth an error.
        let _ = match self.terminal {
            true => write!(stderr, "\r\x1b[K{line}"),
            false => writeln!(stderr, "{line}"),
        };
        let _ = stderr.flush();
    }

    /// No more lines: what follows begins a line of its own.
    pub(super) fn end(&self) {
        if self.terminal && !self.quiet {
            eprint!("\r\x1b[K");
        }
    }
}
