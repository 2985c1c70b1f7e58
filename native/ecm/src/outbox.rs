//! What waits to be written to one link.
//!
//! ```text
//!   open, window, ping, pong ────────────► urgent ─┐
//!   end, close, reset of a connection with         ├─► one write
//!     nothing in the data lane ──────────► urgent ─┤
//!   content; end, close, reset behind it ► data ───┘
//! ```
//!
//! The writer takes both lanes whole and writes the urgent one first, so
//! that no message waits for another connection's content. That keeps the
//! order of each connection for itself: its `open` is in before any of its
//! content, and whatever ends it goes the way its last content went, if that
//! is still there. A [`Batch`] is how a connection remembers.
//!
//! What bounds it: the data lane by [`DATA_MAX`]; the urgent lane by
//! [`URGENT_MAX`], beyond which no connection opens, and so by what the open
//! ones can still say (an end, a reset and two windows each); pongs by
//! [`PONGS_MAX`]. Of pings and acknowledgements one waits at a time. While
//! a link has no transport nothing is taken out, and these bounds hold too.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::{Bytes, BytesMut};
use megaphone_proto::control::Control;
use megaphone_proto::frame::{ConnectionId, put_frame};
use megaphone_proto::limits::HEAD_LEN;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

use crate::sync::lock;
use crate::tally::Limit;

/// Bytes of frames that the data lane holds. One write carries at most the
/// lane, and by then 128 KiB cost the kernel hardly more than 16.
pub const DATA_MAX: usize = 128 * 1024;

/// Bytes in the urgent lane beyond which no connection opens: some 8,000
/// opens that the link has not taken.
pub const URGENT_MAX: usize = 1024 * 1024;

/// Pongs that wait to be written. A peer that sends more pings than that
/// without taking the answers gets no answer to the rest.
const PONGS_MAX: u32 = 64;

/// Bytes of memory that a lane takes at a time. What was written of it is
/// kept until ejabberd has acknowledged it, so many small writes share one.
const LANE: usize = 16 * 1024;

/// One filling of the data lane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Batch(u64);

impl Batch {
    /// Before a connection's first content.
    pub const NONE: Self = Self(0);
}

/// Room for one frame in the data lane.
#[derive(Debug)]
pub struct Room<'a>(SemaphorePermit<'a>);

/// Both lanes as the writer takes them.
#[derive(Debug)]
pub struct Gathered {
    /// To be written first.
    pub urgent: Bytes,
    /// To be written second.
    pub data: Bytes,
}

/// What waits to be written to one link.
#[derive(Debug)]
pub struct Outbox {
    lanes: Mutex<Lanes>,
    room: Semaphore,
    filled: Notify,
    hits: Hits,
}

#[derive(Debug)]
struct Lanes {
    urgent: BytesMut,
    data: BytesMut,
    batch: Batch,
    /// What of the room the data lane uses.
    used: usize,
    pongs: u32,
    /// A ping waits to be written.
    pinged: bool,
    /// The acknowledgement that waits to be written: only the latest has
    /// something to say.
    ack: Option<Control>,
    finished: bool,
}

/// How often each bound was hit.
#[derive(Debug, Default)]
struct Hits {
    data: AtomicU64,
    urgent: AtomicU64,
    pongs: AtomicU64,
}

impl Outbox {
    /// An empty one.
    pub fn new() -> Self {
        let lanes = Lanes {
            urgent: BytesMut::with_capacity(LANE),
            data: BytesMut::with_capacity(LANE),
            batch: Batch(1),
            used: 0,
            pongs: 0,
            pinged: false,
            ack: None,
            finished: false,
        };
        Self {
            lanes: Mutex::new(lanes),
            room: Semaphore::new(DATA_MAX),
            filled: Notify::new(),
            hits: Hits::default(),
        }
    }

    /// Its bounds, how full they are and how often they were hit.
    pub fn limits(&self) -> [Limit; 3] {
        let lanes = lock(&self.lanes);
        [
            ("data", lanes.data.len(), DATA_MAX, &self.hits.data),
            ("urgent", lanes.urgent.len(), URGENT_MAX, &self.hits.urgent),
            (
                "pongs",
                lanes.pongs as usize,
                PONGS_MAX as usize,
                &self.hits.pongs,
            ),
        ]
        .map(|(name, now, max, hits)| Limit {
            name,
            now,
            max,
            hits: hits.load(Relaxed),
        })
    }

