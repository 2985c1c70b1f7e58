//! A megaphone-ecm, a program of its own.

use std::net::SocketAddr;
use std::time::Duration;

use crate::bench::Bench;
use crate::error::Result;
use crate::rig::child::Child;
use crate::rig::config::BACKLOG;
use crate::rig::link::LinkAddress;
use crate::rig::ports;

/// Clients that one ECM is given at most: an open file each, of which these machines allow 20,000 a process.
pub const CLIENTS: u32 = 19_000;

/// How long an ECM may take to start and to link up.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running ECM.
#[derive(Debug)]
pub struct Ecm {
    child: Child,
    listeners: Vec<(String, SocketAddr)>,
}

impl Ecm {
    /// Starts one that carries clients of these services to the link listener at `backend`. It is ready after
    /// [`Ecm::wait`].
    pub fn start(
        bench: &Bench,
        name: &str,
        backend: &LinkAddress,
        services: &[&str],
    ) -> Result<Self> {
        let mut listeners = Vec::new();
        for &service in services {
            listeners.push((service.to_owned(), ports::free()?));
        }
        let config = bench.dir.join(format!("{name}.toml"));
        std::fs::write(&config, toml(name, backend, &listeners))?;
        let mut command = bench.bound(bench.built.join("priv/megaphone-ecm"));
        command.arg("--config").arg(config);
        Ok(Self {
            child: Child::start(command, &bench.dir, name)?,
            listeners,
        })
    }

    /// Waits until its link is up and it listens.
    pub fn wait(&mut self) -> Result<()> {
        let mut texts = vec!["link 1 up to".to_owned()];
        texts.extend(
            self.listeners
                .iter()
                .map(|(_, address)| format!("listening on {address}")),
        );
        self.child.wait_said(&texts, PATIENCE)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Where it takes clients of a service.
    pub fn address(&self, service: &str) -> Option<SocketAddr> {
        self.listeners
            .iter()
            .find(|(name, _)| name == service)
            .map(|&(_, address)| address)
    }
}

fn toml(name: &str, backend: &LinkAddress, listeners: &[(String, SocketAddr)]) -> String {
    let mut text = format!(
        "name = \"{name}\"\n[backend]\naddress = \"{backend}\"\nreconnect_min = \"50ms\"\nreconnect_max = \"500ms\"\n"
    );
    for (service, address) in listeners {
        let kind = if service == "http" { "http" } else { "tcp" };
        text += &format!(
            "[[listeners]]\nlisten = \"{address}\"\nservice = \"{service}\"\nkind = \"{kind}\"\nbacklog = {BACKLOG}\n"
        );
        if service == "bulk" {
            // As bench_bulk.erl has it, which cannot reach the socket behind an ECM.
            text += "send_buffer = 262144\n";
        }
    }
    text
}
