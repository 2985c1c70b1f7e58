//! When connections are to be looked at again: a timing wheel, in whole seconds.
//!
//! A million idle connections each wait for something, a ping or an end. Each has one entry of 16
//! bytes here and a [`Watch`] of 8 of its own, and costs nothing until its second comes. Times that
//! move on with every byte are not followed: an entry stays where it is, and whoever is looked at
//! too early says when to look again.
//!
//! ```text
//!              now   now + 1 .. now + 511
//!   slots  ─── [ ]    [•]  [ ]  [•] ...        a list of entries each
//!                      │         └─► id ◄─► id
//!                      └─► id
//! ```

use crate::frame::ConnectionId;

/// Seconds that a wheel reaches ahead. Who waits longer is looked at in between: for nothing, and
/// seldom.
pub const SLOTS: u32 = 512;

/// Entries in one piece of memory (16 kB): growing by pieces never moves the others.
const PIECE: u32 = 1024;

/// No entry.
const NIL: u32 = u32::MAX;

/// Set in `prev` of a list's first entry, the others bits being its slot.
const SLOT: u32 = 1 << 31;

/// One connection in a slot's list, or a free place.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Whose; [`ConnectionId::CONTROL`], which no connection has, in a free place.
    id: ConnectionId,
    next: u32,
    prev: u32,
}

const FREE: Entry = Entry {
    id: ConnectionId::CONTROL,
    next: NIL,
    prev: NIL,
};

/// A connection's hold on its entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    key: u32,
    due: u32,
}

impl Default for Watch {
    fn default() -> Self {
        Watch { key: NIL, due: 0 }
    }
}

impl Watch {
    /// Whether a look no later than `due` is coming, so that there is nothing to do.
    #[inline]
    pub fn covers(&self, due: u32) -> bool {
        self.key != NIL && self.due <= due
    }

    /// Whether a look is coming.
    pub fn is_set(&self) -> bool {
        self.key != NIL
    }

    /// To be called for an id that [`Wheel::expire`] gave: `true` when its time has come indeed.
    /// It is not any more when the connection was watched anew in between.
    pub fn fired(&mut self, now: u32) -> bool {
        let fired = self.key != NIL && self.due <= now;
        if fired {
            self.key = NIL;
        }
        fired
    }
}

/// Who is to be looked at, by second.
#[derive(Debug)]
pub struct Wheel {
    /// The first entry of each slot's list.
    slots: Box<[u32]>,
    pieces: Vec<Box<[Entry]>>,
    /// Places that were never used begin here.
    fresh: u32,
    /// The first of the places that were freed.
    free: u32,
    len: usize,
    /// The second up to which all was given out.
    done: u32,
    /// The second up to which all is being given out.
    now: u32,
}

impl Default for Wheel {
    fn default() -> Self {
        Wheel {
            slots: vec![NIL; SLOTS as usize].into(),
            pieces: Vec::new(),
            fresh: 0,
            free: NIL,
            len: 0,
            done: 0,
            now: 0,
        }
    }
}

impl Wheel {
    /// An empty wheel at second 0.
    pub fn new() -> Self {
        Wheel::default()
    }

    /// How many are watched.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Is nobody watched?
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Has `id` looked at in second `due`, and no later: an earlier look that is coming stays, a
    /// later one moves. A second that is over or too far ahead becomes the nearest there is. O(1).
    pub fn watch(&mut self, watch: &mut Watch, id: ConnectionId, due: u32) {
        if watch.covers(due) {
            return;
        }
        let due = due.clamp(self.now + 1, self.done + SLOTS - 1);
        if self.holds(watch.key, id) {
            self.unlink(watch.key);
        } else {
            watch.key = self.place();
        }
        watch.due = due;
        self.link(watch.key, id, due % SLOTS);
    }

    /// `id` needs no look any more. O(1).
    pub fn unwatch(&mut self, watch: &mut Watch, id: ConnectionId) {
        if self.holds(watch.key, id) {
            self.unlink(watch.key);
            self.give_up(watch.key);
        }
        watch.key = NIL;
    }

