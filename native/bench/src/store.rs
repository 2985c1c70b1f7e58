//! Where figures and documents are kept.
//!
//! `_build/bench/part-N.json` is the last run of part N (`_build/bench/quick/` of the quick form), `machine.json` beside
//! it says where that was, and
//! `docs/bench/results.json` what `docs/benchmarks.md` shows.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::machine::Machine;
use crate::part::{Entry, PartResult};
use crate::parts::PARTS;
use crate::section::Block;
use crate::{document, markdown};

/// All that the document is made from.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Results {
    /// Where it was measured.
    pub machine: Machine,
    /// The parts, in their order.
    pub parts: Vec<PartResult>,
}

impl Results {
    /// What is in `docs/`, and of each part that has run since, the later run.
    pub fn newest(root: &Path) -> Result<Self> {
        let file = results_file(root);
        let mut results: Self = match file.exists() {
            true => read(&file)?,
            false => Self::default(),
        };
        for part in PARTS {
            let file = part_file(root, false, part.number);
            if file.exists() && results.take(read(&file)?) {
                results.machine = read(&machine_file(root, false))?;
            }
        }
        if results.parts.is_empty() {
            return Err(Error::from("nothing has been measured yet: make bench"));
        }
        results.parts.sort_by_key(|result| result.part);
        Ok(results)
    }

    /// Takes a result unless it is the one that is there, or older. Says whether it did.
    fn take(&mut self, result: PartResult) -> bool {
        match self
            .parts
            .iter()
            .position(|known| known.part == result.part)
        {
            Some(place) if self.parts[place].when < result.when => self.parts[place] = result,
            Some(_) => return false,
            None => self.parts.push(result),
        }
        true
    }
}

/// Where figures that are not for the document go.
pub fn folder(root: &Path, quick: bool) -> PathBuf {
    root.join(if quick {
        "_build/bench/quick"
    } else {
        "_build/bench"
    })
}

/// Keeps a part's result.
pub fn keep(root: &Path, result: &PartResult) -> Result<()> {
    write(
        &part_file(root, result.quick, result.part),
        &serde_json::to_string_pretty(result)?,
    )
}

/// Keeps where it was measured.
pub fn keep_machine(root: &Path, quick: bool, machine: &Machine) -> Result<()> {
    write(
        &machine_file(root, quick),
        &serde_json::to_string_pretty(machine)?,
    )
}

/// Writes the document, its plots and its figures.
pub fn render(root: &Path, results: Results) -> Result<()> {
    let folder = root.join("docs/bench");
    let mut sections = Vec::new();
    for result in &results.parts {
        let part = PARTS.iter().find(|part| part.number == result.part);
        let part = part.ok_or_else(|| Error(format!("there is no part {}", result.part)))?;
        sections.push(section(part, result, &folder, "bench/")?);
    }
    write(
        &results_file(root),
        &serde_json::to_string_pretty(&results)?,
    )?;
    write(
        &root.join("docs/benchmarks.md"),
        &document::text(&results, &sections),
    )
}

/// A part's section as Markdown. Its plots are written into `folder`, which the text calls `link`.
pub fn section(part: &Entry, result: &PartResult, folder: &Path, link: &str) -> Result<String> {
    let mut section = crate::section::Section::default();
    if !result.measured.is_null() {
        section = (part.section)(&result.measured)?;
    }
    for block in &section.blocks {
        if let Block::Plot(plot) = block {
            write(&folder.join(format!("{}.svg", plot.file())), &plot.svg()?)?;
        }
    }
    Ok(markdown::section(part, result, &section, link))
}

fn results_file(root: &Path) -> PathBuf {
    root.join("docs/bench/results.json")
}

fn machine_file(root: &Path, quick: bool) -> PathBuf {
    folder(root, quick).join("machine.json")
}

fn part_file(root: &Path, quick: bool, part: u8) -> PathBuf {
    folder(root, quick).join(format!("part-{part}.json"))
}

fn read<T: serde::de::DeserializeOwned>(file: &Path) -> Result<T> {
    let text = std::fs::read_to_string(file).map_err(|error| Error::of(file.display(), error))?;
    serde_json::from_str(&text).map_err(|error| Error::of(file.display(), error))
}

fn write(file: &Path, text: &str) -> Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).map_err(|error| Error::of(folder.display(), error))?;
    }
    std::fs::write(file, format!("{}\n", text.trim_end()))
        .map_err(|error| Error::of(file.display(), error))
}
