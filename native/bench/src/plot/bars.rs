//! Draws [`Bars`].

use crate::error::Result;
use crate::plot::Bars;

/// The plot as SVG.
pub fn svg(_plot: &Bars) -> Result<String> {
    Ok(String::new())
}
