//! A link that is up, as everyone sees it: what opens connections on it,
//! the clients on it, and its reader and writer.

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use megaphone_proto::conn::Conn;
use megaphone_proto::control::{CloseReason, Control, Open};
use megaphone_proto::frame::ConnectionId;
use megaphone_proto::table::Table;
use tokio::sync::Notify;

use crate::connection::{Connection, Ending};
use crate::ids::Ids;
use crate::outbox::Outbox;
use crate::sync::lock;

/// What a link is, known from its handshake.
#[derive(Debug)]
pub struct Terms {
    /// Which of the configured links it is, from 1.
    pub number: usize,
    /// The version of the protocol spoken on it.
    pub version: u32,
    /// A connection as it begins.
    pub conn: Conn,
    /// The largest content that ejabberd takes in one frame, in bytes.
    pub max_content: u32,
    /// How many connections there may be on it.
    pub max_connections: usize,
}

/// A link that is up.
#[derive(Debug)]
pub struct Link {
    terms: Terms,
    outbox: Outbox,
    connections: Mutex<Connections>,
    load: AtomicUsize,
    /// Grows with whatever is received: a heartbeat looks whether it did.
    received: AtomicU64,
    /// Seconds that ejabberd asked us to stay away for.
    retry_after: AtomicU32,
    counters: Counters,
    /// A client of a version 1 link took bytes or went away.
    moved: Notify,
    /// The last connection left a link that takes no new ones.
    drained: Notify,
}

#[derive(Debug)]
struct Connections {
    table: Table<Arc<Connection>>,
    ids: Ids,
    accepting: bool,
}

/// What went over a link since it came up.
#[derive(Debug, Default)]
struct Counters {
    opened: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    unknown_ids: AtomicU64,
    unknown_verbs: AtomicU64,
}

/// Who connected, and to which service.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// ejabberd's service.
    pub service: &'a str,
    /// The client's address.
    pub peer: std::net::SocketAddr,
    /// The address that the client connected to.
    pub local: std::net::SocketAddr,
}

impl Link {
    /// A link that has come up on `terms`.
    pub fn new(terms: Terms, ids: Ids) -> Self {
        let table = Table::new(terms.max_connections);
        Self {
            terms,
            outbox: Outbox::new(),
            connections: Mutex::new(Connections {
                table,
                ids,
                accepting: true,
            }),
            load: AtomicUsize::new(0),
            received: AtomicU64::new(0),
            retry_after: AtomicU32::new(0),
            counters: Counters::default(),
            moved: Notify::new(),
            drained: Notify::new(),
        }
    }

    /// Which of the configured links it is, from 1.
    pub fn number(&self) -> usize {
        self.terms.number
    }

    /// Whether it speaks version 1 of the protocol.
    pub fn is_v1(&self) -> bool {
        self.terms.version == 1
    }

    /// The largest content to send in one frame, in bytes.
    pub fn max_content(&self) -> u32 {
        self.terms.max_content
    }

    /// What waits to be written to it.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// How many connections are on it.
    pub fn load(&self) -> usize {
        self.load.load(Relaxed)
    }

    /// Opens a connection. `None`: it takes no new ones, now or for ever.
    pub fn open(self: &Arc<Self>, caller: Caller<'_>) -> Option<Arc<Connection>> {
        let mut connections = lock(&self.connections);
        if !connections.accepting {
            return None;
        }
        let id = connections.ids.next();
        let connection = Arc::new(Connection::new(id, Arc::clone(self), self.terms.conn));
        connections.table.may_open(id).ok()?;
        let Caller {
            service,
            peer,
            local,
        } = caller;
        let open = || {
            Control::Open(Open {
                id,
                service: service.to_owned(),
                peer,
                local,
                tls: None,
            })
        };
        if !self.is_v1() && !self.outbox.open(&open()) {
            return None;
        }
        connections.table.open(id, Arc::clone(&connection)).ok()?;
        self.load.fetch_add(1, Relaxed);
        self.counters.opened.fetch_add(1, Relaxed);
        Some(connection)
    }

