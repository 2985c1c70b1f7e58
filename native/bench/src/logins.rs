//! Part 4: logins.

use std::collections::BTreeMap;
use std::time::Duration;

use megaphone_load::fleet::Logins;
use megaphone_load::target::Transport;
use serde::{Deserialize, Serialize};

use crate::bench::Bench;
use crate::crowd::{Cost, Crowd, TRANSPORTS, milliseconds, name, slug};
use crate::error::{Error, Result};
use crate::figure::{Figure, count};
use crate::measure::in_turns;
use crate::part::Part;
use crate::plot::{Axis, Bar, Bars, Group};
use crate::rig::{Setup, Site};
use crate::section::{Section, Table};
use crate::side::{ALL, BySide, Side};
use crate::watch::Cpu;

/// How long a login may take: many times what the slowest takes, and yet no long wait where one hangs.
const PATIENCE: Duration = Duration::from_secs(5);

/// Part 4.
#[derive(Debug)]
pub struct LogIn;

/// What was found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Measured {
    /// Users that log in, in each run.
    pub users: u32,
    /// One transport after the other.
    pub transports: Vec<OneTransport>,
}

/// What was found with one transport.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OneTransport {
    /// Which one.
    pub transport: Transport,
    /// Of each side.
    pub sides: BySide<OneSide>,
}

/// What was found at one side.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct OneSide {
    /// Logins a second.
    pub rate: Figure,
    /// Processor milliseconds a login.
    pub cost: Cost,
    /// How long a login took, the median, in microseconds.
    pub p50: Figure,
    /// 99 of 100 logins.
    pub p99: Figure,
}

impl Part for LogIn {
    type Measured = Measured;
    const NUMBER: u8 = 4;
    const NAME: &'static str = "logins";
    const TITLE: &'static str = "Logins";

    fn measure(bench: &Bench) -> Result<Measured> {
        let users = bench.pick(2_000, 60);
        let sites = Site::start_all(bench, &ALL, &Setup::clients(users))?;
        let one = |&transport: &Transport| one_transport(bench, &sites, transport, users);
        Ok(Measured {
            users,
            transports: TRANSPORTS.iter().map(one).collect::<Result<_>>()?,
        })
    }

    fn section(measured: &Measured) -> Section {
        let mut section = Section::default();
        section
            .text(about(measured))
            .table(table(measured))
            .plot(bars(measured));
        section
    }
}

fn one_transport(
    bench: &Bench,
    sites: &BySide<Site>,
    transport: Transport,
    users: u32,
) -> Result<OneTransport> {
    let mut crowds = BySide::new();
    for (&side, site) in sites {
        let mut crowd = Crowd::start_with(bench, site, transport, users, PATIENCE)?;
        // The first login of a node reads code, makes tables and fills caches.
        crowd.log_in(users / 20)?;
        crowd.log_out(0)?;
        crowds.insert(side, crowd);
    }
    bench.say(format!("{}: logins", name(transport)));
    let bursts = in_turns(&ALL, bench.runs(), |side, run| {
        let crowd: &mut Crowd = crowds
            .get_mut(&side)
            .ok_or_else(|| Error(format!("{side} has no users")))?;
        let watch = sites[&side].watch(bench, &format!("logins-{}-{run}", slug(transport)))?;
        let before = cpu_of(&crowd.pids())?;
        let logins = crowd.log_in(users)?;
        let cpu = watch.end(cpu_of(&crowd.pids())? - before)?;
        crowd.log_out(0)?;
        Ok((logins, cpu))
    })?;
    Ok(OneTransport {
        transport,
        sides: found(&bursts),
    })
}

fn cpu_of(pids: &[u32]) -> Result<f64> {
    pids.iter().try_fold(0.0, |sum, &pid| {
        let usage = megaphone_load::usage::Usage::of(pid)
            .map_err(|error| Error::of(format!("worker {pid}"), error))?;
        Ok(sum + usage.cpu())
    })
}

fn found(bursts: &BTreeMap<Side, Vec<(Logins, Cpu)>>) -> BySide<OneSide> {
    let mut sides = BySide::new();
    for (&side, runs) in bursts {
        let mut one = OneSide::default();
        for (logins, cpu) in runs {
            let logged_in = f64::from(logins.logged_in);
            one.rate
                .0
                .push(logged_in / logins.seconds.max(f64::MIN_POSITIVE));
            one.cost.add(cpu, logged_in, 1_000.0);
            one.p50.0.push(logins.latency.p50 as f64);
            one.p99.0.push(logins.latency.p99 as f64);
        }
        sides.insert(side, one);
    }
    sides
}

fn about(measured: &Measured) -> String {
    format!(
        "{} anonymous users log in (stream, SASL, bind, session, presence), 64 at a time, each as soon as another has \
         ended; after each run they log out again. Generator and server share the processors, so logins a second are \
         what both can do together; processor time for a login tells who takes it. Anonymous logins leave the \
         password's hash out, which costs the same on both sides and would hide the rest.",
        count(measured.users)
    )
}

fn table(measured: &Measured) -> Table {
    let header = [
        "",
        "logins/s",
        "beside stock",
        "ejabberd, ms",
        "ECM, ms",
        "both, ms",
        "both, beside stock",
    ];
    let more = ["generator, ms", "a login takes, p50, ms", "p99, ms"];
    let mut table = Table::new(
        "Logins a second, processor milliseconds for one, and how long one takes.",
        &[&header[..], &more[..]].concat(),
    );
    for one in &measured.transports {
        let stock = one.sides.get(&Side::Stock);
        for side in ALL {
            let Some(found) = one.sides.get(&side) else {
                continue;
            };
            let beside = |of: fn(&OneSide) -> Figure| match (side, stock) {
                (Side::Megaphone, Some(stock)) => of(found).beside(&of(stock)),
                _ => "–".to_owned(),
            };
            table.row([
                format!("{}, {side}", name(one.transport)).into(),
                (&found.rate).into(),
                beside(|side| side.rate.clone()).into(),
                (&found.cost.ejabberd).into(),
                if side == Side::Megaphone {
                    (&found.cost.ecm).into()
                } else {
                    "–".into()
                },
                found.cost.both().into(),
                beside(|side| side.cost.both()).into(),
                (&found.cost.generator).into(),
                milliseconds(&found.p50).into(),
                milliseconds(&found.p99).into(),
            ]);
        }
    }
    table
}

fn bars(measured: &Measured) -> Bars {
    let group = |one: &OneTransport| Group {
        label: name(one.transport).to_owned(),
        bars: ALL
            .iter()
            .filter_map(|&side| Some(Bar::plain(side.into(), &one.sides.get(&side)?.rate)))
            .collect(),
    };
    Bars {
        file: "logins".to_owned(),
        title: "Logins a second, generator and server on the same processors".to_owned(),
        y: Axis::linear("logins a second"),
        legend: ALL
            .iter()
            .map(|&side| (side.into(), side.to_string()))
            .collect(),
        groups: measured.transports.iter().map(group).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_logins_becomes_rate_and_cost() {
        let logins = Logins {
            tried: 200,
            logged_in: 200,
            seconds: 0.5,
            ..Logins::default()
        };
        let cpu = Cpu {
            ejabberd: 0.4,
            edge: 0.1,
            generator: 0.2,
            seconds: 0.5,
        };
        let sides = found(&BTreeMap::from([(Side::Megaphone, vec![(logins, cpu)])]));
        let one = &sides[&Side::Megaphone];
        assert_eq!((one.rate.median(), one.cost.both().median()), (400.0, 2.5));
    }
}
