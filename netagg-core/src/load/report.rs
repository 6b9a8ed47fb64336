//! The figures of a load.

use std::time::Duration;

/// The figures of a run at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct LoadReport {
    /// Distinct valid events sent.
    pub events_sent: u64,
    /// Of these, found stored.
    pub events_verified: u64,
    /// Of these, missing or stored more than once. It is 0 until all events are judged, at the end of the run.
    pub events_failed: u64,
    /// Events sent per second, on average.
    pub events_per_sec: f64,
    /// From sending to being visible, on average; `None` before the first event was seen.
    pub avg_latency: Option<Duration>,
}

impl LoadReport {
    /// Whether every event sent is stored once.
    pub fn is_success(&self) -> bool {
        self.events_verified == self.events_sent && self.events_failed == 0
    }

    /// The share of sent events that are known to be stored once, in percent; `None` before the first was sent.
    pub fn success_rate(&self) -> Option<f64> {
        (self.events_sent > 0).then(|| 100.0 * self.events_verified as f64 / self.events_sent as f64)
    }
}
