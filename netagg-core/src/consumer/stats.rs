//! The counters of a consumer.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::{Counter, Label, counter, histogram};
use tokio::sync::Notify;

use crate::Error;
use crate::batch::BatchOutcome;

/// The counters of one consumer. They can be read while the consumer runs.
#[derive(Debug, Default)]
pub struct ConsumerStats {
    consumed: AtomicU64,
    new: AtomicU64,
    duplicates: AtomicU64,
    conflicts: AtomicU64,
    invalid: AtomicU64,
    batches: AtomicU64,
    /// The dependencies that work waits for, and the reason.
    waiting: Mutex<BTreeMap<&'static str, String>>,
    /// Notified after each change of a counter.
    change: Notify,
    /// The labels of the metrics that ingestors and aggregators share.
    labels: Vec<Label>,
}

/// The counters of a [`ConsumerStats`] at one moment. They count from the creation of the consumer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct StatsSnapshot {
    /// The number of records read from the source, including redelivered records.
    pub consumed: u64,
    /// The number of new events.
    pub new: u64,
    /// The number of events that were known before with the same content.
    pub duplicates: u64,
    /// The number of events that were known before with other content.
    pub conflicts: u64,
    /// The number of records without a valid event.
    pub invalid: u64,
    /// The number of finished batches.
    pub batches: u64,
}

impl ConsumerStats {
    /// Counters whose metrics have the label `service`.
    pub(crate) fn labelled(service: &'static str) -> Self {
        Self { labels: vec![Label::from_static_parts("service", service)], ..Self::default() }
    }

    /// New counters with the same labels, for work beside the consumer. This work does not make the consumer count as blocked,
    /// because the consumer does not wait for it.
    pub(crate) fn unwatched(&self) -> Self {
        Self { labels: self.labels.clone(), ..Self::default() }
    }

    /// Registers at 0 the metrics that ingestors and aggregators share, with the retries of each dependency.
    pub(crate) fn register_metrics(&self, dependencies: &[&'static str]) {
        for name in ["netagg_events_consumed_total", "netagg_duplicates_total", "netagg_conflicting_duplicates_total"] {
            counter!(name, self.labels.clone()).absolute(0);
        }
        for dependency in dependencies {
            self.retries(dependency).absolute(0);
        }
    }

    /// The current counters.
    pub fn snapshot(&self) -> StatsSnapshot {
        StatsSnapshot {
            consumed: self.consumed.load(Relaxed),
            new: self.new.load(Relaxed),
            duplicates: self.duplicates.load(Relaxed),
            conflicts: self.conflicts.load(Relaxed),
            invalid: self.invalid.load(Relaxed),
            batches: self.batches.load(Relaxed),
        }
    }

    /// Waits until a counter differs from `seen`, and returns the new counters. Call it in a loop to wait for any state without
    /// polling.
    ///
    /// Cancel safe: no change is lost if the future is dropped before it is done.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use netagg_core::memory::{MemoryAggregateStore, MemoryLog};
    /// # use netagg_core::ports::EventPublisher;
    /// # use netagg_core::{Aggregator, OutgoingRecord};
    /// # use tokio_util::sync::CancellationToken;
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let log = MemoryLog::new("events", 1);
    /// let aggregator = Aggregator::new(Arc::new(MemoryAggregateStore::new()));
    /// let (stats, stop) = (aggregator.stats(), CancellationToken::new());
    /// let mut source = log.source("aggregator-group");
    /// let service = tokio::spawn({
    ///     let stop = stop.clone();
    ///     async move { aggregator.run(&mut source, stop).await }
    /// });
    /// log.publish(vec![OutgoingRecord::new("not an event"), OutgoingRecord::new("{}")]).await?;
    ///
    /// // Wait until each of the two records is counted as an event or as invalid.
    /// let mut now = stats.snapshot();
    /// while now.new + now.duplicates + now.conflicts + now.invalid < 2 {
    ///     now = stats.changed(&now).await;
    /// }
    /// assert_eq!(now.invalid, 2);
    /// stop.cancel();
    /// service.await??;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub async fn changed(&self, seen: &StatsSnapshot) -> StatsSnapshot {
        loop {
            let change = self.change.notified();
            tokio::pin!(change);
            // After this call, no change is missed.
            change.as_mut().enable();
            let now = self.snapshot();
            if now != *seen {
                return now;
            }
            change.await;
        }
    }

    /// The reason why the consumer waits for `dependency`, such as `postgres`, after several consecutive failures. `None` if it
    /// does not wait.
    pub fn waiting_for(&self, dependency: &str) -> Option<String> {
        self.waiting().get(dependency).cloned()
    }

    /// Fails while the consumer waits for `dependency`: see [`waiting_for`](Self::waiting_for). Use this in a readiness check,
    /// because a database may respond to a check and still refuse every write.
    ///
    /// # Errors
    /// The reason why the consumer waits, as text.
    pub fn check_not_blocked(&self, dependency: &str) -> Result<(), String> {
        self.waiting_for(dependency).map_or(Ok(()), Err)
    }

    pub(crate) fn set_blocked_on(&self, error: &Error) {
        if let Some(dependency) = error.dependency() {
            self.waiting().insert(dependency, error.to_string());
        }
    }

    pub(crate) fn clear_blocked_on(&self, dependency: &'static str) {
        self.waiting().remove(dependency);
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<&'static str, String>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn consumed(&self, records: usize) {
        self.consumed.fetch_add(records as u64, Relaxed);
        self.change.notify_waiters();
        counter!("netagg_events_consumed_total", self.labels.clone()).increment(records as u64);
    }

    pub(crate) fn finished(&self, outcome: &BatchOutcome, invalid: usize) {
        self.new.fetch_add(outcome.new, Relaxed);
        self.duplicates.fetch_add(outcome.duplicates, Relaxed);
        self.conflicts.fetch_add(outcome.conflicts.len() as u64, Relaxed);
        self.invalid.fetch_add(invalid as u64, Relaxed);
        self.batches.fetch_add(1, Relaxed);
        self.change.notify_waiters();
        counter!("netagg_duplicates_total", self.labels.clone()).increment(outcome.duplicates);
        let conflicts = outcome.conflicts.len() as u64;
        counter!("netagg_conflicting_duplicates_total", self.labels.clone()).increment(conflicts);
    }

    /// Records the size and the duration of a finished batch.
    pub(crate) fn record_batch(&self, records: usize, duration: Duration) {
        histogram!("netagg_batch_records", self.labels.clone()).record(records as f64);
        histogram!("netagg_batch_duration_seconds", self.labels.clone()).record(duration);
    }

    /// Counts an attempt that failed because of `dependency` and is retried.
    pub(crate) fn retried(&self, dependency: &'static str) {
        self.retries(dependency).increment(1);
    }

    fn retries(&self, dependency: &'static str) -> Counter {
        let mut labels = self.labels.clone();
        labels.push(Label::from_static_parts("dependency", dependency));
        counter!("netagg_retries_total", labels)
    }
}
