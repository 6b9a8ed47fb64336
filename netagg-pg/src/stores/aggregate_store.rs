//! The store of totals, in the table `agg_day` and its view `agg_month`.

use async_trait::async_trait;
use netagg_core::crash::{self, CrashPoint};
use netagg_core::ports::{AggregateStore, TotalsQuery, TotalsReader};
use netagg_core::{AggregateRow, Batch, BatchOutcome, Contribution, Error, ProcessingMode, Timestamp, sum_by_day};
use tracing::Instrument;

use super::dedup::Dedup;
use super::{progress, totals};
use crate::client::Postgres;

/// Stores totals by day in `agg_day`. Months are sums of days.
#[derive(Debug)]
pub struct PgAggregateStore {
    postgres: Postgres,
    dedup: Dedup,
}

impl PgAggregateStore {
    /// The name of the service in `consumer_progress`.
    pub const SERVICE: &str = progress::AGGREGATOR;

    /// A store of totals in `postgres`, in the separate mode.
    pub fn new(postgres: Postgres) -> Self {
        Self { dedup: Dedup::of_aggregates(postgres.clone()), postgres }
    }

    /// A store for a repair, which enters stored events that the totals lack into the ledger of `mode`.
    pub(crate) fn of_repair(postgres: Postgres, mode: ProcessingMode) -> Self {
        let postgres = postgres.without_agreed_limits();
        let dedup = match mode {
            ProcessingMode::Separate => Dedup::of_aggregates(postgres.clone()),
            ProcessingMode::Combined => Dedup::of_events(postgres.clone(), mode),
        };
        Self { postgres, dedup }
    }

    /// Returns the same store, which also adds events of dropped months.
    pub(crate) fn ignoring_month_fence(self) -> Self {
        Self { dedup: self.dedup.ignoring_month_fence(), ..self }
    }
}

#[async_trait]
impl AggregateStore for PgAggregateStore {
    async fn add(&self, batch: &Batch<Contribution>) -> Result<BatchOutcome, Error> {
        self.postgres
            .call(async {
                let mut session = self.postgres.writing_session().await?;
                let mut entry = self.dedup.enter(&mut session, batch).instrument(tracing::info_span!("ledger")).await?;
                let outcome = entry.resolve(&mut session).await?;
                // Every batch updates the totals of today, so these rows are locked late.
                totals::add(&mut session, sum_by_day(entry.new_items().iter().copied())).await?;
                crash::pass(CrashPoint::TotalsAdded);
                progress::note(&mut session, Self::SERVICE, batch.spans(), &outcome.span_counts).await?;
                progress::commit(&mut session).await?;
                session.release();
                Ok(outcome)
            })
            .await
    }
}

#[async_trait]
impl TotalsReader for PgAggregateStore {
    async fn totals(&self, query: &TotalsQuery) -> Result<Vec<AggregateRow>, Error> {
        totals::read(&self.postgres, query).await
    }

    async fn complete_through(&self) -> Result<Option<Timestamp>, Error> {
        self.postgres.complete_through(Self::SERVICE).await
    }
}
