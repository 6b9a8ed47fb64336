//! How long events are kept: whole months are dropped, the oldest first, and nobody takes their events any more.
//!
//! The order makes both services alike, whatever is in flight. First the month is recorded as refused; every batch asks
//! for that in its transaction. Then the transactions that may have asked before are waited for, without holding anybody
//! up. Now nothing of the month can be stored or counted any more, and its totals are made to agree with its events once
//! and for all. Then its partition is detached and dropped, and its identities are removed. Whatever is interrupted is
//! finished by the next run, of whichever process.

use std::time::Duration;

use netagg_core::crash::{self, CrashPoint};
use netagg_core::{Day, Error, EventLimits, Month, Timestamp};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row as _};

use crate::error::{self, PgError};
use crate::partitions;
use crate::postgres::Postgres;

/// The setting with the newest month that is dropped.
const DROPPED_THROUGH: &str = "dropped_through";

/// The setting with the newest month whose identities are removed, too.
const REMOVED_THROUGH: &str = "identities_removed_through";

/// The setting with the month that is being dropped: its table is ours to drop when it is detached already. One that
/// an operator has detached is theirs.
const DROPPING: &str = "dropping_month";

/// Held by whoever drops months; an arbitrary number.
const ADVISORY_LOCK: i64 = 0x6e65_7461_6767_0003;

/// Begins a writer's transaction, in one round trip. The shared lock tells whoever drops months which writers may still
/// go by the old answer; a statement of its own asks, after the lock is there.
const BEGIN: &str = "BEGIN; \
    SELECT pg_advisory_xact_lock_shared(7954892278515302402); \
    SELECT value FROM settings WHERE name = 'dropped_through'";

/// How long a step waits for a lock before it gives up; the next run goes on there.
const LOCK_TIMEOUT: &str = "10s";

/// How long transactions that began before are waited for. None is allowed to take longer.
const OLD_WRITERS: Duration = Duration::from_secs(120);

/// How long repairs of a month's days are waited for.
const OTHER_REPAIRS: Duration = Duration::from_secs(60);

/// How many pages of a ledger one statement looks through for identities to remove.
const PAGES: i64 = 8_192;

/// Drops months of events. Totals stay.
#[derive(Clone, Debug)]
pub struct Retention {
    postgres: Postgres,
}

/// What [`Retention::drop_before`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Dropped {
    /// The months whose partition was dropped, in order.
    pub months: Vec<Month>,
    /// How many identities were removed from both ledgers.
    pub identities: u64,
}

/// Why months cannot be dropped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DropError {
    /// Events of these months may still be valid.
    #[error("events of up to {} days ago are still taken: months before {earliest} can be dropped, no later ones", .max_age.as_secs() / 86_400)]
    StillTaken {
        /// How old events may be.
        max_age: Duration,
        /// The first month that cannot be dropped.
        earliest: Month,
    },
    /// Another process is dropping months.
    #[error("another process is dropping months right now")]
    Busy,
    /// The database cannot do it now.
    #[error(transparent)]
    Store(#[from] Error),
}

impl From<PgError> for DropError {
    fn from(error: PgError) -> Self {
        Self::Store(error::to_core(error))
    }
}

impl Retention {
    pub(crate) fn new(postgres: Postgres) -> Self {
        Self { postgres }
    }

    /// The newest month that is dropped; with it, every month before.
    ///
    /// # Errors
    /// Retryable while the database cannot be asked.
    pub async fn dropped_through(&self) -> Result<Option<Month>, Error> {
        self.postgres
            .call(async {
                let mut session = self.postgres.session().await?;
                let month = setting(&mut session, DROPPED_THROUGH).await?;
                session.release();
                Ok(month)
            })
            .await
    }

    /// Drops every month before `before` for good: its events and their identities. Its totals stay, made equal to its
    /// events before those go. Writers of other months go on.
    ///
    /// Events are judged by `limits` and the time `now`: a month of which valid events may still come is not dropped.
    ///
    /// # Errors
    /// [`DropError::StillTaken`] and nothing is changed; otherwise what was done stays, and a further call goes on.
    pub async fn drop_before(&self, before: Month, limits: EventLimits, now: Timestamp) -> Result<Dropped, DropError> {
        let earliest = first_taken(limits, now);
        if before > earliest {
            return Err(DropError::StillTaken { max_age: limits.max_age, earliest });
        }
        // Its session holds the lock, and has all the time it needs.
        let mut connection = self.postgres.unlimited_connection().await?;
        self.postgres.refuse_distribution(&mut connection).await?;
        let dropped = self.drop_with(&mut connection, before).await;
        // Best effort: it is over in any case.
        let _ = connection.close().await;
        dropped
    }

