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

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use megaphone_proto::control::Control;
use megaphone_proto::frame::{ConnectionId, put_frame};
use megaphone_proto::limits::HEAD_LEN;
use tokio::sync::Notify;

use crate::connection::Connection;
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

/// Connections that wait for room and are called at a time, each time that
/// there is some: more than can have it where all have much to say, and as
/// few that not everybody is called for nothing.
const CALLED: usize = 16;

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

/// Room for one frame in the data lane: given back when it is dropped.
#[derive(Debug)]
pub struct Room<'a> {
    outbox: &'a Outbox,
    bytes: usize,
}

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
    filled: Notify,
    hits: Hits,
}

#[derive(Debug)]
struct Lanes {
    urgent: BytesMut,
    data: BytesMut,
    batch: Batch,
    /// Room that was given and not used yet, in bytes.
    reserved: usize,
    /// Who waits for room, first come first served.
    waiting: VecDeque<Arc<Connection>>,
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
            reserved: 0,
            waiting: VecDeque::new(),
            pongs: 0,
            pinged: false,
            ack: None,
            finished: false,
        };
        Self {
            lanes: Mutex::new(lanes),
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

    /// Room for a frame of `content` bytes, if there is some. Where there is
    /// not, or others wait for it, `waiter` waits too, and is told when to
    /// try again; not once the outbox is finished, which it is about to hear
    /// of by other means.
    pub fn room_or_wait(
        &self,
        content: u32,
        called: bool,
        waiter: impl FnOnce() -> Arc<Connection>,
    ) -> Option<Room<'_>> {
        let bytes = content as usize + HEAD_LEN;
        let mut lanes = lock(&self.lanes);
        let first = called || lanes.waiting.is_empty();
        if first && lanes.data.len() + lanes.reserved + bytes <= DATA_MAX {
            lanes.reserved += bytes;
            return Some(Room {
                outbox: self,
                bytes,
            });
        }
        self.hits.data.fetch_add(1, Relaxed);
        if !lanes.finished {
            lanes.waiting.push_back(waiter());
        }
        None
    }

    /// Whether a client that has more to say is to let others put theirs in:
    /// when they wait for room, or when it `had_much`. Then it waits behind
    /// them for its turn.
    pub fn others_come_first(
        &self,
        had_much: bool,
        waiter: impl FnOnce() -> Arc<Connection>,
    ) -> bool {
        let mut lanes = lock(&self.lanes);
        let waits = had_much || !lanes.waiting.is_empty();
        if waits && !lanes.finished {
            lanes.waiting.push_back(waiter());
            drop(lanes);
            // It may have been taken meanwhile what it said before.
            self.filled.notify_one();
        }
        waits
    }

    /// Puts a frame of content in, `content` being no longer than `room` was
    /// asked for.
    pub fn content(&self, id: ConnectionId, content: &[u8], mut room: Room<'_>) -> Batch {
        debug_assert!(content.len() + HEAD_LEN <= room.bytes);
        let mut lanes = lock(&self.lanes);
        lanes.reserved -= std::mem::take(&mut room.bytes);
        if !lanes.finished {
            put_frame(id, content, &mut lanes.data);
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
        let waiting = std::mem::take(&mut lock(&self.lanes).waiting);
        drop(waiting);
    }

    /// Waits until something is there, and takes it all. `None`: there will
    /// be nothing any more. Those who waited for room are told.
    ///
    /// Called by one task only. Dropped before it has returned, it has taken
    /// nothing.
    pub async fn take(&self) -> Option<Gathered> {
        loop {
            let (taken, called) = self.try_take();
            let waits = called.is_empty();
            for connection in called {
                connection.room_came();
            }
            match taken {
                Some(taken) => return taken,
                None if waits => self.filled.notified().await,
                // There is what they said, or others are called.
                None => {}
            }
        }
    }

    fn try_take(&self) -> (Option<Option<Gathered>>, Vec<Arc<Connection>>) {
        let mut lanes = lock(&self.lanes);
        if let Some(ack) = lanes.ack.take() {
            ack.put(&mut lanes.urgent);
        }
        let called = lanes.waiting.len().min(CALLED);
        let called = lanes.waiting.drain(..called).collect();
        if lanes.urgent.is_empty() && lanes.data.is_empty() {
            return (lanes.finished.then_some(None), called);
        }
        let gathered = Gathered {
            urgent: taken(&mut lanes.urgent),
            data: taken(&mut lanes.data),
        };
        lanes.batch = Batch(lanes.batch.0 + 1);
        lanes.pongs = 0;
        lanes.pinged = false;
        (Some(Some(gathered)), called)
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

impl Drop for Room<'_> {
    fn drop(&mut self) {
        if self.bytes > 0 {
            lock(&self.outbox.lanes).reserved -= self.bytes;
        }
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
    use crate::link::tests::{link, open};
    use std::time::Duration;
    use tokio::time::timeout;

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

    /// Room for content, for whoever does not wait for it.
    fn room(outbox: &Outbox, content: usize) -> Option<Room<'_>> {
        outbox.room_or_wait(content as u32, false, || open(&link(0)))
    }

    /// Puts content in, for which there is room.
    fn put(outbox: &Outbox, number: u64, content: &[u8]) -> Batch {
        outbox.content(id(number), content, room(outbox, content.len()).unwrap())
    }

    /// What one write would carry.
    fn written(outbox: &Outbox) -> Vec<u8> {
        match outbox.try_take().0 {
            Some(Some(gathered)) => [gathered.urgent, gathered.data].concat(),
            _ => Vec::new(),
        }
    }

    #[test]
    fn messages_overtake_content_but_not_that_of_their_own_connection() {
        let outbox = Outbox::new();
        let last = put(&outbox, 1, b"abc");
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

        put(&outbox, 3, b"later");
        outbox.end(id(1), last);
        assert_eq!(
            written(&outbox),
            [frame(1, b""), frame(3, b"later")].concat()
        );
    }

    #[test]
    fn content_waits_for_room_and_who_came_first_is_called_first() {
        let (outbox, link) = (Outbox::new(), link(0));
        put(&outbox, 1, &[7; DATA_MAX - HEAD_LEN]);
        let waiting: Vec<_> = (0..=CALLED).map(|_| open(&link)).collect();
        for waits in &waiting {
            assert!(outbox.room_or_wait(1, false, || waits.clone()).is_none());
        }
        let (taken, called) = outbox.try_take();
        assert_eq!(taken.flatten().unwrap().data.len(), DATA_MAX);
        let ids = |some: &[Arc<Connection>]| some.iter().map(|one| one.id()).collect::<Vec<_>>();
        assert_eq!(ids(&called), ids(&waiting[..CALLED]));

        // There is room, but one more came before: it is called even where
        // those before had nothing to say.
        assert!(
            outbox
                .room_or_wait(1, false, || waiting[0].clone())
                .is_none()
        );
        assert!(outbox.room_or_wait(1, true, || unreachable!()).is_some());
        let (taken, called) = outbox.try_take();
        assert!(taken.is_none());
        assert_eq!(
            ids(&called),
            ids(&[waiting[CALLED].clone(), waiting[0].clone()])
        );
    }

    #[tokio::test]
    async fn who_has_more_to_say_lets_others_have_their_turn() {
        let (outbox, link) = (Outbox::new(), link(0));
        let (one, two) = (open(&link), open(&link));
        let wants = |who: &Arc<Connection>, had_much: bool| {
            outbox.others_come_first(had_much, || Arc::clone(who))
        };
        assert!(!wants(&one, false));
        assert!(wants(&one, true));
        assert!(wants(&two, false));
        let ids = |called: Vec<Arc<Connection>>| called.iter().map(|one| one.id()).collect();
        let called: Vec<_> = ids(outbox.try_take().1);
        assert_eq!(called, [one.id(), two.id()]);

        // Whoever waits is called, also where nothing is there to be taken.
        assert!(wants(&one, true));
        let taken = timeout(Duration::from_millis(1), outbox.take()).await;
        assert!(taken.is_err());
        assert!(!wants(&two, false));
    }

    #[test]
    fn who_waits_for_room_is_let_go_at_the_end() {
        let (outbox, waits) = (Outbox::new(), open(&link(0)));
        put(&outbox, 1, &[7; DATA_MAX - HEAD_LEN]);
        let held = Arc::strong_count(&waits);
        for _ in 0..2 {
            assert!(outbox.room_or_wait(1, false, || waits.clone()).is_none());
            outbox.finish(None);
            assert_eq!(Arc::strong_count(&waits), held);
        }
    }

    #[test]
    fn room_that_was_not_used_is_given_back() {
        let outbox = Outbox::new();
        let reserved = || lock(&outbox.lanes).reserved;
        let room_for_much = room(&outbox, 1000).unwrap();
        assert_eq!(reserved(), HEAD_LEN + 1000);
        outbox.content(id(1), b"x", room_for_much);
        assert_eq!(reserved(), 0);
        drop(room(&outbox, 1000));
        assert_eq!(reserved(), 0);
        assert_eq!(written(&outbox).len(), HEAD_LEN + 1);
    }

    #[test]
    fn pongs_and_opens_have_a_bound() {
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

        let content = DATA_MAX - HEAD_LEN;
        assert!(room(&outbox, content).is_some());
        assert!(room(&outbox, content + 1).is_none());
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

    #[test]
    fn of_pings_and_acknowledgements_one_waits() {
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
        let last = put(&outbox, 1, b"abc");
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
