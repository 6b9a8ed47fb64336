//! Repairing what conflicts have put in doubt, by itself.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chrono::NaiveDate;
use netagg_core::ports::TotalsRepair;
use netagg_core::{Day, Error};

use super::{Left, Repairs};
use crate::books::{self, Apart, Ledger};
use crate::error::{self, PgError};
use crate::postgres::Postgres;

/// How many days are repaired together, at most.
const DAYS: usize = 366;

/// How long the ingestor is waited for before a day is left for later.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a repair may take. It has a connection of its own, and a server may vanish without a word.
const LIMIT: Duration = Duration::from_secs(15 * 60);

/// Recomputes the days in `agg_dirty_day`.
#[derive(Debug)]
pub struct PgTotalsRepair {
    postgres: Postgres,
    repairs: Repairs,
    /// Of each day that had to be left, something that is counted and not stored: until it is, the day cannot be done.
    waits_for: Mutex<BTreeMap<Day, Apart>>,
}

impl PgTotalsRepair {
    /// Repairs the totals of `postgres`.
    pub fn new(postgres: Postgres) -> Self {
        Self { repairs: postgres.repairs(), postgres, waits_for: Mutex::default() }
    }

    async fn repair_days(&self, days: &[Day]) -> Result<Vec<Day>, Error> {
        let mut repair = self.repairs.begin(days, Duration::ZERO).await?;
        if repair.has_lost_events() {
            repair.count_the_uncounted().await?;
        }
        repair.wait_for_the_ingestor(PATIENCE).await?;
        for (day, left) in repair.left() {
            let listed = repair.books.ahead.iter().copied().find(|apart| apart.day == *day);
            let missing = listed.or_else(|| repair.books.days.get(day)?.first_ahead);
            if let (Left::Behind { events }, Some(missing)) = (left, missing)
                && self.waits_for().insert(*day, missing).is_none()
            {
                tracing::warn!(
                    %day,
                    events,
                    "totals contain events that the ingestor has not stored; they are repaired once it has"
                );
            }
        }
        let mut days: Vec<Day> = repair.finish().await?.into_iter().map(|change| change.day).collect();
        days.dedup();
        Ok(days)
    }

    /// The days that are marked and can be done, the oldest marks first.
    async fn due(&self) -> Result<Vec<Day>, Error> {
        self.postgres
            .call(async {
                let mut session = self.postgres.writing_session().await?;
                let marked: Vec<NaiveDate> =
                    sqlx::query_scalar(include_str!("../../queries/repair_due.sql")).fetch_all(&mut *session).await?;
                let mut marked: Vec<Day> = marked.into_iter().map(Day::from).collect();
                self.waits_for().retain(|day, _| marked.contains(day));
                let mut missing: Vec<Apart> = self.waits_for().values().copied().collect();
                books::look_up(&mut session, Ledger::Stored, &mut missing, |_, _, _| {}).await?;
                // Somebody may have taken it back out of the totals, too.
                let mut uncounted = missing.clone();
                books::look_up(&mut session, Ledger::Counted, &mut uncounted, |_, _, _| {}).await?;
                missing.retain(|apart| !uncounted.contains(apart));
                session.release();
                marked.retain(|day| missing.iter().all(|apart| apart.day != *day));
                marked.truncate(DAYS);
                Ok::<_, PgError>(marked)
            })
            .await
    }

    fn waits_for(&self) -> MutexGuard<'_, BTreeMap<Day, Apart>> {
        self.waits_for.lock().unwrap_or_else(PoisonError::into_inner)
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
