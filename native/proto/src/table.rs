//! Which connections are open on a link, and, for version 1, which were closed a moment ago.

use std::collections::VecDeque;
use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::hash_table::Entry;
use hashbrown::{HashMap, HashTable};
use thiserror::Error;

use crate::frame::ConnectionId;
use crate::limits::TOMBSTONES_MAX;

/// Parts that a table grows in, a power of two. A hash table of a million entries takes tens of
/// milliseconds to double, in which a scheduler of the BEAM would stand still; one of its
/// hundredth parts does not.
const SHARDS: usize = 256;

/// Connections by id, at most a given number of them.
///
/// The ids are the peer's choice, so they are hashed with a seed that it cannot know, a fresh
/// one for each table.
#[derive(Debug)]
pub struct Table<C> {
    shards: Box<[HashTable<(ConnectionId, C)>]>,
    hasher: RandomState,
    len: usize,
    limit: usize,
    tombstones: Tombstones,
}

impl<C> Table<C> {
    /// An empty table for at most `limit` connections. Allocates nothing for them yet.
    pub fn new(limit: usize) -> Self {
        Table {
            shards: shards(),
            hasher: RandomState::default(),
            len: 0,
            limit,
            tombstones: Tombstones::default(),
        }
    }

    /// How many connections are open.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Is no connection open?
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many connections may be open.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Could `id` be opened now?
    ///
    /// # Errors
    /// As [`Table::open`].
    pub fn may_open(&self, id: ConnectionId) -> Result<(), OpenError> {
        if self.get(&id).is_some() {
            Err(OpenError::Duplicate)
        } else if self.tombstones.holds(id) {
            Err(OpenError::Buried)
        } else if self.len >= self.limit {
            Err(OpenError::Full { limit: self.limit })
        } else {
            Ok(())
        }
    }

    /// Adds a connection.
    ///
    /// # Errors
    /// The id is in use, is buried, or there is no room; the table is unchanged then.
    pub fn open(&mut self, id: ConnectionId, conn: C) -> Result<(), OpenError> {
        self.may_open(id)?;
        let hash = self.hasher.hash_one(id);
        let hasher = &self.hasher;
        self.shards[shard(hash)].insert_unique(hash, (id, conn), |(id, _)| hasher.hash_one(id));
        self.len += 1;
        Ok(())
    }

    /// The connection with this id, if it is open.
    #[inline]
    pub fn get(&self, id: &ConnectionId) -> Option<&C> {
        let hash = self.hasher.hash_one(id);
        let found = self.shards[shard(hash)].find(hash, |(other, _)| other == id);
        found.map(|(_, conn)| conn)
    }

    /// Where [`Table::get`] will look for `id` first, to ask for that memory ahead. Only the
    /// table's index is read for it, which is small enough for a cache.
    #[inline]
    pub fn place(&self, id: &ConnectionId) -> Option<*const (ConnectionId, C)> {
        let hash = self.hasher.hash_one(id);
        let first = self.shards[shard(hash)].find(hash, |_| true);
        first.map(std::ptr::from_ref)
    }

    /// As [`Table::get`], to change it.
    #[inline]
    pub fn get_mut(&mut self, id: &ConnectionId) -> Option<&mut C> {
        let hash = self.hasher.hash_one(id);
        let found = self.shards[shard(hash)].find_mut(hash, |(other, _)| other == id);
        found.map(|(_, conn)| conn)
    }

    /// Takes a connection out.
    pub fn remove(&mut self, id: ConnectionId) -> Option<C> {
        let hash = self.hasher.hash_one(id);
        let hasher = &self.hasher;
        let entry = self.shards[shard(hash)].entry(
            hash,
            |(other, _)| *other == id,
            |(id, _)| hasher.hash_one(id),
        );
        match entry {
            Entry::Occupied(found) => {
                self.len -= 1;
                Some(found.remove().0.1)
            }
            Entry::Vacant(_) => None,
        }
    }

