//! Retention: drops whole months of events, the oldest month first.
//!
//! The order of the steps keeps events and totals equal, whatever batches are in flight:
//!
//! 1. The month is recorded in the month fence, which every batch checks in its transaction.
//! 2. The run waits for transactions that may have read the older state of the fence. Other writers continue.
//! 3. From now on, no event of the month can be stored or counted. So the totals of the month are made equal to its events,
//!    and neither changes again.
//! 4. The partition of the month is detached and dropped, and its identities are removed.
//!
//! If a run is interrupted, the next run of any process finishes it.

use std::time::Duration;

use netagg_core::crash::{self, CrashPoint};
use netagg_core::{Error, EventLimits, Month, ProcessingMode, Timestamp};
use sqlx::{AssertSqlSafe, Connection, FromRow, PgConnection};

use crate::client::{PgError, Postgres, error, locks};
use crate::schema::mode;
use crate::schema::month_fence;
use crate::schema::partitions::{bounds_of, month_of};
use crate::schema::settings::{read_month, record_month};

/// The setting with the newest month whose identities are also removed.
const REMOVED_THROUGH: &str = "identities_removed_through";

/// The setting with the month that is being dropped. If the table of this month is already detached, then retention has
/// detached it, and drops it. Other detached tables belong to an operator.
const DROPPING: &str = "dropping_month";

/// How long a step waits for a lock before it fails. The next run continues with this step.
const LOCK_TIMEOUT: &str = "10s";

/// How long to wait for older transactions. No transaction of a writer may take longer.
const OLD_WRITERS: Duration = Duration::from_secs(120);

/// How long to wait for other repairs of a month's days.
const OTHER_REPAIRS: Duration = Duration::from_secs(60);

/// How many pages of a ledger one statement reads to remove identities.
const PAGES: i64 = 8_192;

/// Drops months of events. Totals stay.
#[derive(Clone, Debug)]
pub struct Retention {
    postgres: Postgres,
}

/// The result of [`Retention::drop_before`].
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
    #[error("events of up to {} days ago are still accepted: only months before {earliest} can be dropped", .max_age.as_secs() / 86_400)]
    StillTaken {
        /// How old events may be.
        max_age: Duration,
        /// The first month that cannot be dropped.
        earliest: Month,
    },
    /// Another process is dropping months.
    #[error("another process is dropping months right now")]
    Busy,
    /// The database has failed or is unavailable.
    #[error(transparent)]
    Store(#[from] Error),
}

impl From<PgError> for DropError {
    fn from(error: PgError) -> Self {
        Self::Store(error::to_core(error))
    }
}

impl Postgres {
    /// Returns the handle that drops months of events.
    pub fn retention(&self) -> Retention {
        Retention { postgres: self.clone() }
    }
}

impl Retention {
    /// The newest dropped month. All earlier months are dropped, too.
    ///
    /// # Errors
    /// Retryable while the database cannot be read.
    pub async fn dropped_through(&self) -> Result<Option<Month>, Error> {
        self.postgres
            .call(async {
                let mut session = self.postgres.session().await?;
                let month = month_fence::dropped_through(&mut session).await?;
                session.release();
                Ok(month)
            })
            .await
    }

    /// Drops every month before `before` for good: its events and their identities. The totals of the month stay. Before
    /// the events are dropped, the totals are made equal to them. Writers of other months continue.
    ///
    /// A month is not dropped while its events can still be valid. `limits`, the recorded limits and the time `now` decide
    /// which events are valid: the recorded limits may have changed since a service agreed on `limits`.
    ///
    /// # Errors
    /// [`DropError::StillTaken`] if a month cannot be dropped; then nothing has changed. After any other error the finished
    /// steps stay, and the next call continues.
    pub async fn drop_before(&self, before: Month, limits: EventLimits, now: Timestamp) -> Result<Dropped, DropError> {
        let recorded = self.postgres.settings().recorded_event_limits().await?.unwrap_or(limits);
        let max_age = recorded.max_age.max(limits.max_age);
        let earliest = first_month_within(max_age, now);
        if before > earliest {
            return Err(DropError::StillTaken { max_age, earliest });
        }
        // The session of this connection holds the lock, and has no time limits.
        let mut connection = self.postgres.unlimited_connection().await?;
        self.postgres.refuse_distribution(&mut connection).await?;
        let dropped = self.drop_with(&mut connection, before).await;
        // An error of `close` does not matter: the connection is not used again.
        let _ = connection.close().await;
        dropped
    }

    async fn drop_with(&self, connection: &mut PgConnection, before: Month) -> Result<Dropped, DropError> {
        run(connection, &format!("SET lock_timeout = '{LOCK_TIMEOUT}'")).await?;
        let is_ours: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)")
            .bind(locks::RETENTION)
            .fetch_one(&mut *connection)
            .await
            .map_err(PgError::from)?;
        if !is_ours {
            return Err(DropError::Busy);
        }
        let Some(through) = close_fence(connection, before).await? else { return Ok(Dropped::default()) };
        crash::pass(CrashPoint::MonthsRefused);
        wait_for_old_writers(connection).await?;
        let mut dropped = Dropped::default();
        for table in tables(connection).await? {
            if table.month > through
                || table.state == State::Detached && read_month(connection, DROPPING).await? != Some(table.month)
            {
                continue;
            }
            if table.state == State::Attached {
                self.freeze(table.month).await?;
            }
            drop_table(connection, &table).await?;
            tracing::info!(month = %table.month, "dropped a month of events");
            dropped.months.push(table.month);
        }
        dropped.identities = remove_identities(connection, through).await?;
        Ok(dropped)
    }

    /// Makes the totals of `month` equal to its events. Neither the totals nor the events change after this.
    async fn freeze(&self, month: Month) -> Result<(), Error> {
        let repairs = self.postgres.repairs();
        let days = repairs.days(month.first_day(), month.last_day()).await?;
        if days.is_empty() { Ok(()) } else { repairs.freeze(&days, OTHER_REPAIRS).await }
    }
}