    async fn drop_with(&self, connection: &mut PgConnection, before: Month) -> Result<Dropped, DropError> {
        run(connection, &format!("SET lock_timeout = '{LOCK_TIMEOUT}'")).await?;
        let is_ours: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)")
            .bind(ADVISORY_LOCK)
            .fetch_one(&mut *connection)
            .await
            .map_err(PgError::from)?;
        if !is_ours {
            return Err(DropError::Busy);
        }
        let Some(through) = refuse_before(connection, before).await? else { return Ok(Dropped::default()) };
        crash::pass(CrashPoint::MonthsRefused);
        old_writers_are_gone(connection).await?;
        let mut dropped = Dropped::default();
        for table in tables(connection).await? {
            if table.month > through
                || table.state == State::Detached && setting(connection, DROPPING).await? != Some(table.month)
            {
                continue;
            }
            if table.state == State::Attached {
                self.settle(table.month).await?;
            }
            drop_table(connection, &table).await?;
            tracing::info!(month = %table.month, "dropped a month of events");
            dropped.months.push(table.month);
        }
        dropped.identities = remove_identities(connection, through).await?;
        Ok(dropped)
    }

    /// Makes the totals of `month` those of its events, now that neither can get any more.
    async fn settle(&self, month: Month) -> Result<(), Error> {
        let repairs = self.postgres.repairs();
        let days = repairs.days(month.first_day(), month.last_day()).await?;
        if days.is_empty() { Ok(()) } else { repairs.settle(&days, OTHER_REPAIRS).await }
    }
}

/// The first month of which valid events may still come at `now`.
fn first_taken(limits: EventLimits, now: Timestamp) -> Month {
    now.saturating_sub(limits.max_age).day().month()
}

/// Begins a transaction of a service that writes events of `days`, none of which may be of a dropped month.
pub(crate) async fn begin(connection: &mut PgConnection, days: impl Iterator<Item = Day>) -> Result<(), PgError> {
    let rows = sqlx::raw_sql(BEGIN).fetch_all(&mut *connection).await?;
    // The first row is the lock's.
    let Some(dropped) = rows.get(1) else { return Ok(()) };
    let through = parse(dropped.try_get(0)?)?;
    if days.map(Day::month).any(|month| month <= through) {
        sqlx::raw_sql("ROLLBACK").execute(connection).await?;
        return Err(PgError::MonthsDropped { through });
    }
    Ok(())
}

/// Checks that `month` is not dropped.
pub(crate) async fn check(connection: &mut PgConnection, month: Month) -> Result<(), PgError> {
    match setting(connection, DROPPED_THROUGH).await? {
        Some(through) if month <= through => Err(PgError::MonthsDropped { through }),
        _ => Ok(()),
    }
}

/// The newest month that is dropped.
pub(crate) async fn dropped_through(connection: &mut PgConnection) -> Result<Option<Month>, PgError> {
    setting(connection, DROPPED_THROUGH).await
}

async fn setting(connection: &mut PgConnection, name: &str) -> Result<Option<Month>, PgError> {
    let value: Option<String> =
        sqlx::query_scalar("SELECT value FROM settings WHERE name = $1").bind(name).fetch_optional(connection).await?;
    value.as_deref().map(parse).transpose()
}

/// Records `month` under `name`, unless a later one is.
async fn record(connection: &mut PgConnection, name: &str, month: Month) -> Result<(), PgError> {
    sqlx::query(
        "INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE \
         SET value = greatest(settings.value, excluded.value), updated_at = now()",
    )
    .bind(name)
    .bind(month.to_string())
    .execute(connection)
    .await?;
    Ok(())
}

fn parse(month: &str) -> Result<Month, PgError> {
    month.parse().map_err(|error: netagg_core::ParseTimeError| PgError::unreadable("a dropped month", error))
}

/// Records the months before `before` as refused; returns the newest refused one, if any.
async fn refuse_before(connection: &mut PgConnection, before: Month) -> Result<Option<Month>, PgError> {
    // Months that never had a partition are as good as kept: nothing is to be refused for their sake.
    let kept = tables(connection).await?.into_iter().filter(|table| table.state != State::Detached);
    let newest = kept.map(|table| table.month).filter(|month| *month < before).max();
    if let Some(newest) = newest {
        record(connection, DROPPED_THROUGH, newest).await?;
    }
    setting(connection, DROPPED_THROUGH).await
}

