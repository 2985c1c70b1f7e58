//! Part 3: what a chat message costs and how long it takes, by transport.

mod shown;

use std::collections::BTreeMap;
use std::time::Duration;

use megaphone_load::fleet::Chatter;
use megaphone_load::target::Transport;
use serde::{Deserialize, Serialize};

use crate::bench::Bench;
use crate::crowd::{Cost, Crowd, TRANSPORTS, name, slug};
use crate::error::Result;
use crate::figure::Figure;
use crate::measure::in_turns;
use crate::part::Part;
use crate::rig::{Setup, Site};
use crate::search::{Found, Search};
use crate::section::Section;
use crate::side::{ALL, BOTH, BySide, Side};
use crate::watch::Cpu;

/// Part 3.
#[derive(Debug)]
pub struct Chat;

/// A load is more than a server holds when one message of 100 takes longer than this.
const BOUND: Duration = Duration::from_millis(200);

/// And when the generator could not send this part of what was due.
const SENT: f64 = 0.98;

/// Shares of the lower saturating load at which latency is measured, and for how long; processor time at
/// [`COST_SHARE`].
const SHARES: [(f64, Duration); 3] = [
    (0.25, Duration::from_millis(2_500)),
    (COST_SHARE, Duration::from_secs(4)),
    (0.75, Duration::from_millis(2_500)),
];

/// At a high load the machine has no rest to give; at a low one idling counts among the work.
const COST_SHARE: f64 = 0.5;

/// What was found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Measured {
    /// Users logged in at each side.
    pub users: u32,
    /// Bytes of a message's body.
    pub body: usize,
    /// See [`BOUND`], in milliseconds.
    pub bound: f64,
    /// One transport after the other.
    pub transports: Vec<OneTransport>,
}

/// What was found with one transport.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OneTransport {
    /// Which one.
    pub transport: Transport,
    /// The load that saturates each side.
    pub saturation: BySide<Found>,
    /// Messages that were lost for good where a side was given more than it holds.
    #[serde(default)]
    pub lost: BySide<u64>,
    /// Messages a second at which processor time was measured.
    pub rate: f64,
    /// Processor seconds for a million messages.
    pub cost: BySide<Cost>,
    /// The generator's part of all processor time at that rate.
    pub generator_share: BySide<Figure>,
    /// Latencies, at each share of the lower saturating load.
    pub loads: Vec<Load>,
}

/// Latencies at one load.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Load {
    /// Which part of the lower one of stock's and megaphone's saturating loads.
    pub share: f64,
    /// Messages a second.
    pub rate: f64,
    /// Of each side.
    pub latency: BySide<Latency>,
}

/// How long messages took from when they were due, in microseconds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Latency {
    /// The median.
    pub p50: Figure,
    /// 99 of 100.
    pub p99: Figure,
    /// 999 of 1,000.
    pub p999: Figure,
}

impl Part for Chat {
    type Measured = Measured;
    const NUMBER: u8 = 3;
    const NAME: &'static str = "chat";
    const TITLE: &'static str = "Chat: processor time and latency of a message";

    fn measure(bench: &Bench) -> Result<Measured> {
        let users = bench.pick(5_000, 100);
        let sites = Site::start_all(bench, &ALL, &Setup::clients(users))?;
        let one = |&transport: &Transport| one_transport(bench, &sites, transport, users);
        let transports = TRANSPORTS.iter().map(one).collect::<Result<_>>()?;
        Ok(Measured {
            users,
            body: crate::crowd::BODY,
            bound: BOUND.as_secs_f64() * 1_000.0,
            transports,
        })
    }

    fn section(measured: &Measured) -> Section {
        shown::section(measured)
    }
}

fn one_transport(
    bench: &Bench,
    sites: &BySide<Site>,
    transport: Transport,
    users: u32,
) -> Result<OneTransport> {
    let mut crowds: BySide<Crowd> = BySide::new();
    for (&side, site) in sites {
        let mut crowd = Crowd::start(bench, site, transport, users)?;
        crowd.log_in(users)?;
        crowds.insert(side, crowd);
    }
    let mut saturation = BySide::new();
    let mut lost = BySide::new();
    for (&side, crowd) in &mut crowds {
        let (found, messages) = saturating(bench, crowd, side, transport, users)?;
        lost.insert(side, messages);
        bench.say(format!(
            "{}, {side}: holds {:.0} messages a second",
            name(transport),
            found.rate
        ));
        saturation.insert(side, found);
    }
    let lower = BOTH
        .iter()
        .map(|side| saturation[side].rate)
        .fold(f64::INFINITY, f64::min);
    if lower == 0.0 {
        bench.fault(format!("{}: a side holds no load at all", name(transport)));
    }
    // Even then there is something to show: what happens at a very low load.
    let lower = if lower > 0.0 { lower } else { LOWEST };

    let mut found = OneTransport {
        transport,
        saturation,
        lost,
        rate: lower * COST_SHARE,
        cost: BySide::new(),
        generator_share: BySide::new(),
        loads: Vec::new(),
    };
    for (share, time) in SHARES {
        let rate = lower * share;
        let time = bench.pick(time, Duration::from_millis(300));
        let windows = in_turns(&ALL, bench.runs(), |side, run| {
            let name = format!("chat-{}-{:.0}-{run}", slug(transport), share * 100.0);
            let watch = sites[&side].watch(bench, &name)?;
            let chatter = crowd(&mut crowds, side)?.chatter(rate, time)?;
            let cpu = watch.end(chatter.generator_cpu)?;
            Ok((chatter, cpu))
        })?;
        found.loads.push(Load {
            share,
            rate,
            latency: latencies(&windows),
        });
        if share == COST_SHARE {
            add_costs(&mut found, &windows);
        }
    }
    for crowd in crowds.values_mut() {
        crowd.log_out(0)?;
    }
    Ok(found)
}

