//! One server to load: a node, with its ECMs on megaphone's side; or the stand-in.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use megaphone_load::target::{Target, Tls, Transport};

use crate::bench::Bench;
use crate::error::{Error, Result};
use crate::rig::beam::Beam;
use crate::rig::child::Child;
use crate::rig::config::Listening;
use crate::rig::ecm::{CLIENTS, Ecm};
use crate::rig::link::{LinkAddress, LinkKind};
use crate::rig::stand_in::StandIn;
use crate::rig::{config, ports};
use crate::side::{BySide, Side};
use crate::watch::Watch;

/// How long ejabberd may take to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether ejabberd has started with all that it is.
const STARTED: &str = "lists:keymember(ejabberd, 1, application:which_applications(infinity)).";

/// What an ECM takes clients of; `echo` is for `megaphone-load link`, which is an edge itself.
const SERVICES_OF_ECM: [&str; 3] = ["http", "c2s", "bulk"];

/// How a site is set up.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// How many clients it has at a time, at most: on megaphone's side there are as many ECMs as that needs, and
    /// one at least.
    pub clients: u32,
    /// More options of megaphone's listener, a line of YAML each, such as `max_connections: 1100000`.
    pub listener: Vec<String>,
    /// What carries its links, where it must be that.
    pub link: Option<LinkKind>,
}

impl Setup {
    /// For so many clients.
    pub fn clients(clients: u32) -> Self {
        Self {
            clients,
            ..Self::default()
        }
    }
}

/// One server to load. Dropping it kills all of it.
#[derive(Debug)]
pub struct Site {
    side: Side,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    // The ECMs are dropped first: they would only complain about the node.
    Node {
        ecms: Vec<Ecm>,
        listening: Listening,
        child: Child,
        beam: Beam,
    },
    StandIn(StandIn),
}

impl Site {
    /// Starts one and waits until it takes clients. Blocks some seconds.
    pub fn start(bench: &Bench, side: Side, setup: &Setup) -> Result<Self> {
        let mut site = Self::spawn(bench, side, setup)?;
        site.wait(bench, setup)?;
        Ok(site)
    }

    /// Starts one of each side, all at the same time. Blocks some seconds.
    pub fn start_all(bench: &Bench, sides: &[Side], setup: &Setup) -> Result<BySide<Self>> {
        let mut sites = BySide::new();
        for &side in sides {
            sites.insert(side, Self::spawn(bench, side, setup)?);
        }
        for site in sites.values_mut() {
            site.wait(bench, setup)?;
        }
        Ok(sites)
    }

    /// Whose it is.
    pub fn side(&self) -> Side {
        self.side
    }

    /// The process id of ejabberd's node, or of the stand-in.
    pub fn pid(&self) -> u32 {
        match &self.kind {
            Kind::Node { child, .. } => child.pid(),
            Kind::StandIn(stand_in) => stand_in.pid(),
        }
    }

    /// The process ids of its ECMs; none but on megaphone's side.
    pub fn ecm_pids(&self) -> Vec<u32> {
        match &self.kind {
            Kind::Node { ecms, .. } => ecms.iter().map(Ecm::pid).collect(),
            Kind::StandIn(_) => Vec::new(),
        }
    }

    /// The process ids of the server and then of its ECMs.
    pub fn pids(&self) -> Vec<u32> {
        [&[self.pid()], &self.ecm_pids()[..]].concat()
    }

    /// The Erlang node; none of the stand-in.
    pub fn beam(&self) -> Option<&Beam> {
        match &self.kind {
            Kind::Node { beam, .. } => Some(beam),
            Kind::StandIn(_) => None,
        }
    }

    /// Where clients of a service (`http`, `c2s`, `bulk`) come in: one address, or that of each ECM. The stand-in has
    /// `http`, `c2s`, `websocket` and `bosh`.
    pub fn addresses(&self, service: &str) -> Vec<SocketAddr> {
        match &self.kind {
            Kind::Node {
                ecms, listening, ..
            } => match listening {
                Listening::Links(_) => ecms.iter().filter_map(|ecm| ecm.address(service)).collect(),
                Listening::Services(addresses) => position(service)
                    .and_then(|place| addresses.get(place).copied())
                    .into_iter()
                    .collect(),
            },
            Kind::StandIn(stand_in) => stand_in.address(service).into_iter().collect(),
        }
    }

    /// The first of [`Site::addresses`].
    pub fn address(&self, service: &str) -> Result<SocketAddr> {
        let first = self.addresses(service).first().copied();
        first.ok_or_else(|| Error(format!("{} has no {service}", self.side)))
    }

