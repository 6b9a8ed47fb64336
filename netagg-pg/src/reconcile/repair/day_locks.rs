//! Locks on days, so that only one repair of a day runs at a time.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::NaiveDate;
use netagg_core::Day;
use sqlx::PgConnection;
use tokio::time::Instant;

use crate::client::{PgError, locks};

/// The longest pause between two attempts.
const PAUSE: Duration = Duration::from_secs(1);

/// Locks `days` for the session of `connection`. Waits up to `patience` for other repairs. Returns the locked days.
pub(super) async fn lock(
    connection: &mut PgConnection,
    days: &[Day],
    patience: Duration,
) -> Result<BTreeSet<Day>, PgError> {
    let deadline = Instant::now() + patience;
    let mut locked = BTreeSet::new();
    let mut pause = Duration::from_millis(20);
    loop {
        let missing: BTreeSet<Day> = days.iter().copied().filter(|day| !locked.contains(day)).collect();
        let got: Vec<NaiveDate> = sqlx::query_scalar(include_str!("../../../queries/repair/lock_days.sql"))
            .bind(locks::REPAIRED_DAYS)
            .bind(missing.iter().map(|day| day.to_date()).collect::<Vec<_>>())
            .fetch_all(&mut *connection)
            .await?;
        locked.extend(got.into_iter().map(Day::from));
        if missing.is_subset(&locked) || Instant::now() >= deadline {
            return Ok(locked);
        }
        tokio::time::sleep_until(deadline.min(Instant::now() + pause)).await;
        pause = (pause * 2).min(PAUSE);
    }
}
