//! The maintenance of `events_raw`, which runs beside an ingestor. It creates partitions ahead, drops old months, and
//! stores events that were set aside.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use netagg_core::ports::{Clock, SystemClock};
use netagg_core::{Criticality, Error, EventLimits, Month, Readiness, crash};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::client::Postgres;
use crate::retention::{DropError, Retention, first_month_within};
use crate::schema::Partitions;
use crate::stores::{SetAside, WaitingMonth};

/// How often partitions are created ahead and old months are dropped.
const INTERVAL: Duration = Duration::from_secs(60 * 60);

/// The pause before the next attempt after a failure, and between two attempts to store events that were set aside.
const RETRY: Duration = Duration::from_secs(5);

/// The name of this dependency in readiness.
const DEPENDENCY: &str = "partitions";

/// Which monthly partitions of `events_raw` to create ahead, and which to drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionPlan {
    /// How many months after the current month get a partition ahead of time.
    pub ahead: u32,
    /// How long events are kept. A month is dropped once the whole month is older. `None` keeps all events.
    pub retention: Option<Duration>,
}

impl Default for PartitionPlan {
    /// Three months ahead, and no retention.
    fn default() -> Self {
        Self { ahead: 3, retention: None }
    }
}

impl PartitionPlan {
    /// Returns the plan with partitions for this number of months ahead.
    #[must_use]
    pub const fn with_ahead(self, months: u32) -> Self {
        Self { ahead: months, ..self }
    }

    /// Returns the plan that keeps events for this time; `None` keeps all events. The retention must be at least the
    /// [`max_age`](EventLimits::max_age) of the event limits, and of the recorded limits if these have changed. Otherwise no month
    /// is dropped.
    #[must_use]
    pub const fn with_retention(self, retention: Option<Duration>) -> Self {
        Self { retention, ..self }
    }
}

/// The state of the partitions after a round of [`PartitionMaintenance`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MaintenanceReport {
    /// How many of the events that were set aside moved to `events_raw` in this round.
    pub stored: u64,
    /// The months whose partition cannot be created, and the reasons.
    pub not_made: Vec<(Month, String)>,
    /// The months whose events are still set aside.
    pub waiting: Vec<WaitingMonth>,
}

impl MaintenanceReport {
    /// How many events are set aside.
    pub fn events_set_aside(&self) -> u64 {
        self.waiting.iter().map(|month| month.events).sum()
    }

    /// The problem for an optional dependency of readiness: the months without a partition, and how many events wait for
    /// each month. `None` if there is no such month.
    pub fn problem(&self) -> Option<String> {
        let mut problems: BTreeMap<Month, String> =
            self.not_made.iter().map(|(month, reason)| (*month, reason.clone())).collect();
        for WaitingMonth { month, events, reason, .. } in &self.waiting {
            let reason =
                reason.clone().or_else(|| problems.remove(month)).unwrap_or_else(|| "they are being stored".to_owned());
            problems.insert(*month, format!("{events} events of {month} are set aside: {reason}"));
        }
        let problems: Vec<_> = problems.into_values().collect();
        (!problems.is_empty()).then(|| problems.join("; "))
    }
}

/// Keeps the partitions of `events_raw` as a [`PartitionPlan`] says. It runs in the background of an ingestor.
///
/// Every hour it creates partitions ahead and drops months that are too old. Every 5 s it stores events that were set
/// aside, if their month has a partition by now. If an event comes before the partition of its month exists, the event
/// store makes this partition. Several processes may run the maintenance on one database.
#[derive(Debug)]
pub struct PartitionMaintenance {
    partitions: Partitions,
    retention: Retention,
    plan: PartitionPlan,
    limits: EventLimits,
    not_made: Vec<(Month, String)>,
    due: Instant,
}

impl PartitionMaintenance {
    /// The maintenance of `postgres`. All services of this database must use the same `limits`: see
    /// [`Postgres::agree_on_limits`].
    pub fn new(postgres: &Postgres, plan: PartitionPlan, limits: EventLimits) -> Self {
        Self {
            partitions: postgres.partitions(),
            retention: postgres.retention(),
            plan,
            limits,
            not_made: Vec::new(),
            due: Instant::now(),
        }
    }

    /// Runs rounds until `shutdown`. The optional dependency `partitions` of `readiness` shows the
    /// [problem](MaintenanceReport::problem) of the last report. Errors are logged, and the next round tries again.
    pub async fn run(mut self, readiness: Arc<Readiness>, shutdown: CancellationToken) {
        readiness.register(DEPENDENCY, Criticality::Optional);
        readiness.set(DEPENDENCY, None);
        metrics::gauge!("netagg_events_set_aside").set(0.0);
        while !shutdown.is_cancelled() {
            crash::in_task("partitions");
            match self.round().await {
                Ok(round) => {
                    if round.stored > 0 {
                        tracing::info!(events = round.stored, "events that were set aside are stored");
                    }
                    metrics::gauge!("netagg_events_set_aside").set(round.events_set_aside() as f64);
                    readiness.set(DEPENDENCY, round.problem());
                }
                Err(error) => tracing::debug!(%error, "cannot store the events that are set aside; trying again"),
            }
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    /// One round: creates and drops partitions if that is due, then stores events that were set aside.
    ///
    /// # Errors
    /// When the events that were set aside cannot be read or stored. A failure to create or drop partitions is only logged.
    pub async fn round(&mut self) -> Result<MaintenanceReport, Error> {
        if self.due <= Instant::now() {
            let pause = match self.carry_out().await {
                Ok(()) if self.not_made.is_empty() => INTERVAL,
                // `Busy`: another process drops months.
                Ok(()) | Err(DropError::Busy) => RETRY,
                Err(DropError::Store(error)) if error.is_retryable() => {
                    // Readiness shows the reason.
                    tracing::debug!(%error, "cannot create or drop partitions; trying again");
                    RETRY
                }
                Err(error) => {
                    tracing::error!(%error, "partitions cannot be created or dropped");
                    INTERVAL
                }
            };
            self.due = Instant::now() + pause;
        }
        let SetAside { stored, waiting, .. } = self.partitions.store_set_aside().await?;
        Ok(MaintenanceReport { stored, not_made: self.not_made.clone(), waiting })
    }

    async fn carry_out(&mut self) -> Result<(), DropError> {
        let now = SystemClock.now();
        self.not_made = self.partitions.ensure_ahead(now, self.plan.ahead).await?.not_made;
        if let Some(oldest) = self.plan.retention {
            self.retention.drop_before(first_month_within(oldest, now), self.limits, now).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_names_each_month_without_a_partition_once() {
        let month = |text: &str| text.parse::<Month>().expect("a month");
        let waiting = |text, events, reason: Option<&str>| WaitingMonth {
            month: month(text),
            events,
            reason: reason.map(ToOwned::to_owned),
        };
        assert_eq!(MaintenanceReport::default().problem(), None);
        let report = MaintenanceReport {
            stored: 0,
            not_made: vec![(month("2025-03"), "in the way".to_owned()), (month("2025-04"), "overlaps".to_owned())],
            waiting: vec![
                waiting("2025-02", 1, None),
                waiting("2025-03", 2, None),
                waiting("2025-05", 3, Some("denied")),
            ],
        };
        assert_eq!(report.events_set_aside(), 6);
        assert_eq!(
            report.problem().as_deref(),
            Some(
                "1 events of 2025-02 are set aside: they are being stored; 2 events of 2025-03 are set aside: in the way; \
                 overlaps; 3 events of 2025-05 are set aside: denied"
            )
        );
    }
}
