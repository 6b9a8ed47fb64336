//! What one snapshot says of a set of days: the events stored, the totals, and where the two ledgers part.
//!
//! A service may be ahead of the other at any time, so totals are not compared with the sums over all stored events, but
//! with those over what the ledger of the totals has. Where both ledgers have the same of a day, which is known by hash
//! sums without joining them, these are the same. Elsewhere the identities that only one ledger has are listed.

mod sums;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use futures::TryStreamExt;
use futures::stream::BoxStream;
use netagg_core::Day;
use sqlx::PgConnection;
use uuid::Uuid;

pub use self::sums::Column;
pub(crate) use self::sums::{ByType, Sums, SumsRow, add, decode, differing, subtract};
pub(crate) use self::waiting::{Ledger, look_up};
use crate::error::PgError;
use crate::postgres::Postgres;

/// How many identities that only one ledger has are held, of all days together.
const MAX_APART: usize = 1_000_000;

/// For the one session that looks at whole tables: more of the server than a session gets by default, and no time spent
/// on compiling statements that read a few columns.
const SESSION: &str = "SET max_parallel_workers_per_gather = 4; SET work_mem = '32MB'; SET jit = off";

/// How far a long look has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct Progress {
    /// What is being read.
    pub what: &'static str,
    /// Bytes of tables read so far.
    pub done: u64,
    /// Bytes of tables to read in all, as far as is known.
    pub total: u64,
}

/// Is told how far a long look has got.
pub type OnProgress<'a> = dyn Fn(Progress) + Send + Sync + 'a;

/// A connection of its own, without limits of time: it reads whole tables.
pub(crate) async fn connect(postgres: &Postgres) -> Result<PgConnection, PgError> {
    let mut connection = postgres.unlimited_connection().await?;
    postgres.refuse_distribution(&mut connection).await?;
    sqlx::raw_sql(SESSION).execute(&mut connection).await?;
    Ok(connection)
}

/// Which days to look at.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    from: Day,
    to: Day,
    /// Of those between, only these; all if `None`.
    only: Option<Vec<NaiveDate>>,
}

impl Scope {
    /// The days from `from` to `to`, both inclusive.
    pub(crate) fn between(from: Day, to: Day) -> Self {
        Self { from, to, only: None }
    }

    /// These days; `None` if there are none.
    pub(crate) fn only(days: impl IntoIterator<Item = Day>) -> Option<Self> {
        let days: BTreeSet<Day> = days.into_iter().collect();
        let (from, to) = (*days.first()?, *days.last()?);
        Some(Self { from, to, only: Some(days.into_iter().map(Day::to_date).collect()) })
    }
}

/// An identity that only one of the ledgers has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Apart {
    pub(crate) key: Uuid,
    pub(crate) content: i64,
    /// The day it has there.
    pub(crate) day: Day,
}

/// An identity of which the ledgers have different contents: a conflict that no repair has answered yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Conflicting {
    pub(crate) key: Uuid,
    pub(crate) counted_on: Day,
    pub(crate) stored_on: Day,
}

/// What a snapshot says of one day.
#[derive(Clone, Debug, Default)]
pub(crate) struct DayBooks {
    /// Its rows of `agg_day`.
    pub(crate) totals: ByType,
    /// The sums over its events.
    pub(crate) stored: ByType,
    /// The sums over those of its events that the ledger of the totals has, under whichever content and day.
    pub(crate) counted: ByType,
    /// How many identities the ledger of the events has of it.
    pub(crate) identities: u64,
    /// How many the ledger of the totals has of it.
    counted_identities: u64,
    /// How many of those the ledger of the events has of other days.
    stored_elsewhere: u64,
    /// How many only the ledger of the totals has.
    pub(crate) ahead: u64,
    /// How many only the ledger of the events has, if those are listed.
    pub(crate) behind: u64,
    /// One of those.
    pub(crate) first_ahead: Option<Apart>,
    /// Whether what only one ledger has is too much to be listed.
    pub(crate) is_too_far_apart: bool,
    /// Whether there are more conflicts of it than are listed.
    pub(crate) has_more_conflicts: bool,
    /// When it was last marked dirty, if it is.
    pub(crate) marked_at: Option<DateTime<Utc>>,
}

impl DayBooks {
    /// How many events it has.
    pub(crate) fn events(&self) -> u64 {
        self.stored.values().map(|sums| u64::try_from(sums.count()).unwrap_or_default()).sum()
    }

