//! What the load costs the server: the processes of `--server-pid` and the node of `--erlang-node`.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::beam::{Account, Node};
use crate::fleet::Fleet;
use crate::usage::Usage;
use crate::users::Args;

/// The server, as far as it may be looked at.
#[derive(Debug)]
pub(super) struct Server {
    pids: Vec<u32>,
    node: Option<Node>,
    collect: bool,
}

/// What a part of the load took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// How long it was, in seconds.
    pub seconds: f64,
    /// Processor seconds of the server meanwhile, where `--server-pid` names it.
    pub server_cpu: Option<f64>,
    /// Processor seconds of the generator meanwhile.
    pub generator_cpu: f64,
}

/// What the server's memory is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// Resident bytes, where `--server-pid` names it.
    pub rss: Option<u64>,
    /// Resident bytes, what is shared divided among those who share it.
    pub pss: Option<u64>,
    /// The node's own account, where `--erlang-node` names it.
    pub account: Option<Account>,
}

/// A part of the load that has begun.
#[derive(Debug)]
pub(super) struct Begun {
    at: Instant,
    server: Option<f64>,
    generator: f64,
}

impl Server {
    pub(super) fn new(args: &Args) -> Self {
        Self {
            pids: args.server_pids.clone(),
            node: args.erlang_node.clone().map(|name| Node {
                name,
                cookie: args.erlang_cookie.clone(),
                port: args.erlang_port,
            }),
            collect: args.collect,
        }
    }

    /// Begins a part now.
    pub(super) fn begin(&self, fleet: &Fleet) -> Result<Begun, String> {
        Ok(Begun {
            at: Instant::now(),
            server: self.cpu()?,
            generator: generator_cpu(fleet)?,
        })
    }

    /// Ends it now.
    pub(super) fn end(&self, fleet: &Fleet, begun: &Begun) -> Result<Cost, String> {
        let server = self.cpu()?;
        Ok(Cost {
            seconds: begun.at.elapsed().as_secs_f64(),
            server_cpu: server.zip(begun.server).map(|(now, before)| now - before),
            generator_cpu: generator_cpu(fleet)? - begun.generator,
        })
    }

    /// Fails where something of it cannot be read.
    pub(super) fn check(&self) -> Result<(), String> {
        self.read(false).map(drop)
    }

    /// Its memory as it is, and, where that is asked for, after every process of the node has
    /// collected its garbage.
    pub(super) fn memory(&self) -> Result<(Memory, Option<Memory>), String> {
        let now = self.read(false)?;
        let collected = self.collect.then(|| self.read(true)).transpose()?;
        Ok((now, collected))
    }

    fn read(&self, collect: bool) -> Result<Memory, String> {
        let account = match &self.node {
            None => None,
            Some(node) => Some(node.account(collect)?),
        };
        let usages = self.pids.iter().map(|pid| usage(*pid, Usage::of));
        let usages = usages.collect::<Result<Vec<_>, _>>()?;
        let known = !usages.is_empty();
        Ok(Memory {
            rss: known.then(|| usages.iter().map(|usage| usage.rss).sum()),
            pss: known.then(|| usages.iter().map(|usage| usage.pss).sum()),
            account,
        })
    }

    fn cpu(&self) -> Result<Option<f64>, String> {
        let usages = self.pids.iter().map(|pid| usage(*pid, Usage::quick));
        let sum: f64 = usages
            .map(|usage| usage.map(|usage| usage.cpu()))
            .sum::<Result<_, _>>()?;
        Ok((!self.pids.is_empty()).then_some(sum))
    }
}

fn usage(pid: u32, read: fn(u32) -> std::io::Result<Usage>) -> Result<Usage, String> {
    read(pid).map_err(|error| format!("process {pid}: {error}"))
}

fn generator_cpu(fleet: &Fleet) -> Result<f64, String> {
    let pids = fleet.pids().into_iter();
    pids.map(|pid| usage(pid, Usage::quick).map(|usage| usage.cpu()))
        .sum()
}