/// Waits until no transaction is left that may have asked which months are dropped before the last answer.
async fn old_writers_are_gone(connection: &mut PgConnection) -> Result<(), PgError> {
    let holders = include_str!("../queries/writers.sql");
    let old: Vec<String> = sqlx::query_scalar(holders).fetch_all(&mut *connection).await?;
    let deadline = tokio::time::Instant::now() + OLD_WRITERS;
    let mut pause = Duration::from_millis(10);
    loop {
        let now: Vec<String> = sqlx::query_scalar(holders).fetch_all(&mut *connection).await?;
        if !now.iter().any(|writer| old.contains(writer)) {
            return Ok(());
        }
        if tokio::time::Instant::now() >= deadline {
            return Err(PgError::Busy(format!("a transaction older than {OLD_WRITERS:?} still writes events")));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

/// A month's table: a partition, one whose detaching was interrupted, or one that is detached already.
#[derive(Debug)]
struct Table {
    month: Month,
    name: String,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Attached,
    Detaching,
    Detached,
}

/// The tables that bear the name of a month, in its order.
async fn tables(connection: &mut PgConnection) -> Result<Vec<Table>, PgError> {
    let rows: Vec<(String, bool, bool)> =
        sqlx::query_as(include_str!("../queries/month_tables.sql")).fetch_all(connection).await?;
    let mut tables: Vec<Table> = rows
        .into_iter()
        .filter_map(|(name, is_attached, is_detaching)| {
            let state = match (is_attached, is_detaching) {
                (false, _) => State::Detached,
                (true, true) => State::Detaching,
                (true, false) => State::Attached,
            };
            Some(Table { month: partitions::month_of(&name)?, name, state })
        })
        .collect();
    tables.sort_by_key(|table| table.month);
    Ok(tables)
}

/// Detaches the table without locking out readers and writers of other months, and drops it.
async fn drop_table(connection: &mut PgConnection, table: &Table) -> Result<(), PgError> {
    record(connection, DROPPING, table.month).await?;
    // `name` is that of a month: digits.
    let name = &table.name;
    match table.state {
        State::Attached => {
            run(connection, &format!("ALTER TABLE events_raw DETACH PARTITION {name} CONCURRENTLY")).await?
        }
        State::Detaching => {
            run(connection, &format!("ALTER TABLE events_raw DETACH PARTITION {name} FINALIZE")).await?
        }
        State::Detached => {}
    }
    crash::pass(CrashPoint::MonthDetached);
    run(connection, &format!("DROP TABLE {name}")).await?;
    crash::pass(CrashPoint::MonthTableDropped);
    Ok(())
}

/// Removes what both ledgers and the lists of days know of months up to `through`; returns how many identities.
///
/// No index has the day, which would cost every write: the ledgers are read from end to end, a stretch at a time.
async fn remove_identities(connection: &mut PgConnection, through: Month) -> Result<u64, PgError> {
    if setting(connection, REMOVED_THROUGH).await?.is_some_and(|removed| removed >= through) {
        return Ok(0);
    }
    let last_day = through.last_day().to_date();
    let mut removed = 0;
    for ledger in ["event_identity", "agg_identity"] {
        let pages: i64 =
            sqlx::query_scalar("SELECT pg_relation_size($1::regclass) / current_setting('block_size')::bigint")
                .bind(ledger)
                .fetch_one(&mut *connection)
                .await?;
        let mut from = 0;
        while from <= pages {
            let to = from + PAGES;
            let statement =
                format!("DELETE FROM {ledger} WHERE ctid >= '({from},0)' AND ctid < '({to},0)' AND day <= $1");
            let stretch = sqlx::query(AssertSqlSafe(statement)).bind(last_day).execute(&mut *connection).await?;
            removed += stretch.rows_affected();
            from = to;
        }
    }
    // Partitions of other bounds may have events of these months, too.
    let end = through.next().first_day().to_date().and_time(chrono::NaiveTime::MIN).and_utc();
    for table in ["DELETE FROM events_raw WHERE started_at < $1", "DELETE FROM events_set_aside WHERE started_at < $1"]
    {
        sqlx::query(table).bind(end).execute(&mut *connection).await?;
    }
    for list in ["DELETE FROM agg_dirty_day WHERE day <= $1", "DELETE FROM event_conflict WHERE kept_day <= $1"] {
        sqlx::query(list).bind(last_day).execute(&mut *connection).await?;
    }
    record(connection, REMOVED_THROUGH, through).await?;
    Ok(removed)
}

async fn run(connection: &mut PgConnection, statement: &str) -> Result<(), PgError> {
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(connection).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_is_dropped_only_when_all_of_it_is_too_old() {
        let limits = EventLimits { max_age: Duration::from_secs(10 * 86_400), ..EventLimits::default() };
        for (now, first) in [
            ("2025-03-11T00:00:00Z", "2025-03"),
            ("2025-03-10T23:59:59Z", "2025-02"),
            ("2025-03-31T12:00:00Z", "2025-03"),
        ] {
            assert_eq!(first_taken(limits, now.parse().expect("a time")).to_string(), first, "{now}");
        }
    }
}
