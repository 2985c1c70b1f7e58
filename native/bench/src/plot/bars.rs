//! Draws [`Bars`].

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use crate::error::Result;
use crate::figure::number;
use crate::plot::canvas::{self, DARK, Entry, LIGHT, MIDDLE, Mark, Sheet, TEXT, failed};
use crate::plot::scale::Scale;
use crate::plot::{Bar, Bars, Group};

/// The space between two groups, in bars.
const GAP: f64 = 0.7;

/// How wide a bar is, of the place that it has.
const FILL: f64 = 0.82;

/// From one line of text to the next.
const LINE: i32 = 15;

/// Of a bar that nothing is beside, as a share of all: it would be a wall.
const WIDEST: f64 = 0.12;

/// The plot as SVG.
pub fn svg(plot: &Bars) -> Result<String> {
    let entry = |(ink, label): &(crate::plot::Ink, String)| Entry {
        mark: Mark::Box,
        colour: ink.colour(),
        label: label.clone(),
    };
    let legend: Vec<Entry> = plot.legend.iter().map(entry).collect();
    canvas::draw(&plot.title, &legend, |sheet| draw(plot, sheet))
}

fn draw(plot: &Bars, sheet: &Sheet<'_>) -> Result<()> {
    let bars = || plot.groups.iter().flat_map(|group| &group.bars);
    // Room for the number above the highest.
    let y = Scale::round(&plot.y, bars().map(|bar| top(bar) * 1.06));
    let across: f64 = plot
        .groups
        .iter()
        .map(|group| group.bars.len() as f64 + GAP)
        .sum();
    // The plot's width without what is beside it tells whether labels take two lines.
    let pitch = f64::from(canvas::WIDTH - 100) / across;
    let labels = height(bars().map(|bar| (bar.label.as_str(), pitch)));
    let names = plot
        .groups
        .iter()
        .map(|group| (group.label.as_str(), room(group, pitch)));
    let names = height(names);
    let mut chart = ChartBuilder::on(sheet)
        .margin_right(16)
        .margin_top(14)
        .margin_left(8)
        .margin_bottom(14 + labels + names)
        .y_label_area_size(74)
        .build_cartesian_2d(Scale::bare(0.0..across), y.clone())
        .map_err(failed)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .disable_x_axis()
        .light_line_style(TRANSPARENT)
        .bold_line_style(LIGHT)
        .axis_style(MIDDLE)
        .y_labels(y.ticks())
        .y_desc(plot.y.title.as_str())
        .label_style(("sans-serif", TEXT).into_font().color(&DARK))
        .axis_desc_style(canvas::style(TEXT, HPos::Center, VPos::Top))
        .draw()
        .map_err(failed)?;

    let area = chart.plotting_area();
    let pixel = |x: f64, y: f64| {
        let (x, y) = area.map_coordinate(&(x, y));
        let (sheet_x, sheet_y) = sheet.get_pixel_range();
        (x - sheet_x.start, y - sheet_y.start)
    };
    let half = (FILL / 2.0).min(across * WIDEST / 2.0);
    let mut left = GAP / 2.0;
    for group in &plot.groups {
        for (number_of, bar) in group.bars.iter().enumerate() {
            let middle = left + number_of as f64 + 0.5;
            draw_bar(sheet, bar, middle, half, pitch, &pixel)?;
        }
        let (x, y) = pixel(left + group.bars.len() as f64 / 2.0, 0.0);
        write(sheet, &group.label, (x, y + 7 + labels), room(group, pitch))?;
        left += group.bars.len() as f64 + GAP;
    }
    let (start, end) = (pixel(0.0, 0.0), pixel(across, 0.0));
    sheet
        .draw(&PathElement::new(vec![start, end], MIDDLE))
        .map_err(failed)
}

fn draw_bar(
    sheet: &Sheet<'_>,
    bar: &Bar,
    middle: f64,
    half: f64,
    pitch: f64,
    pixel: &dyn Fn(f64, f64) -> (i32, i32),
) -> Result<()> {
    let mut bottom = 0.0;
    // A slope may come out below 0; there is nothing to draw of it.
    for (ink, size) in bar.pieces.iter().map(|(ink, size)| (ink, size.max(0.0))) {
        let corners = [
            pixel(middle - half, bottom + size),
            pixel(middle + half, bottom),
        ];
        sheet
            .draw(&Rectangle::new(corners, ink.colour().filled()))
            .map_err(failed)?;
        bottom += size;
    }
    if bar.whole.0.len() > 1 {
        let line = vec![
            pixel(middle, bar.whole.low()),
            pixel(middle, bar.whole.high()),
        ];
        sheet.draw(&PathElement::new(line, DARK)).map_err(failed)?;
    }
    let text = number(bar.whole.median());
    let size = fitting(&text, pitch);
    let (x, y) = pixel(middle, top(bar));
    sheet
        .draw(&Text::new(
            text,
            (x, y - 4),
            canvas::style(size, HPos::Center, VPos::Bottom),
        ))
        .map_err(failed)?;
    let (x, y) = pixel(middle, 0.0);
    write(sheet, &bar.label, (x, y + 6), pitch)
}

/// Writes a label that may be so wide, its top in the middle at `x` and `y`.
fn write(sheet: &Sheet<'_>, label: &str, (x, y): (i32, i32), pixels: f64) -> Result<()> {
    for (line, text) in (0..).zip(lines(label, pixels)) {
        let style = canvas::style(fitting(text, pixels), HPos::Center, VPos::Top);
        let text = Text::new(text.to_owned(), (x, y + line * LINE), style);
        sheet.draw(&text).map_err(failed)?;
    }
    Ok(())
}

/// How wide a group's label may be.
fn room(group: &Group, pitch: f64) -> f64 {
    (group.bars.len() as f64 + GAP) * pitch
}

/// How high the highest of these labels is, each with how wide it may be.
fn height<'a>(labels: impl Iterator<Item = (&'a str, f64)>) -> i32 {
    let shown = labels.filter(|(label, _)| !label.is_empty());
    let most = shown
        .map(|(label, pixels)| lines(label, pixels).len())
        .max();
    most.map_or(0, |lines| 2 + LINE * lines as i32)
}

/// A label that does not fit is broken at its first space.
fn lines(label: &str, pixels: f64) -> Vec<&str> {
    match label.split_once(' ') {
        Some((first, rest)) if f64::from(canvas::width(label, TEXT)) >= pixels => vec![first, rest],
        _ => vec![label],
    }
}

/// The size at which a text fits so many pixels; one that is too long even when small overlaps.
fn fitting(text: &str, pixels: f64) -> f64 {
    [TEXT, 12.0, 11.0, 10.0]
        .into_iter()
        .find(|size| f64::from(canvas::width(text, *size)) < pixels)
        .unwrap_or(9.0)
}

/// Where a bar ends, its range included.
fn top(bar: &Bar) -> f64 {
    let sum: f64 = bar.pieces.iter().map(|(_, size)| size.max(0.0)).sum();
    sum.max(bar.whole.high())
}
