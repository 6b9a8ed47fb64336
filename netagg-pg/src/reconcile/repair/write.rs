//! The statements that end a repair, in its transaction.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, NaiveDate, Utc};
use netagg_core::{Day, EventType, Month};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::client::PgError;
use crate::reconcile::day_snapshot::Conflicting;
use crate::reconcile::sums::{Column, Sums};
use crate::schema::month_fence;
use crate::stores::dirty_days;

/// Gives the keys of `conflicts` in the ledger of the totals the content and day that they have in the ledger of the
/// events. The totals of `days` are corrected in the same transaction. The other day of a conflict may not be part of the
/// repair. Then it is marked as dirty.
pub(super) async fn follow_events(
    connection: &mut PgConnection,
    conflicts: &[Conflicting],
    days: &BTreeSet<Day>,
) -> Result<(), PgError> {
    if conflicts.is_empty() {
        return Ok(());
    }
    sqlx::query(include_str!("../../../queries/repair/follow_events.sql"))
        .bind(conflicts.iter().map(|conflict| conflict.key).collect::<Vec<_>>())
        .execute(&mut *connection)
        .await?;
    let both = conflicts.iter().flat_map(|conflict| [conflict.counted_on, conflict.stored_on]);
    let dropped_through = month_fence::dropped_through(connection).await?;
    let others = both
        .filter(|day| !days.contains(day))
        .filter(|day| dropped_through.is_none_or(|dropped: Month| day.month() > dropped));
    dirty_days::mark(connection, others).await
}

/// Removes `keys` from the ledger of the totals.
pub(super) async fn forget(connection: &mut PgConnection, keys: Vec<Uuid>) -> Result<(), PgError> {
    if keys.is_empty() {
        return Ok(());
    }
    let count = keys.len() as u64;
    let forgotten =
        sqlx::query(include_str!("../../../queries/repair/forget.sql")).bind(keys).execute(connection).await?;
    if forgotten.rows_affected() == count {
        Ok(())
    } else {
        Err(PgError::Busy("an event that the repair would remove from the totals has been stored meanwhile".to_owned()))
    }
}

/// Removes the marks of dirty days, unless a mark was renewed after the repair read it.
pub(super) async fn unmark(connection: &mut PgConnection, marks: &[(Day, DateTime<Utc>)]) -> Result<(), PgError> {
    sqlx::query(include_str!("../../../queries/repair/unmark.sql"))
        .bind(marks.iter().map(|(day, _)| day.to_date()).collect::<Vec<_>>())
        .bind(marks.iter().map(|(_, marked_at)| *marked_at).collect::<Vec<_>>())
        .execute(connection)
        .await?;
    Ok(())
}

/// Adds `corrections` to the totals, in the order in which all writers lock their rows.
pub(super) async fn correct(
    connection: &mut PgConnection,
    corrections: &BTreeMap<(Day, EventType), Sums>,
) -> Result<(), PgError> {
    if corrections.is_empty() {
        return Ok(());
    }
    let days: Vec<NaiveDate> = corrections.keys().map(|(day, _)| day.to_date()).collect();
    let small = |column: Column| {
        let sums = corrections.values().map(move |sums| sums.of(column));
        sums.map(|sum| i64::try_from(sum).map_err(|error| PgError::unreadable("a sum", error)))
            .collect::<Result<Vec<_>, _>>()
    };
    // `numeric` has no Rust type here, and text is exact.
    let large = |column: Column| corrections.values().map(|sums| sums.of(column).to_string()).collect::<Vec<_>>();
    sqlx::query(include_str!("../../../queries/totals/add.sql"))
        .bind(&days)
        .bind(corrections.keys().map(|(_, event_type)| event_type.as_str()).collect::<Vec<_>>())
        .bind(small(Column::CountEvents)?)
        .bind(small(Column::SumDuration)?)
        .bind(large(Column::SumBytesUp))
        .bind(large(Column::SumBytesDown))
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "DELETE FROM agg_day WHERE day = ANY($1) \
         AND (count_events, sum_duration, sum_bytes_up, sum_bytes_down) = (0, 0, 0, 0)",
    )
    .bind(&days)
    .execute(&mut *connection)
    .await?;
    let is_wrong: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM agg_day WHERE day = ANY($1) \
         AND (count_events <= 0 OR least(sum_duration, sum_bytes_up, sum_bytes_down) < 0))",
    )
    .bind(&days)
    .fetch_one(&mut *connection)
    .await?;
    if is_wrong {
        // The repair ends with this error, which closes its connection: the server rolls back.
        return Err(PgError::Busy("another program has changed agg_day meanwhile".to_owned()));
    }
    Ok(())
}