    /// The connection `id`, if it is open.
    pub fn get(&self, id: ConnectionId) -> Option<Arc<Connection>> {
        lock(&self.connections).table.get(&id).map(Arc::clone)
    }

    /// Takes `id` off the link, which is then unknown on it for ever.
    pub fn forget(&self, id: ConnectionId) -> Option<Arc<Connection>> {
        let mut connections = lock(&self.connections);
        let removed = connections.table.remove(id)?;
        self.load.fetch_sub(1, Relaxed);
        let drained = !connections.accepting && connections.table.is_empty();
        drop(connections);
        self.moved.notify_one();
        if drained {
            self.drained.notify_one();
        }
        Some(removed)
    }

    /// Takes no new connections any more.
    pub fn stop_accepting(&self) {
        let mut connections = lock(&self.connections);
        connections.accepting = false;
        if connections.table.is_empty() {
            self.drained.notify_one();
        }
    }

    /// Waits until a link that takes no new connections has none left.
    pub async fn drained(&self) {
        self.drained.notified().await;
    }

    /// The link is gone: so are its connections.
    pub fn lose(&self) {
        for connection in self.take_all() {
            connection.finish(Ending::Reset(CloseReason::LinkLost));
        }
    }

    /// Closes all connections, because this program ends: the clients still
    /// get what came for them.
    pub fn close_all(&self) {
        let reason = CloseReason::Shutdown;
        for connection in self.take_all() {
            if self.is_v1() {
                connection.end();
                connection.finish(Ending::Close(reason));
            } else {
                let close = Control::Close {
                    id: connection.id(),
                    reason,
                };
                connection.finish_saying(Ending::Close(reason), &close);
            }
        }
    }

    fn take_all(&self) -> Vec<Arc<Connection>> {
        let mut connections = lock(&self.connections);
        connections.accepting = false;
        self.load.store(0, Relaxed);
        connections
            .table
            .drain()
            .map(|(_, connection)| connection)
            .collect()
    }

    /// Says that a client took bytes; only version 1 cares.
    pub fn client_moved(&self) {
        if self.is_v1() {
            self.moved.notify_one();
        }
    }

    /// Waits until some client took bytes or went away.
    pub async fn moved(&self) {
        self.moved.notified().await;
    }

    /// Notes that something came.
    pub fn count_received(&self) {
        self.received.fetch_add(1, Relaxed);
    }

    /// A number that is another one when something has come since.
    pub fn received(&self) -> u64 {
        self.received.load(Relaxed)
    }

    /// Notes that ejabberd wants no link for so many seconds.
    pub fn set_retry_after(&self, seconds: u32) {
        self.retry_after.store(seconds, Relaxed);
    }

    /// How long ejabberd wants no link.
    pub fn retry_after(&self) -> Duration {
        Duration::from_secs(self.retry_after.load(Relaxed).into())
    }

    /// Counts bytes of content from clients.
    pub fn count_in(&self, bytes: usize) {
        self.counters.bytes_in.fetch_add(bytes as u64, Relaxed);
    }

    /// Counts bytes of content to clients.
    pub fn count_out(&self, bytes: usize) {
        self.counters.bytes_out.fetch_add(bytes as u64, Relaxed);
    }

    /// Counts a frame or message for a connection that is not open here.
    pub fn count_unknown_id(&self) {
        self.counters.unknown_ids.fetch_add(1, Relaxed);
    }

    /// Notes how many control messages had an unknown verb.
    pub fn set_unknown_verbs(&self, verbs: u64) {
        self.counters.unknown_verbs.store(verbs, Relaxed);
    }

    /// Its counters, for the log line at its end.
    pub fn summary(&self) -> impl fmt::Display {
        let Counters {
            opened,
            bytes_in,
            bytes_out,
            unknown_ids,
            unknown_verbs,
        } = &self.counters;
        format!(
            "connections={} bytes_in={} bytes_out={} unknown_ids={} unknown_verbs={}",
            opened.load(Relaxed),
            bytes_in.load(Relaxed),
            bytes_out.load(Relaxed),
            unknown_ids.load(Relaxed),
            unknown_verbs.load(Relaxed)
        )
    }
}
