//! The store of the combined mode, which writes `events_raw` and `agg_day` in one transaction.

use std::sync::Arc;

use async_trait::async_trait;
use netagg_core::ports::{
    CombinedStore, EventStore, PeriodSums, SumsQuery, TimelineFilter, TimelineQuery, TotalsQuery, TotalsReader,
};
use netagg_core::{AggregateRow, Batch, BatchOutcome, Error, Event, IdentifiedEvent, ProcessingMode, Timestamp};

use super::event_store::PgEventStore;
use super::store_hook::StoreHook;
use super::totals;
use crate::client::Postgres;

/// Stores events in `events_raw` and their totals in `agg_day`, both in one transaction, with the single ledger
/// `event_identity`.
///
/// The database must be in the [combined](ProcessingMode::Combined) mode: call
/// [`Postgres::agree_on_mode`](crate::Postgres::agree_on_mode) first. Otherwise each batch fails with
/// [`Error::Unsupported`](netagg_core::Error::Unsupported).
///
/// Events whose partition cannot be created are set aside. They are counted at once, and move to `events_raw` later.
#[derive(Debug)]
pub struct PgCombinedStore {
    postgres: Postgres,
    events: PgEventStore,
}

impl PgCombinedStore {
    /// The name of the service in `consumer_progress`.
    pub const SERVICE: &str = PgEventStore::SERVICE;

    /// A store of events and totals in `postgres`.
    pub fn new(postgres: Postgres) -> Self {
        Self { events: PgEventStore::in_mode(postgres.clone(), ProcessingMode::Combined), postgres }
    }

    /// Runs `hook` in each transaction that stores new events.
    #[must_use]
    pub fn with_hook(self, hook: Arc<dyn StoreHook>) -> Self {
        Self { events: self.events.with_hook(hook), ..self }
    }
}

#[async_trait]
impl EventStore for PgCombinedStore {
    async fn store(&self, batch: &Batch<IdentifiedEvent>) -> Result<BatchOutcome, Error> {
        self.events.store(batch).await
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
impl TotalsReader for PgCombinedStore {
    async fn totals(&self, query: &TotalsQuery) -> Result<Vec<AggregateRow>, Error> {
        totals::read(&self.postgres, query).await
    }

    async fn complete_through(&self) -> Result<Option<Timestamp>, Error> {
        self.events.complete_through().await
    }
}

impl CombinedStore for PgCombinedStore {}
