//! A combined store in memory.

use std::sync::Arc;

use async_trait::async_trait;

use super::{MemoryAggregateStore, MemoryEventStore};
use crate::Error;
use crate::aggregate::{AggregateRow, Contribution};
use crate::batch::{Batch, BatchOutcome};
use crate::event::{Event, IdentifiedEvent};
use crate::ports::{
    CombinedStore, CompletenessStore, EventStore, PeriodSums, SumsQuery, TimelineFilter, TimelineQuery, TotalsQuery,
    TotalsReader,
};
use crate::record::Position;
use crate::time::Timestamp;

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

    async fn complete_through(&self) -> Result<Option<Timestamp>, Error> {
        self.events.complete_through().await
    }
}

#[async_trait]
impl TotalsReader for MemoryCombinedStore {
    async fn totals(&self, query: &TotalsQuery) -> Result<Vec<AggregateRow>, Error> {
        self.totals.totals(query).await
    }

    async fn complete_through(&self) -> Result<Option<Timestamp>, Error> {
        self.totals.complete_through().await
    }
}

#[async_trait]
impl CompletenessStore for MemoryCombinedStore {
    async fn note_complete(
        &self,
        service: &str,
        topic: &str,
        through: Timestamp,
        committed: &[Position],
    ) -> Result<bool, Error> {
        let mut events = self.events.lock();
        let is_complete =
            service == MemoryEventStore::SERVICE && events.progress().note_complete(topic, through, committed);
        if is_complete {
            // The events and the totals are written together. So the totals are complete too, and their own progress is empty.
            self.totals.lock().progress().note_complete(topic, through, &[]);
        }
        Ok(is_complete)
    }
}

impl CombinedStore for MemoryCombinedStore {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{PartitionId, Span};
    use crate::testkit;

    #[tokio::test]
    async fn the_combined_store_passes_its_suite() {
        testkit::combined_store(async || Arc::new(MemoryCombinedStore::new())).await;
    }

    #[tokio::test]
    async fn the_totals_are_complete_with_the_events() {
        let store = MemoryCombinedStore::new();
        let partition = PartitionId::new("events", 0);
        let span = Span { partition: partition.clone(), from: 0, to: 3, records: 3, last_timestamp: None };
        store.store(&Batch::builder(vec![span]).build()).await.expect("stored");
        let at: Timestamp = "2025-10-20T12:00:00Z".parse().expect("a time");
        for (next_offset, expected) in [(4, None), (3, Some(at))] {
            let committed = [Position { partition: partition.clone(), next_offset }];
            let noted = store.note_complete(MemoryEventStore::SERVICE, "events", at, &committed).await;
            assert_eq!(noted.expect("no error"), expected.is_some());
            let (events, totals): (&dyn EventStore, &dyn TotalsReader) = (&store, &store);
            assert_eq!(events.complete_through().await.expect("an instant"), expected);
            assert_eq!(totals.complete_through().await.expect("an instant"), expected);
        }
    }
}
