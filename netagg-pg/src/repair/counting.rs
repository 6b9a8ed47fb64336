//! Counting stored events that the totals do not contain.

use std::collections::BTreeSet;

use chrono::NaiveDate;
use futures::{StreamExt, TryStreamExt};
use netagg_core::ports::AggregateStore;
use netagg_core::{Batch, ContentHash, Contribution, Day, Error, EventKey, Identity, UnknownEventType};
use uuid::Uuid;

use crate::PgAggregateStore;
use crate::books::{self, Scope};
use crate::error::{self, PgError};
use crate::postgres::Postgres;

/// How many events are counted in one transaction, and how many transactions there are at a time.
const EVENTS: usize = 10_000;
const TRANSACTIONS: usize = 2;

/// Key, content, day, type, seconds, bytes up and down.
type UncountedRow = (Uuid, i64, NaiveDate, String, i32, i64, i64);

/// Counts the stored events of `days` that the totals do not contain into `store`.
pub(super) async fn count(postgres: &Postgres, store: &PgAggregateStore, days: &BTreeSet<Day>) -> Result<(), Error> {
    let Some(scope) = Scope::only(days.iter().copied()) else { return Ok(()) };
    // What it reads is not the state that the repair goes by: the store decides what is new.
    let mut connection = books::connect(postgres).await.map_err(error::to_core)?;
    let stretches = books::stretches(&mut connection, &scope).await.map_err(error::to_core)?;
    for stretch in stretches {
        sqlx::query_as(include_str!("../../queries/repair_uncounted.sql"))
            .bind(stretch.from)
            .bind(stretch.until)
            .bind(days.iter().map(|day| day.to_date()).collect::<Vec<_>>())
            .fetch(&mut connection)
            .map(|row| row.map_err(PgError::from).and_then(decode).map_err(error::to_core))
            .try_chunks(EVENTS)
            .map_err(|error| error.1)
            .try_for_each_concurrent(TRANSACTIONS, async |contributions| {
                store.add(&Batch::new(contributions)).await.map(drop)
            })
            .await?;
    }
    Ok(())
}

fn decode(row: UncountedRow) -> Result<Contribution, PgError> {
    let (key, content, day, event_type, duration_sec, bytes_up, bytes_down) = row;
    let bytes = |bytes: i64| u64::try_from(bytes).map_err(|error| PgError::unreadable("a number of bytes", error));
    Ok(Contribution {
        identity: Identity {
            key: EventKey::from_bytes(key.into_bytes()),
            content: ContentHash::from_i64(content),
            day: Day::from(day),
        },
        event_type: event_type.parse().map_err(|error: UnknownEventType| PgError::unreadable("a type", error))?,
        duration_sec: duration_sec.try_into().map_err(|error| PgError::unreadable("a duration", error))?,
        bytes_up: bytes(bytes_up)?,
        bytes_down: bytes(bytes_down)?,
    })
}
