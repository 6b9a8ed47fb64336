//! The failures that end a program, and their exit codes.

use std::process::ExitCode;

use netagg_core::Error;
use netagg_core::load::LoadError;

/// The exit code for wrong configuration or usage.
pub(crate) const WRONG_USAGE: u8 = 2;

/// The reason why a program fails.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The configuration or the arguments cannot be used: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// The job failed: exit code 1.
    #[error(transparent)]
    Failed(#[from] netagg_core::BoxError),
    /// The job is done, but its output could not be written: exit code 1.
    #[error("the command has done its work, but its output could not be written to stdout: {0}")]
    Output(std::io::Error),
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

impl Failure {
    /// The exit code of the program.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(WRONG_USAGE),
            Self::Failed(_) | Self::Output(_) => ExitCode::FAILURE,
        }
    }
}
