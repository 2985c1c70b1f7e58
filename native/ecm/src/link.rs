//! A link as everyone sees it: what opens connections on it, the clients on
//! it, and its reader and writer. It outlives its transport: one that dropped
//! may be parked and go on over another (see `session.rs`).

mod resume;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use megaphone_proto::conn::Conn;
use megaphone_proto::control::{CloseReason, Control, Open};
use megaphone_proto::frame::ConnectionId;
use megaphone_proto::retained::Retained;
use megaphone_proto::table::Table;
use tokio::sync::Notify;

use crate::budget::Budget;
use crate::connection::{Connection, Ending};
use crate::ids::Ids;
use crate::outbox::Outbox;
use crate::pulse::Pulse;
use crate::status::Status;
use crate::sync::lock;
use crate::tally::Counters;

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
    /// Bytes that are kept until ejabberd has acknowledged them; 0 for a link
    /// that is not resumed.
    pub resume_buffer: usize,
    /// What clients may make the program hold.
    pub budget: Arc<Budget>,
}

/// A link.
#[derive(Debug)]
pub struct Link {
    terms: Terms,
    outbox: Outbox,
    connections: Mutex<Connections>,
    load: AtomicUsize,
    pulse: Pulse,
    /// What was written and may have to be written again.
    retained: Mutex<Retained>,
    /// Seconds that ejabberd asked us to stay away for.
    retry_after: AtomicU32,
    /// One of both sides said that it ends: then a link that drops is lost.
    leaving: AtomicBool,
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
    /// The link has no transport.
    parked: bool,
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
        let retained = Retained::new(terms.resume_buffer);
        Self {
            terms,
            outbox: Outbox::new(),
            connections: Mutex::new(Connections {
                table,
                ids,
                accepting: true,
                parked: false,
            }),
            load: AtomicUsize::new(0),
            pulse: Pulse::new(),
            retained: Mutex::new(retained),
            retry_after: AtomicU32::new(0),
            leaving: AtomicBool::new(false),
            counters: Counters::new(),
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

    /// What clients may make the program hold.
    pub fn budget(&self) -> &Budget {
        &self.terms.budget
    }

    /// What was counted on it.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What one line says of it.
    pub fn status(&self) -> Status<'_> {
        Status(self)
    }

    /// Whether the other end lives.
    pub fn pulse(&self) -> &Pulse {
        &self.pulse
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
        if !connections.may_open() {
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
        self.counters.count_opened();
        Some(connection)
    }

    /// The connection `id`, if it is open.
    pub fn get(&self, id: ConnectionId) -> Option<Arc<Connection>> {
        lock(&self.connections).table.get(&id).map(Arc::clone)
    }

    /// Whether it takes new connections: not while it is parked, and never
    /// after either side said goaway.
    pub fn accepts(&self) -> bool {
        lock(&self.connections).may_open()
    }

    /// Takes `id`, which closes for `reason`, off the link, which never knows
    /// it again.
    pub fn forget(&self, id: ConnectionId, reason: CloseReason) -> Option<Arc<Connection>> {
        let mut connections = lock(&self.connections);
        let removed = connections.table.remove(id)?;
        self.gone(1, reason);
        self.look_whether_drained(&connections);
        Some(removed)
    }

    /// So many connections were just taken out of the table.
    fn gone(&self, gone: usize, reason: CloseReason) {
        self.load.fetch_sub(gone, Relaxed);
        self.counters.count_closed(reason, gone);
        self.moved.notify_one();
    }

    /// To be called when whatever had to be said of the last connection is in
    /// the outbox: the link may end at once.
    fn look_whether_drained(&self, connections: &Connections) {
        if connections.is_drained() {
            self.drained.notify_one();
        }
    }

    /// Takes no new connections any more. It does not end before it is seen
    /// whether there are any, see [`Link::end_if_drained`].
    pub fn stop_accepting(&self) {
        lock(&self.connections).accepting = false;
    }

    /// Ends it if it takes no new connections and has none left.
    pub fn end_if_drained(&self) {
        self.look_whether_drained(&lock(&self.connections));
    }

    /// Takes no new connections any more and asks ejabberd to end those that
    /// are open `within` so many seconds. The link ends after that, or when it
    /// drops: it is not resumed.
    pub fn say_goaway(&self, within: Option<u32>) {
        let goaway = Control::Goaway {
            reason: CloseReason::Shutdown,
            retry_after: None,
            within,
        };
        if !self.is_v1() {
            self.outbox.urgent(&goaway);
        }
        self.leave();
        self.stop_accepting();
        self.end_if_drained();
    }

    /// One of both sides ends: when the link drops, that is its end.
    pub fn leave(&self) {
        self.leaving.store(true, Relaxed);
    }

    /// Whether one of both sides has said that it ends.
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Relaxed)
    }

    /// Waits until a link that takes no new connections has none left.
    pub async fn drained(&self) {
        self.drained.notified().await;
    }

    /// Closes up to `most` connections for `reason`: ejabberd is told, the
    /// clients still get what came for them. Returns how many there were.
    pub fn close_some(&self, most: usize, reason: CloseReason) -> usize {
        let some = self.take_some(most, reason);
        for connection in &some {
            if self.is_v1() {
                connection.end();
                connection.finish(Ending::Close(reason));
            } else {
                let id = connection.id();
                connection.finish_saying(Ending::Close(reason), &Control::Close { id, reason });
            }
        }
        self.end_if_drained();
        some.len()
    }

    /// Takes up to `most` connections off the link, which close for `reason`.
    /// The link does not see whether these were the last.
    pub fn take_some(&self, most: usize, reason: CloseReason) -> Vec<Arc<Connection>> {
        let mut connections = lock(&self.connections);
        let table = &mut connections.table;
        let some: Vec<_> = if most >= table.len() {
            table.drain().map(|(_, connection)| connection).collect()
        } else {
            let ids: Vec<_> = table.iter().take(most).map(|(id, _)| id).collect();
            ids.into_iter().filter_map(|id| table.remove(id)).collect()
        };
        self.gone(some.len(), reason);
        some
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

    /// Notes that ejabberd wants no link for so many seconds.
    pub fn set_retry_after(&self, seconds: u32) {
        self.retry_after.store(seconds, Relaxed);
    }

    /// How long ejabberd wants no link.
    pub fn retry_after(&self) -> Duration {
        Duration::from_secs(self.retry_after.load(Relaxed).into())
    }
}

