//! The monthly partitions of `events_raw`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use netagg_core::crash::{self, CrashPoint};
use netagg_core::{Day, Error, Month, Timestamp};
use sqlx::{AssertSqlSafe, FromRow, PgConnection};

use super::month_fence;
use crate::client::error::{DUPLICATE_TABLE, PgError};
use crate::client::{Postgres, locks};

/// The SQLSTATE for a partition that overlaps another partition.
const INVALID_OBJECT_DEFINITION: &str = "42P17";

/// How soon a failed attempt to make a partition is repeated.
const RETRY: Duration = Duration::from_secs(5);

/// Makes and lists the monthly partitions of `events_raw`. Clones share a cache.
#[derive(Clone, Debug)]
pub struct Partitions {
    postgres: Postgres,
    cache: Arc<RwLock<PartitionCache>>,
}

/// The state of the partitions at the last check.
#[derive(Debug, Default)]
struct PartitionCache {
    /// Months that are covered completely by partitions.
    whole: BTreeSet<Month>,
    /// Months whose partition could not be made, and the time of the attempt.
    without_partition: BTreeMap<Month, (Instant, Arc<WithoutPartition>)>,
}

/// Why the partition of a month cannot be made, and which parts of the month other partitions cover.
#[derive(Debug)]
pub(crate) struct WithoutPartition {
    pub(crate) reason: String,
    /// The bounds of the existing partitions.
    existing: Vec<Bounds>,
}

/// A range of time: from the first instant up to the second, exclusive.
type Bounds = (DateTime<Utc>, DateTime<Utc>);

impl WithoutPartition {
    /// Whether a partition of `events_raw` covers this time.
    pub(crate) fn covers(&self, at: Timestamp) -> bool {
        let at = at.to_datetime();
        self.existing.iter().any(|(from, to)| *from <= at && at < *to)
    }

    /// The parts of `month` that are covered by partitions.
    pub(crate) fn covered_parts(&self, month: Month) -> impl Iterator<Item = Bounds> {
        let (first, end) = bounds_of(month);
        self.existing.iter().map(move |(from, to)| (*from.max(&first), *to.min(&end))).filter(|(from, to)| from < to)
    }
}

/// The result of [`Partitions::ensure_for`].
#[derive(Debug, Default)]
pub(crate) struct Ensured {
    /// The months whose missing partition was made.
    pub(crate) made: Vec<Month>,
    /// The months whose missing partition cannot be made.
    pub(crate) without_partition: BTreeMap<Month, Arc<WithoutPartition>>,
}

/// The result of [`Partitions::ensure_ahead`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ahead {
    /// The months whose missing partition was made, in order.
    pub made: Vec<Month>,
    /// The months whose partition cannot be made, with the reason. Other partitions may take some of their events.
    pub not_made: Vec<(Month, String)>,
}

/// The partition of `events_raw` for one month.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MonthPartition {
    /// The table, `events_raw_YYYY_MM`.
    pub name: String,
    /// The month of its events.
    pub month: Month,
    /// About how many events it has; `None` until the server's first ANALYZE of the table.
    pub estimated_rows: Option<u64>,
    /// Bytes on disk, the index included.
    pub bytes: u64,
}

impl Postgres {
    /// Returns the handle to the partitions of `events_raw`.
    pub fn partitions(&self) -> Partitions {
        Partitions { postgres: self.clone(), cache: Arc::default() }
    }
}

impl Partitions {
    pub(crate) fn postgres(&self) -> &Postgres {
        &self.postgres
    }

    /// Makes the missing partitions for the month of `now` and for the `months` after it.
    ///
    /// # Errors
    /// Retryable. Partitions made before the error stay.
    pub async fn ensure_ahead(&self, now: Timestamp, months: u32) -> Result<Ahead, Error> {
        let this_month = now.day().month();
        let wanted = std::iter::successors(Some(this_month), |month| Some(month.next())).take(months as usize + 1);
        let Ensured { made, without_partition } = self.postgres.call(self.ensure_for(wanted)).await?;
        let not_made = without_partition.iter().map(|(month, problem)| (*month, problem.reason.clone())).collect();
        Ok(Ahead { made, not_made })
    }

