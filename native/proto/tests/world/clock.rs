//! What time alone brings about.

use megaphone_proto::link::Role;

use super::end::End;
use super::ledger::at;
use super::wire::{Seat, Wire};
use super::{World, find};

/// Milliseconds for a handshake.
const GREETING: u64 = 10_000;

impl World {
    /// Lets `time` milliseconds pass, and does what is due on the way.
    pub(super) fn pass(&mut self, time: u64) {
        let until = self.now + time;
        loop {
            self.settle();
            let next = self.next_due().max(self.now);
            if next > until {
                break;
            }
            self.now = next;
            self.tick();
        }
        self.now = until;
    }

    /// When something happens by itself.
    fn next_due(&self) -> u64 {
        let up = self.edge.iter().chain(self.node.values());
        let ends = up.map(|end| match end.parked {
            None => end.next_tick,
            Some(since) => since + 1_000 * u64::from(end.link.resume_timeout()),
        });
        let greetings = self.wires.iter().flat_map(|wire| &wire.seats);
        let greetings = greetings.filter_map(|seat| match seat {
            Seat::Greeting(greeting) => Some(greeting.began + GREETING),
            Seat::Left | Seat::Link(_) => None,
        });
        let dial = self.may_dial().then_some(self.next_dial);
        let wires = self.wires.iter().filter_map(Wire::next_due);
        ends.chain(greetings)
            .chain(dial)
            .chain(wires)
            .min()
            .unwrap_or(u64::MAX)
    }

    /// What the clock alone brings about.
    fn tick(&mut self) {
        for role in [Role::Edge, Role::Node] {
            for which in 0..self.wires.len() {
                match &self.wires[which].seats[at(role)] {
                    Seat::Greeting(greeting) if self.now >= greeting.began + GREETING => {
                        self.leave(which, role, "waits no longer for the handshake");
                    }
                    Seat::Link(number) => {
                        let (number, now, heartbeat) = (*number, self.now, self.heartbeat);
                        let end = find(&mut self.edge, &mut self.node, role, number);
                        if now >= end.next_tick && !end.tick(now, heartbeat) {
                            self.tally.silent += 1;
                            self.leave(which, role, "hears nothing any more");
                        }
                    }
                    Seat::Greeting(_) | Seat::Left => {}
                }
            }
        }
        let now = self.now;
        let expired = |end: &End| {
            let kept = 1_000 * u64::from(end.link.resume_timeout());
            end.parked.is_some_and(|since| now >= since + kept)
        };
        if self.edge.as_ref().is_some_and(expired) {
            note!(self, "the edge's link is lost");
            self.tally.expired += 1;
            self.lose_edge();
        }
        let gone: Vec<u64> = self
            .node
            .iter()
            .filter(|(_, end)| expired(end))
            .map(|(n, _)| *n)
            .collect();
        for number in gone {
            note!(self, "the node's link {number} is lost");
            self.tally.expired += 1;
            self.lose_node(number);
        }
        if self.may_dial() && now >= self.next_dial {
            self.dial();
        }
    }
}
