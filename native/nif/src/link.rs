//! One link: what its receiver feeds, what its connections share, how it ends.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crossbeam_queue::SegQueue;
use megaphone_proto::control::{CloseReason, Control};
use megaphone_proto::frame::ConnectionId;
use megaphone_proto::link::Link as Machine;
use megaphone_proto::parking::Parking;
use megaphone_proto::table::Table;
use megaphone_proto::wheel::{Watch, Wheel};
use rustler::{Env, LocalPid, Resource, ResourceArc};

use crate::atoms;
use crate::conn::{Conn, Phase, hold};
use crate::front::News;
use crate::limits::{Held, Hits};
use crate::outbox::{ALL_MAX, DATA_LOW, Outbox};
use crate::owners::Owners;
use crate::prefetch;
use crate::sync::lock;

/// Seconds for which a closed connection waits for a client that takes nothing: as long as a
/// parked link is waited for, by default, and as the ECM's own `close_timeout`.
const LINGER_MAX: u32 = 30;

/// Connections looked up in one go, at most; a processor waits for some ten lines of memory at once.
pub const LOOKUPS: usize = 32;

/// Connections served in one go: ended with their link, or called again after they had to wait.
const BATCH: usize = 64;

/// What a receiver decides for its link.
pub struct Settings {
    /// The link's own name, for logs.
    pub name: String,
    /// Bytes a connection may send before we have taken any.
    pub window: u32,
    /// Connections at a time.
    pub max_connections: usize,
    /// Bytes sent and not acknowledged that are kept for a peer that resumes.
    pub resume_buffer: usize,
    /// Bytes held for its connections.
    pub max_buffered: u64,
    /// Seconds after which a silent connection of a version 1 link is closed.
    pub idle_timeout: Option<u32>,
    /// Both ends of the link's own socket: all that version 1 can say of a client's address.
    pub addresses: (SocketAddr, SocketAddr),
}

/// The resource that a receiver, its sender and all its connections share.
pub struct Link {
    /// As the receiver asked.
    pub settings: Settings,
    /// The process that feeds.
    pub receiver: LocalPid,
    /// What waits to be written.
    pub outbox: Outbox,
    /// Counted for `info`.
    pub counters: Counters,
    /// What its connections hold.
    pub held: Held,
    /// The receiving state machine; only `feed` uses it for long.
    pub machine: Mutex<Machine>,
    /// Whose death ends which connections.
    pub owners: Owners,
    table: Mutex<Table<ResourceArc<Conn>>>,
    version: u32,
    max_content: u32,
    clock: AtomicU32,
    /// Seconds in which clients could be heard: those in which the link was parked do not count.
    awake: AtomicU32,
    /// When the connections' fronts are to be looked at, in those seconds.
    wheel: Mutex<Wheel>,
    /// Connections that have more to hand out than one go allows.
    ready: SegQueue<ResourceArc<Conn>>,
    /// What the fronts have for the receiver.
    pub news: SegQueue<News>,
    /// The receiver, as far as `ready` and `news` are concerned.
    parking: Parking,
    /// Connections with credit and no room in the outbox.
    stalled: SegQueue<ResourceArc<Conn>>,
    lingering: Mutex<Vec<Lingering>>,
    /// Bytes fed by the last tick.
    heard: AtomicU64,
    choking: AtomicUsize,
    idle: Mutex<VecDeque<(ConnectionId, u32)>>,
}

/// A connection that was closed here before its client had taken all.
struct Lingering {
    conn: ResourceArc<Conn>,
    /// Bytes that it still has to take.
    left: usize,
    /// Seconds since it took some, those left out in which nothing came over the link.
    waited: u32,
}

/// What went over a link.
#[derive(Default)]
pub struct Counters {
    /// Bytes fed.
    pub received: AtomicU64,
    /// Bytes drained.
    pub sent: AtomicU64,
    /// Connections opened in all.
    pub opened: AtomicU64,
    /// Frames and messages for ids that are not open, dropped.
    pub dropped: AtomicU64,
    /// Those of them that carried content. The others cross our own closes all the time.
    pub lost: AtomicU64,
    /// The last id whose content was dropped.
    pub last_lost: AtomicU64,
    /// Opens refused because there were `max_connections`.
    pub refused: Hits,
    /// Connections that are gone, by why, in the order of [`CloseReason::ALL`].
    closed: [AtomicU64; CloseReason::ALL.len()],
}

