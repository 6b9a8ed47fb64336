//! The failures that end a program.

use netagg_core::load::LoadError;
use netagg_core::{BoxError, Error};

/// Why a program ends without having done its job.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The configuration or the arguments cannot be used: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// The job failed: exit code 1.
    #[error(transparent)]
    Failed(#[from] BoxError),
    /// What the program needs around its job has failed.
    #[error(transparent)]
    Program(#[from] netagg_program::Failure),
}

impl From<Failure> for netagg_program::Failure {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Usage(reason) => Self::Usage(reason),
            Failure::Failed(error) => Self::Failed(error),
            Failure::Program(failure) => failure,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Unsupported { .. } => Self::Usage(error.to_string()),
            error => Self::Failed(error.into()),
        }
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.into())
    }
}
