//! What part 5 shows.

use megaphone_load::target::Transport;

use crate::crowd::{TRANSPORTS, name};
use crate::figure::{Figure, count, number};
use crate::idle::{Measured, OneNode, Point};
use crate::plot::{Axis, Bar, Bars, Group, Ink};
use crate::section::{Section, Table};
use crate::side::{BOTH, Side};
use crate::slope::{self, PerUser, Sample, per_user};

/// Text, tables and plots.
pub fn section(measured: &Measured) -> Section {
    let mut section = Section::default();
    section.text(about(measured));
    section.table(summary(measured));
    section.text(kernel(measured));
    section.plot(bars(measured, "idle-stays", "as it stays", STAYS));
    section.plot(bars(
        measured,
        "idle-collected",
        "after a forced collection",
        COLLECTED,
    ));
    section.text(
        "What a user takes, in bytes, by what it is. The BEAM's kinds add up to what its allocators hold; the NIF's \
         memory lies beside that. Resident memory is less where an allocator holds pages that it has not touched.",
    );
    for transport in TRANSPORTS {
        section.table(breakdown(measured, transport));
    }
    section
}

/// Which of a point's two samples.
type Which = fn(&Point) -> &Sample;

const STAYS: Which = |point| &point.stays;
const COLLECTED: Which = |point| &point.collected;

/// What the table of aims shows of a transport.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Kilobytes of the BEAM's own count and the NIF's beside it: stock's, stock's when its garbage is collected, and
    /// megaphone's as it stays.
    pub memory: [Figure; 3],
    /// Kilobytes of megaphone's resident memory.
    pub resident: Figure,
    /// Descriptors and ports a user: stock's, and megaphone's.
    pub descriptors: [Figure; 2],
    /// See `descriptors`.
    pub ports: [Figure; 2],
    /// Processes a user: stock's, and megaphone's.
    pub processes: [Figure; 2],
}

/// See [`Outcome`].
pub fn outcome(measured: &Measured, transport: Transport) -> Outcome {
    let stock = of(measured, transport, Side::Stock, STAYS);
    let collected = of(measured, transport, Side::Stock, COLLECTED);
    let megaphone = of(measured, transport, Side::Megaphone, STAYS);
    let all = |user: &PerUser| user.beam + bytes(user, slope::NIF);
    let both = |value: fn(&PerUser) -> f64| [figure(&stock, value), figure(&megaphone, value)];
    Outcome {
        memory: [&stock, &collected, &megaphone].map(|users| kilobytes(figure(users, all))),
        resident: kilobytes(figure(&megaphone, |user| user.rss)),
        descriptors: both(|user| user.descriptors),
        ports: both(|user| user.ports),
        processes: both(|user| user.processes),
    }
}

/// What a user takes at each of a side's nodes.
fn of(measured: &Measured, transport: Transport, side: Side, which: Which) -> Vec<PerUser> {
    let nodes = nodes(measured, transport, side);
    nodes
        .filter_map(|node| {
            Some(per_user(
                which(node.points.first()?),
                which(node.points.last()?),
            ))
        })
        .collect()
}

fn nodes(measured: &Measured, transport: Transport, side: Side) -> impl Iterator<Item = &OneNode> {
    measured
        .nodes
        .iter()
        .filter(move |node| node.transport == transport && node.side == side)
}

fn figure(of: &[PerUser], value: impl Fn(&PerUser) -> f64) -> Figure {
    of.iter().map(value).collect()
}

fn kilobytes(bytes: Figure) -> Figure {
    bytes.map(|bytes| bytes / 1_000.0)
}

fn about(measured: &Measured) -> String {
    let [few, many] = measured.users.map(count);
    let longest = points(measured)
        .map(|point| point.waited)
        .fold(measured.wait, f64::max);
    let repeats = nodes(measured, Transport::Bosh, Side::Stock).count();
    format!(
        "{few} and then {many} anonymous users log in at a fresh node and say nothing more, but for what their \
         transport asks of them (a BOSH client asks anew each minute). The node is looked at {} to {} seconds after \
         the last login, first as it stays, then after every process has been made to collect its garbage twice. \
         Between the two numbers all users are new, so nobody's garbage was collected before its time. Figures are \
         the slope: what each user more takes.{}",
        count(measured.wait.round() as u64),
        count(longest.ceil() as u64),
        match repeats {
            0 | 1 => String::new(),
            _ => format!(" Each was done with {repeats} nodes, all up at once."),
        },
    )
}