impl Counters {
    /// Counts something that came for an id that is not open.
    pub fn drop_one(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts content that came for an id that is not open.
    pub fn lose_content(&self, id: ConnectionId) {
        self.drop_one();
        self.lost.fetch_add(1, Ordering::Relaxed);
        self.last_lost.store(id.get(), Ordering::Relaxed);
    }

    /// Counts a connection that is gone.
    pub fn close_one(&self, reason: CloseReason) {
        self.closed[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many are gone for each reason that there was.
    pub fn closed(&self) -> impl Iterator<Item = (CloseReason, u64)> {
        let counts = self
            .closed
            .iter()
            .map(|count| count.load(Ordering::Relaxed));
        let all = CloseReason::ALL.iter().copied().zip(counts);
        all.filter(|(_, count)| *count > 0)
    }
}

/// A link as Erlang refers to it.
pub struct LinkRef(pub Arc<Link>);

#[rustler::resource_impl]
impl Resource for LinkRef {}

impl std::ops::Deref for LinkRef {
    type Target = Arc<Link>;

    fn deref(&self) -> &Arc<Link> {
        &self.0
    }
}

impl Link {
    /// The link behind a handshake: its stream is `machine`'s.
    pub fn new(settings: Settings, machine: Machine, receiver: LocalPid) -> Self {
        let resumable = machine.resume_timeout() > 0;
        let resume_buffer = if resumable { settings.resume_buffer } else { 0 };
        let parking = Parking::new();
        parking.park(|| None::<()>);
        Link {
            receiver,
            outbox: Outbox::new(resume_buffer),
            counters: Counters::default(),
            held: Held::new(settings.max_buffered),
            owners: Owners::new(),
            table: Mutex::new(Table::new(settings.max_connections)),
            version: machine.version(),
            max_content: machine.max_content_to_send(),
            machine: Mutex::new(machine),
            clock: AtomicU32::new(0),
            awake: AtomicU32::new(0),
            wheel: Mutex::default(),
            ready: SegQueue::new(),
            news: SegQueue::new(),
            parking,
            stalled: SegQueue::new(),
            lingering: Mutex::default(),
            heard: AtomicU64::new(0),
            choking: AtomicUsize::new(0),
            idle: Mutex::default(),
            settings,
        }
    }

    /// 1 or 2.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Largest content of a frame that we send.
    pub fn max_content(&self) -> u32 {
        self.max_content
    }

    /// What a connection may have unread.
    pub fn window(&self) -> u32 {
        self.settings.window
    }

    /// Seconds since it began, as [`Link::tick`] counts them.
    pub fn now(&self) -> u32 {
        self.clock.load(Ordering::Relaxed)
    }

    /// Those of them in which the link was up: the time of [`Link::watch`].
    pub fn awake(&self) -> u32 {
        self.awake.load(Ordering::Relaxed)
    }

    /// Has a connection's front looked at in second `due` of [`Link::awake`], or sooner. There is
    /// no lock to take where such a look is coming already.
    pub fn watch(&self, watch: &mut Watch, id: ConnectionId, due: u32) {
        if !watch.covers(due) {
            lock(&self.wheel).watch(watch, id, due);
        }
    }

    /// The connection needs no look any more.
    pub fn unwatch(&self, watch: &mut Watch, id: ConnectionId) {
        if watch.is_set() {
            lock(&self.wheel).unwatch(watch, id);
        }
    }

    /// The table of open connections.
    pub fn table(&self) -> MutexGuard<'_, Table<ResourceArc<Conn>>> {
        lock(&self.table)
    }

    /// The state machine.
    pub fn machine(&self) -> MutexGuard<'_, Machine> {
        lock(&self.machine)
    }

    /// An open connection.
    pub fn get(&self, id: ConnectionId) -> Option<ResourceArc<Conn>> {
        self.table().get(&id).cloned()
    }

    /// The same of many at once: what has to come from memory for them is waited for once.
    pub fn get_all(
        &self,
        ids: impl Iterator<Item = ConnectionId> + Clone,
        found: &mut Vec<Option<ResourceArc<Conn>>>,
    ) {
        let table = self.table();
        for place in ids.clone().filter_map(|id| table.place(&id)) {
            prefetch::line(place);
        }
        let mut there = [None; LOOKUPS];
        let mut number = 0;
        for (slot, id) in there.iter_mut().zip(ids) {
            *slot = table.get(&id);
            if let Some(conn) = *slot {
                prefetch::resource::<Conn>(&raw const **conn);
            }
            number += 1;
        }
        found.extend(there[..number].iter().map(|conn| conn.cloned()));
    }

    /// The id is gone from the wire.
    pub fn forget(&self, id: ConnectionId, reason: CloseReason) {
        // Dropped outside the lock: the last reference frees the connection.
        let gone = self.table().remove(id);
        if gone.is_some() {
            self.counters.close_one(reason);
        }
    }

    /// Version 1: the peer does not know yet that we closed; what still comes is not a new client.
    pub fn bury(&self, id: ConnectionId) {
        self.table().bury(id);
    }

    /// Calls a connection again later, in the receiver's time.
    pub fn defer(&self, env: Env, conn: ResourceArc<Conn>) {
        self.ready.push(conn);
        self.wake_receiver(env);
    }

    /// Has the log say what a client did that it was refused for.
    pub fn blame(&self, env: Env, id: ConnectionId, text: &str) {
        self.news.push(News::Refused(id, text.to_owned()));
        self.wake_receiver(env);
    }

    fn wake_receiver(&self, env: Env) {
        if self.parking.wake() {
            let _ = env.send(&self.receiver, atoms::ready());
        }
    }

    /// Serves those who were deferred; `true` when some still wait.
    pub fn serve_ready(&self, env: Env) -> bool {
        // Each connection may send 64 messages, so few of them make one call.
        for _ in 0..BATCH / 16 {
            let late = || self.parking.park(|| self.ready.pop());
            let Some(conn) = self.ready.pop().or_else(late) else {
                return false;
            };
            let mut held = hold(&conn, env);
            held.inbox.deferred = false;
            held.pump();
        }
        true
    }

    /// Calls a connection again when the outbox has room.
    pub fn stall(&self, conn: ResourceArc<Conn>) {
        self.stalled.push(conn);
    }

    /// Lets stalled connections go on once enough has been drained; `true` when there are more
    /// that could.
    pub fn serve_stalled(&self, env: Env) -> bool {
        for _ in 0..BATCH {
            if self.outbox.queued() > DATA_LOW {
                return false;
            }
            let Some(conn) = self.stalled.pop() else {
                return false;
            };
            hold(&conn, env).unstall();
        }
        !self.stalled.is_empty()
    }

    /// Watches over a closed connection whose last bytes have not gone out.
    pub fn linger(&self, conn: ResourceArc<Conn>) {
        let lingering = Lingering {
            conn,
            left: usize::MAX,
            waited: 0,
        };
        lock(&self.lingering).push(lingering);
    }

    /// Gives up lingering connections whose client took nothing for too long. Over a link that is
    /// parked, or silent and perhaps dead, it cannot say that it did.
    fn sweep_lingering(&self, env: Env) {
        let received = self.counters.received.load(Ordering::Relaxed);
        let heard = self.heard.swap(received, Ordering::Relaxed) != received;
        let waiting = std::mem::take(&mut *lock(&self.lingering));
        for mut lingering in waiting {
            let conn = lingering.conn.clone();
            let mut held = hold(&conn, env);
            if !matches!(held.phase, Phase::Lingering(_)) {
                continue;
            }
            let left = held.pending.as_ref().map_or(0, |pending| pending.bytes());
            if left < lingering.left {
                (lingering.left, lingering.waited) = (left, 0);
            } else if heard {
                lingering.waited += 1;
            }
            if lingering.waited >= LINGER_MAX {
                held.abort(CloseReason::Timeout);
            } else {
                drop(held);
                lock(&self.lingering).push(lingering);
            }
        }
    }

    /// Version 1: one more connection has too much unread.
    pub fn choke(&self) {
        self.choking.fetch_add(1, Ordering::SeqCst);
    }

    /// Version 1: one fewer has; the last one lets the receiver go on.
    pub fn unchoke(&self, env: Env) {
        if self.choking.fetch_sub(1, Ordering::SeqCst) == 1 {
            let _ = env.send(&self.receiver, atoms::resume());
        }
    }

    /// Whether the receiver must not read on.
    pub fn choked(&self) -> bool {
        self.choking.load(Ordering::SeqCst) > 0
    }

    /// Version 1: starts the clock that closes a connection gone silent.
    pub fn watch_idle(&self, id: ConnectionId) {
        if let Some(timeout) = self.settings.idle_timeout {
            lock(&self.idle).push_back((id, idle_at(self.now(), timeout)));
        }
    }

    fn sweep_idle(&self, env: Env) {
        let (Some(timeout), now) = (self.settings.idle_timeout, self.now()) else {
            return;
        };
        loop {
            let mut idle = lock(&self.idle);
            let Some((id, _)) = idle.front().copied().filter(|(_, due)| *due <= now) else {
                return;
            };
            idle.pop_front();
            drop(idle);
            let Some(conn) = self.get(id) else { continue };
            let due = idle_at(hold(&conn, env).heard, timeout);
            if due <= now {
                hold(&conn, env).abort(CloseReason::Idle);
            } else {
                lock(&self.idle).push_back((id, due));
            }
        }
    }

    /// Looks at all whose time has come.
    fn sweep_watched(&self, env: Env) {
        let now = self.awake();
        let mut due = Vec::with_capacity(BATCH);
        loop {
            let more = lock(&self.wheel).expire(now, BATCH, &mut due);
            for id in due.drain(..) {
                if let Some(conn) = self.get(id) {
                    hold(&conn, env).look(now);
                }
            }
            if !more {
                return;
            }
        }
    }

    /// At least a second has passed since the last time, and counts for one: what begins between
    /// two of these is so never over too early. A receiver that came late has read nothing
    /// meanwhile either.
    pub fn tick(&self, env: Env, parked: bool) {
        self.clock.fetch_add(1, Ordering::Relaxed);
        self.sweep_lingering(env);
        if !parked {
            self.awake.fetch_add(1, Ordering::Relaxed);
            self.sweep_watched(env);
            self.sweep_idle(env);
            self.acknowledge(env, Machine::ack_tick);
        }
    }

    /// Says how much has come, if `due` says so.
    pub fn acknowledge(&self, env: Env, due: fn(&mut Machine) -> Option<Control>) {
        let ack = due(&mut self.machine());
        if let Some(ack) = ack {
            self.outbox.push_urgent(env, &ack);
        }
    }

    /// Whether more waits to be written than may.
    pub fn is_swamped(&self) -> bool {
        self.outbox.queued() > ALL_MAX
    }

    /// Ends a batch of connections for `reason`; `true` when there are more. Called when the link
    /// is lost, until it says no.
    pub fn end_some(&self, env: Env, reason: CloseReason) -> bool {
        let batch: Vec<_> = {
            let table = self.table();
            let some = table.iter().take(BATCH);
            some.map(|(_, conn)| conn.clone()).collect()
        };
        for conn in &batch {
            hold(conn, env).peer_closed(reason);
        }
        // Nobody else serves the deferred ones any more.
        let more = !batch.is_empty() || self.serve_ready(env);
        if !more {
            self.let_go();
        }
        more
    }

    /// Forgets the connections that wait for something which will not be: they hold the link, and
    /// it would hold them.
    fn let_go(&self) {
        while self.news.pop().is_some() {}
        while self.stalled.pop().is_some() {}
        // Dropped outside the lock: the last reference frees the connection.
        let lingering = std::mem::take(&mut *lock(&self.lingering));
        drop(lingering);
    }
}

/// When a version 1 connection heard in a second has been silent for so many: in the one after,
/// as the second had not ended.
fn idle_at(heard: u32, timeout: u32) -> u32 {
    heard.saturating_add(timeout).saturating_add(1)
}