    /// All partitions, the earliest month first.
    ///
    /// # Errors
    /// Retryable while the database cannot be read.
    pub async fn list(&self) -> Result<Vec<MonthPartition>, Error> {
        self.postgres
            .call(async {
                let mut session = self.postgres.session().await?;
                let partitions = list(&mut session).await?;
                session.release();
                Ok(partitions)
            })
            .await
    }

    /// Makes the missing partitions of `months`. Usually the cache has all of them, and the database is not asked.
    ///
    /// A partition that cannot be made does not block the other partitions. It is reported, and tried again some seconds later.
    pub(crate) async fn ensure_for(&self, months: impl IntoIterator<Item = Month>) -> Result<Ensured, PgError> {
        let mut missing: BTreeSet<Month> = months.into_iter().collect();
        let mut ensured = Ensured::default();
        {
            let cache = self.cache.read().unwrap_or_else(PoisonError::into_inner);
            missing.retain(|month| {
                if let Some((tried, problem)) = cache.without_partition.get(month)
                    && tried.elapsed() < RETRY
                {
                    ensured.without_partition.insert(*month, problem.clone());
                    return false;
                }
                !cache.whole.contains(month)
            });
        }
        if missing.is_empty() {
            return Ok(ensured);
        }
        let mut session = self.postgres.writing_session().await?;
        let existing = bounds(&mut session).await?;
        let mut whole = BTreeSet::new();
        for &month in &missing {
            if are_covering(&existing, month) {
                whole.insert(month);
                continue;
            }
            match make(&mut session, month).await {
                Ok(is_new) => {
                    whole.insert(month);
                    if is_new {
                        tracing::info!(%month, "made a partition of events_raw");
                        ensured.made.push(month);
                    }
                }
                Err(error) if error.is_of_one_table() => {
                    sqlx::raw_sql("ROLLBACK").execute(&mut *session).await?;
                    let existing = bounds(&mut session).await?;
                    if are_covering(&existing, month) {
                        whole.insert(month);
                        continue;
                    }
                    let reason = format!("the partition {} cannot be made: {}", name_of(month), error.text());
                    ensured.without_partition.insert(month, Arc::new(WithoutPartition { reason, existing }));
                }
                Err(error) => return Err(error),
            }
        }
        session.release();
        let mut cache = self.cache.write().unwrap_or_else(PoisonError::into_inner);
        for month in &missing {
            cache.without_partition.remove(month);
        }
        cache.whole.extend(whole);
        let tried = Instant::now();
        let not_made = ensured.without_partition.iter().filter(|(month, _)| missing.contains(month));
        cache.without_partition.extend(not_made.map(|(month, problem)| (*month, (tried, problem.clone()))));
        Ok(ensured)
    }

    /// Empties the cache: partitions may have been dropped or detached.
    pub(crate) fn forget(&self) {
        *self.cache.write().unwrap_or_else(PoisonError::into_inner) = PartitionCache::default();
    }
}

/// The bounds of the partitions, sorted.
async fn bounds(connection: &mut PgConnection) -> Result<Vec<Bounds>, PgError> {
    Ok(sqlx::query_as(include_str!("../../queries/partitions/bounds.sql")).fetch_all(connection).await?)
}

pub(crate) fn bounds_of(month: Month) -> Bounds {
    let midnight = |day: Day| day.to_date().and_time(chrono::NaiveTime::MIN).and_utc();
    (midnight(month.first_day()), midnight(month.last_day()) + chrono::Days::new(1))
}

/// Whether partitions with the sorted bounds `existing` cover the whole `month`.
fn are_covering(existing: &[Bounds], month: Month) -> bool {
    let (first, end) = bounds_of(month);
    let covered =
        existing.iter().fold(first, |covered, (from, to)| if *from <= covered { covered.max(*to) } else { covered });
    covered >= end
}

#[derive(Debug, FromRow)]
struct PartitionRow {
    name: String,
    estimated_rows: f64,
    bytes: i64,
}

