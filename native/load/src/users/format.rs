//! Numbers for people.

use std::fmt;

use crate::summary::Summary;

/// `12.3 ms`, from microseconds.
pub(super) fn time(microseconds: u64) -> String {
    match microseconds {
        0..1_000 => format!("{microseconds} µs"),
        1_000..1_000_000 => format!("{} ms", three_digits(microseconds as f64 / 1e3)),
        _ => format!("{} s", three_digits(microseconds as f64 / 1e6)),
    }
}

/// `1.23 MB`: powers of 1000.
pub(super) fn bytes(count: f64) -> String {
    let (count, sign) = (count.abs(), if count < 0.0 { "-" } else { "" });
    let units = [(1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
    match units.into_iter().find(|(unit, _)| count >= *unit) {
        Some((unit, name)) => format!("{sign}{} {name}", three_digits(count / unit)),
        None => format!("{sign}{count:.0} B"),
    }
}

/// Three digits that count, no exponent: `1.23`, `12.3`, `123`, `1234`.
pub(super) fn three_digits(number: f64) -> String {
    match number.abs() {
        size if size < 9.995 => format!("{number:.2}"),
        size if size < 99.95 => format!("{number:.1}"),
        _ => format!("{number:.0}"),
    }
}

/// A summary in one line.
pub(super) struct Latency<'a>(pub(super) &'a Summary);

impl fmt::Display for Latency<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary {
            p50,
            p90,
            p99,
            p999,
            max,
            ..
        } = *self.0;
        write!(
            f,
            "p50 {}, p90 {}, p99 {}, p99.9 {}, longest {}",
            time(p50),
            time(p90),
            time(p99),
            time(p999),
            time(max)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(time(999), "999 µs");
        assert_eq!(time(1_234), "1.23 ms");
        assert_eq!(time(45_678_901), "45.7 s");
        assert_eq!(bytes(12.0), "12 B");
        assert_eq!(bytes(98_765.0), "98.8 kB");
        assert_eq!(bytes(-1_234_567.0), "-1.23 MB");
        assert_eq!(three_digits(9.999), "10.0");
    }
}
