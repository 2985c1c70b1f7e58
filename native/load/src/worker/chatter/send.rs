//! Who sends, and when.

use crate::worker::LATE;
use crate::worker::chatter::{Chatter, NONE};
use crate::worker::crowd::{Crowd, Gone, SETTLE, Turn, Watch};

/// Of how many that are drawn the one sends that has been quiet longest, where that matters.
const DRAWS: usize = 8;

/// How long a message waits for somebody who can send it at once, in nanoseconds.
const SENDERS: u64 = 100_000_000;

/// What is written to a user whose BOSH requests the server has laid aside. `ejabberd_bosh` does
/// so with a request that overtook the one before it, which a busy machine can bring about whatever
/// the client does, and takes it up again when there is something for the user.
pub(super) const NUDGE: &str = "nudge";

/// After how long without any message somebody is nudged, in nanoseconds.
const SILENCE: u64 = 1_000_000_000;

impl Chatter {
    /// Sends the message that is due next, if one is. Whether there may be another.
    pub(super) fn send(&mut self, crowd: &mut Crowd, now: u64) -> bool {
        if now < self.blocked || self.pace.next_due().is_none_or(|due| due > now) {
            return false;
        }
        let patient = self.pace.next_due().is_some_and(|due| now < due + SENDERS);
        let drawn = self.draw(crowd, now, patient);
        if drawn.is_none() && self.present.len() >= 2 {
            self.blocked = now + SETTLE / 5;
            return false;
        }
        let Some(due) = self.pace.take(now) else {
            return false;
        };
        let Some((from, conversation)) = drawn else {
            self.count.unsent += 1;
            return true;
        };
        let to = self.ledger.receiver(conversation);
        self.count.late += u64::from(now.saturating_sub(due) > LATE);
        self.coming[to as usize] += 1;
        self.body.clear();
        self.body.push_str(self.ledger.send(conversation, due));
        if !crowd.say(from, to, &self.body) {
            self.gone(from, Gone::FellOut);
        }
        true
    }

    /// Who sends next, and in which conversation. `None` if nobody can now.
    fn draw(&mut self, crowd: &Crowd, now: u64, patient: bool) -> Option<(u32, u32)> {
        if self.present.len() < 2 {
            return None;
        }
        let from = self.draw_sender(crowd, now, patient)?;
        let talk = self.talks[from as usize];
        if talk != NONE && self.present.has(self.ledger.receiver(talk)) {
            return Some((from, talk));
        }
        let to = self.present.draw(&mut self.rng, Some(from))?;
        let talk = self.ledger.begin(from, to);
        self.talks[from as usize] = talk;
        Some((from, talk))
    }

    /// Who can send at once; if not `patient`, rather one who sends later than nobody.
    fn draw_sender(&mut self, crowd: &Crowd, now: u64, patient: bool) -> Option<u32> {
        let mut best = (0, None);
        let mut later = None;
        for _ in 0..DRAWS {
            let user = self.present.draw(&mut self.rng, None)?;
            match crowd.turn(user, now) {
                Turn::Now(u64::MAX) => return Some(user),
                Turn::Now(quiet) if quiet > best.0 => best = (quiet, Some(user)),
                Turn::Later => later = Some(user),
                Turn::Now(_) | Turn::TooSoon => {}
            }
        }
        match patient {
            true => best.1,
            false => best.1.or(later),
        }
    }

    /// Has somebody write to those whose requests the server does not answer, where nothing has
    /// come for a while; see [`NUDGE`].
    pub(super) fn nudge(&mut self, crowd: &mut Crowd, now: u64) {
        if self.ledger.counts().unseen == 0 || now < self.next_nudge() {
            return;
        }
        self.came = now;
        for user in crowd.busy() {
            let Some(from) = self.draw_sender(crowd, now, true) else {
                return;
            };
            self.count.nudges += 1;
            if !crowd.say(from, user, NUDGE) {
                self.gone(from, Gone::FellOut);
            }
        }
    }

    /// When somebody is nudged, if nothing comes until then.
    pub(super) fn next_nudge(&self) -> u64 {
        self.came.max(self.end) + SILENCE
    }
}
