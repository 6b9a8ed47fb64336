//! The days of an audit, and its time limits.

use std::time::Duration;

use netagg_core::Day;

/// Which days to audit, and how long to wait for the services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditOptions {
    /// The first day; `None` for the first day with events or totals.
    pub from: Option<Day>,
    /// The last day; `None` for the last day with events or totals.
    pub to: Option<Day>,
    /// How long to wait for a service that is behind the other service, and for due repairs.
    pub patience: Duration,
    /// Whether the topic is known to be recreated. An audit with consumer groups also finds this out by itself. After a
    /// recreation, a service may process the same offsets for the second time, so offsets do not show which service is
    /// ahead.
    pub topic_is_recreated: bool,
}

impl Default for AuditOptions {
    /// All days, with a patience of one minute.
    fn default() -> Self {
        Self { from: None, to: None, patience: Duration::from_secs(60), topic_is_recreated: false }
    }
}
