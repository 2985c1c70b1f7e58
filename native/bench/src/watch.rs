//! Processor time over a while, by who used it.

use std::time::Instant;

use megaphone_load::generator::Window;
use megaphone_load::usage::Usage;
use serde::{Deserialize, Serialize};

use crate::bench::Bench;
use crate::error::{Error, Result};
use crate::profile::Profile;

/// Processor seconds over a while, by who used them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Cpu {
    /// ejabberd's node, or the stand-in.
    pub ejabberd: f64,
    /// All ECMs; haproxy or nginx in part 7.
    pub edge: f64,
    /// The load generator: what its own report says.
    pub generator: f64,
    /// How long the while was, in seconds of the clock.
    pub seconds: f64,
}

impl Cpu {
    /// ejabberd and its edge together.
    pub fn both(&self) -> f64 {
        self.ejabberd + self.edge
    }

    /// The generator's part of all that was used.
    pub fn generator_share(&self) -> f64 {
        self.generator / (self.both() + self.generator).max(f64::MIN_POSITIVE)
    }
}

/// As a generator measured it, whose `--server-pid`s were ejabberd's and then the edge's.
impl From<&Window> for Cpu {
    fn from(window: &Window) -> Self {
        let (ejabberd, edge) = window.server_cpu.split_at(window.server_cpu.len().min(1));
        Self {
            ejabberd: ejabberd.iter().sum(),
            edge: edge.iter().sum(),
            generator: window.generator_cpu,
            seconds: window.seconds,
        }
    }
}

/// A while that is being watched.
#[derive(Debug)]
pub struct Watch {
    began: Instant,
    ejabberd: Vec<(u32, f64)>,
    edge: Vec<(u32, f64)>,
    profile: Option<Profile>,
}

impl Watch {
    /// Begins a while over these processes. `name` is what its profile is called, where one is asked for:
    /// letters, digits and `-`.
    pub fn begin(
        bench: &Bench,
        name: &str,
        ejabberd: &[u32],
        edge: &[u32],
        beam: Option<&crate::rig::Beam>,
    ) -> Result<Self> {
        let profile = match bench.options.profile {
            true => Some(Profile::begin(bench, name, ejabberd, edge, beam)?),
            false => None,
        };
        Ok(Self {
            began: Instant::now(),
            ejabberd: used(ejabberd)?,
            edge: used(edge)?,
            profile,
        })
    }

    /// Ends it. `generator` is the processor seconds that the generator says it used.
    pub fn end(self, generator: f64) -> Result<Cpu> {
        let cpu = Cpu {
            seconds: self.began.elapsed().as_secs_f64(),
            ejabberd: since(&self.ejabberd)?,
            edge: since(&self.edge)?,
            generator,
        };
        if let Some(profile) = self.profile {
            profile.end()?;
        }
        Ok(cpu)
    }
}

fn used(pids: &[u32]) -> Result<Vec<(u32, f64)>> {
    pids.iter()
        .map(|&pid| Ok((pid, usage(pid)?.cpu())))
        .collect()
}

fn since(before: &[(u32, f64)]) -> Result<f64> {
    before
        .iter()
        .try_fold(0.0, |sum, &(pid, cpu)| Ok(sum + usage(pid)?.cpu() - cpu))
}

fn usage(pid: u32) -> Result<Usage> {
    Usage::quick(pid).map_err(|error| Error::of(format!("process {pid}"), error))
}
