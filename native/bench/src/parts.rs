//! The parts, in the order of the document.

use crate::part::{Entry, entry};
use crate::{chat, logins};

/// All parts.
pub const PARTS: &[Entry] = &[entry::<chat::Chat>(), entry::<logins::LogIn>()];