    /// Whether the ledger of the totals has all that the ledger of the events has of it, of the same day.
    fn is_nowhere_behind(&self) -> bool {
        self.identities + self.ahead + self.stored_elsewhere == self.counted_identities
    }
}

/// What to list of where the ledgers part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lists {
    /// What is counted and not stored.
    Ahead,
    /// What is stored and not counted, too.
    Both,
}

/// What a snapshot says of several days.
#[derive(Clone, Debug, Default)]
pub(crate) struct Books {
    pub(crate) days: BTreeMap<Day, DayBooks>,
    /// What only the ledger of the totals has: counted, not stored yet.
    pub(crate) ahead: Vec<Apart>,
    /// What only the ledger of the events has: stored, not counted yet.
    pub(crate) behind: Vec<Apart>,
    pub(crate) conflicts: Vec<Conflicting>,
}

impl Books {
    /// Reads the days of `scope` in the transaction of `connection`, which is one of a single snapshot.
    pub(crate) async fn read(
        connection: &mut PgConnection,
        scope: &Scope,
        lists: Lists,
        on_progress: &OnProgress<'_>,
    ) -> Result<Self, PgError> {
        let mut books = Self::default();
        let stretches = stretches(connection, scope).await?;
        let ledgers = size(connection, "event_identity").await? + size(connection, "agg_identity").await?;
        let mut progress = Progress {
            what: "ledgers",
            done: 0,
            total: ledgers + stretches.iter().map(|stretch| stretch.bytes).sum::<u64>(),
        };
        on_progress(progress);
        let unlike = books.read_ledgers(connection, scope).await?;
        progress.done += ledgers;
        books.read_totals(connection, scope).await?;

        progress.what = "events";
        for stretch in &stretches {
            on_progress(progress);
            let statement = include_str!("../../queries/days_stored.sql");
            for (day, event_type, sums) in stretch.sums(connection, statement, scope.only.as_deref()).await? {
                *books.days.entry(day).or_default().stored.entry(event_type).or_default() += sums;
            }
            progress.done += stretch.bytes;
        }

        if !unlike.is_empty() {
            progress.what = "where the ledgers part";
            on_progress(progress);
            books.list_ahead(connection, &unlike).await?;
            if lists == Lists::Both {
                books.list_behind(connection, &unlike).await?;
            }
        }
        books.read_counted(connection, &stretches, &mut progress, on_progress).await?;
        on_progress(progress);
        Ok(books)
    }

    /// Which days the ledgers have differently.
    async fn read_ledgers(&mut self, connection: &mut PgConnection, scope: &Scope) -> Result<Vec<NaiveDate>, PgError> {
        let rows: Vec<(NaiveDate, i64, i64, bool)> = sqlx::query_as(include_str!("../../queries/days_ledgers.sql"))
            .bind(scope.from.to_date())
            .bind(scope.to.to_date())
            .bind(&scope.only)
            .fetch_all(connection)
            .await?;
        let mut unlike = Vec::new();
        for (day, stored, counted, are_alike) in rows {
            let books = self.days.entry(Day::from(day)).or_default();
            (books.identities, books.counted_identities) = (stored.unsigned_abs(), counted.unsigned_abs());
            if !are_alike {
                unlike.push(day);
            }
        }
        Ok(unlike)
    }

    async fn read_totals(&mut self, connection: &mut PgConnection, scope: &Scope) -> Result<(), PgError> {
        let rows: Vec<SumsRow> = sqlx::query_as(include_str!("../../queries/days_totals.sql"))
            .bind(scope.from.to_date())
            .bind(scope.to.to_date())
            .bind(&scope.only)
            .fetch_all(&mut *connection)
            .await?;
        for row in rows {
            let (day, event_type, sums) = decode(row)?;
            self.days.entry(day).or_default().totals.insert(event_type, sums);
        }
        let marks: Vec<(NaiveDate, DateTime<Utc>)> = sqlx::query_as(include_str!("../../queries/days_marked.sql"))
            .bind(scope.from.to_date())
            .bind(scope.to.to_date())
            .bind(&scope.only)
            .fetch_all(connection)
            .await?;
        for (day, marked_at) in marks {
            self.days.entry(Day::from(day)).or_default().marked_at = Some(marked_at);
        }
        Ok(())
    }

