//! The store of totals in the separate mode.

use async_trait::async_trait;

use super::TotalsReader;
use crate::Error;
use crate::aggregate::Contribution;
use crate::batch::{Batch, BatchOutcome};

/// A store that counts every event once.
#[async_trait]
pub trait AggregateStore: TotalsReader {
    /// Adds the new contributions to the totals of their days and months, and records the spans of the batch as processed. The
    /// call is atomic: readers see the whole batch or nothing of it.
    ///
    /// The whole batch is durable when the call returns. The store has its own ledger of identities, which decides which
    /// contributions are new. A repeated call adds nothing and reports duplicates. Concurrent calls have the same result as
    /// calls one after the other.
    ///
    /// The same transaction also stores the offsets of [`Batch::spans`] and the days of both copies of each
    /// [conflict](crate::Conflict), as [`EventStore::store`](super::EventStore::store) does.
    ///
    /// Not cancel safe: the caller must let the future finish.
    ///
    /// # Errors
    /// After a retryable error, the store has counted the whole batch or nothing of it. The caller can safely repeat the call.
    /// [`Error::MonthsDropped`] if an event lies in a month that retention has dropped. Then the store has counted nothing.
    async fn add(&self, batch: &Batch<Contribution>) -> Result<BatchOutcome, Error>;
}
