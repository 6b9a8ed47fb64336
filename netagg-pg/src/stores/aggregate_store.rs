//! `agg_day` and `agg_month`.

use async_trait::async_trait;
use chrono::NaiveDate;
use netagg_core::crash::{self, CrashPoint};
use netagg_core::ports::{AggregateStore, TotalsQuery};
use netagg_core::{
    AggregateRow, Batch, BatchOutcome, Contribution, Day, Error, EventType, Granularity, Timestamp, Totals, sum_by_day,
};
use sqlx::{FromRow, PgConnection};

use super::dedup::Dedup;
use super::progress;
use crate::client::rows::TotalsRow;
use crate::client::{PgError, Postgres};

/// Keeps totals by day in `agg_day`; months are sums of days.
#[derive(Debug)]
pub struct PgAggregateStore {
    postgres: Postgres,
    dedup: Dedup,
}

impl PgAggregateStore {
    /// The service in `consumer_progress`.
    pub const SERVICE: &str = progress::AGGREGATOR;

    /// The totals of `postgres`.
    pub fn new(postgres: Postgres) -> Self {
        Self { postgres, dedup: Dedup::of_aggregates() }
    }

    /// The totals of `postgres`, also those of dropped months.
    pub(crate) fn ignoring_month_fence(postgres: Postgres) -> Self {
        Self { postgres, dedup: Dedup::of_aggregates().ignoring_month_fence() }
    }
}

#[async_trait]
impl AggregateStore for PgAggregateStore {
    async fn add(&self, batch: &Batch<Contribution>) -> Result<BatchOutcome, Error> {
        self.postgres
            .call(async {
                let mut session = self.postgres.writing_session().await?;
                let outcome = self.dedup.enter(&mut session, batch).await?;
                // Every batch updates the totals of today, so these rows are locked late.
                add(&mut session, sum_by_day(outcome.new_items(batch))).await?;
                crash::pass(CrashPoint::TotalsAdded);
                progress::commit(&mut session, Self::SERVICE, batch.spans(), &outcome.batch.tallies).await?;
                session.release();
                Ok(outcome.batch)
            })
            .await
    }

    async fn totals(&self, query: &TotalsQuery) -> Result<Vec<AggregateRow>, Error> {
        let (statement, from, to) = match query.granularity {
            Granularity::Day => (include_str!("../../queries/totals/by_day.sql"), query.from, query.to),
            Granularity::Month => (
                include_str!("../../queries/totals/by_month.sql"),
                query.from.month().first_day(),
                query.to.month().last_day(),
            ),
        };
        self.postgres
            .call(async {
                let mut session = self.postgres.session().await?;
                let rows: Vec<DatedTotalsRow> = sqlx::query_as(statement)
                    .bind(from.to_date())
                    .bind(to.to_date())
                    .bind(query.event_type.map(EventType::as_str))
                    .fetch_all(&mut *session)
                    .await?;
                session.release();
                rows.into_iter().map(AggregateRow::try_from).collect()
            })
            .await
    }

    async fn complete_through(&self) -> Result<Option<Timestamp>, Error> {
        self.postgres.complete_through(Self::SERVICE).await
    }
}

async fn add(
    connection: &mut PgConnection,
    sums: impl IntoIterator<Item = ((Day, EventType), Totals)>,
) -> Result<(), PgError> {
    let (mut days, mut types) = (Vec::new(), Vec::new());
    let (mut counts, mut durations) = (Vec::new(), Vec::new());
    // numeric has no Rust type here; text is exact.
    let (mut bytes_up, mut bytes_down) = (Vec::new(), Vec::new());
    for ((day, event_type), totals) in sums {
        days.push(day.to_date());
        types.push(event_type.as_str());
        // A batch's count and seconds are far below 2^63.
        counts.push(totals.count_events as i64);
        durations.push(totals.sum_duration as i64);
        bytes_up.push(totals.sum_bytes_up.to_string());
        bytes_down.push(totals.sum_bytes_down.to_string());
    }
    if days.is_empty() {
        return Ok(());
    }
    sqlx::query(include_str!("../../queries/totals/add.sql"))
        .bind(days)
        .bind(types)
        .bind(counts)
        .bind(durations)
        .bind(bytes_up)
        .bind(bytes_down)
        .execute(connection)
        .await?;
    Ok(())
}

/// Totals of a day or month.
#[derive(Debug, FromRow)]
struct DatedTotalsRow {
    date: NaiveDate,
    #[sqlx(flatten)]
    totals: TotalsRow,
}

impl TryFrom<DatedTotalsRow> for AggregateRow {
    type Error = PgError;

    fn try_from(row: DatedTotalsRow) -> Result<Self, PgError> {
        Ok(Self { date: Day::from(row.date), event_type: row.totals.event_type()?, totals: row.totals.totals()? })
    }
}
