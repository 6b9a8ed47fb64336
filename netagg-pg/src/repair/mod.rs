//! Recomputing the totals of days from the stored events, while both services go on.
//!
//! What the totals of a day should be is computed in one snapshot, as the audit does it: the sums over what is counted of
//! the stored events, and over what is counted and not stored yet, once it is. What they lack is then added in a short
//! transaction, as a difference: what writers have added since the snapshot was exact by itself and stays. So nobody is
//! held off, and the day comes out exact whichever service is ahead.
//!
//! Only one repair of a day may be between its snapshot and its end, or a difference would be added twice. The lock for
//! it is held by the session that also ends the repair: a repair that loses its connection has lost its lock and can
//! change nothing any more.

mod counting;
mod dirty;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::NaiveDate;
use netagg_core::crash::{self, CrashPoint};
use netagg_core::{Day, Error, EventType, Month};
use sqlx::PgConnection;
use tokio::time::Instant;
use uuid::Uuid;

pub use self::dirty::PgTotalsRepair;
use crate::accounts::{self, Account, has_passed};
use crate::books::{self, Apart, Books, ByType, Column, Conflicting, DayBooks, Ledger, Lists, Scope, Sums};
use crate::error::{self, PgError};
use crate::postgres::Postgres;
use crate::{PgAggregateStore, PgEventStore, retention};

/// The first half of the keys of the days' advisory locks; an arbitrary number. The second one is the day.
const ADVISORY_LOCKS: i32 = 0x6e61_6764;

/// The longest pause before it is looked again for what is waited for.
const PAUSE: Duration = Duration::from_secs(1);

/// Repairs totals.
#[derive(Clone, Debug)]
pub struct Repairs {
    postgres: Postgres,
}

/// A sum that a repair changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct Change {
    /// The day.
    pub day: Day,
    /// The type of the events.
    pub event_type: EventType,
    /// Which of the sums.
    pub column: Column,
    /// What it was; `None` if there was no row.
    pub before: Option<i128>,
    /// What it becomes; `None` if there are no events.
    pub after: Option<i128>,
}

impl Repairs {
    pub(crate) fn new(postgres: Postgres) -> Self {
        Self { postgres }
    }

    /// The days from `from` to `to`, both inclusive, that have events, totals or identities.
    ///
    /// # Errors
    /// Retryable while the database cannot be read.
    pub async fn days(&self, from: Day, to: Day) -> Result<Vec<Day>, Error> {
        let read = async {
            let mut connection = books::connect(&self.postgres).await?;
            let days: Vec<NaiveDate> = sqlx::query_scalar(include_str!("../../queries/repair_days.sql"))
                .bind(from.to_date())
                .bind(to.to_date())
                .bind(books::start_of(from))
                .bind(books::end_of(to))
                .fetch_all(&mut connection)
                .await?;
            Ok(days.into_iter().map(Day::from).collect())
        };
        read.await.map_err(error::to_core)
    }

    /// Marks `days` dirty: should their repair be cut off, an aggregator or the next repair finishes it.
    ///
    /// # Errors
    /// Retryable while the database cannot be reached.
    pub async fn mark(&self, days: &[Day]) -> Result<(), Error> {
        self.postgres
            .call(async {
                let mut session = self.postgres.writing_session().await?;
                mark(&mut session, days.iter().copied()).await?;
                session.release();
                Ok(())
            })
            .await
    }

    /// Begins to repair `days`: locks out other repairs of them, for which it waits as long as `patience`, and reads what
    /// they are and should be.
    ///
    /// # Errors
    /// Retryable while the database cannot be reached.
    pub async fn begin(&self, days: &[Day], patience: Duration) -> Result<Repair, Error> {
        self.try_begin(days, patience).await.map_err(error::to_core)
    }

    /// Makes the totals of `days` those of their events once and for all. The caller knows that neither service takes any
    /// event of theirs any more: what is counted by now and not stored will never be.
    pub(crate) async fn settle(&self, days: &[Day], patience: Duration) -> Result<(), Error> {
        let mut repair = self.begin(days, patience).await?;
        repair.settles = true;
        repair.count_the_uncounted().await?;
        repair.forget_ahead().await.map_err(error::to_core)?;
        if let Some((day, _)) = repair.left.first_key_value() {
            return Err(error::to_core(PgError::Busy(format!("the totals of {day} cannot be settled now"))));
        }
        repair.apply().await.map_err(error::to_core)
    }

