//! The monthly partitions of `events_raw`.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

use netagg_core::crash::{self, CrashPoint};
use netagg_core::{Error, Month, Timestamp};
use sqlx::{AssertSqlSafe, PgConnection};

use crate::error::{DUPLICATE_TABLE, PgError};
use crate::postgres::Postgres;
use crate::retention;

/// Taken by whoever makes a partition, so that two never make the same one; an arbitrary number.
const ADVISORY_LOCK: i64 = 0x6e65_7461_6767_0001;

/// The partition overlaps another one.
const INVALID_OBJECT_DEFINITION: &str = "42P17";

/// Makes and lists the monthly partitions of `events_raw`. Clones share what they know.
#[derive(Clone, Debug)]
pub struct Partitions {
    postgres: Postgres,
    /// Months that had a partition when last seen.
    known: Arc<RwLock<BTreeSet<Month>>>,
}

/// One partition of `events_raw`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Partition {
    /// Its table, `events_raw_YYYY_MM`.
    pub name: String,
    /// The month of its events.
    pub month: Month,
    /// About how many events it has, once the server has counted.
    pub estimated_rows: Option<u64>,
    /// What it takes on disk, its index included.
    pub bytes: u64,
}

impl Partitions {
    pub(crate) fn new(postgres: Postgres) -> Self {
        Self { postgres, known: Arc::default() }
    }

    /// Makes the partitions of the month of `now` and of the `months` after it; answers which ones were missing.
    ///
    /// # Errors
    /// Retryable ones: what was made before stays.
    pub async fn ensure_ahead(&self, now: Timestamp, months: u32) -> Result<Vec<Month>, Error> {
        let this_month = now.day().month();
        let wanted = std::iter::successors(Some(this_month), |month| Some(month.next())).take(months as usize + 1);
        self.postgres.call(self.ensure_for(wanted)).await
    }

    /// Every partition, from the earliest month on.
    ///
    /// # Errors
    /// Retryable while the database cannot be read.
    pub async fn list(&self) -> Result<Vec<Partition>, Error> {
        self.postgres
            .call(async {
                let mut session = self.postgres.session().await?;
                let partitions = list(&mut session).await?;
                session.release();
                Ok(partitions)
            })
            .await
    }

    /// Makes the partitions that are missing of `months`. Most often none is, and nobody is asked.
    pub(crate) async fn ensure_for(&self, months: impl IntoIterator<Item = Month>) -> Result<Vec<Month>, PgError> {
        let mut missing: BTreeSet<Month> = months.into_iter().collect();
        {
            let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
            missing.retain(|month| !known.contains(month));
        }
        if missing.is_empty() {
            return Ok(Vec::new());
        }
        let mut session = self.postgres.session().await?;
        let there = list(&mut session).await?;
        missing.retain(|month| there.iter().all(|partition| partition.month != *month));
        let mut made = Vec::new();
        for &month in &missing {
            if make(&mut session, month).await? {
                tracing::info!(%month, "made a partition of events_raw");
                made.push(month);
            }
        }
        session.release();
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.extend(there.into_iter().map(|partition| partition.month));
        known.extend(missing);
        Ok(made)
    }

    /// Trusts the database alone from now on.
    pub(crate) fn forget(&self) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

async fn list(connection: &mut PgConnection) -> Result<Vec<Partition>, PgError> {
    let rows: Vec<(String, f64, i64)> =
        sqlx::query_as(include_str!("../queries/partitions.sql")).fetch_all(connection).await?;
    let partition = |(name, rows, bytes): (String, f64, i64)| {
        let month = month_of(&name)?;
        let estimated_rows = (rows >= 0.0).then_some(rows as u64);
        Some(Partition { name, month, estimated_rows, bytes: bytes.unsigned_abs() })
    };
    Ok(rows.into_iter().filter_map(partition).collect())
}

/// Makes the partition of `month` unless somebody else did meanwhile.
///
/// It is made as a table of its own and attached, since `PARTITION OF` locks out every reader and writer of `events_raw`;
/// attaching locks out others that attach, and VACUUM. The table is empty: there is nothing to scan.
async fn make(connection: &mut PgConnection, month: Month) -> Result<bool, PgError> {
    let name = name_of(month);
    let (from, to) = (month.first_day(), month.next().first_day());
    sqlx::raw_sql("BEGIN").execute(&mut *connection).await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(ADVISORY_LOCK).execute(&mut *connection).await?;
    let missing = list(connection).await?.iter().all(|partition| partition.month != month);
    if missing {
        retention::check(connection, month).await?;
        // Digits of a month and of days: nothing from outside.
        let statements = format!(
            "CREATE TABLE {name} (LIKE events_raw INCLUDING ALL); \
             ALTER TABLE events_raw ATTACH PARTITION {name} FOR VALUES FROM ('{from} 00:00:00+00') TO ('{to} 00:00:00+00')"
        );
        sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut *connection).await.map_err(|error| {
            let error = PgError::from(error);
            if error.is(DUPLICATE_TABLE) || error.is(INVALID_OBJECT_DEFINITION) {
                PgError::NotSetUp(format!(
                    "{name} cannot be made: {error}; attach, rename or drop what is in its place"
                ))
            } else {
                error
            }
        })?;
        crash::pass(CrashPoint::PartitionAttached);
    }
    sqlx::raw_sql("COMMIT").execute(connection).await?;
    crash::pass(CrashPoint::PartitionMade);
    Ok(missing)
}

pub(crate) fn name_of(month: Month) -> String {
    format!("events_raw_{:04}_{:02}", month.year(), month.number())
}

/// The month of a partition that bears our name; an operator's own are left alone.
pub(crate) fn month_of(name: &str) -> Option<Month> {
    let (year, month) = name.strip_prefix("events_raw_")?.split_once('_')?;
    format!("{year}-{month}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_named_after_its_month() {
        for (month, name) in [("2025-10", "events_raw_2025_10"), ("0001-01", "events_raw_0001_01")] {
            let month: Month = month.parse().expect("valid");
            assert_eq!(name_of(month), name);
            assert_eq!(month_of(name), Some(month));
        }
        assert_eq!(month_of("events_raw_old"), None);
        assert_eq!(month_of("events_raw_2025_13"), None);
    }
}
