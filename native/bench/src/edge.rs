//! Part 7: the edge alone.

mod shown;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;

use megaphone_load::http::{Idle, Report};
use megaphone_load::usage::Usage;
use serde::{Deserialize, Serialize};

use crate::bench::Bench;
use crate::error::{Error, Result};
use crate::figure::Figure;
use crate::measure::in_turns;
use crate::part::Part;
use crate::plot::Ink;
use crate::requests;
use crate::rig::{Child, Ecm, LinkAddress, Proxy, ProxyKind, StandIn};
use crate::section::Section;
use crate::watch::Watch;

/// Kept-alive connections that send requests.
const CONNECTIONS: [u32; 2] = [64, 1000];

/// Idle connections between which memory's slope is taken: a proxy needs two of 20,000 open files for each.
const FEW: u32 = 1_000;
/// See [`FEW`].
const MANY: u32 = 9_000;

/// Part 7.
#[derive(Debug)]
pub struct Edge;

/// Who stands between generator and stand-in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    None,
    Ecm,
    Haproxy,
    Nginx,
}

const KINDS: [Kind; 4] = [Kind::None, Kind::Ecm, Kind::Haproxy, Kind::Nginx];

/// What was measured.
#[derive(Debug, Serialize, Deserialize)]
pub struct Measured {
    /// Requests as fast as answered, by connections. `server_cpu` has the backend first, then the edge's processes.
    requests: BTreeMap<u32, BTreeMap<Kind, Vec<Report>>>,
    /// Memory with idle connections.
    idle: BTreeMap<Kind, Vec<Slope>>,
    /// How many those were.
    few: u32,
    /// See `few`.
    many: u32,
}

/// An edge's memory in bytes, all its processes together, with few and with many idle connections.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Slope {
    rss: [u64; 2],
    pss: [u64; 2],
}

/// An edge that runs.
#[derive(Debug)]
enum Running {
    None(SocketAddr),
    Ecm(Ecm),
    Proxy(Proxy),
}

impl Running {
    fn start(bench: &Bench, kind: Kind, backend: &StandIn) -> Result<Self> {
        let address = |transport: &str| {
            backend
                .address(transport)
                .ok_or_else(|| Error::from("no such transport"))
        };
        Ok(match kind {
            Kind::None => Self::None(address("http")?),
            Kind::Ecm => {
                let mut ecm = Ecm::start(
                    bench,
                    "edge-ecm",
                    &LinkAddress::Tcp(address("link")?),
                    &["http"],
                )?;
                ecm.wait()?;
                Self::Ecm(ecm)
            }
            Kind::Haproxy => {
                Self::Proxy(Proxy::start(bench, ProxyKind::Haproxy, address("http")?)?)
            }
            Kind::Nginx => Self::Proxy(Proxy::start(bench, ProxyKind::Nginx, address("http")?)?),
        })
    }

    fn url(&self) -> String {
        let address = match self {
            Self::None(address) => Some(*address),
            Self::Ecm(ecm) => ecm.address("http"),
            Self::Proxy(proxy) => Some(proxy.address()),
        };
        address.map_or_else(String::new, |address| format!("http://{address}/ok"))
    }

    fn pids(&self) -> Result<Vec<u32>> {
        match self {
            Self::None(_) => Ok(Vec::new()),
            Self::Ecm(ecm) => Ok(vec![ecm.pid()]),
            Self::Proxy(proxy) => proxy.pids(),
        }
    }
}

/// Bytes (PSS) of the ECM for an idle connection.
pub fn ecm_bytes(measured: &Measured) -> Option<Figure> {
    shown::bytes(measured, Kind::Ecm, |slope| slope.pss)
}

impl Part for Edge {
    type Measured = Measured;
    const NUMBER: u8 = 7;
    const NAME: &'static str = "edge";
    const TITLE: &'static str = "The edge alone, beside haproxy and nginx";

    fn measure(bench: &Bench) -> Result<Measured> {
        let backend = StandIn::start(bench, "backend", &["http", "link"])?;
        let mut edges = BTreeMap::new();
        for kind in KINDS {
            edges.insert(kind, Running::start(bench, kind, &backend)?);
        }
        let mut requests = BTreeMap::new();
        for connections in CONNECTIONS {
            bench.say(format!("{connections} connections"));
            let found = in_turns(&KINDS, bench.runs(), |kind, _| {
                ask(bench, kind, &edges[&kind], &backend, connections)
            })?;
            requests.insert(connections, found);
        }
        drop(edges);
        let (few, many) = bench.pick((FEW, MANY), (100, 300));
        bench.say(format!("{few} and {many} idle connections"));
        let idle = in_turns(&KINDS[1..], bench.runs(), |kind, _| {
            hold(bench, kind, &backend, [few, many])
        })?;
        Ok(Measured {
            requests,
            idle,
            few,
            many,
        })
    }

    fn section(measured: &Measured) -> Section {
        shown::section(measured)
    }
}

fn ask(
    bench: &Bench,
    kind: Kind,
    edge: &Running,
    backend: &StandIn,
    connections: u32,
) -> Result<Report> {
    let edges = edge.pids()?;
    let pids = [&[backend.pid()], &edges[..]].concat();
    let name = format!("edge-{connections}-{}", kind.name());
    let watch = Watch::begin(bench, &name, &pids[..1], &edges, None)?;
    let url = edge.url();
    requests::ask(bench, kind.name(), &url, connections, None, &pids, watch)
}

/// Memory of an edge of its own, with few idle connections and with many.
fn hold(bench: &Bench, kind: Kind, backend: &StandIn, [few, many]: [u32; 2]) -> Result<Slope> {
    let edge = Running::start(bench, kind, backend)?;
    let pids = edge.pids()?;
    let mut slope = Slope {
        rss: [0; 2],
        pss: [0; 2],
    };
    let mut holders = Vec::new();
    for (place, more) in [few, many - few].into_iter().enumerate() {
        holders.push(holder(bench, &edge.url(), more, kind)?);
        for &pid in &pids {
            let usage = Usage::of(pid).map_err(|error| Error::of(kind.name(), error))?;
            slope.rss[place] += usage.rss;
            slope.pss[place] += usage.pss;
        }
    }
    Ok(slope)
}

/// Opens idle connections and holds them until its value is dropped.
fn holder(bench: &Bench, url: &str, connections: u32, kind: Kind) -> Result<Child> {
    let mut command = bench.bound(&bench.load);
    command.args([
        "http",
        url,
        "--idle",
        &connections.to_string(),
        "--warm",
        "--json",
    ]);
    let mut child = Child::start_piped(command, &bench.dir, &format!("idle-{connections}"))?;
    let stdout = child
        .take_stdout()
        .ok_or_else(|| Error::from("http --idle: no standard output"))?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    let idle: Idle =
        serde_json::from_str(&line).map_err(|error| Error::of(child.last_words(), error))?;
    if idle.held != connections as usize {
        bench.fault(format!(
            "{}: {} of {connections} idle connections: {:?}",
            kind.name(),
            idle.held,
            idle.errors
        ));
    }
    Ok(child)
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::None => "no edge",
            Self::Ecm => "megaphone-ecm",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
        }
    }

    fn ink(self) -> Ink {
        match self {
            Self::None => Ink::Floor,
            Self::Ecm => Ink::Megaphone,
            Self::Haproxy => Ink::Haproxy,
            Self::Nginx => Ink::Nginx,
        }
    }
}
