//! An ECM and an ejabberd in one process, under a clock of their own, over wires that break in
//! every way a network has. The checks are in the [`ledger`] and wherever an `assert` stands.
//!
//! Whoever includes this module runs worlds: the simulation from seeds, the fuzzer from bytes.

/// Tells what happens, where a run is looked at.
macro_rules! note {
    ($world:expr, $($what:tt)*) => {
        if $world.trace {
            eprintln!("{:>8} ms  {}", $world.now, format_args!($($what)*));
        }
    };
}

pub mod choice;
mod clock;
mod config;
mod dial;
mod end;
mod ledger;
mod tally;
mod wire;

use std::collections::BTreeMap;

use megaphone_proto::ConnectionId;
use megaphone_proto::auth::Secret;
use megaphone_proto::link::Role;

use choice::Choices;
use config::Config;
use end::End;
use ledger::{Ledger, at};
pub use tally::Tally;
use wire::{Read, Seat, Wire};

/// Milliseconds after which a run that has no more faults must have come to rest.
const REST: u64 = 300_000;

pub struct World {
    choices: Choices,
    /// Milliseconds.
    now: u64,
    configs: [Config; 2],
    heartbeat: u64,
    latency: u64,
    wires: Vec<Wire>,
    /// The edge's one link, which waits for a wire while it is parked.
    edge: Option<End>,
    next_dial: u64,
    /// The node's links, by number.
    node: BTreeMap<u64, End>,
    links: u64,
    ledger: Ledger,
    tally: Tally,
    /// Are there faults? Not while a run comes to rest.
    faults: bool,
    trace: bool,
}

impl World {
    /// One whole run: all that the choices say, then no more faults, and everything must have
    /// come to where it belongs. Panics where it has not.
    pub fn run(choices: Choices, trace: bool) -> Tally {
        let mut world = World::new(choices, trace);
        let steps = 100 + world.choices.below(500);
        while world.tally.steps < steps && !world.choices.used_up() {
            world.tally.steps += 1;
            world.act();
            world.assert_bounds();
        }
        world.come_to_rest();
        world.hang_up();
        (world.tally.connections, world.tally.lost, world.tally.bytes) = world.ledger.totals();
        note!(world, "{:?}", world.tally);
        world.tally
    }

    fn new(mut choices: Choices, trace: bool) -> World {
        let secret = choices
            .once_in(2)
            .then(|| Secret::new(b"sixteen and more bytes").unwrap());
        World {
            now: 0,
            configs: [(); 2].map(|()| Config::choose(&mut choices, &secret)),
            heartbeat: 1_000 * (1 + choices.below(5)),
            latency: choices.size(60),
            choices,
            wires: Vec::new(),
            edge: None,
            next_dial: 0,
            node: BTreeMap::new(),
            links: 0,
            ledger: Ledger::default(),
            tally: Tally::default(),
            faults: true,
            trace,
        }
    }

    /// Something happens.
    fn act(&mut self) {
        match self.choices.below(64) {
            0..5 => {
                let opened = self
                    .edge
                    .as_mut()
                    .and_then(|edge| edge.open(&mut self.ledger));
                note!(self, "open {opened:?}");
            }
            5..27 => self.user(|end, id, choices, ledger| {
                let want = 1 + choices.size(100_000) as u32;
                format!("sends {} bytes", end.send(id, want, ledger))
            }),
            27..43 => self.user(|end, id, choices, _| {
                let n = choices.size(1_000_000) as u32;
                end.read(id, n);
                format!("reads up to {n} bytes")
            }),
            43..45 => self.user(|end, id, _, ledger| {
                end.end(id, ledger);
                "ends its direction".into()
            }),
            45..47 => self.user(|end, id, choices, ledger| {
                let reset = choices.once_in(2);
                end.close(id, reset, ledger);
                format!("closes, reset {reset}")
            }),
            47..50 => self.break_something(),
            50 if self.choices.once_in(4) => self.stranger(),
            51 if self.choices.once_in(8) => self.say_goodbye(),
            52..54 => {
                let time = self.choices.size(40_000);
                self.pass(time);
            }
            _ => {
                let time = self.choices.below(40);
                self.pass(time);
            }
        }
        self.settle();
    }

