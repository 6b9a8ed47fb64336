//! A repair from its snapshot to its end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use netagg_core::crash::{self, CrashPoint};
use netagg_core::{Day, Error};
use sqlx::PgConnection;
use tokio::time::Instant;
use uuid::Uuid;

use super::change::{Change, Skipped};
use super::day_locks::lock;
use super::{recount, write};
use crate::client::{PgError, Postgres, error};
use crate::reconcile::connection::{begin_snapshot, connect, end_snapshot};
use crate::reconcile::day_snapshot::{Conflicting, DaySnapshot, Unmatched};
use crate::reconcile::days::DaySelection;
use crate::reconcile::identity_lookup::{Ledger, look_up, sums_of};
use crate::reconcile::offsets::{self, OffsetReport, has_passed};
use crate::reconcile::snapshot::{Lists, ReconciliationSnapshot};
use crate::reconcile::sums::{self, Column, Sums, SumsByType};
use crate::schema::mode;
use crate::schema::write_transaction::{self, Writer};
use crate::stores::PgAggregateStore;
use crate::stores::progress::{AGGREGATOR, INGESTOR};

/// The longest pause between two lookups.
const PAUSE: Duration = Duration::from_secs(1);

/// A repair of locked days. If it is dropped before its end, it has changed nothing, except that events counted by
/// [`Repair::count_the_uncounted`] stay counted. These totals are exact by themselves.
#[derive(Debug)]
pub struct Repair {
    postgres: Postgres,
    /// Holds the locks and ends the repair.
    connection: PgConnection,
    skipped: BTreeMap<Day, Skipped>,
    /// The totals at the beginning.
    before: BTreeMap<Day, SumsByType>,
    snapshot: ReconciliationSnapshot,
    /// The offsets in `snapshot`.
    offsets: Vec<OffsetReport>,
    /// Whether the aggregator had processed all offsets of the ingestor in `snapshot`.
    aggregator_has_passed: bool,
    /// The sums over events that were counted and not stored in `snapshot`, and are stored by now.
    stored_since: BTreeMap<Day, SumsByType>,
    /// Identities that are counted and never will be stored.
    forgotten: Vec<Unmatched>,
    /// Whether the days are behind the month fence.
    ignores_month_fence: bool,
}

impl Repair {
    pub(super) async fn begin(postgres: &Postgres, days: &[Day], patience: Duration) -> Result<Self, PgError> {
        let mut connection = connect(postgres).await?;
        let locked = lock(&mut connection, days, patience).await?;
        let skipped =
            days.iter().copied().filter(|day| !locked.contains(day)).map(|day| (day, Skipped::Busy)).collect();
        let mut repair = Self {
            postgres: postgres.clone(),
            connection,
            skipped,
            before: BTreeMap::new(),
            snapshot: ReconciliationSnapshot::default(),
            offsets: Vec::new(),
            aggregator_has_passed: false,
            stored_since: BTreeMap::new(),
            forgotten: Vec::new(),
            ignores_month_fence: false,
        };
        repair.read(&locked).await?;
        repair.before = repair.snapshot.days.iter().map(|(date, day)| (*date, day.totals.clone())).collect();
        Ok(repair)
    }

    /// Ends the repair of days behind the month fence. There, events that are counted and not stored never will be stored,
    /// so they are removed from the totals.
    pub(super) async fn freeze(mut self) -> Result<(), Error> {
        self.ignores_month_fence = true;
        self.count_the_uncounted().await?;
        self.forget_all_unstored().await.map_err(error::to_core)?;
        if let Some((day, _)) = self.skipped.first_key_value() {
            return Err(error::to_core(PgError::Busy(format!("the totals of {day} cannot be made final now"))));
        }
        self.apply().await.map_err(error::to_core)
    }

    async fn read(&mut self, days: &BTreeSet<Day>) -> Result<(), PgError> {
        let Some(selection) = DaySelection::only(days.iter().copied()) else { return Ok(()) };
        begin_snapshot(&mut self.connection).await?;
        self.snapshot =
            ReconciliationSnapshot::read(&mut self.connection, &selection, Lists::CountedNotStored, &|_| {}).await?;
        self.offsets = offsets::read(&mut self.connection).await?;
        self.aggregator_has_passed = has_passed(&mut self.connection, AGGREGATOR, INGESTOR, &self.offsets).await?;
        end_snapshot(&mut self.connection).await?;
        for day in days {
            // A day without any rows may still have a mark to remove.
            self.snapshot.days.entry(*day).or_default();
        }
        let is_too_far = |day: &DaySnapshot| day.has_too_many_unmatched && day.counted_not_stored > 0;
        let too_far = self.snapshot.days.iter().filter(|(_, day)| is_too_far(day));
        self.skipped
            .extend(too_far.map(|(date, day)| (*date, Skipped::IngestorBehind { events: day.counted_not_stored })));
        Ok(())
    }

