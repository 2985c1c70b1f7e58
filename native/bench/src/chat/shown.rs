//! What part 3 shows.

use std::fmt::Write;

use crate::chat::{Latency, Load, Measured, OneTransport};
use crate::crowd::{milliseconds, name};
use crate::figure::{Figure, count, number};
use crate::plot::{Axis, Bar, Bars, Group, Ink};
use crate::section::{Section, Table};
use crate::side::{ALL, Side};

/// One of the percentiles.
type Percentile = fn(&Latency) -> &Figure;

/// Text, tables and plots.
pub fn section(measured: &Measured) -> Section {
    let mut section = Section::default();
    section.text(about(measured));
    section.table(costs(measured));
    section.text(in_words(measured));
    if let Some(text) = lost(measured) {
        section.text(text);
    }
    section.plot(cost_bars(measured));
    section.text(about_latency(measured));
    for one in &measured.transports {
        section.table(latencies(one));
    }
    section.plot(latency_bars(measured, "p50", |latency| &latency.p50));
    section.plot(latency_bars(measured, "p99", |latency| &latency.p99));
    section
}

fn about(measured: &Measured) -> String {
    format!(
        "{users} anonymous users are logged in at each of stock, megaphone and the stand-in, all at once, and random \
         pairs of them send each other messages with {body} bytes of body. First the load that each holds is looked \
         for: two seconds a step, doubling, then (but for the stand-in) halving the gap three times; a load is held while 99 of 100 messages \
         arrive within {bound:.0} ms of when they were due and the generator can send what is due. Then all three \
         get half of what the weaker of stock and megaphone holds, in windows of four seconds that alternate. \
         Processor seconds are for a million messages, with everything that the node does meanwhile (held BOSH \
         requests that run out, for one). The stand-in's row is what an echo server in ejabberd's place takes: how \
         much of what is seen is the kernel's sockets.",
        users = count(measured.users),
        body = measured.body,
        bound = measured.bound,
    )
}

fn costs(measured: &Measured) -> Table {
    let mut table = Table::new(
        "Processor seconds for a million messages, at half of the weaker side's saturating load.",
        &[
            "",
            "held, messages/s",
            "ejabberd",
            "ECM",
            "both",
            "beside stock",
            "generator",
            "generator's share",
        ],
    );
    for one in &measured.transports {
        for side in ALL {
            let (Some(cost), Some(found)) = (one.cost.get(&side), one.saturation.get(&side)) else {
                continue;
            };
            let both = cost.both();
            let beside = match (side, one.cost.get(&Side::Stock)) {
                (Side::Megaphone, Some(stock)) => both.beside(&stock.both()),
                _ => "–".to_owned(),
            };
            let held = if found.ceiling { "at least " } else { "" };
            let share = one
                .generator_share
                .get(&side)
                .map(|share| share.map(|share| share * 100.0));
            table.row([
                format!("{}, {side}", name(one.transport)).into(),
                format!("{held}{}", number(found.rate.round())).into(),
                (&cost.ejabberd).into(),
                if side == Side::Megaphone {
                    (&cost.ecm).into()
                } else {
                    "–".into()
                },
                both.into(),
                beside.into(),
                (&cost.generator).into(),
                share
                    .map_or_else(
                        || "–".to_owned(),
                        |share| format!("{} %", number(share.median())),
                    )
                    .into(),
            ]);
        }
    }
    table
}

fn in_words(measured: &Measured) -> String {
    let mut text = String::new();
    for one in &measured.transports {
        let (Some(stock), Some(megaphone)) =
            (one.cost.get(&Side::Stock), one.cost.get(&Side::Megaphone))
        else {
            continue;
        };
        let _ = write!(
            text,
            "Over {}, a message takes {} of ejabberd's processor time beside stock, and {} with the ECM's. ",
            name(one.transport),
            words(&megaphone.ejabberd, &stock.ejabberd),
            words(&megaphone.both(), &stock.both()),
        );
    }
    text
}

fn words(figure: &Figure, other: &Figure) -> String {
    match figure.beside(other) {
        same if same.starts_with("the same") => same,
        other => format!("**{other}**"),
    }
}

