//! The error of a load.

use tokio::task::JoinError;

use crate::error::{BoxError, Error};

/// The reason why a load cannot continue.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The model cannot make an event.
    #[error("the event model failed: {0}")]
    Model(#[source] BoxError),
    /// The publisher or the store has failed with an error that is not retryable.
    #[error(transparent)]
    Adapter(#[from] Error),
    /// A sending task has panicked.
    #[error(transparent)]
    Panicked(#[from] JoinError),
}
