//! Where a while's processor time went: perf's table of ejabberd and of the edge, and msacc's of the node.

use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use crate::bench::Bench;
use crate::error::{Error, Result};
use crate::rig::{Beam, Child};

/// Samples a second, of the processor's clock: a virtual machine often has no counters of cycles. It is odd so that it
/// does not beat with anything.
const FREQUENCY: &str = "997";

/// Lines of a table that are kept.
const LINES: usize = 120;

/// A profile that is being taken.
#[derive(Debug)]
pub struct Profile {
    folder: PathBuf,
    name: String,
    recordings: Vec<(&'static str, PathBuf, Child)>,
    beam: Option<Beam>,
}

impl Profile {
    /// Begins one of these processes, by `perf record` and, where there is a `beam`, its microstate accounting.
    pub fn begin(
        bench: &Bench,
        name: &str,
        ejabberd: &[u32],
        edge: &[u32],
        beam: Option<&Beam>,
    ) -> Result<Self> {
        let folder = bench.root.join("_build/bench/profile");
        std::fs::create_dir_all(&folder).map_err(|error| Error::of(folder.display(), error))?;
        let mut recordings = Vec::new();
        for (whose, pids) in [("ejabberd", ejabberd), ("edge", edge)] {
            if !pids.is_empty() {
                let data = bench.dir.join(format!("{name}-{whose}.perf"));
                recordings.push((whose, data.clone(), record(bench, &data, pids)?));
            }
        }
        if let Some(beam) = beam {
            beam.eval("msacc:reset(), msacc:start().")?;
        }
        Ok(Self {
            folder,
            name: name.to_owned(),
            recordings,
            beam: beam.cloned(),
        })
    }

    /// Ends it and writes its tables below `_build/bench/profile/`, over those of an earlier run of the same name.
    pub fn end(self) -> Result<()> {
        if let Some(beam) = &self.beam {
            let file = self.folder.join(format!("{}-msacc.txt", self.name));
            let file = file.display();
            beam.eval(&format!(
                "msacc:stop(), {{ok, File}} = file:open(\"{file}\", [write]), \
                 msacc:print(File, msacc:stats(), #{{}}), file:close(File)."
            ))?;
        }
        for (whose, data, mut child) in self.recordings {
            child.end_with(Signal::INT)?;
            let table = self.folder.join(format!("{}-{whose}.txt", self.name));
            std::fs::write(&table, report(&data)?)
                .map_err(|error| Error::of(table.display(), error))?;
        }
        Ok(())
    }
}

fn record(bench: &Bench, data: &Path, pids: &[u32]) -> Result<Child> {
    let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
    let mut perf = bench.bound("perf");
    perf.args([
        "record",
        "-q",
        "-e",
        "cpu-clock",
        "-F",
        FREQUENCY,
        "-p",
        &pids.join(","),
        "-o",
    ])
    .arg(data);
    let mut child = Child::start(perf, &bench.dir, "perf")?;
    // It has attached to all threads when it has written its file's head.
    child.wait("recording", std::time::Duration::from_secs(10), || {
        std::fs::metadata(data).is_ok_and(|file| file.len() > 0)
    })?;
    Ok(child)
}

fn report(data: &Path) -> Result<String> {
    let mut perf = Command::new("perf");
    perf.args([
        "report",
        "-q",
        "--stdio",
        "--no-children",
        "-F",
        "overhead,dso,symbol",
        "-i",
    ])
    .arg(data);
    let output = perf
        .output()
        .map_err(|error| Error::of("perf report", error))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .take(LINES)
        .collect();
    Ok(lines.join("\n") + "\n")
}
