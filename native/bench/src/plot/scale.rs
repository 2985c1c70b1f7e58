//! Where values are on an axis, and where its ticks are.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

use crate::figure::number;
use crate::plot::Axis;

/// The most ticks that are taken from the values themselves.
const OWN_TICKS: usize = 8;

/// An axis with its ends and ticks. Its places are values, or on an axis of factors their logarithms.
#[derive(Debug, Clone, PartialEq)]
pub struct Scale {
    log: bool,
    range: Range<f64>,
    ticks: Vec<f64>,
}

impl Scale {
    /// A scale with round ticks that shows all these values; an axis of differences begins at 0.
    pub fn round(axis: &Axis, values: impl Iterator<Item = f64>) -> Self {
        let values: Vec<f64> = values
            .filter(|value| value.is_finite() && (!axis.log || *value > 0.0))
            .collect();
        let high = values.iter().copied().fold(f64::MIN, f64::max);
        let low = values.iter().copied().fold(f64::MAX, f64::min);
        let ticks = match axis.log {
            _ if values.is_empty() || high <= 0.0 => vec![0.0, 1.0],
            true => factors(low, high),
            false => differences(high),
        };
        Self {
            log: axis.log,
            range: ticks[0]..ticks[ticks.len() - 1],
            ticks,
        }
    }

    /// A scale that has a tick for each of these values, if they are few and not too close; else round ones.
    pub fn own(axis: &Axis, values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        values.dedup();
        let ticks: Vec<f64> = values.iter().map(|value| place(axis.log, *value)).collect();
        match ticks[..] {
            [first, .., last] if ticks.len() <= OWN_TICKS && apart(&ticks) => {
                let room = (last - first) * 0.04;
                let start = if axis.log {
                    first - room
                } else {
                    first.min(0.0)
                };
                Self {
                    log: axis.log,
                    range: start..last + room,
                    ticks,
                }
            }
            _ => Self::round(axis, values.into_iter()),
        }
    }

    /// A scale without ticks.
    pub fn bare(range: Range<f64>) -> Self {
        Self {
            log: false,
            range,
            ticks: Vec::new(),
        }
    }

    /// The place of a value.
    pub fn place(&self, value: f64) -> f64 {
        place(self.log, value)
    }

    /// How many ticks there are.
    pub fn ticks(&self) -> usize {
        self.ticks.len()
    }
}

impl Ranged for Scale {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, place: &f64, (start, end): (i32, i32)) -> i32 {
        let share = (place - self.range.start) / (self.range.end - self.range.start);
        start + (share * f64::from(end - start)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        // Only what is asked for in bold: there are no lines between ticks.
        if hint.bold_points() == 0 {
            Vec::new()
        } else {
            self.ticks.clone()
        }
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

impl ValueFormatter<f64> for Scale {
    fn format_ext(&self, place: &f64) -> String {
        let value = if self.log { 10f64.powf(*place) } else { *place };
        // What stands at a tick is a round number: 0.20 is 0.2.
        let text = number((value * 1e6).round() / 1e6);
        match text.contains('.') {
            true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
            false => text,
        }
    }
}

fn place(log: bool, value: f64) -> f64 {
    if log {
        value.max(f64::MIN_POSITIVE).log10()
    } else {
        value
    }
}

/// Whether labels at these places do not run into each other.
fn apart(places: &[f64]) -> bool {
    let all = places[places.len() - 1] - places[0];
    places
        .windows(2)
        .all(|pair| pair[1] - pair[0] > all * 0.075)
}

/// Steps of 1, 2 or 5 times a power of ten, about five of them, from 0.
fn differences(high: f64) -> Vec<f64> {
    let rough = high / 5.0;
    let power = 10f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .find(|factor| factor * power >= rough * 0.9999);
    let step = factor.unwrap_or(10.0) * power;
    let count = (high / step * 0.9999).ceil() as usize;
    (0..=count).map(|tick| tick as f64 * step).collect()
}

/// Powers of ten; where there are few of them, twice and five times them as well.
fn factors(low: f64, high: f64) -> Vec<f64> {
    let (bottom, top) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    let within = if top - bottom > 3 {
        &[1.0][..]
    } else {
        &[1.0, 2.0, 5.0]
    };
    let all: Vec<f64> = (bottom..=top)
        .flat_map(|power| within.iter().map(move |factor| factor * 10f64.powi(power)))
        .collect();
    // From the last tick that is not above all values to the first that is not below.
    let end = all.len() - 1;
    let first = all
        .iter()
        .rposition(|tick| *tick <= low * 1.0001)
        .unwrap_or(0)
        .min(end - 1);
    let last = all
        .iter()
        .position(|tick| *tick >= high * 0.9999)
        .unwrap_or(end)
        .max(first + 1);
    all[first..=last].iter().map(|tick| tick.log10()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(scale: &Scale) -> Vec<String> {
        scale
            .ticks
            .iter()
            .map(|tick| scale.format_ext(tick))
            .collect()
    }

    #[test]
    fn ticks_are_round_and_hold_all_values() {
        let scale = Scale::round(&Axis::linear(""), [3.0, 87.0].into_iter());
        assert_eq!(names(&scale), ["0", "20", "40", "60", "80", "100"]);
        assert_eq!(
            names(&Scale::round(&Axis::linear(""), [0.5].into_iter())),
            ["0", "0.1", "0.2", "0.3", "0.4", "0.5"]
        );
        assert_eq!(
            names(&Scale::round(&Axis::linear(""), std::iter::empty())),
            ["0", "1"]
        );
    }

    #[test]
    fn ticks_of_factors_begin_and_end_near_the_values() {
        let scale = Scale::round(&Axis::log(""), [0.12, 0.4].into_iter());
        assert_eq!(names(&scale), ["0.1", "0.2", "0.5"]);
        let scale = Scale::round(&Axis::log(""), [1.0, 1.0].into_iter());
        assert!(scale.range.start < scale.range.end);
    }

    #[test]
    fn few_values_have_a_tick_each() {
        let scale = Scale::own(&Axis::log(""), [1.0, 64.0, 1000.0, 64.0].into_iter());
        assert_eq!(names(&scale), ["1", "64", "1,000"]);
        assert!(scale.range.start < 0.0 && scale.range.end > 3.0);
    }
}
