//! Part 5: what an idle user takes of memory, by transport.

mod shown;

use std::collections::VecDeque;
use std::thread::sleep;
use std::time::{Duration, Instant};

use megaphone_load::target::Transport;
use serde::{Deserialize, Serialize};

use crate::bench::Bench;
use crate::crowd::{Crowd, TRANSPORTS, name};
use crate::error::{Error, Result};
use crate::kernel::Kernel;
use crate::memory::Resident;
use crate::part::Part;
use crate::rig::{Setup, Site};
use crate::section::Section;
use crate::side::{BOTH, Side};
use crate::slope::{Sample, without_rare_types};

pub use shown::{Outcome, outcome};

/// Part 5.
#[derive(Debug)]
pub struct Idle;

/// So many nodes of each kind are measured at most, whatever `RUNS` says: they are all up at once, and what a user takes
/// differs by a hundredth from one to the next.
const NODES: usize = 1;

/// For the kernel to be done with what was closed, and with the last login's packets.
const SETTLE: Duration = Duration::from_millis(300);

/// What was found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Measured {
    /// The smaller and the greater number of users.
    pub users: [u32; 2],
    /// Seconds from the last login to the measuring, at least.
    pub wait: f64,
    /// One node after the other.
    pub nodes: Vec<OneNode>,
}

/// One node with users of one transport.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OneNode {
    /// Theirs.
    pub transport: Transport,
    /// Stock's or megaphone's.
    pub side: Side,
    /// At the smaller number of users, and at the greater.
    pub points: Vec<Point>,
}

/// One node with one number of users.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Point {
    /// Seconds from the last login to the measuring.
    pub waited: f64,
    /// Memory as it stays.
    pub stays: Sample,
    /// Memory after every process has been made to collect its garbage.
    pub collected: Sample,
    /// The generator's memory, bytes (PSS of its processes).
    pub generator: u64,
    /// The kernel's memory before the logins.
    pub before: Kernel,
    /// And right after.
    pub after: Kernel,
}

impl Part for Idle {
    type Measured = Measured;
    const NUMBER: u8 = 5;
    const NAME: &'static str = "idle";
    const TITLE: &'static str = "Memory of an idle user";

    fn measure(bench: &Bench) -> Result<Measured> {
        let users = bench.pick([1_000, 10_000], [50, 150]);
        let wait = bench.pick(Duration::from_secs(60), Duration::from_secs(1));
        let mut held = start(bench, users[1])?;
        for &count in &users {
            hold(bench, &mut held, count, wait)?;
        }
        let nodes = held.into_iter().map(|held| held.node).collect();
        Ok(Measured {
            users,
            wait: wait.as_secs_f64(),
            nodes,
        })
    }

    fn section(measured: &Measured) -> Section {
        shown::section(measured)
    }
}

/// A node with its users.
struct Held<'a> {
    // The users go first.
    crowd: Crowd<'a>,
    site: Site,
    node: OneNode,
    before: Kernel,
    after: Kernel,
    ready: Instant,
}

/// All nodes, each fresh, with nobody logged in.
fn start(bench: &Bench, users: u32) -> Result<Vec<Held<'_>>> {
    let mut held = Vec::new();
    for number in 0..bench.runs().clamp(1, NODES) {
        bench.say(format!(
            "starting six nodes ({} of {})",
            number + 1,
            bench.runs().clamp(1, NODES)
        ));
        for transport in TRANSPORTS {
            for (side, site) in Site::start_all(bench, &BOTH, &Setup::clients(users))? {
                held.push(Held {
                    crowd: Crowd::start(bench, &site, transport, users)?,
                    site,
                    node: OneNode {
                        transport,
                        side,
                        points: Vec::new(),
                    },
                    before: Kernel::default(),
                    after: Kernel::default(),
                    ready: Instant::now(),
                });
            }
        }
    }
    Ok(held)
}

/// Logs `count` users in at each node, one node after the other, and looks at each when its time has come.
fn hold(bench: &Bench, all: &mut [Held], count: u32, wait: Duration) -> Result<()> {
    let mut due: VecDeque<usize> = VecDeque::new();
    for number in 0..all.len() {
        let held = &mut all[number];
        bench.say(format!(
            "{}, {}: {count} users",
            name(held.node.transport),
            held.site.side()
        ));
        held.log_in(count)?;
        due.push_back(number);
        while let Some(&first) = due
            .front()
            .filter(|&&first| all[first].ready.elapsed() >= wait)
        {
            all[first].look(count)?;
            due.pop_front();
        }
    }
    for number in due {
        sleep(wait.saturating_sub(all[number].ready.elapsed()));
        all[number].look(count)?;
    }
    Ok(())
}

impl Held<'_> {
    /// Those who were here before have had their garbage collected; so they go, and all are new.
    fn log_in(&mut self, count: u32) -> Result<()> {
        self.crowd.log_out(0)?;
        sleep(SETTLE);
        self.before = Kernel::read()?;
        self.crowd.log_in(count)?;
        self.ready = Instant::now();
        sleep(SETTLE);
        self.after = Kernel::read()?;
        Ok(())
    }

    fn look(&mut self, count: u32) -> Result<()> {
        let waited = self.ready.elapsed().as_secs_f64();
        let stays = self.sample(count, false)?;
        let collected = self.sample(count, true)?;
        // Who has fallen out makes the slope wrong: it is a fault.
        self.crowd.look()?;
        let generator = Resident::of(&self.crowd.pids())?.pss;
        let (before, after) = (self.before, self.after);
        self.node.points.push(Point {
            waited,
            stays,
            collected,
            generator,
            before,
            after,
        });
        Ok(())
    }

    fn sample(&self, users: u32, collect: bool) -> Result<Sample> {
        let beam = self
            .site
            .beam()
            .ok_or_else(|| Error::from("a site without a node"))?;
        let account = without_rare_types(beam.account(collect)?, u64::from(users) / 2);
        let node = Resident::of(&[self.site.pid()])?;
        let ecm = Resident::of(&self.site.ecm_pids())?;
        Ok(Sample {
            users,
            rss: node.rss,
            pss: node.pss,
            account,
            ecm_rss: ecm.rss,
            ecm_pss: ecm.pss,
        })
    }
}
