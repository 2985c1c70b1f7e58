//! What part 8 shows.

use crate::climb::links::{Held, Links};
use crate::climb::{Measured, PAUSE, Step};
use crate::figure::{Figure, count, number};
use crate::plot::{Axis, Ink, Lines, Series};
use crate::section::{Section, Table};
use crate::side::{BOTH, Side};
use crate::slope;

/// Text, tables and plots.
pub fn section(measured: &Measured) -> Section {
    let mut section = Section::default();
    section.text(about(measured)).table(steps(measured));
    section.plot(memory(measured)).plot(latency(measured));
    section
        .text(about_links(&measured.links))
        .table(links(&measured.links));
    section
}

fn about(measured: &Measured) -> String {
    let mut text = format!(
        "Anonymous users log in over WebSocket, step by step, and stay; at each step all of them chat for {} seconds, \
         each sending a message every {} seconds to somebody drawn at random. Memory is what is resident after that, \
         garbage and all. Each step was gone once.",
        count(measured.seconds.round() as u64),
        count(PAUSE as u64),
    );
    let stock = measured.sides.get(&Side::Stock);
    if let Some((way, step)) = stock.and_then(|way| Some((way, way.ends_before?))) {
        text += &format!(
            " The stock node needs a descriptor for each client. Its process may have {} here (`RLIMIT_NOFILE`, \
                 the hard limit) and uses {} by itself, so it cannot come to {} users, whatever memory there is: with \
                 a higher limit it would go on.",
            count(way.limit),
            count(way.own),
            count(step),
        );
    }
    if let Some(way) = measured.sides.get(&Side::Megaphone) {
        text += &format!(
            " With megaphone the descriptors are the ECMs', here {} of them to one node, each under the same limit.",
            way.ecms
        );
    }
    text
}

fn steps(measured: &Measured) -> Table {
    let mut table = Table::new(
        "Memory in megabytes, latency in milliseconds, processor time as a part of one processor.",
        &[
            "users",
            "node, RSS",
            "ECMs, RSS",
            "kB a user",
            "node's descriptors",
            "messages/s",
            "p50",
            "p99",
            "ejabberd's CPU",
            "ECMs' CPU",
            "logins/s",
        ],
    );
    for side in BOTH {
        for step in measured
            .sides
            .get(&side)
            .into_iter()
            .flat_map(|way| &way.steps)
        {
            let megaphone = side == Side::Megaphone;
            let when = |it: bool, text: String| if it { text } else { "–".to_owned() };
            let percent = |seconds: f64| {
                format!(
                    "{} %",
                    number(seconds / step.cpu.seconds.max(0.001) * 100.0)
                )
            };
            table.row([
                format!("{side}, {}", count(step.users)).into(),
                number(megabytes(step.node.rss)).into(),
                when(megaphone, number(megabytes(step.ecm.rss))).into(),
                number(
                    (step.node.rss + step.ecm.rss) as f64 / f64::from(step.users.max(1)) / 1_000.0,
                )
                .into(),
                count(step.descriptors).into(),
                number(step.rate).into(),
                number(step.latency.p50 as f64 / 1_000.0).into(),
                number(step.latency.p99 as f64 / 1_000.0).into(),
                percent(step.cpu.ejabberd).into(),
                when(megaphone, percent(step.cpu.edge)).into(),
                number(f64::from(step.logged_in) / step.login_seconds.max(0.001)).into(),
            ]);
        }
    }
    table
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// A line for each side, of what `value` says of a step.
fn series(measured: &Measured, what: &str, value: impl Fn(&Step) -> f64) -> Vec<Series> {
    BOTH.iter()
        .filter_map(|&side| {
            let way = measured.sides.get(&side)?;
            let empty = Series::new(format!("{side}{what}"), side.into());
            let point = |line: Series, step: &Step| {
                line.point(f64::from(step.users), Figure::from(value(step)))
            };
            Some(way.steps.iter().fold(empty, point))
        })
        .collect()
}

fn memory(measured: &Measured) -> Lines {
    let mut lines = series(measured, ", with ECMs", |step| {
        megabytes(step.node.rss + step.ecm.rss)
    });
    if let Some(stock) = lines.first_mut() {
        stock.label = Side::Stock.to_string();
    }
    if let Some(way) = measured.sides.get(&Side::Megaphone) {
        let empty = Series::new("the ECMs alone", Ink::Ecm);
        let point = |line: Series, step: &Step| {
            line.point(f64::from(step.users), megabytes(step.ecm.rss).into())
        };
        lines.push(way.steps.iter().fold(empty, point));
    }
    Lines {
        file: "climb-memory".to_owned(),
        title: "Memory of so many users held with chatter".to_owned(),
        x: Axis::log("users"),
        y: Axis::log("megabytes resident"),
        series: lines,
    }
}

fn latency(measured: &Measured) -> Lines {
    let mut lines = series(measured, ", p99", |step| step.latency.p99 as f64 / 1_000.0);
    lines.extend(
        series(measured, ", p50", |step| step.latency.p50 as f64 / 1_000.0)
            .into_iter()
            .map(Series::dashed),
    );
    Lines {
        file: "climb-latency".to_owned(),
        title: "How long a message takes, each user sending one a minute".to_owned(),
        x: Axis::log("users"),
        y: Axis::log("milliseconds from when it was due"),
        series: lines,
    }
}

fn about_links(links: &Links) -> String {
    let Links { report, .. } = links;
    let rate = report.opened as f64 / report.open.seconds.max(0.001);
    let rounds: Figure = report
        .rounds
        .iter()
        .map(|round| round.window.seconds)
        .collect();
    format!(
        "Then {} virtual connections on {} links of one megaphone node, from a synthetic peer (`megaphone-load link`) \
         in place of ECMs and clients: each is taken by an Erlang process of its own that echoes what comes and keeps \
         nothing. A connection is open when its first frame has come back. All were open after {} s ({} a second). A \
         round, a frame of {} bytes to each and one back, took {} s.",
        count(report.opened as u64),
        report.links,
        number(report.open.seconds),
        number(rate),
        report.payload,
        rounds,
    )
}

fn links(links: &Links) -> Table {
    let mut table = Table::new(
        "Bytes for each virtual connection, with its echoing process.",
        &["", "when all are open", "after the rounds"],
    );
    let connections = links.report.opened.max(1) as f64;
    let mut row = |title: &str, of: &dyn Fn(&Held) -> u64| {
        let each = |held: &Held| number((of(held) as f64 - of(&links.before) as f64) / connections);
        table.row([
            title.into(),
            each(&links.open).into(),
            each(&links.after).into(),
        ]);
    };
    let memory = |held: &Held, kind: &str| held.account.memory.get(kind).copied().unwrap_or(0);
    row("resident (RSS) of the node", &|held| held.node.rss);
    row("the BEAM's own count (`erlang:memory(total)`)", &|held| {
        memory(held, "total")
    });
    row("of it processes", &|held| memory(held, "processes"));
    row(slope::BINARIES, &|held| memory(held, "binary"));
    row(slope::ETS, &|held| memory(held, "ets"));
    row(slope::NIF, &|held| held.account.nifs.values().sum());
    table
}
