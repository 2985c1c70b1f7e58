//! Random pairs chatter; some leave and join anew meanwhile.
//!
//! Messages are due at a rate and are sent by whoever is drawn, to its partner. A partner is drawn
//! when there is none, and stays until it leaves.
//!
//! Whoever is to leave is no partner from then on, and leaves when all has come that was sent to
//! it: so that what is lost is the server's fault, and not the test's.

mod churn;
mod send;

use std::collections::{HashMap, VecDeque};
use std::mem;

use fastrand::Rng;

use crate::clock;
use crate::fleet::{Errors, total};
use crate::ledger::{Ledger, Verdict};
use crate::pace::Pace;
use crate::socket::Traffic;
use crate::tally::Tally;
use crate::wire::{Answer, ChatterCount, Tick};
use crate::worker::chatter::send::NUDGE;
use crate::worker::crowd::{Crowd, Gone, Watch};
use crate::worker::present::Present;
use crate::worker::task::Task;

/// What is asked for. Times are nanoseconds.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    /// Messages a second.
    pub(super) rate: f64,
    /// Messages in all.
    pub(super) count: u64,
    /// Users a second that leave and join anew.
    pub(super) churn: f64,
    /// When the first message is due.
    pub(super) start: u64,
    /// For how long messages are due.
    pub(super) time: u64,
    /// How long an answer may take.
    pub(super) patience: u64,
    /// Bytes of a message.
    pub(super) body: usize,
    /// What draws who sends to whom.
    pub(super) seed: u64,
    /// Number of the first conversation.
    pub(super) first: u32,
}

/// No conversation.
const NONE: u32 = u32::MAX;

/// Chatter that is going on.
#[derive(Debug)]
pub(super) struct Chatter {
    ledger: Ledger,
    pace: Pace,
    churn: Pace,
    present: Present,
    rng: Rng,
    end: u64,
    patience: u64,
    /// Of each user, the conversation in which it sends.
    talks: Vec<u32>,
    /// Of each user, messages that are on their way to it.
    coming: Vec<u32>,
    /// Those who are to leave when all has come, or at a deadline.
    leaving: HashMap<u32, u64>,
    deadlines: VecDeque<(u64, u32)>,
    /// Those to whom nothing is coming any more.
    ready: Vec<u32>,
    /// When to look whether they can leave by now.
    again: u64,
    /// Until when nobody can send.
    blocked: u64,
    /// When the last message came, or somebody was nudged.
    came: u64,
    /// Those who have left and are to join anew.
    outside: Vec<u32>,
    /// Those who are about to have left or joined.
    moving: u32,
    latency: Tally,
    recent: Tally,
    count: ChatterCount,
    body: String,
    before: Before,
}

/// What had been counted before.
#[derive(Debug)]
struct Before {
    traffic: Traffic,
    cpu: u64,
    faults: Errors,
}

impl Chatter {
    /// Those chatter who are logged in now.
    pub(super) fn new(crowd: &mut Crowd, asked: &Asked) -> Self {
        let places = crowd.places() as usize;
        let mut present = Present::new(places);
        for user in 0..crowd.places() {
            if crowd.is_in(user) {
                present.add(user);
            }
        }
        let leave = (asked.churn * clock::to_seconds(asked.time)) as u64;
        Self {
            ledger: Ledger::new(asked.body, asked.first),
            pace: Pace::new(asked.start, asked.rate, asked.count),
            churn: Pace::new(asked.start, asked.churn, leave),
            present,
            rng: Rng::with_seed(asked.seed),
            end: asked.start + asked.time,
            patience: asked.patience,
            talks: vec![NONE; places],
            coming: vec![0; places],
            leaving: HashMap::new(),
            deadlines: VecDeque::new(),
            ready: Vec::new(),
            again: 0,
            blocked: 0,
            came: 0,
            outside: Vec::new(),
            moving: 0,
            latency: Tally::default(),
            recent: Tally::default(),
            count: ChatterCount::default(),
            body: String::new(),
            before: Before {
                traffic: crowd.traffic(),
                cpu: clock::cpu(),
                faults: mem::take(crowd.faults()),
            },
        }
    }