    /// Waits for room for a frame of `content` bytes, first come first
    /// served. Never returns once the outbox is finished: the caller is about
    /// to be told by other means.
    pub async fn room(&self, content: u32) -> Room<'_> {
        self.hits.data.fetch_add(1, Relaxed);
        match self.room.acquire_many(content + HEAD_LEN as u32).await {
            Ok(permit) => Room(permit),
            Err(_) => std::future::pending().await,
        }
    }

    /// Room for a frame of `content` bytes, if there is some and nobody waits
    /// for it.
    pub fn try_room(&self, content: u32) -> Option<Room<'_>> {
        let permit = self.room.try_acquire_many(content + HEAD_LEN as u32);
        permit.ok().map(Room)
    }

    /// Puts a frame of content in, `content` being no longer than `room` was
    /// asked for.
    pub fn content(&self, id: ConnectionId, content: &[u8], mut room: Room<'_>) -> Batch {
        let mut lanes = lock(&self.lanes);
        if !lanes.finished {
            put_frame(id, content, &mut lanes.data);
            let used = content.len() + HEAD_LEN;
            debug_assert!(used <= room.0.num_permits());
            if let Some(used) = room.0.split(used) {
                lanes.used += used.num_permits();
                used.forget();
            }
        }
        let batch = lanes.batch;
        drop(lanes);
        self.filled.notify_one();
        batch
    }

    /// Puts the empty frame in that ends `id`, whose last content was put
    /// into `last`.
    pub fn end(&self, id: ConnectionId, last: Batch) {
        self.put(|lanes| put_frame(id, &[], lanes.behind(last)));
    }

    /// Puts a message about a connection in whose last content was put into
    /// `last`, behind that.
    pub fn behind(&self, last: Batch, message: &Control) {
        self.put(|lanes| message.put(lanes.behind(last)));
    }

    /// Puts a message in that waits for no content.
    pub fn urgent(&self, message: &Control) {
        self.put(|lanes| message.put(&mut lanes.urgent));
    }

    /// Puts an `open` in. `false`: too much waits already.
    #[must_use]
    pub fn open(&self, message: &Control) -> bool {
        let fits = lock(&self.lanes).urgent.len() < URGENT_MAX;
        if fits {
            self.urgent(message);
        } else {
            self.hits.urgent.fetch_add(1, Relaxed);
        }
        fits
    }

    /// Puts the ping in that `ping` makes, unless one waits already.
    pub fn ping(&self, ping: impl FnOnce() -> Control) {
        self.put(|lanes| {
            if !std::mem::replace(&mut lanes.pinged, true) {
                ping().put(&mut lanes.urgent);
            }
        });
    }

    /// Puts an acknowledgement in, in place of one that waits.
    pub fn ack(&self, ack: Control) {
        self.put(|lanes| lanes.ack = Some(ack));
    }

    /// Answers a ping.
    pub fn pong(&self, word: String) {
        self.put(|lanes| {
            if lanes.pongs < PONGS_MAX {
                lanes.pongs += 1;
                Control::Pong { word }.put(&mut lanes.urgent);
            } else {
                self.hits.pongs.fetch_add(1, Relaxed);
            }
        });
    }

    /// Puts the last message in, if there is one. What is put in after that
    /// is dropped, and when all before is taken [`Outbox::take`] says so.
    pub fn finish(&self, last: Option<&Control>) {
        self.put(|lanes| {
            if let Some(message) = last {
                message.put(&mut lanes.data);
            }
            lanes.finished = true;
        });
        self.room.close();
    }

    /// Waits until something is there, and takes it all. `None`: there will
    /// be nothing any more.
    ///
    /// Called by one task only. Dropped before it has returned, it has taken
    /// nothing.
    pub async fn take(&self) -> Option<Gathered> {
        loop {
            if let Some(taken) = self.try_take() {
                return taken;
            }
            self.filled.notified().await;
        }
    }

    fn try_take(&self) -> Option<Option<Gathered>> {
        let mut lanes = lock(&self.lanes);
        if let Some(ack) = lanes.ack.take() {
            ack.put(&mut lanes.urgent);
        }
        if lanes.urgent.is_empty() && lanes.data.is_empty() {
            return lanes.finished.then_some(None);
        }
        let gathered = Gathered {
            urgent: taken(&mut lanes.urgent),
            data: taken(&mut lanes.data),
        };
        lanes.batch = Batch(lanes.batch.0 + 1);
        lanes.pongs = 0;
        lanes.pinged = false;
        let used = std::mem::take(&mut lanes.used);
        drop(lanes);
        self.room.add_permits(used);
        Some(Some(gathered))
    }

    fn put(&self, put: impl FnOnce(&mut Lanes)) {
        let mut lanes = lock(&self.lanes);
        if lanes.finished {
            return;
        }
        put(&mut lanes);
        drop(lanes);
        self.filled.notify_one();
    }
}

impl Lanes {
    /// The lane that comes behind content put into `last`.
    fn behind(&mut self, last: Batch) -> &mut BytesMut {
        if last == self.batch {
            &mut self.data
        } else {
            &mut self.urgent
        }
    }
}

