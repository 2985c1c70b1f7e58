//! Draws [`Lines`].

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use crate::error::Result;
use crate::plot::canvas::{self, DARK, Entry, LIGHT, MIDDLE, Mark, Sheet, TEXT, failed};
use crate::plot::scale::Scale;
use crate::plot::{Lines, Series};

/// The plot as SVG.
pub fn svg(plot: &Lines) -> Result<String> {
    let legend: Vec<Entry> = plot
        .series
        .iter()
        .map(|series| Entry {
            mark: if series.dashed {
                Mark::Dashes
            } else {
                Mark::Line
            },
            colour: series.ink.colour(),
            label: series.label.clone(),
        })
        .collect();
    canvas::draw(&plot.title, &legend, |sheet| draw(plot, sheet))
}

fn draw(plot: &Lines, sheet: &Sheet<'_>) -> Result<()> {
    let points = || plot.series.iter().flat_map(|series| &series.points);
    let x = Scale::own(&plot.x, points().map(|(x, _)| *x));
    let y = Scale::round(&plot.y, points().flat_map(|(_, y)| [y.low(), y.high()]));
    let label = canvas::style(TEXT, HPos::Center, VPos::Top);
    let mut chart = ChartBuilder::on(sheet)
        .margin_right(34)
        .margin_bottom(8)
        .margin_top(12)
        .margin_left(8)
        .x_label_area_size(46)
        .y_label_area_size(74)
        .build_cartesian_2d(x.clone(), y.clone())
        .map_err(failed)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(LIGHT)
        .axis_style(MIDDLE)
        .x_labels(x.ticks())
        .y_labels(y.ticks())
        .x_desc(plot.x.title.as_str())
        .y_desc(plot.y.title.as_str())
        .label_style(("sans-serif", TEXT).into_font().color(&DARK))
        .axis_desc_style(label)
        .draw()
        .map_err(failed)?;
    for series in &plot.series {
        draw_series(series, &x, &y, &mut chart)?;
    }
    Ok(())
}

type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<Scale, Scale>>;

fn draw_series(series: &Series, x: &Scale, y: &Scale, chart: &mut Chart<'_, '_>) -> Result<()> {
    let colour = series.ink.colour();
    let at = |across: f64, up: f64| (x.place(across), y.place(up));
    let medians: Vec<(f64, f64)> = series
        .points
        .iter()
        .map(|(x, y)| at(*x, y.median()))
        .collect();
    if series.dashed {
        let dashes = DashedLineSeries::new(medians.iter().copied(), 7, 5, colour.stroke_width(2));
        chart.draw_series(dashes).map_err(failed)?;
    } else {
        chart
            .draw_series(LineSeries::new(
                medians.iter().copied(),
                colour.stroke_width(3),
            ))
            .map_err(failed)?;
    }
    let ranges = series.points.iter().filter(|(_, y)| y.0.len() > 1);
    let ranges = ranges.map(|(x, y)| {
        PathElement::new(
            vec![at(*x, y.low()), at(*x, y.high())],
            colour.stroke_width(1),
        )
    });
    chart.draw_series(ranges).map_err(failed)?;
    let dots = medians
        .iter()
        .map(|point| Circle::new(*point, 4, colour.filled()));
    chart.draw_series(dots).map_err(failed)?;
    Ok(())
}
