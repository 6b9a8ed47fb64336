//! Draws the rates as an SVG file.

use plotters::prelude::{
    ChartBuilder, Color, IntoDrawingArea, IntoFont, IntoSegmentedCoord, Palette, Palette99, Rectangle, SVGBackend,
    SegmentValue, WHITE,
};

/// The rates of each contender, in messages per second, by the percentage of duplicates.
pub(super) type Rates = Vec<(u32, Vec<(&'static str, f64)>)>;

/// Draws a group of bars for each percentage of duplicates.
pub(super) fn draw(path: &str, rates: &Rates) {
    let area = SVGBackend::new(path, (900, 420)).into_drawing_area();
    area.fill(&WHITE).expect("a background");
    let highest = rates.iter().flat_map(|(_, rates)| rates).map(|(_, rate)| *rate).fold(1.0, f64::max);
    let contenders = rates.first().map_or(0, |(_, rates)| rates.len());
    // Each group ends with a gap of one bar.
    let bars = rates.len() * (contenders + 1);
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .caption("Messages per second", ("sans-serif", 18).into_font())
        .x_label_area_size(30)
        .y_label_area_size(70)
        .build_cartesian_2d((0..bars).into_segmented(), 0.0..highest * 1.1)
        .expect("a chart");
    let label = |segment: &SegmentValue<usize>| match segment {
        SegmentValue::CenterOf(bar) if bar % (contenders + 1) == contenders / 2 => {
            rates.get(bar / (contenders + 1)).map_or(String::new(), |(percent, _)| format!("{percent} % duplicates"))
        }
        _ => String::new(),
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(bars)
        .x_label_formatter(&label)
        .y_label_formatter(&|rate| format!("{rate:.0}"))
        .draw()
        .expect("axes");
    for contender in 0..contenders {
        let color = Palette99::pick(contender).filled();
        let bars = rates.iter().enumerate().map(|(group, (_, rates))| {
            let bar = group * (contenders + 1) + contender;
            Rectangle::new([(SegmentValue::Exact(bar), 0.0), (SegmentValue::Exact(bar + 1), rates[contender].1)], color)
        });
        let name = rates[0].1[contender].0;
        chart
            .draw_series(bars)
            .expect("bars")
            .label(name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 10, y + 5)], color));
    }
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).draw().expect("a legend");
    area.present().expect("a file");
}
