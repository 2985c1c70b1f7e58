//! Part 6: many bytes.

use megaphone_load::bulk::{Direction, Report};
use serde::{Deserialize, Serialize};

use crate::bench::Bench;
use crate::error::Result;
use crate::figure::{Figure, count};
use crate::measure::in_turns;
use crate::part::Part;
use crate::plot::{Axis, Bar, Bars, Group, Ink};
use crate::rig::{LinkKind, Setup, Site};
use crate::section::{Cell, Section, Table};
use crate::side::{BOTH, BySide, Side};
use crate::watch::Cpu;

/// Connections at a time.
const CONNECTIONS: [u32; 2] = [1, 1000];

/// Part 6.
#[derive(Debug)]
pub struct Bulk;

/// What was measured.
#[derive(Debug, Serialize, Deserialize)]
pub struct Measured {
    rows: Vec<Row>,
    /// One link alone beside one TCP connection.
    #[serde(default)]
    links: Vec<Row>,
}

/// Connections on the one link that is measured alone.
const ON_A_LINK: u32 = 16;

/// The window of each, bytes: what an ECM's grows to for who can use it.
const WINDOW: &str = "524288";

#[derive(Debug, Serialize, Deserialize)]
struct Row {
    connections: u32,
    direction: Direction,
    found: BySide<Vec<Report>>,
}

impl Part for Bulk {
    type Measured = Measured;
    const NUMBER: u8 = 6;
    const NAME: &'static str = "bulk";
    const TITLE: &'static str = "Many bytes";

    fn measure(bench: &Bench) -> Result<Measured> {
        // The generator is an edge itself in a part of this, and speaks TCP.
        let setup = Setup {
            link: Some(LinkKind::Tcp),
            ..Setup::default()
        };
        let sites = Site::start_all(bench, &BOTH, &setup)?;
        let mut rows = Vec::new();
        for connections in CONNECTIONS {
            for direction in [Direction::Up, Direction::Down] {
                bench.say(format!("{connections} connections, {}", name(direction)));
                let found = in_turns(&BOTH, bench.runs(), |side, _| {
                    move_bytes(bench, &sites[&side], connections, direction)
                })?;
                rows.push(Row {
                    connections,
                    direction,
                    found,
                });
            }
        }
        let mut links = Vec::new();
        for direction in [Direction::Up, Direction::Down] {
            bench.say(format!("one link alone, {}", name(direction)));
            let found = in_turns(&BOTH, bench.runs(), |side, _| match side {
                Side::Megaphone => over_a_link(bench, &sites[&side], direction),
                _ => move_bytes(bench, &sites[&side], 1, direction),
            })?;
            links.push(Row {
                connections: ON_A_LINK,
                direction,
                found,
            });
        }
        Ok(Measured { rows, links })
    }

    fn section(measured: &Measured) -> Section {
        let mut section = Section::default();
        section.text(TEXT);
        section
            .table(table(&measured.rows))
            .plot(speed(&measured.rows))
            .plot(cpu(&measured.rows));
        if !measured.links.is_empty() {
            section.text(LINKS).table(links(&measured.links));
        }
        section
    }
}

const TEXT: &str = "\
As many bytes as go, to a process that reads (`gen_tcp:recv`) or from one that writes blocks of 64 KB, over one
connection and over a thousand at a time; the same module behind stock's listener and behind megaphone. An XMPP server
hardly ever does this, but it shows what a byte costs on its way: over stock's connection the kernel copies it once into
the node; over megaphone it goes through the ECM and a link of its own, where each connection may have only so much under
way (its window), so that one that is fast cannot hold up the others. Loopback makes the difference as large as it can
be: between machines the network is the limit. Fairness is Jain's index of what each connection got: 1 when all have the
same.";

const LINKS: &str = "\
One link by itself: `megaphone-load` is the edge, with sixteen connections on the link and no ECM and no clients, and
the same module takes or gives the bytes. Beside it the same module over one TCP connection of its own: raw loopback.";

