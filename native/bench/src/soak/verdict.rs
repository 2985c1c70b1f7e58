//! Whether something is level.

use super::look::Look;
use super::round::Round;
use crate::figure::Figure;

/// One thing that is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Series {
    /// What it is called.
    pub name: &'static str,
    /// Whether it is bytes, or else a number of things.
    pub bytes: bool,
    of: fn(&Look) -> u64,
    /// What it may grow by in any case: the noise of a node at rest, or what is kept on purpose.
    floor: f64,
    /// And by this part of what it was.
    part: f64,
}

/// All of them. What has a sum of many small things over it (resident memory, with what allocators keep) may vary more
/// than what counts exactly (the NIF's own memory).
pub const SERIES: [Series; 10] = [
    bytes("node, resident", |look| look.node, 8e6, 0.05),
    bytes("ECM, resident", |look| look.ecm, 2e6, 0.05),
    bytes("processes", |look| look.heaps, 1e6, 0.02),
    bytes("binaries", |look| look.binary, 5e5, 0.05),
    bytes("ets", |look| look.ets, 2.5e5, 0.02),
    bytes("atoms", |look| look.atoms, 5e4, 0.0),
    bytes("ports, code, rest", |look| look.system, 5e5, 0.01),
    bytes("the NIF's own", |look| look.nif, 6.4e4, 0.02),
    number("processes (number)", |look| look.processes, 5.0),
    number("ports (number)", |look| look.ports, 3.0),
];

const fn bytes(name: &'static str, of: fn(&Look) -> u64, floor: f64, part: f64) -> Series {
    Series {
        name,
        bytes: true,
        of,
        floor,
        part,
    }
}

const fn number(name: &'static str, of: fn(&Look) -> u64, floor: f64) -> Series {
    Series {
        name,
        bytes: false,
        of,
        floor,
        part: 0.0,
    }
}

/// One series over all rounds.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// At rest, after the round that drew the line and after each of the others.
    pub rest: Vec<f64>,
    /// Medians while they chatted: of the first round that counts, and of the last.
    pub chatting: [f64; 2],
    /// At rest it is where it was.
    pub level: bool,
    /// While they chat it is where it was, or near: garbage comes and goes.
    pub level_chatting: bool,
}

/// While there is chatter a median may differ by this part.
const CHATTING: f64 = 0.15;

impl Series {
    /// Judges it. The first round is the line. Of no round at all everything is level.
    pub fn judge(&self, rounds: &[Round]) -> Verdict {
        let rest: Vec<f64> = rounds
            .iter()
            .map(|round| (self.of)(&round.rest) as f64)
            .collect();
        let median = |round: Option<&Round>| {
            let looks = round.map(|round| round.chatting.as_slice());
            let values = looks.unwrap_or_default().iter();
            let figure: Figure = values.map(|look| (self.of)(look) as f64).collect();
            figure.median()
        };
        let chatting = [median(rounds.get(1)), median(rounds.last())];
        let [line, last] = [rest.first(), rest.last()].map(|end| end.copied().unwrap_or(0.0));
        Verdict {
            level: last <= line + self.floor + line * self.part,
            level_chatting: chatting[1] <= chatting[0] * (1.0 + CHATTING) + self.floor,
            rest,
            chatting,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(nif: u64, chatting: u64) -> Round {
        let look = |nif| Look {
            nif,
            ..Look::default()
        };
        Round {
            rest: look(nif),
            chatting: vec![look(chatting); 3],
            ..Round::default()
        }
    }

    fn nif() -> Series {
        SERIES[7]
    }

    #[test]
    fn what_comes_back_to_its_line_is_level() {
        let rounds = [
            round(1_000, 50_000),
            round(900_000, 2_000_000),
            round(65_000, 2_100_000),
        ];
        let verdict = nif().judge(&rounds);
        assert!(verdict.level && verdict.level_chatting, "{verdict:?}");
        assert_eq!(verdict.rest, [1_000.0, 900_000.0, 65_000.0]);
        assert_eq!(verdict.chatting, [2_000_000.0, 2_100_000.0]);
    }

    #[test]
    fn what_stays_is_not() {
        let rounds = [
            round(1_000, 0),
            round(40_000, 2_000_000),
            round(80_000, 9_000_000),
        ];
        let verdict = nif().judge(&rounds);
        assert!(!verdict.level && !verdict.level_chatting, "{verdict:?}");
    }
}
