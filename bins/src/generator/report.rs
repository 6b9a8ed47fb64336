//! The six figures of the generator, and its progress bar.

use indicatif::ProgressBar;
use netagg_core::load::{LoadConfig, LoadReport};

use crate::process::outln;
use crate::progress;

/// Prints the figures to stdout, one per line.
pub(super) fn print(report: &LoadReport) {
    outln!("events_sent: {}", report.events_sent);
    outln!("events_verified: {}", report.events_verified);
    outln!("events_failed: {}", report.events_failed);
    outln!("events_per_sec: {:.1}", report.events_per_sec);
    match report.success_rate() {
        // Rounded down, so that 100 % means all events.
        Some(percent) => outln!("success_rate: {:.2}%", (percent * 100.0).floor() / 100.0),
        None => outln!("success_rate: -"),
    }
    match report.avg_latency {
        Some(latency) => outln!("avg_latency: {:.1} ms", latency.as_secs_f64() * 1_000.0),
        None => outln!("avg_latency: -"),
    }
    outln!();
}

/// The progress bar of the sent events.
pub(super) fn progress_bar(load: &LoadConfig) -> ProgressBar {
    let by_duration =
        load.duration.zip(load.events_per_sec).map(|(duration, rate)| (duration.as_secs_f64() * rate as f64) as u64);
    let events = load.events.or(by_duration);
    let template = match events {
        Some(_) => "{bar:40} {human_pos}/{human_len} events, {per_sec}, {eta} left",
        None => "{spinner} {human_pos} events, {per_sec}",
    };
    progress::progress_bar(events, template)
}
