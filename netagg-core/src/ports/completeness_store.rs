//! The store of completeness: the instant up to which a service has processed its topic.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::Error;
use crate::record::Position;
use crate::time::Timestamp;

/// Records the instant up to which a service has processed its topic. The stores return this instant: see
/// [`EventStore::complete_through`](super::EventStore::complete_through) and
/// [`TotalsReader::complete_through`](super::TotalsReader::complete_through).
#[async_trait]
pub trait CompletenessStore: Debug + Send + Sync {
    /// Records that `service` has processed all records that `topic` held at `through`. The caller gives the committed
    /// positions of the service's group in `committed`. The instant of a topic never moves back.
    ///
    /// Returns true if the stored progress of the service agrees with `committed`. Otherwise returns false and records nothing.
    ///
    /// - For each partition of `committed`, the progress must contain all offsets from the first processed offset up to the
    ///   position. Progress beyond the position also agrees.
    /// - A partition without any progress agrees only with the position 0.
    /// - The progress in other topics does not matter. An unknown service has no progress.
    ///
    /// # Errors
    /// A retryable error while the store is unavailable.
    async fn note_complete(
        &self,
        service: &str,
        topic: &str,
        through: Timestamp,
        committed: &[Position],
    ) -> Result<bool, Error>;
}
