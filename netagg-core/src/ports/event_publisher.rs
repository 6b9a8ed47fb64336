//! Where events are sent to.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::Error;
use crate::record::OutgoingRecord;

/// A writer of the log that [`EventSource`](super::EventSource) reads.
#[async_trait]
pub trait EventPublisher: Debug + Send + Sync {
    /// Appends `records`; those with equal keys stay in order within the call.
    ///
    /// All are durable when it returns. On an error any of them may be: sending all again doubles some, which identity
    /// makes harmless. Not cancel safe in the same sense. An absent broker is waited for, within the adapter's bound.
    ///
    /// # Errors
    /// Retryable while the broker is away or full; [`Error::Refused`] for a record it will never take (too large).
    async fn publish(&self, records: Vec<OutgoingRecord>) -> Result<(), Error>;
}
