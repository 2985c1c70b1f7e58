//! A program that was started, with its output in a file. It is killed when its value is dropped, when this program
//! is told to end, and by the kernel when this program dies any other way (`PR_SET_PDEATHSIG`).

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::error::{Error, Result};

/// How often is looked whether something is ready.
const LOOK: Duration = Duration::from_millis(20);

/// All that run now, for who ends in a hurry.
static RUNNING: Mutex<Vec<(u32, Signal)>> = Mutex::new(Vec::new());

/// A program that was started.
#[derive(Debug)]
pub struct Child {
    process: std::process::Child,
    name: String,
    log: PathBuf,
    end: Signal,
}

impl Child {
    /// Starts `command`, made by [`crate::bench::Bench::bound`]; what it prints goes to `dir/name.log`. Only the
    /// main thread may do this: the kernel kills the program when the thread that started it ends.
    pub fn start(mut command: Command, dir: &Path, name: &str) -> Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let file = File::create(&log).map_err(|error| Error::of(log.display(), error))?;
        command
            .stdout(file.try_clone()?)
            .stderr(file)
            .stdin(Stdio::null());
        Self::spawn(command, log, name)
    }

    /// As [`Child::start`], with standard input and output as pipes to the caller; standard error goes to the file.
    pub fn start_piped(mut command: Command, dir: &Path, name: &str) -> Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let file = File::create(&log).map_err(|error| Error::of(log.display(), error))?;
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(file);
        Self::spawn(command, log, name)
    }

    fn spawn(mut command: Command, log: PathBuf, name: &str) -> Result<Self> {
        let process = command.spawn().map_err(|error| Error::of(name, error))?;
        let end = Signal::KILL;
        running().push((process.id(), end));
        Ok(Self {
            process,
            name: name.to_owned(),
            log,
            end,
        })
    }

    /// Another signal to end it with than the one that cannot be refused.
    pub fn ends_by(mut self, signal: Signal) -> Self {
        self.end = signal;
        running()
            .iter_mut()
            .filter(|(pid, _)| *pid == self.pid())
            .for_each(|(_, end)| *end = signal);
        self
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// What to write to it with, of one that was started with pipes; once.
    pub fn take_stdin(&mut self) -> Option<std::process::ChildStdin> {
        self.process.stdin.take()
    }

    /// What to read from it with, of one that was started with pipes; once.
    pub fn take_stdout(&mut self) -> Option<std::process::ChildStdout> {
        self.process.stdout.take()
    }

    /// Has it end by a signal and waits until it has.
    pub fn end_with(&mut self, signal: Signal) -> Result<()> {
        send(self.pid(), signal);
        self.process.wait()?;
        Ok(())
    }

    /// Waits until `ready` says so. The error has the last of its output: it ended, or `patience` is over.
    pub fn wait(
        &mut self,
        what: &str,
        patience: Duration,
        mut ready: impl FnMut() -> bool,
    ) -> Result<()> {
        let began = Instant::now();
        while !ready() {
            if let Some(status) = self.process.try_wait()? {
                return Err(Error(format!(
                    "{} ended ({status}) before {what}: {}",
                    self.name,
                    self.last_words()
                )));
            }
            if began.elapsed() > patience {
                return Err(Error(format!(
                    "{}: no {what} within {patience:?}: {}",
                    self.name,
                    self.last_words()
                )));
            }
            sleep(LOOK);
        }
        Ok(())
    }

    /// Waits until its output has all of these texts.
    pub fn wait_said(&mut self, texts: &[String], patience: Duration) -> Result<()> {
        let log = self.log.clone();
        let said = || std::fs::read_to_string(&log).unwrap_or_default();
        self.wait(&texts.join(", "), patience, || {
            texts.iter().all(|text| said().contains(text))
        })
    }

    /// The end of its output.
    pub fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        send(self.pid(), self.end);
        let _ = self.process.wait();
        running().retain(|&(pid, _)| pid != self.pid());
        // A node that is profiled leaves the names of its functions there for perf.
        let _ = std::fs::remove_file(format!("/tmp/perf-{}.map", self.pid()));
    }
}

/// When this program is told to end: kills all children, removes `dir`, and exits. Returns at once.
pub fn clean_up_on_signals(dir: PathBuf) -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            for &(pid, end) in running().iter() {
                send(pid, end);
            }
            let _ = std::fs::remove_dir_all(&dir);
            std::process::exit(128 + signal);
        }
    });
    Ok(())
}

fn send(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    // It may have ended by itself.
    let _ = pid.map(|pid| kill_process(pid, signal));
}

fn running() -> std::sync::MutexGuard<'static, Vec<(u32, Signal)>> {
    RUNNING
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
