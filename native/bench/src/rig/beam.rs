//! An ejabberd node as seen from outside, by Erlang distribution without epmd.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use megaphone_load::beam::{Account, Node};

use crate::error::{Error, Result};

/// The cookie of all nodes that the benchmark starts. They listen on loopback only.
pub const COOKIE: &str = "megaphone_bench";

/// A node as seen from outside.
#[derive(Debug, Clone)]
pub struct Beam {
    /// `name@127.0.0.1`.
    pub name: String,
    /// Where its distribution listens.
    pub address: SocketAddr,
}

impl Beam {
    /// A node of this name, whose distribution is to listen there.
    pub fn new(name: &str, address: SocketAddr) -> Self {
        Self {
            name: format!("{name}@127.0.0.1"),
            address,
        }
    }

    /// What `erl` is told to be reached so.
    pub fn arguments(&self) -> Vec<String> {
        let port = self.address.port().to_string();
        [
            "-name",
            &self.name,
            "-setcookie",
            COOKIE,
            "-start_epmd",
            "false",
            "-erl_epmd_port",
            &port,
        ]
        .into_iter()
        .chain(["-kernel", "inet_dist_use_interface", "{127,0,0,1}"])
        .map(str::to_owned)
        .collect()
    }

    /// The node as `megaphone-load` wants to be told of it.
    pub fn node(&self) -> Node {
        Node {
            name: self.name.clone(),
            cookie: Some(COOKIE.to_owned()),
            port: Some(self.address.port()),
        }
    }

    /// Its own account of its memory; see [`Node::account`]. Blocks.
    pub fn account(&self, collect: bool) -> Result<Account> {
        Ok(self.node().account(collect)?)
    }

    /// Evaluates Erlang expressions in the node and gives the last one's value as text (`~p`). Blocks.
    pub fn eval(&self, expressions: &str) -> Result<String> {
        let mut erl_call = Command::new("erl_call")
            .args(["-address", &self.address.to_string(), "-c", COOKIE, "-e"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| Error::of("erl_call", error))?;
        if let Some(mut stdin) = erl_call.stdin.take() {
            writeln!(stdin, "{expressions}")?;
        }
        let output = erl_call.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        match said
            .strip_prefix("{ok,")
            .and_then(|rest| rest.strip_suffix('}'))
        {
            Some(value) => Ok(value.trim().to_owned()),
            None => Err(Error(format!(
                "{}: {said}{}",
                self.name,
                String::from_utf8_lossy(&output.stderr)
            ))),
        }
    }
}