/// The first month with events that are at most `age` old at `now`. All events of earlier months are older.
pub(crate) fn first_month_within(age: Duration, now: Timestamp) -> Month {
    now.saturating_sub(age).day().month()
}

/// Records the months before `before` in the month fence. Returns the newest month in the fence, if any.
async fn close_fence(connection: &mut PgConnection, before: Month) -> Result<Option<Month>, PgError> {
    // Months without a partition have no events to drop, so they need not be in the fence.
    let kept = tables(connection).await?.into_iter().filter(|table| table.state != State::Detached);
    let newest = kept.map(|table| table.month).filter(|month| *month < before).max();
    if let Some(newest) = newest {
        month_fence::raise(connection, newest).await?;
    }
    month_fence::dropped_through(connection).await
}

/// Waits until all transactions have ended that may have read an older state of the month fence.
async fn wait_for_old_writers(connection: &mut PgConnection) -> Result<(), PgError> {
    let old = writers(connection).await?;
    let deadline = tokio::time::Instant::now() + OLD_WRITERS;
    let mut pause = Duration::from_millis(10);
    loop {
        let now = writers(connection).await?;
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

/// The running transactions of writers.
async fn writers(connection: &mut PgConnection) -> Result<Vec<String>, PgError> {
    let writers = sqlx::query_scalar(include_str!("../queries/retention/writers.sql"));
    Ok(writers.bind(locks::WRITERS).fetch_all(connection).await?)
}

/// A table named after a month.
#[derive(Debug)]
struct Table {
    month: Month,
    name: String,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Attached,
    /// A `DETACH PARTITION … CONCURRENTLY` of the table was interrupted.
    Detaching,
    Detached,
}

#[derive(Debug, FromRow)]
struct TableRow {
    name: String,
    is_attached: bool,
    is_detaching: bool,
}

/// The tables named after a month, in the order of months.
async fn tables(connection: &mut PgConnection) -> Result<Vec<Table>, PgError> {
    let rows: Vec<TableRow> =
        sqlx::query_as(include_str!("../queries/retention/month_tables.sql")).fetch_all(connection).await?;
    let mut tables: Vec<Table> = rows
        .into_iter()
        .filter_map(|TableRow { name, is_attached, is_detaching }| {
            let state = match (is_attached, is_detaching) {
                (false, _) => State::Detached,
                (true, true) => State::Detaching,
                (true, false) => State::Attached,
            };
            Some(Table { month: month_of(&name)?, name, state })
        })
        .collect();
    tables.sort_by_key(|table| table.month);
    Ok(tables)
}

/// Detaches the table, without locking out readers and writers of other months, and drops it.
async fn drop_table(connection: &mut PgConnection, table: &Table) -> Result<(), PgError> {
    record_month(connection, DROPPING, table.month).await?;
    // `name` is `events_raw_` and the digits of a month, so it contains no text from outside.
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

/// Removes the rows of months up to `through` from both ledgers and the lists of days. Returns how many identities it removed.
///
/// The ledgers have no index on the day, because it would slow down every write. So they are read from end to end, some
/// pages at a time.
async fn remove_identities(connection: &mut PgConnection, through: Month) -> Result<u64, PgError> {
    if read_month(connection, REMOVED_THROUGH).await?.is_some_and(|removed| removed >= through) {
        return Ok(0);
    }
    let last_day = through.last_day().to_date();
    let mut removed = 0;
    let ledgers = match mode::read(connection).await?.tables() {
        ProcessingMode::Separate => &["event_identity", "agg_identity"][..],
        // The second ledger is a view of the first.
        ProcessingMode::Combined => &["event_identity"],
    };
    for ledger in ledgers {
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
            let deleted = sqlx::query(AssertSqlSafe(statement)).bind(last_day).execute(&mut *connection).await?;
            removed += deleted.rows_affected();
            from = to;
        }
    }
    // Partitions with other bounds may have events of these months, too.
    let (_, end) = bounds_of(through);
    for table in ["DELETE FROM events_raw WHERE started_at < $1", "DELETE FROM events_set_aside WHERE started_at < $1"]
    {
        sqlx::query(table).bind(end).execute(&mut *connection).await?;
    }
    for list in ["DELETE FROM agg_dirty_day WHERE day <= $1", "DELETE FROM event_conflict WHERE kept_day <= $1"] {
        sqlx::query(list).bind(last_day).execute(&mut *connection).await?;
    }
    record_month(connection, REMOVED_THROUGH, through).await?;
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
            assert_eq!(first_month_within(limits.max_age, now.parse().expect("a time")).to_string(), first, "{now}");
        }
    }
}
