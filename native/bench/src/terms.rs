//! Part 1: from bytes to Erlang terms and messages.

mod connection;
mod requests;

pub use connection::Connections;
pub use requests::Requests;
use serde::{Deserialize, Serialize};

use crate::bench::Bench;
use crate::error::{Error, Result};
use crate::figure::{Figure, count};
use crate::part::Part;
use crate::plot::{Axis, Bar, Bars, Group, Ink};
use crate::section::{Cell, Section, Table};

/// Runs of the escript for one of the other parts: they are short, and an even number lets each side begin as often.
const MORE_RUNS: usize = 2;

/// Part 1.
#[derive(Debug)]
pub struct Terms;

/// What was measured.
#[derive(Debug, Serialize, Deserialize)]
pub struct Measured {
    /// What bench/side_by_side.escript printed.
    side_by_side: SideBySide,
    /// What `cargo bench` printed; nothing in the quick form.
    codec: Vec<Codec>,
    /// What bench/connection.escript printed.
    #[serde(default)]
    connections: Option<Connections>,
    /// What bench/bench_request.erl found.
    #[serde(default)]
    requests: Option<Requests>,
}

impl Measured {
    /// What a connection takes, and frames into very many.
    pub fn connections(&self) -> Option<&Connections> {
        self.connections.as_ref()
    }

    /// The bytes of a BOSH request to the call of its handler.
    pub fn requests(&self) -> Option<&Requests> {
        self.requests.as_ref()
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct SideBySide {
    frames: Vec<Frames>,
    heads: Vec<Heads>,
}

/// Frames decoded and delivered to so many processes.
#[derive(Debug, Serialize, Deserialize)]
struct Frames {
    connections: u32,
    megaphone: Delivery,
    plain: Delivery,
}

/// Frames a second, and the node's processor time for one in nanoseconds.
#[derive(Debug, Serialize, Deserialize)]
struct Delivery {
    per_second: Figure,
    cpu_ns: Figure,
}

/// Nanoseconds of a head.
#[derive(Debug, Serialize, Deserialize)]
struct Heads {
    r#type: String,
    megaphone: Figure,
    plain: Figure,
}

/// One of criterion's: the least, the likely and the most time, as it writes them.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Codec {
    name: String,
    time: String,
}

impl Part for Terms {
    type Measured = Measured;
    const NUMBER: u8 = 1;
    const NAME: &'static str = "terms";
    const TITLE: &'static str = "From bytes to Erlang terms and messages";

    fn measure(bench: &Bench) -> Result<Measured> {
        let ebin = bench.built.join("ebin");
        let mut escript = bench.bound("escript");
        escript.arg("bench/side_by_side.escript").arg(ebin);
        match bench.quick() {
            true => escript.arg("quick"),
            false => escript.arg(format!("runs={}", bench.runs() * MORE_RUNS)),
        };
        let text = bench.output(&mut escript)?;
        let side_by_side = serde_json::from_str(&text)
            .map_err(|error| Error::of("side_by_side.escript", error))?;
        let codec = if bench.quick() {
            Vec::new()
        } else {
            codec(bench)?
        };
        Ok(Measured {
            side_by_side,
            codec,
            connections: Some(connection::measure(bench)?),
            requests: requests::measure(bench)?,
        })
    }

