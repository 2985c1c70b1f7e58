//! One worker process, as the fleet sees it.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::Sender;
use std::thread;

use crate::fleet::Error;
use crate::wire::{Answer, Order};

/// What a worker has said.
#[derive(Debug)]
pub(super) enum Said {
    /// An answer.
    Answer(Answer),
    /// Something that is none.
    Wrong(String),
    /// It says no more.
    Ended,
}

/// A worker process. Ends when this is dropped.
#[derive(Debug)]
pub(super) struct Member {
    number: usize,
    child: Child,
    input: ChildStdin,
}

impl Member {
    /// Starts worker number `number`; what it says goes to `sender`.
    pub(super) fn start(
        program: &Path,
        number: usize,
        sender: Sender<(usize, Said)>,
    ) -> Result<Self, Error> {
        let mut child = Command::new(program)
            .arg("worker")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| Error(format!("{}: {error}", program.display())))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error("a worker has no pipes".into()));
        };
        thread::spawn(move || {
            for line in BufReader::new(output).lines() {
                let said = match line.map(|line| serde_json::from_str(&line)) {
                    Ok(Ok(answer)) => Said::Answer(answer),
                    Ok(Err(error)) => Said::Wrong(error.to_string()),
                    Err(error) => Said::Wrong(error.to_string()),
                };
                if sender.send((number, said)).is_err() {
                    return;
                }
            }
            // Nobody to hear it: the fleet is being dropped.
            let _ = sender.send((number, Said::Ended));
        });
        Ok(Self {
            number,
            child,
            input,
        })
    }

    /// Gives it an order.
    pub(super) fn tell(&mut self, order: &Order) -> Result<(), Error> {
        let mut line = serde_json::to_string(order).map_err(|error| self.failed(&error))?;
        line.push('\n');
        let told = self.input.write_all(line.as_bytes());
        told.map_err(|_| self.ended())
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// It has said that it cannot do what it was told.
    pub(super) fn failed(&self, why: &dyn std::fmt::Display) -> Error {
        Error(format!(
            "worker {} (process {}): {why}",
            self.number,
            self.pid()
        ))
    }

    /// It has ended, though nobody told it to.
    pub(super) fn ended(&mut self) -> Error {
        // It closes its output when it ends, so this does not wait.
        match self.child.wait() {
            Ok(status) => self.failed(&format!("has ended: {status}")),
            Err(error) => self.failed(&error),
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // Fails where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
