//! The generator's six figures, and its progress.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::load::{LoadConfig, LoadStats};
use super::verify::VerifyStats;
use crate::output::outln;

/// The figures of a run at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(clippy::exhaustive_structs)]
pub struct Report {
    /// Distinct valid events sent.
    pub events_sent: u64,
    /// Of these, found stored.
    pub events_verified: u64,
    /// Of these, missing or stored more than once, as far as it is certain.
    pub events_failed: u64,
    /// Sent per second, on average.
    pub events_per_sec: f64,
    /// From sending to being visible, on average; `None` before the first was seen.
    pub avg_latency: Option<Duration>,
}

impl Report {
    pub(super) fn new(load: &LoadStats, verify: &VerifyStats, sending: Duration) -> Self {
        let events_sent = load.events();
        Self {
            events_sent,
            events_verified: verify.verified(),
            events_failed: verify.failed(),
            events_per_sec: events_sent as f64 / sending.as_secs_f64().max(f64::EPSILON),
            avg_latency: verify.average_latency(),
        }
    }

    /// Whether every event sent is stored once.
    pub fn is_success(&self) -> bool {
        self.events_verified == self.events_sent && self.events_failed == 0
    }

    /// The share of sent events that are known to be stored once, in percent; `None` before the first was sent.
    pub fn success_rate(&self) -> Option<f64> {
        (self.events_sent > 0).then(|| 100.0 * self.events_verified as f64 / self.events_sent as f64)
    }

    /// Prints one figure a line to stdout.
    pub fn print(&self) {
        outln!("events_sent: {}", self.events_sent);
        outln!("events_verified: {}", self.events_verified);
        outln!("events_failed: {}", self.events_failed);
        outln!("events_per_sec: {:.1}", self.events_per_sec);
        match self.success_rate() {
            // Rounded down: only all is 100 %.
            Some(percent) => outln!("success_rate: {:.2}%", (percent * 100.0).floor() / 100.0),
            None => outln!("success_rate: -"),
        }
        match self.avg_latency {
            Some(latency) => outln!("avg_latency: {:.1} ms", latency.as_secs_f64() * 1_000.0),
            None => outln!("avg_latency: -"),
        }
        outln!();
    }
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
