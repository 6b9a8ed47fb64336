//! Events that came again with other content.

use chrono::{DateTime, NaiveDate, Utc};
use netagg_core::{ContentHash, Day, PartitionId, RecordPosition, Timestamp};
use serde::Serialize;
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use crate::client::PgError;

/// How many conflicting duplicates an audit lists. It counts all.
const MAX_LISTED: i64 = 100;

/// The conflicting duplicates of some days.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ConflictingDuplicates {
    /// How many conflicting duplicates there are. A content that came several times counts once.
    pub count: u64,
    /// The first hundred conflicting duplicates, in the order in which the ingestor noticed them.
    pub first: Vec<DroppedCopy>,
}

/// A copy of an event that was dropped, because an earlier copy has another content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppedCopy {
    /// The event's source.
    pub source_id: String,
    /// The event's id at its source.
    pub event_id: Uuid,
    /// The content of the stored copy.
    pub kept: ContentHash,
    /// The day of the stored copy.
    pub kept_day: Day,
    /// The content of the dropped copy.
    pub dropped: ContentHash,
    /// The day of the dropped copy.
    pub dropped_day: Day,
    /// The position of the dropped copy in its topic, if it came from a topic.
    pub position: Option<RecordPosition>,
    /// When the ingestor noticed the conflict.
    pub noticed_at: Timestamp,
}

/// Reads the conflicts with a stored or dropped copy on a day from `from` to `to`.
pub(super) async fn read(connection: &mut PgConnection, from: Day, to: Day) -> Result<ConflictingDuplicates, PgError> {
    let rows: Vec<ConflictRow> = sqlx::query_as(include_str!("../../../queries/audit/conflicts.sql"))
        .bind(from.to_date())
        .bind(to.to_date())
        .bind(MAX_LISTED)
        .fetch_all(connection)
        .await?;
    let count = rows.first().map_or(0, |row| row.total.unsigned_abs());
    let first = rows.into_iter().map(DroppedCopy::try_from).collect::<Result<_, _>>()?;
    Ok(ConflictingDuplicates { count, first })
}

#[derive(Debug, FromRow)]
struct ConflictRow {
    source_id: String,
    event_id: Uuid,
    kept_content: i64,
    kept_day: NaiveDate,
    dropped_content: i64,
    dropped_day: NaiveDate,
    topic: Option<String>,
    partition: Option<i32>,
    record_offset: Option<i64>,
    noticed_at: DateTime<Utc>,
    /// How many conflicts there are, in every row.
    total: i64,
}

impl TryFrom<ConflictRow> for DroppedCopy {
    type Error = PgError;

    fn try_from(row: ConflictRow) -> Result<Self, PgError> {
        let position = row.topic.zip(row.partition).zip(row.record_offset);
        Ok(Self {
            source_id: row.source_id,
            event_id: row.event_id,
            kept: ContentHash::from_i64(row.kept_content),
            kept_day: Day::from(row.kept_day),
            dropped: ContentHash::from_i64(row.dropped_content),
            dropped_day: Day::from(row.dropped_day),
            position: position
                .map(|((topic, number), offset)| RecordPosition { partition: PartitionId::new(topic, number), offset }),
            noticed_at: Timestamp::try_from(row.noticed_at).map_err(|error| PgError::unreadable("a time", error))?,
        })
    }
}