    /// One side does something with one of its connections.
    fn user(
        &mut self,
        what: impl FnOnce(&mut End, ConnectionId, &mut Choices, &mut Ledger) -> String,
    ) {
        let choices = &mut self.choices;
        let end = match choices.below(2) {
            0 => self.edge.as_mut(),
            _ => self.node.values_mut().next_back(),
        };
        let Some(end) = end else { return };
        let Some(id) = end.some(choices) else { return };
        let done = what(end, id, choices, &mut self.ledger);
        let role = end.role;
        note!(self, "{role:?} of {id} {done}");
    }

    /// A fault of the network, or of one of the processes.
    fn break_something(&mut self) {
        let kind = self.choices.below(16);
        let last = self.wires.len() as u64;
        let which = if last == 0 {
            0
        } else {
            self.choices.below(last) as usize
        };
        match (kind, self.wires.get_mut(which)) {
            (0..5, Some(wire)) => {
                wire.cut(&mut self.choices);
                note!(self, "wire cut");
            }
            (5..8, Some(wire)) => {
                wire.frozen = !wire.frozen;
                note!(
                    self,
                    "wire {}",
                    if self.wires[which].frozen {
                        "frozen"
                    } else {
                        "thaws"
                    }
                );
            }
            (8..11, Some(wire)) => {
                let delay = self.choices.size(20_000);
                wire.delay(delay);
                note!(self, "wire delayed by {delay} ms");
            }
            (11..13, Some(_)) => self.leave(which, Role::Edge, "shuts the wire"),
            (13..15, Some(_)) => self.leave(which, Role::Node, "shuts the wire"),
            (15, _) => match self.choices.below(6) {
                0 => self.restart_edge(),
                1 => self.restart_node(),
                _ => {}
            },
            _ => {}
        }
    }

    fn say_goodbye(&mut self) {
        let orderly = self.choices.once_in(2);
        let end = match self.choices.below(2) {
            0 => self.edge.as_mut(),
            _ => self.node.values_mut().next_back(),
        };
        if let Some(end) = end.filter(|end| end.parked.is_none()) {
            end.say_goodbye(orderly);
            let role = end.role;
            note!(self, "{role:?} says goodbye");
        }
    }

    fn restart_edge(&mut self) {
        note!(self, "the edge restarts");
        for wire in &mut self.wires {
            wire.leave(Role::Edge);
        }
        self.lose_edge();
    }

    fn restart_node(&mut self) {
        note!(self, "the node restarts");
        for wire in &mut self.wires {
            wire.leave(Role::Node);
        }
        for (_, end) in std::mem::take(&mut self.node) {
            end.lose(&mut self.ledger);
        }
    }

    // Wires.

    /// When what is written now arrives.
    fn due(&mut self) -> u64 {
        self.now + self.choices.below(self.latency + 1)
    }

    /// Moves all that can be moved at this moment.
    fn settle(&mut self) {
        loop {
            let mut moved = false;
            for which in 0..self.wires.len() {
                for role in [Role::Edge, Role::Node] {
                    moved |= self.read(which, role) | self.write(which, role);
                }
            }
            self.wires.retain(|wire| !wire.is_over());
            if !moved {
                return;
            }
        }
    }

    fn read(&mut self, which: usize, role: Role) -> bool {
        let wire = &mut self.wires[which];
        if matches!(wire.seats[at(role)], Seat::Left) {
            return false;
        }
        match wire.read(role, self.now, &mut self.choices) {
            Read::Nothing => return false,
            Read::Bytes(bytes) => match wire.seats[at(role)] {
                Seat::Greeting(_) => self.greet(which, role, &bytes),
                _ => self.hear(which, role, &bytes),
            },
            Read::End => self.leave(which, role, "hears the end"),
        }
        true
    }

