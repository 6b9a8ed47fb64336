//! The ledgers: which identities are known. They decide what is new.
//!
//! A batch is admitted by `COPY` of its keys, in their order, into the ledger, whose primary key refuses a known one.
//! Where duplicates are to be expected the known keys are looked up first and left out; should another transaction commit
//! one of the rest between the lookup and the `COPY`, the attempt is rolled back, and the next lookup sees it. So each
//! attempt knows at least one key more than the one before, and the first one that meets nobody ends the matter.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use netagg_core::{Batch, BatchOutcome, Conflict, ContentHash, Day, EventKey, Identified, Identity};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::copy::copy_in;
use crate::error::{PgError, UNIQUE_VIOLATION};

/// One of the two ledgers.
#[derive(Debug)]
pub(crate) struct Ledger {
    copy: &'static str,
    known: &'static str,
    /// Whether the last batch met a known key; then so will the next, most likely.
    expects_duplicates: AtomicBool,
}

impl Ledger {
    /// The one of `events_raw`.
    pub(crate) const fn of_events() -> Self {
        Self {
            copy: "COPY event_identity (key, content, day) FROM STDIN (FORMAT binary)",
            known: include_str!("../queries/event_identity_known.sql"),
            expects_duplicates: AtomicBool::new(false),
        }
    }

    /// The one of `agg_day`.
    pub(crate) const fn of_aggregates() -> Self {
        Self {
            copy: "COPY agg_identity (key, content, day) FROM STDIN (FORMAT binary)",
            known: include_str!("../queries/agg_identity_known.sql"),
            expects_duplicates: AtomicBool::new(false),
        }
    }

    /// Begins a transaction, and enters the new items of `batch` and the days of its conflicts.
    pub(crate) async fn admit<T: Identified + Sync>(
        &self,
        connection: &mut PgConnection,
        batch: &Batch<T>,
    ) -> Result<Admission, PgError> {
        let mut look_up = self.expects_duplicates.load(Ordering::Relaxed);
        let known = loop {
            sqlx::raw_sql("BEGIN").execute(&mut *connection).await?;
            let known = if look_up { self.known(connection, batch.items()).await? } else { HashMap::new() };
            match self.enter(connection, batch.items(), &known).await {
                Ok(()) => break known,
                Err(error) if error.is(UNIQUE_VIOLATION) => {
                    sqlx::raw_sql("ROLLBACK").execute(&mut *connection).await?;
                    look_up = true;
                }
                Err(error) => return Err(error),
            }
        };
        self.expects_duplicates.store(!known.is_empty(), Ordering::Relaxed);
        let admission = Admission::new(known, batch);
        mark_dirty(connection, &admission.outcome.conflicts).await?;
        Ok(admission)
    }

    async fn known<T: Identified>(
        &self,
        connection: &mut PgConnection,
        items: &[T],
    ) -> Result<HashMap<EventKey, Identity>, PgError> {
        let keys: Vec<Uuid> = items.iter().map(|item| Uuid::from_bytes(item.identity().key.to_bytes())).collect();
        let rows: Vec<(Uuid, i64, chrono::NaiveDate)> =
            sqlx::query_as(self.known).bind(keys).fetch_all(connection).await?;
        let identity = |(key, content, day): (Uuid, i64, chrono::NaiveDate)| Identity {
            key: EventKey::from_bytes(key.into_bytes()),
            content: ContentHash::from_i64(content),
            day: Day::from(day),
        };
        Ok(rows.into_iter().map(identity).map(|identity| (identity.key, identity)).collect())
    }

    async fn enter<T: Identified + Sync>(
        &self,
        connection: &mut PgConnection,
        items: &[T],
        known: &HashMap<EventKey, Identity>,
    ) -> Result<(), PgError> {
        if known.len() == items.len() {
            return Ok(());
        }
        let new = items.iter().filter(|item| !known.contains_key(&item.identity().key));
        copy_in(connection, self.copy, 3, new, |row, item| {
            let Identity { key, content, day } = item.identity();
            row.bytes(&key.to_bytes());
            row.int8(content.to_i64());
            row.date(day);
        })
        .await?;
        Ok(())
    }
}

/// What a ledger said of a batch.
#[derive(Debug)]
pub(crate) struct Admission {
    known: HashMap<EventKey, Identity>,
    pub(crate) outcome: BatchOutcome,
}

impl Admission {
    fn new<T: Identified>(known: HashMap<EventKey, Identity>, batch: &Batch<T>) -> Self {
        let mut outcome = BatchOutcome {
            duplicates: batch.duplicates(),
            conflicts: batch.conflicts().to_vec(),
            ..BatchOutcome::default()
        };
        for dropped in batch.items().iter().map(Identified::identity) {
            match known.get(&dropped.key) {
                None => {
                    outcome.new += 1;
                    outcome.days.push(dropped.day);
                }
                Some(kept) if kept.content == dropped.content => outcome.duplicates += 1,
                Some(&kept) => outcome.conflicts.push(Conflict { kept, dropped }),
            }
        }
        sort_days(&mut outcome.days);
        Self { known, outcome }
    }

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
    let mut days: Vec<Day> = conflicts.iter().flat_map(|conflict| [conflict.kept.day, conflict.dropped.day]).collect();
    sort_days(&mut days);
    let days: Vec<_> = days.into_iter().map(Day::to_date).collect();
    sqlx::query(include_str!("../queries/agg_dirty_day_mark.sql")).bind(days).execute(connection).await?;
    Ok(())
}

fn sort_days(days: &mut Vec<Day>) {
    days.sort_unstable();
    days.dedup();
}