/// Takes all of a lane out, and gives back memory that one flood of messages
/// took.
fn taken(lane: &mut BytesMut) -> Bytes {
    let taken = lane.split();
    if taken.len() > 2 * DATA_MAX {
        *lane = BytesMut::with_capacity(LANE);
    }
    taken.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::TryAcquireError;

    fn id(number: u64) -> ConnectionId {
        ConnectionId::new(number)
    }

    fn ping(word: &str) -> Control {
        Control::Ping {
            word: word.to_owned(),
        }
    }

    fn frame(number: u64, content: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        put_frame(id(number), content, &mut frame);
        frame
    }

    /// What one write would carry.
    fn written(outbox: &Outbox) -> Vec<u8> {
        match outbox.try_take() {
            Some(Some(gathered)) => [gathered.urgent, gathered.data].concat(),
            _ => Vec::new(),
        }
    }

    #[tokio::test]
    async fn messages_overtake_content_but_not_that_of_their_own_connection() {
        let outbox = Outbox::new();
        let last = outbox.content(id(1), b"abc", outbox.room(3).await);
        outbox.urgent(&ping("x"));
        outbox.end(id(2), Batch::NONE);
        outbox.end(id(1), last);
        let expected = [
            ping("x").to_frame(),
            frame(2, b""),
            frame(1, b"abc"),
            frame(1, b""),
        ]
        .concat();
        assert_eq!(written(&outbox), expected);

        outbox.content(id(3), b"later", outbox.room(5).await);
        outbox.end(id(1), last);
        assert_eq!(
            written(&outbox),
            [frame(1, b""), frame(3, b"later")].concat()
        );
    }

    #[tokio::test]
    async fn content_waits_for_room_and_taking_makes_it() {
        let outbox = Outbox::new();
        let content = vec![7; DATA_MAX - HEAD_LEN];
        outbox.content(id(1), &content, outbox.room(content.len() as u32).await);
        assert!(matches!(
            outbox.room.try_acquire(),
            Err(TryAcquireError::NoPermits)
        ));
        assert_eq!(written(&outbox).len(), DATA_MAX);
        assert_eq!(outbox.room.available_permits(), DATA_MAX);
    }

    #[tokio::test]
    async fn room_that_was_not_used_is_given_back() {
        let outbox = Outbox::new();
        outbox.content(id(1), b"x", outbox.room(1000).await);
        assert_eq!(outbox.room.available_permits(), DATA_MAX - HEAD_LEN - 1);
        drop(outbox.room(1000).await);
        written(&outbox);
        assert_eq!(outbox.room.available_permits(), DATA_MAX);
    }

    #[tokio::test]
    async fn pongs_and_opens_have_a_bound() {
        let outbox = Outbox::new();
        for _ in 0..PONGS_MAX + 10 {
            outbox.pong("x".to_owned());
        }
        let pong = Control::Pong {
            word: "x".to_owned(),
        }
        .to_frame();
        assert_eq!(written(&outbox).len(), pong.len() * PONGS_MAX as usize);

        let mut opened = 0;
        while outbox.open(&ping("stands-for-an-open")) {
            opened += 1;
        }
        let open = ping("stands-for-an-open").to_frame().len();
        assert_eq!(opened, URGENT_MAX.div_ceil(open));

        let content = DATA_MAX as u32 - HEAD_LEN as u32;
        assert!(outbox.try_room(content).is_some());
        drop(outbox.room(content).await);
        let limits = outbox.limits().map(|limit| limit.to_string());
        let waiting = opened * open;
        assert_eq!(
            limits,
            [
                format!("data=0/{DATA_MAX}:1"),
                format!("urgent={waiting}/{URGENT_MAX}:1"),
                format!("pongs=0/{PONGS_MAX}:10"),
            ]
        );
    }

    #[tokio::test]
    async fn of_pings_and_acknowledgements_one_waits() {
        let outbox = Outbox::new();
        for bytes in 1..=3 {
            outbox.ack(Control::Ack { bytes });
            outbox.ping(|| ping(&bytes.to_string()));
        }
        let ack = Control::Ack { bytes: 3 }.to_frame();
        assert_eq!(written(&outbox), [ping("1").to_frame(), ack].concat());
        outbox.ping(|| ping("4"));
        assert_eq!(written(&outbox), ping("4").to_frame());
    }

    #[tokio::test]
    async fn the_last_message_is_the_last() {
        let outbox = Outbox::new();
        let last = outbox.content(id(1), b"abc", outbox.room(3).await);
        outbox.finish(Some(&ping("bye")));
        outbox.urgent(&ping("late"));
        outbox.end(id(1), last);
        let gathered = outbox.take().await.unwrap();
        assert_eq!(
            [gathered.urgent, gathered.data].concat(),
            [frame(1, b"abc"), ping("bye").to_frame()].concat()
        );
        assert!(outbox.take().await.is_none());
    }
}
