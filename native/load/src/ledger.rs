//! Who has sent what to whom, and what has become of it: tells whole, lost, doubled, disordered,
//! damaged and misdelivered messages apart, exactly.
//!
//! A conversation is one sender, one receiver, and messages numbered from 0, which a server must
//! deliver in that order (RFC 6120, section 10.1). It costs 16 bytes; a message that has been
//! passed by later ones is kept until it comes, if it comes.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::stamp::Stamp;

/// All conversations of a while of chatter.
#[derive(Debug)]
pub struct Ledger {
    /// Number of the first conversation: those before are of an earlier ledger.
    first: u32,
    conversations: Vec<Conversation>,
    /// Passed by later messages of the same conversation: (conversation, sequence).
    missing: HashSet<(u32, u32)>,
    /// Reached another user before later messages reached theirs. The two read different
    /// connections, so nothing follows for the order of the others.
    elsewhere: HashSet<(u32, u32)>,
    size: usize,
    whole: String,
    counts: Counts,
}

#[derive(Debug)]
struct Conversation {
    from: u32,
    to: u32,
    /// Messages sent so far: the next one's sequence number.
    sent: u32,
    /// One more than the highest sequence number that arrived.
    next: u32,
}

/// What has been counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Messages sent.
    pub sent: u64,
    /// Messages that arrived whole, once and in order.
    pub arrived: u64,
    /// Arrivals of a message that had arrived before.
    pub doubled: u64,
    /// Messages that arrived after a later one.
    pub disordered: u64,
    /// Messages with another content than was sent, or that reached another user.
    pub damaged: u64,
    /// Messages of a ledger before this one.
    pub stale: u64,
    /// Messages that have not been seen in any form.
    pub unseen: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.arrived += other.arrived;
        self.doubled += other.doubled;
        self.disordered += other.disordered;
        self.damaged += other.damaged;
        self.stale += other.stale;
        self.unseen += other.unseen;
    }
}

/// What an arrived message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// As it was sent, after all that was sent before it and arrived.
    Whole(Stamp),
    /// As it was sent, but after a later one.
    Disordered(Stamp),
    /// It has arrived before.
    Doubled(Stamp),
    /// Not what was sent, or somebody else's: which one it is, if that can be told and it has
    /// not arrived before.
    Damaged(Option<Stamp>),
    /// Of an earlier ledger.
    Stale,
}

impl Ledger {
    /// No conversations yet. Bodies are of `size` bytes; conversations are numbered from `first`.
    pub fn new(size: usize, first: u32) -> Self {
        Self {
            first,
            conversations: Vec::new(),
            missing: HashSet::new(),
            elsewhere: HashSet::new(),
            size,
            whole: String::new(),
            counts: Counts::default(),
        }
    }

    /// Begins a conversation and returns its number.
    pub fn begin(&mut self, from: u32, to: u32) -> u32 {
        self.conversations.push(Conversation {
            from,
            to,
            sent: 0,
            next: 0,
        });
        self.end().wrapping_sub(1)
    }

    /// One more than the last conversation's number: where a later ledger begins.
    pub fn end(&self) -> u32 {
        self.first.wrapping_add(self.conversations.len() as u32)
    }

    /// Who receives in a conversation that has begun here.
    pub fn receiver(&self, conversation: u32) -> u32 {
        self.conversations[conversation.wrapping_sub(self.first) as usize].to
    }

    /// The next message of a conversation that has begun here, which was to be sent at `due`, is
    /// sent: returns its body.
    pub fn send(&mut self, conversation: u32, due: u64) -> &str {
        let entry = &mut self.conversations[conversation.wrapping_sub(self.first) as usize];
        let stamp = Stamp {
            conversation,
            sequence: entry.sent,
            due,
            from: entry.from,
            to: entry.to,
        };
        entry.sent += 1;
        self.counts.sent += 1;
        self.counts.unseen += 1;
        stamp.write(self.size, &mut self.whole);
        &self.whole
    }

    /// A message reached the user `at`.
    pub fn arrive(&mut self, at: u32, body: &str) -> Verdict {
        let Some(stamp) = Stamp::read(body) else {
            return self.unreadable();
        };
        let number = stamp.conversation.wrapping_sub(self.first);
        let Some(conversation) = self.conversations.get_mut(number as usize) else {
            // Conversations are numbered on and on, so that what is far behind is from before.
            if number > u32::MAX / 2 {
                self.counts.stale += 1;
                return Verdict::Stale;
            }
            return self.unreadable();
        };
        if stamp.sequence >= conversation.sent {
            return self.unreadable();
        }
        let place = (stamp.conversation, stamp.sequence);
        let ahead = stamp.sequence >= conversation.next;
        let misdelivered = stamp.to != at;
        let in_order = ahead && !misdelivered;
        if in_order {
            for sequence in conversation.next..stamp.sequence {
                let passed = (stamp.conversation, sequence);
                if !self.elsewhere.remove(&passed) {
                    self.missing.insert(passed);
                }
            }
            conversation.next = stamp.sequence + 1;
        }
        let first = match (ahead, misdelivered) {
            (true, true) => self.elsewhere.insert(place),
            (true, false) => !self.elsewhere.remove(&place),
            (false, _) => self.missing.remove(&place),
        };
        self.counts.unseen -= u64::from(first);
        stamp.write(self.size, &mut self.whole);
        if self.whole != body || misdelivered {
            self.counts.damaged += 1;
            Verdict::Damaged(first.then_some(stamp))
        } else if !first {
            self.counts.doubled += 1;
            Verdict::Doubled(stamp)
        } else if in_order {
            self.counts.arrived += 1;
            Verdict::Whole(stamp)
        } else {
            self.counts.disordered += 1;
            Verdict::Disordered(stamp)
        }
    }

    /// What has been counted so far. `unseen` are those that are under way, or lost.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Which message this was cannot be told; that it had not arrived before is taken for
    /// granted, so that it is not counted as lost too.
    fn unreadable(&mut self) -> Verdict {
        self.counts.damaged += 1;
        self.counts.unseen = self.counts.unseen.saturating_sub(1);
        Verdict::Damaged(None)
    }
}

#[cfg(test)]
mod tests;