    /// The snapshot of the days.
    pub(super) fn snapshot(&self) -> &ReconciliationSnapshot {
        &self.snapshot
    }

    /// How many stored events the totals do not contain: the aggregator has not reached them yet, or has lost them.
    pub fn uncounted(&self) -> u64 {
        let count = |sums: &SumsByType| sums.values().map(Sums::count).sum::<i128>();
        let uncounted = |day: &DaySnapshot| u64::try_from(count(&day.stored) - count(&day.counted)).unwrap_or_default();
        self.snapshot.days.values().map(uncounted).sum()
    }

    /// Whether the aggregator has lost the uncounted events: it had already processed all offsets of the ingestor.
    pub(super) fn has_lost_events(&self) -> bool {
        self.aggregator_has_passed && self.uncounted() > 0
    }

    /// Counts the stored events that the totals do not contain, in the same way as the aggregator. If the aggregator
    /// reaches them later, they are duplicates. Then reads the current and the wanted totals again.
    ///
    /// # Errors
    /// Events counted before the error stay counted. A new repair of the same days counts the rest.
    pub async fn count_the_uncounted(&mut self) -> Result<(), Error> {
        let days: BTreeSet<Day> = self.snapshot.days.keys().copied().collect();
        let postgres = self.postgres.clone();
        let mode = mode::read(&mut self.connection).await.map_err(error::to_core)?.tables();
        let store = PgAggregateStore::of_repair(postgres, mode);
        let store = if self.ignores_month_fence { store.ignoring_month_fence() } else { store };
        recount::count(&self.postgres, &store, &days).await?;
        self.read(&days).await.map_err(error::to_core)
    }

    /// Waits up to `patience` until the ingestor has stored all events that the totals contain. Skips each day that still
    /// has events that are not stored.
    ///
    /// # Errors
    /// Retryable while the database cannot be read.
    pub async fn wait_for_the_ingestor(&mut self, patience: Duration) -> Result<(), Error> {
        self.try_wait(patience).await.map_err(error::to_core)
    }

    async fn try_wait(&mut self, patience: Duration) -> Result<(), PgError> {
        let deadline = Instant::now() + patience;
        let mut stored = Vec::new();
        let ReconciliationSnapshot { counted_not_stored: unstored, conflicts, .. } = &mut self.snapshot;
        let mut pause = Duration::from_millis(20);
        loop {
            let begun = Instant::now();
            look_up(&mut self.connection, Ledger::Events, unstored, |unmatched, row| {
                let stored_on = Day::from(row.day);
                if stored_on == unmatched.day {
                    stored.push(unmatched);
                }
                if (row.content, stored_on) != (unmatched.content, unmatched.day) {
                    conflicts.push(Conflicting { key: unmatched.key, counted_on: unmatched.day, stored_on });
                }
            })
            .await?;
            if unstored.is_empty() || begun >= deadline {
                break;
            }
            // A slow lookup is repeated less often.
            tokio::time::sleep_until(deadline.min(Instant::now() + pause.max(begun.elapsed()))).await;
            pause = (pause * 2).min(PAUSE);
        }
        for (day, sums) in sums_of(&mut self.connection, &stored).await? {
            sums::add(self.stored_since.entry(day).or_default(), &sums);
        }
        for unmatched in unstored {
            match self.skipped.entry(unmatched.day).or_insert(Skipped::IngestorBehind { events: 0 }) {
                Skipped::IngestorBehind { events } => *events += 1,
                Skipped::Busy => {}
            }
        }
        Ok(())
    }

    /// Removes from the totals the events that the ingestor will never store. Does so only if the ingestor has processed
    /// all offsets that the aggregator had processed in the snapshot. Otherwise the days of these events stay skipped.
    ///
    /// The caller must know that the ingestor has read all records that the topic had at that time. The offsets alone do
    /// not show this if the topic was recreated.
    ///
    /// # Errors
    /// Retryable while the database cannot be read.
    pub async fn forget_unstored(&mut self) -> Result<(), Error> {
        self.try_forget().await.map_err(error::to_core)
    }

    async fn try_forget(&mut self) -> Result<(), PgError> {
        if !has_passed(&mut self.connection, INGESTOR, AGGREGATOR, &self.offsets).await? {
            return Ok(());
        }
        self.forget_all_unstored().await
    }

