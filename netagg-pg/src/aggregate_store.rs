//! `agg_day` and `agg_month`.

use async_trait::async_trait;
use chrono::NaiveDate;
use netagg_core::crash::{self, CrashPoint};
use netagg_core::ports::{AggregateStore, TotalsQuery};
use netagg_core::{
    AggregateRow, Batch, BatchOutcome, Contribution, Day, Error, EventType, Granularity, Timestamp, Totals, sum_by_day,
};
use sqlx::PgConnection;

use crate::error::PgError;
use crate::ledger::Ledger;
use crate::postgres::Postgres;
use crate::{progress, totals};

/// Keeps totals by day in `agg_day`; months are sums of days.
#[derive(Debug)]
pub struct PgAggregateStore {
    postgres: Postgres,
    ledger: Ledger,
}

impl PgAggregateStore {
    /// The service in `consumer_progress`.
    pub const SERVICE: &str = "aggregator";

    /// The totals of `postgres`.
    pub fn new(postgres: Postgres) -> Self {
        Self { postgres, ledger: Ledger::of_aggregates() }
    }

    /// The totals of `postgres`, months that are refused already included.
    pub(crate) fn settling(postgres: Postgres) -> Self {
        Self { postgres, ledger: Ledger::of_settled_aggregates() }
    }
}

#[async_trait]
impl AggregateStore for PgAggregateStore {
    async fn add(&self, batch: &Batch<Contribution>) -> Result<BatchOutcome, Error> {
        self.postgres
            .call(async {
                let mut session = self.postgres.writing_session().await?;
                let admission = self.ledger.admit(&mut session, batch).await?;
                // The rows that every batch wants come last.
                add(&mut session, sum_by_day(admission.new_items(batch))).await?;
                crash::pass(CrashPoint::TotalsAdded);
                progress::commit(&mut session, Self::SERVICE, batch.spans(), &admission.outcome.tallies).await?;
                session.release();
                Ok(admission.outcome)
            })
            .await
    }

    async fn totals(&self, query: &TotalsQuery) -> Result<Vec<AggregateRow>, Error> {
        let (statement, from, to) = match query.granularity {
            Granularity::Day => (include_str!("../queries/totals_by_day.sql"), query.from, query.to),
            Granularity::Month => (
                include_str!("../queries/totals_by_month.sql"),
                query.from.month().first_day(),
                query.to.month().last_day(),
            ),
        };
        self.postgres
            .call(async {
                let mut session = self.postgres.session().await?;
                let rows: Vec<TotalsRow> = sqlx::query_as(statement)
                    .bind(from.to_date())
                    .bind(to.to_date())
                    .bind(query.event_type.map(EventType::as_str))
                    .fetch_all(&mut *session)
                    .await?;
                session.release();
                rows.into_iter().map(decode).collect()
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
    // numeric has no Rust type here; as text it is exact
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
    sqlx::query(include_str!("../queries/agg_day_add.sql"))
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

/// Date, type, count, seconds, bytes up and down.
type TotalsRow = (NaiveDate, String, i64, i64, String, String);

fn decode((date, event_type, count, duration, up, down): TotalsRow) -> Result<AggregateRow, PgError> {
    Ok(AggregateRow {
        date: Day::from(date),
        event_type: totals::event_type(&event_type)?,
        totals: totals::decode(count, duration, &up, &down)?,
    })
}