    async fn try_begin(&self, days: &[Day], patience: Duration) -> Result<Repair, PgError> {
        let mut connection = books::connect(&self.postgres).await?;
        let locked = lock(&mut connection, days, patience).await?;
        let left = days.iter().copied().filter(|day| !locked.contains(day)).map(|day| (day, Left::Busy)).collect();
        let mut repair = Repair {
            postgres: self.postgres.clone(),
            connection,
            left,
            before: BTreeMap::new(),
            books: Books::default(),
            accounts: Vec::new(),
            aggregator_has_passed: false,
            stored_since: BTreeMap::new(),
            forgotten: Vec::new(),
            settles: false,
        };
        repair.read(&locked).await?;
        repair.before = repair.books.days.iter().map(|(day, books)| (*day, books.totals.clone())).collect();
        Ok(repair)
    }
}

/// Why a day is left as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)]
pub enum Left {
    /// Another repair of it goes on.
    Busy,
    /// The totals have events that the ingestor has not stored.
    Behind {
        /// How many.
        events: u64,
    },
}

/// A repair of days that are locked. Dropped, it has changed nothing but what [`Repair::count_the_uncounted`] counted,
/// which is exact by itself.
#[derive(Debug)]
pub struct Repair {
    postgres: Postgres,
    /// It holds the locks and ends the repair.
    connection: PgConnection,
    left: BTreeMap<Day, Left>,
    /// The totals as they were at the beginning.
    before: BTreeMap<Day, ByType>,
    books: Books,
    /// Those of the snapshot of `books`.
    accounts: Vec<Account>,
    /// Whether the aggregator had done all that the ingestor had, in that snapshot.
    aggregator_has_passed: bool,
    /// Sums over what was counted and not stored in the snapshot, and is stored by now.
    stored_since: BTreeMap<Day, ByType>,
    /// What is counted and will never be stored.
    forgotten: Vec<Apart>,
    /// Whether the services refuse the days already.
    settles: bool,
}

impl Repair {
    async fn read(&mut self, days: &BTreeSet<Day>) -> Result<(), PgError> {
        let Some(scope) = Scope::only(days.iter().copied()) else { return Ok(()) };
        books::begin_snapshot(&mut self.connection).await?;
        self.books = Books::read(&mut self.connection, &scope, Lists::Ahead, &|_| {}).await?;
        self.accounts = accounts::read(&mut self.connection).await?;
        let (ingestor, aggregator) = (PgEventStore::SERVICE, PgAggregateStore::SERVICE);
        self.aggregator_has_passed = has_passed(&mut self.connection, aggregator, ingestor, &self.accounts).await?;
        books::end_snapshot(&mut self.connection).await?;
        for day in days {
            // To be answered although nothing is left of it.
            self.books.days.entry(*day).or_default();
        }
        let too_far = self.books.days.iter().filter(|(_, books)| books.is_too_far_apart && books.ahead > 0);
        self.left.extend(too_far.map(|(day, books)| (*day, Left::Behind { events: books.ahead })));
        Ok(())
    }

    /// How many stored events the totals do not contain: the aggregator has them before it, or has lost them.
    pub fn uncounted(&self) -> u64 {
        let count = |sums: &ByType| sums.values().map(Sums::count).sum::<i128>();
        let uncounted =
            |books: &DayBooks| u64::try_from(count(&books.stored) - count(&books.counted)).unwrap_or_default();
        self.books.days.values().map(uncounted).sum()
    }

    /// Whether the aggregator has lost the uncounted events: it had done all that the ingestor had.
    fn has_lost_events(&self) -> bool {
        self.aggregator_has_passed && self.uncounted() > 0
    }

    /// Counts the stored events that the totals do not contain, each as the aggregator would; should it come to them
    /// later, they are duplicates. Then reads again what the days are and should be.
    ///
    /// # Errors
    /// What is counted stays; the same repair, begun again, counts the rest.
    pub async fn count_the_uncounted(&mut self) -> Result<(), Error> {
        let days: BTreeSet<Day> = self.books.days.keys().copied().collect();
        let postgres = self.postgres.clone();
        let store = if self.settles { PgAggregateStore::settling(postgres) } else { PgAggregateStore::new(postgres) };
        counting::count(&self.postgres, &store, &days).await?;
        self.read(&days).await.map_err(error::to_core)
    }

    /// Waits, at most for `patience`, until the ingestor has stored what the totals contain; days of which it has not
    /// are left as they are.
    ///
    /// # Errors
    /// Retryable while the database cannot be read.
    pub async fn wait_for_the_ingestor(&mut self, patience: Duration) -> Result<(), Error> {
        self.try_wait(patience).await.map_err(error::to_core)
    }

