//! The generator's six figures, and its progress.

use indicatif::{ProgressBar, ProgressStyle};
use netagg_core::load::{LoadConfig, LoadReport};

use crate::output::outln;

/// Prints one figure a line to stdout.
pub(super) fn print(report: &LoadReport) {
    outln!("events_sent: {}", report.events_sent);
    outln!("events_verified: {}", report.events_verified);
    outln!("events_failed: {}", report.events_failed);
    outln!("events_per_sec: {:.1}", report.events_per_sec);
    match report.success_rate() {
        // Rounded down: only all is 100 %.
        Some(percent) => outln!("success_rate: {:.2}%", (percent * 100.0).floor() / 100.0),
        None => outln!("success_rate: -"),
    }
    match report.avg_latency {
        Some(latency) => outln!("avg_latency: {:.1} ms", latency.as_secs_f64() * 1_000.0),
        None => outln!("avg_latency: -"),
    }
    outln!();
}

/// A bar on the terminal; nothing where stderr isn't one.
pub(super) fn progress_bar(load: &LoadConfig) -> ProgressBar {
    let by_duration =
        load.duration.zip(load.events_per_sec).map(|(duration, rate)| (duration.as_secs_f64() * rate as f64) as u64);
    let (bar, template) = match load.events.or(by_duration) {
        Some(events) => (ProgressBar::new(events), "{bar:40} {human_pos}/{human_len} events, {per_sec}, {eta} left"),
        None => (ProgressBar::no_length(), "{spinner} {human_pos} events, {per_sec}"),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
