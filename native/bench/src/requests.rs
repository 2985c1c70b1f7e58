//! The HTTP generator, for the parts that send requests: what it is told, and what its reports say.

use megaphone_load::http::Report;

use crate::bench::Bench;
use crate::error::Result;
use crate::figure::Figure;
use crate::watch::{Cpu, Watch};

/// Sends GET requests to `url` over so many kept-alive connections, at `rate` a second or as fast as they are answered,
/// while `watch` lasts. `pids` are the server's and then its edges', as [`Cpu`] tells them apart. Errors are a fault
/// of `who`. Blocks.
pub fn ask(
    bench: &Bench,
    who: &str,
    url: &str,
    connections: u32,
    rate: Option<f64>,
    pids: &[u32],
    watch: Watch,
) -> Result<Report> {
    let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
    let (connections, rate) = (connections.to_string(), rate.map(|rate| rate.to_string()));
    let mut args = vec!["http", url, "--connections", &connections];
    args.extend([
        "--for",
        bench.pick("3s", "400ms"),
        "--warm-up",
        bench.pick("600ms", "100ms"),
    ]);
    pids.iter()
        .for_each(|pid| args.extend(["--server-pid", pid]));
    if let Some(rate) = &rate {
        args.extend(["--rate", rate]);
    }
    let report: Report = bench.load(&args)?;
    watch.end(report.window.generator_cpu)?;
    if !report.errors.is_empty() {
        bench.fault(format!(
            "{who} at {connections} connections: {:?}",
            report.errors
        ));
    }
    Ok(report)
}

/// Requests a second.
pub fn rates(reports: &[Report]) -> Figure {
    reports.iter().map(|report| report.per_second).collect()
}

/// Seconds per million requests.
pub fn per_million(reports: &[Report], of: impl Fn(&Cpu) -> f64) -> Figure {
    reports
        .iter()
        .map(|report| of(&Cpu::from(&report.window)) * 1e6 / report.answered.max(1) as f64)
        .collect()
}
