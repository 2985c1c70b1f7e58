//! What one side of a link is told before anything comes.

use crate::auth::Secret;
use crate::limits::{DEFAULT_MAX_CONTENT, DEFAULT_WINDOW};
use crate::link::VERSION;

/// Which side of the link this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The ECM: it dials, and says hello first.
    Edge,
    /// ejabberd: it listens, and learns the version from the first frame.
    Node,
}

/// What one side is and takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkConfig {
    /// Which side this is.
    pub role: Role,
    /// This side's name, for people; at most [`NAME_MAX`](crate::limits::NAME_MAX) bytes.
    pub name: String,
    /// Random bytes in hex, fresh for each link.
    pub nonce: String,
    /// Bytes that this side takes per connection before the peer must wait.
    pub window: u32,
    /// Bytes, the largest content that this side takes in one frame; at least
    /// [`MIN_MAX_CONTENT`](crate::limits::MIN_MAX_CONTENT) for version 2.
    pub max_content: u32,
    /// For a node: may a link be version 1?
    pub allow_v1: bool,
    /// For an edge: the version it speaks, 1 or 2.
    pub version: u32,
    /// Seconds for which this side keeps a link that dropped; 0 keeps none.
    pub resume_timeout: u32,
    /// What the peer must prove to know, and this side proves to it.
    pub secret: Option<Secret>,
    /// For an edge: the link that it wants to go on with.
    pub resume: Option<Resume>,
}

/// The link that an edge wants to go on with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resume {
    /// Its name, from ejabberd's first hello on it.
    pub link: String,
    /// Its token, from there too.
    pub token: String,
    /// Bytes of its frames that this side has.
    pub received: u64,
}

impl LinkConfig {
    /// The protocol's defaults for a side of this role, name and nonce: version 2, and version 1
    /// allowed.
    pub fn new(role: Role, name: impl Into<String>, nonce: impl Into<String>) -> Self {
        LinkConfig {
            role,
            name: name.into(),
            nonce: nonce.into(),
            window: DEFAULT_WINDOW,
            max_content: DEFAULT_MAX_CONTENT,
            allow_v1: true,
            version: VERSION,
            resume_timeout: 0,
            secret: None,
            resume: None,
        }
    }
}
