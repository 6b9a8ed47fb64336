//! A combined store in memory.

use std::sync::Arc;

use async_trait::async_trait;

use super::{MemoryAggregateStore, MemoryEventStore};
use crate::Error;
use crate::aggregate::{AggregateRow, Contribution};
use crate::batch::{Batch, BatchOutcome};
use crate::event::{Event, IdentifiedEvent};
use crate::ports::{
    CombinedStore, EventStore, PeriodSums, SumsQuery, TimelineFilter, TimelineQuery, TotalsQuery, TotalsReader,
};

/// Keeps every event once and the totals of these events, in memory.
#[derive(Debug, Default)]
pub struct MemoryCombinedStore {
    events: Arc<MemoryEventStore>,
    totals: Arc<MemoryAggregateStore>,
}

impl MemoryCombinedStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// A store that keeps its events in `events` and their totals in `totals`. Both must be empty, and no other service may
    /// write to them.
    pub fn of(events: Arc<MemoryEventStore>, totals: Arc<MemoryAggregateStore>) -> Self {
        Self { events, totals }
    }
}

#[async_trait]
impl EventStore for MemoryCombinedStore {
    async fn store(&self, batch: &Batch<IdentifiedEvent>) -> Result<BatchOutcome, Error> {
        // Both locks are held until the end. So no reader sees an event without its share of the totals.
        let mut events = self.events.lock();
        let mut totals = self.totals.lock();
        Ok(events.store(batch, |item| totals.count(&Contribution::from(item))))
    }

    async fn timeline(&self, query: &TimelineQuery) -> Result<Vec<Event>, Error> {
        self.events.timeline(query).await
    }

    async fn count(&self, filter: &TimelineFilter) -> Result<u64, Error> {
        self.events.count(filter).await
    }

    async fn sums(&self, query: &SumsQuery) -> Result<Vec<PeriodSums>, Error> {
        self.events.sums(query).await
    }
}

#[async_trait]
impl TotalsReader for MemoryCombinedStore {
    async fn totals(&self, query: &TotalsQuery) -> Result<Vec<AggregateRow>, Error> {
        self.totals.totals(query).await
    }
}

impl CombinedStore for MemoryCombinedStore {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit;

    #[tokio::test]
    async fn the_combined_store_passes_its_suite() {
        testkit::combined_store(async || Arc::new(MemoryCombinedStore::new())).await;
    }
}
