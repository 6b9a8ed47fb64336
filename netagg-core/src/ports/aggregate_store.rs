//! Where totals are kept apart from the events.

use async_trait::async_trait;

use super::TotalsReader;
use crate::Error;
use crate::aggregate::Contribution;
use crate::batch::{Batch, BatchOutcome};

/// Counts every event once.
#[async_trait]
pub trait AggregateStore: TotalsReader {
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
}
