//! What megaphone is to reach, beside what it does: the table at the head of the document.

use megaphone_load::bulk::Direction;
use megaphone_load::target::Transport;
use serde::de::DeserializeOwned;

use crate::crowd::{milliseconds, name};
use crate::figure::{Figure, count, number};
use crate::part::PartResult;
use crate::section::{Cell, Table};
use crate::side::Side;
use crate::{bulk, chat, edge, http, idle, logins, terms};

/// One thing that is to be reached.
#[derive(Debug, Clone, Default, PartialEq)]
struct Aim {
    measure: String,
    stock: String,
    collected: String,
    megaphone: String,
    aim: String,
    met: bool,
    /// The part that it is from.
    part: u8,
}

/// The table of those whose parts have run; nothing where none has.
pub fn table(results: &[PartResult]) -> Option<Table> {
    let aims = aims(results);
    let mut table = Table::new(
        "",
        &[
            "measure",
            "stock",
            "stock, collected",
            "megaphone",
            "aim",
            "met",
            "part",
        ],
    );
    for aim in &aims {
        table.row([
            aim.measure.as_str().into(),
            aim.stock.as_str().into(),
            aim.collected.as_str().into(),
            aim.megaphone.as_str().into(),
            aim.aim.as_str().into(),
            Cell::from(if aim.met { "yes" } else { "**no**" }),
            Cell::from(aim.part.to_string()),
        ]);
    }
    (!aims.is_empty()).then_some(table)
}

fn aims(results: &[PartResult]) -> Vec<Aim> {
    let mut aims = Vec::new();
    if let Some(measured) = measured(results, 5) {
        aims.extend(memory(&measured));
    }
    if let Some(measured) = measured::<http::Measured>(results, 2) {
        aims.extend(request(&measured));
    }
    let parts: Option<terms::Measured> = measured(results, 1);
    if let Some(measured) = &parts {
        aims.extend(decode(measured));
    }
    if let Some(measured) = measured::<chat::Measured>(results, 3) {
        aims.extend(messages(&measured));
        aims.extend(latency(&measured));
    }
    if let Some(measured) = measured::<logins::Measured>(results, 4) {
        let web = measured.transports.iter();
        let web = web.filter(|one| one.transport != Transport::C2s);
        aims.extend(web.filter_map(login));
    }
    if let Some(measured) = &parts {
        aims.extend(frames(measured));
    }
    if let Some(measured) = measured::<bulk::Measured>(results, 6) {
        let ways = [Direction::Up, Direction::Down];
        aims.extend(ways.iter().filter_map(|&way| link(&measured, way)));
    }
    if let Some(measured) = measured(results, 5) {
        aims.push(constants(&measured));
    }
    if let Some(measured) = &parts {
        aims.extend(connection(measured));
    }
    if let Some(measured) = measured::<edge::Measured>(results, 7) {
        aims.extend(client(&measured));
    }
    aims
}

fn measured<T: DeserializeOwned>(results: &[PartResult], part: u8) -> Option<T> {
    let result = results.iter().find(|result| result.part == part)?;
    serde_json::from_value(result.measured.clone()).ok()
}

/// Kilobytes of an idle user that are to be reached at first, and then.
const IDLE: [(Transport, f64, Option<f64>); 3] = [
    (Transport::Bosh, 12.0, Some(8.0)),
    (Transport::WebSocket, 7.0, None),
    (Transport::C2s, 19.0, Some(8.0)),
];

fn memory(measured: &idle::Measured) -> Vec<Aim> {
    let row = |(transport, most, then): (Transport, f64, Option<f64>)| {
        let found = idle::outcome(measured, transport);
        let [stock, collected, megaphone] = &found.memory;
        let on = then.map(|then| format!(", then on toward {then} kB"));
        Aim {
            measure: format!(
                "BEAM memory per idle {} user, {} s after login, kB",
                name(transport),
                number(measured.wait)
            ),
            stock: stock.to_string(),
            collected: collected.to_string(),
            megaphone: format!("{megaphone}; resident {}", found.resident),
            aim: format!("≤ {most} kB{}", on.unwrap_or_default()),
            met: megaphone.median() <= most,
            part: 5,
        }
    };
    IDLE.map(row).into()
}

