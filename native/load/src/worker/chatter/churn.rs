//! Who leaves and joins anew.

use std::mem;

use crate::worker::chatter::{Chatter, NONE};
use crate::worker::crowd::{Crowd, SETTLE, Turn};

impl Chatter {
    /// Whether one more may leave: a tenth of all at a time. What is due and does not fit is done
    /// later, or not at all.
    pub(super) fn has_room(&self) -> bool {
        let away = self.leaving.len() + self.outside.len() + self.moving as usize;
        away < (self.talks.len() / 10).max(1)
    }

    /// One more is to leave.
    pub(super) fn dismiss(&mut self, now: u64) {
        let Some(user) = self.present.draw(&mut self.rng, None) else {
            return;
        };
        self.present.remove(user);
        self.talks[user as usize] = NONE;
        let deadline = now + self.patience;
        self.leaving.insert(user, deadline);
        self.deadlines.push_back((deadline, user));
        if self.coming[user as usize] == 0 {
            self.ready.push(user);
        }
    }

    /// One that was on its way to that user has come.
    pub(super) fn arrived(&mut self, to: u32) {
        let coming = &mut self.coming[to as usize];
        *coming = coming.saturating_sub(1);
        if *coming == 0 && self.leaving.contains_key(&to) {
            self.ready.push(to);
        }
    }

    /// Has those leave and join who can.
    pub(super) fn shift(&mut self, crowd: &mut Crowd, now: u64) {
        while let Some((deadline, user)) = self.deadlines.front().copied()
            && deadline <= now
        {
            self.deadlines.pop_front();
            self.ready.push(user);
        }
        for user in mem::take(&mut self.ready) {
            // It may have left long ago, have joined, and be about to leave again.
            let Some(deadline) = self.leaving.get(&user).copied() else {
                continue;
            };
            if self.coming[user as usize] > 0 && deadline > now {
                continue;
            }
            if crowd.turn(user, now) == Turn::TooSoon {
                self.again = now + SETTLE;
                self.ready.push(user);
                continue;
            }
            self.leaving.remove(&user);
            self.moving += 1;
            crowd.leave(user, self);
        }
        while let Some(user) = self.outside.pop() {
            match crowd.join(user, now) {
                Ok(()) => self.moving += 1,
                Err(kind) => *crowd.faults().entry(kind).or_default() += 1,
            }
        }
    }
}
