//! What only a connection has that a process uses as a socket: options, who waits, how packets are
//! cut. A connection with a front has none of it, and of those there are a million.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};

use megaphone_proto::http1::HttpReader;
use rustler::LocalPid;

use crate::options::Options;
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

/// The state of `gen_tcp` and `inet`.
pub struct Socket {
    /// `setopts`.
    pub options: Options,
    /// The far side broke off: to those who asked (`show_econnreset`) that is not a plain end.
    pub reset: bool,
    /// An active owner has been told of the end.
    pub end_told: bool,
    /// `shutdown(read)`: what still comes is dropped.
    pub deaf: bool,
    /// Counts among the connections for which a version 1 link stands still.
    pub choking: bool,
    /// Between the two halves of `controlling_process`: nothing is told to an owner who goes.
    pub handing: bool,
    /// Blocked readers, first come, first served.
    pub readers: VecDeque<Reader>,
    /// Where `{packet, http}` stands in a request.
    pub http: HttpReader,
    /// Where `megaphone:recv/1` stands in a request.
    pub requests: Option<Box<Requests>>,
    /// Told once when the socket closes (`inet:monitor/1`).
    pub watchers: Vec<(LocalPid, u64)>,
    /// Of packets that reached a reader.
    pub received: Packets,
    /// Of packets given to `send`.
    pub sent: Packets,
}

/// How packets are counted, but for their bytes.
#[derive(Clone, Copy)]
pub struct Packets {
    /// How many.
    pub count: u64,
    /// Bytes of the longest.
    pub max: u64,
}

impl Packets {
    const NONE: Packets = Packets { count: 0, max: 0 };

    /// Counts one.
    pub fn add(&mut self, bytes: usize) {
        self.count += 1;
        self.max = self.max.max(bytes as u64);
    }
}

impl Socket {
    const NEW: Socket = Socket {
        options: Options::NEW,
        reset: false,
        end_told: false,
        deaf: false,
        choking: false,
        handing: false,
        readers: VecDeque::new(),
        http: HttpReader::new(false),
        requests: None,
        watchers: Vec::new(),
        received: Packets::NONE,
        sent: Packets::NONE,
    };
}

/// A [`Socket`] that takes memory from when something of it is first changed.
#[derive(Default)]
pub struct Lazy(Option<Box<Socket>>);

static NEW: Socket = Socket::NEW;

impl Lazy {
    /// For what there is to be done only where something was changed before.
    pub fn get_mut(&mut self) -> Option<&mut Socket> {
        self.0.as_deref_mut()
    }
}

impl Deref for Lazy {
    type Target = Socket;

    fn deref(&self) -> &Socket {
        self.0.as_deref().unwrap_or(&NEW)
    }
}

impl DerefMut for Lazy {
    fn deref_mut(&mut self) -> &mut Socket {
        self.0.get_or_insert_with(|| Box::new(Socket::NEW))
    }
}
