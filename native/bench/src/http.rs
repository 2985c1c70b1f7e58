//! Part 2: trivial HTTP requests.

use std::collections::BTreeMap;

use megaphone_load::http::Report;
use serde::{Deserialize, Serialize};

use crate::bench::Bench;
use crate::error::Result;
use crate::figure::{Figure, count, number};
use crate::measure::in_turns;
use crate::part::Part;
use crate::plot::{Axis, Bar, Bars, Group, Ink, Lines, Series};
use crate::requests::{self, per_million, rates};
use crate::rig::{Setup, Site};
use crate::section::{Cell, Section, Table};
use crate::side::{ALL, BOTH, BySide, Side};
use crate::watch::Cpu;

/// Kept-alive connections.
const CONNECTIONS: [u32; 3] = [1, 64, 1000];

/// The rate at which latency is compared, as a share of what the slower of both sides does at its best.
const SHARE: f64 = 0.5;

/// Part 2.
#[derive(Debug)]
pub struct Http;

/// What was measured, by number of connections.
#[derive(Debug, Serialize, Deserialize)]
pub struct Measured {
    rows: BTreeMap<u32, Row>,
}

/// What was measured with so many connections.
#[derive(Debug, Serialize, Deserialize)]
struct Row {
    /// As fast as answered.
    closed: BySide<Vec<Report>>,
    /// At the common rate.
    open: BySide<Vec<Report>>,
}

impl Part for Http {
    type Measured = Measured;
    const NUMBER: u8 = 2;
    const NAME: &'static str = "http";
    const TITLE: &'static str = "A trivial HTTP request";

    fn measure(bench: &Bench) -> Result<Measured> {
        let sites = Site::start_all(bench, &ALL, &Setup::default())?;
        let mut rows = BTreeMap::new();
        for connections in CONNECTIONS {
            bench.say(format!("{connections} connections"));
            let closed = in_turns(&ALL, bench.runs(), |side, _| {
                ask(bench, &sites[&side], connections, None)
            })?;
            let slowest = BOTH
                .iter()
                .map(|side| rates(&closed[side]).median())
                .fold(f64::MAX, f64::min);
            let rate = (slowest * SHARE).round().max(1.0);
            let open = in_turns(&ALL, bench.runs(), |side, _| {
                ask(bench, &sites[&side], connections, Some(rate))
            })?;
            rows.insert(connections, Row { closed, open });
        }
        Ok(Measured { rows })
    }

    fn section(measured: &Measured) -> Section {
        let mut section = Section::default();
        section.text(TEXT);
        section.table(table(measured)).text(lateness(measured));
        section.plot(cpu(measured)).plot(latency(measured));
        section
    }
}

/// ejabberd's CPU seconds for a million requests over so many connections: stock's, and megaphone's.
pub fn cost(measured: &Measured, connections: u32) -> Option<[Figure; 2]> {
    let row = measured.rows.get(&connections)?;
    let of = |side| Some(per_million(row.closed.get(&side)?, |cpu| cpu.ejabberd));
    Some([of(Side::Stock)?, of(Side::Megaphone)?])
}

const TEXT: &str = "\
GET requests over kept-alive connections to a handler of `ejabberd_http` that answers `ok`: what a request costs
before anything is done for it. The first five columns are of a closed loop (each connection asks again as soon as it
is answered); CPU is in seconds per million requests. Latency, in microseconds, is of an open loop at one rate for all,
half of what the slower of stock and megaphone did at its best, from when a request was due to the end of its answer.
One connection alone shows the longer way over ECM and link; many show what links save where they carry several
requests at once.";

/// One window.
fn ask(bench: &Bench, site: &Site, connections: u32, rate: Option<f64>) -> Result<Report> {
    let url = format!("http://{}/ok", site.address("http")?);
    let kind = if rate.is_some() { "open" } else { "closed" };
    let watch = site.watch(bench, &format!("http-{connections}-{kind}"))?;
    let who = site.side().to_string();
    requests::ask(bench, &who, &url, connections, rate, &site.pids(), watch)
}

fn percentile(reports: &[Report], of: impl Fn(&Report) -> u64) -> Figure {
    reports.iter().map(|report| of(report) as f64).collect()
}

