//! Whether the totals are the sums over the events, said while both services run.
//!
//! What is compared is one snapshot. Where the ledgers have the same of a day, the totals must be the sums over its stored
//! events. Elsewhere they must be the sums over those that are counted, and what is counted and not stored yet on top:
//! that is waited for, outside the snapshot, until the ingestor has stored it and it can be summed. What is stored and not
//! counted yet is waited for likewise, lest an event that the aggregator has skipped pass for one it has still before
//! it. So the answer is exact whichever service is ahead, and nobody is held up for it.
//!
//! A day that waits for its repair after a conflict is looked at again until it is repaired.

mod conflicts;
mod judgement;
mod settling;

use std::collections::BTreeMap;
use std::time::Duration;

use netagg_core::{Day, Error, Month, Timestamp};
use sqlx::PgConnection;
use tokio::time::Instant;

pub use self::conflicts::{ConflictingDuplicates, DroppedCopy};
use self::judgement::{Judgement, Months, Verdict};
pub use self::judgement::{LedgerDifference, LedgerFault, TotalsDifference, Undecided};
use self::settling::settle;
use crate::accounts::{self, Account};
use crate::books::{self, Books, DayBooks, Lists, OnProgress, Scope};
use crate::error::{self, PgError};
use crate::postgres::Postgres;
use crate::{PgAggregateStore, PgEventStore, retention};

/// The pause before a day is looked at again, and that between two looks for what is waited for, at most.
const PAUSE: Duration = Duration::from_secs(1);

/// Compares totals with events.
#[derive(Clone, Debug)]
pub struct Audit {
    postgres: Postgres,
}

/// What to audit, and how long to wait for it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct AuditOptions {
    /// The first day; `None` for the first one there is.
    pub from: Option<Day>,
    /// The last day; `None` for the last one there is.
    pub to: Option<Day>,
    /// How long to wait for a service that is behind the other, and for repairs that are due.
    pub patience: Duration,
    /// Whether the topic is known to have been made anew. Then offsets may be done with for the second time, and do not
    /// tell whether a service has passed what the other has done.
    pub topic_is_anew: bool,
}

impl Default for AuditOptions {
    /// Every day, with a minute of patience.
    fn default() -> Self {
        Self { from: None, to: None, patience: Duration::from_secs(60), topic_is_anew: false }
    }
}

/// What an audit has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct AuditReport {
    /// The newest dropped month: it and those before it are left out.
    pub dropped_through: Option<Month>,
    /// How many days with events or totals were compared.
    pub days: u64,
    /// How many events they have.
    pub events: u64,
    /// How many of the events the aggregator has still before it; they are in no total yet.
    pub uncounted: u64,
    /// Where totals are not the sums over the events, in order.
    pub totals: Vec<TotalsDifference>,
    /// Where a ledger is not what it stands for, in order.
    pub ledgers: Vec<LedgerDifference>,
    /// Days that could not be compared, in order.
    pub undecided: Vec<Undecided>,
    /// Events that came again with other content. No differences: the totals follow the copy that is kept.
    pub conflicts: ConflictingDuplicates,
    /// What became of every record.
    pub accounts: Vec<Account>,
}

impl Audit {
    pub(crate) fn new(postgres: Postgres) -> Self {
        Self { postgres }
    }

    /// What the services say became of every record: the ingestor's accounts, then the aggregator's.
    ///
    /// # Errors
    /// Retryable while the database cannot be read.
    pub async fn accounts(&self) -> Result<Vec<Account>, Error> {
        self.postgres
            .call(async {
                let mut session = self.postgres.session().await?;
                let accounts = accounts::read(&mut session).await?;
                session.release();
                Ok(accounts)
            })
            .await
    }

