//! The interface that ingestors and aggregators share.

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
    /// The name under which stores record the progress of the service: `ingestor` or `aggregator`.
    fn service(&self) -> &'static str;

    /// The counters of the service.
    fn stats(&self) -> Arc<ConsumerStats>;

    /// Consumes `source` until it ends or `shutdown` is cancelled, and closes the source.
    ///
    /// # Errors
    /// An error that is not [retryable](Error::is_retryable). Also an error of a commit, and an error of the close at the end of
    /// `source`. All other retryable errors are retried.
    async fn run(&self, source: &mut dyn EventSource, shutdown: CancellationToken) -> Result<(), Error>;
}
