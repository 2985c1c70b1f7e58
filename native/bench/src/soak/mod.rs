//! The chatter part of `make soak`: users of all three transports chat at one megaphone node, come and go, for as long
//! as is asked; then memory is back on its line, or it is said what is not.
//!
//! The time is cut into rounds. In each all log in, chat while some leave and others come, and all log out; then the
//! node is left alone until it is at rest, collects its garbage, and is looked at. Of two first rounds, which are not
//! judged, the second draws the line: what a node loads and makes once is there by then, and its allocators have been
//! full and empty once. What has been lost somewhere stays when nobody is there, so rest is where it shows.

mod look;
mod round;
mod told;
mod verdict;

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;

use crate::bench::{Bench, Options};
use crate::cli::{BUILT, raise_descriptors, root};
use crate::error::{Error, Result};
use crate::rig::{self, Front, LinkKind, Setup, Site};
use crate::side::Side;
use look::Look;
use round::{Crowds, Round};

/// Real users chat at a megaphone node, come and go; ends with what of its memory is not back on its line.
#[derive(Debug, Parser)]
#[command(name = "megaphone-soak", version)]
struct Cli {
    /// How long in all
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    minutes: u32,
    /// Users of each transport
    #[arg(long, value_name = "N", default_value_t = 400, value_parser = clap::value_parser!(u32).range(20..=9_000))]
    users: u32,
    /// Messages a second, of each transport
    #[arg(long, value_name = "N", default_value_t = 40.0)]
    rate: f64,
    /// Users a second that leave, and that come, of each transport
    #[arg(long, value_name = "N", default_value_t = 4.0)]
    churn: f64,
    /// Who chats with whom
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Which of Debian's ejabberds: 23.01 or 24.12
    #[arg(long, value_name = "VERSION", default_value = "23.01")]
    ejabberd: String,
    /// What serves HTTP
    #[arg(long, value_enum, default_value = "megaphone_http")]
    front: Front,
    /// Another build of megaphone
    #[arg(long, value_name = "DIR", default_value = BUILT)]
    built: PathBuf,
}

/// Rounds before those that are judged: the last of them draws the line.
const WARM: usize = 2;

/// Rounds that are judged, where there is time for so many.
const ROUNDS: usize = 6;

/// And in fewer minutes than this, so few.
const FEW: (u32, usize) = (12, 2);

/// What of a round is not chatter: logins, logouts, and rest.
const AROUND: Duration = Duration::from_secs(15);

/// A round has at least so much chatter.
const LEAST: Duration = Duration::from_secs(5);

/// Does what the command line says. The exit code is 1 when something was found.
pub fn run() -> Result<ExitCode> {
    let cli = Cli::parse();
    let root = root()?;
    raise_descriptors();
    let folder = root.join("_build/soak");
    std::fs::create_dir_all(&folder)?;
    let dir = tempfile::Builder::new()
        .prefix("megaphone-soak-")
        .tempdir()?;
    rig::clean_up_on_signals(dir.path().to_owned())?;
    let options = Options {
        quick: false,
        runs: 1,
        profile: false,
        ejabberd: cli.ejabberd.clone(),
        front: cli.front,
        link: LinkKind::default(),
        built: cli.built.clone(),
    };
    let bench = Bench::new(options, root, dir.path().to_owned())?;
    let file = folder.join("chatter.jsonl");
    let log = File::create(&file).map_err(|error| Error::of(file.display(), error))?;
    let rounds = soak(&bench, &cli, log)?;
    let found = told::tell(&rounds, WARM);
    println!("each look: {}", file.display());
    Ok(if found {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn soak(bench: &Bench, cli: &Cli, mut log: File) -> Result<Vec<Round>> {
    let count = if cli.minutes < FEW.0 { FEW.1 } else { ROUNDS };
    let seed = cli.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    let each = Duration::from_secs(u64::from(cli.minutes) * 60) / (count + WARM) as u32;
    let chatter = each.saturating_sub(AROUND).max(LEAST);
    println!(
        "{} users of each transport at ejabberd {}, {} messages and {} comings and goings a second of each; {WARM} rounds \
         to draw the line and {count} to keep to it, {} s of chatter each; seed {seed}",
        cli.users,
        cli.ejabberd,
        cli.rate,
        cli.churn,
        chatter.as_secs()
    );
    let site = Site::start(bench, Side::Megaphone, &Setup::clients(3 * cli.users * 2))?;
    let began = Instant::now();
    let empty = Look::at(&site, false)?.processes;
    let mut crowds = Crowds::start(bench, &site, cli.users, seed)?;
    let mut rounds = Vec::new();
    for number in 1..=WARM + count {
        let asked = round::Asked {
            number,
            users: cli.users,
            rate: cli.rate,
            churn: cli.churn,
            chatter,
            empty,
        };
        let round = crowds.round(&site, &asked, |phase, look| {
            let line = serde_json::json!({
                "second": began.elapsed().as_secs_f64().round(),
                "round": number,
                "phase": phase,
                "look": look,
            });
            Ok(writeln!(log, "{line}")?)
        })?;
        println!("{}", told::round(&round, WARM));
        rounds.push(round);
    }
    Ok(rounds)
}
