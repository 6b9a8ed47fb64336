//! The errors of the usage service.

use super::query::InvalidQuery;
use crate::Error;

/// Why the usage service gives no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UsageError {
    /// The question is wrong. The same question fails again.
    #[error(transparent)]
    InvalidQuery(#[from] InvalidQuery),
    /// A store failed. [`Error::is_retryable`] says whether the same question may succeed later.
    #[error(transparent)]
    Store(#[from] Error),
}

impl UsageError {
    /// Whether the same question may be answered later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::InvalidQuery(_) => false,
            Self::Store(error) => error.is_retryable(),
        }
    }
}
