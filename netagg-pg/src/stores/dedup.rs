//! Deduplication: the ledgers of identities decide which items of a batch are new.
//!
//! For a large batch of new items, the fastest way is a `COPY` of its keys, in their order, into the ledger. If the ledger
//! already has one of the keys, its primary key makes the `COPY` fail. Then this batch inserts its keys with
//! `ON CONFLICT DO NOTHING` instead. The next batches first look up keys, and copy only the unknown keys. If the duplicates are
//! copies of [recent events](super::recent_keys), a batch looks up only its recent keys. The keys of a
//! [small batch](crate::PgConfig::max_insert_rows) are always inserted.
//!
//! A lookup does not find a key of a transaction that is not committed. So a batch leaves out the keys that this process is
//! writing in [another batch](super::in_flight), and looks them up last, when the other batch has ended. So each
//! transaction locks keys only in their order, and writers never deadlock in PostgreSQL.

use std::collections::HashMap;

use netagg_core::crash::{self, CrashPoint};
use netagg_core::{Batch, BatchOutcome, Conflict, EventKey, Identified, Identity, ProcessingMode};
use sqlx::PgConnection;
use uuid::Uuid;

use super::dirty_days;
use super::in_flight::{InFlight, InFlightBatch};
use super::recent_keys::RecentKeys;
use crate::client::copy_format::copy_in;
use crate::client::error::{PgError, UNIQUE_VIOLATION};
use crate::client::rows::IdentityRow;
use crate::client::{Postgres, Traced};
use crate::schema::write_transaction::{self, Writer};

/// The identities in the ledger for keys of a batch.
type Known = HashMap<EventKey, Identity>;

/// Deduplicates batches by one of the two ledgers.
#[derive(Debug)]
pub(crate) struct Dedup {
    copy_keys: &'static str,
    insert_missing: &'static str,
    find: &'static str,
    summaries: Summaries,
    /// The mode of the services that write the ledger.
    mode: ProcessingMode,
    postgres: Postgres,
    /// Whether events of dropped months are entered, too.
    ignores_month_fence: bool,
    recent: RecentKeys,
    in_flight: InFlight,
}

/// The names of the statements in traces.
#[derive(Debug)]
struct Summaries {
    copy: &'static str,
    insert: &'static str,
    find: &'static str,
}

impl Dedup {
    /// Deduplicates by `event_identity`, the ledger of `events_raw`. In the combined `mode`, it is also the ledger of
    /// `agg_day`.
    pub(crate) fn of_events(postgres: Postgres, mode: ProcessingMode) -> Self {
        Self {
            copy_keys: "COPY event_identity (key, content, day) FROM STDIN (FORMAT binary)",
            insert_missing: include_str!("../../queries/dedup/event_identity_insert_missing.sql"),
            find: include_str!("../../queries/dedup/event_identity_find.sql"),
            summaries: Summaries {
                copy: "COPY event_identity",
                insert: "INSERT event_identity",
                find: "SELECT event_identity",
            },
            mode,
            postgres,
            ignores_month_fence: false,
            recent: RecentKeys::default(),
            in_flight: InFlight::default(),
        }
    }

    /// Deduplicates by `agg_identity`, the ledger of `agg_day`.
    pub(crate) fn of_aggregates(postgres: Postgres) -> Self {
        Self {
            copy_keys: "COPY agg_identity (key, content, day) FROM STDIN (FORMAT binary)",
            insert_missing: include_str!("../../queries/dedup/agg_identity_insert_missing.sql"),
            find: include_str!("../../queries/dedup/agg_identity_find.sql"),
            summaries: Summaries {
                copy: "COPY agg_identity",
                insert: "INSERT agg_identity",
                find: "SELECT agg_identity",
            },
            mode: ProcessingMode::Separate,
            postgres,
            ignores_month_fence: false,
            recent: RecentKeys::default(),
            in_flight: InFlight::default(),
        }
    }

