//! One dial: a byte stream each way that takes its time, splits anywhere and breaks.

use std::collections::VecDeque;

use megaphone_proto::handshake::Handshake;
use megaphone_proto::link::Role;

use super::choice::Choices;
use super::ledger::at;

/// Bytes that one direction holds before its writer must wait.
const ROOM: usize = 16_384;

/// Who sits at one end of a wire.
pub enum Seat {
    /// Nobody any more: what still comes is for nobody.
    Left,
    /// A handshake.
    Greeting(Box<Greeting>),
    /// The link of this number.
    Link(u64),
}

impl Seat {
    pub fn carries(&self, link: u64) -> bool {
        matches!(self, Seat::Link(number) if *number == link)
    }
}

pub struct Greeting {
    pub handshake: Handshake,
    pub began: u64,
    /// By the node: the link's number, and whether it is one that goes on.
    pub answered: Option<(u64, bool)>,
}

/// What is to be read.
pub enum Read {
    Nothing,
    Bytes(Vec<u8>),
    /// The peer left, or the wire was cut.
    End,
}

/// One direction.
#[derive(Default)]
struct Lane {
    /// When each piece arrives, in order.
    pieces: VecDeque<(u64, Vec<u8>)>,
    queued: usize,
    ended: bool,
}

pub struct Wire {
    pub number: u64,
    /// The edge's, the node's.
    pub seats: [Seat; 2],
    /// By the side that writes.
    lanes: [Lane; 2],
    /// Packets go nowhere, and nobody is told.
    pub frozen: bool,
}

impl Wire {
    /// A wire between an edge and a node that begin to shake hands.
    pub fn new(number: u64, handshakes: [Handshake; 2], now: u64) -> Wire {
        let greet = |handshake| {
            Seat::Greeting(Box::new(Greeting {
                handshake,
                began: now,
                answered: None,
            }))
        };
        Wire {
            number,
            seats: handshakes.map(greet),
            lanes: Default::default(),
            frozen: false,
        }
    }

    /// Bytes that `role` may write now.
    pub fn room(&self, role: Role) -> usize {
        let lane = &self.lanes[at(role)];
        if lane.ended {
            0
        } else {
            ROOM.saturating_sub(lane.queued)
        }
    }

    /// Writes, to arrive at `due` or when what was written before has.
    pub fn write(&mut self, role: Role, bytes: Vec<u8>, due: u64) {
        let lane = &mut self.lanes[at(role)];
        if lane.ended || bytes.is_empty() {
            return;
        }
        lane.queued += bytes.len();
        let last = lane.pieces.back().map_or(0, |(due, _)| *due);
        lane.pieces.push_back((due.max(last), bytes));
    }

    /// What `role` can read now, a piece of any size.
    pub fn read(&mut self, role: Role, now: u64, choices: &mut Choices) -> Read {
        let lane = &mut self.lanes[1 - at(role)];
        if self.frozen {
            return Read::Nothing;
        }
        let Some((due, piece)) = lane.pieces.front_mut() else {
            return if lane.ended { Read::End } else { Read::Nothing };
        };
        if *due > now {
            return Read::Nothing;
        }
        let n = match choices.below(4) {
            0 => 1 + choices.size(piece.len() as u64 - 1 + u64::from(piece.len() == 1)) as usize,
            _ => piece.len(),
        };
        let rest = piece.split_off(n.min(piece.len()));
        let bytes = std::mem::replace(piece, rest);
        if piece.is_empty() {
            lane.pieces.pop_front();
        }
        lane.queued -= bytes.len();
        Read::Bytes(bytes)
    }

    /// The handshake that `role` is done with.
    pub fn take_greeting(&mut self, role: Role) -> Option<Greeting> {
        match std::mem::replace(&mut self.seats[at(role)], Seat::Left) {
            Seat::Greeting(greeting) => Some(*greeting),
            Seat::Link(_) | Seat::Left => None,
        }
    }

    /// `role` leaves; the other side still gets what was written, and then the end.
    pub fn leave(&mut self, role: Role) {
        self.seats[at(role)] = Seat::Left;
        self.lanes[at(role)].ended = true;
        self.lanes[1 - at(role)] = Lane {
            ended: true,
            ..Lane::default()
        };
    }

    /// Both directions lose what is on its way from some byte on, and end.
    pub fn cut(&mut self, choices: &mut Choices) {
        for lane in &mut self.lanes {
            lane.ended = true;
            let mut keep = choices.below(lane.queued as u64 + 1) as usize;
            lane.queued = keep;
            for (_, piece) in &mut lane.pieces {
                piece.truncate(keep);
                keep -= piece.len();
            }
            lane.pieces.retain(|(_, piece)| !piece.is_empty());
        }
        self.frozen = false;
    }

    /// Everything takes `delay` more milliseconds.
    pub fn delay(&mut self, delay: u64) {
        let pieces = self.lanes.iter_mut().flat_map(|lane| &mut lane.pieces);
        pieces.for_each(|(due, _)| *due += delay);
    }

    /// When the next thing arrives somewhere.
    pub fn next_due(&self) -> Option<u64> {
        let lanes = self.lanes.iter().filter(|_| !self.frozen);
        lanes
            .filter_map(|lane| lane.pieces.front().map(|(due, _)| *due))
            .min()
    }

    /// Is nothing on its way?
    pub fn is_quiet(&self) -> bool {
        self.lanes.iter().all(|lane| lane.pieces.is_empty())
    }

    /// Do both ends sit here no more?
    pub fn is_over(&self) -> bool {
        self.seats.iter().all(|seat| matches!(seat, Seat::Left))
    }
}
