//! Dirty days: days whose totals must be recomputed from `events_raw`.

use std::collections::BTreeSet;

use chrono::NaiveDate;
use netagg_core::Day;
use sqlx::PgConnection;

use crate::client::PgError;

/// Marks `days` as dirty, in their order, so that concurrent writers never deadlock.
pub(crate) async fn mark(connection: &mut PgConnection, days: impl IntoIterator<Item = Day>) -> Result<(), PgError> {
    let days: BTreeSet<NaiveDate> = days.into_iter().map(Day::to_date).collect();
    if days.is_empty() {
        return Ok(());
    }
    sqlx::query(include_str!("../../queries/totals/dirty_day_mark.sql"))
        .bind(days.into_iter().collect::<Vec<_>>())
        .execute(connection)
        .await?;
    Ok(())
}