fn request(measured: &http::Measured) -> Option<Aim> {
    let row = |[stock, megaphone]: [Figure; 2]| Aim {
        measure: "ejabberd CPU per trivial HTTP request, 64 kept-alive connections, µs".to_owned(),
        stock: stock.to_string(),
        collected: NOTHING.to_owned(),
        aim: "≤ a quarter of stock".to_owned(),
        met: megaphone.median() <= stock.median() / 4.0,
        megaphone: beside(&megaphone, &stock),
        part: 2,
    };
    http::cost(measured, 64).map(row)
}

fn decode(measured: &terms::Measured) -> Option<Aim> {
    let requests = measured.requests()?;
    let times = requests.stock.median() / requests.megaphone.median().max(f64::MIN_POSITIVE);
    Some(Aim {
        measure: "the bytes of a BOSH request to the handler's `#request{}`, ns".to_owned(),
        stock: requests.stock.to_string(),
        collected: NOTHING.to_owned(),
        megaphone: format!("{}: {} times faster", requests.megaphone, number(times)),
        aim: "≥ 4 times faster".to_owned(),
        met: times >= 4.0,
        part: 1,
    })
}

fn messages(measured: &chat::Measured) -> Vec<Aim> {
    let row = |one: &chat::OneTransport| {
        let stock = one.cost.get(&Side::Stock)?.both();
        let megaphone = one.cost.get(&Side::Megaphone)?.both();
        Some(Aim {
            measure: format!(
                "CPU of ejabberd and ECM per chat message over {}, {} users, µs",
                name(one.transport),
                count(measured.users)
            ),
            stock: stock.to_string(),
            collected: NOTHING.to_owned(),
            aim: "less than stock".to_owned(),
            met: megaphone.median() < stock.median(),
            megaphone: beside(&megaphone, &stock),
            part: 3,
        })
    };
    web(&measured.transports).filter_map(row).collect()
}

/// BOSH and WebSocket.
fn web(all: &[chat::OneTransport]) -> impl Iterator<Item = &chat::OneTransport> {
    all.iter().filter(|one| one.transport != Transport::C2s)
}

/// Milliseconds that a message may take longer: the median, and 99 of 100.
const GAIN: [f64; 2] = [0.1, 1.0];

fn latency(measured: &chat::Measured) -> Vec<Aim> {
    let mut rows = Vec::new();
    for one in web(&measured.transports) {
        let Some(load) = one.loads.iter().find(|load| load.share == 0.5) else {
            continue;
        };
        let of = |side: Side| {
            let latency = load.latency.get(&side)?;
            Some([&latency.p50, &latency.p99].map(|figure| milliseconds(figure).median()))
        };
        let (Some(stock), Some(megaphone), Some(floor)) =
            (of(Side::Stock), of(Side::Megaphone), of(Side::Floor))
        else {
            continue;
        };
        let less = |of: [f64; 2], by: [f64; 2]| [of[0] - by[0], of[1] - by[1]];
        let shown = |gain: [f64; 2]| format!("{} / {}", number(gain[0]), number(gain[1]));
        let within = |gain: [f64; 2]| gain[0] <= GAIN[0] && gain[1] <= GAIN[1];
        let [over_floor, over_stock] = [less(megaphone, floor), less(megaphone, stock)];
        let row = |over: &str, stock: String, gain: [f64; 2]| Aim {
            measure: format!(
                "latency a message gains over {over} at half the saturating load, {}, p50 / p99, ms",
                name(one.transport)
            ),
            stock,
            collected: NOTHING.to_owned(),
            megaphone: shown(gain),
            aim: "≤ 0.1 / ≤ 1".to_owned(),
            met: within(gain),
            part: 3,
        };
        rows.push(row(
            "the echo server",
            shown(less(stock, floor)),
            over_floor,
        ));
        rows.push(row("stock", NOTHING.to_owned(), over_stock));
    }
    rows
}

fn login(one: &logins::OneTransport) -> Option<Aim> {
    let stock = &one.sides.get(&Side::Stock)?.rate;
    let megaphone = &one.sides.get(&Side::Megaphone)?.rate;
    Some(Aim {
        measure: format!("logins per second, {}", name(one.transport)),
        stock: stock.to_string(),
        collected: NOTHING.to_owned(),
        megaphone: beside(megaphone, stock),
        aim: "≥ 1.5 times stock".to_owned(),
        met: megaphone.median() >= stock.median() * 1.5,
        part: 4,
    })
}

