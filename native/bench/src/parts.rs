//! The parts, in the order of the document.

use crate::part::{Entry, entry};
use crate::{bulk, chat, climb, edge, http, idle, logins, terms};

/// All parts.
pub const PARTS: &[Entry] = &[
    entry::<terms::Terms>(),
    entry::<http::Http>(),
    entry::<chat::Chat>(),
    entry::<logins::LogIn>(),
    entry::<idle::Idle>(),
    entry::<bulk::Bulk>(),
    entry::<edge::Edge>(),
    entry::<climb::Climb>(),
];
