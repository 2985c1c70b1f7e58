//! The parts, in the order of the document.

use crate::part::{Entry, entry};
use crate::{chat, climb, edge, http, idle, logins};

/// All parts.
pub const PARTS: &[Entry] = &[
    entry::<http::Http>(),
    entry::<chat::Chat>(),
    entry::<logins::LogIn>(),
    entry::<idle::Idle>(),
    entry::<edge::Edge>(),
    entry::<climb::Climb>(),
];
