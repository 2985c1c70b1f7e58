//! What arrived on a connection and nobody has taken yet.

use megaphone_proto::buffer::Buffer;
use megaphone_proto::control::CloseReason;

/// Bytes on their way to a reader or a front.
#[derive(Default)]
pub struct Inbox {
    /// What no reader has taken yet.
    pub buffer: Buffer,
    /// How much of `buffer` still counts against the window. Less than its length when a reader
    /// waits for more than there is: then the far side must be let go on.
    pub held: u32,
    /// The far side sends nothing more, for this reason.
    pub ended: Option<CloseReason>,
    /// Whether the connection waits in its link's list to be served again.
    pub deferred: bool,
}

impl Inbox {
    /// Drops what nobody will read any more, and the memory with it.
    pub fn clear(&mut self) {
        self.buffer.clear();
        self.held = 0;
    }
}