    /// All open connections, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (ConnectionId, &C)> {
        let all = self.shards.iter().flat_map(HashTable::iter);
        all.map(|(id, conn)| (*id, conn))
    }

    /// Takes all open connections out, in no order, and forgets the buried ids. The table is
    /// empty at once, however many of them are looked at.
    pub fn drain(&mut self) -> impl Iterator<Item = (ConnectionId, C)> + use<C> {
        self.len = 0;
        self.tombstones = Tombstones::default();
        let all = std::mem::replace(&mut self.shards, shards());
        all.into_vec().into_iter().flatten()
    }

    /// Version 1: this side closed `id` and the peer has not ended its half yet. Until it does,
    /// the id cannot be opened. At most [`TOMBSTONES_MAX`] are remembered, the oldest is then
    /// forgotten.
    pub fn bury(&mut self, id: ConnectionId) {
        self.tombstones.add(id);
    }

    /// Version 1: is `id` buried, so that its content is to be dropped?
    pub fn is_buried(&self, id: ConnectionId) -> bool {
        self.tombstones.holds(id)
    }

    /// Version 1: the peer ended its half of `id`, which may be opened anew. Says whether it was
    /// buried.
    pub fn unbury(&mut self, id: ConnectionId) -> bool {
        self.tombstones.remove(id)
    }
}

fn shards<C>() -> Box<[HashTable<(ConnectionId, C)>]> {
    (0..SHARDS).map(|_| HashTable::new()).collect()
}