/// What one link carries of raw loopback, as a part of 1: the medians.
pub fn of_raw(measured: &Measured, direction: Direction) -> Option<(Figure, Figure)> {
    let row = measured
        .links
        .iter()
        .find(|row| row.direction == direction)?;
    Some((
        megabytes(row.found.get(&Side::Stock)?),
        megabytes(row.found.get(&Side::Megaphone)?),
    ))
}

/// As [`move_bytes`], over one link from an edge that is the generator.
fn over_a_link(bench: &Bench, site: &Site, direction: Direction) -> Result<Report> {
    let address = site.link_address()?.to_string();
    let (connections, pid) = (ON_A_LINK.to_string(), site.pid().to_string());
    let mut args = vec!["link", &address, "--service", "bulk", "--connections"];
    args.extend([
        &*connections,
        "--window",
        WINDOW,
        "--bulk",
        name(direction),
        "--server-pid",
        &pid,
        "--for",
        bench.pick("3s", "300ms"),
        "--warm-up",
        bench.pick("1s", "100ms"),
    ]);
    let watch = site.watch(bench, &format!("bulk-link-{}", name(direction)))?;
    let report: Report = bench.load(&args)?;
    watch.end(report.window.generator_cpu)?;
    Ok(report)
}

fn links(rows: &[Row]) -> Table {
    let header = [
        "direction",
        "raw loopback TCP, MB/s",
        "one link, MB/s",
        "of raw",
        "ejabberd CPU, raw",
        "ejabberd CPU, link",
    ];
    let mut table = Table::new("CPU in seconds per GB.", &header);
    for row in rows {
        let [raw, link] = [Side::Stock, Side::Megaphone].map(|side| &row.found[&side]);
        let [raw_speed, link_speed] = [raw, link].map(|reports| megabytes(reports));
        let share = link_speed.median() * 100.0 / raw_speed.median().max(f64::MIN_POSITIVE);
        table.row([
            Cell::from(toward(row.direction)),
            (&raw_speed).into(),
            (&link_speed).into(),
            Cell::from(format!("{share:.0} %")),
            per_gigabyte(raw, |cpu| cpu.ejabberd).into(),
            per_gigabyte(link, |cpu| cpu.ejabberd).into(),
        ]);
    }
    table
}

fn toward(direction: Direction) -> &'static str {
    match direction {
        Direction::Up => "to ejabberd",
        Direction::Down => "from ejabberd",
    }
}

fn move_bytes(
    bench: &Bench,
    site: &Site,
    connections: u32,
    direction: Direction,
) -> Result<Report> {
    let address = site.address("bulk")?.to_string();
    let pids: Vec<String> = site.pids().iter().map(u32::to_string).collect();
    let connections = connections.to_string();
    let mut args = vec![
        "bulk",
        &address,
        "--connections",
        &connections,
        "--direction",
        name(direction),
    ];
    args.extend([
        "--for",
        bench.pick("3s", "300ms"),
        "--warm-up",
        bench.pick("1s", "100ms"),
    ]);
    pids.iter()
        .for_each(|pid| args.extend(["--server-pid", pid]));
    let watch = site.watch(bench, &format!("bulk-{connections}-{}", name(direction)))?;
    let report: Report = bench.load(&args)?;
    watch.end(report.window.generator_cpu)?;
    Ok(report)
}

fn name(direction: Direction) -> &'static str {
    match direction {
        Direction::Up => "up",
        Direction::Down => "down",
    }
}

fn megabytes(reports: &[Report]) -> Figure {
    reports
        .iter()
        .map(|report| report.megabytes_per_second)
        .collect()
}

/// Seconds of CPU for 10^9 bytes.
fn per_gigabyte(reports: &[Report], of: impl Fn(&Cpu) -> f64) -> Figure {
    reports
        .iter()
        .map(|report| of(&Cpu::from(&report.window)) * 1e9 / report.bytes.max(1) as f64)
        .collect()
}

