//! The batch that collects records until it is full or due.

use std::time::Duration;

use tokio::time::Instant;

use super::config::ConsumerConfig;
use super::tracker::OffsetTracker;
use crate::record::{PartitionId, Record};

/// The records of the next batch.
#[derive(Default)]
pub(super) struct PendingBatch {
    records: Vec<Record>,
    bytes: usize,
    /// When the first record or vacant offset has waited for `batch_timeout`. `None` if the batch has neither records nor vacant
    /// offsets.
    pub(super) due: Option<Instant>,
}

impl PendingBatch {
    pub(super) fn push(&mut self, record: Record, wait: Duration) {
        self.wait_at_most(wait);
        self.bytes += record.size();
        self.records.push(record);
    }

    pub(super) fn wait_at_most(&mut self, wait: Duration) {
        self.due.get_or_insert_with(|| Instant::now() + wait);
    }

    pub(super) fn is_full(&self, config: &ConsumerConfig) -> bool {
        self.records.len() >= config.batch_size || self.bytes >= config.batch_bytes
    }

    pub(super) fn take(&mut self) -> Vec<Record> {
        // The next batch probably has the same size.
        let next = Self { records: Vec::with_capacity(self.records.len()), ..Self::default() };
        std::mem::replace(self, next).records
    }

    /// Removes the records of `partitions`, which `tracker` has already removed.
    pub(super) fn forget(&mut self, partitions: &[PartitionId], tracker: &OffsetTracker) {
        self.records.retain(|record| !partitions.contains(&record.partition));
        self.bytes = self.records.iter().map(Record::size).sum();
        if !tracker.has_pending() {
            self.due = None;
        }
    }
}
