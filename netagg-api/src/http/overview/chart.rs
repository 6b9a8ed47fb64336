//! Draws totals as an SVG image: one column for each period, with a part for each type.

use netagg_core::EventType;
use plotters::prelude::{
    ChartBuilder, Color, DrawingAreaErrorKind, IntoDrawingArea, IntoFont, RGBColor, Rectangle, SVGBackend,
};

use super::measure::Measure;
use crate::handlers::HandlerError;

/// The height in pixels. The width follows the width of the browser.
const HEIGHT: u32 = 280;

/// The space of one label at the horizontal axis, in pixels.
const LABEL_WIDTH: u32 = 90;

/// How opaque the column of a period is that is not complete yet. It also has an outline.
const INCOMPLETE: f64 = 0.5;

/// The colors of the types. Each has a contrast of at least 3:1 to the light and to the dark background of the page.
const COLORS: [RGBColor; EventType::ALL.len()] = [
    RGBColor(0x2f, 0x7e, 0xd8),
    RGBColor(0x12, 0x94, 0x8b),
    RGBColor(0xc9, 0x65, 0x1a),
    RGBColor(0xd6, 0x45, 0x6b),
    RGBColor(0x8f, 0x5f, 0xe0),
];

/// A column of the chart.
pub(super) struct Column {
    /// The label at the horizontal axis.
    pub(super) label: String,
    /// The amount of each type.
    pub(super) amounts: [f64; EventType::ALL.len()],
    /// Whether the totals contain every event that the log held at the end of the period.
    pub(super) is_complete: bool,
}

/// Draws `columns` in an image of `width` pixels.
pub(super) fn draw(columns: &[Column], measure: Measure, width: u32) -> Result<String, HandlerError> {
    let mut svg = String::new();
    draw_into(&mut svg, columns, measure, width).map_err(|error| {
        tracing::error!(%error, "cannot draw a chart");
        HandlerError::Internal
    })?;
    Ok(svg)
}

type DrawingError = DrawingAreaErrorKind<std::io::Error>;

fn draw_into(svg: &mut String, columns: &[Column], measure: Measure, width: u32) -> Result<(), DrawingError> {
    let area = SVGBackend::with_string(svg, (width, HEIGHT)).into_drawing_area();
    let highest = columns.iter().map(|column| column.amounts.iter().sum()).fold(0.0, f64::max);
    // An axis needs a range, also if all amounts are 0.
    let top = if highest > 0.0 { highest * 1.05 } else { 1.0 };
    // The axis of a zone without any day of the range is as wide as for one day.
    let places = columns.len().max(1);
    let mut chart = ChartBuilder::on(&area)
        .margin_top(10)
        .margin_right(10)
        .x_label_area_size(28)
        .y_label_area_size(64)
        .build_cartesian_2d(-0.5..places as f64 - 0.5, 0.0..top)?;
    // The center of each column has a whole number. Other places at the axis have no label.
    let label = |place: &f64| {
        let is_center = (place - place.round()).abs() < 1e-6;
        let column = columns.get(place.round() as usize).filter(|_| is_center);
        column.map_or_else(String::new, |column| column.label.clone())
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(places.min((width / LABEL_WIDTH) as usize))
        .y_labels(5)
        .y_max_light_lines(1)
        .x_label_formatter(&label)
        .y_label_formatter(&|amount| measure.axis_label(*amount))
        .label_style(("sans-serif", 13).into_font())
        .draw()?;
    let parts = columns.iter().enumerate().flat_map(|(at, column)| {
        let opacity = if column.is_complete { 1.0 } else { INCOMPLETE };
        // Columns that are wide enough have a gap between them.
        let gap = if columns.len() as u32 * 8 < width { 1 } else { 0 };
        let mut bottom = 0.0;
        std::iter::zip(column.amounts, COLORS).filter(|(amount, _)| *amount > 0.0).flat_map(move |(amount, color)| {
            let corners = [(at as f64 - 0.5, bottom), (at as f64 + 0.5, bottom + amount)];
            bottom += amount;
            let part = |style| {
                let mut part = Rectangle::new(corners, style);
                part.set_margin(0, 0, gap, gap);
                part
            };
            let outline = (!column.is_complete).then(|| part(color.stroke_width(1)));
            [Some(part(color.mix(opacity).filled())), outline].into_iter().flatten()
        })
    });
    chart.draw_series(parts)?;
    area.present()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(label: &str, amounts: [f64; 5], is_complete: bool) -> Column {
        Column { label: label.to_owned(), amounts, is_complete }
    }

    #[test]
    fn each_amount_has_a_part_in_the_color_of_its_type() {
        let columns = [
            column("2025-10-19", [10.0, 0.0, 0.0, 0.0, 20.0], true),
            column("2025-10-20", [0.0, 0.0, 5.0, 0.0, 0.0], false),
        ];
        let svg = draw(&columns, Measure::Events, 800).expect("a chart");
        let parts = |color: &str| {
            let fill = format!("fill=\"{color}\"");
            svg.lines().filter(|line| line.contains("<rect") && line.contains(&fill)).collect::<Vec<_>>()
        };
        for (color, number) in [("#2F7ED8", 1), ("#12948B", 0), ("#C9651A", 1), ("#D6456B", 0), ("#8F5FE0", 1)] {
            assert_eq!(parts(color).len(), number, "{color}: {svg}");
        }
        assert!(parts("#C9651A")[0].contains("opacity=\"0.5\""), "an incomplete period is faint");
        assert!(svg.contains("2025-10-19") && svg.contains("2025-10-20"), "{svg}");
        assert!(!svg.contains("style="), "the content security policy forbids style attributes");
    }

    #[test]
    fn one_period_without_events_has_axes() {
        let svg = draw(&[column("2025-10", [0.0; 5], true)], Measure::Bytes, 240).expect("a chart");
        assert!(svg.contains("2025-10") && svg.contains("0 B"), "{svg}");
    }

    #[test]
    fn every_number_of_periods_fits_into_every_width() {
        for number in (1..40).chain([100, 365, 400]) {
            let columns: Vec<_> = (0..number).map(|at| column(&format!("d{at}."), [1.0; 5], true)).collect();
            for width in [240, 960, 1_600] {
                let svg = draw(&columns, Measure::Events, width).expect("a chart");
                assert!(!svg.contains("=\"-"), "a negative size: {number} periods in {width} pixels: {svg}");
                let labels = columns.iter().filter(|column| svg.contains(&column.label)).count();
                let most = width as usize / 60;
                assert!((1..=most).contains(&labels), "{labels} labels: {number} periods in {width} pixels: {svg}");
            }
        }
    }

    #[test]
    fn the_legend_has_the_colors_of_the_chart() {
        for (event_type, RGBColor(red, green, blue)) in std::iter::zip(EventType::ALL, COLORS) {
            let rule = format!(".{event_type}::before {{ background: #{red:02x}{green:02x}{blue:02x}; }}");
            assert!(include_str!("../../../templates/overview/style.css").contains(&rule), "{rule}");
        }
    }
}
