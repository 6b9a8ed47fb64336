//! One snapshot of some days: the stored events, the totals, and the differences between the two ledgers.
//!
//! Either service may be ahead of the other. So totals are not compared with the sums over all stored events, but with the
//! sums over the counted events, which the ledger of the totals has. Where both ledgers have the same identities of a day,
//! stored and counted events are the same; hash sums show this without a join. For other days, the snapshot lists the
//! identities that only one ledger has.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, NaiveDate, Utc};
use futures::TryStreamExt;
use futures::stream::BoxStream;
use netagg_core::Day;
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use super::day_snapshot::{Conflicting, DaySnapshot, Unmatched};
use super::days::DaySelection;
use super::read_progress::{OnProgress, ReadProgress};
use super::sums::SumsRow;
use super::time_range::{TimeRange, time_ranges};
use crate::client::PgError;

/// The maximum number of unmatched identities that are listed, for all days together.
const MAX_UNMATCHED: usize = 1_000_000;

/// Which unmatched identities to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lists {
    CountedNotStored,
    Both,
}

/// A snapshot of several days.
#[derive(Clone, Debug, Default)]
pub(super) struct ReconciliationSnapshot {
    pub(super) days: BTreeMap<Day, DaySnapshot>,
    /// The identities that only the ledger of the totals has: their events may be stored later.
    pub(super) counted_not_stored: Vec<Unmatched>,
    /// The identities that only the ledger of the events has: their events may be counted later.
    pub(super) stored_not_counted: Vec<Unmatched>,
    pub(super) conflicts: Vec<Conflicting>,
}

impl ReconciliationSnapshot {
    /// Reads the selected days in the transaction of `connection`, which sees one state of the database.
    pub(super) async fn read(
        connection: &mut PgConnection,
        selection: &DaySelection,
        lists: Lists,
        on_progress: &OnProgress<'_>,
    ) -> Result<Self, PgError> {
        let mut snapshot = Self::default();
        let ranges = time_ranges(connection, selection).await?;
        let ledgers = size(connection, "event_identity").await? + size(connection, "agg_identity").await?;
        let mut progress = ReadProgress {
            what: "ledgers",
            done: 0,
            total: ledgers + ranges.iter().map(|range| range.bytes).sum::<u64>(),
        };
        on_progress(progress);
        let differing = snapshot.read_ledgers(connection, selection).await?;
        progress.done += ledgers;
        snapshot.read_totals(connection, selection).await?;

        progress.what = "events";
        for range in &ranges {
            on_progress(progress);
            let statement = include_str!("../../queries/reconcile/sums_stored.sql");
            for (day, event_type, sums) in range.sums(connection, statement, selection.only.as_deref()).await? {
                *snapshot.days.entry(day).or_default().stored.entry(event_type).or_default() += sums;
            }
            progress.done += range.bytes;
        }

        if !differing.is_empty() {
            progress.what = "differences between the ledgers";
            on_progress(progress);
            snapshot.list_counted_not_stored(connection, &differing).await?;
            if lists == Lists::Both {
                snapshot.list_stored_not_counted(connection, &differing).await?;
            }
        }
        snapshot.read_counted(connection, &ranges, &mut progress, on_progress).await?;
        on_progress(progress);
        Ok(snapshot)
    }

    /// Reads how many identities each ledger has. Returns the days on which the ledgers differ.
    async fn read_ledgers(
        &mut self,
        connection: &mut PgConnection,
        selection: &DaySelection,
    ) -> Result<Vec<NaiveDate>, PgError> {
        let rows: Vec<LedgerSizesRow> = sqlx::query_as(include_str!("../../queries/reconcile/ledger_sizes.sql"))
            .bind(selection.from.to_date())
            .bind(selection.to.to_date())
            .bind(&selection.only)
            .fetch_all(connection)
            .await?;
        let mut differing = Vec::new();
        for row in rows {
            let day = self.days.entry(Day::from(row.day)).or_default();
            (day.identities, day.counted_identities) = (row.stored.unsigned_abs(), row.counted.unsigned_abs());
            if !row.are_equal {
                differing.push(row.day);
            }
        }
        Ok(differing)
    }

    async fn read_totals(&mut self, connection: &mut PgConnection, selection: &DaySelection) -> Result<(), PgError> {
        let rows: Vec<SumsRow> = sqlx::query_as(include_str!("../../queries/reconcile/totals.sql"))
            .bind(selection.from.to_date())
            .bind(selection.to.to_date())
            .bind(&selection.only)
            .fetch_all(&mut *connection)
            .await?;
        for row in rows {
            let (day, event_type, sums) = row.decode()?;
            self.days.entry(day).or_default().totals.insert(event_type, sums);
        }
        let marks: Vec<(NaiveDate, DateTime<Utc>)> =
            sqlx::query_as(include_str!("../../queries/reconcile/dirty_days.sql"))
                .bind(selection.from.to_date())
                .bind(selection.to.to_date())
                .bind(&selection.only)
                .fetch_all(connection)
                .await?;
        for (day, marked_at) in marks {
            self.days.entry(Day::from(day)).or_default().marked_at = Some(marked_at);
        }
        Ok(())
    }