/// All bits of the hash once more, for with some seeds of the quick hash no eight of them spread
/// ids that follow each other. The shards' own tables use the lowest for the place and the highest
/// seven for the tag.
#[inline]
fn shard(hash: u64) -> usize {
    // 2⁶⁴ divided by the golden ratio, as in Fibonacci hashing.
    ((hash ^ hash >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as usize % SHARDS
}

/// The buried ids, oldest first.
#[derive(Debug, Default)]
struct Tombstones {
    /// When each was buried, by `next`.
    buried: HashMap<ConnectionId, u64, RandomState>,
    /// The same in order, with what was unburied meanwhile still between.
    order: VecDeque<(ConnectionId, u64)>,
    next: u64,
}

impl Tombstones {
    fn holds(&self, id: ConnectionId) -> bool {
        !self.buried.is_empty() && self.buried.contains_key(&id)
    }

    fn add(&mut self, id: ConnectionId) {
        self.next += 1;
        self.buried.insert(id, self.next);
        self.order.push_back((id, self.next));
        while self.buried.len() > TOMBSTONES_MAX {
            if let Some((oldest, when)) = self.order.pop_front()
                && self.buried.get(&oldest) == Some(&when)
            {
                self.buried.remove(&oldest);
            }
        }
        // What was unburied stays in `order` until here, so that both stay bounded.
        if self.order.len() >= 2 * TOMBSTONES_MAX {
            let buried = &self.buried;
            self.order.retain(|(id, when)| buried.get(id) == Some(when));
        }
    }

    fn remove(&mut self, id: ConnectionId) -> bool {
        self.buried.remove(&id).is_some()
    }
}

/// Why a connection cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OpenError {
    /// A connection of this id is open: reset it, for nobody can tell whose bytes come next.
    #[error("the connection is open already")]
    Duplicate,
    /// Version 1: this side closed it and the peer did not yet end it. What comes is dropped.
    #[error("the connection was closed and its other half has not ended")]
    Buried,
    /// There is no room: refuse this connection with `limit`, the link goes on.
    #[error("{limit} connections are open, which is the limit")]
    Full {
        /// The table's limit.
        limit: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> ConnectionId {
        ConnectionId::new(number)
    }

    #[test]
    fn what_is_opened_is_found_until_it_is_removed() {
        let mut table = Table::new(10);
        assert_eq!(table.open(id(7), "seven"), Ok(()));
        assert_eq!(table.open(id(u64::MAX), "last"), Ok(()));
        assert_eq!(table.get(&id(7)), Some(&"seven"));
        if let Some(conn) = table.get_mut(&id(7)) {
            *conn = "sieben";
        }
        assert_eq!(table.remove(id(7)), Some("sieben"));
        assert_eq!(table.remove(id(7)), None);
        assert_eq!(table.get(&id(7)), None);
        assert_eq!((table.len(), table.is_empty()), (1, false));
        assert_eq!(table.drain().collect::<Vec<_>>(), [(id(u64::MAX), "last")]);
        assert!(table.is_empty());
    }

    #[test]
    fn a_place_is_where_the_connection_is_found() {
        let mut table = Table::new(2);
        assert_eq!(table.place(&id(7)), None);
        table.open(id(7), "seven").unwrap();
        let place = table.place(&id(7)).unwrap().addr();
        let found = std::ptr::from_ref(table.get(&id(7)).unwrap()).addr();
        assert!((place..place + size_of::<(ConnectionId, &str)>()).contains(&found));
    }

    #[test]
    fn a_duplicate_is_refused_and_the_first_stays() {
        let mut table = Table::new(10);
        table.open(id(7), 1).unwrap();
        assert_eq!(table.open(id(7), 2), Err(OpenError::Duplicate));
        assert_eq!(table.get(&id(7)), Some(&1));
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn the_limit_holds_and_one_more_does_not() {
        let mut table = Table::new(2);
        table.open(id(1), ()).unwrap();
        table.open(id(2), ()).unwrap();
        let error = table.open(id(3), ()).unwrap_err();
        assert_eq!(error, OpenError::Full { limit: 2 });
        assert_eq!(
            error.to_string(),
            "2 connections are open, which is the limit"
        );
        table.remove(id(1));
        assert_eq!(table.open(id(3), ()), Ok(()));
    }

    #[test]
    fn many_come_and_go() {
        let mut table = Table::new(100_000);
        for number in 0..100_000 {
            table.open(id(number), number).unwrap();
        }
        assert_eq!(table.iter().map(|(_, n)| n).sum::<u64>(), 4_999_950_000);
        for number in 0..100_000 {
            assert_eq!(table.remove(id(number)), Some(number));
        }
        assert!(table.is_empty());
        assert_eq!(table.iter().count(), 0);
    }

    #[test]
    fn ids_of_any_pattern_spread_over_the_shards() {
        for step in [1, 256, 1 << 32, 1 << 56] {
            let mut table = Table::new(usize::MAX);
            for number in 0..64 * SHARDS as u64 {
                table
                    .open(id(number.wrapping_mul(step) + number / 256), ())
                    .unwrap();
            }
            let fullest = table.shards.iter().map(HashTable::len).max();
            assert!(fullest < Some(2 * 64), "{fullest:?} at steps of {step}");
        }
    }

    #[test]
    fn a_drained_table_is_empty_whether_or_not_anyone_looked() {
        let mut table = Table::new(10);
        table.open(id(1), ()).unwrap();
        table.open(id(2), ()).unwrap();
        table.bury(id(3));
        assert!(table.drain().next().is_some());
        assert_eq!((table.len(), table.iter().count()), (0, 0));
        assert!(!table.is_buried(id(3)));
    }

    #[test]
    fn a_buried_id_cannot_be_opened_until_its_other_half_ends() {
        let mut table = Table::new(10);
        table.bury(id(7));
        assert!(table.is_buried(id(7)));
        assert_eq!(table.open(id(7), ()), Err(OpenError::Buried));
        assert!(table.unbury(id(7)));
        assert!(!table.unbury(id(7)));
        assert_eq!(table.open(id(7), ()), Ok(()));
    }

    #[test]
    fn the_oldest_tombstone_is_forgotten_at_the_limit() {
        let mut table: Table<()> = Table::new(10);
        let max = TOMBSTONES_MAX as u64;
        for number in 1..=max {
            table.bury(id(number));
        }
        assert!(table.is_buried(id(1)));
        table.bury(id(max + 1));
        assert!(!table.is_buried(id(1)));
        assert!(table.is_buried(id(2)) && table.is_buried(id(max + 1)));
    }

    #[test]
    fn an_id_buried_anew_counts_from_then() {
        let mut table: Table<()> = Table::new(10);
        let max = TOMBSTONES_MAX as u64;
        table.bury(id(1));
        table.bury(id(2));
        table.unbury(id(1));
        table.bury(id(1));
        for number in 3..=max + 1 {
            table.bury(id(number));
        }
        assert!(table.is_buried(id(1)) && !table.is_buried(id(2)));
    }

    #[test]
    fn burying_and_unburying_for_ever_takes_no_memory() {
        let mut stones = Tombstones::default();
        stones.add(id(0));
        for number in 1..10 * TOMBSTONES_MAX as u64 {
            stones.add(id(number));
            stones.remove(id(number));
        }
        assert!(stones.holds(id(0)));
        assert!(stones.order.len() <= 2 * TOMBSTONES_MAX);
    }
}
