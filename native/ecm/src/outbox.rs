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
//! ones can still say (an end, a reset and two windows each).

use std::sync::Mutex;

use megaphone_proto::control::Control;
use megaphone_proto::frame::{ConnectionId, put_frame};
use megaphone_proto::limits::HEAD_LEN;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

use crate::sync::lock;

/// Bytes of frames that the data lane holds. One write carries at most the
/// lane, and by then 128 KiB cost the kernel hardly more than 16.
pub const DATA_MAX: usize = 128 * 1024;

/// Bytes in the urgent lane beyond which no connection opens: some 8,000
/// opens that the link has not taken.
pub const URGENT_MAX: usize = 1024 * 1024;

/// Pongs that wait to be written. A peer that sends more pings than that
/// without taking the answers gets no answer to the rest.
const PONGS_MAX: u32 = 64;

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

/// Both lanes as the writer takes them. Keeps its memory from one time to
/// the next.
#[derive(Debug, Default)]
pub struct Gathered {
    /// To be written first.
    pub urgent: Vec<u8>,
    /// To be written second.
    pub data: Vec<u8>,
}

/// What waits to be written to one link.
#[derive(Debug)]
pub struct Outbox {
    lanes: Mutex<Lanes>,
    room: Semaphore,
    filled: Notify,
}

#[derive(Debug)]
struct Lanes {
    urgent: Vec<u8>,
    data: Vec<u8>,
    batch: Batch,
    /// What of the room the data lane uses.
    used: usize,
    pongs: u32,
    finished: bool,
}

impl Outbox {
    /// An empty one.
    pub fn new() -> Self {
        let lanes = Lanes {
            urgent: Vec::new(),
            data: Vec::new(),
            batch: Batch(1),
            used: 0,
            pongs: 0,
            finished: false,
        };
        Self {
            lanes: Mutex::new(lanes),
            room: Semaphore::new(DATA_MAX),
            filled: Notify::new(),
        }
    }

    /// Waits for room for a frame of `content` bytes, first come first
    /// served. Never returns once the outbox is finished: the caller is about
    /// to be told by other means.
    pub async fn room(&self, content: u32) -> Room<'_> {
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
        }
        fits
    }

    /// Answers a ping.
    pub fn pong(&self, word: String) {
        self.put(|lanes| {
            if lanes.pongs < PONGS_MAX {
                lanes.pongs += 1;
                Control::Pong { word }.put(&mut lanes.urgent);
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

    /// Waits until something is there, and takes it all into `gathered`,
    /// which must be empty. `false`: there will be nothing any more.
    ///
    /// Called by one task only.
    pub async fn take(&self, gathered: &mut Gathered) -> bool {
        loop {
            if let Some(more) = self.try_take(gathered) {
                return more;
            }
            self.filled.notified().await;
        }
    }

    fn try_take(&self, gathered: &mut Gathered) -> Option<bool> {
        let mut lanes = lock(&self.lanes);
        if lanes.urgent.is_empty() && lanes.data.is_empty() {
            return lanes.finished.then_some(false);
        }
        std::mem::swap(&mut lanes.urgent, &mut gathered.urgent);
        std::mem::swap(&mut lanes.data, &mut gathered.data);
        lanes.batch = Batch(lanes.batch.0 + 1);
        lanes.pongs = 0;
        let used = std::mem::take(&mut lanes.used);
        drop(lanes);
        self.room.add_permits(used);
        Some(true)
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
    fn behind(&mut self, last: Batch) -> &mut Vec<u8> {
        if last == self.batch {
            &mut self.data
        } else {
            &mut self.urgent
        }
    }
}

impl Gathered {
    /// Empties both, and gives back memory that one flood of messages took.
    pub fn clear(&mut self) {
        for lane in [&mut self.urgent, &mut self.data] {
            lane.clear();
            lane.shrink_to(2 * DATA_MAX);
        }
    }
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
        let mut gathered = Gathered::default();
        outbox.try_take(&mut gathered);
        [gathered.urgent, gathered.data].concat()
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
    }

    #[tokio::test]
    async fn the_last_message_is_the_last() {
        let outbox = Outbox::new();
        let last = outbox.content(id(1), b"abc", outbox.room(3).await);
        outbox.finish(Some(&ping("bye")));
        outbox.urgent(&ping("late"));
        outbox.end(id(1), last);
        let mut gathered = Gathered::default();
        assert!(outbox.take(&mut gathered).await);
        assert_eq!(
            [gathered.urgent, gathered.data].concat(),
            [frame(1, b"abc"), ping("bye").to_frame()].concat()
        );
        assert!(!outbox.take(&mut Gathered::default()).await);
    }
}
