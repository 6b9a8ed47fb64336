//! The metrics of this crate.

use std::collections::BTreeSet;
use std::time::Duration;

use metrics::{Label, Unit, counter, describe_counter, describe_gauge, gauge};
use netagg_core::PartitionId;
use tokio_util::sync::CancellationToken;

use crate::health::KafkaHealth;

/// Describes the metrics of this crate, with their units and meanings, to the recorder in scope. Installs no recorder.
pub fn describe_metrics() {
    describe_counter!(
        "netagg_offsets_deleted_unread_total",
        Unit::Count,
        "Offsets that the broker deleted before they were read. Their records are lost."
    );
    describe_counter!(
        "netagg_consumers_replaced_total",
        Unit::Count,
        "Kafka consumers that were replaced, because they received nothing although the broker had records for them, did not \
         finish a rebalance, or had to begin one for partitions without a member."
    );
    describe_gauge!(
        "netagg_consumer_lag_records",
        Unit::Count,
        "Offsets of an assigned partition that are not durably processed, as of one second ago."
    );
    describe_gauge!(
        "netagg_consumer_lag_seconds",
        Unit::Seconds,
        "Age of the oldest record of an assigned partition that was read and is not durably processed, by its timestamp. \
         If no such record was read: the time for which there has been a record to read. 0 without lag."
    );
    describe_gauge!(
        "netagg_commit_lag_seconds",
        Unit::Seconds,
        "Longest time without a new commit for an assigned partition that has records read and not committed. 0 if there \
         is no such partition."
    );
}

/// Records the lag of a source, the age of its last commit and its counters with the `metrics` recorder in scope.
#[derive(Clone, Debug)]
pub struct KafkaMetrics {
    health: KafkaHealth,
    labels: Vec<Label>,
}

impl KafkaMetrics {
    /// The metrics of the source with this `health`.
    pub fn new(health: KafkaHealth) -> Self {
        Self { health, labels: Vec::new() }
    }

    /// Adds the label `service` to every metric, for a process that runs several sources on one recorder.
    #[must_use]
    pub fn with_service_label(mut self, service: &'static str) -> Self {
        self.labels.push(Label::from_static_parts("service", service));
        self
    }

    /// Records the current values. Call it before each scrape, with a recorder that starts empty: then a partition that has
    /// moved to another member leaves no value behind. If the recorder keeps its values, run
    /// [`keep_recording`](Self::keep_recording) instead.
    pub fn record(&self) {
        self.record_assigned();
    }

    /// Does the same as [`record`](Self::record) every `interval` until `shutdown`. The lag of a partition that has moved
    /// to another member is set to 0, so that sums over all members count no partition twice.
    pub async fn keep_recording(self, interval: Duration, shutdown: CancellationToken) {
        let mut before = BTreeSet::new();
        loop {
            let now = self.record_assigned();
            before.difference(&now).for_each(|moved| self.record_lag(moved, 0, Duration::ZERO));
            before = now;
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(interval) => {}
            }
        }
    }

    /// Returns the partitions whose lag is recorded.
    fn record_assigned(&self) -> BTreeSet<PartitionId> {
        gauge!("netagg_commit_lag_seconds", self.labels.clone()).set(self.health.commit_age());
        counter!("netagg_consumers_replaced_total", self.labels.clone()).absolute(self.health.replaced());
        counter!("netagg_offsets_deleted_unread_total", self.labels.clone()).absolute(self.health.deleted_unread());
        let recorded = self.health.lag().into_iter().map(|lag| {
            self.record_lag(&lag.partition, lag.events, lag.age);
            lag.partition
        });
        recorded.collect()
    }

    fn record_lag(&self, partition: &PartitionId, events: u64, age: Duration) {
        let mut labels = self.labels.clone();
        labels.push(Label::new("topic", partition.topic.to_string()));
        labels.push(Label::new("partition", partition.number.to_string()));
        gauge!("netagg_consumer_lag_records", labels.clone()).set(events as f64);
        gauge!("netagg_consumer_lag_seconds", labels).set(age);
    }
}