fn points(measured: &Measured) -> impl Iterator<Item = &Point> {
    measured.nodes.iter().flat_map(|node| &node.points)
}

fn summary(measured: &Measured) -> Table {
    let mut table = Table::new(
        "Kilobytes (1,000 bytes) for each idle user: of resident memory (RSS), of the BEAM's own count \
         (`erlang:memory(total)`), of the ECMs.",
        &[
            "",
            "RSS",
            "beside stock",
            "BEAM",
            "BEAM, collected",
            "collected, beside stock",
            "ECM, RSS",
            "ECM, PSS",
            "descriptors of the node",
            "ports",
            "processes",
        ],
    );
    for transport in TRANSPORTS {
        let sides = BOTH.map(|side| {
            let stays = of(measured, transport, side, STAYS);
            (side, stays, of(measured, transport, side, COLLECTED))
        });
        let stock_rss = kilobytes(figure(&sides[0].1, |user| user.rss));
        let stock_beam = kilobytes(figure(&sides[0].2, |user| user.beam));
        for (side, stays, collected) in &sides {
            let megaphone = *side == Side::Megaphone;
            let when = |it: bool, text: String| if it { text } else { "–".to_owned() };
            let rss = kilobytes(figure(stays, |user| user.rss));
            let beam = kilobytes(figure(collected, |user| user.beam));
            table.row([
                format!("{}, {side}", name(transport)).into(),
                (&rss).into(),
                when(megaphone, rss.beside(&stock_rss)).into(),
                kilobytes(figure(stays, |user| user.beam)).into(),
                (&beam).into(),
                when(megaphone, beam.beside(&stock_beam)).into(),
                when(
                    megaphone,
                    kilobytes(figure(stays, |user| user.ecm_rss)).to_string(),
                )
                .into(),
                when(
                    megaphone,
                    kilobytes(figure(stays, |user| user.ecm_pss)).to_string(),
                )
                .into(),
                number(figure(stays, |user| user.descriptors).median()).into(),
                number(figure(stays, |user| user.ports).median()).into(),
                number(figure(stays, |user| user.processes).median()).into(),
            ]);
        }
    }
    table
}

/// The kernel's memory, as the growth of the machine's slabs while users log in.
fn kernel(measured: &Measured) -> String {
    let last = |node: &'_ OneNode| {
        node.points
            .last()
            .map(|point| (point.before, point.after, point.stays.users))
    };
    let all: Vec<_> = measured.nodes.iter().filter_map(last).collect();
    let per_end: Figure = all
        .iter()
        .filter_map(|(before, after, _)| after.per_socket(before))
        .collect();
    let connections: Vec<String> = TRANSPORTS
        .iter()
        .map(|&transport| {
            let of = BOTH
                .iter()
                .flat_map(|&side| nodes(measured, transport, side))
                .filter_map(last);
            let figure: Figure = of
                .map(|(before, after, users)| {
                    (after.sockets as f64 - before.sockets as f64) / 2.0 / f64::from(users.max(1))
                })
                .collect();
            format!("{} over {}", number(figure.median()), name(transport))
        })
        .collect();
    let generator: Figure = measured
        .nodes
        .iter()
        .filter_map(|node| {
            let (first, last) = (node.points.first()?, node.points.last()?);
            let users = f64::from(last.stays.users) - f64::from(first.stays.users);
            Some((last.generator as f64 - first.generator as f64) / users)
        })
        .collect();
    format!(
        "The kernel takes {} kB for each end of a connection, on both sides alike: what `Slab` of `/proc/meminfo` and \
         TCP's pages in `/proc/net/sockstat` grow by while a node's users log in, divided by the sockets that come \
         into being (both ends of a connection are on this machine; a server would pay for one). A user who has just \
         logged in has {} connections. The node's ends are the ECM's with megaphone. The generator itself keeps {} \
         bytes a user.",
        kilobytes(per_end),
        connections.join(", "),
        generator,
    )
}

/// The kinds in the order in which they are told and drawn, from below.
const ORDER: [&str; 10] = [
    "ejabberd_c2s",
    "ejabberd_bosh",
    "ejabberd_http_ws",
    "ejabberd_http",
    slope::OTHERS,
    slope::BINARIES,
    slope::ETS,
    slope::PORTS,
    slope::NIF,
    slope::OVERHEAD,
];

/// Where a kind stands that has no place of its own: with the other processes.
const UNNAMED: usize = 4;