    /// Takes out up to `most` of those that are due at `now`. `true`: there are more.
    pub fn expire(&mut self, now: u32, most: usize, due: &mut Vec<ConnectionId>) -> bool {
        self.now = now.max(self.now);
        if self.is_empty() {
            self.done = self.now;
        }
        // Nothing is farther ahead than one turn.
        self.done = self.done.max(self.now.saturating_sub(SLOTS));
        let mut left = most;
        while self.done < self.now {
            let slot = (self.done + 1) % SLOTS;
            loop {
                let key = self.slots[slot as usize];
                if key == NIL {
                    break;
                }
                if left == 0 {
                    return true;
                }
                left -= 1;
                due.push(self.entry(key).id);
                self.unlink(key);
                self.give_up(key);
            }
            self.done += 1;
        }
        false
    }

    /// An entry that was given out may be another connection's by now, or nobody's.
    fn holds(&mut self, key: u32, id: ConnectionId) -> bool {
        key < self.fresh && self.entry(key).id == id
    }

    fn entry(&mut self, key: u32) -> &mut Entry {
        &mut self.pieces[(key / PIECE) as usize][(key % PIECE) as usize]
    }

    fn place(&mut self) -> u32 {
        self.len += 1;
        if self.free != NIL {
            let key = self.free;
            self.free = self.entry(key).next;
            return key;
        }
        let key = self.fresh;
        // A key has 31 bits; that many connections there are not.
        self.fresh += 1;
        if (key / PIECE) as usize == self.pieces.len() {
            self.pieces.push(vec![FREE; PIECE as usize].into());
        }
        key
    }

    fn give_up(&mut self, key: u32) {
        let next = self.free;
        *self.entry(key) = Entry { next, ..FREE };
        self.free = key;
        self.len -= 1;
        if self.len == 0 {
            // All but one piece of memory is given back.
            self.pieces.truncate(1);
            (self.fresh, self.free) = (0, NIL);
        }
    }

    fn link(&mut self, key: u32, id: ConnectionId, slot: u32) {
        let next = std::mem::replace(&mut self.slots[slot as usize], key);
        let prev = SLOT | slot;
        *self.entry(key) = Entry { id, next, prev };
        if next != NIL {
            self.entry(next).prev = key;
        }
    }