    /// Where users log in, anonymously unless `domain` is changed to [`crate::rig::REGISTERED`].
    pub fn target(&self, transport: Transport) -> Result<Target> {
        let (service, path) = match (self.side, transport) {
            (_, Transport::C2s) => ("c2s", ""),
            (Side::Floor, Transport::WebSocket) => ("websocket", "/ws"),
            (Side::Floor, Transport::Bosh) => ("bosh", "/bosh"),
            (_, Transport::WebSocket) => ("http", "/ws"),
            (_, Transport::Bosh) => ("http", "/bosh"),
        };
        let first = self.address(service)?;
        Ok(Target {
            transport,
            tls: Tls::None,
            addresses: self.addresses(service),
            authority: first.to_string(),
            path: path.to_owned(),
            domain: config::ANONYMOUS.to_owned(),
            insecure: false,
        })
    }

    /// The port on which its node listens for links; on megaphone's side only, set up with [`LinkKind::Tcp`].
    pub fn link_address(&self) -> Result<SocketAddr> {
        match &self.kind {
            Kind::Node {
                listening: Listening::Links(LinkAddress::Tcp(address)),
                ..
            } => Ok(*address),
            _ => Err(Error(format!("{} has no port for links", self.side))),
        }
    }

    /// Begins to watch its processes; see [`Watch::begin`].
    pub fn watch(&self, bench: &Bench, name: &str) -> Result<Watch> {
        let name = format!("{name}-{}", self.side);
        Watch::begin(bench, &name, &[self.pid()], &self.ecm_pids(), self.beam())
    }

    fn spawn(bench: &Bench, side: Side, setup: &Setup) -> Result<Self> {
        let name = next_name(side);
        if side == Side::Floor {
            let stand_in = StandIn::start(bench, &name, &["http", "c2s", "websocket", "bosh"])?;
            return Ok(Self {
                side,
                kind: Kind::StandIn(stand_in),
            });
        }
        let listening = match side {
            Side::Megaphone => {
                let kind = setup.link.unwrap_or(bench.options.link);
                let path = bench.dir.join(format!("{name}.sock"));
                Listening::Links(LinkAddress::free(kind, path)?)
            }
            Side::Stock | Side::Floor => {
                let addresses = config::SERVICES.iter().map(|_| ports::free());
                Listening::Services(addresses.collect::<Result<_>>()?)
            }
        };
        let beam = Beam::new(&name, ports::free()?);
        let child = node(bench, &name, &listening, &beam, setup)?;
        Ok(Self {
            side,
            kind: Kind::Node {
                ecms: Vec::new(),
                listening,
                child,
                beam,
            },
        })
    }

    fn wait(&mut self, bench: &Bench, setup: &Setup) -> Result<()> {
        let Kind::Node {
            ecms,
            listening,
            child,
            beam,
        } = &mut self.kind
        else {
            return Ok(());
        };
        child.wait("start", PATIENCE, || {
            beam.eval(STARTED).is_ok_and(|answer| answer == "true")
        })?;
        match listening {
            Listening::Links(address) => {
                for _ in 0..setup.clients.div_ceil(CLIENTS).max(1) {
                    let name = next_name("ecm");
                    ecms.push(Ecm::start(bench, &name, address, &SERVICES_OF_ECM)?);
                }
            }
            Listening::Services(addresses) => {
                child.wait("listeners", PATIENCE, || {
                    addresses.iter().all(|&address| ports::answers(address))
                })?;
            }
        }
        ecms.iter_mut().try_for_each(Ecm::wait)
    }
}

fn node(
    bench: &Bench,
    name: &str,
    listening: &Listening,
    beam: &Beam,
    setup: &Setup,
) -> Result<Child> {
    let dir = bench.dir.join(name);
    let config = bench.dir.join(format!("{name}.yml"));
    let front = bench.options.front;
    std::fs::write(&config, config::yaml(front, listening, &setup.listener))?;
    let mut command = bench.bound(bench.root.join("scripts/ejabberd-node"));
    command
        .arg(dir)
        .arg(config)
        .args(config::ERL)
        .arg("-pa")
        .arg(&bench.beams)
        .args(beam.arguments());
    command.env("ERL_LIBS", &bench.erl_libs);
    if bench.options.profile {
        // perf learns the names of Erlang's functions.
        command.args(["+JPperf", "true"]);
    }
    Child::start(command, &bench.dir, name)
}

/// Every node and ECM has a name of its own, also those that one part starts after the other.
fn next_name(kind: impl std::fmt::Display) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("{kind}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn position(service: &str) -> Option<usize> {
    config::SERVICES
        .iter()
        .position(|&(name, _)| name == service)
}
