//! The ledgers: which identities are known. They decide what is new.
//!
//! A batch is admitted by `COPY` of its keys, in their order, into the ledger, whose primary key refuses a known one: the
//! fastest way for a batch that has nothing but new events. Where duplicates are to be expected, or after such a refusal,
//! the keys are inserted with `ON CONFLICT DO NOTHING`, and those that stayed out are looked up.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};

use netagg_core::crash::{self, CrashPoint};
use netagg_core::{Batch, BatchOutcome, Conflict, ContentHash, Day, EventKey, Identified, Identity};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::copy::copy_in;
use crate::error::{PgError, UNIQUE_VIOLATION};
use crate::retention;

/// One of the two ledgers.
#[derive(Debug)]
pub(crate) struct Ledger {
    copy: &'static str,
    enter: &'static str,
    known: &'static str,
    /// Whether events of dropped months are entered, too.
    settles: bool,
    /// Whether the last batch met a known key; then so will the next, most likely.
    expects_duplicates: AtomicBool,
}

impl Ledger {
    /// The one of `events_raw`.
    pub(crate) const fn of_events() -> Self {
        Self {
            copy: "COPY event_identity (key, content, day) FROM STDIN (FORMAT binary)",
            enter: include_str!("../queries/event_identity_enter.sql"),
            known: include_str!("../queries/event_identity_known.sql"),
            settles: false,
            expects_duplicates: AtomicBool::new(false),
        }
    }

    /// The one of `agg_day`.
    pub(crate) const fn of_aggregates() -> Self {
        Self {
            copy: "COPY agg_identity (key, content, day) FROM STDIN (FORMAT binary)",
            enter: include_str!("../queries/agg_identity_enter.sql"),
            known: include_str!("../queries/agg_identity_known.sql"),
            settles: false,
            expects_duplicates: AtomicBool::new(false),
        }
    }

    /// The one of `agg_day`, for whoever settles the totals of months that are refused already.
    pub(crate) const fn of_settled_aggregates() -> Self {
        Self { settles: true, ..Self::of_aggregates() }
    }

    /// Begins a transaction, and enters the new items of `batch` and the days of its conflicts, unless one of them is
    /// of a dropped month.
    pub(crate) async fn admit<T: Identified + Sync>(
        &self,
        connection: &mut PgConnection,
        batch: &Batch<T>,
    ) -> Result<Admission, PgError> {
        let items = batch.items();
        self.begin(connection, items).await?;
        let known = if self.expects_duplicates.load(Ordering::Relaxed) {
            self.enter(connection, items).await?
        } else {
            match self.copy(connection, items).await {
                Ok(()) => HashMap::new(),
                Err(error) if error.is(UNIQUE_VIOLATION) => {
                    sqlx::raw_sql("ROLLBACK").execute(&mut *connection).await?;
                    crash::pass(CrashPoint::LedgerRefused);
                    self.begin(connection, items).await?;
                    self.enter(connection, items).await?
                }
                Err(error) => return Err(error),
            }
        };
        self.expects_duplicates.store(!known.is_empty(), Ordering::Relaxed);
        crash::pass(CrashPoint::LedgerEntered);
        let admission = Admission { outcome: batch.judge(|key| known.get(key).copied()), known };
        mark_dirty(connection, &admission.outcome.conflicts).await?;
        Ok(admission)
    }

    async fn begin<T: Identified>(&self, connection: &mut PgConnection, items: &[T]) -> Result<(), PgError> {
        let days = items.iter().map(|item| item.identity().day).filter(|_| !self.settles);
        retention::begin(connection, days).await
    }

    /// Enters items none of which is known.
    async fn copy<T: Identified + Sync>(&self, connection: &mut PgConnection, items: &[T]) -> Result<(), PgError> {
        if items.is_empty() {
            return Ok(());
        }
        copy_in(connection, self.copy, 3, items.iter(), |row, item| {
            let Identity { key, content, day } = item.identity();
            row.bytes(&key.to_bytes());
            row.int8(content.to_i64());
            row.date(day);
        })
        .await?;
        Ok(())
    }

    /// Enters the items that are new; returns what the ledger has of the others.
    async fn enter<T: Identified>(
        &self,
        connection: &mut PgConnection,
        items: &[T],
    ) -> Result<HashMap<EventKey, Identity>, PgError> {
        let identities = || items.iter().map(Identified::identity);
        let known: Vec<Uuid> = sqlx::query_scalar(self.enter)
            .bind(identities().map(|identity| Uuid::from_bytes(identity.key.to_bytes())).collect::<Vec<_>>())
            .bind(identities().map(|identity| identity.content.to_i64()).collect::<Vec<_>>())
            .bind(identities().map(|identity| identity.day.to_date()).collect::<Vec<_>>())
            .fetch_all(&mut *connection)
            .await?;
        if known.is_empty() {
            return Ok(HashMap::new());
        }
        // A statement of its own: only it sees what another transaction entered while the first one waited.
        let rows: Vec<(Uuid, i64, chrono::NaiveDate)> =
            sqlx::query_as(self.known).bind(&known).fetch_all(connection).await?;
        if rows.len() < known.len() {
            return Err(PgError::Busy("a known event was removed from the ledger just now".to_owned()));
        }
        let identity = |(key, content, day): (Uuid, i64, chrono::NaiveDate)| Identity {
            key: EventKey::from_bytes(key.into_bytes()),
            content: ContentHash::from_i64(content),
            day: Day::from(day),
        };
        Ok(rows.into_iter().map(identity).map(|identity| (identity.key, identity)).collect())
    }
}

/// What a ledger said of a batch.
#[derive(Debug)]
pub(crate) struct Admission {
    known: HashMap<EventKey, Identity>,
    pub(crate) outcome: BatchOutcome,
}

impl Admission {
    /// The items that were entered, in their order.
    pub(crate) fn new_items<'a, T: Identified>(&'a self, batch: &'a Batch<T>) -> impl Iterator<Item = &'a T> {
        batch.items().iter().filter(|item| !self.known.contains_key(&item.identity().key))
    }
}

/// Marks the days of both copies, so that the totals come to follow `events_raw` whichever copy each ledger kept.
async fn mark_dirty(connection: &mut PgConnection, conflicts: &[Conflict]) -> Result<(), PgError> {
    if conflicts.is_empty() {
        return Ok(());
    }
    mark_days(connection, conflicts.iter().flat_map(|conflict| [conflict.kept.day, conflict.dropped.day]).collect())
        .await?;
    crash::pass(CrashPoint::ConflictsMarked);
    Ok(())
}

/// Marks days whose totals are to be computed again from `events_raw`. In their order, so that writers never deadlock.
pub(crate) async fn mark_days(connection: &mut PgConnection, days: BTreeSet<Day>) -> Result<(), PgError> {
    if days.is_empty() {
        return Ok(());
    }
    let days: Vec<_> = days.into_iter().map(Day::to_date).collect();
    sqlx::query(include_str!("../queries/agg_dirty_day_mark.sql")).bind(days).execute(connection).await?;
    Ok(())
}
