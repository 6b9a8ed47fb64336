//! Deduplication: the ledgers of identities decide which items of a batch are new.
//!
//! A batch of new items enters fastest by `COPY` of its keys, in their order, into the ledger, whose primary key refuses
//! known keys. After such a refusal, and where duplicates are expected, the keys are inserted with
//! `ON CONFLICT DO NOTHING` instead, and the keys that stayed out are looked up.
//!
//! To look keys up first and `COPY` the others was slower: 0.82 of the rate of the aggregator at 5 % duplicates. A duplicate often
//! comes soon after its original, whose batch is not committed yet, and then `COPY` is refused all the same.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use netagg_core::crash::{self, CrashPoint};
use netagg_core::{Batch, BatchOutcome, Conflict, EventKey, Identified, Identity, ProcessingMode};
use sqlx::PgConnection;
use uuid::Uuid;

use super::dirty_days;
use crate::client::copy::copy_in;
use crate::client::error::{PgError, UNIQUE_VIOLATION};
use crate::client::rows::IdentityRow;
use crate::schema::write_transaction;

/// Deduplicates batches by one of the two ledgers.
#[derive(Debug)]
pub(crate) struct Dedup {
    copy_keys: &'static str,
    insert_missing: &'static str,
    find: &'static str,
    /// The mode in which the ledger is written.
    mode: ProcessingMode,
    /// Whether events of dropped months are entered, too.
    ignores_month_fence: bool,
    /// Whether the last batch had a known key. Then the next batch probably has some, too.
    expects_duplicates: AtomicBool,
}

impl Dedup {
    /// By `event_identity`, the ledger of `events_raw`, and in the combined `mode` of `agg_day`, too.
    pub(crate) const fn of_events(mode: ProcessingMode) -> Self {
        Self {
            copy_keys: "COPY event_identity (key, content, day) FROM STDIN (FORMAT binary)",
            insert_missing: include_str!("../../queries/dedup/event_identity_insert_missing.sql"),
            find: include_str!("../../queries/dedup/event_identity_find.sql"),
            mode,
            ignores_month_fence: false,
            expects_duplicates: AtomicBool::new(false),
        }
    }

    /// By `agg_identity`, the ledger of `agg_day`.
    pub(crate) const fn of_aggregates() -> Self {
        Self {
            copy_keys: "COPY agg_identity (key, content, day) FROM STDIN (FORMAT binary)",
            insert_missing: include_str!("../../queries/dedup/agg_identity_insert_missing.sql"),
            find: include_str!("../../queries/dedup/agg_identity_find.sql"),
            mode: ProcessingMode::Separate,
            ignores_month_fence: false,
            expects_duplicates: AtomicBool::new(false),
        }
    }

    /// The same, also for events of dropped months.
    pub(crate) const fn ignoring_month_fence(self) -> Self {
        Self { ignores_month_fence: true, ..self }
    }

    /// Begins a transaction, enters the new items of `batch` into the ledger, and marks the days of its conflicts if
    /// there are two ledgers.
    ///
    /// # Errors
    /// [`PgError::MonthsDropped`], without a transaction, if an item is of a dropped month.
    pub(crate) async fn enter<T: Identified + Sync>(
        &self,
        connection: &mut PgConnection,
        batch: &Batch<T>,
    ) -> Result<DedupOutcome, PgError> {
        let items = batch.items();
        self.begin(connection, items).await?;
        let known = if self.expects_duplicates.load(Ordering::Relaxed) {
            self.insert_missing(connection, items).await?
        } else {
            match self.copy_keys(connection, items).await {
                Ok(()) => HashMap::new(),
                Err(error) if error.is(UNIQUE_VIOLATION) => {
                    sqlx::raw_sql("ROLLBACK").execute(&mut *connection).await?;
                    crash::pass(CrashPoint::LedgerRefused);
                    self.begin(connection, items).await?;
                    self.insert_missing(connection, items).await?
                }
                Err(error) => return Err(error),
            }
        };
        self.expects_duplicates.store(!known.is_empty(), Ordering::Relaxed);
        crash::pass(CrashPoint::LedgerEntered);
        let outcome = DedupOutcome { batch: batch.judge(|key| known.get(key).copied()), known };
        // With one ledger, totals have the copies that are stored.
        if self.mode == ProcessingMode::Separate {
            mark_conflicts(connection, &outcome.batch.conflicts).await?;
        }
        Ok(outcome)
    }

    async fn begin<T: Identified>(&self, connection: &mut PgConnection, items: &[T]) -> Result<(), PgError> {
        let days = items.iter().map(|item| item.identity().day).filter(|_| !self.ignores_month_fence);
        write_transaction::begin(connection, Some(self.mode), days).await
    }

    /// Enters items of which none is known.
    async fn copy_keys<T: Identified + Sync>(&self, connection: &mut PgConnection, items: &[T]) -> Result<(), PgError> {
        if items.is_empty() {
            return Ok(());
        }
        copy_in(connection, self.copy_keys, 3, items.iter(), |row, item| {
            let Identity { key, content, day } = item.identity();
            row.bytes(&key.to_bytes());
            row.int8(content.to_i64());
            row.date(day);
        })
        .await?;
        Ok(())
    }

    /// Enters the new items. Returns the identities in the ledger that have the keys of the other items.
    async fn insert_missing<T: Identified>(
        &self,
        connection: &mut PgConnection,
        items: &[T],
    ) -> Result<HashMap<EventKey, Identity>, PgError> {
        let identities = || items.iter().map(Identified::identity);
        let known: Vec<Uuid> = sqlx::query_scalar(self.insert_missing)
            .bind(identities().map(|identity| Uuid::from_bytes(identity.key.to_bytes())).collect::<Vec<_>>())
            .bind(identities().map(|identity| identity.content.to_i64()).collect::<Vec<_>>())
            .bind(identities().map(|identity| identity.day.to_date()).collect::<Vec<_>>())
            .fetch_all(&mut *connection)
            .await?;
        if known.is_empty() {
            return Ok(HashMap::new());
        }
        // Only a later statement sees the keys that another transaction entered while the insert waited for it.
        let rows: Vec<IdentityRow> = sqlx::query_as(self.find).bind(&known).fetch_all(connection).await?;
        if rows.len() < known.len() {
            return Err(PgError::Busy("a known event was removed from the ledger just now".to_owned()));
        }
        Ok(rows.into_iter().map(Identity::from).map(|identity| (identity.key, identity)).collect())
    }
}

/// Which items of a batch are new, duplicates or conflicts.
#[derive(Debug)]
pub(crate) struct DedupOutcome {
    known: HashMap<EventKey, Identity>,
    pub(crate) batch: BatchOutcome,
}

impl DedupOutcome {
    /// The new items, in their order.
    pub(crate) fn new_items<'a, T: Identified>(&'a self, batch: &'a Batch<T>) -> impl Iterator<Item = &'a T> {
        batch.items().iter().filter(|item| !self.known.contains_key(&item.identity().key))
    }
}

/// Marks the days of both copies: the totals then follow `events_raw`, whichever copy each ledger has kept.
async fn mark_conflicts(connection: &mut PgConnection, conflicts: &[Conflict]) -> Result<(), PgError> {
    if conflicts.is_empty() {
        return Ok(());
    }
    dirty_days::mark(connection, conflicts.iter().flat_map(|conflict| [conflict.kept.day, conflict.dropped.day]))
        .await?;
    crash::pass(CrashPoint::ConflictsMarked);
    Ok(())
}
