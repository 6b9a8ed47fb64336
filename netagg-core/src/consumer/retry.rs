//! Retries calls that may succeed later, with growing pauses and jitter, without a limit of attempts.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio_util::sync::CancellationToken;

use super::ConsumerStats;
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

    fn backoff(&self) -> Backoff {
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

/// Why a call was not retried any more.
#[derive(Debug)]
pub(crate) enum Aborted {
    /// The consumer stops, and the dependency is still unavailable.
    Stopping,
    /// The error is not retryable.
    Failed(Error),
}

/// Retries calls until they succeed, fail with an error that is not retryable, or the consumer gives up.
///
/// The start and the end of an outage of a dependency are logged once each, however many calls wait for the dependency.
#[derive(Clone, Debug)]
pub(crate) struct Retrier {
    policy: RetryPolicy,
    abandon: CancellationToken,
    /// Records the retries, and the dependencies that calls wait for.
    stats: Arc<ConsumerStats>,
    unavailable: Arc<Mutex<BTreeSet<&'static str>>>,
}

/// From this number of consecutive failures on, a dependency counts as blocked. Fewer failures are normal, such as after a
/// deadlock.
const OUTAGE: usize = 3;

impl Retrier {
    pub(crate) fn new(policy: RetryPolicy, abandon: CancellationToken, stats: Arc<ConsumerStats>) -> Self {
        Self { policy, abandon, stats, unavailable: Arc::default() }
    }

    pub(crate) fn backoff(&self) -> Backoff {
        self.policy.backoff()
    }

    /// A random duration from `duration` to one and a half times `duration`.
    pub(crate) fn jittered(&self, duration: Duration) -> Duration {
        let share = ExponentialBuilder::default().with_jitter().with_min_delay(duration / 2).build().next();
        duration / 2 + share.unwrap_or_default()
    }

    /// Repeats `attempt` while its error is retryable, and returns its result.
    pub(crate) async fn run<T, F>(&self, attempt: impl Fn() -> F) -> Result<T, Aborted>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut backoff = self.backoff();
        let mut failed = BTreeSet::new();
        let mut failures = 0;
        loop {
            let error = match attempt().await {
                Ok(value) => {
                    failed.into_iter().for_each(|dependency| self.report_success(dependency));
                    return Ok(value);
                }
                Err(error) if error.is_retryable() => error,
                Err(error) => return Err(Aborted::Failed(error)),
            };
            self.report(&error);
            failed.extend(error.dependency());
            failures += 1;
            if failures >= OUTAGE {
                self.stats.set_blocked_on(&error);
            }
            tokio::select! {
                biased;
                () = self.abandon.cancelled() => return Err(Aborted::Stopping),
                () = tokio::time::sleep(backoff.next_delay()) => {}
            }
        }
    }

    /// Counts a failure. Logs that the dependency is unavailable, unless this is logged already.
    pub(crate) fn report(&self, error: &Error) {
        let Some(dependency) = error.dependency() else { return };
        self.stats.retried(dependency);
        if self.unavailable().insert(dependency) {
            if matches!(error, Error::NotSetUp { .. }) {
                tracing::error!(dependency, %error, "waiting until the dependency is set up");
            } else {
                tracing::warn!(dependency, %error, "waiting until the dependency is available again");
            }
        }
    }

    fn report_success(&self, dependency: &'static str) {
        self.stats.clear_blocked_on(dependency);
        if self.unavailable().remove(dependency) {
            tracing::info!(dependency, "the dependency is available again");
        }
    }

    fn unavailable(&self) -> std::sync::MutexGuard<'_, BTreeSet<&'static str>> {
        self.unavailable.lock().unwrap_or_else(PoisonError::into_inner)
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