    fn unlink(&mut self, key: u32) {
        let Entry { next, prev, .. } = *self.entry(key);
        if prev & SLOT != 0 {
            self.slots[(prev & !SLOT) as usize] = next;
        } else {
            self.entry(prev).next = next;
        }
        if next != NIL {
            self.entry(next).prev = prev;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn id(number: u64) -> ConnectionId {
        ConnectionId::new(number)
    }

    fn expired(wheel: &mut Wheel, now: u32) -> Vec<u64> {
        let mut due = Vec::new();
        while wheel.expire(now, 3, &mut due) {}
        let mut ids: Vec<_> = due.into_iter().map(ConnectionId::get).collect();
        ids.sort_unstable();
        ids
    }

    #[test]
    fn entries_are_small() {
        assert_eq!((size_of::<Entry>(), size_of::<Watch>()), (16, 8));
    }

    #[test]
    fn each_is_given_out_in_its_second_and_once() {
        let mut wheel = Wheel::new();
        let mut watches = [Watch::default(); 3];
        for (watch, (number, due)) in watches.iter_mut().zip([(1, 5), (2, 5), (3, 7)]) {
            wheel.watch(watch, id(number), due);
        }
        assert_eq!(expired(&mut wheel, 4), []);
        assert_eq!(expired(&mut wheel, 5), [1, 2]);
        assert!(watches[0].fired(5) && !watches[0].fired(5));
        assert_eq!(expired(&mut wheel, 6), []);
        assert_eq!(expired(&mut wheel, 100), [3]);
        assert!(wheel.is_empty());
    }

    #[test]
    fn an_earlier_look_stays_and_a_later_one_moves() {
        let (mut wheel, mut watch) = (Wheel::new(), Watch::default());
        wheel.watch(&mut watch, id(1), 10);
        wheel.watch(&mut watch, id(1), 20);
        assert!(watch.covers(10) && !watch.covers(9));
        wheel.watch(&mut watch, id(1), 5);
        assert_eq!(expired(&mut wheel, 5), [1]);
        assert_eq!(expired(&mut wheel, 600), []);
    }

    #[test]
    fn who_is_not_watched_any_more_is_not_given_out() {
        let (mut wheel, mut watch) = (Wheel::new(), Watch::default());
        wheel.watch(&mut watch, id(1), 10);
        wheel.unwatch(&mut watch, id(1));
        wheel.unwatch(&mut watch, id(1));
        assert!(wheel.is_empty() && !watch.is_set());
        assert_eq!(expired(&mut wheel, 600), []);
    }

    #[test]
    fn what_is_over_comes_next_and_what_is_too_far_comes_in_between() {
        let mut wheel = Wheel::new();
        expired(&mut wheel, 1000);
        let (mut past, mut far) = (Watch::default(), Watch::default());
        wheel.watch(&mut past, id(1), 3);
        wheel.watch(&mut far, id(2), u32::MAX);
        assert_eq!(expired(&mut wheel, 1001), [1]);
        assert_eq!(expired(&mut wheel, 1000 + SLOTS - 2), []);
        assert_eq!(expired(&mut wheel, 1000 + SLOTS - 1), [2]);
        assert!(far.fired(1000 + SLOTS - 1));
    }

    #[test]
    fn a_look_that_asks_for_the_next_one_at_once_gets_it_with_the_next_second() {
        let (mut wheel, mut watch) = (Wheel::new(), Watch::default());
        wheel.watch(&mut watch, id(1), 1);
        let mut due = Vec::new();
        assert!(!wheel.expire(5, 1, &mut due) && watch.fired(5));
        wheel.watch(&mut watch, id(1), 1);
        assert_eq!(expired(&mut wheel, 5), []);
        assert_eq!(expired(&mut wheel, 6), [1]);
    }

    /// Between `expire` and the look at it, a connection may be watched anew, and its old place
    /// may be another's.
    #[test]
    fn a_place_that_is_anothers_is_left_alone() {
        let mut wheel = Wheel::new();
        let (mut one, mut two) = (Watch::default(), Watch::default());
        wheel.watch(&mut one, id(1), 5);
        assert_eq!(expired(&mut wheel, 5), [1]);
        wheel.watch(&mut two, id(2), 9);
        assert_eq!(one.key, two.key);
        wheel.unwatch(&mut one.clone(), id(1));
        wheel.watch(&mut one, id(1), 4);
        assert_eq!(expired(&mut wheel, 6), [1]);
        assert_eq!(expired(&mut wheel, 9), [2]);
    }

    #[test]
    fn memory_is_used_again_and_given_back() {
        let mut wheel = Wheel::new();
        let mut watches = vec![Watch::default(); 3 * PIECE as usize];
        for _ in 0..10 {
            for (number, watch) in watches.iter_mut().enumerate() {
                wheel.watch(watch, id(number as u64 + 1), number as u32);
            }
            assert_eq!(wheel.pieces.len(), 3);
            for (number, watch) in watches.iter_mut().enumerate() {
                wheel.unwatch(watch, id(number as u64 + 1));
            }
            assert_eq!(wheel.pieces.len(), 1);
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Watch(u64, u32),
        Unwatch(u64),
        Pass(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (1u64..40, 0u32..700).prop_map(|(id, after)| Step::Watch(id, after)),
            1 => (1u64..40).prop_map(Step::Unwatch),
            3 => prop_oneof![9 => 0u32..20, 1 => 0u32..2000].prop_map(Step::Pass),
        ]
    }

    proptest! {
        #[test]
        fn gives_out_what_a_plain_map_would(steps in prop::collection::vec(step(), 1..200)) {
            let mut wheel = Wheel::new();
            let mut watches = vec![Watch::default(); 40];
            let mut model = BTreeMap::new();
            let mut now = 0;
            for step in steps {
                match step {
                    Step::Watch(number, after) => {
                        wheel.watch(&mut watches[number as usize], id(number), now + after);
                        let due = (now + after).clamp(now + 1, now + SLOTS - 1);
                        let filed = model.entry(number).or_insert(due);
                        *filed = due.min(*filed);
                    }
                    Step::Unwatch(number) => {
                        wheel.unwatch(&mut watches[number as usize], id(number));
                        model.remove(&number);
                    }
                    Step::Pass(seconds) => {
                        now += seconds;
                        let expected: Vec<u64> = model
                            .extract_if(.., |_, due| *due <= now)
                            .map(|(number, _)| number)
                            .collect();
                        let found = expired(&mut wheel, now);
                        for number in &found {
                            prop_assert!(watches[*number as usize].fired(now));
                        }
                        prop_assert_eq!(found, expected);
                    }
                }
                prop_assert_eq!(wheel.len(), model.len());
            }
        }
    }
}