impl Connections {
    fn may_open(&self) -> bool {
        self.accepting && !self.parked
    }

    fn is_drained(&self) -> bool {
        !self.accepting && self.table.is_empty()
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use megaphone_proto::credit::{RecvWindow, SendCredit};

    /// A link of version 2 whose clients may be sent 16 KiB each, that keeps
    /// `resume_buffer` bytes.
    pub fn link(resume_buffer: usize) -> Arc<Link> {
        let conn = Conn::new(SendCredit::new(16_384), RecvWindow::new(16_384));
        let terms = Terms {
            number: 1,
            version: 2,
            conn,
            max_content: 65_536,
            max_connections: 1_000_000,
            resume_buffer,
            budget: Arc::new(Budget::new(1_000_000)),
        };
        Arc::new(Link::new(terms, Ids::new().unwrap()))
    }

    /// Another connection on `link`.
    pub fn open(link: &Arc<Link>) -> Arc<Connection> {
        let address = "192.0.2.1:5222".parse().unwrap();
        let caller = Caller {
            service: "c2s",
            peer: address,
            local: address,
        };
        link.open(caller).unwrap()
    }

    #[test]
    fn every_end_of_a_connection_is_counted_once() {
        let link = link(0);
        let (one, two, three) = (open(&link), open(&link), open(&link));
        let (_four, _five) = (open(&link), open(&link));
        one.abandon(CloseReason::ClientClosed);
        one.abandon(CloseReason::Internal);
        two.peer_ended().unwrap();
        two.end();
        assert!(link.forget(two.id(), CloseReason::Internal).is_none());
        three.end();
        three.peer_ended().unwrap();
        assert!(link.forget(three.id(), CloseReason::Internal).is_none());
        assert_eq!(link.close_some(1, CloseReason::Shutdown), 1);
        assert_eq!(link.load(), 1);
        link.take_some(10, CloseReason::LinkLost);
        assert_eq!(link.load(), 0);
        let counters = link.counters().to_string();
        assert!(
            counters.ends_with(" closed=normal:2,client_closed:1,link_lost:1,shutdown:1"),
            "{counters}"
        );
    }

    #[test]
    fn content_over_the_budget_is_not_taken_and_what_ends_gives_it_back() {
        let link = link(0);
        let (one, two, three) = (open(&link), open(&link), open(&link));
        assert!(link.budget().take(1_000_000 - 16_000));
        let deliver = |to: &Arc<Connection>, bytes: usize| {
            let mut to_flush = Vec::new();
            to.deliver(&vec![0; bytes], &mut to_flush).unwrap();
            to_flush.iter().for_each(|one| one.flush());
        };
        deliver(&one, 10_000);
        deliver(&two, 6_000);
        assert!(!link.budget().take(1));
        deliver(&two, 1);
        assert!(two.is_finished());
        deliver(&three, 5_000);
        deliver(&three, 1_000);
        one.finish(Ending::Close(CloseReason::Normal));
        assert!(!link.budget().take(1));
        drop((one, two, three));
        link.take_some(3, CloseReason::Normal);
        assert!(link.budget().take(16_000));
        assert!(!link.budget().take(1));
    }
}