    /// Lists the identities of `days` in the ledger of the totals that the ledger of the events lacks, or has with another
    /// content or day.
    async fn list_counted_not_stored(
        &mut self,
        connection: &mut PgConnection,
        days: &[NaiveDate],
    ) -> Result<(), PgError> {
        let statement = include_str!("../../queries/reconcile/counted_not_stored.sql");
        let mut rows = unmatched(connection, statement, days);
        while let Some(row) = rows.try_next().await? {
            let unmatched = Unmatched::from(&row);
            match row.other_day.map(Day::from) {
                Some(stored_on) => {
                    if stored_on != unmatched.day {
                        self.days.entry(unmatched.day).or_default().stored_elsewhere += 1;
                    }
                    self.list_conflict(Conflicting { key: row.key, counted_on: unmatched.day, stored_on });
                }
                None => {
                    let day = self.days.entry(unmatched.day).or_default();
                    day.counted_not_stored += 1;
                    day.first_counted_not_stored.get_or_insert(unmatched);
                    self.list(unmatched, |snapshot| &mut snapshot.counted_not_stored);
                }
            }
        }
        Ok(())
    }

    /// Lists the identities of `days` in the ledger of the events that the ledger of the totals lacks, or has with another
    /// content or day.
    async fn list_stored_not_counted(
        &mut self,
        connection: &mut PgConnection,
        days: &[NaiveDate],
    ) -> Result<(), PgError> {
        let lacks_some = |day: &&NaiveDate| self.days.get(&Day::from(**day)).is_some_and(|day| !day.has_counted_all());
        let days: Vec<NaiveDate> = days.iter().filter(lacks_some).copied().collect();
        if days.is_empty() {
            return Ok(());
        }
        let statement = include_str!("../../queries/reconcile/stored_not_counted.sql");
        let mut rows = unmatched(connection, statement, &days);
        while let Some(row) = rows.try_next().await? {
            let unmatched = Unmatched::from(&row);
            match row.other_day.map(Day::from) {
                Some(counted_on) => {
                    self.list_conflict(Conflicting { key: row.key, counted_on, stored_on: unmatched.day });
                }
                None => {
                    self.days.entry(unmatched.day).or_default().stored_not_counted += 1;
                    self.list(unmatched, |snapshot| &mut snapshot.stored_not_counted);
                }
            }
        }
        Ok(())
    }

    fn list_conflict(&mut self, conflict: Conflicting) {
        if self.conflicts.len() < MAX_UNMATCHED {
            self.conflicts.push(conflict);
        } else {
            for day in [conflict.counted_on, conflict.stored_on] {
                if let Some(day) = self.days.get_mut(&day) {
                    day.has_more_conflicts = true;
                }
            }
        }
    }

    /// Adds `unmatched` to its list. If the lists are full, drops the entries of the day with the most unmatched identities.
    fn list(&mut self, unmatched: Unmatched, list: fn(&mut Self) -> &mut Vec<Unmatched>) {
        if self.days.get(&unmatched.day).is_some_and(|day| day.has_too_many_unmatched) {
            return;
        }
        list(self).push(unmatched);
        if self.counted_not_stored.len() + self.stored_not_counted.len() <= MAX_UNMATCHED {
            return;
        }
        let listed = self.days.iter_mut().filter(|(_, day)| !day.has_too_many_unmatched);
        if let Some((&date, day)) = listed.max_by_key(|(_, day)| day.counted_not_stored + day.stored_not_counted) {
            day.has_too_many_unmatched = true;
            for list in [&mut self.counted_not_stored, &mut self.stored_not_counted] {
                list.retain(|unmatched| unmatched.day != date);
                list.shrink_to_fit();
            }
        }
    }

    async fn read_counted(
        &mut self,
        connection: &mut PgConnection,
        ranges: &[TimeRange],
        progress: &mut ReadProgress,
        on_progress: &OnProgress<'_>,
    ) -> Result<(), PgError> {
        let mut by_key = BTreeSet::new();
        for (date, day) in &mut self.days {
            // The ledger of the events has every stored event, so in this case all stored events are counted.
            if day.has_counted_all() && day.identities == day.events() {
                day.counted = day.stored.clone();
            } else {
                by_key.insert(*date);
            }
        }
        progress.what = "events that are counted";
        for range in ranges {
            let days: Vec<NaiveDate> = by_key.iter().map(|day| day.to_date()).filter(|day| range.has(*day)).collect();
            if days.is_empty() {
                continue;
            }
            progress.total += range.bytes;
            on_progress(*progress);
            let statement = include_str!("../../queries/reconcile/sums_counted.sql");
            for (day, event_type, sums) in range.sums(connection, statement, Some(&days)).await? {
                *self.days.entry(day).or_default().counted.entry(event_type).or_default() += sums;
            }
            progress.done += range.bytes;
        }
        Ok(())
    }
}

/// How many identities of a day each ledger has.
#[derive(Debug, FromRow)]
struct LedgerSizesRow {
    day: NaiveDate,
    stored: i64,
    counted: i64,
    are_equal: bool,
}

/// An identity in one ledger, and its day in the other ledger.
#[derive(Debug, FromRow)]
struct UnmatchedRow {
    key: Uuid,
    content: i64,
    day: NaiveDate,
    other_day: Option<NaiveDate>,
}

impl From<&UnmatchedRow> for Unmatched {
    fn from(row: &UnmatchedRow) -> Self {
        Self { key: row.key, content: row.content, day: Day::from(row.day) }
    }
}

/// The rows of `statement` for `days`.
fn unmatched<'a>(
    connection: &'a mut PgConnection,
    statement: &'static str,
    days: &'a [NaiveDate],
) -> BoxStream<'a, Result<UnmatchedRow, sqlx::Error>> {
    sqlx::query_as(statement).bind(days).fetch(connection)
}

async fn size(connection: &mut PgConnection, table: &'static str) -> Result<u64, PgError> {
    let bytes: i64 =
        sqlx::query_scalar("SELECT pg_relation_size($1::regclass)").bind(table).fetch_one(connection).await?;
    Ok(bytes.unsigned_abs())
}
