//! What is done to messages on purpose.
//!
//! A message suffers one fault at most, so that each can be found again in what the tool counts.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Mutex;

use fastrand::Rng;

use super::wire::lock;

/// How probable each fault is, from 0 to 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, clap::Args)]
#[command(next_help_heading = "Faults on purpose")]
pub struct Odds {
    /// Lose a message
    #[arg(long, value_name = "P", default_value_t, value_parser = probability, hide_default_value = true)]
    pub lose: f64,
    /// Deliver a message twice
    #[arg(long, value_name = "P", default_value_t, value_parser = probability, hide_default_value = true)]
    pub double: f64,
    /// Deliver a message after the next of the same sender to the same receiver (within a second)
    #[arg(long, value_name = "P", default_value_t, value_parser = probability, hide_default_value = true)]
    pub swap: f64,
    /// Change one letter or digit of a message's body
    #[arg(long, value_name = "P", default_value_t, value_parser = probability, hide_default_value = true)]
    pub damage: f64,
    /// Deliver a message to another user
    #[arg(long, value_name = "P", default_value_t, value_parser = probability, hide_default_value = true)]
    pub misdeliver: f64,
    /// Refuse a login: half of them with `not-authorized`, half with `temporary-auth-failure`
    #[arg(long, value_name = "P", default_value_t, value_parser = probability, hide_default_value = true)]
    pub refuse: f64,
}

fn probability(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(odds) if (0.0..=1.0).contains(&odds) => Ok(odds),
        _ => Err("a probability is a number from 0 to 1".to_owned()),
    }
}

impl Odds {
    /// Are these possible, as one message has one fault?
    pub fn check(&self) -> Result<(), String> {
        let sum = self.lose + self.double + self.swap + self.damage + self.misdeliver;
        match sum <= 1.0 {
            true => Ok(()),
            false => Err(format!(
                "a message suffers one fault at most, but the probabilities add up to {sum}"
            )),
        }
    }
}

/// What happens to one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Nothing.
    Pass,
    /// It is dropped.
    Lose,
    /// It is delivered twice.
    Double,
    /// It is held back until the next has passed.
    Swap,
    /// Its body is changed.
    Damage,
    /// Somebody else gets it.
    Misdeliver,
}

/// Draws the faults, and keeps what waits to be overtaken.
#[derive(Debug)]
pub struct Faults {
    odds: Odds,
    dice: Mutex<Rng>,
    /// By sender and receiver: the message that the next one overtakes, and its number.
    held: Mutex<HashMap<(String, String), (u64, String)>>,
}

impl Faults {
    /// Draws by these odds, the same from the same seed.
    pub fn new(odds: Odds, seed: u64) -> Self {
        Self {
            odds,
            dice: Mutex::new(Rng::with_seed(seed)),
            held: Mutex::default(),
        }
    }

    /// The condition with which a login is refused, if it is.
    pub fn refusal(&self) -> Option<&'static str> {
        let mut dice = lock(&self.dice);
        let refused = dice.f64() < self.odds.refuse;
        let condition = ["not-authorized", "temporary-auth-failure"][dice.usize(..2)];
        refused.then_some(condition)
    }

    /// What happens to the next message that is none of those that overtake.
    pub fn fate(&self) -> Fate {
        let odds = &self.odds;
        let mut drawn = lock(&self.dice).f64();
        for (odds, fate) in [
            (odds.lose, Fate::Lose),
            (odds.double, Fate::Double),
            (odds.swap, Fate::Swap),
            (odds.damage, Fate::Damage),
            (odds.misdeliver, Fate::Misdeliver),
        ] {
            if drawn < odds {
                return fate;
            }
            drawn -= odds;
        }
        Fate::Pass
    }

    /// Holds a message back for the next of the pair to overtake. The answer is its number.
    pub fn hold(&self, from: &str, to: &str, stanza: &str) -> u64 {
        let number = lock(&self.dice).u64(..);
        let pair = (from.to_owned(), to.to_owned());
        lock(&self.held).insert(pair, (number, stanza.to_owned()));
        number
    }

    /// The message that was held back for the pair, if one is: with a number, only if it is that.
    pub fn release(&self, from: &str, to: &str, number: Option<u64>) -> Option<String> {
        if self.odds.swap == 0.0 {
            return None;
        }
        let mut held = lock(&self.held);
        let pair = (from.to_owned(), to.to_owned());
        let (found, _) = held.get(&pair)?;
        if number.is_some_and(|number| number != *found) {
            return None;
        }
        held.remove(&pair).map(|(_, stanza)| stanza)
    }

    /// One of `count`.
    pub fn one_of(&self, count: usize) -> usize {
        lock(&self.dice).usize(..count)
    }

    /// Changes one letter or digit in the text of the stanza's `<body>`. `false`: there is none.
    pub fn damage(&self, stanza: &mut String) -> bool {
        let Some(body) = body_text(stanza) else {
            return false;
        };
        let mut dice = lock(&self.dice);
        let start = dice.usize(body.clone());
        let places = (start..body.end).chain(body.start..start);
        let bytes = stanza.as_bytes();
        // A reference such as `&amp;` must stay one, or the stream would break.
        let mut places = places.filter(|at| bytes[*at].is_ascii_alphanumeric());
        let Some(at) = places.find(|at| !in_reference(&bytes[body.start..*at])) else {
            return false;
        };
        let was = char::from(bytes[at]);
        let now = loop {
            let drawn = dice.alphanumeric();
            if drawn != was {
                break drawn;
            }
        };
        stanza.replace_range(at..=at, now.encode_utf8(&mut [0; 4]));
        true
    }
}

