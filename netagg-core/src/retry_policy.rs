//! The pauses between the attempts of a call that may succeed later: they grow, with jitter.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio_util::sync::CancellationToken;

use crate::Error;

/// How failed attempts are retried. The pauses double from `first_delay` up to `max_delay`. Each pause is lengthened by a random
/// part of itself (jitter), so that many clients do not retry at the same moments.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// The pause after the first failure. Default: 100 ms.
    pub first_delay: Duration,
    /// The longest pause, before the random part is added. Default: 3 s.
    pub max_delay: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { first_delay: Duration::from_millis(100), max_delay: Duration::from_secs(3) }
    }
}

impl RetryPolicy {
    /// Repeats `attempt` until it succeeds; returns `None` if `shutdown` is cancelled first. Logs the first failure. A service
    /// uses this at its start to wait for a dependency that is not available yet.
    ///
    /// # Errors
    /// The first error that is not [retryable](Error::is_retryable).
    pub async fn retry<T>(
        &self,
        shutdown: &CancellationToken,
        attempt: impl AsyncFn() -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        let mut backoff = self.backoff();
        let mut is_logged = false;
        loop {
            match attempt().await {
                Ok(value) => return Ok(Some(value)),
                Err(error) if error.is_retryable() => {
                    if !std::mem::replace(&mut is_logged, true) {
                        tracing::warn!(%error, "not available yet; waiting");
                    }
                }
                Err(error) => return Err(error),
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(None),
                () = tokio::time::sleep(backoff.next_delay()) => {}
            }
        }
    }

    /// A random duration from `duration` to one and a half times `duration`.
    pub(crate) fn jittered(duration: Duration) -> Duration {
        let share = ExponentialBuilder::default().with_jitter().with_min_delay(duration / 2).build().next();
        duration / 2 + share.unwrap_or_default()
    }

    pub(crate) fn backoff(&self) -> Backoff {
        let delays = ExponentialBuilder::default()
            .with_jitter()
            .with_min_delay(self.first_delay)
            .with_max_delay(self.max_delay)
            .without_max_times()
            .build();
        Backoff { delays, max_delay: self.max_delay }
    }
}

/// The growing pauses between attempts.
pub(crate) struct Backoff {
    delays: ExponentialBackoff,
    max_delay: Duration,
}

impl Backoff {
    pub(crate) fn next_delay(&mut self) -> Duration {
        self.delays.next().unwrap_or(self.max_delay)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_start_waits_only_after_retryable_errors() {
        let (policy, shutdown) = (RetryPolicy::default(), CancellationToken::new());
        let attempts = AtomicU32::new(0);
        let third = async || match attempts.fetch_add(1, Relaxed) {
            0 | 1 => Err(Error::unavailable("postgres", "unavailable")),
            attempt => Ok(attempt),
        };
        assert_eq!(policy.retry(&shutdown, third).await.expect("available at the third attempt"), Some(2));
        let broken = async || Err::<(), _>(Error::internal("postgres", "broken"));
        assert!(policy.retry(&shutdown, broken).await.is_err_and(|error| !error.is_retryable()));
        shutdown.cancel();
        let unavailable = async || Err::<(), _>(Error::unavailable("postgres", "unavailable"));
        assert_eq!(policy.retry(&shutdown, unavailable).await.expect("no error"), None);
    }
}