fn fairness(reports: &[Report]) -> Figure {
    reports.iter().map(|report| report.shares.jain).collect()
}

fn label(row: &Row) -> String {
    let direction = toward(row.direction);
    match row.connections {
        1 => format!("1 connection, {direction}"),
        more => format!("{}, {direction}", count(more)),
    }
}

fn table(rows: &[Row]) -> Table {
    let header = [
        "connections",
        "side",
        "MB/s",
        "ejabberd CPU",
        "ECM CPU",
        "both",
        "generator CPU",
        "fairness",
    ];
    let mut table = Table::new("CPU in seconds per GB (10⁹ bytes).", &header);
    for row in rows {
        for side in BOTH {
            let reports = &row.found[&side];
            let only_ecm = if side == Side::Megaphone {
                Cell::from(per_gigabyte(reports, |cpu| cpu.edge))
            } else {
                Cell::from("–")
            };
            table.row([
                Cell::from(label(row)),
                Cell::from(side.to_string()),
                megabytes(reports).into(),
                per_gigabyte(reports, |cpu| cpu.ejabberd).into(),
                only_ecm,
                per_gigabyte(reports, Cpu::both).into(),
                per_gigabyte(reports, |cpu| cpu.generator).into(),
                fairness(reports).into(),
            ]);
        }
        let beside = |of: fn(&[Report]) -> Figure| {
            let words = of(&row.found[&Side::Megaphone]).beside(&of(&row.found[&Side::Stock]));
            Cell::from(format!("*{words}*"))
        };
        table.row([
            Cell::from(label(row)),
            Cell::from("*megaphone beside stock*"),
            beside(megabytes),
            beside(|reports: &[Report]| per_gigabyte(reports, |cpu| cpu.ejabberd)),
            Cell::from(""),
            beside(|reports: &[Report]| per_gigabyte(reports, Cpu::both)),
            beside(|reports: &[Report]| per_gigabyte(reports, |cpu| cpu.generator)),
            beside(fairness),
        ]);
    }
    table
}

fn speed(rows: &[Row]) -> Bars {
    let group = |row: &Row| Group {
        label: label(row),
        bars: BOTH
            .iter()
            .map(|side| Bar::plain(Ink::from(*side), &megabytes(&row.found[side])))
            .collect(),
    };
    Bars {
        file: "bulk-speed".to_owned(),
        title: "Bytes as fast as they go".to_owned(),
        y: Axis::linear("MB/s"),
        legend: vec![
            (Ink::Stock, "stock ejabberd".to_owned()),
            (Ink::Megaphone, "megaphone".to_owned()),
        ],
        groups: rows.iter().map(group).collect(),
    }
}

fn cpu(rows: &[Row]) -> Bars {
    let group = |row: &Row| Group {
        label: label(row),
        bars: vec![
            Bar::plain(
                Ink::Stock,
                &per_gigabyte(&row.found[&Side::Stock], |cpu| cpu.ejabberd),
            ),
            Bar::stack(&[
                (
                    Ink::Megaphone,
                    &per_gigabyte(&row.found[&Side::Megaphone], |cpu| cpu.ejabberd),
                ),
                (
                    Ink::Ecm,
                    &per_gigabyte(&row.found[&Side::Megaphone], |cpu| cpu.edge),
                ),
            ]),
        ],
    };
    Bars {
        file: "bulk-cpu".to_owned(),
        title: "CPU of a GB".to_owned(),
        y: Axis::linear("seconds of CPU"),
        legend: vec![
            (Ink::Stock, "stock ejabberd".to_owned()),
            (Ink::Megaphone, "ejabberd with megaphone".to_owned()),
            (Ink::Ecm, "its ECM".to_owned()),
        ],
        groups: rows.iter().map(group).collect(),
    }
}