/// The colour of a kind.
fn ink(kind: &str) -> Ink {
    match kind {
        slope::NIF => Ink::Megaphone,
        "ejabberd_c2s" => Ink::Kind(0),
        "ejabberd_bosh" | "ejabberd_http_ws" => Ink::Kind(1),
        "ejabberd_http" => Ink::Kind(2),
        slope::BINARIES => Ink::Kind(4),
        slope::ETS => Ink::Kind(5),
        slope::PORTS => Ink::Kind(6),
        slope::OVERHEAD => Ink::Kind(7),
        _ => Ink::Kind(3),
    }
}

fn bars(measured: &Measured, file: &str, when: &str, which: Which) -> Bars {
    let bar = |transport: Transport, side: Side| {
        let users = of(measured, transport, side, which);
        let mut pieces: Vec<(Ink, Figure)> = kinds(&users)
            .into_iter()
            .map(|kind| {
                (
                    ink(&kind),
                    kilobytes(figure(&users, |user| bytes(user, &kind))),
                )
            })
            .collect();
        if side == Side::Megaphone {
            pieces.push((Ink::Ecm, kilobytes(figure(&users, |user| user.ecm_pss))));
        }
        // A kind that got less cannot be drawn on top of others.
        let pieces: Vec<(Ink, &Figure)> = pieces
            .iter()
            .filter(|(_, size)| size.median() > 0.0)
            .map(|(ink, size)| (*ink, size))
            .collect();
        Bar::stack(&pieces).labelled(side.to_string())
    };
    let group = |&transport: &Transport| Group {
        label: name(transport).to_owned(),
        bars: BOTH.iter().map(|&side| bar(transport, side)).collect(),
    };
    let legend = [
        ("ejabberd_c2s", "c2s process"),
        ("ejabberd_bosh", "BOSH or WebSocket process"),
        ("ejabberd_http", "HTTP process"),
        (slope::OTHERS, slope::OTHERS),
        (slope::BINARIES, slope::BINARIES),
        (slope::ETS, slope::ETS),
        (slope::PORTS, slope::PORTS),
        (slope::NIF, slope::NIF),
        (slope::OVERHEAD, slope::OVERHEAD),
    ];
    let mut legend: Vec<(Ink, String)> = legend
        .map(|(kind, said)| (ink(kind), said.to_owned()))
        .into();
    legend.push((Ink::Ecm, "ECM (PSS)".to_owned()));
    Bars {
        file: file.to_owned(),
        title: format!("Memory of an idle user, {when}"),
        y: Axis::linear("kilobytes a user"),
        legend,
        groups: TRANSPORTS.iter().map(group).collect(),
    }
}

/// The kinds of all of them, each once, in their order.
fn kinds(users: &[PerUser]) -> Vec<String> {
    let mut kinds: Vec<String> = Vec::new();
    for kind in users.iter().flat_map(|user| &user.kinds) {
        if !kinds.contains(&kind.name) {
            kinds.push(kind.name.clone());
        }
    }
    // The legend's order, so that all bars have it; what it does not name comes before what all nodes have.
    let place = |name: &String| {
        ORDER
            .iter()
            .position(|kind| kind == name)
            .unwrap_or(UNNAMED)
    };
    kinds.sort_by_key(place);
    kinds
}

fn bytes(user: &PerUser, kind: &str) -> f64 {
    user.kinds
        .iter()
        .find(|one| one.name == kind)
        .map_or(0.0, |one| one.bytes)
}

fn breakdown(measured: &Measured, transport: Transport) -> Table {
    let columns = [
        (Side::Stock, STAYS),
        (Side::Megaphone, STAYS),
        (Side::Stock, COLLECTED),
        (Side::Megaphone, COLLECTED),
    ]
    .map(|(side, which)| of(measured, transport, side, which));
    let mut table = Table::new(
        &format!("{}: bytes for each idle user.", name(transport)),
        &[
            "",
            "stock",
            "megaphone",
            "stock, collected",
            "megaphone, collected",
        ],
    );
    let mut row = |title: &str, value: &dyn Fn(&PerUser) -> f64| {
        let cells = columns.iter().map(|users| figure(users, value).into());
        table.row(std::iter::once(title.into()).chain(cells));
    };
    for kind in kinds(&columns.concat()) {
        row(&kind, &|user| bytes(user, &kind));
    }
    row("**held by the BEAM's allocators**", &|user| user.allocated);
    row("resident (RSS)", &|user| user.rss);
    row("resident (PSS)", &|user| user.pss);
    row("ECM, resident (RSS)", &|user| user.ecm_rss);
    row("ECM, resident (PSS)", &|user| user.ecm_pss);
    table
}
