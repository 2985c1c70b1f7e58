//! From the bytes of a BOSH request to the call of its handler: bench/bench_request.erl, in one node.

use serde::{Deserialize, Serialize};

use crate::bench::Bench;
use crate::error::{Error, Result};
use crate::figure::{Figure, number};
use crate::rig::{Front, Setup, Site};
use crate::section::{Cell, Section, Table};
use crate::side::Side;

/// Nanoseconds of a request, the median of each run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Requests {
    /// ejabberd_http's.
    pub stock: Figure,
    /// megaphone's.
    pub megaphone: Figure,
    /// Of these, what the NIF takes to gather the request out of its frame.
    pub gathering: Figure,
    /// And what any process takes to start.
    pub start: Figure,
}

/// Has it run in a node; nothing where megaphone's own modules are not measured. Blocks.
pub fn measure(bench: &Bench) -> Result<Option<Requests>> {
    if bench.options.front == Front::Ejabberd {
        return Ok(None);
    }
    bench.say("a BOSH request to its handler");
    let site = Site::start(bench, Side::Megaphone, &Setup::default())?;
    let beam = site
        .beam()
        .ok_or_else(|| Error::from("a site without a node"))?;
    let (requests, runs) = (bench.pick(50_000, 500), 2 * bench.runs());
    let said = beam.eval(&format!("bench_request:run({requests}, {runs})."))?;
    let numbers: Vec<f64> = said
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect();
    if numbers.len() != 4 * runs {
        return Err(Error(format!("bench_request: {said}")));
    }
    let figure = |place: usize| Figure(numbers[place * runs..][..runs].to_vec());
    Ok(Some(Requests {
        stock: figure(0),
        megaphone: figure(1),
        gathering: figure(2),
        start: figure(3),
    }))
}

impl Requests {
    /// Says it.
    pub fn show(&self, section: &mut Section) {
        let header = ["", "nanoseconds", "beside stock"];
        let mut table = Table::new(TEXT, &header);
        table.row(["`ejabberd_http`".into(), (&self.stock).into(), "–".into()]);
        table.row([
            "`megaphone_http`".into(),
            (&self.megaphone).into(),
            self.megaphone.beside(&self.stock).into(),
        ]);
        let rest = self.megaphone.median() - self.gathering.median() - self.start.median();
        let mut part = |what: &str, took: Cell| {
            table.row([what.into(), took, "–".into()]);
        };
        part(
            "of it: the frame, its connection, the head and the body",
            (&self.gathering).into(),
        );
        part(
            "a process that starts, whatever it does",
            (&self.start).into(),
        );
        part(
            "terms, `#request{}`, `http_request_handlers`, the handler's call",
            number(rest).into(),
        );
        section.table(table);
    }
}

const TEXT: &str = "\
The bytes of a BOSH request (9 headers, a message) to the call of its handler with `#request{}`, in one node, in turns; \
medians of single requests. Stock's clock begins when its process, awake, has the bytes in hand; megaphone's with the \
frame that brings them over a link, so that finding the connection and starting the request's process are in it.";
