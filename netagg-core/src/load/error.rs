//! Why a load cannot go on.

use tokio::task::JoinError;

use crate::error::{BoxError, Error};

/// Why a load cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The model cannot make events.
    #[error("the model of events: {0}")]
    Model(#[source] BoxError),
    /// The publisher or the store has failed, and no repetition can help.
    #[error(transparent)]
    Adapter(#[from] Error),
    /// A task that sends has panicked.
    #[error(transparent)]
    Panicked(#[from] JoinError),
}
