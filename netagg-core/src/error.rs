//! The error type of all ports and services.

use crate::time::Month;

/// The error that an adapter reports as the cause.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The text of `error`, followed by the texts of its causes. A text that is part of an earlier text is left out, because errors
/// often quote their cause.
pub fn causes(error: &dyn std::error::Error) -> Vec<String> {
    let mut texts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if !texts.iter().any(|earlier| earlier.contains(&text)) {
            texts.push(text);
        }
        next = error.source();
    }
    texts
}

/// Why a call of a port or a service failed.
///
/// A caller mainly needs to know whether a retry can help: see [`Error::is_retryable`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A dependency is unavailable or overloaded, or it broke the connection. The call had either no effect or its full effect.
    /// A retry of the call may succeed, and never doubles an effect.
    #[error("{dependency} is unavailable: {source}")]
    Unavailable {
        /// The name of the dependency, such as `postgres`.
        dependency: &'static str,
        /// The error that the adapter got.
        #[source]
        source: BoxError,
    },
    /// A dependency responds, but an operator must act before netagg can use it. Examples: a missing migration, a wrong password,
    /// a missing privilege, a missing topic. After the operator has acted, a retry of the call succeeds.
    #[error("{dependency} is not set up: {reason}")]
    NotSetUp {
        /// The name of the dependency, such as `postgres`.
        dependency: &'static str,
        /// The problem, and the action that solves it.
        reason: String,
        /// The error that the adapter got, if there is one.
        #[source]
        source: Option<BoxError>,
    },
    /// netagg cannot use a dependency as it is set up. The call had no effect. A retry fails until the setup is changed.
    #[error("{dependency} cannot be used as it is set up: {reason}")]
    Unsupported {
        /// The name of the dependency, such as `postgres`.
        dependency: &'static str,
        /// The problem of the setup, and the action that solves it.
        reason: String,
    },
    /// A dependency refuses the data of the call. A retry with the same data fails again.
    #[error("{dependency} refuses the data: {source}")]
    Refused {
        /// The name of the dependency, such as `postgres`.
        dependency: &'static str,
        /// The reason that the dependency gives.
        #[source]
        source: BoxError,
    },
    /// Some events of the call are in months that retention has dropped. The call had no effect. A call without these events
    /// succeeds.
    #[error("the months up to {through} are dropped")]
    MonthsDropped {
        /// The newest dropped month. All earlier months are dropped, too.
        through: Month,
    },
    /// A bug or an unexpected state. A retry most likely fails again.
    #[error("{dependency} failed: {source}")]
    Internal {
        /// The dependency or the part of netagg that failed.
        dependency: &'static str,
        /// The cause.
        #[source]
        source: BoxError,
    },
}

impl Error {
    /// The error of a dependency that is unavailable for now.
    pub fn unavailable(dependency: &'static str, source: impl Into<BoxError>) -> Self {
        Self::Unavailable { dependency, source: source.into() }
    }

    /// The error of a bug or of an unexpected state.
    pub fn internal(dependency: &'static str, source: impl Into<BoxError>) -> Self {
        Self::Internal { dependency, source: source.into() }
    }

    /// Whether a retry may succeed later, perhaps only after an operator has acted.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::NotSetUp { .. })
    }

    /// The dependency that the error is about, such as `postgres`; `None` if the data of the call are the problem.
    pub fn dependency(&self) -> Option<&'static str> {
        match self {
            Self::Unavailable { dependency, .. }
            | Self::NotSetUp { dependency, .. }
            | Self::Unsupported { dependency, .. }
            | Self::Refused { dependency, .. }
            | Self::Internal { dependency, .. } => Some(dependency),
            Self::MonthsDropped { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_cause_is_not_repeated() {
        #[derive(Debug, thiserror::Error)]
        #[error("no way")]
        struct Outer(#[source] std::io::Error);
        let refused = || std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "connection refused");
        assert_eq!(causes(&Error::unavailable("postgres", refused())), ["postgres is unavailable: connection refused"]);
        let error = Error::unavailable("jwks", Outer(refused()));
        assert_eq!(causes(&error), ["jwks is unavailable: no way", "connection refused"]);
    }
}