    /// Returns the same deduplication, which also enters events of dropped months.
    pub(crate) fn ignoring_month_fence(self) -> Self {
        Self { ignores_month_fence: true, ..self }
    }

    /// Begins a transaction and enters the new items of `batch` into the ledger. Items that this process is writing in another
    /// batch are pending: [`Entry::resolve`] finds them in the ledger.
    ///
    /// # Errors
    /// [`PgError::MonthsDropped`], without a transaction, if an item is of a dropped month.
    pub(crate) async fn enter<'a, T: Identified + Sync>(
        &'a self,
        connection: &mut PgConnection,
        batch: &'a Batch<T>,
    ) -> Result<Entry<'a, T>, PgError> {
        let items = batch.items();
        self.begin(connection, items).await?;
        // Only now: other batches may wait for this batch from here on, so it should not wait for the lock of all writers. After a
        // failed `COPY` it takes this lock again. If a change of the limits waits for the lock then, the wait of the other batches
        // ends after its time limit, and they are repeated.
        let in_flight = self.in_flight.add(items);
        let (pending, candidates): (Vec<_>, Vec<_>) =
            items.iter().partition(|item| in_flight.shares(&item.identity().key));
        let (known, new) = if candidates.len() <= self.postgres.max_insert_rows() {
            self.recent.remember(candidates.iter().map(|item| item.identity().key));
            self.insert(connection, candidates).await?
        } else {
            match self.copy(connection, candidates.clone()).await {
                Err(error) if error.is(UNIQUE_VIOLATION) => {
                    sqlx::raw_sql("ROLLBACK").execute(&mut *connection).await?;
                    crash::pass(CrashPoint::LedgerRefused);
                    self.recent.missed();
                    self.begin(connection, items).await?;
                    // Not the pending items: an earlier batch may not have entered them yet. It would then wait in PostgreSQL for
                    // this batch, and this batch may wait for a batch that waits in the process for the earlier batch.
                    self.insert(connection, candidates).await?
                }
                result => result?,
            }
        };
        crash::pass(CrashPoint::LedgerEntered);
        Ok(Entry { dedup: self, batch, known, new, pending, in_flight })
    }

    async fn begin<T: Identified>(&self, connection: &mut PgConnection, items: &[T]) -> Result<(), PgError> {
        let days = items.iter().map(|item| item.identity().day).filter(|_| !self.ignores_month_fence);
        let writer = Writer { mode: Some(self.mode), limits: self.postgres.agreed_limits() };
        write_transaction::begin(connection, writer, days).await
    }

    /// Copies the new items into the ledger, after it has looked up the keys that may be known. A known key that it has not looked
    /// up makes the `COPY` fail.
    async fn copy<'a, T: Identified + Sync>(
        &self,
        connection: &mut PgConnection,
        items: Vec<&'a T>,
    ) -> Result<(Known, Vec<&'a T>), PgError> {
        let candidates = self.recent.candidates(items.iter().map(|item| item.identity().key));
        let known = self.find(connection, candidates.keys.iter().copied()).await?;
        let new = unknown(items, &known);
        if !new.is_empty() {
            copy_in(connection, self.copy_keys, 3, new.iter().copied(), |row, item| {
                let Identity { key, content, day } = item.identity();
                row.bytes(&key.to_bytes());
                row.int8(content.to_i64());
                row.date(day);
            })
            .traced(self.summaries.copy)
            .await?;
        }
        self.recent.copied(&candidates, known.keys().copied());
        Ok((known, new))
    }

    /// Inserts the new items into the ledger, and looks the other items up.
    async fn insert<'a, T: Identified>(
        &self,
        connection: &mut PgConnection,
        items: Vec<&'a T>,
    ) -> Result<(Known, Vec<&'a T>), PgError> {
        if items.is_empty() {
            return Ok((Known::new(), items));
        }
        let identities = || items.iter().map(|item| item.identity());
        let known: Vec<Uuid> = sqlx::query_scalar(self.insert_missing)
            .bind(identities().map(|identity| Uuid::from_bytes(identity.key.to_bytes())).collect::<Vec<_>>())
            .bind(identities().map(|identity| identity.content.to_i64()).collect::<Vec<_>>())
            .bind(identities().map(|identity| identity.day.to_date()).collect::<Vec<_>>())
            .fetch_all(&mut *connection)
            .traced(self.summaries.insert)
            .await?;
        // Only a later statement sees the keys that another transaction entered while the insert waited for it.
        let found = self.find(connection, known.iter().map(|key| EventKey::from_bytes(*key.as_bytes()))).await?;
        if found.len() < known.len() {
            return Err(PgError::Busy("a known event was removed from the ledger just now".to_owned()));
        }
        let new = unknown(items, &found);
        Ok((found, new))
    }

    /// The identities in the ledger that have one of `keys`.
    async fn find(
        &self,
        connection: &mut PgConnection,
        keys: impl Iterator<Item = EventKey>,
    ) -> Result<Known, PgError> {
        let keys: Vec<_> = keys.map(|key| Uuid::from_bytes(key.to_bytes())).collect();
        if keys.is_empty() {
            return Ok(Known::new());
        }
        let rows: Vec<IdentityRow> =
            sqlx::query_as(self.find).bind(keys).fetch_all(connection).traced(self.summaries.find).await?;
        Ok(rows.into_iter().map(Identity::from).map(|identity| (identity.key, identity)).collect())
    }
}

