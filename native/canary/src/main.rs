//! The canary: it is the first to notice when something is lost.
//!
//! ```text
//!   clients ─► ECM ─► proxy ─► node, whose service echoes
//!   clients ◄─ ECM ◄─ proxy ◄─ node
//! ```

// Fields are named for what they hold; the report's are its documentation.
#![allow(missing_docs)]

mod cli;
mod client;
mod plan;
mod proxy;
mod report;
mod stamp;
mod stream;

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::cli::Cli;
use crate::client::Clients;
use crate::proxy::Proxy;
use crate::report::{Counters, Report};

/// How often it is said how far it is.
const PROGRESS: Duration = Duration::from_secs(10);

/// After the first fault it is still counted for so long how many connections have one.
const AFTER_FAULT: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let cli = Cli::parse();
    let seed = cli.seed.unwrap_or_else(|| fastrand::u64(..1 << 48));
    println!("seed {seed}");
    raise_open_files();
    let ran = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .and_then(|runtime| runtime.block_on(run(&cli, seed)));
    match ran {
        Ok(report) => {
            println!("{report}");
            println!("{}", serde_json::to_string(&report).unwrap_or_default());
            ExitCode::from(u8::from(report.faults > 0))
        }
        Err(error) => {
            eprintln!("megaphone-canary: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: &Cli, seed: u64) -> io::Result<Report> {
    let counters = Arc::new(Counters::default());
    let mut proxies = Vec::new();
    for (number, node) in (0..).zip(&cli.node) {
        let proxy = Proxy::start(*node, number, cli, seed, Arc::clone(&counters)).await?;
        println!("proxy {} for {node}", proxy.address);
        proxies.push(proxy);
    }
    if let Some(ecm) = cli.ecm {
        client::wait_for(ecm, cli.patience).await.map_err(|error| {
            io::Error::new(error.kind(), format!("nobody listens on {ecm}: {error}"))
        })?;
    }
    let started = Instant::now();
    for proxy in proxies {
        tokio::spawn(proxy.break_links(cli.cuts, cli.seconds));
    }
    match cli.ecm {
        None => sleep(cli.seconds).await,
        Some(ecm) => tokio::select! {
            () = clients(Clients::new(ecm, cli, seed, Arc::clone(&counters)), cli.clients) => {}
            () = progress(&counters, seed, started) => {}
            () = async { counters.failed().await; sleep(AFTER_FAULT).await } => {}
        },
    }
    Ok(counters.report(seed, started.elapsed()))
}

async fn clients(clients: Clients, count: u32) {
    let clients = Arc::new(clients);
    let mut running: JoinSet<()> = (0..count)
        .map(|client| Arc::clone(&clients).run(client))
        .collect();
    while running.join_next().await.is_some() {}
}

async fn progress(counters: &Counters, seed: u64, started: Instant) {
    loop {
        sleep(PROGRESS).await;
        let r = counters.report(seed, started.elapsed());
        println!(
            "{:.0} s: {} connections, {} ended, {} bytes back, {} cuts, {} freezes, p99 {} ms, longest pause {} ms, {} faults",
            r.seconds,
            r.connections,
            r.finished + r.left + r.refused,
            r.bytes_received,
            r.cuts,
            r.freezes,
            r.p99_us / 1000,
            r.longest_pause_us / 1000,
            r.faults
        );
    }
}

/// As many open files as the hard limit has. See setrlimit(2), `RLIMIT_NOFILE`.
fn raise_open_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    );
}
