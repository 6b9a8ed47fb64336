//! Parts of `events_raw` that one statement reads.

use chrono::{DateTime, NaiveDate, Utc};
use netagg_core::{Day, EventType};
use sqlx::{FromRow, PgConnection};

use super::days::{DaySelection, end_of, start_of};
use super::sums::{Sums, SumsRow};
use crate::client::PgError;

/// The times of a partition, or of its part in a selection of days.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimeRange {
    pub(super) from: DateTime<Utc>,
    pub(super) until: DateTime<Utc>,
    pub(super) bytes: u64,
}

impl TimeRange {
    pub(super) fn has(&self, day: NaiveDate) -> bool {
        self.from.date_naive() <= day && start_of(Day::from(day)) < self.until
    }

    /// The sums that `statement` computes over the events of the range. If `only` is given, returns only the sums of these
    /// days.
    pub(super) async fn sums(
        &self,
        connection: &mut PgConnection,
        statement: &'static str,
        only: Option<&[NaiveDate]>,
    ) -> Result<Vec<(Day, EventType, Sums)>, PgError> {
        let rows: Vec<SumsRow> =
            sqlx::query_as(statement).bind(self.from).bind(self.until).bind(only).fetch_all(connection).await?;
        rows.into_iter().map(SumsRow::decode).collect()
    }
}

/// A range of a partition. A bound is `None` if the partition has no such bound.
#[derive(Debug, FromRow)]
struct TimeRangeRow {
    from_at: Option<DateTime<Utc>>,
    until: Option<DateTime<Utc>>,
    bytes: i64,
}

/// The parts of `events_raw` that have the selected days.
pub(super) async fn time_ranges(connection: &mut PgConnection, days: &DaySelection) -> Result<Vec<TimeRange>, PgError> {
    let (from, until) = (start_of(days.from), end_of(days.to));
    let rows: Vec<TimeRangeRow> = sqlx::query_as(include_str!("../../queries/reconcile/time_ranges.sql"))
        .bind(from)
        .bind(until)
        .fetch_all(connection)
        .await?;
    let bytes = rows.iter().map(|row| row.bytes.unsigned_abs()).sum();
    let range =
        |row: TimeRangeRow| Some(TimeRange { from: row.from_at?, until: row.until?, bytes: row.bytes.unsigned_abs() });
    let bounded: Option<Vec<TimeRange>> = rows.into_iter().map(range).collect();
    // An operator's partition without bounds has events of any time. Then one statement reads all partitions.
    let mut ranges = bounded.unwrap_or_else(|| vec![TimeRange { from, until, bytes }]);
    if let Some(days) = &days.only {
        ranges.retain(|range| days.iter().any(|day| range.has(*day)));
    }
    Ok(ranges)
}