    async fn try_wait(&mut self, patience: Duration) -> Result<(), PgError> {
        let deadline = Instant::now() + patience;
        let mut stored = Vec::new();
        let conflicts = &mut self.books.conflicts;
        let mut pause = Duration::from_millis(20);
        loop {
            let begun = Instant::now();
            books::look_up(&mut self.connection, Ledger::Stored, &mut self.books.ahead, |apart, content, day| {
                if day == apart.day {
                    stored.push(apart);
                }
                if (content, day) != (apart.content, apart.day) {
                    conflicts.push(Conflicting { key: apart.key, counted_on: apart.day, stored_on: day });
                }
            })
            .await?;
            if self.books.ahead.is_empty() || begun >= deadline {
                break;
            }
            tokio::time::sleep_until(deadline.min(Instant::now() + pause.max(begun.elapsed()))).await;
            pause = (pause * 2).min(PAUSE);
        }
        for (day, sums) in books::sums_of(&mut self.connection, &stored).await? {
            books::add(self.stored_since.entry(day).or_default(), &sums);
        }
        for apart in &self.books.ahead {
            match self.left.entry(apart.day).or_insert(Left::Behind { events: 0 }) {
                Left::Behind { events } => *events += 1,
                Left::Busy => {}
            }
        }
        Ok(())
    }

    /// Takes back out of the totals what the ingestor has not stored, if it never will: it has done all that the
    /// aggregator had when the days were read. Without that the days are left as they are.
    ///
    /// The caller knows that the ingestor has read what was in the topic by then. Its offsets alone do not tell, should
    /// the topic have been made anew.
    ///
    /// # Errors
    /// Retryable while the database cannot be read.
    pub async fn forget_what_is_not_stored(&mut self) -> Result<(), Error> {
        self.try_forget().await.map_err(error::to_core)
    }

    async fn try_forget(&mut self) -> Result<(), PgError> {
        let (ingestor, aggregator) = (PgEventStore::SERVICE, PgAggregateStore::SERVICE);
        if !has_passed(&mut self.connection, ingestor, aggregator, &self.accounts).await? {
            return Ok(());
        }
        self.forget_ahead().await
    }

    async fn forget_ahead(&mut self) -> Result<(), PgError> {
        for apart in &self.books.ahead {
            self.left.remove(&apart.day);
        }
        // What was stored meanwhile.
        self.try_wait(Duration::ZERO).await?;
        for apart in &self.books.ahead {
            self.left.remove(&apart.day);
        }
        self.forgotten.append(&mut self.books.ahead);
        Ok(())
    }

    /// The days that are left as they are, and why.
    pub fn left(&self) -> &BTreeMap<Day, Left> {
        &self.left
    }

    /// What the repair changes, once the uncounted events are counted.
    pub fn changes(&self) -> Vec<Change> {
        self.changes_to(|books| &books.stored)
    }

    /// What changes if totals become the sums that `base` gives and what was stored since.
    fn changes_to(&self, base: impl Fn(&DayBooks) -> &ByType) -> Vec<Change> {
        let mut changes = Vec::new();
        for (&day, books) in self.to_repair() {
            let wanted = self.with_stored_since(day, base(books));
            for (event_type, before, after) in
                books::differing(self.before.get(&day).unwrap_or(&ByType::new()), &wanted)
            {
                changes.extend(Column::ALL.into_iter().filter_map(|column| {
                    let [before, after] = [before, after].map(|sums| sums.map(|sums| sums.of(column)));
                    (before != after).then_some(Change { day, event_type, column, before, after })
                }));
            }
        }
        changes
    }

    fn to_repair(&self) -> impl Iterator<Item = (&Day, &DayBooks)> {
        self.books.days.iter().filter(|(day, _)| !self.left.contains_key(day))
    }

    fn with_stored_since(&self, day: Day, sums: &ByType) -> ByType {
        let mut sums = sums.clone();
        if let Some(since) = self.stored_since.get(&day) {
            books::add(&mut sums, since);
        }
        sums
    }

    /// Ends the repair: makes the totals what they should be, and takes back the marks that were seen. Returns what
    /// changed since the repair began.
    ///
    /// # Errors
    /// Retryable; nothing has changed, or everything.
    pub async fn finish(mut self) -> Result<Vec<Change>, Error> {
        self.apply().await.map_err(error::to_core)?;
        Ok(self.changes_to(|books| &books.counted))
    }