    fn hear(&mut self, which: usize, role: Role, bytes: &[u8]) {
        let Seat::Link(number) = self.wires[which].seats[at(role)] else {
            return;
        };
        let (end, now) = (find(&mut self.edge, &mut self.node, role, number), self.now);
        end.hear(bytes, now, &mut self.ledger).unwrap();
    }

    fn write(&mut self, which: usize, role: Role) -> bool {
        let Seat::Link(number) = self.wires[which].seats[at(role)] else {
            return false;
        };
        let room = self.wires[which].room(role);
        let end = find(&mut self.edge, &mut self.node, role, number);
        let bytes = end.write(room);
        let done = end.leaving && end.all_written();
        let moved = !bytes.is_empty();
        let due = self.due();
        self.wires[which].write(role, bytes, due);
        if done {
            self.leave(which, role, "has said its last word and leaves");
        }
        moved
    }

    /// `role` leaves a wire; a link that it carried is parked or lost.
    fn leave(&mut self, which: usize, role: Role, why: &str) {
        let seat = std::mem::replace(&mut self.wires[which].seats[at(role)], Seat::Left);
        self.wires[which].leave(role);
        note!(self, "{role:?} of wire {} {why}", self.wires[which].number);
        let Seat::Link(number) = seat else { return };
        let now = self.now;
        let end = find(&mut self.edge, &mut self.node, role, number);
        let kept = end.park(now);
        self.tally.overflowed += u64::from(end.retained.overflowed());
        match (kept, role) {
            (true, _) => {}
            (false, Role::Edge) => self.lose_edge(),
            (false, Role::Node) => self.lose_node(number),
        }
    }

    fn lose_edge(&mut self) {
        if let Some(end) = self.edge.take() {
            end.lose(&mut self.ledger);
        }
    }

    fn lose_node(&mut self, number: u64) {
        if let Some(end) = self.node.remove(&number) {
            end.lose(&mut self.ledger);
        }
    }

    // The end of a run.

    fn assert_bounds(&self) {
        for end in self.edge.iter().chain(self.node.values()) {
            end.assert_bounds(self.now);
        }
    }

    /// No more faults: the link must come back, and everything arrive.
    fn come_to_rest(&mut self) {
        note!(self, "no more faults");
        self.faults = false;
        for wire in &mut self.wires {
            wire.frozen = false;
        }
        let until = self.now + REST;
        while !self.is_at_rest() {
            assert!(self.now < until, "the two sides never came to rest");
            self.edge
                .iter_mut()
                .chain(self.node.values_mut())
                .for_each(End::read_all);
            self.pass(700);
            self.assert_bounds();
        }
        self.ledger.assert_settled();
    }

    /// One link, up on both sides, with nothing on its way or unacknowledged but the last pings.
    fn is_at_rest(&self) -> bool {
        let ends = || self.edge.iter().chain(self.node.values());
        let quiet =
            |end: &End| end.parked.is_none() && end.all_written() && end.retained.bytes() < 512;
        self.edge.is_some()
            && self.node.len() == 1
            && ends().all(quiet)
            && self.wires.iter().all(Wire::is_quiet)
    }

    /// All connections end, and nothing of them is left.
    fn hang_up(&mut self) {
        let ledger = &mut self.ledger;
        self.edge.iter_mut().for_each(|end| end.close_all(ledger));
        let until = self.now + REST;
        while !self.is_at_rest() || self.node.values().any(|end| end.open_count() > 0) {
            assert!(self.now < until, "the connections never ended");
            self.pass(700);
        }
        self.ledger.assert_settled();
    }
}

/// The end of link `number` that `role` has and a wire carries.
fn find<'a>(
    edge: &'a mut Option<End>,
    node: &'a mut BTreeMap<u64, End>,
    role: Role,
    number: u64,
) -> &'a mut End {
    let end = match role {
        Role::Edge => edge.as_mut(),
        Role::Node => node.get_mut(&number),
    };
    end.expect("a wire carries a link that there is")
}
