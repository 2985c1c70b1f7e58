//! A figure: what several runs gave, as median and range; and two of them compared in words.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What several runs gave.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Figure(pub Vec<f64>);

/// Ratios closer to 1 than this are called the same.
const SAME: f64 = 0.03;

impl Figure {
    /// The median, the mean of the middle two of an even number; 0 of none.
    pub fn median(&self) -> f64 {
        let sorted = self.sorted();
        match sorted.len() {
            0 => 0.0,
            n if n % 2 == 1 => sorted[n / 2],
            n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
        }
    }

    /// The least, or 0 of none.
    pub fn low(&self) -> f64 {
        self.sorted().first().copied().unwrap_or(0.0)
    }

    /// The greatest, or 0 of none.
    pub fn high(&self) -> f64 {
        self.sorted().last().copied().unwrap_or(0.0)
    }

    /// Each value changed, the unit for example.
    pub fn map(&self, change: impl Fn(f64) -> f64) -> Self {
        Self(self.0.iter().copied().map(change).collect())
    }

    /// Run by run the sum of both.
    pub fn plus(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(a, b)| a + b).collect())
    }

    /// How this is beside `other`, in words: `31 % less`, `2.4 times as much`, `the same`. A note says so
    /// where the ranges of both overlap, as then the runs do not tell them apart. There are no words for what is not
    /// above 0.
    pub fn beside(&self, other: &Self) -> String {
        if self.median() <= 0.0 || other.median() <= 0.0 {
            return "–".to_owned();
        }
        let words = ratio(self.median() / other.median());
        let overlap = self.low() <= other.high() && other.low() <= self.high();
        if overlap && words != "the same" && self.0.len() > 1 {
            format!("{words} (ranges overlap)")
        } else {
            words
        }
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

impl FromIterator<f64> for Figure {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

impl From<f64> for Figure {
    fn from(value: f64) -> Self {
        Self(vec![value])
    }
}

/// `12.3 (11.9 to 13.0)`; of one value `12.3`.
impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            0 => f.write_str("–"),
            1 => f.write_str(&number(self.0[0])),
            _ => write!(
                f,
                "{} ({} to {})",
                number(self.median()),
                number(self.low()),
                number(self.high())
            ),
        }
    }
}

/// A ratio in words: `31 % less`, `12 % more`, `2.4 times as much`, `the same`.
pub fn ratio(ratio: f64) -> String {
    match ratio {
        r if !r.is_finite() => "–".to_owned(),
        r if (r - 1.0).abs() < SAME => "the same".to_owned(),
        r if r < 1.0 => format!("{:.0} % less", (1.0 - r) * 100.0),
        r if r < 1.95 => format!("{:.0} % more", (r - 1.0) * 100.0),
        r => format!("{r:.1} times as much"),
    }
}

/// A number for people: three digits that count, thousands apart: `0.0123`, `1.23`, `12.3`, `123`, `12,345`.
pub fn number(value: f64) -> String {
    let size = value.abs();
    let decimals = match size {
        s if s == 0.0 || s >= 99.95 => 0,
        s if s >= 9.995 => 1,
        s if s >= 0.9995 => 2,
        s if s >= 0.09995 => 3,
        _ => 4,
    };
    thousands(&format!("{value:.decimals$}"))
}

/// A whole number with thousands apart: `64`, `1,000`.
pub fn count(number: impl Into<u64>) -> String {
    thousands(&number.into().to_string())
}

fn thousands(digits: &str) -> String {
    let (whole, fraction) = digits
        .split_once('.')
        .map_or((digits, None), |(w, f)| (w, Some(f)));
    let (sign, whole) = whole.strip_prefix('-').map_or(("", whole), |w| ("-", w));
    let mut text = String::from(sign);
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if let Some(fraction) = fraction {
        text.push('.');
        text.push_str(fraction);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_odd_and_an_even_number() {
        assert_eq!(Figure(vec![3.0, 1.0, 2.0]).median(), 2.0);
        assert_eq!(Figure(vec![4.0, 1.0, 2.0, 3.0]).median(), 2.5);
        assert_eq!(Figure::default().median(), 0.0);
    }

    #[test]
    fn numbers_have_three_digits_that_count_and_thousands_apart() {
        let shown: Vec<String> = [
            0.0,
            0.01234,
            0.5,
            1.2345,
            12.345,
            123.45,
            1234.5,
            1_234_567.0,
            -1234.0,
        ]
        .into_iter()
        .map(number)
        .collect();
        let wanted = [
            "0",
            "0.0123",
            "0.500",
            "1.23",
            "12.3",
            "123",
            "1,234",
            "1,234,567",
            "-1,234",
        ];
        assert_eq!(shown, wanted);
        assert_eq!([count(64u32), count(20_000u32)], ["64", "20,000"]);
    }

    #[test]
    fn ratios_are_words() {
        assert_eq!(ratio(0.69), "31 % less");
        assert_eq!(ratio(1.02), "the same");
        assert_eq!(ratio(1.5), "50 % more");
        assert_eq!(ratio(2.42), "2.4 times as much");
        assert_eq!(ratio(f64::NAN), "–");
    }

    #[test]
    fn overlapping_ranges_are_said() {
        let (a, b) = (Figure(vec![1.0, 2.0, 3.0]), Figure(vec![2.5, 4.0, 5.0]));
        assert_eq!(a.beside(&b), "50 % less (ranges overlap)");
        assert_eq!(Figure::from(-1.0).beside(&a), "–");
        assert_eq!(a.beside(&Figure(vec![8.0, 9.0, 10.0])), "78 % less");
    }
}
