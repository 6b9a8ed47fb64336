//! The publisher that appends records to the log.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::Error;
use crate::record::OutgoingRecord;

/// Appends records to the log that an [`EventSource`](super::EventSource) reads.
#[async_trait]
pub trait EventPublisher: Debug + Send + Sync {
    /// Appends `records`. Records with equal keys of one call stay in their order.
    ///
    /// All records are durable when the call returns. After an error, or if the call is cancelled, some of them may be
    /// durable. A caller can send all of them again: this may repeat some records, and the consumers drop repeated events by
    /// their identity. While the broker is unavailable, the call waits, up to a time limit of the adapter.
    ///
    /// # Errors
    /// A retryable error while the broker is unavailable or full. [`Error::Refused`] for a record that the broker never
    /// accepts, such as a record that is too large.
    async fn publish(&self, records: Vec<OutgoingRecord>) -> Result<(), Error>;
}