/// The items whose keys are not known, in their order.
fn unknown<'a, T: Identified>(items: Vec<&'a T>, known: &Known) -> Vec<&'a T> {
    items.into_iter().filter(|item| !known.contains_key(&item.identity().key)).collect()
}

/// A batch whose new items are entered into the ledger. The batch is in flight until this value is dropped, after the commit.
#[derive(Debug)]
pub(crate) struct Entry<'a, T> {
    dedup: &'a Dedup,
    batch: &'a Batch<T>,
    known: Known,
    new: Vec<&'a T>,
    /// The items that this process was writing in another batch.
    pending: Vec<&'a T>,
    in_flight: InFlightBatch<'a>,
}

impl<'a, T: Identified> Entry<'a, T> {
    /// The items that this batch has entered into the ledger, in their order.
    pub(crate) fn new_items(&self) -> &[&'a T] {
        &self.new
    }

    /// Decides which items are new, duplicates or conflicts. Marks the days of conflicts if there are two ledgers.
    ///
    /// It waits for the batches that hold the keys of pending items. So the caller writes its new items before, and locks the
    /// rows that other batches may need afterwards.
    pub(crate) async fn resolve(&mut self, connection: &mut PgConnection) -> Result<BatchOutcome, PgError> {
        if !self.pending.is_empty() {
            self.in_flight.wait_for_owners().await?;
            let keys = self.pending.iter().map(|item| item.identity().key);
            let found = self.dedup.find(connection, keys).await?;
            if found.len() < self.pending.len() {
                return Err(PgError::Busy("another batch with the same events was not written".to_owned()));
            }
            self.known.extend(found);
        }
        let outcome = self.batch.resolve(|key| self.known.get(key).copied());
        // With one ledger, the totals count the same copies that are stored.
        if self.dedup.mode == ProcessingMode::Separate {
            mark_conflicts(connection, &outcome.conflicts).await?;
        }
        Ok(outcome)
    }
}

/// Marks the days of both copies as dirty. A repair then makes the totals follow `events_raw`, whichever copy each ledger
/// has kept.
async fn mark_conflicts(connection: &mut PgConnection, conflicts: &[Conflict]) -> Result<(), PgError> {
    if conflicts.is_empty() {
        return Ok(());
    }
    dirty_days::mark(connection, conflicts.iter().flat_map(|conflict| [conflict.kept.day, conflict.dropped.day]))
        .await?;
    crash::pass(CrashPoint::ConflictsMarked);
    Ok(())
}
