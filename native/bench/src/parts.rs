//! The parts, in the order of the document.

use crate::part::Entry;

/// All parts.
pub const PARTS: &[Entry] = &[];
