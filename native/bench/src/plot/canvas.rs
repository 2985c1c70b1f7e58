//! What all plots have in common: the sheet with title and legend.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::error::{Error, Result};

/// A sheet to draw on, in pixels.
pub type Sheet<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Pixels. A page of Markdown shows some 800 to 900.
pub const WIDTH: u32 = 860;
const HEIGHT: u32 = 430;
/// Distance from the sheet's edge.
const MARGIN: i32 = 16;
/// Sizes of text.
const TITLE: f64 = 17.0;
/// See [`TITLE`].
pub const TEXT: f64 = 13.0;
/// A character's width as a share of its height: on the safe side for sans-serif.
const ASPECT: f64 = 0.56;

/// Text and lines.
pub const DARK: RGBColor = RGBColor(0x2b, 0x2f, 0x36);
/// Axes.
pub const MIDDLE: RGBColor = RGBColor(0x8a, 0x90, 0x98);
/// Lines behind.
pub const LIGHT: RGBColor = RGBColor(0xe7, 0xe9, 0xec);

/// How an entry of the legend looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// A filled square.
    Box,
    /// A line.
    Line,
    /// A line with gaps.
    Dashes,
}

/// An entry of the legend.
#[derive(Debug, Clone)]
pub struct Entry {
    /// How it looks.
    pub mark: Mark,
    /// Its colour.
    pub colour: RGBColor,
    /// What it is.
    pub label: String,
}

/// Draws a plot of its own size: title and legend, and below them what `draw` draws.
pub fn draw(
    title: &str,
    legend: &[Entry],
    draw: impl FnOnce(&Sheet<'_>) -> Result<()>,
) -> Result<String> {
    let mut text = String::new();
    {
        let sheet = SVGBackend::with_string(&mut text, (WIDTH, HEIGHT)).into_drawing_area();
        sheet.fill(&WHITE).map_err(failed)?;
        let bold = ("sans-serif", TITLE, FontStyle::Bold)
            .into_font()
            .color(&DARK);
        sheet
            .draw(&Text::new(title.to_owned(), (MARGIN, 14), bold))
            .map_err(failed)?;
        let below = draw_legend(&sheet, legend, 46)?;
        let (_, rest) = sheet.split_vertically(below);
        draw(&rest)?;
        sheet.present().map_err(failed)?;
    }
    Ok(text)
}

/// Draws the legend from `top` on, in as many lines as it needs, and says where it ends.
fn draw_legend(sheet: &Sheet<'_>, legend: &[Entry], top: i32) -> Result<i32> {
    const MARK: i32 = 22;
    const LINE: i32 = 21;
    let (mut x, mut y) = (MARGIN, top);
    for Entry {
        mark,
        colour,
        label,
    } in legend
    {
        let wide = MARK + 8 + width(label, TEXT) + 22;
        if x + wide > WIDTH as i32 && x > MARGIN {
            (x, y) = (MARGIN, y + LINE);
        }
        match mark {
            Mark::Box => sheet.draw(&Rectangle::new(
                [(x + 5, y), (x + 18, y + 13)],
                colour.filled(),
            )),
            Mark::Line => sheet.draw(&Rectangle::new(
                [(x, y + 5), (x + MARK, y + 8)],
                colour.filled(),
            )),
            Mark::Dashes => (0..3).try_for_each(|dash| {
                let left = x + 8 * dash;
                sheet.draw(&Rectangle::new(
                    [(left, y + 5), (left + 5, y + 8)],
                    colour.filled(),
                ))
            }),
        }
        .map_err(failed)?;
        let style = style(TEXT, HPos::Left, VPos::Center);
        sheet
            .draw(&Text::new(label.clone(), (x + MARK + 6, y + 7), style))
            .map_err(failed)?;
        x += wide;
    }
    Ok(y + if legend.is_empty() { 0 } else { LINE })
}

/// Dark text of a size, anchored so.
pub fn style(size: f64, horizontal: HPos, vertical: VPos) -> TextStyle<'static> {
    ("sans-serif", size)
        .into_font()
        .color(&DARK)
        .pos(Pos::new(horizontal, vertical))
}

/// About how many pixels a text is wide.
pub fn width(text: &str, size: f64) -> i32 {
    (text.chars().count() as f64 * size * ASPECT).ceil() as i32
}

/// What the drawing crate says, as our error.
pub fn failed<E: std::error::Error + Send + Sync>(error: DrawingAreaErrorKind<E>) -> Error {
    Error(format!("plot: {error}"))
}
