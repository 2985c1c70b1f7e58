//! Who is measured.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// ejabberd with its own listeners.
    Stock,
    /// The same ejabberd with megaphone's listener, and its ECMs in front.
    Megaphone,
    /// The stand-in: hardly more than the generator and the kernel.
    Floor,
}

/// The two that are compared.
pub const BOTH: [Side; 2] = [Side::Stock, Side::Megaphone];

/// The two that are compared, and what generator and kernel cost by themselves.
pub const ALL: [Side; 3] = [Side::Stock, Side::Megaphone, Side::Floor];

/// Something for each side that has it.
pub type BySide<T> = BTreeMap<Side, T>;

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stock => "stock",
            Self::Megaphone => "megaphone",
            Self::Floor => "stand-in",
        })
    }
}