    /// Lists what the ledger of the totals has of `days` and the ledger of the events has not, or has otherwise.
    async fn list_ahead(&mut self, connection: &mut PgConnection, days: &[NaiveDate]) -> Result<(), PgError> {
        let mut rows = apart(connection, include_str!("../../queries/ledger_ahead.sql"), days);
        while let Some((day, key, content, stored_on)) = rows.try_next().await? {
            let apart = Apart { key, content, day: Day::from(day) };
            match stored_on.map(Day::from) {
                Some(stored_on) => {
                    if stored_on != apart.day {
                        self.days.entry(apart.day).or_default().stored_elsewhere += 1;
                    }
                    self.hold_conflict(Conflicting { key, counted_on: apart.day, stored_on });
                }
                None => {
                    let books = self.days.entry(apart.day).or_default();
                    books.ahead += 1;
                    books.first_ahead.get_or_insert(apart);
                    self.hold(apart, |books| &mut books.ahead);
                }
            }
        }
        Ok(())
    }

    /// Lists what the ledger of the events has of `days` and the ledger of the totals has not, or has of another day.
    async fn list_behind(&mut self, connection: &mut PgConnection, days: &[NaiveDate]) -> Result<(), PgError> {
        let is_behind =
            |day: &&NaiveDate| self.days.get(&Day::from(**day)).is_some_and(|books| !books.is_nowhere_behind());
        let days: Vec<NaiveDate> = days.iter().filter(is_behind).copied().collect();
        if days.is_empty() {
            return Ok(());
        }
        let mut rows = apart(connection, include_str!("../../queries/ledger_behind.sql"), &days);
        while let Some((day, key, content, counted_on)) = rows.try_next().await? {
            let apart = Apart { key, content, day: Day::from(day) };
            match counted_on.map(Day::from) {
                Some(counted_on) => self.hold_conflict(Conflicting { key, counted_on, stored_on: apart.day }),
                None => {
                    self.days.entry(apart.day).or_default().behind += 1;
                    self.hold(apart, |books| &mut books.behind);
                }
            }
        }
        Ok(())
    }

    fn hold_conflict(&mut self, conflict: Conflicting) {
        if self.conflicts.len() < MAX_APART {
            self.conflicts.push(conflict);
        } else {
            for day in [conflict.counted_on, conflict.stored_on] {
                if let Some(books) = self.days.get_mut(&day) {
                    books.has_more_conflicts = true;
                }
            }
        }
    }

    /// Keeps `apart` on its list, unless there are too many; then the day that has most of them is given up.
    fn hold(&mut self, apart: Apart, list: fn(&mut Self) -> &mut Vec<Apart>) {
        if self.days.get(&apart.day).is_some_and(|books| books.is_too_far_apart) {
            return;
        }
        list(self).push(apart);
        if self.ahead.len() + self.behind.len() <= MAX_APART {
            return;
        }
        let listed = self.days.iter_mut().filter(|(_, books)| !books.is_too_far_apart);
        if let Some((&day, books)) = listed.max_by_key(|(_, books)| books.ahead + books.behind) {
            books.is_too_far_apart = true;
            for list in [&mut self.ahead, &mut self.behind] {
                list.retain(|apart| apart.day != day);
                list.shrink_to_fit();
            }
        }
    }

    async fn read_counted(
        &mut self,
        connection: &mut PgConnection,
        stretches: &[Stretch],
        progress: &mut Progress,
        on_progress: &OnProgress<'_>,
    ) -> Result<(), PgError> {
        let mut by_key = BTreeSet::new();
        for (day, books) in &mut self.days {
            // Then all that is stored is counted, as the ledger of the events has every event.
            if books.is_nowhere_behind() && books.identities == books.events() {
                books.counted = books.stored.clone();
            } else {
                by_key.insert(*day);
            }
        }
        progress.what = "events that are counted";
        for stretch in stretches {
            let days: Vec<NaiveDate> = by_key.iter().map(|day| day.to_date()).filter(|day| stretch.has(*day)).collect();
            if days.is_empty() {
                continue;
            }
            progress.total += stretch.bytes;
            on_progress(*progress);
            let statement = include_str!("../../queries/days_counted.sql");
            for (day, event_type, sums) in stretch.sums(connection, statement, Some(&days)).await? {
                *self.days.entry(day).or_default().counted.entry(event_type).or_default() += sums;
            }
            progress.done += stretch.bytes;
        }
        Ok(())
    }
}

/// Day, key and content in one ledger; the day in the other one.
type ApartRow = (NaiveDate, Uuid, i64, Option<NaiveDate>);

/// What `statement` lists of `days`.
fn apart<'a>(
    connection: &'a mut PgConnection,
    statement: &'static str,
    days: &'a [NaiveDate],
) -> BoxStream<'a, Result<ApartRow, sqlx::Error>> {
    sqlx::query_as(statement).bind(days).fetch(connection)
}

