//! The monthly partitions of `events_raw`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use netagg_core::crash::{self, CrashPoint};
use netagg_core::{Day, Error, Month, Timestamp};
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
    known: Arc<RwLock<Known>>,
}

/// How soon a partition that could not be made is tried again.
const RETRY: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
struct Known {
    /// Months that had room for all their events when last seen.
    whole: BTreeSet<Month>,
    /// Months whose partition could not be made, and when that was tried.
    without_partition: BTreeMap<Month, (Instant, Arc<WithoutPartition>)>,
}

/// Why the partition of a month cannot be made, and which of its events have a place in other partitions.
#[derive(Debug)]
pub(crate) struct WithoutPartition {
    pub(crate) reason: String,
    /// Times that partitions of other bounds have room for.
    room: Vec<Bounds>,
}

/// A time from the first on, before the second.
type Bounds = (DateTime<Utc>, DateTime<Utc>);

impl WithoutPartition {
    /// Whether an event of this time has a place in `events_raw`.
    pub(crate) fn has_room(&self, at: Timestamp) -> bool {
        let at = at.to_datetime();
        self.room.iter().any(|(from, to)| *from <= at && at < *to)
    }

    /// The parts of `month` that have room.
    pub(crate) fn room_in(&self, month: Month) -> impl Iterator<Item = Bounds> {
        let (first, end) = bounds_of(month);
        self.room.iter().map(move |(from, to)| (*from.max(&first), *to.min(&end))).filter(|(from, to)| from < to)
    }
}

/// What [`Partitions::ensure_for`] found.
#[derive(Debug, Default)]
pub(crate) struct Ensured {
    /// The months whose partition was missing and was made.
    pub(crate) made: Vec<Month>,
    /// The months whose partition is missing and cannot be made.
    pub(crate) without_partition: BTreeMap<Month, Arc<WithoutPartition>>,
}

/// What [`Partitions::ensure_ahead`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ahead {
    /// The months whose partition was missing and was made, in order.
    pub made: Vec<Month>,
    /// The months whose partition cannot be made, and why. Other partitions may have room for some of their events.
    pub not_made: Vec<(Month, String)>,
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

    pub(crate) fn postgres(&self) -> &Postgres {
        &self.postgres
    }

    /// Makes the partitions of the month of `now` and of the `months` after it, unless they are there.
    ///
    /// # Errors
    /// Retryable ones: what was made before stays.
    pub async fn ensure_ahead(&self, now: Timestamp, months: u32) -> Result<Ahead, Error> {
        let this_month = now.day().month();
        let wanted = std::iter::successors(Some(this_month), |month| Some(month.next())).take(months as usize + 1);
        let Ensured { made, without_partition } = self.postgres.call(self.ensure_for(wanted)).await?;
        let not_made = without_partition.iter().map(|(month, problem)| (*month, problem.reason.clone())).collect();
        Ok(Ahead { made, not_made })
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

    /// Makes the partitions that are missing of `months`. Most often none is, and the database is not asked.
    ///
    /// A partition that cannot be made keeps the others from nothing: it is reported, and tried again some seconds later.
    pub(crate) async fn ensure_for(&self, months: impl IntoIterator<Item = Month>) -> Result<Ensured, PgError> {
        let mut missing: BTreeSet<Month> = months.into_iter().collect();
        let mut ensured = Ensured::default();
        {
            let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
            missing.retain(|month| {
                if let Some((tried, problem)) = known.without_partition.get(month)
                    && tried.elapsed() < RETRY
                {
                    ensured.without_partition.insert(*month, problem.clone());
                    return false;
                }
                !known.whole.contains(month)
            });
        }
        if missing.is_empty() {
            return Ok(ensured);
        }
        let mut session = self.postgres.writing_session().await?;
        let room = bounds(&mut session).await?;
        let mut whole = BTreeSet::new();
        for &month in &missing {
            if has_room_for_all(&room, month) {
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
                    let room = bounds(&mut session).await?;
                    if has_room_for_all(&room, month) {
                        whole.insert(month);
                        continue;
                    }
                    let reason = format!("the partition {} cannot be made: {}", name_of(month), error.text());
                    ensured.without_partition.insert(month, Arc::new(WithoutPartition { reason, room }));
                }
                Err(error) => return Err(error),
            }
        }
        session.release();
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        for month in &missing {
            known.without_partition.remove(month);
        }
        known.whole.extend(whole);
        let tried = Instant::now();
        let not_made = ensured.without_partition.iter().filter(|(month, _)| missing.contains(month));
        known.without_partition.extend(not_made.map(|(month, problem)| (*month, (tried, problem.clone()))));
        Ok(ensured)
    }

    /// Trusts the database alone from now on.
    pub(crate) fn forget(&self) {
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Known::default();
    }
}

/// Which times the partitions have room for, by their beginning.
async fn bounds(connection: &mut PgConnection) -> Result<Vec<Bounds>, PgError> {
    Ok(sqlx::query_as(include_str!("../queries/partition_bounds.sql")).fetch_all(connection).await?)
}

pub(crate) fn bounds_of(month: Month) -> Bounds {
    let midnight = |day: Day| day.to_date().and_time(chrono::NaiveTime::MIN).and_utc();
    (midnight(month.first_day()), midnight(month.last_day()) + chrono::Days::new(1))
}

/// Whether partitions, of whatever bounds, have room for every time of `month`. `room` is sorted.
fn has_room_for_all(room: &[Bounds], month: Month) -> bool {
    let (first, end) = bounds_of(month);
    let covered =
        room.iter().fold(first, |covered, (from, to)| if *from <= covered { covered.max(*to) } else { covered });
    covered >= end
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
    let missing = !has_room_for_all(&bounds(connection).await?, month);
    if missing {
        retention::check(connection, month).await?;
        // Digits of a month and of days: nothing from outside.
        let create = format!("CREATE TABLE {name} (LIKE events_raw INCLUDING ALL)");
        let attach = format!(
            "ALTER TABLE events_raw ATTACH PARTITION {name} FOR VALUES FROM ('{from} 00:00:00+00') TO ('{to} 00:00:00+00')"
        );
        // One statement a message: a distributed database takes no more.
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

/// The month of a partition that bears our name; an operator's own are left alone.
pub(crate) fn month_of(name: &str) -> Option<Month> {
    let (year, month) = name.strip_prefix("events_raw_")?.split_once('_')?;
    format!("{year}-{month}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_of_other_bounds_have_room_for_a_month_or_a_part_of_it() {
        let at = |text: &str| text.parse::<Timestamp>().expect("a time").to_datetime();
        let month = |text: &str| text.parse::<Month>().expect("a month");
        let room = [
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
            assert_eq!(has_room_for_all(&room, month(text)), all, "{text}");
        }
        assert!(has_room_for_all(
            &[(at("0001-01-01T00:00:00Z"), at("9999-12-31T23:59:59Z") + chrono::Days::new(1))],
            month("9999-12")
        ));
        let march = WithoutPartition { reason: String::new(), room: room.to_vec() };
        let has_room = |text: &str| march.has_room(text.parse().expect("a time"));
        assert!(has_room("2025-03-09T23:59:59.999999Z") && !has_room("2025-03-10T00:00:00Z"));
        let parts: Vec<_> = march.room_in(month("2025-03")).collect();
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
