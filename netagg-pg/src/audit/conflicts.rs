//! Events that came again with other content.

use chrono::{DateTime, NaiveDate, Utc};
use netagg_core::{ContentHash, Day, PartitionId, Place, Timestamp};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use uuid::Uuid;

use crate::error::PgError;

/// The conflicting duplicates of some days.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct ConflictingDuplicates {
    /// How many there are, each content once.
    pub count: u64,
    /// The first hundred, in the order they were noticed.
    pub first: Vec<DroppedCopy>,
}

/// A copy of an event that was dropped, since another content of it was there before.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct DroppedCopy {
    /// The event's source.
    pub source_id: String,
    /// Its id there.
    pub event_id: Uuid,
    /// What is stored.
    pub kept: ContentHash,
    /// The day of what is stored.
    pub kept_day: Day,
    /// What was dropped.
    pub dropped: ContentHash,
    /// The day it would have counted under.
    pub dropped_day: Day,
    /// Where the dropped copy lies, if it came from a log.
    pub place: Option<Place>,
    /// When it was noticed.
    pub noticed_at: Timestamp,
}

/// Reads those of which one copy lies on a day from `from` to `to`.
pub(super) async fn read(connection: &mut PgConnection, from: Day, to: Day) -> Result<ConflictingDuplicates, PgError> {
    let rows = sqlx::query(include_str!("../../queries/audit_conflicts.sql"))
        .bind(from.to_date())
        .bind(to.to_date())
        .fetch_all(connection)
        .await?;
    let count: i64 = rows.first().map(|row| row.try_get(10)).transpose()?.unwrap_or_default();
    let first = rows.iter().map(decode).collect::<Result<_, _>>()?;
    Ok(ConflictingDuplicates { count: count.unsigned_abs(), first })
}

fn decode(row: &PgRow) -> Result<DroppedCopy, PgError> {
    let content = |column| Ok::<_, sqlx::Error>(ContentHash::from_i64(row.try_get(column)?));
    let day = |column| Ok::<_, sqlx::Error>(Day::from(row.try_get::<NaiveDate, _>(column)?));
    let place = |topic: String, number, offset| Place { partition: PartitionId::new(topic, number), offset };
    let (topic, number, offset): (Option<String>, Option<i32>, Option<i64>) =
        (row.try_get(6)?, row.try_get(7)?, row.try_get(8)?);
    Ok(DroppedCopy {
        source_id: row.try_get(0)?,
        event_id: row.try_get(1)?,
        kept: content(2)?,
        kept_day: day(3)?,
        dropped: content(4)?,
        dropped_day: day(5)?,
        place: topic.zip(number).zip(offset).map(|((topic, number), offset)| place(topic, number, offset)),
        noticed_at: Timestamp::try_from(row.try_get::<DateTime<Utc>, _>(9)?)
            .map_err(|error| PgError::unreadable("a time", error))?,
    })
}
