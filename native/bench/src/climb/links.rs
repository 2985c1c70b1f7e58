//! A million virtual connections on the links of one node, from a synthetic peer.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout};

use megaphone_load::beam::Account;
use megaphone_load::link::Report;
use serde::{Deserialize, Serialize};

use crate::bench::Bench;
use crate::error::{Error, Result};
use crate::memory::Resident;
use crate::rig::{Child, LinkKind, Setup, Site};
use crate::side::Side;
use crate::slope::without_rare_types;

/// Rounds of one frame to each connection and one back.
const ROUNDS: u32 = 3;

/// What was found.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Links {
    /// What the synthetic peer says.
    pub report: Report,
    /// The node without connections.
    pub before: Held,
    /// With all of them open; each has echoed one frame.
    pub open: Held,
    /// After the rounds.
    pub after: Held,
}

/// What the node holds at one moment.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Held {
    /// Its resident memory.
    pub node: Resident,
    /// What it says itself.
    pub account: Account,
}

/// Has `megaphone-load link` open the connections, and looks at the node while they are open.
pub fn measure(bench: &Bench) -> Result<Links> {
    let connections = bench.pick("1000000", "2000");
    bench.say(format!("{connections} virtual connections"));
    let setup = Setup {
        clients: 0,
        listener: vec!["max_connections: 1100000".to_owned()],
        link: Some(LinkKind::Tcp),
    };
    let site = Site::start(bench, Side::Megaphone, &setup)?;
    let before = held(&site)?;
    let mut peer = Peer::start(bench, &site, connections)?;
    peer.wait_for("open")?;
    let open = held(&site)?;
    peer.go_on()?;
    peer.wait_for("done")?;
    let after = held(&site)?;
    peer.go_on()?;
    let report = peer.report()?;
    for (kind, count) in &report.errors {
        bench.fault(format!("virtual connections: {kind} ({count})"));
    }
    if report.opened < report.connections {
        bench.fault(format!(
            "{} of {} virtual connections were opened",
            report.opened, report.connections
        ));
    }
    Ok(Links {
        report,
        before,
        open,
        after,
    })
}

fn held(site: &Site) -> Result<Held> {
    let beam = site
        .beam()
        .ok_or_else(|| Error::from("a site without a node"))?;
    Ok(Held {
        node: Resident::of(&[site.pid()])?,
        account: without_rare_types(beam.account(false)?, 100),
    })
}

/// The program, at one of its pauses or between them.
struct Peer {
    lines: std::io::Lines<BufReader<ChildStdout>>,
    stdin: ChildStdin,
    child: Child,
}

impl Peer {
    fn start(bench: &Bench, site: &Site, connections: &str) -> Result<Self> {
        let mut command = bench.bound(&bench.load);
        command.arg("link").arg(site.link_address()?.to_string());
        command.args([
            "--service",
            "echo",
            "--connections",
            connections,
            "--links",
            "4",
        ]);
        command.args([
            "--rounds",
            &ROUNDS.to_string(),
            "--patience",
            "60s",
            "--pause",
            "--json",
        ]);
        command.args(["--server-pid", &site.pid().to_string()]);
        let mut child = Child::start_piped(command, &bench.dir, "link")?;
        match (child.take_stdout(), child.take_stdin()) {
            (Some(stdout), Some(stdin)) => Ok(Self {
                lines: BufReader::new(stdout).lines(),
                stdin,
                child,
            }),
            _ => Err("megaphone-load link: no pipes".into()),
        }
    }

    /// Waits for a line of this one word. Blocks.
    fn wait_for(&mut self, word: &str) -> Result<()> {
        match self.lines.next() {
            Some(Ok(line)) if line == word => Ok(()),
            Some(Ok(line)) => Err(Error(format!("megaphone-load link: {line} and not {word}"))),
            Some(Err(error)) => Err(error.into()),
            None => Err(Error(format!(
                "megaphone-load link ended before {word}: {}",
                self.child.last_words()
            ))),
        }
    }

    fn go_on(&mut self) -> Result<()> {
        Ok(writeln!(self.stdin)?)
    }

    /// What it says at its end. Blocks.
    fn report(self) -> Result<Report> {
        let lines: Vec<String> = self.lines.collect::<Result<_, _>>()?;
        Ok(serde_json::from_str(&lines.join("\n"))?)
    }
}
