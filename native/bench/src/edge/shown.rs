//! How part 7 is shown.

use crate::edge::{KINDS, Kind, Measured, Slope};
use crate::figure::{Figure, count};
use crate::plot::{Axis, Bar, Bars, Group, Ink};
use crate::requests::{per_million, rates};
use crate::section::{Cell, Section, Table};

const TEXT: &str = "\
What the ECM costs by itself: the generator sends trivial HTTP requests through it to the stand-in, which speaks the
link protocol here. Beside it Debian's haproxy and nginx in its place as TCP proxies to the same stand-in's HTTP port,
with as many threads or workers as the ECM has, no logs and no TLS. A TCP proxy opens a connection to the backend for
each client, the ECM carries all over one link. CPU is the edge's own, in seconds per million requests as fast as
answered. Memory is what each idle connection (one request was answered on it) adds, as the slope between fewer and
more of them: resident (RSS), and with shared pages divided among those that share them (PSS). What the kernel keeps
for the sockets is not in it: a TCP proxy has two for each client, and its backend one, the ECM one and its backend
none.";

/// Text, table and plots.
pub fn section(measured: &Measured) -> Section {
    let mut section = Section::default();
    section.text(TEXT);
    section
        .table(table(measured))
        .plot(cpu(measured))
        .plot(memory(measured));
    section
}

pub fn bytes(measured: &Measured, kind: Kind, of: impl Fn(&Slope) -> [u64; 2]) -> Option<Figure> {
    let connections = f64::from(measured.many - measured.few);
    let slopes = measured.idle.get(&kind)?;
    Some(
        slopes
            .iter()
            .map(|slope| (of(slope)[1] as f64 - of(slope)[0] as f64) / connections)
            .collect(),
    )
}

fn table(measured: &Measured) -> Table {
    let mut header = vec!["edge".to_owned()];
    for connections in measured.requests.keys() {
        let connections = count(*connections);
        header.push(format!("requests/s, {connections} connections"));
        header.push("edge CPU".to_owned());
        header.push("backend CPU".to_owned());
    }
    header.push("bytes per idle connection, RSS".to_owned());
    header.push("PSS".to_owned());
    let mut table = Table {
        header,
        ..Table::default()
    };
    for kind in KINDS {
        let mut cells = vec![Cell::from(kind.name())];
        for found in measured.requests.values() {
            let reports = &found[&kind];
            cells.push(rates(reports).into());
            cells.push(if kind == Kind::None {
                Cell::from("–")
            } else {
                per_million(reports, |cpu| cpu.edge).into()
            });
            cells.push(per_million(reports, |cpu| cpu.ejabberd).into());
        }
        cells.push(bytes(measured, kind, |slope| slope.rss).as_ref().into());
        cells.push(bytes(measured, kind, |slope| slope.pss).as_ref().into());
        table.row(cells);
    }
    for other in [Kind::Haproxy, Kind::Nginx] {
        table.row(compared(measured, other));
    }
    table
}

fn compared(measured: &Measured, other: Kind) -> Vec<Cell> {
    let words = |ours: &Figure, theirs: &Figure| Cell::from(format!("*{}*", ours.beside(theirs)));
    let mut cells = vec![Cell::from(format!(
        "*megaphone-ecm beside {}*",
        other.name()
    ))];
    for found in measured.requests.values() {
        let (ours, theirs) = (&found[&Kind::Ecm], &found[&other]);
        cells.push(words(&rates(ours), &rates(theirs)));
        cells.push(words(
            &per_million(ours, |cpu| cpu.edge),
            &per_million(theirs, |cpu| cpu.edge),
        ));
        cells.push(words(
            &per_million(ours, |cpu| cpu.ejabberd),
            &per_million(theirs, |cpu| cpu.ejabberd),
        ));
    }
    for of in [|slope: &Slope| slope.rss, |slope: &Slope| slope.pss] {
        let both = (bytes(measured, Kind::Ecm, of), bytes(measured, other, of));
        cells.push(match both {
            (Some(ours), Some(theirs)) => words(&ours, &theirs),
            _ => Cell::from("–"),
        });
    }
    cells
}

fn cpu(measured: &Measured) -> Bars {
    let groups = measured.requests.iter().map(|(connections, found)| Group {
        label: format!("{} connections", count(*connections)),
        bars: KINDS[1..]
            .iter()
            .map(|kind| Bar::plain(kind.ink(), &per_million(&found[kind], |cpu| cpu.edge)))
            .collect(),
    });
    Bars {
        file: "edge-cpu".to_owned(),
        title: "CPU of the edge for a million requests carried".to_owned(),
        y: Axis::linear("seconds of CPU"),
        legend: legend(),
        groups: groups.collect(),
    }
}

fn memory(measured: &Measured) -> Bars {
    let group = |label: &str, of: fn(&Slope) -> [u64; 2]| Group {
        label: label.to_owned(),
        bars: KINDS[1..]
            .iter()
            .filter_map(|&kind| Some(Bar::plain(kind.ink(), &bytes(measured, kind, of)?)))
            .collect(),
    };
    Bars {
        file: "edge-memory".to_owned(),
        title: "Memory of the edge for each idle connection".to_owned(),
        y: Axis::linear("bytes"),
        legend: legend(),
        groups: vec![
            group("resident (RSS)", |slope| slope.rss),
            group("resident, shared pages divided (PSS)", |slope| slope.pss),
        ],
    }
}

fn legend() -> Vec<(Ink, String)> {
    KINDS[1..]
        .iter()
        .map(|kind| (kind.ink(), kind.name().to_owned()))
        .collect()
}