    fn is_over(&self, now: u64) -> bool {
        let settled = self.ledger.counts().unseen == 0 || now >= self.end + self.patience;
        now >= self.end
            && settled
            && self.pace.next_due().is_none()
            && self.leaving.is_empty()
            && self.outside.is_empty()
            && self.moving == 0
    }
}

impl Watch for Chatter {
    fn logged_in(&mut self, user: u32, _due: u64) {
        self.moving -= 1;
        self.count.joined += 1;
        self.present.add(user);
    }

    fn message(&mut self, user: u32, body: &str) {
        if body == NUDGE {
            return;
        }
        self.came = clock::now();
        match self.ledger.arrive(user, body) {
            Verdict::Whole(stamp) | Verdict::Disordered(stamp) => {
                self.recent.record(stamp.due, self.came);
                self.arrived(stamp.to);
            }
            Verdict::Damaged(Some(stamp)) => self.arrived(stamp.to),
            Verdict::Damaged(None) => self.arrived(user),
            Verdict::Doubled(_) | Verdict::Stale => {}
        }
    }

    fn gone(&mut self, user: u32, gone: Gone) {
        self.coming[user as usize] = 0;
        match gone {
            Gone::Left => {
                self.moving -= 1;
                self.count.left += 1;
                self.outside.push(user);
            }
            Gone::Failed(kind) => {
                self.moving -= 1;
                *self.count.errors.entry(kind).or_default() += 1;
            }
            Gone::FellOut => {
                self.leaving.remove(&user);
                self.present.remove(user);
            }
        }
    }
}

impl Task for Chatter {
    fn step(&mut self, crowd: &mut Crowd) {
        self.hurry(crowd);
        let now = clock::now();
        while now < self.end && self.has_room() && self.churn.take(now).is_some() {
            self.dismiss(now);
        }
        self.shift(crowd, now);
        if self.pace.next_due().is_none() {
            self.nudge(crowd, now);
        }
    }

    fn hurry(&mut self, crowd: &mut Crowd) {
        while self.send(crowd, clock::now()) {}
    }

    fn next_due(&self) -> Option<u64> {
        let now = clock::now();
        let ends = [self.end, self.end + self.patience];
        let others = [
            self.pace.next_due().map(|due| due.max(self.blocked)),
            (!self.ready.is_empty()).then_some(self.again),
            self.churn
                .next_due()
                .filter(|_| self.has_room() && now < self.end),
            self.deadlines.front().map(|(deadline, _)| *deadline),
            ends.into_iter().find(|end| *end > now),
            (now >= self.end).then(|| self.next_nudge()),
        ];
        others.into_iter().flatten().min()
    }

    fn answer(&mut self, crowd: &mut Crowd, now: u64) -> Option<Answer> {
        if !self.is_over(now) {
            return None;
        }
        self.latency.add(&self.recent);
        let mut count = mem::take(&mut self.count);
        let faults = mem::replace(crowd.faults(), mem::take(&mut self.before.faults));
        for (kind, number) in faults {
            *count.errors.entry(kind).or_default() += number;
        }
        let traffic = crowd.traffic();
        Some(Answer::Chatter(Box::new(ChatterCount {
            counts: self.ledger.counts(),
            latency: self.latency.encode(),
            read: traffic.read - self.before.traffic.read,
            written: traffic.written - self.before.traffic.written,
            cpu: clock::cpu() - self.before.cpu,
            ..count
        })))
    }

    fn tick(&mut self, crowd: &Crowd) -> Tick {
        let latency = self.recent.encode();
        self.latency.add(&self.recent);
        self.recent.clear();
        Tick {
            online: crowd.online(),
            failed: total(&self.count.errors),
            counts: self.ledger.counts(),
            latency,
        }
    }

    fn conversations(&self) -> Option<u32> {
        Some(self.ledger.end())
    }
}