/// Where the text of the stanza's body is, if there is any.
fn body_text(stanza: &str) -> Option<Range<usize>> {
    let tag = stanza.find("<body")?;
    let start = tag + stanza[tag..].find('>')? + 1;
    let end = start + stanza[start..].find("</body>")?;
    (start < end).then_some(start..end)
}

fn in_reference(before: &[u8]) -> bool {
    let last = before.iter().rev().find(|byte| b"&;".contains(byte));
    last == Some(&b'&')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(odds: Odds) -> Faults {
        Faults::new(odds, 7)
    }

    #[test]
    fn fates_come_as_often_as_they_should_and_again_from_the_same_seed() {
        let odds = Odds {
            lose: 0.1,
            double: 0.2,
            swap: 0.3,
            damage: 0.05,
            misdeliver: 0.15,
            refuse: 0.5,
        };
        assert_eq!(odds.check(), Ok(()));
        let draw = || {
            let faults = faults(odds);
            (0..10_000).map(|_| faults.fate()).collect::<Vec<_>>()
        };
        let drawn = draw();
        assert_eq!(drawn, draw());
        for (fate, expected) in [
            (Fate::Lose, 1000),
            (Fate::Double, 2000),
            (Fate::Swap, 3000),
            (Fate::Damage, 500),
            (Fate::Misdeliver, 1500),
            (Fate::Pass, 2000),
        ] {
            let count = drawn.iter().filter(|drawn| **drawn == fate).count();
            // Five standard deviations and more.
            assert!(count.abs_diff(expected) < 250, "{fate:?}: {count}");
        }
        let faults = faults(odds);
        let refused: Vec<_> = (0..1000).filter_map(|_| faults.refusal()).collect();
        let denied = refused.iter().filter(|kind| **kind == "not-authorized");
        assert!(refused.len().abs_diff(500) < 90 && denied.count().abs_diff(250) < 80);
    }

    #[test]
    fn certain_and_impossible_are_what_they_say() {
        let certain = faults(Odds {
            lose: 1.0,
            refuse: 1.0,
            ..Odds::default()
        });
        let never = faults(Odds::default());
        for _ in 0..1000 {
            assert_eq!((certain.fate(), never.fate()), (Fate::Lose, Fate::Pass));
            assert!(certain.refusal().is_some() && never.refusal().is_none());
        }
        let sum = Odds {
            lose: 0.6,
            double: 0.6,
            ..Odds::default()
        };
        assert!(sum.check().is_err());
        assert!(probability("1.1").is_err() && probability("NaN").is_err());
        assert_eq!(probability("0.25"), Ok(0.25));
    }

    #[test]
    fn what_is_held_is_released_once_to_its_pair() {
        let faults = faults(Odds {
            swap: 0.5,
            ..Odds::default()
        });
        let number = faults.hold("a", "b", "first");
        assert_eq!(faults.release("b", "a", None), None);
        assert_eq!(faults.release("a", "b", Some(number ^ 1)), None);
        assert_eq!(faults.release("a", "b", None), Some("first".to_owned()));
        assert_eq!(faults.release("a", "b", Some(number)), None);
        let number = faults.hold("a", "b", "second");
        let late = faults.release("a", "b", Some(number));
        assert_eq!(late, Some("second".to_owned()));
    }

    #[test]
    fn damage_changes_one_character_of_the_text_and_nothing_else() {
        let faults = faults(Odds::default());
        let whole = "<message to='x'><body xml:lang='en'>ab &amp; 12</body><x>y</x></message>";
        let mut places = [false; 80];
        for _ in 0..1000 {
            let mut damaged = whole.to_owned();
            assert!(faults.damage(&mut damaged));
            let differ = whole.bytes().zip(damaged.bytes()).enumerate();
            let differ: Vec<_> = differ.filter(|(_, (a, b))| a != b).collect();
            let [(at, _)] = differ[..] else {
                panic!("{damaged}");
            };
            places[at] = true;
        }
        let text = whole.find("ab &").unwrap();
        let places: Vec<_> = (0..80).filter(|at| places[*at]).collect();
        assert_eq!(places, [text, text + 1, text + 9, text + 10]);
        for nothing in ["<message/>", "<message><body></body></message>"] {
            assert!(!faults.damage(&mut nothing.to_owned()));
        }
        assert!(!faults.damage(&mut "<message><body>&amp;</body></message>".to_owned()));
    }
}
