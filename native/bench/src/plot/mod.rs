//! Plots, as data. [`Plot::svg`] draws them.

mod bars;
mod canvas;
mod ink;
mod lines;
mod scale;

pub use ink::Ink;

use crate::figure::Figure;

/// A plot.
#[derive(Debug, Clone)]
pub enum Plot {
    /// Lines over an axis of numbers.
    Lines(Lines),
    /// Bars side by side, each a stack of one or more pieces.
    Bars(Bars),
}

/// Lines over an axis of numbers, each with its points; a point's range is a thin vertical line.
#[derive(Debug, Clone, Default)]
pub struct Lines {
    /// The file's name without `.svg`: `chat-latency`.
    pub file: String,
    /// What it shows, in a line.
    pub title: String,
    /// What goes to the right, with its unit.
    pub x: Axis,
    /// What goes up, with its unit.
    pub y: Axis,
    /// The lines.
    pub series: Vec<Series>,
}

/// An axis.
#[derive(Debug, Clone, Default)]
pub struct Axis {
    /// What it is and in which unit: `messages a second`.
    pub title: String,
    /// Equal steps are equal factors. All values must be above 0 then.
    pub log: bool,
}

impl Axis {
    /// With equal steps for equal differences, from 0.
    pub fn linear(title: &str) -> Self {
        Self {
            title: title.to_owned(),
            log: false,
        }
    }

    /// With equal steps for equal factors.
    pub fn log(title: &str) -> Self {
        Self {
            title: title.to_owned(),
            log: true,
        }
    }
}

/// A line.
#[derive(Debug, Clone)]
pub struct Series {
    /// For the legend: `stock`, `megaphone`, ...
    pub label: String,
    /// Its colour.
    pub ink: Ink,
    /// Drawn with gaps, where one colour has two lines (p50 and p99, say).
    pub dashed: bool,
    /// Its points, from left to right.
    pub points: Vec<(f64, Figure)>,
}

impl Series {
    /// A whole line without points yet.
    pub fn new(label: impl Into<String>, ink: Ink) -> Self {
        Self {
            label: label.into(),
            ink,
            dashed: false,
            points: Vec::new(),
        }
    }

    /// With gaps.
    pub fn dashed(mut self) -> Self {
        self.dashed = true;
        self
    }

    /// Adds a point.
    pub fn point(mut self, x: f64, y: Figure) -> Self {
        self.points.push((x, y));
        self
    }
}

/// Bars side by side in groups.
#[derive(Debug, Clone, Default)]
pub struct Bars {
    /// The file's name without `.svg`: `chat-cpu`.
    pub file: String,
    /// What it shows, in a line.
    pub title: String,
    /// What goes up, with its unit; always from 0.
    pub y: Axis,
    /// For the legend, in this order: what each ink is.
    pub legend: Vec<(Ink, String)>,
    /// The groups from left to right.
    pub groups: Vec<Group>,
}

/// Bars that stand together.
#[derive(Debug, Clone)]
pub struct Group {
    /// Below it: `BOSH`, `1,000 connections`.
    pub label: String,
    /// From left to right.
    pub bars: Vec<Bar>,
}

/// A bar: pieces on top of each other, and the range of the whole.
#[derive(Debug, Clone)]
pub struct Bar {
    /// Below it, where the ink does not tell whose it is; else empty.
    pub label: String,
    /// From below: each piece's colour and size.
    pub pieces: Vec<(Ink, f64)>,
    /// The whole, for its range and for the number above it. Its median need not be the sum.
    pub whole: Figure,
}

impl Bar {
    /// A bar of one piece.
    pub fn plain(ink: Ink, figure: &Figure) -> Self {
        Self {
            label: String::new(),
            pieces: vec![(ink, figure.median())],
            whole: figure.clone(),
        }
    }

    /// A bar of pieces whose runs belong together.
    pub fn stack(pieces: &[(Ink, &Figure)]) -> Self {
        let mut whole = Figure::default();
        for (_, figure) in pieces {
            whole = if whole.0.is_empty() {
                (*figure).clone()
            } else {
                whole.plus(figure)
            };
        }
        Self {
            label: String::new(),
            pieces: pieces
                .iter()
                .map(|(ink, figure)| (*ink, figure.median()))
                .collect(),
            whole,
        }
    }

    /// With a label below it.
    pub fn labelled(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }
}

impl From<Lines> for Plot {
    fn from(lines: Lines) -> Self {
        Self::Lines(lines)
    }
}

impl From<Bars> for Plot {
    fn from(bars: Bars) -> Self {
        Self::Bars(bars)
    }
}

impl Plot {
    /// Its file's name without `.svg`.
    pub fn file(&self) -> &str {
        match self {
            Self::Lines(lines) => &lines.file,
            Self::Bars(bars) => &bars.file,
        }
    }

    /// What it shows.
    pub fn title(&self) -> &str {
        match self {
            Self::Lines(lines) => &lines.title,
            Self::Bars(bars) => &bars.title,
        }
    }

    /// Draws it.
    pub fn svg(&self) -> crate::error::Result<String> {
        match self {
            Self::Lines(lines) => lines::svg(lines),
            Self::Bars(bars) => bars::svg(bars),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_show_their_labels_numbers_and_legend() {
        let (stock, ejabberd, ecm) = (
            Figure(vec![9.0, 10.0, 12.0]),
            Figure::from(5.0),
            Figure::from(2.5),
        );
        let plot = Plot::from(Bars {
            file: "cpu".into(),
            title: "CPU of a message".into(),
            y: Axis::linear("seconds"),
            legend: vec![
                (Ink::Stock, "stock".into()),
                (Ink::Megaphone, "ejabberd".into()),
                (Ink::Ecm, "ECM".into()),
            ],
            groups: vec![Group {
                label: "BOSH".into(),
                bars: vec![
                    Bar::plain(Ink::Stock, &stock).labelled("as it stays"),
                    Bar::stack(&[(Ink::Megaphone, &ejabberd), (Ink::Ecm, &ecm)]),
                ],
            }],
        });
        let svg = plot.svg().unwrap();
        for text in [
            "CPU of a message",
            "seconds",
            "BOSH",
            "as it stays",
            "stock",
            "ECM",
            "10.0",
            "7.50",
        ] {
            assert!(svg.contains(text), "no {text} in {svg}");
        }
    }

    #[test]
    fn lines_are_drawn_also_without_points() {
        let mut plot = Lines {
            file: "p99".into(),
            title: "Latency".into(),
            x: Axis::log("users"),
            y: Axis::log("milliseconds"),
            series: vec![
                Series::new("stock", Ink::Stock),
                Series::new("megaphone", Ink::Megaphone).dashed(),
            ],
        };
        assert!(
            Plot::from(plot.clone())
                .svg()
                .unwrap()
                .contains("milliseconds")
        );
        plot.series[1] = plot.series[1]
            .clone()
            .point(1000.0, Figure::from(1.0))
            .point(100_000.0, Figure::from(30.0));
        let svg = Plot::from(plot).svg().unwrap();
        assert!(svg.contains("1,000") && svg.contains("100,000"), "{svg}");
    }
}