    /// Compares `agg_day` and `agg_month` with `events_raw`, and the ledgers with what they stand for. Changes nothing
    /// and holds nobody up, but keeps the state of the database as it was at its beginning visible while it reads.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn run(&self, options: &AuditOptions, on_progress: &OnProgress<'_>) -> Result<AuditReport, Error> {
        self.try_run(options, on_progress).await.map_err(error::to_core)
    }

    async fn try_run(&self, options: &AuditOptions, on_progress: &OnProgress<'_>) -> Result<AuditReport, PgError> {
        let mut connection = books::connect(&self.postgres).await?;
        books::begin_snapshot(&mut connection).await?;
        let dropped_through = retention::dropped_through(&mut connection).await?;
        let (from, to) = range(options, dropped_through);
        let accounts = accounts::read(&mut connection).await?;
        let mut report = AuditReport { dropped_through, accounts, ..AuditReport::default() };
        if from > to {
            return Ok(report);
        }
        report.conflicts = conflicts::read(&mut connection, from, to).await?;
        let mut look = Look::take(&mut connection, &Scope::between(from, to), on_progress).await?;
        let months = Months::read(&mut connection, from, to, &look.books).await?;
        books::end_snapshot(&mut connection).await?;
        let days = &look.books.days;
        report.days = days.values().filter(|day| !day.stored.is_empty() || !day.totals.is_empty()).count() as u64;
        report.events = days.values().map(DayBooks::events).sum();

        let deadline = Instant::now() + options.patience;
        let mut settled = settle(&mut connection, &look, options, deadline).await?;
        report.uncounted = settled.not_yet_counted;
        let mut judgements = BTreeMap::new();
        loop {
            let days = look.books.days.iter();
            judgements.extend(days.map(|(day, books)| (*day, Judgement::of(*day, books, &settled))));
            let again =
                judgements.values().filter(|judgement| judgement.is_to_be_repaired()).map(|judgement| judgement.day);
            let Some(scope) = Scope::only(again).filter(|_| Instant::now() < deadline) else { break };
            tokio::time::sleep_until(deadline.min(Instant::now() + PAUSE)).await;
            books::begin_snapshot(&mut connection).await?;
            look = Look::take(&mut connection, &scope, &|_| {}).await?;
            books::end_snapshot(&mut connection).await?;
            settled = settle(&mut connection, &look, options, deadline).await?;
            judgements.retain(|_, judgement| !judgement.is_to_be_repaired());
        }
        months.compare(&judgements, &mut report.totals);
        for judgement in judgements.into_values() {
            judgement.list(&mut report.totals);
            report.ledgers.extend(judgement.faults);
            if let Verdict::Undecided(undecided) = judgement.verdict {
                report.undecided.push(undecided);
            }
        }
        report.totals.sort_by_key(TotalsDifference::order);
        Ok(report)
    }
}

/// What one snapshot says.
#[derive(Debug)]
struct Look {
    books: Books,
    accounts: Vec<Account>,
    /// Whether the aggregator has done all that the ingestor has: then it has none of what is not counted before it.
    aggregator_has_passed: bool,
}

impl Look {
    async fn take(connection: &mut PgConnection, scope: &Scope, on_progress: &OnProgress<'_>) -> Result<Self, PgError> {
        let accounts = accounts::read(connection).await?;
        let (ingestor, aggregator) = (PgEventStore::SERVICE, PgAggregateStore::SERVICE);
        let aggregator_has_passed = accounts::has_passed(connection, aggregator, ingestor, &accounts).await?;
        let books = Books::read(connection, scope, Lists::Both, on_progress).await?;
        Ok(Self { books, accounts, aggregator_has_passed })
    }
}

/// The days to compare: none of a dropped month.
fn range(options: &AuditOptions, dropped_through: Option<Month>) -> (Day, Day) {
    let first_kept = dropped_through.map(|month| month.next().first_day());
    let from = options.from.unwrap_or(Timestamp::MIN.day());
    (first_kept.map_or(from, |first| first.max(from)), options.to.unwrap_or(Timestamp::MAX.day()))
}