/// How often the gap is halved between the load that was held and the one that was not: to an eighth of it.
const HALVINGS: u32 = 3;

/// What the load is multiplied by while it is held.
const FACTOR: f64 = 2.0;

/// What is chatted at where a side holds no load, in messages a second.
const LOWEST: f64 = 20.0;

fn crowd<'a, 'b>(crowds: &'a mut BySide<Crowd<'b>>, side: Side) -> Result<&'a mut Crowd<'b>> {
    crowds
        .get_mut(&side)
        .ok_or_else(|| format!("{side} has no users").into())
}

/// Looks for the load that is just held; see [`BOUND`]. Messages that are late are waited for, so none is lost by
/// being late. Returns also how many were lost for good, which may happen over BOSH only: ejabberd lays a request that
/// overtakes the one before it aside and does not come back to it, and on an overloaded machine that can happen.
fn saturating(
    bench: &Bench,
    crowd: &mut Crowd,
    side: Side,
    transport: Transport,
    users: u32,
) -> Result<(Found, u64)> {
    // Of the stand-in it is enough to know that it does not stand in the others' way.
    let halvings = if side == Side::Floor { 0 } else { HALVINGS };
    let search = bench.pick(
        Search {
            start: 1_000.0,
            ceiling: 128_000.0,
            factor: FACTOR,
            halvings,
        },
        Search {
            start: 100.0,
            ceiling: 200.0,
            factor: FACTOR,
            halvings: 0,
        },
    );
    let time = bench.pick(Duration::from_secs(2), Duration::from_millis(300));
    let mut lost = 0;
    let found = search.run(|rate| -> Result<bool> {
        let chatter = crowd.overload(rate, time)?;
        if chatter.lost > 0 {
            lost += chatter.lost;
            crowd.renew(users)?;
        }
        Ok(holds(&chatter, rate * time.as_secs_f64()))
    })?;
    if lost > 0 && (transport != Transport::Bosh || side == Side::Floor) {
        bench.fault(format!(
            "{}, {side}: {lost} messages lost while the limit was looked for",
            name(transport)
        ));
    }
    Ok((found, lost))
}

fn holds(chatter: &Chatter, due: f64) -> bool {
    let p99 = Duration::from_micros(chatter.latency.p99);
    p99 <= BOUND && chatter.sent as f64 >= due * SENT && chatter.lost == 0
}

type Windows = BTreeMap<Side, Vec<(Chatter, Cpu)>>;

fn latencies(windows: &Windows) -> BySide<Latency> {
    let latency = |of: &[(Chatter, Cpu)]| Latency {
        p50: of
            .iter()
            .map(|(chatter, _)| chatter.latency.p50 as f64)
            .collect(),
        p99: of
            .iter()
            .map(|(chatter, _)| chatter.latency.p99 as f64)
            .collect(),
        p999: of
            .iter()
            .map(|(chatter, _)| chatter.latency.p999 as f64)
            .collect(),
    };
    windows
        .iter()
        .map(|(&side, of)| (side, latency(of)))
        .collect()
}

fn add_costs(found: &mut OneTransport, windows: &Windows) {
    for (&side, of) in windows {
        let mut cost = Cost::default();
        for (chatter, cpu) in of {
            cost.add(cpu, chatter.arrived as f64, 1e6);
        }
        found.cost.insert(side, cost);
        found.generator_share.insert(
            side,
            of.iter().map(|(_, cpu)| cpu.generator_share()).collect(),
        );
    }
}

#[cfg(test)]
mod tests {
    use megaphone_load::summary::Summary;

    use super::*;

    fn chatter(sent: u64, p99: u64) -> Chatter {
        Chatter {
            sent,
            arrived: sent,
            latency: Summary {
                p99,
                ..Summary::default()
            },
            ..Chatter::default()
        }
    }

    #[test]
    fn a_load_is_held_when_messages_go_out_and_arrive_in_time() {
        assert!(holds(&chatter(1_000, 200_000), 1_000.0));
        assert!(
            !holds(&chatter(1_000, 200_001), 1_000.0),
            "they arrive late"
        );
        assert!(
            !holds(&chatter(970, 1_000), 1_000.0),
            "the generator cannot send them"
        );
        assert!(!holds(
            &Chatter {
                lost: 1,
                ..chatter(1_000, 1_000)
            },
            1_000.0
        ));
    }
}
