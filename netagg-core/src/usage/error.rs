//! The errors of the usage service.

use super::query::InvalidQuery;
use crate::Error;

/// The reason why the usage service returns no response.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UsageError {
    /// The request is invalid. The same request fails again.
    #[error(transparent)]
    InvalidQuery(#[from] InvalidQuery),
    /// A store failed. [`Error::is_retryable`] says whether the same request may succeed later.
    #[error(transparent)]
    Store(#[from] Error),
}

impl UsageError {
    /// Whether the same request may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::InvalidQuery(_) => false,
            Self::Store(error) => error.is_retryable(),
        }
    }
}
