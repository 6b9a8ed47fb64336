//! The one error of ports and services.

use crate::time::Month;

/// What an adapter reports as the cause.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The text of `error`, and those of its causes that are not part of the texts before: an error often quotes its cause.
pub fn causes(error: &dyn std::error::Error) -> Vec<String> {
    let mut texts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if !texts.iter().any(|told| told.contains(&text)) {
            texts.push(text);
        }
        next = error.source();
    }
    texts
}

/// Why a port or a service could not do what it was asked.
///
/// What matters to a caller is whether doing the same again can help: [`Error::is_retryable`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A dependency is away, overloaded, or broke off; nothing of the call took effect, or all of it did. The same
    /// call again may succeed, with no effect doubled.
    #[error("{dependency} is unavailable: {source}")]
    Unavailable {
        /// What is unavailable, such as `postgres`.
        dependency: &'static str,
        /// What was seen of it.
        #[source]
        source: BoxError,
    },
    /// A dependency answers, but an operator has to act before it can serve: a schema not migrated, a password or a
    /// privilege that is wrong, a topic that isn't there. The same call succeeds once that is done.
    #[error("{dependency} is not set up: {reason}")]
    NotSetUp {
        /// What is to be set up, such as `postgres`.
        dependency: &'static str,
        /// What is wrong, and what to do.
        reason: String,
        /// What was seen of it.
        #[source]
        source: Option<BoxError>,
    },
    /// A dependency is set up in a way that netagg does not support; nothing of the call took effect. The same call fails
    /// again, until the set-up is another one.
    #[error("{dependency} is not supported as it is set up: {reason}")]
    Unsupported {
        /// The dependency, such as `postgres`.
        dependency: &'static str,
        /// How it is set up, and what to do.
        reason: String,
    },
    /// A dependency refuses this very data. The same call fails again.
    #[error("{dependency} refuses the data: {source}")]
    Refused {
        /// What refuses it, such as `postgres`.
        dependency: &'static str,
        /// What it says.
        #[source]
        source: BoxError,
    },
    /// Events of the call lie in months that retention has dropped; nothing of it took effect. The same call without
    /// them succeeds.
    #[error("the months up to {through} are dropped")]
    MonthsDropped {
        /// The newest month that is dropped, and with it every month before.
        through: Month,
    },
    /// A bug or a state nobody foresaw. The same call most likely fails again.
    #[error("{dependency} failed: {source}")]
    Internal {
        /// Where it happened.
        dependency: &'static str,
        /// What happened.
        #[source]
        source: BoxError,
    },
}

impl Error {
    /// A dependency that is away for now.
    pub fn unavailable(dependency: &'static str, source: impl Into<BoxError>) -> Self {
        Self::Unavailable { dependency, source: source.into() }
    }

    /// A state nobody foresaw.
    pub fn internal(dependency: &'static str, source: impl Into<BoxError>) -> Self {
        Self::Internal { dependency, source: source.into() }
    }

    /// Whether the same call may succeed later, by itself or once an operator has acted.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::NotSetUp { .. })
    }

    /// The dependency it is about, such as `postgres`; `None` if the request itself is what is wrong.
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
    fn a_cause_that_is_quoted_is_not_told_again() {
        #[derive(Debug, thiserror::Error)]
        #[error("no way")]
        struct Outer(#[source] std::io::Error);
        let refused = || std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "connection refused");
        assert_eq!(causes(&Error::unavailable("postgres", refused())), ["postgres is unavailable: connection refused"]);
        let error = Error::unavailable("jwks", Outer(refused()));
        assert_eq!(causes(&error), ["jwks is unavailable: no way", "connection refused"]);
    }
}
