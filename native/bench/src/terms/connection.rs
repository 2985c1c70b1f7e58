//! What a connection takes in the NIF, and what frames into very many cost: bench/connection.escript.

use serde::{Deserialize, Serialize};

use crate::bench::Bench;
use crate::error::{Error, Result};
use crate::figure::{Figure, count, number};
use crate::section::{Cell, Section, Table};

/// What the script prints.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Connections {
    bytes: Vec<Bytes>,
    frames: Vec<Frames>,
}

/// Bytes of a connection in one state, by where they are.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Bytes {
    state: String,
    nif: f64,
    binary: f64,
    ets: f64,
    processes: f64,
    other: f64,
    total: f64,
}

/// Frames a second into so many connections. The first run warms up.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Frames {
    connections: u32,
    per_second: Vec<f64>,
}

/// Runs the script. Blocks.
pub fn measure(bench: &Bench) -> Result<Connections> {
    bench.say("a connection's bytes, and frames into very many");
    let mut escript = bench.bound("escript");
    escript
        .arg("bench/connection.escript")
        .arg(bench.built.join("ebin"));
    match bench.quick() {
        true => escript.args(["n=1500", "runs=1"]),
        false => escript.arg(format!("runs={}", bench.runs() + 2)),
    };
    let text = bench.output(&mut escript)?;
    serde_json::from_str(&text).map_err(|error| Error::of("connection.escript", error))
}

impl Connections {
    /// Bytes in all of an idle connection: between two HTTP requests, and with an owner, as a
    /// user over WebSocket or TCP has one.
    pub fn idle(&self) -> Option<[f64; 2]> {
        let of = |state: &str| {
            let found = self.bytes.iter().find(|bytes| bytes.state == state);
            found.map(|bytes| bytes.total)
        };
        Some([of("http")?, of("owned")?])
    }

    /// Frames a second into the most connections, and how many those are.
    pub fn most(&self) -> Option<(u32, Figure)> {
        let most = self.frames.iter().max_by_key(|frames| frames.connections)?;
        Some((most.connections, most.figure()))
    }

    /// Says it.
    pub fn show(&self, section: &mut Section) {
        section.text(TEXT);
        let header = ["", "all", "NIF", "binaries", "processes", "ETS", "other"];
        let mut table = Table::new("Bytes of a connection.", &header);
        for bytes in &self.bytes {
            let name = match bytes.state.as_str() {
                "open" => "open, and nobody has taken it yet",
                "http" => "HTTP, between two requests",
                "owned" => "idle, with an owner",
                "used" => "after bytes both ways, as a socket",
                "gone" => "what stays when it is gone",
                other => other,
            };
            let values = [
                bytes.total,
                bytes.nif,
                bytes.binary,
                bytes.processes,
                bytes.ets,
                bytes.other,
            ];
            // What is less than a byte is the noise of a sum over all of them.
            let cells = values.map(|value| Cell::from(number(value.round())));
            table.row(std::iter::once(Cell::from(name)).chain(cells));
        }
        section.table(table);
        let mut table = Table::new(
            "Frames of 100 bytes decoded and buffered, by one process on one scheduler.",
            &["connections", "million frames a second", "ns a frame"],
        );
        for frames in &self.frames {
            let figure = frames.figure();
            table.row([
                Cell::from(count(frames.connections)),
                figure.map(|frames| frames / 1e6).into(),
                figure.map(|frames| 1e9 / frames).into(),
            ]);
        }
        section.table(table);
    }
}

impl Frames {
    fn figure(&self) -> Figure {
        let warm = usize::from(self.per_second.len() > 1);
        Figure(self.per_second[warm..].to_vec())
    }
}

const TEXT: &str = "\
What a virtual connection takes in the node, with all that is allocated for it (the NIF's own count and the BEAM's), and
what it costs to put a frame into the buffer of one of very many connections whose owners read later. No sockets and no
ejabberd here either. [connection.md](connection.md) says what each byte is for.";