async fn list(connection: &mut PgConnection) -> Result<Vec<MonthPartition>, PgError> {
    let rows: Vec<PartitionRow> =
        sqlx::query_as(include_str!("../../queries/partitions/list.sql")).fetch_all(connection).await?;
    let partition = |PartitionRow { name, estimated_rows, bytes }| {
        let month = month_of(&name)?;
        let estimated_rows = (estimated_rows >= 0.0).then_some(estimated_rows as u64);
        Some(MonthPartition { name, month, estimated_rows, bytes: bytes.unsigned_abs() })
    };
    Ok(rows.into_iter().filter_map(partition).collect())
}

/// Makes the partition of `month`, unless another process has made it meanwhile. Returns whether it was missing.
///
/// The partition is made as a separate table and then attached. `PARTITION OF` would lock out all readers and writers of
/// `events_raw`. Attaching locks out only VACUUM and other attempts to attach. The table is empty, so there is nothing to scan.
async fn make(connection: &mut PgConnection, month: Month) -> Result<bool, PgError> {
    let name = name_of(month);
    let (from, to) = (month.first_day(), month.next().first_day());
    sqlx::raw_sql("BEGIN").execute(&mut *connection).await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(locks::PARTITION).execute(&mut *connection).await?;
    let missing = !are_covering(&bounds(connection).await?, month);
    if missing {
        month_fence::check(connection, month).await?;
        // The statements contain only digits of months and days, so they contain no text from outside.
        let create = format!("CREATE TABLE {name} (LIKE events_raw INCLUDING ALL)");
        let attach = format!(
            "ALTER TABLE events_raw ATTACH PARTITION {name} FOR VALUES FROM ('{from} 00:00:00+00') TO ('{to} 00:00:00+00')"
        );
        // One message for each statement: a distributed database accepts no message with several statements.
        let made = async {
            sqlx::raw_sql(AssertSqlSafe(create)).execute(&mut *connection).await?;
            sqlx::raw_sql(AssertSqlSafe(attach)).execute(&mut *connection).await
        };
        made.await.map_err(|error| {
            let error = PgError::from(error);
            if error.is(DUPLICATE_TABLE) || error.is(INVALID_OBJECT_DEFINITION) {
                PgError::NotSetUp(format!("{}; attach, rename or drop it", error.text()))
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

/// The month in the name of a partition; `None` for a name that an operator has chosen.
pub(crate) fn month_of(name: &str) -> Option<Month> {
    let (year, month) = name.strip_prefix("events_raw_")?.split_once('_')?;
    format!("{year}-{month}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_of_other_bounds_cover_a_month_or_a_part_of_it() {
        let at = |text: &str| text.parse::<Timestamp>().expect("a time").to_datetime();
        let month = |text: &str| text.parse::<Month>().expect("a month");
        let existing = [
            (at("2024-01-01T00:00:00Z"), at("2025-01-01T00:00:00Z")),
            (at("2025-02-01T00:00:00Z"), at("2025-02-15T00:00:00Z")),
            (at("2025-02-15T00:00:00Z"), at("2025-03-10T00:00:00Z")),
        ];
        for (text, all) in [
            ("2023-12", false),
            ("2024-01", true),
            ("2024-12", true),
            ("2025-01", false),
            ("2025-02", true),
            ("2025-03", false),
        ] {
            assert_eq!(are_covering(&existing, month(text)), all, "{text}");
        }
        assert!(are_covering(
            &[(at("0001-01-01T00:00:00Z"), at("9999-12-31T23:59:59Z") + chrono::Days::new(1))],
            month("9999-12")
        ));
        let march = WithoutPartition { reason: String::new(), existing: existing.to_vec() };
        let covers = |text: &str| march.covers(text.parse().expect("a time"));
        assert!(covers("2025-03-09T23:59:59.999999Z") && !covers("2025-03-10T00:00:00Z"));
        let parts: Vec<_> = march.covered_parts(month("2025-03")).collect();
        assert_eq!(parts, [(at("2025-03-01T00:00:00Z"), at("2025-03-10T00:00:00Z"))]);
    }

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