fn cost_bars(measured: &Measured) -> Bars {
    let group = |one: &OneTransport| Group {
        label: name(one.transport).to_owned(),
        bars: ALL
            .iter()
            .filter_map(|&side| {
                let cost = one.cost.get(&side)?;
                Some(match side {
                    Side::Megaphone => {
                        Bar::stack(&[(Ink::Megaphone, &cost.ejabberd), (Ink::Ecm, &cost.ecm)])
                    }
                    _ => Bar::plain(side.into(), &cost.ejabberd),
                })
            })
            .collect(),
    };
    Bars {
        file: "chat-cpu".to_owned(),
        title: "What a million chat messages take of the processor".to_owned(),
        y: Axis::linear("processor seconds for a million messages"),
        legend: vec![
            (Ink::Stock, "stock ejabberd".to_owned()),
            (Ink::Megaphone, "ejabberd with megaphone".to_owned()),
            (Ink::Ecm, "its ECM".to_owned()),
            (Ink::Floor, "stand-in".to_owned()),
        ],
        groups: measured.transports.iter().map(group).collect(),
    }
}

/// What happened to BOSH where there was too much.
fn lost(measured: &Measured) -> Option<String> {
    let of = |side| {
        measured
            .transports
            .iter()
            .filter_map(|one| one.lost.get(&side))
            .sum::<u64>()
    };
    let [stock, megaphone] = [Side::Stock, Side::Megaphone].map(of);
    (stock + megaphone > 0).then(|| {
        format!(
            "Where BOSH was given more than it holds, {stock} messages were lost for good by stock and {megaphone} by \
             megaphone: ejabberd lays a request aside that overtakes the one before it, and may not come back to it \
             (`ejabberd_bosh`, the same code on both sides). In the windows below that would fail the part."
        )
    })
}

fn about_latency(measured: &Measured) -> String {
    let shares: Vec<String> = measured
        .transports
        .first()
        .map(|one| {
            one.loads
                .iter()
                .map(|load| format!("{:.0} %", load.share * 100.0))
                .collect()
        })
        .unwrap_or_default();
    format!(
        "A message's latency counts from when it was due, not from when it could be sent, until its receiver has read \
         it, at {} of what the weaker side holds. What it takes over the stand-in is what ejabberd, and the ECM, add; \
         the rest is the generator's, the kernel's and the transport's own. Server and generator share this machine's \
         processors, so a load near the limit shows who is scheduled when more than anything.",
        shares.join(", ")
    )
}

fn latencies(one: &OneTransport) -> Table {
    let mut table = Table::new(
        &format!("Latency over {}, in milliseconds.", name(one.transport)),
        &[
            "",
            "stock",
            "megaphone",
            "stand-in",
            "stock over stand-in",
            "megaphone over stand-in",
            "megaphone beside stock",
        ],
    );
    for load in &one.loads {
        let percentiles: [(&str, Percentile); 3] = [
            ("p50", |latency| &latency.p50),
            ("p99", |latency| &latency.p99),
            ("p99.9", |latency| &latency.p999),
        ];
        for (percentile, of) in percentiles {
            let [Some(stock), Some(megaphone), Some(floor)] =
                ALL.map(|side| figure(load, side, of))
            else {
                continue;
            };
            let over = |figure: &Figure| number(figure.median() - floor.median());
            table.row([
                format!(
                    "{:.0} % ({} messages/s), {percentile}",
                    load.share * 100.0,
                    number(load.rate)
                )
                .into(),
                (&stock).into(),
                (&megaphone).into(),
                (&floor).into(),
                over(&stock).into(),
                over(&megaphone).into(),
                megaphone.beside(&stock).into(),
            ]);
        }
    }
    table
}

fn figure(load: &Load, side: Side, of: Percentile) -> Option<Figure> {
    Some(milliseconds(of(load.latency.get(&side)?)))
}

/// A group for each transport and load.
fn latency_bars(measured: &Measured, percentile: &str, of: Percentile) -> Bars {
    let groups = measured.transports.iter().flat_map(|one| {
        one.loads.iter().map(move |load| Group {
            label: format!("{} {:.0} %", name(one.transport), load.share * 100.0),
            bars: ALL
                .iter()
                .filter_map(|&side| Some(Bar::plain(side.into(), &figure(load, side, of)?)))
                .collect(),
        })
    });
    Bars {
        file: format!("chat-latency-{percentile}"),
        title: format!(
            "How long a message takes ({percentile}), at a part of what the weaker side holds"
        ),
        y: Axis::linear("milliseconds from when it was due"),
        legend: ALL
            .iter()
            .map(|&side| (side.into(), side.to_string()))
            .collect(),
        groups: groups.collect(),
    }
}
