//! The fence around dropped months: every transaction that writes events or totals checks it.
//!
//! A writer's transaction first takes a shared advisory lock, and then reads which months are dropped. So retention, which
//! records a month first and lists the lock's holders afterwards, knows every writer that may have read the older answer.

use std::sync::LazyLock;

use netagg_core::{Day, Month};
use sqlx::{AssertSqlSafe, PgConnection, Row as _};

use super::settings::{parse_month, read_month, record_month};
use crate::client::{PgError, locks};

/// The setting with the newest dropped month.
const DROPPED_THROUGH: &str = "dropped_through";

/// Begins a writer's transaction, in one round trip. The last statement reads the setting after the lock is there.
static BEGIN: LazyLock<String> = LazyLock::new(|| {
    format!(
        "BEGIN; SELECT pg_advisory_xact_lock_shared({}); SELECT value FROM settings WHERE name = '{DROPPED_THROUGH}'",
        locks::WRITERS
    )
});

/// Begins a transaction that writes events or totals of `days`.
///
/// # Errors
/// [`PgError::MonthsDropped`], without a transaction, if one of the days is in a dropped month.
pub(crate) async fn begin(connection: &mut PgConnection, days: impl Iterator<Item = Day>) -> Result<(), PgError> {
    let rows = sqlx::raw_sql(AssertSqlSafe(BEGIN.as_str())).fetch_all(&mut *connection).await?;
    // The first row is the lock's.
    let Some(dropped) = rows.get(1) else { return Ok(()) };
    let through = parse_month(dropped.try_get(0)?)?;
    if days.map(Day::month).any(|month| month <= through) {
        sqlx::raw_sql("ROLLBACK").execute(connection).await?;
        return Err(PgError::MonthsDropped { through });
    }
    Ok(())
}

/// Checks that `month` is not dropped.
pub(crate) async fn check(connection: &mut PgConnection, month: Month) -> Result<(), PgError> {
    match dropped_through(connection).await? {
        Some(through) if month <= through => Err(PgError::MonthsDropped { through }),
        _ => Ok(()),
    }
}

/// The newest dropped month. All earlier months are dropped, too.
pub(crate) async fn dropped_through(connection: &mut PgConnection) -> Result<Option<Month>, PgError> {
    read_month(connection, DROPPED_THROUGH).await
}

/// Records `month`, and all before it, as dropped. The fence never moves back.
pub(crate) async fn raise(connection: &mut PgConnection, month: Month) -> Result<(), PgError> {
    record_month(connection, DROPPED_THROUGH, month).await
}
