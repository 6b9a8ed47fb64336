//! Where totals are kept.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::Error;
use crate::aggregate::{AggregateRow, Contribution};
use crate::batch::{Batch, BatchOutcome};
use crate::event::EventType;
use crate::granularity::Granularity;
use crate::time::{Day, Timestamp};

/// Counts every event once, and answers the totals.
#[async_trait]
pub trait AggregateStore: Debug + Send + Sync {
    /// Adds the contributions that are new to the totals of their days and months and notes the batch's spans as done
    /// with: atomically, nobody sees half of it.
    ///
    /// All of it is durable when it returns. Identity decides what is new, in a ledger of this store's own; a repeated
    /// call adds nothing and reports duplicates. Concurrent calls end as if one had come after the other.
    ///
    /// The same transaction also keeps the offsets of [`Batch::spans`] and the days of both copies of each
    /// [conflict](crate::Conflict), as [`EventStore::store`](super::EventStore::store) does.
    ///
    /// Not to be cancelled: the caller lets the future finish.
    ///
    /// # Errors
    /// On a retryable one all of the batch was counted, or nothing; the same call again is harmless.
    /// [`Error::MonthsDropped`] when an event lies in a month that is not kept any more: nothing was counted.
    async fn add(&self, batch: &Batch<Contribution>) -> Result<BatchOutcome, Error>;

    /// The totals, ordered by date and type; a row only where there are events.
    ///
    /// # Errors
    /// Retryable while the store cannot be read.
    async fn totals(&self, query: &TotalsQuery) -> Result<Vec<AggregateRow>, Error>;

    /// An instant up to which every event that the log held then is counted; `None` while none is known, as from a store
    /// that knows no log. Everything counted before it was asked for is in what is read after.
    ///
    /// # Errors
    /// Retryable while the store cannot be read.
    async fn complete_through(&self) -> Result<Option<Timestamp>, Error> {
        Ok(None)
    }
}

/// Which totals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct TotalsQuery {
    /// By day or by month.
    pub granularity: Granularity,
    /// The first day, inclusive; for months, any day of the first one.
    pub from: Day,
    /// The last day, inclusive; for months, any day of the last one.
    pub to: Day,
    /// Only this type.
    pub event_type: Option<EventType>,
}
