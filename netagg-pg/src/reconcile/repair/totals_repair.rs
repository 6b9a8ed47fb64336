//! The worker that repairs dirty days, in the service that counts.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chrono::NaiveDate;
use netagg_core::ports::TotalsRepair;
use netagg_core::{Day, Error};

use super::change::Skipped;
use super::repairs::Repairs;
use crate::client::{PgError, Postgres, error};
use crate::reconcile::day_snapshot::Unmatched;
use crate::reconcile::identity_lookup::{Ledger, look_up};

/// The maximum number of days that are repaired together.
const DAYS: usize = 366;

/// How long a repair waits for the ingestor before it skips a day.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a repair may take. Its connection has no time limits, and a server may vanish without an error.
const LIMIT: Duration = Duration::from_secs(15 * 60);

/// Recomputes the days in `agg_dirty_day`.
#[derive(Debug)]
pub struct PgTotalsRepair {
    postgres: Postgres,
    repairs: Repairs,
    /// For each skipped day, an identity that is counted and not stored. Until this event is stored, the day cannot be
    /// repaired.
    unmatched_days: Mutex<BTreeMap<Day, Unmatched>>,
}

impl PgTotalsRepair {
    /// Repairs the totals of `postgres`.
    pub fn new(postgres: Postgres) -> Self {
        Self { repairs: postgres.repairs(), postgres, unmatched_days: Mutex::default() }
    }

    async fn repair_days(&self, days: &[Day]) -> Result<Vec<Day>, Error> {
        let mut repair = self.repairs.begin(days, Duration::ZERO).await?;
        if repair.has_lost_events() {
            repair.count_the_uncounted().await?;
        }
        repair.wait_for_the_ingestor(PATIENCE).await?;
        for (day, skipped) in repair.skipped() {
            let snapshot = repair.snapshot();
            let listed = snapshot.counted_not_stored.iter().copied().find(|unmatched| unmatched.day == *day);
            let missing = listed.or_else(|| snapshot.days.get(day)?.first_counted_not_stored);
            if let (Skipped::IngestorBehind { events }, Some(missing)) = (skipped, missing)
                && self.unmatched_days().insert(*day, missing).is_none()
            {
                tracing::warn!(
                    %day,
                    events,
                    "totals contain events that the ingestor has not stored yet; they are repaired once it has stored them"
                );
            }
        }
        let mut days: Vec<Day> = repair.finish().await?.into_iter().map(|change| change.day).collect();
        days.dedup();
        Ok(days)
    }

    /// The marked days that can be repaired, the oldest marks first.
    async fn due(&self) -> Result<Vec<Day>, Error> {
        self.postgres
            .call(async {
                let mut session = self.postgres.writing_session().await?;
                let marked: Vec<NaiveDate> = sqlx::query_scalar(include_str!("../../../queries/repair/due.sql"))
                    .fetch_all(&mut *session)
                    .await?;
                let mut marked: Vec<Day> = marked.into_iter().map(Day::from).collect();
                self.unmatched_days().retain(|day, _| marked.contains(day));
                let mut missing: Vec<Unmatched> = self.unmatched_days().values().copied().collect();
                look_up(&mut session, Ledger::Events, &mut missing, |_, _| {}).await?;
                // Another repair may also have removed an identity from the totals.
                let mut uncounted = missing.clone();
                look_up(&mut session, Ledger::Totals, &mut uncounted, |_, _| {}).await?;
                missing.retain(|unmatched| !uncounted.contains(unmatched));
                session.release();
                marked.retain(|day| missing.iter().all(|unmatched| unmatched.day != *day));
                marked.truncate(DAYS);
                Ok::<_, PgError>(marked)
            })
            .await
    }

    fn unmatched_days(&self) -> MutexGuard<'_, BTreeMap<Day, Unmatched>> {
        self.unmatched_days.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl TotalsRepair for PgTotalsRepair {
    async fn repair(&self) -> Result<Vec<Day>, Error> {
        let days = self.due().await?;
        if days.is_empty() {
            return Ok(Vec::new());
        }
        tokio::time::timeout(LIMIT, self.repair_days(&days))
            .await
            .unwrap_or_else(|_| Err(error::to_core(PgError::Busy(format!("a repair took longer than {LIMIT:?}")))))
    }
}
