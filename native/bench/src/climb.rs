//! Part 8: how far one node goes: users held with chatter, step by step, and a million virtual connections.

mod links;
mod shown;

use std::time::Duration;

use megaphone_load::summary::Summary;
use megaphone_load::target::Transport;
use serde::{Deserialize, Serialize};

use crate::bench::Bench;
use crate::climb::links::Links;
use crate::crowd::Crowd;
use crate::error::Result;
use crate::memory::{Resident, descriptors};
use crate::part::Part;
use crate::rig::{Setup, Site};
use crate::section::Section;
use crate::side::{BySide, Side};
use crate::watch::Cpu;

/// Part 8.
#[derive(Debug)]
pub struct Climb;

/// The transport of the climb: the one that a browser takes today.
const TRANSPORT: Transport = Transport::WebSocket;

/// Each user sends one message in so many seconds.
const PAUSE: f64 = 60.0;

/// Descriptors that a node keeps for other things than the clients of a step: what it opens in passing.
const SPARE: u64 = 50;

/// Users who chat before the first step, below which they are.
const WARM: u32 = 40;

/// What was found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Measured {
    /// The steps that were wanted, in users.
    pub steps: Vec<u32>,
    /// Seconds of chatter at each step.
    pub seconds: f64,
    /// Of stock and megaphone.
    pub sides: BySide<Way>,
    /// A million virtual connections.
    pub links: Links,
}

/// How one side went up.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Way {
    /// ECMs in front of the node.
    pub ecms: usize,
    /// Descriptors that the node may have.
    pub limit: u64,
    /// Descriptors that it had without users.
    pub own: u64,
    /// The steps that it came to.
    pub steps: Vec<Step>,
    /// The first step for whose users it has too few descriptors.
    pub ends_before: Option<u32>,
}

/// A step.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Step {
    /// Users that were logged in.
    pub users: u32,
    /// Logins since the step before.
    pub logged_in: u32,
    /// Seconds that they took.
    pub login_seconds: f64,
    /// The node's resident memory.
    pub node: Resident,
    /// The ECMs', together.
    pub ecm: Resident,
    /// The generator's.
    pub generator: Resident,
    /// Descriptors of the node.
    pub descriptors: u64,
    /// Messages a second.
    pub rate: f64,
    /// Messages that were sent, and that arrived as they should.
    pub sent: u64,
    /// See `sent`.
    pub arrived: u64,
    /// Microseconds from when a message was due to its arrival.
    pub latency: Summary,
    /// Processor time while they chatted.
    pub cpu: Cpu,
}

impl Part for Climb {
    type Measured = Measured;
    const NUMBER: u8 = 8;
    const NAME: &'static str = "climb";
    const TITLE: &'static str = "The climb, and a million connections";

    fn measure(bench: &Bench) -> Result<Measured> {
        let steps = bench.pick(
            vec![1_000, 2_000, 5_000, 10_000, 19_000, 50_000, 100_000],
            vec![50, 100, 200],
        );
        let time = bench.pick(Duration::from_secs(10), Duration::from_secs(1));
        let mut sides = BySide::new();
        for side in [Side::Stock, Side::Megaphone] {
            sides.insert(side, climb(bench, side, &steps, time)?);
        }
        Ok(Measured {
            steps,
            seconds: time.as_secs_f64(),
            sides,
            links: links::measure(bench)?,
        })
    }

    fn section(measured: &Measured) -> Section {
        shown::section(measured)
    }
}

fn climb(bench: &Bench, side: Side, steps: &[u32], time: Duration) -> Result<Way> {
    let top = steps.iter().copied().max().unwrap_or_default();
    let site = Site::start(bench, side, &Setup::clients(top))?;
    let (own, limit) = descriptors(site.pid())?;
    let mut way = Way {
        ecms: site.ecm_pids().len(),
        limit,
        own,
        ..Way::default()
    };
    let reach = steps
        .iter()
        .copied()
        .filter(|&users| fits(side, users, &way))
        .max();
    let mut crowd = Crowd::start(bench, &site, TRANSPORT, reach.unwrap_or(1))?;
    // A node's first messages load code, which belongs to no step.
    crowd.log_in(WARM)?;
    crowd.chatter(
        f64::from(WARM),
        bench.pick(Duration::from_secs(2), Duration::from_millis(300)),
    )?;
    for &users in steps {
        if !fits(side, users, &way) {
            way.ends_before = Some(users);
            break;
        }
        let step = step(bench, &site, &mut crowd, users, time)?;
        bench.say(format!(
            "{side}, {users} users: {} MB, p99 {:.1} ms",
            step.node.rss / 1_000_000,
            step.latency.p99 as f64 / 1_000.0
        ));
        way.steps.push(step);
    }
    Ok(way)
}

/// A stock node has a descriptor for each client. On megaphone's side the ECMs have them, and there are as many ECMs
/// as that takes.
fn fits(side: Side, users: u32, way: &Way) -> bool {
    side == Side::Megaphone || u64::from(users) + way.own + SPARE <= way.limit
}

fn step(bench: &Bench, site: &Site, crowd: &mut Crowd, users: u32, time: Duration) -> Result<Step> {
    let logins = crowd.log_in(users)?;
    let rate = f64::from(users) / PAUSE;
    let watch = site.watch(bench, &format!("climb-{users}"))?;
    let chatter = crowd.chatter(rate, time)?;
    let cpu = watch.end(chatter.generator_cpu)?;
    let online = crowd.look()?;
    if online < users {
        bench.fault(format!(
            "{}: {online} users are left of {users}",
            site.side()
        ));
    }
    let (open, _) = descriptors(site.pid())?;
    Ok(Step {
        users: online,
        logged_in: logins.logged_in,
        login_seconds: logins.seconds,
        node: Resident::of(&[site.pid()])?,
        ecm: Resident::of(&site.ecm_pids())?,
        generator: Resident::of(&crowd.pids())?,
        descriptors: open,
        rate,
        sent: chatter.sent,
        arrived: chatter.arrived,
        latency: chatter.latency,
        cpu,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stock_ends_where_its_descriptors_do() {
        let way = Way {
            limit: 20_000,
            own: 45,
            ..Way::default()
        };
        assert!(fits(Side::Stock, 19_000, &way));
        assert!(fits(Side::Stock, 19_905, &way));
        assert!(!fits(Side::Stock, 19_906, &way));
        assert!(fits(Side::Megaphone, 1_000_000, &way));
    }
}
