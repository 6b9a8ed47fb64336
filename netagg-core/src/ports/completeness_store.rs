//! Where completeness is recorded.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::Error;
use crate::record::Position;
use crate::time::Timestamp;

/// Records up to which instant a service has processed its topic. The stores answer with it: see
/// [`EventStore::complete_through`](super::EventStore::complete_through) and
/// [`TotalsReader::complete_through`](super::TotalsReader::complete_through).
#[async_trait]
pub trait CompletenessStore: Debug + Send + Sync {
    /// Records that `service` has processed everything that `topic` held at `through`; by then its group had committed
    /// `committed`. The instant of a topic never moves back.
    ///
    /// Returns false and records nothing unless the stored progress of the service contains all offsets of each partition of
    /// `committed`, from the first processed offset up to the position. A partition without any progress agrees with the
    /// position 0 alone. Progress beyond a position agrees. Other topics do not matter, and an unknown service has no progress.
    ///
    /// # Errors
    /// Retryable while the store cannot be reached.
    async fn note_complete(
        &self,
        service: &str,
        topic: &str,
        through: Timestamp,
        committed: &[Position],
    ) -> Result<bool, Error>;
}