    async fn apply(&mut self) -> Result<(), PgError> {
        let days: BTreeSet<Day> = self.to_repair().map(|(day, _)| *day).collect();
        if days.is_empty() {
            return Ok(());
        }
        let mut corrections = BTreeMap::new();
        for (&day, books) in self.to_repair() {
            let wanted = self.with_stored_since(day, &books.counted);
            for (event_type, found, wanted) in books::differing(&books.totals, &wanted) {
                corrections.insert((day, event_type), wanted.unwrap_or_default() - found.unwrap_or_default());
            }
        }
        // A day with conflicts that are not listed stays marked for the next repair.
        let answered = self.to_repair().filter(|(_, books)| !books.has_more_conflicts);
        let marks: Vec<_> = answered.filter_map(|(day, books)| Some((*day, books.marked_at?))).collect();
        let is_ours =
            |conflict: &&Conflicting| days.contains(&conflict.counted_on) || days.contains(&conflict.stored_on);
        let conflicts: Vec<Conflicting> = self.books.conflicts.iter().filter(is_ours).copied().collect();
        let forgotten: Vec<Uuid> =
            self.forgotten.iter().filter(|apart| days.contains(&apart.day)).map(|apart| apart.key).collect();

        crash::pass(CrashPoint::RepairComputed);
        // In the order in which the services lock: ledger, marks, totals.
        let connection = &mut self.connection;
        retention::begin(connection, days.iter().copied().filter(|_| !self.settles)).await?;
        follow(connection, &conflicts, &days).await?;
        forget(connection, forgotten).await?;
        sqlx::query(include_str!("../../queries/repair_answered.sql"))
            .bind(marks.iter().map(|(day, _)| day.to_date()).collect::<Vec<_>>())
            .bind(marks.iter().map(|(_, marked_at)| *marked_at).collect::<Vec<_>>())
            .execute(&mut *connection)
            .await?;
        correct(connection, &corrections).await?;
        crash::pass(CrashPoint::RepairApplied);
        sqlx::raw_sql("COMMIT").execute(connection).await?;
        Ok(())
    }
}

/// Locks those of `days` that nobody repairs; waits for the others as long as `patience`.
async fn lock(connection: &mut PgConnection, days: &[Day], patience: Duration) -> Result<BTreeSet<Day>, PgError> {
    let deadline = Instant::now() + patience;
    let mut locked = BTreeSet::new();
    let mut pause = Duration::from_millis(20);
    loop {
        let missing: BTreeSet<Day> = days.iter().copied().filter(|day| !locked.contains(day)).collect();
        let got: Vec<NaiveDate> = sqlx::query_scalar(include_str!("../../queries/repair_lock.sql"))
            .bind(ADVISORY_LOCKS)
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

/// Makes the ledger of the totals follow that of the events. The totals of `days` follow in the same transaction; the
/// other day of a conflict may not have been repaired with it in sight, and is marked.
async fn follow(connection: &mut PgConnection, conflicts: &[Conflicting], days: &BTreeSet<Day>) -> Result<(), PgError> {
    if conflicts.is_empty() {
        return Ok(());
    }
    sqlx::query(include_str!("../../queries/repair_follow.sql"))
        .bind(conflicts.iter().map(|conflict| conflict.key).collect::<Vec<_>>())
        .execute(&mut *connection)
        .await?;
    let both = conflicts.iter().flat_map(|conflict| [conflict.counted_on, conflict.stored_on]);
    let kept_after = retention::dropped_through(connection).await?;
    let others: BTreeSet<Day> = both
        .filter(|day| !days.contains(day))
        .filter(|day| kept_after.is_none_or(|dropped: Month| day.month() > dropped))
        .collect();
    mark(connection, others).await
}

async fn mark(connection: &mut PgConnection, days: impl IntoIterator<Item = Day>) -> Result<(), PgError> {
    let days: BTreeSet<NaiveDate> = days.into_iter().map(Day::to_date).collect();
    sqlx::query(include_str!("../../queries/agg_dirty_day_mark.sql"))
        .bind(days.into_iter().collect::<Vec<_>>())
        .execute(connection)
        .await?;
    Ok(())
}

async fn forget(connection: &mut PgConnection, keys: Vec<Uuid>) -> Result<(), PgError> {
    if keys.is_empty() {
        return Ok(());
    }
    let count = keys.len() as u64;
    let forgotten = sqlx::query(include_str!("../../queries/repair_forget.sql")).bind(keys).execute(connection).await?;
    if forgotten.rows_affected() == count {
        Ok(())
    } else {
        Err(PgError::Busy("an event that was to be forgotten has been stored after all".to_owned()))
    }
}

/// Adds `corrections` to the totals, in the order in which all writers lock their rows.
async fn correct(connection: &mut PgConnection, corrections: &BTreeMap<(Day, EventType), Sums>) -> Result<(), PgError> {
    if corrections.is_empty() {
        return Ok(());
    }
    let days: Vec<NaiveDate> = corrections.keys().map(|(day, _)| day.to_date()).collect();
    let small = |column: Column| {
        let sums = corrections.values().map(move |sums| sums.of(column));
        sums.map(|sum| i64::try_from(sum).map_err(|error| PgError::unreadable("a sum", error)))
            .collect::<Result<Vec<_>, _>>()
    };
    // numeric has no Rust type here; as text it is exact
    let large = |column: Column| corrections.values().map(|sums| sums.of(column).to_string()).collect::<Vec<_>>();
    sqlx::query(include_str!("../../queries/agg_day_add.sql"))
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
        // The connection goes with this repair, and so does the transaction.
        return Err(PgError::Busy("somebody else has changed agg_day meanwhile".to_owned()));
    }
    Ok(())
}