fn table(measured: &Measured) -> Table {
    let header = [
        "connections",
        "side",
        "requests/s",
        "ejabberd CPU",
        "ECM CPU",
        "both",
        "generator CPU",
        "rate",
        "p50",
        "p99",
        "p99.9",
    ];
    let mut table = Table::new("", &header);
    for (connections, row) in &measured.rows {
        for side in ALL {
            let (closed, open) = (&row.closed[&side], &row.open[&side]);
            let only_ecm = if side == Side::Megaphone {
                Cell::from(per_million(closed, |cpu| cpu.edge))
            } else {
                Cell::from("–")
            };
            table.row([
                Cell::from(count(*connections)),
                Cell::from(side.to_string()),
                rates(closed).into(),
                per_million(closed, |cpu| cpu.ejabberd).into(),
                only_ecm,
                per_million(closed, Cpu::both).into(),
                per_million(closed, |cpu| cpu.generator).into(),
                Cell::from(number(open[0].rate.unwrap_or(0.0))),
                percentile(open, |report| report.latency.p50).into(),
                percentile(open, |report| report.latency.p99).into(),
                percentile(open, |report| report.latency.p999).into(),
            ]);
        }
        table.row(compared(*connections, row));
    }
    table
}

/// What the generator itself did wrong.
fn lateness(measured: &Measured) -> String {
    let reports = || {
        measured
            .rows
            .values()
            .flat_map(|row| row.open.values())
            .flatten()
    };
    let late: u64 = reports().map(|report| report.late).sum();
    let all: u64 = reports().map(|report| report.answered).sum();
    let share = late as f64 * 100.0 / all.max(1) as f64;
    format!(
        "Of the {} requests of the open loop, the generator by its own fault sent {} ({share:.2} %) more than a \
         millisecond after they were due; they count from when they were due all the same.",
        count(all),
        count(late)
    )
}

fn compared(connections: u32, row: &Row) -> [Cell; 11] {
    let beside = |by: &BySide<Vec<Report>>, figure: &dyn Fn(&[Report]) -> Figure| {
        Cell::from(format!(
            "*{}*",
            figure(&by[&Side::Megaphone]).beside(&figure(&by[&Side::Stock]))
        ))
    };
    [
        Cell::from(count(connections)),
        Cell::from("*megaphone beside stock*"),
        beside(&row.closed, &rates),
        beside(&row.closed, &|reports: &[Report]| {
            per_million(reports, |cpu| cpu.ejabberd)
        }),
        Cell::from(""),
        beside(&row.closed, &|reports: &[Report]| {
            per_million(reports, Cpu::both)
        }),
        beside(&row.closed, &|reports: &[Report]| {
            per_million(reports, |cpu| cpu.generator)
        }),
        Cell::from(""),
        beside(&row.open, &|reports| {
            percentile(reports, |report| report.latency.p50)
        }),
        beside(&row.open, &|reports| {
            percentile(reports, |report| report.latency.p99)
        }),
        beside(&row.open, &|reports| {
            percentile(reports, |report| report.latency.p999)
        }),
    ]
}

fn cpu(measured: &Measured) -> Bars {
    let group = |(connections, row): (&u32, &Row)| Group {
        label: match connections {
            1 => "1 connection".to_owned(),
            more => format!("{} connections", count(*more)),
        },
        bars: vec![
            Bar::plain(
                Ink::Stock,
                &per_million(&row.closed[&Side::Stock], |cpu| cpu.ejabberd),
            ),
            Bar::stack(&[
                (
                    Ink::Megaphone,
                    &per_million(&row.closed[&Side::Megaphone], |cpu| cpu.ejabberd),
                ),
                (
                    Ink::Ecm,
                    &per_million(&row.closed[&Side::Megaphone], |cpu| cpu.edge),
                ),
            ]),
            Bar::plain(
                Ink::Floor,
                &per_million(&row.closed[&Side::Floor], |cpu| cpu.ejabberd),
            ),
        ],
    };
    Bars {
        file: "http-cpu".to_owned(),
        title: "CPU of a million trivial HTTP requests".to_owned(),
        y: Axis::linear("seconds of CPU"),
        legend: vec![
            (Ink::Stock, "stock ejabberd".to_owned()),
            (Ink::Megaphone, "ejabberd with megaphone".to_owned()),
            (Ink::Ecm, "its ECM".to_owned()),
            (Ink::Floor, "stand-in (floor)".to_owned()),
        ],
        groups: measured.rows.iter().map(group).collect(),
    }
}

fn latency(measured: &Measured) -> Lines {
    let line = |side: Side, name: &str, of: &dyn Fn(&Report) -> u64| {
        let start = Series::new(format!("{side}, {name}"), Ink::from(side));
        measured
            .rows
            .iter()
            .fold(start, |line, (connections, row)| {
                line.point(
                    f64::from(*connections),
                    percentile(&row.open[&side], of).map(|micros| micros / 1e3),
                )
            })
    };
    let series = ALL
        .into_iter()
        .flat_map(|side| {
            [
                line(side, "p99", &|report| report.latency.p99),
                line(side, "p50", &|report| report.latency.p50).dashed(),
            ]
        })
        .collect();
    Lines {
        file: "http-latency".to_owned(),
        title: "Latency of a trivial HTTP request at half the load that the slower side can take"
            .to_owned(),
        x: Axis::log("connections"),
        y: Axis::log("milliseconds"),
        series,
    }
}
