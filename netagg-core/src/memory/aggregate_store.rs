//! An aggregate store in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::event_store;
use super::ledger::Ledger;
use super::progress::Progress;
use crate::Error;
use crate::aggregate::{AggregateRow, Contribution, Totals};
use crate::batch::{Batch, BatchOutcome};
use crate::event::EventType;
use crate::granularity::Granularity;
use crate::ports::{AggregateStore, CompletenessStore, TotalsQuery, TotalsReader};
use crate::record::{PartitionId, Position};
use crate::time::{Day, Timestamp};

/// Counts every event once, in memory.
#[derive(Debug, Default)]
pub struct MemoryAggregateStore(Mutex<State>);

#[derive(Debug, Default)]
pub(super) struct State {
    ledger: Ledger,
    days: BTreeMap<(Day, EventType), Totals>,
    progress: Progress,
}

impl MemoryAggregateStore {
    /// The name of the service that writes this store, for [`CompletenessStore`].
    pub const SERVICE: &str = "aggregator";

    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// All daily totals.
    pub fn days(&self) -> BTreeMap<(Day, EventType), Totals> {
        self.lock().days.clone()
    }

    /// The processed offsets of `partition`, as ranges in ascending order.
    pub fn done(&self, partition: &PartitionId) -> Vec<Range<i64>> {
        self.lock().progress.ranges(partition)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Adds `contribution` to the totals. The caller knows that its event is new.
    pub(super) fn count(&mut self, contribution: &Contribution) {
        *self.days.entry((contribution.identity.day, contribution.event_type)).or_default() += contribution;
    }

    pub(super) fn progress(&mut self) -> &mut Progress {
        &mut self.progress
    }

    pub(super) fn take_dirty(&mut self) -> BTreeSet<Day> {
        self.ledger.take_dirty()
    }

    /// Recomputes the totals of the `dirty` days from the stored `events` that are counted, and returns the recomputed days.
    /// A day stays dirty if an event of it is counted but not stored yet.
    pub(super) fn recompute(&mut self, mut dirty: BTreeSet<Day>, events: &event_store::State) -> Vec<Day> {
        let unstored: BTreeSet<Day> =
            self.ledger.iter().filter(|counted| !events.has(&counted.key)).map(|counted| counted.day).collect();
        for &day in dirty.intersection(&unstored) {
            self.ledger.mark_dirty(day);
        }
        dirty.retain(|day| !unstored.contains(day));
        self.days.retain(|(day, _), _| !dirty.contains(day));
        for stored in events.contributions().filter(|stored| dirty.contains(&stored.identity.day)) {
            // The aggregator will count the other events later.
            if self.ledger.get(&stored.identity.key).is_some() {
                self.ledger.replace(stored.identity);
                *self.days.entry((stored.identity.day, stored.event_type)).or_default() += &stored;
            }
        }
        dirty.into_iter().collect()
    }
}

#[async_trait]
impl AggregateStore for MemoryAggregateStore {
    async fn add(&self, batch: &Batch<Contribution>) -> Result<BatchOutcome, Error> {
        let mut state = self.lock();
        let State { ledger, days, progress } = &mut *state;
        let outcome = ledger.record(batch, |contribution| {
            *days.entry((contribution.identity.day, contribution.event_type)).or_default() += contribution;
        });
        progress.add(batch.spans());
        Ok(outcome)
    }
}

#[async_trait]
impl TotalsReader for MemoryAggregateStore {
    async fn totals(&self, query: &TotalsQuery) -> Result<Vec<AggregateRow>, Error> {
        let (first, last) = match query.granularity {
            Granularity::Day => (query.from, query.to),
            Granularity::Month => (query.from.month().first_day(), query.to.month().last_day()),
        };
        let mut sums = BTreeMap::<_, Totals>::new();
        for (&(day, event_type), &totals) in &self.lock().days {
            let is_wanted = (first..=last).contains(&day) && query.event_type.is_none_or(|only| only == event_type);
            if is_wanted {
                let date = match query.granularity {
                    Granularity::Day => day,
                    Granularity::Month => day.month().first_day(),
                };
                *sums.entry((date, event_type)).or_default() += totals;
            }
        }
        let rows = sums.into_iter().map(|((date, event_type), totals)| AggregateRow { date, event_type, totals });
        Ok(rows.collect())
    }

    async fn complete_through(&self) -> Result<Option<Timestamp>, Error> {
        Ok(self.lock().progress.complete_through())
    }
}

#[async_trait]
impl CompletenessStore for MemoryAggregateStore {
    async fn note_complete(
        &self,
        service: &str,
        topic: &str,
        through: Timestamp,
        committed: &[Position],
    ) -> Result<bool, Error> {
        Ok(service == Self::SERVICE && self.lock().progress.note_complete(topic, through, committed))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::testkit;

    #[tokio::test]
    async fn the_aggregate_store_passes_its_suite() {
        testkit::aggregate_store(async || Arc::new(MemoryAggregateStore::new())).await;
    }

    #[tokio::test]
    async fn the_completeness_of_totals_passes_its_suite() {
        let store = MemoryAggregateStore::new();
        testkit::completeness_store(&store, &store, MemoryAggregateStore::SERVICE).await;
    }
}
