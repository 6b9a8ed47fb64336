//! Events that are set aside, because the partition of their month in `events_raw` cannot be made.
//!
//! They are accepted: their identities are in the ledger, and a later copy is a duplicate. They wait in `events_set_aside`
//! and move to `events_raw` as soon as a partition for them exists.

use chrono::{DateTime, NaiveDate, Utc};
use netagg_core::{Day, Error, Month};
use serde::Serialize;
use sqlx::PgConnection;

use super::dirty_days;
use crate::client::PgError;
use crate::schema::partitions::{Partitions, bounds_of};
use crate::schema::write_transaction::{self, Writer};

/// How many events move in one transaction.
const CHUNK: i64 = 5_000;

/// The result of [`Partitions::store_set_aside`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SetAside {
    /// How many events have moved to `events_raw`.
    pub stored: u64,
    /// The months whose events still wait, in order.
    pub waiting: Vec<WaitingMonth>,
}

/// A month whose events wait for its partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct WaitingMonth {
    /// The month.
    pub month: Month,
    /// How many of its events wait.
    pub events: u64,
    /// Why its partition cannot be made; `None` if the call did not try to make it.
    #[serde(skip)]
    pub reason: Option<String>,
}

impl Partitions {
    /// Returns the months with events that are set aside. Does not try to store these events.
    ///
    /// # Errors
    /// Retryable while the database cannot be reached.
    pub async fn set_aside(&self) -> Result<Vec<WaitingMonth>, Error> {
        self.postgres()
            .call(async {
                let mut session = self.postgres().session().await?;
                let months = months(&mut session).await?;
                session.release();
                let waiting = |(month, events)| WaitingMonth { month, events, reason: None };
                Ok(months.into_iter().map(waiting).collect())
            })
            .await
    }

    /// Moves events that are set aside to `events_raw`, if a partition for them exists by now, and marks their days for a
    /// repair of the totals. Several processes may call this at once.
    ///
    /// # Errors
    /// Retryable while the database cannot be reached. Events that moved before the error stay moved.
    pub async fn store_set_aside(&self) -> Result<SetAside, Error> {
        self.postgres().call(self.try_store_set_aside()).await
    }

    async fn try_store_set_aside(&self) -> Result<SetAside, PgError> {
        let mut outcome = SetAside::default();
        let postgres = self.postgres();
        let mut session = postgres.writing_session().await?;
        let before = months(&mut session).await?;
        session.release();
        if before.is_empty() {
            return Ok(outcome);
        }
        let ensured = self.ensure_for(before.iter().map(|(month, _)| *month)).await?;
        let mut session = postgres.session().await?;
        for (month, _) in &before {
            let covered: Vec<_> = match ensured.without_partition.get(month) {
                Some(problem) => problem.covered_parts(*month).collect(),
                None => vec![bounds_of(*month)],
            };
            for (from, to) in covered {
                outcome.stored += store(&mut session, *month, from, to).await?;
            }
        }
        let after = months(&mut session).await?;
        session.release();
        outcome.waiting = after
            .into_iter()
            .map(|(month, events)| {
                let reason = ensured.without_partition.get(&month).map(|problem| problem.reason.clone());
                WaitingMonth { month, events, reason }
            })
            .collect();
        Ok(outcome)
    }
}

async fn months(connection: &mut PgConnection) -> Result<Vec<(Month, u64)>, PgError> {
    let rows: Vec<(NaiveDate, i64)> =
        sqlx::query_as(include_str!("../../queries/events/set_aside_months.sql")).fetch_all(connection).await?;
    Ok(rows.into_iter().map(|(first, events)| (Day::from(first).month(), events.unsigned_abs())).collect())
}

/// Moves the events between two times of a month to `events_raw`. Returns how many events were moved.
async fn store(
    connection: &mut PgConnection,
    month: Month,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
) -> Result<u64, PgError> {
    let mut stored = 0;
    loop {
        // Retention drops the events of a dropped month.
        match write_transaction::begin(connection, Writer::default(), std::iter::once(month.first_day())).await {
            Err(PgError::MonthsDropped { .. }) => return Ok(stored),
            begun => begun?,
        }
        let moved: Vec<(NaiveDate, i64)> = sqlx::query_as(include_str!("../../queries/events/set_aside_move.sql"))
            .bind(from)
            .bind(to)
            .bind(CHUNK)
            .fetch_all(&mut *connection)
            .await?;
        // The aggregator has counted these events, or will count them. But a repair may have recomputed the totals without
        // them.
        dirty_days::mark(connection, moved.iter().map(|(day, _)| Day::from(*day))).await?;
        sqlx::raw_sql("COMMIT").execute(&mut *connection).await?;
        let events: i64 = moved.iter().map(|(_, events)| events).sum();
        stored += events.unsigned_abs();
        if events < CHUNK {
            return Ok(stored);
        }
    }
}
