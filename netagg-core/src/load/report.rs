//! The report of a load.

use std::time::Duration;

/// The counts and times of a run at one instant.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct LoadReport {
    /// The number of distinct valid events that were sent.
    pub events_sent: u64,
    /// The number of sent events that were found in the store.
    pub events_verified: u64,
    /// The number of sent events that are missing or stored more than once. It is 0 until the check at the end of the run.
    pub events_failed: u64,
    /// The average number of events sent per second.
    pub events_per_sec: f64,
    /// The average time from sending an event until it is visible in the store; `None` before the first measurement.
    pub avg_latency: Option<Duration>,
}

impl LoadReport {
    /// Whether every sent event is stored exactly once. It is final only at the end of the run.
    pub fn is_success(&self) -> bool {
        self.events_verified == self.events_sent && self.events_failed == 0
    }

    /// The share of sent events that are verified, in percent; `None` before the first event was sent.
    pub fn success_rate(&self) -> Option<f64> {
        (self.events_sent > 0).then(|| 100.0 * self.events_verified as f64 / self.events_sent as f64)
    }
}