    async fn forget_all_unstored(&mut self) -> Result<(), PgError> {
        self.unskip_days_of_unstored();
        // Some of these events may have been stored meanwhile.
        self.try_wait(Duration::ZERO).await?;
        self.unskip_days_of_unstored();
        self.forgotten.append(&mut self.snapshot.counted_not_stored);
        Ok(())
    }

    fn unskip_days_of_unstored(&mut self) {
        for unmatched in &self.snapshot.counted_not_stored {
            self.skipped.remove(&unmatched.day);
        }
    }

    /// The skipped days, and the reasons.
    pub fn skipped(&self) -> &BTreeMap<Day, Skipped> {
        &self.skipped
    }

    /// The changes of the repair, once the uncounted events are counted.
    pub fn changes(&self) -> Vec<Change> {
        self.changes_to(|day| &day.stored)
    }

    /// The changes if totals become the sums that `base` gives, plus the events stored since the snapshot.
    fn changes_to(&self, base: impl Fn(&DaySnapshot) -> &SumsByType) -> Vec<Change> {
        let mut changes = Vec::new();
        for (&day, snapshot) in self.to_repair() {
            let wanted = self.with_stored_since(day, base(snapshot));
            for (event_type, before, after) in
                sums::differing(self.before.get(&day).unwrap_or(&SumsByType::new()), &wanted)
            {
                changes.extend(Column::ALL.into_iter().filter_map(|column| {
                    let [before, after] = [before, after].map(|sums| sums.map(|sums| sums.of(column)));
                    (before != after).then_some(Change { day, event_type, column, before, after })
                }));
            }
        }
        changes
    }

    fn to_repair(&self) -> impl Iterator<Item = (&Day, &DaySnapshot)> {
        self.snapshot.days.iter().filter(|(day, _)| !self.skipped.contains_key(day))
    }

    fn with_stored_since(&self, day: Day, sums: &SumsByType) -> SumsByType {
        let mut sums = sums.clone();
        if let Some(since) = self.stored_since.get(&day) {
            sums::add(&mut sums, since);
        }
        sums
    }

    /// Ends the repair: corrects the totals, and removes the marks of the days that the snapshot has. Returns the changes
    /// since the repair began.
    ///
    /// # Errors
    /// Retryable. All changes are made, or none.
    pub async fn finish(mut self) -> Result<Vec<Change>, Error> {
        self.apply().await.map_err(error::to_core)?;
        Ok(self.changes_to(|day| &day.counted))
    }

    async fn apply(&mut self) -> Result<(), PgError> {
        let days: BTreeSet<Day> = self.to_repair().map(|(day, _)| *day).collect();
        if days.is_empty() {
            return Ok(());
        }
        let mut corrections = BTreeMap::new();
        for (&day, snapshot) in self.to_repair() {
            let wanted = self.with_stored_since(day, &snapshot.counted);
            for (event_type, found, wanted) in sums::differing(&snapshot.totals, &wanted) {
                corrections.insert((day, event_type), wanted.unwrap_or_default() - found.unwrap_or_default());
            }
        }
        // A day with unlisted conflicts stays marked for the next repair.
        let resolved = self.to_repair().filter(|(_, day)| !day.has_more_conflicts);
        let marks: Vec<_> = resolved.filter_map(|(date, day)| Some((*date, day.marked_at?))).collect();
        let is_ours =
            |conflict: &&Conflicting| days.contains(&conflict.counted_on) || days.contains(&conflict.stored_on);
        let conflicts: Vec<Conflicting> = self.snapshot.conflicts.iter().filter(is_ours).copied().collect();
        let forgotten = self.forgotten.iter().filter(|unmatched| days.contains(&unmatched.day));
        let forgotten: Vec<Uuid> = forgotten.map(|unmatched| unmatched.key).collect();

        crash::pass(CrashPoint::RepairComputed);
        // The same order in which the services lock rows: ledger, marks, totals.
        let connection = &mut self.connection;
        write_transaction::begin(
            connection,
            Writer::default(),
            days.iter().copied().filter(|_| !self.ignores_month_fence),
        )
        .await?;
        write::follow_events(connection, &conflicts, &days).await?;
        write::forget(connection, forgotten).await?;
        write::unmark(connection, &marks).await?;
        write::correct(connection, &corrections).await?;
        crash::pass(CrashPoint::RepairApplied);
        sqlx::raw_sql("COMMIT").execute(connection).await?;
        Ok(())
    }
}