/// The sums over the stored events of `keys`, each of which lies on its day.
pub(crate) async fn sums_of(connection: &mut PgConnection, keys: &[Apart]) -> Result<BTreeMap<Day, ByType>, PgError> {
    let mut sums = BTreeMap::<Day, ByType>::new();
    let Some(scope) = Scope::only(keys.iter().map(|apart| apart.day)) else { return Ok(sums) };
    for stretch in stretches(connection, &scope).await? {
        let here: Vec<Uuid> =
            keys.iter().filter(|apart| stretch.has(apart.day.to_date())).map(|apart| apart.key).collect();
        if here.is_empty() {
            continue;
        }
        let rows: Vec<SumsRow> = sqlx::query_as(include_str!("../../queries/days_of_keys.sql"))
            .bind(stretch.from)
            .bind(stretch.until)
            .bind(here)
            .fetch_all(&mut *connection)
            .await?;
        for row in rows {
            let (day, event_type, of_type) = decode(row)?;
            *sums.entry(day).or_default().entry(event_type).or_default() += of_type;
        }
    }
    Ok(sums)
}

/// Begins a transaction that sees one state of the database, and changes nothing.
pub(crate) async fn begin_snapshot(connection: &mut PgConnection) -> Result<(), PgError> {
    sqlx::raw_sql("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY").execute(connection).await?;
    Ok(())
}

/// Ends it.
pub(crate) async fn end_snapshot(connection: &mut PgConnection) -> Result<(), PgError> {
    sqlx::raw_sql("COMMIT").execute(connection).await?;
    Ok(())
}

/// A part of `events_raw` that is read at a time: a partition, or what the scope has of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stretch {
    pub(crate) from: DateTime<Utc>,
    pub(crate) until: DateTime<Utc>,
    bytes: u64,
}

impl Stretch {
    fn has(&self, day: NaiveDate) -> bool {
        self.from.date_naive() <= day && start_of(Day::from(day)) < self.until
    }

    async fn sums(
        &self,
        connection: &mut PgConnection,
        statement: &'static str,
        only: Option<&[NaiveDate]>,
    ) -> Result<Vec<(Day, netagg_core::EventType, Sums)>, PgError> {
        let rows: Vec<SumsRow> =
            sqlx::query_as(statement).bind(self.from).bind(self.until).bind(only).fetch_all(connection).await?;
        rows.into_iter().map(decode).collect()
    }
}

/// Its first instant.
pub(crate) fn start_of(day: Day) -> DateTime<Utc> {
    day.to_date().and_time(NaiveTime::MIN).and_utc()
}

/// The first instant after it.
pub(crate) fn end_of(day: Day) -> DateTime<Utc> {
    start_of(day) + chrono::Days::new(1)
}

/// From, until, bytes.
type StretchRow = (Option<DateTime<Utc>>, Option<DateTime<Utc>>, i64);

/// What to read of `events_raw` for the days of `scope`.
pub(crate) async fn stretches(connection: &mut PgConnection, scope: &Scope) -> Result<Vec<Stretch>, PgError> {
    let (from, until) = (start_of(scope.from), end_of(scope.to));
    let rows: Vec<StretchRow> = sqlx::query_as(include_str!("../../queries/events_stretches.sql"))
        .bind(from)
        .bind(until)
        .fetch_all(connection)
        .await?;
    let bytes = rows.iter().map(|(.., bytes)| bytes.unsigned_abs()).sum();
    let stretch = |(from, until, bytes): (Option<_>, Option<_>, i64)| {
        Some(Stretch { from: from?, until: until?, bytes: bytes.unsigned_abs() })
    };
    let bounded: Option<Vec<Stretch>> = rows.into_iter().map(stretch).collect();
    // An operator's partition without bounds has events of any time: then all are read at once.
    let mut stretches = bounded.unwrap_or_else(|| vec![Stretch { from, until, bytes }]);
    if let Some(days) = &scope.only {
        stretches.retain(|stretch| days.iter().any(|day| stretch.has(*day)));
    }
    Ok(stretches)
}

async fn size(connection: &mut PgConnection, table: &'static str) -> Result<u64, PgError> {
    let bytes: i64 =
        sqlx::query_scalar("SELECT pg_relation_size($1::regclass)").bind(table).fetch_one(connection).await?;
    Ok(bytes.unsigned_abs())
}
