//! What a chunk brings, gathered by connection: each is looked up, locked and served once,
//! however many frames it has.

use megaphone_proto::frame::ConnectionId;

/// Connections gathered at a time: each may wake a process, at about a microsecond.
const GROUPS_MAX: usize = 256;
/// Places to look for them at, a power of two; twice as many, so that a search seldom goes on.
const PLACES: usize = 2 * GROUPS_MAX;

/// Stands for "no further part".
const NONE: u32 = u32::MAX;

/// The parts of a chunk for each connection.
pub struct Gathered<'a> {
    groups: Vec<Group>,
    parts: Vec<Part<'a>>,
    /// The number of a group, from 1; 0 where there is none.
    places: [u16; PLACES],
}

/// What one connection gets.
#[derive(Clone, Copy)]
pub struct Group {
    /// The connection.
    pub id: ConnectionId,
    /// Bytes in all. A chunk is never as long as 4 GiB.
    pub bytes: u32,
    /// Of the parts.
    first: u32,
    last: u32,
}

struct Part<'a> {
    bytes: &'a [u8],
    next: u32,
}

impl<'a> Gathered<'a> {
    /// Nothing.
    pub fn new() -> Self {
        Gathered {
            groups: Vec::new(),
            parts: Vec::new(),
            places: [0; PLACES],
        }
    }

    /// Whether there may be no further connection.
    pub fn is_full(&self) -> bool {
        self.groups.len() == GROUPS_MAX
    }

    /// Adds what is for `id`, if not [`Gathered::is_full`].
    #[inline]
    pub fn add(&mut self, id: ConnectionId, bytes: &'a [u8]) {
        let at = self.parts.len() as u32;
        self.parts.push(Part { bytes, next: NONE });
        let group = self.group(id);
        group.bytes += bytes.len() as u32;
        let before = std::mem::replace(&mut group.last, at);
        if before == NONE {
            group.first = at;
        } else {
            self.parts[before as usize].next = at;
        }
    }

    /// Takes out what is for one connection, because something else comes next for it.
    pub fn take(&mut self, id: ConnectionId) -> Option<Group> {
        if self.groups.is_empty() {
            return None;
        }
        let number = self.places[self.place(id)];
        let group = self.groups.get_mut(usize::from(number).wrapping_sub(1))?;
        let taken = std::mem::replace(group, Group::empty(id));
        (!taken.is_empty()).then_some(taken)
    }

    /// All of them, in the order in which they came first; what was taken out is empty.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The parts of a group, in their order.
    pub fn parts(&self, group: &Group) -> Parts<'_, 'a> {
        Parts {
            parts: &self.parts,
            next: group.first,
        }
    }

    #[inline]
    fn group(&mut self, id: ConnectionId) -> &mut Group {
        // Whoever sends much has many frames in a row.
        let last = self.groups.len().wrapping_sub(1);
        if self.groups.get(last).is_some_and(|last| last.id == id) {
            return &mut self.groups[last];
        }
        let place = self.place(id);
        if self.places[place] == 0 {
            self.groups.push(Group::empty(id));
            // At most `GROUPS_MAX`.
            self.places[place] = self.groups.len() as u16;
        }
        &mut self.groups[usize::from(self.places[place]) - 1]
    }

    /// Where `id` is, or would be. The ids are the peer's choice: at worst that is a look at each
    /// group.
    #[inline]
    fn place(&self, id: ConnectionId) -> usize {
        // 2⁶⁴ divided by the golden ratio, as in Fibonacci hashing.
        let hash = id.get().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let mut place = hash as usize % PLACES;
        loop {
            let number = usize::from(self.places[place]);
            if number == 0 || self.groups[number - 1].id == id {
                return place;
            }
            place = (place + 1) % PLACES;
        }
    }
}

impl Group {
    /// Whether it was taken out.
    pub fn is_empty(&self) -> bool {
        self.first == NONE
    }

    fn empty(id: ConnectionId) -> Self {
        Group {
            id,
            bytes: 0,
            first: NONE,
            last: NONE,
        }
    }
}

/// Parts of a chunk that follow each other on one connection.
#[derive(Clone)]
pub struct Parts<'g, 'a> {
    parts: &'g [Part<'a>],
    next: u32,
}

impl<'a> Iterator for Parts<'_, 'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        // `NONE` is beyond the end of any.
        let part = self.parts.get(self.next as usize)?;
        self.next = part.next;
        Some(part.bytes)
    }
}