    fn section(measured: &Measured) -> Section {
        let mut section = Section::default();
        section.text(TEXT);
        section
            .table(frames(&measured.side_by_side.frames))
            .plot(plot(&measured.side_by_side.frames));
        section.table(heads(&measured.side_by_side.heads));
        if let Some(requests) = &measured.requests {
            requests.show(&mut section);
        }
        if let Some(connections) = &measured.connections {
            connections.show(&mut section);
        }
        if !measured.codec.is_empty() {
            section.table(rust(&measured.codec));
        }
        section
    }
}

const TEXT: &str = "\
No sockets and no ejabberd here: frames of the link protocol go into the NIF, which decodes them and sends their
content to the processes that wait for it; beside it the same written in plain Erlang (match the head, look up the
owner, send), in one node, in turns. All frames of one read wake each process once, so megaphone gains where a read has
several frames for a connection. Where every frame is for another process, both sides pay a message, a wake-up and a
binary for each, and that is nearly all they pay. A request head takes some forty terms to make: a call into the
emulator each, where `decode_packet` makes them from inside.";

fn codec(bench: &Bench) -> Result<Vec<Codec>> {
    bench.say("cargo bench of the codec");
    let mut cargo = bench.bound("cargo");
    cargo.args([
        "bench",
        "--locked",
        "-q",
        "-p",
        "megaphone-proto",
        "--bench",
        "codec",
        "--",
    ]);
    cargo.args(["--warm-up-time", "1", "--measurement-time", "3"]);
    Ok(criterion(&bench.output(&mut cargo)?))
}

/// The name stands before `time:`, or on the line above where it is long.
fn criterion(text: &str) -> Vec<Codec> {
    let mut found = Vec::new();
    let mut above = "";
    for line in text.lines() {
        // What has changed since an earlier run on this machine stands below as `time: [-8.9% ...`.
        if let Some((before, after)) = line.split_once("time:").filter(|_| !line.contains('%')) {
            let name = if before.trim().is_empty() {
                above
            } else {
                before.trim()
            };
            let time = after.trim().trim_matches(['[', ']']).to_owned();
            found.push(Codec {
                name: name.to_owned(),
                time,
            });
        } else if !line.starts_with(' ') && !line.is_empty() {
            above = line.trim();
        }
    }
    found
}

fn frames(frames: &[Frames]) -> Table {
    let header = [
        "processes",
        "megaphone, 1000 frames/s",
        "plain Erlang, 1000 frames/s",
        "megaphone does",
        "megaphone, ns CPU a frame",
        "plain Erlang, ns CPU a frame",
        "megaphone takes",
    ];
    let caption = "Frames of 100 bytes, decoded and delivered to waiting processes. CPU is that of the whole node.";
    let mut table = Table::new(caption, &header);
    for Frames {
        connections,
        megaphone,
        plain,
    } in frames
    {
        let thousands = |per_second: &Figure| Cell::from(per_second.map(|frames| frames / 1e3));
        table.row([
            Cell::from(count(*connections)),
            thousands(&megaphone.per_second),
            thousands(&plain.per_second),
            Cell::from(megaphone.per_second.beside(&plain.per_second)),
            Cell::from(&megaphone.cpu_ns),
            Cell::from(&plain.cpu_ns),
            Cell::from(megaphone.cpu_ns.beside(&plain.cpu_ns)),
        ]);
    }
    table
}

fn heads(heads: &[Heads]) -> Table {
    let header = [
        "terms as of",
        "megaphone",
        "`erlang:decode_packet/3`",
        "megaphone takes",
    ];
    let mut table = Table::new(
        "A BOSH request head of 9 headers to terms, in nanoseconds. ejabberd asks for `http_bin`.",
        &header,
    );
    for Heads {
        r#type,
        megaphone,
        plain,
    } in heads
    {
        table.row([
            Cell::from(format!("`{type}`")),
            megaphone.into(),
            plain.into(),
            Cell::from(megaphone.beside(plain)),
        ]);
    }
    table
}

fn rust(codec: &[Codec]) -> Table {
    let caption = "The protocol by itself, in Rust (criterion): 64 KiB of frames of 100 bytes, one head, a WebSocket message, a link's timing wheel.";
    let mut table = Table::new(caption, &["what", "least, likely and most time"]);
    for Codec { name, time } in codec {
        table.row([Cell::from(name.as_str()), Cell::from(time.as_str())]);
    }
    table
}

fn plot(frames: &[Frames]) -> Bars {
    let group = |frames: &Frames| Group {
        label: match frames.connections {
            1 => "1 process".to_owned(),
            more => format!("{} processes", count(more)),
        },
        bars: vec![
            Bar::plain(Ink::Stock, &frames.plain.cpu_ns),
            Bar::plain(Ink::Megaphone, &frames.megaphone.cpu_ns),
        ],
    };
    Bars {
        file: "terms-cpu".to_owned(),
        title: "CPU of a frame, decoded and delivered to its process".to_owned(),
        y: Axis::linear("nanoseconds of CPU"),
        legend: vec![
            (Ink::Stock, "plain Erlang".to_owned()),
            (Ink::Megaphone, "megaphone's NIF".to_owned()),
        ],
        groups: frames.iter().map(group).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn criterion_is_read_with_names_beside_and_above() {
        let text = "frames/Decoder::next\n                        time:   [5.6 µs 5.7 µs 5.9 µs]\n\
                    \x20                       thrpt:  [83 Melem/s]\n\
                    \x20                change:\n\
                    \x20                       time:   [-8.9% -6.9% -5.0%] (p = 0.00 < 0.05)\nhead  time:   [284 ns 289 ns 295 ns]\n";
        let wanted = [
            ("frames/Decoder::next", "5.6 µs 5.7 µs 5.9 µs"),
            ("head", "284 ns 289 ns 295 ns"),
        ];
        let found = criterion(text);
        let found: Vec<(&str, &str)> = found
            .iter()
            .map(|codec| (&*codec.name, &*codec.time))
            .collect();
        assert_eq!(found, wanted);
    }
}
