//! Counting stored events that the totals do not contain.

use std::collections::BTreeSet;

use futures::{StreamExt, TryStreamExt};
use netagg_core::ports::AggregateStore;
use netagg_core::{Batch, Contribution, Day, Error, Identity};
use sqlx::FromRow;

use crate::client::rows::{self, IdentityRow};
use crate::client::{PgError, Postgres, error};
use crate::reconcile::connection::connect;
use crate::reconcile::days::DaySelection;
use crate::reconcile::time_range::time_ranges;
use crate::stores::PgAggregateStore;

/// How many events one transaction counts.
const EVENTS: usize = 10_000;

/// How many transactions run at a time.
const TRANSACTIONS: usize = 2;

/// Counts the stored events of `days` that the totals do not contain into `store`.
pub(super) async fn count(postgres: &Postgres, store: &PgAggregateStore, days: &BTreeSet<Day>) -> Result<(), Error> {
    let Some(selection) = DaySelection::only(days.iter().copied()) else { return Ok(()) };
    // This connection need not read the snapshot of the repair: the store decides which events are new.
    let mut connection = connect(postgres).await.map_err(error::to_core)?;
    let ranges = time_ranges(&mut connection, &selection).await.map_err(error::to_core)?;
    for range in ranges {
        sqlx::query_as(include_str!("../../../queries/repair/stored_not_counted.sql"))
            .bind(range.from)
            .bind(range.until)
            .bind(days.iter().map(|day| day.to_date()).collect::<Vec<_>>())
            .fetch(&mut connection)
            .map(|row: Result<ContributionRow, _>| {
                row.map_err(PgError::from).and_then(Contribution::try_from).map_err(error::to_core)
            })
            .try_chunks(EVENTS)
            .map_err(|error| error.1)
            .try_for_each_concurrent(TRANSACTIONS, async |contributions| {
                store.add(&Batch::new(contributions)).await.map(drop)
            })
            .await?;
    }
    Ok(())
}

/// The contribution of a stored event to the totals.
#[derive(Debug, FromRow)]
struct ContributionRow {
    #[sqlx(flatten)]
    identity: IdentityRow,
    #[sqlx(rename = "type")]
    event_type: String,
    duration_sec: i32,
    bytes_up: i64,
    bytes_down: i64,
}

impl TryFrom<ContributionRow> for Contribution {
    type Error = PgError;

    fn try_from(row: ContributionRow) -> Result<Self, PgError> {
        Ok(Self {
            identity: Identity::from(row.identity),
            event_type: rows::event_type(&row.event_type)?,
            duration_sec: rows::seconds(row.duration_sec)?,
            bytes_up: rows::number_of_bytes(row.bytes_up)?,
            bytes_down: rows::number_of_bytes(row.bytes_down)?,
        })
    }
}
