//! The command line.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::bench::{Bench, Options};
use crate::error::{Error, Result};
use crate::machine::{self, Machine};
use crate::part::{Entry, PartResult};
use crate::parts::PARTS;
use crate::rig::{Front, LinkKind};
use crate::store::Results;
use crate::{document, rig, store};

/// Measures stock ejabberd and megaphone side by side.
///
/// Without --part all parts run and docs/benchmarks.md is written, with its plots and docs/bench/results.json.
/// With --part the sections of these parts are printed, and their figures kept in _build/bench/.
#[derive(Debug, Parser)]
#[command(name = "scripts/bench", version)]
pub struct Cli {
    /// Only these parts: 5, or 2,3
    #[arg(long, value_name = "N", value_delimiter = ',')]
    part: Vec<u8>,
    /// Show that everything works, within minutes; the figures mean nothing and nothing is written to docs/
    #[arg(long)]
    quick: bool,
    /// How often each figure is measured [default: 3; 1 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=99))]
    runs: Option<u16>,
    /// Put perf's and msacc's tables of each window into _build/bench/profile/; the figures are then perf's as well
    #[arg(long)]
    profile: bool,
    /// Write docs/benchmarks.md and its plots anew from figures that are there, without measuring
    #[arg(long, conflicts_with_all = ["quick", "runs", "profile"])]
    render: bool,
    /// List the parts
    #[arg(long)]
    list: bool,
    /// Which of Debian's ejabberds: 23.01 or 24.12
    #[arg(long, value_name = "VERSION", default_value = "23.01")]
    ejabberd: String,
    /// What serves HTTP on megaphone's side
    #[arg(long, value_enum, default_value = "megaphone_http")]
    front: Front,
    /// What carries the links between ECM and node
    #[arg(long, value_enum, default_value = "unix")]
    link: LinkKind,
    /// Another build of megaphone
    #[arg(long, value_name = "DIR", default_value = BUILT)]
    built: PathBuf,
}

/// Where rebar3 puts megaphone's application.
pub(crate) const BUILT: &str = "_build/default/lib/megaphone";

/// Does what the command line says. The exit code is 1 when a part failed.
pub fn run() -> Result<ExitCode> {
    let cli = Cli::parse();
    let root = root()?;
    if cli.list {
        PARTS
            .iter()
            .for_each(|part| println!("{}  {:7} {}", part.number, part.name, part.title));
        return Ok(ExitCode::SUCCESS);
    }
    let parts = chosen(&cli.part)?;
    if cli.render {
        store::render(&root, Results::newest(&root)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    raise_descriptors();
    let dir = tempfile::Builder::new()
        .prefix("megaphone-bench-")
        .tempdir()?;
    rig::clean_up_on_signals(dir.path().to_owned())?;
    let options = Options {
        quick: cli.quick,
        runs: cli.runs.map_or(if cli.quick { 1 } else { 3 }, usize::from),
        profile: cli.profile,
        ejabberd: cli.ejabberd,
        front: cli.front,
        link: cli.link,
        built: cli.built,
    };
    let bench = Bench::new(options, root, dir.path().to_owned())?;
    let machine = Machine::look(&bench);
    store::keep_machine(&bench.root, bench.quick(), &machine)?;
    let mut results = Results {
        machine,
        parts: Vec::new(),
    };
    for part in &parts {
        let result = run_part(&bench, part)?;
        show(&bench, part, &result)?;
        results.parts.push(result);
    }
    if !bench.quick() {
        println!("{}", document::aims(&results.parts));
    }
    let failed = results.parts.iter().any(|result| !result.faults.is_empty());
    if cli.part.is_empty() && !bench.quick() && !bench.options.profile {
        store::render(&bench.root, results)?;
    }
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// What is started inherits it: a node with its own listeners needs an open file for each user.
pub(crate) fn raise_descriptors() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    // With fewer the parts that need more say so.
    let _ = setrlimit(Resource::Nofile, raised);
}

fn run_part(bench: &Bench, part: &Entry) -> Result<PartResult> {
    bench.say(format!("part {}: {}", part.number, part.title));
    let when = machine::now();
    let began = Instant::now();
    let measured = (part.measure)(bench);
    let mut faults = bench.take_faults();
    let hung = bench.take_hung();
    faults.extend(hung.fault());
    let measured = measured.unwrap_or_else(|error| {
        faults.push(error.to_string());
        serde_json::Value::Null
    });
    let result = PartResult {
        part: part.number,
        name: part.name.to_owned(),
        seconds: began.elapsed().as_secs_f64(),
        quick: bench.quick(),
        runs: bench.runs(),
        ejabberd: bench.options.ejabberd.clone(),
        when,
        faults,
        hung,
        measured,
    };
    // What was measured under perf is not to get into the document by --render.
    if !bench.options.profile {
        store::keep(&bench.root, &result)?;
    }
    Ok(result)
}

/// Prints what came of a part: its section, or in the quick form one line.
fn show(bench: &Bench, part: &Entry, result: &PartResult) -> Result<()> {
    let folder = store::folder(&bench.root, bench.quick());
    // The quick form renders too, so that this is seen to work.
    let text = store::section(part, result, &folder, "")?;
    if !bench.quick() {
        println!("{text}");
    } else if result.faults.is_empty() {
        println!(
            "ok part {} {} ({:.1} s)",
            part.number, part.name, result.seconds
        );
    }
    for fault in &result.faults {
        println!(
            "FAILED {} {} ({:.1} s): {fault}",
            part.number, part.name, result.seconds
        );
    }
    Ok(())
}

fn chosen(numbers: &[u8]) -> Result<Vec<&'static Entry>> {
    if numbers.is_empty() {
        return Ok(PARTS.iter().collect());
    }
    numbers
        .iter()
        .map(|number| PARTS.iter().find(|part| part.number == *number))
        .collect::<Option<_>>()
        .ok_or_else(|| {
            Error(format!(
                "parts are 1 to {}: scripts/bench --list",
                PARTS.len()
            ))
        })
}

pub(crate) fn root() -> Result<PathBuf> {
    let here = std::env::current_dir()?;
    let is_there = |name: &str| Path::new(&here).join(name).exists();
    match is_there("Cargo.toml") && is_there("scripts/ejabberd-node") {
        true => Ok(here),
        false => Err(Error::from(
            "run scripts/bench: this works in the top folder of megaphone's checkout",
        )),
    }
}
