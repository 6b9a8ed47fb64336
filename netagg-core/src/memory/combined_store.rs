//! Events and their totals in memory.

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

/// Keeps every event once, and the totals of what it keeps.
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

    /// A store that keeps its events in `events` and their totals in `totals`. Both are empty, and no other service writes to
    /// them.
    pub fn of(events: Arc<MemoryEventStore>, totals: Arc<MemoryAggregateStore>) -> Self {
        Self { events, totals }
    }
}

#[async_trait]
impl EventStore for MemoryCombinedStore {
    async fn store(&self, batch: &Batch<IdentifiedEvent>) -> Result<BatchOutcome, Error> {
        // Both are held until the end: no reader sees an event without its share of the totals.
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
    async fn it_conforms() {
        testkit::combined_store(async || Arc::new(MemoryCombinedStore::new())).await;
    }
}
