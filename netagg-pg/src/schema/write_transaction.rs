//! The beginning of each transaction that writes events or totals: it checks the dropped months and the mode.
//!
//! The transaction first takes a shared advisory lock, and then reads both settings. Retention first records a month, and
//! then lists the holders of the lock. So it knows every writer that may have read the older setting. A switch of the mode
//! takes the lock exclusively, so no writer of the old mode commits after it.

use std::sync::LazyLock;

use netagg_core::{Day, ProcessingMode};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Row as _};

use super::mode::{MODE, RecordedMode};
use super::month_fence::DROPPED_THROUGH;
use super::settings::parse_month;
use crate::client::{PgError, Traced, locks};

/// Begins the transaction in one round trip. The last statement reads the settings once the transaction has the lock.
static BEGIN: LazyLock<String> = LazyLock::new(|| {
    format!(
        "BEGIN; SELECT pg_advisory_xact_lock_shared({}); \
         SELECT name, value FROM settings WHERE name IN ('{DROPPED_THROUGH}', '{MODE}')",
        locks::WRITERS
    )
});

/// Begins a transaction that writes events or totals of `days`, for a service that works in `mode`. Without `mode`, the
/// transaction must be correct in both modes.
///
/// # Errors
/// After an error, no transaction is open. [`PgError::MonthsDropped`] if one of the days is in a dropped month;
/// [`PgError::WrongMode`] if the database has another mode, or a switch of the mode is not finished.
pub(crate) async fn begin(
    connection: &mut PgConnection,
    mode: Option<ProcessingMode>,
    days: impl Iterator<Item = Day>,
) -> Result<(), PgError> {
    let rows = sqlx::raw_sql(AssertSqlSafe(BEGIN.as_str())).fetch_all(&mut *connection).traced("BEGIN").await?;
    let checked = check_settings(&rows, mode, days);
    if checked.is_err() {
        sqlx::raw_sql("ROLLBACK").execute(connection).await?;
    }
    checked
}

fn check_settings(
    rows: &[PgRow],
    mode: Option<ProcessingMode>,
    days: impl Iterator<Item = Day>,
) -> Result<(), PgError> {
    let (mut dropped, mut recorded) = (None, None);
    // The first row is the result of the lock.
    for row in rows.iter().skip(1) {
        let value: &str = row.try_get(1)?;
        match row.try_get(0)? {
            MODE => recorded = Some(value),
            _ => dropped = Some(parse_month(value)?),
        }
    }
    let recorded = RecordedMode::parse(recorded)?;
    match (mode, recorded) {
        (Some(mode), _) => recorded.check(mode)?,
        (None, RecordedMode::SwitchingTo(_)) => return Err(PgError::WrongMode(recorded.to_string())),
        (None, _) => {}
    }
    match dropped {
        Some(through) if days.map(Day::month).any(|month| month <= through) => Err(PgError::MonthsDropped { through }),
        _ => Ok(()),
    }
}
