//! The beginning of each transaction that writes events or totals: it checks the dropped months, the mode and the event limits.
//!
//! The transaction first takes a shared advisory lock, and then reads the settings. Retention first records a month, and
//! then lists the holders of the lock. So it knows every writer that may have read the older setting. A switch of the mode and a
//! change of the limits take the lock exclusively, so no writer with the old mode or the old limits commits after it.

use std::sync::LazyLock;

use netagg_core::{Day, EventLimits, ProcessingMode};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Row as _};

use super::mode::{MODE, RecordedMode};
use super::month_fence::DROPPED_THROUGH;
use super::settings::{EventLimitsError, MAX_AGE, MAX_FUTURE, parse_limits, parse_month};
use crate::client::{PgError, Traced, locks};

/// Begins the transaction in one round trip. The last statement reads the settings once the transaction has the lock.
static BEGIN: LazyLock<String> = LazyLock::new(|| {
    format!(
        "BEGIN; SELECT pg_advisory_xact_lock_shared({}); \
         SELECT name, value FROM settings WHERE name IN ('{DROPPED_THROUGH}', '{MODE}', '{MAX_AGE}', '{MAX_FUTURE}')",
        locks::WRITERS
    )
});

/// The settings of the service that writes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Writer {
    /// The mode in which the service works. Without it, the transaction must be correct in both modes.
    pub(crate) mode: Option<ProcessingMode>,
    /// The limits with which the service has validated the events. `None` for a transaction that only moves or counts stored
    /// events, and for an application that has not agreed on limits.
    pub(crate) limits: Option<EventLimits>,
}

/// Begins a transaction of `writer` that writes events or totals of `days`.
///
/// # Errors
/// After an error, no transaction is open. [`PgError::MonthsDropped`] if one of the days is in a dropped month;
/// [`PgError::OtherSettings`] if the database has another mode or other limits, or a switch of the mode is not finished.
pub(crate) async fn begin(
    connection: &mut PgConnection,
    writer: Writer,
    days: impl Iterator<Item = Day>,
) -> Result<(), PgError> {
    let rows = sqlx::raw_sql(AssertSqlSafe(BEGIN.as_str())).fetch_all(&mut *connection).traced("BEGIN").await?;
    let checked = check_settings(&rows, writer, days);
    if checked.is_err() {
        sqlx::raw_sql("ROLLBACK").execute(connection).await?;
    }
    checked
}

fn check_settings(rows: &[PgRow], writer: Writer, days: impl Iterator<Item = Day>) -> Result<(), PgError> {
    let (mut dropped, mut recorded, mut max_age, mut max_future) = (None, None, None, None);
    // The first row is the result of the lock.
    for row in rows.iter().skip(1) {
        let value: &str = row.try_get(1)?;
        match row.try_get(0)? {
            MODE => recorded = Some(value),
            MAX_AGE => max_age = Some(value),
            MAX_FUTURE => max_future = Some(value),
            _ => dropped = Some(parse_month(value)?),
        }
    }
    let recorded = RecordedMode::parse(recorded)?;
    match (writer.mode, recorded) {
        (Some(mode), _) => recorded.check(mode)?,
        (None, RecordedMode::SwitchingTo(_)) => return Err(PgError::OtherSettings(recorded.to_string())),
        (None, _) => {}
    }
    if let (Some(configured), Some(max_age), Some(max_future)) = (writer.limits, max_age, max_future) {
        let recorded = parse_limits(max_age, max_future)?;
        if recorded != configured {
            let differ = EventLimitsError::Differ { recorded, configured };
            return Err(PgError::OtherSettings(format!("{differ}; restart this service with the recorded limits")));
        }
    }
    match dropped {
        Some(through) if days.map(Day::month).any(|month| month <= through) => Err(PgError::MonthsDropped { through }),
        _ => Ok(()),
    }
}
