//! The document around the sections.

use crate::part::PartResult;
use crate::store::Results;
use crate::{aims, markdown, rig};

/// `docs/benchmarks.md`.
pub fn text(results: &Results, sections: &[String]) -> String {
    let machine: Vec<String> = results
        .machine
        .lines
        .iter()
        .map(|line| format!("- {line}"))
        .collect();
    format!(
        "{INTRODUCTION}\n\n{}\n\n### Machine and versions\n\n{}\n\n### How both sides are set up\n\n{}\n\n{}",
        aims(&results.parts),
        machine.join("\n"),
        rig::description(),
        sections.join("\n")
    )
}

/// The table of aims under its heading, or nothing where no part has run.
pub fn aims(results: &[PartResult]) -> String {
    aims::table(results).map_or_else(String::new, |table| {
        format!(
            "## What megaphone is to reach\n\n{AIMS}\n{}",
            markdown::text(&table)
        )
    })
}

const AIMS: &str = "\
Each row is from the part named at its end, in the same run; a figure is the median with the range of the runs. *Stock,
collected* is stock after every process has been made to collect its garbage twice, as `ejabberdctl gc` does it. BEAM
memory is `erlang:memory(total)` and what the NIF holds beside it.
";

const INTRODUCTION: &str = "\
# Benchmarks

Written by `make bench`, which measures all of this in one run: ejabberd with its own listeners (**stock**) and the
same ejabberd with megaphone's listener and `megaphone-ecm` in front of it (**megaphone**), side by side on one
machine, under the same load from the same tool ([megaphone-load](load.md)). Good and bad figures are shown alike.

### How to read it

- **Both sides take turns** (A B, B A, A B), so that what disturbs the machine disturbs both. A figure is the median
  of the runs with their range; words such as *31 % less* compare medians, and it is said where ranges overlap.
- **Everything shares this one machine**: ejabberd, the edge and the generator compete for its cores. How many
  requests or messages a second are possible therefore says less than **CPU per million** of them, which is
  processor time (user and system) of the processes named. The edge's CPU counts on megaphone's side: *both* is
  ejabberd and ECM together. Where the ECM runs on a machine of its own, as it is meant to, ejabberd's column alone is
  what ejabberd's machine pays.
- **Latency counts from when a request or message was due** by the rate, not from when it was sent: a generator that
  waits for a slow server hides nothing.
- **The stand-in** is a small Rust server in ejabberd's place that does next to nothing: what it shows is the price of
  generator, kernel and loopback, below which no server can be seen. The generator's own share of the CPU is printed.
- Raw figures of every run: [bench/results.json](bench/results.json).";
