//! What ingestors and aggregators have in common.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::ConsumerStats;
use crate::Error;
use crate::ports::EventSource;

/// A service that consumes events: an [`Ingestor`](crate::Ingestor) or an [`Aggregator`](crate::Aggregator).
#[async_trait]
pub trait EventConsumer: Debug + Send + Sync {
    /// The name of the service, as stores record its progress: `ingestor` or `aggregator`.
    fn service(&self) -> &'static str;

    /// Its counters.
    fn stats(&self) -> Arc<ConsumerStats>;

    /// Consumes `source` until it ends or `shutdown` is cancelled, and closes it.
    ///
    /// # Errors
    /// Only what no repetition can help.
    async fn run(&self, source: &mut dyn EventSource, shutdown: CancellationToken) -> Result<(), Error>;
}
