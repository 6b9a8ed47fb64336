//! What a consumer has done so far.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::Error;
use crate::batch::BatchOutcome;

/// Counters of one consumer, readable while it runs.
#[derive(Debug, Default)]
pub struct ConsumerStats {
    consumed: AtomicU64,
    new: AtomicU64,
    duplicates: AtomicU64,
    conflicts: AtomicU64,
    invalid: AtomicU64,
    batches: AtomicU64,
    waiting: Mutex<BTreeMap<&'static str, String>>,
}

/// The counters of a [`ConsumerStats`] at one moment, since the consumer was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct StatsSnapshot {
    /// Records read from the source, redelivered ones included.
    pub consumed: u64,
    /// Events that were new.
    pub new: u64,
    /// Events that were there before, with the same content.
    pub duplicates: u64,
    /// Events that were there before, with other content.
    pub conflicts: u64,
    /// Records that hold no valid event.
    pub invalid: u64,
    /// Batches finished.
    pub batches: u64,
}

impl ConsumerStats {
    /// The counters now.
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

    /// Why work cannot go on, if it waits for a dependency, such as `postgres`, that has failed several times in a row.
    pub fn waiting_for(&self, dependency: &str) -> Option<String> {
        self.waiting().get(dependency).cloned()
    }

    pub(crate) fn waits_for(&self, error: &Error) {
        if let Some(dependency) = error.dependency() {
            self.waiting().insert(dependency, error.to_string());
        }
    }

    pub(crate) fn waits_no_longer(&self, dependency: &'static str) {
        self.waiting().remove(dependency);
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<&'static str, String>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn consumed(&self, records: usize) {
        self.consumed.fetch_add(records as u64, Relaxed);
        metrics::counter!("netagg_events_consumed_total").increment(records as u64);
    }

    pub(crate) fn finished(&self, outcome: &BatchOutcome, invalid: usize) {
        self.new.fetch_add(outcome.new, Relaxed);
        self.duplicates.fetch_add(outcome.duplicates, Relaxed);
        self.conflicts.fetch_add(outcome.conflicts.len() as u64, Relaxed);
        self.invalid.fetch_add(invalid as u64, Relaxed);
        self.batches.fetch_add(1, Relaxed);
        metrics::counter!("netagg_duplicates_total").increment(outcome.duplicates);
        metrics::counter!("netagg_conflicting_duplicates_total").increment(outcome.conflicts.len() as u64);
    }
}
