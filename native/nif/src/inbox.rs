//! What arrived on a connection and who waits for it.

use std::collections::VecDeque;

use megaphone_proto::buffer::Buffer;
use megaphone_proto::control::CloseReason;
use megaphone_proto::http1::HttpReader;
use rustler::LocalPid;

use crate::requests::Requests;

/// What a reader asked for.
#[derive(Clone, Copy)]
pub enum Want {
    /// The next packet as `{packet, _}` says; of a raw stream this many bytes, 0 for what is there.
    Packet(u32),
    /// The next HTTP item, whatever `{packet, _}` says (`megaphone:recv/1`).
    Item,
}

/// A process blocked in `recv`.
pub struct Reader {
    /// Who waits.
    pub pid: LocalPid,
    /// Under what its answer is sent.
    pub token: u64,
    /// For what.
    pub want: Want,
}

/// Bytes on their way to a reader.
pub struct Inbox {
    /// What no reader has taken yet.
    pub buffer: Buffer,
    /// How much of `buffer` still counts against the window. Less than its length when a reader
    /// waits for more than there is: then the far side must be let go on.
    pub held: u32,
    /// The far side sends nothing more, for this reason.
    pub ended: Option<CloseReason>,
    /// The far side broke off: to those who asked (`show_econnreset`) that is not a plain end.
    pub reset: bool,
    /// An active owner has been told of the end.
    pub end_told: bool,
    /// `shutdown(read)`: what still comes is dropped.
    pub deaf: bool,
    /// Counts among the connections for which a version 1 link stands still.
    pub choking: bool,
    /// Whether bytes arrived that were not looked at yet.
    pub arrived: bool,
    /// Whether the connection waits in its link's list to be served again.
    pub deferred: bool,
    /// Between the two halves of `controlling_process`: nothing is told to an owner who goes.
    pub handing: bool,
    /// Blocked readers, first come, first served.
    pub readers: VecDeque<Reader>,
    /// Where `{packet, http}` stands in a request.
    pub http: HttpReader,
    /// Where `megaphone:recv/1` stands in a request.
    pub requests: Option<Box<Requests>>,
}

impl Default for Inbox {
    fn default() -> Self {
        Inbox {
            buffer: Buffer::new(),
            held: 0,
            ended: None,
            reset: false,
            end_told: false,
            deaf: false,
            choking: false,
            arrived: false,
            deferred: false,
            handing: false,
            readers: VecDeque::new(),
            http: HttpReader::new(false),
            requests: None,
        }
    }
}

impl Inbox {
    /// Drops what nobody will read any more, and the memory with it.
    pub fn clear(&mut self) {
        self.buffer.clear();
        self.held = 0;
        self.requests = None;
    }
}