/// Frames a second.
const FRAMES: f64 = 5e6;

fn frames(measured: &terms::Measured) -> Option<Aim> {
    let row = |(connections, figure): (u32, Figure)| Aim {
        measure: format!(
            "frames of 100 bytes decoded and buffered into {} connections, one core, millions a second",
            count(connections)
        ),
        stock: NOTHING.to_owned(),
        collected: NOTHING.to_owned(),
        megaphone: figure.map(|frames| frames / 1e6).to_string(),
        aim: "≥ 5".to_owned(),
        met: figure.median() >= FRAMES,
        part: 1,
    };
    let most = measured.connections().and_then(terms::Connections::most);
    most.map(row)
}

fn link(measured: &bulk::Measured, way: Direction) -> Option<Aim> {
    let row = |(raw, link): (Figure, Figure)| {
        let share = link.median() / raw.median().max(f64::MIN_POSITIVE);
        Aim {
            measure: format!(
                "bulk through one link {}, beside raw loopback TCP, MB/s",
                match way {
                    Direction::Up => "to ejabberd",
                    Direction::Down => "from ejabberd",
                }
            ),
            stock: raw.to_string(),
            collected: NOTHING.to_owned(),
            megaphone: format!("{link}: {:.0} %", share * 100.0),
            aim: "≥ 80 %".to_owned(),
            met: share >= 0.8,
            part: 6,
        }
    };
    bulk::of_raw(measured, way).map(row)
}

/// A slope that is as good as none: a few of thousands of users.
const NONE: f64 = 0.01;

fn constants(measured: &idle::Measured) -> Aim {
    let transports = [Transport::Bosh, Transport::WebSocket, Transport::C2s];
    let found = transports.map(|transport| idle::outcome(measured, transport));
    let shown = |place: usize| {
        let of = |one: &idle::Outcome| {
            let [descriptors, ports] = [&one.descriptors, &one.ports];
            format!(
                "{} and {}",
                number(descriptors[place].median()),
                number(ports[place].median())
            )
        };
        found.iter().map(of).collect::<Vec<_>>().join("; ")
    };
    let none = |figure: &Figure| figure.median().abs() < NONE;
    let met = found
        .iter()
        .all(|one| none(&one.descriptors[1]) && none(&one.ports[1]));
    Aim {
        measure: "descriptors and ports in ejabberd for each user: BOSH; WebSocket; c2s".to_owned(),
        stock: shown(0),
        collected: NOTHING.to_owned(),
        megaphone: shown(1),
        aim: "a constant: 0".to_owned(),
        met,
        part: 5,
    }
}

fn connection(measured: &terms::Measured) -> Option<Aim> {
    let row = |[http, owned]: [f64; 2]| {
        Aim {
        measure: "an idle connection in the NIF, all allocations, bytes: HTTP between two requests; one with an owner".to_owned(),
        stock: NOTHING.to_owned(),
        collected: NOTHING.to_owned(),
        megaphone: format!("{}; {}", number(http.round()), number(owned.round())),
        aim: "≤ 256".to_owned(),
        met: http.max(owned) <= 256.0,
        part: 1,
    }
    };
    let idle = measured.connections().and_then(terms::Connections::idle);
    idle.map(row)
}

fn client(measured: &edge::Measured) -> Option<Aim> {
    let row = |bytes: Figure| Aim {
        measure: "an idle client in the ECM, user space (PSS), bytes".to_owned(),
        stock: NOTHING.to_owned(),
        collected: NOTHING.to_owned(),
        megaphone: bytes.to_string(),
        aim: "≤ 512, then on toward 250".to_owned(),
        met: bytes.median() <= 512.0,
        part: 7,
    };
    edge::ecm_bytes(measured).map(row)
}

const NOTHING: &str = "–";

fn beside(figure: &Figure, other: &Figure) -> String {
    let times = figure.median() / other.median().max(f64::MIN_POSITIVE);
    format!("{figure}: {} of stock", number(times))
}
