//! A part of the benchmark: what it measures, and how it shows what was measured.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::bench::Bench;
use crate::error::Result;
use crate::hung::Hung;
use crate::section::Section;

/// A part: a type without values.
pub trait Part {
    /// What [`Part::measure`] found, all that [`Part::section`] needs.
    type Measured: Serialize + DeserializeOwned;
    /// 1 to 8: what `PART=` says, and the order in the document.
    const NUMBER: u8;
    /// One word, for the quick form's lines.
    const NAME: &'static str;
    /// The heading in the document.
    const TITLE: &'static str;

    /// Measures. Blocks for as long as that takes. What did not work but lets the rest go on (messages that were
    /// lost, say) is told to [`Bench::fault`]; what ends the part is the error.
    fn measure(bench: &Bench) -> Result<Self::Measured>;

    /// Text, tables and plots of what was measured.
    fn section(measured: &Self::Measured) -> Section;
}

/// What is kept of a part that has run: `_build/bench/part-N.json`, and all of them in `docs/bench/results.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PartResult {
    /// Its number.
    pub part: u8,
    /// Its name.
    pub name: String,
    /// How long it took.
    pub seconds: f64,
    /// It was the quick form, which shows that it works and nothing more.
    pub quick: bool,
    /// How often each figure was measured.
    pub runs: usize,
    /// The ejabberd that was measured.
    pub ejabberd: String,
    /// When it began, as `2026-11-22 18:00 UTC`.
    pub when: String,
    /// What went wrong.
    pub faults: Vec<String>,
    /// Logins that hung by stock's fault.
    #[serde(default)]
    pub hung: Hung,
    /// [`Part::Measured`].
    pub measured: serde_json::Value,
}

/// A part among the others.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// [`Part::NUMBER`].
    pub number: u8,
    /// [`Part::NAME`].
    pub name: &'static str,
    /// [`Part::TITLE`].
    pub title: &'static str,
    /// [`Part::measure`], to JSON.
    pub measure: fn(&Bench) -> Result<serde_json::Value>,
    /// [`Part::section`], from JSON.
    pub section: fn(&serde_json::Value) -> Result<Section>,
}

/// The entry of a part.
pub const fn entry<P: Part>() -> Entry {
    Entry {
        number: P::NUMBER,
        name: P::NAME,
        title: P::TITLE,
        measure: |bench| Ok(serde_json::to_value(P::measure(bench)?)?),
        section: |measured| Ok(P::section(&P::Measured::deserialize(measured)?)),
    }
}
