//! The stand-in of `megaphone-load stand-in`: a server that does next to nothing.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::ChildStdin;

use crate::bench::Bench;
use crate::error::{Error, Result};
use crate::rig::child::Child;

/// A running stand-in.
#[derive(Debug)]
pub struct StandIn {
    child: Child,
    addresses: BTreeMap<String, SocketAddr>,
    // It ends when this does.
    _stdin: Option<ChildStdin>,
}

impl StandIn {
    /// Starts one with these transports (`c2s`, `websocket`, `bosh`, `http`, `link`), each on a port of its own.
    /// Returns when it listens.
    pub fn start(bench: &Bench, name: &str, transports: &[&str]) -> Result<Self> {
        let mut command = bench.bound(&bench.load);
        command.arg("stand-in");
        for transport in transports {
            command.arg(format!("--{transport}")).arg("127.0.0.1:0");
        }
        let mut child = Child::start_piped(command, &bench.dir, name)?;
        let stdin = child.take_stdin();
        let stdout = child
            .take_stdout()
            .ok_or_else(|| Error::from("stand-in: no standard output"))?;
        let mut lines = BufReader::new(stdout).lines();
        let mut addresses = BTreeMap::new();
        while addresses.len() < transports.len() {
            let Some(line) = lines.next() else {
                return Err(Error(format!(
                    "the stand-in ended early: {}",
                    child.last_words()
                )));
            };
            let line = line?;
            let mut words = line.split_whitespace();
            if let (Some("listening"), Some(transport), Some(address)) =
                (words.next(), words.next(), words.next())
            {
                let address = address.parse().map_err(|error| Error::of(&line, error))?;
                addresses.insert(transport.to_owned(), address);
            }
        }
        Ok(Self {
            child,
            addresses,
            _stdin: stdin,
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Where it takes clients of a transport.
    pub fn address(&self, transport: &str) -> Option<SocketAddr> {
        self.addresses.get(transport).copied()
    }
}
